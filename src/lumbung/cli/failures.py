"""`lumbung failures`: what cannot be delivered, why, and trying it again."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.cli import audit, chosen, output, session
from lumbung.cli.chosen import Chosen
from lumbung.db import upkeep, wake
from lumbung.model import ListingStatus, StoreMode

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
LIMIT_MAX = 10_000


@app.command("list")
def list_(
    context: typer.Context,
    store: chosen.StoreOption = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="Listings shown at most.")] = 100,
    tenant: session.TenantOption = None,
    as_json: session.JsonOption = False,
) -> None:
    """Show paused stores, parked listings, and listings whose attempts keep failing."""
    paused, listings = session.run(context, partial(_list, tenant, store, limit + 1))
    output.listing([*paused, *listings[:limit]], COLUMNS, as_json=as_json)
    if len(listings) > limit:
        output.note(f"There are more than {limit} listings; see more with --limit")
    if listings:
        output.note("When the cause is mended: `lumbung failures retry`")


async def _list(
    tenant: str | None, store: str | None, limit: int, hub: Installation
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
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
    return paused, [{"what": _what(row["state"]), **row} for row in rows]


def _what(state: str) -> str:
    return "parked" if state == ListingStatus.PARKED else "keeps failing"


@app.command("retry")
def retry(
    context: typer.Context,
    store: chosen.StoreOption = None,
    skus: chosen.SkusOption = None,
    every: chosen.AllOption = False,
    tenant: session.TenantOption = None,
) -> None:
    """Try parked listings again, and at once those that wait after a failure."""
    chosen.refuse_nothing(store, skus, every)
    which, counts = session.run(context, partial(_retry, tenant, store, skus))
    count = counts.total()
    if not count:
        output.say("Nothing to try again: no listing is parked or waits after a failure")
        return
    output.say(f"Trying {count} listing{'' if count == 1 else 's'} again")
    for row in which.stores:
        problem = chosen.not_live(row)
        if counts[row.id] and problem is not None:
            output.note(problem)


async def _retry(
    tenant: str | None, store: str | None, skus: list[str] | None, hub: Installation
) -> tuple[Chosen, Counter[int]]:
    async with hub.pool.connection() as connection:
        which = await chosen.find_chosen(connection, tenant, store, skus)
    counts: Counter[int] = Counter()
    after: int | None = 0
    with output.progress("Listings", None) as advance:
        while after is not None:
            after, found = await session.retried(partial(_retry_chunk, hub, which, after))
            counts.update(found)
            advance(len(found))
    if counts:
        await wake.notify(hub.pool, counts)
    return which, counts


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
