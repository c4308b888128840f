"""`lumbung failures`: what cannot be delivered, why, and trying it again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.cli import audit, chosen, output, session
from lumbung.cli.chosen import Chosen
from lumbung.db import upkeep, wake
from lumbung.db.stores import StoreRow
from lumbung.model import ListingStatus, StoreMode, WaitReason

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="What cannot be delivered, and trying it again.", no_args_is_help=True)

COLUMNS = {
    "what": "WHAT",
    "store": "STORE",
    "sku": "SKU",
    "remote_variant": "REMOTE VARIANT",
    "why": "WHY",
    "since": "SINCE",
    "attempts": "ATTEMPTS",
}
ATTEMPTS_MIN = 3
LOCKED = frozenset({WaitReason.DEFERRED, WaitReason.FLOOR})
LIMIT_MAX = 10_000


@app.command("list")
def list_(
    context: typer.Context,
    store: chosen.StoreOption = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Listings shown at most.")] = 100,
    tenant: session.TenantOption = None,
    as_json: session.JsonOption = False,
) -> None:
    """Show paused stores, and listings that are parked, keep failing, or wait for a marketplace's lock to end."""
    which, paused, listings = session.run(context, partial(_list, tenant, store, limit + 1))
    output.listing([*paused, *listings[:limit]], COLUMNS, as_json=as_json)
    if len(listings) > limit:
        output.note(f"There are more than {limit} listings; see more with --limit")
    for row in which.stores:
        if row.mode is StoreMode.PAUSED:
            output.note(f"{chosen.not_live(row, tenant)} when that is mended")
    if listings:
        which_ones = "--all" if which.store is None else f"--store {which.store.id}"
        more = "" if tenant is None else f" --tenant {shlex.quote(tenant)}"
        output.note(f"When the cause is mended: `lumbung failures retry {which_ones}{more}`")


async def _list(
    tenant: str | None, store: str | None, limit: int, hub: Installation
) -> tuple[Chosen, list[dict[str, Any]], list[dict[str, Any]]]:
    async with hub.pool.connection() as connection:
        which = await chosen.find_chosen(connection, tenant, store)
        rows = await upkeep.failing_listings(
            connection,
            tenant_id=which.tenant_id,
            store_id=None if which.store is None else which.store.id,
            attempts_min=ATTEMPTS_MIN,
            limit=limit,
        )
    nothing = dict.fromkeys(("sku", "remote_variant", "since", "attempts", "listing_id"))
    paused = [
        {"what": "store paused", "store": row.name, "why": row.pause_reason, **nothing}
        for row in which.stores
        if row.mode is StoreMode.PAUSED
    ]
    return which, paused, [{**row, "what": _what(row), "why": _why(row)} for row in rows]


def _what(row: Mapping[str, Any]) -> str:
    if row["state"] == ListingStatus.PARKED:
        return "parked"
    if row["waits_for"] in LOCKED:
        return f"waits until {output.cell(row['waits_until'])}"
    return "keeps failing"


def _why(row: Mapping[str, Any]) -> str | None:
    """Of a floor, what it comes to: the last answer was that the floor was taken."""
    if row["waits_for"] != WaitReason.FLOOR:
        why: str | None = row["why"]
        return why
    return f"The marketplace has reserved more: shows {row['quantity_delivered']}, should show {row['quantity_due']}"


@app.command("retry")
def retry(
    context: typer.Context,
    store: chosen.StoreOption = None,
    skus: chosen.SkusOption = None,
    every: chosen.AllOption = False,
    tenant: session.TenantOption = None,
) -> None:
    """Try parked listings again, and at once those that wait after a failure, for a lock to end or a floor to fall.

    Exit status 1 when nothing can come of it yet: the store is paused or observed, or no worker runs.
    """
    chosen.refuse_nothing(store, skus, every)
    found = session.run(context, partial(_retry, tenant, store, skus))
    held = [row for row in found.which.stores if _is_held(row, found)]
    ids = {row.id for row in held}
    tried = sum(count for store_id, count in found.retried.items() if store_id not in ids)
    failing = sum(failing for store_id, (_, failing) in found.due.items() if store_id not in ids)
    if tried:
        output.say(f"Trying {_listings(tried)} again")
    elif failing and found.workers:
        output.say(f"Nothing to hurry: {_listings(failing)} that failed before {_are(failing)} being tried now")
    elif failing:
        output.note(f"{_listings(failing)} {_are(failing)} due, but no worker runs: start one with `lumbung serve`")
    elif not held:
        output.say("Nothing to try again: no listing is parked or waits")
    for row in held:
        if count := found.retried[row.id]:
            output.note(f"{_listings(count)} of store {row.name!r} {_are(count)} due again, but nothing is sent")
        output.note(str(chosen.not_live(row, tenant)))
    if held or (failing and not tried and not found.workers):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Retried:
    """By store: `retried` listings; those that are `due` now, and how many of them have failed before."""

    which: Chosen
    retried: Counter[int]
    due: dict[int, tuple[int, int]]
    workers: int


def _is_held(store: StoreRow, found: Retried) -> bool:
    """Whether nothing of what is meant is sent to the store. A paused one is a failure by itself."""
    if store.mode is StoreMode.PAUSED and found.which.skus is None:
        return True
    return store.mode is not StoreMode.LIVE and bool(found.retried[store.id] or found.due.get(store.id))


def _listings(count: int) -> str:
    return f"{count} listing{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


async def _retry(tenant: str | None, store: str | None, skus: list[str] | None, hub: Installation) -> Retried:
    async with hub.pool.connection() as connection:
        which = await chosen.find_chosen(connection, tenant, store, skus)
        due = await upkeep.count_due(
            connection,
            tenant_id=which.tenant_id,
            store_id=None if which.store is None else which.store.id,
            skus=which.skus,
        )
        workers = await upkeep.workers_live(connection)
    retried: Counter[int] = Counter()
    after: int | None = 0
    with output.progress("Listings", None) as advance:
        while after is not None:
            after, found = await session.retried(partial(_retry_chunk, hub, which, after))
            retried.update(found)
            advance(len(found))
    if retried:
        await wake.try_notify(hub.pool, retried)
    return Retried(which, retried, due, workers)


async def _retry_chunk(hub: Installation, which: Chosen, after: int) -> tuple[int | None, list[int]]:
    async with session.locking(hub.pool, hub.settings) as connection:
        last, found = await upkeep.retry_chunk(
            connection,
            tenant_id=which.tenant_id,
            store_id=None if which.store is None else which.store.id,
            skus=which.skus,
            after=after,
            limit=hub.settings.chunk_rows_max,
        )
        if found:
            detail = {"listings": len(found), **which.detail}
            await audit.write(connection, which.tenant_id, "failures.retry", which.subject, **detail)
    return last, found
