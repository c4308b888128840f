"""`lumbung resync`: tell marketplaces again what they were told last."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lumbung.cli import audit, chosen, output, session
from lumbung.cli.chosen import Chosen
from lumbung.db import upkeep, wake
from lumbung.db.upkeep import Marked
from lumbung.errors import UsageError
from lumbung.model import DueFor, StoreMode

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

WARNING = "Units that were sold since, and that the merchant has not reported yet, are put up again"


def resync(
    context: typer.Context,
    store: chosen.StoreOption = None,
    skus: chosen.SkusOption = None,
    every: chosen.AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    tenant: session.TenantOption = None,
) -> None:
    """Tell live stores again what their listings show.

    Careful: units that were sold since, and that the merchant has not reported yet, are put up again. To find and mend
    only what differs, use `lumbung reconcile`.
    """
    chosen.refuse_nothing(store, skus, every)
    which, count = session.run(context, partial(_look, tenant, store, skus))
    for row in which.stores:
        if (problem := chosen.not_live(row)) is not None:
            output.note(f"Left out. {problem}")
    if not count:
        output.say("Nothing to tell again: no listing of a live store was told a figure and is at rest")
        return
    text = f"{count} listing{'' if count == 1 else 's'}"
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{text} would be told again: say --yes. {WARNING}")
        typer.confirm(f"{WARNING}. Tell {text} again?", abort=True, err=True)
    told = session.run(context, partial(_resync, which))
    output.say(f"Telling {told} listing{'' if told == 1 else 's'} again")


async def _look(tenant: str | None, store: str | None, skus: list[str] | None, hub: Installation) -> tuple[Chosen, int]:
    async with hub.pool.connection() as connection:
        which = await chosen.find_chosen(connection, tenant, store, skus)
        if which.store is not None and (problem := chosen.not_live(which.store)) is not None:
            raise UsageError(problem)
        counts = await upkeep.count_idle(connection, tenant_id=which.tenant_id, store_ids=live(which), skus=which.skus)
    return which, sum(counts.values())


async def _resync(which: Chosen, hub: Installation) -> int:
    marked = await mark(hub, which, live(which), DueFor.PUSH, "resync")
    return len(marked)


def live(which: Chosen) -> list[int]:
    return [row.id for row in which.stores if row.mode is StoreMode.LIVE]


async def mark(hub: Installation, which: Chosen, store_ids: list[int], due_for: DueFor, action: str) -> list[Marked]:
    """Make the idle listings of some stores due, chunk by chunk, and wake the workers."""
    marked: list[Marked] = []
    with output.progress("Listings", None) as advance:
        while chunk := await session.retried(partial(_mark_chunk, hub, which, store_ids, due_for, action, marked)):
            marked += chunk
            advance(len(chunk))
    if marked:
        await wake.try_notify(hub.pool, Counter(listing.store_id for listing in marked))
    return marked


async def _mark_chunk(
    hub: Installation, which: Chosen, store_ids: list[int], due_for: DueFor, action: str, marked: list[Marked]
) -> list[Marked]:
    async with session.locking(hub.pool, hub.settings) as connection:
        chunk = await upkeep.mark_idle(
            connection,
            tenant_id=which.tenant_id,
            store_ids=store_ids,
            skus=which.skus,
            due_for=due_for,
            after=marked[-1].listing_id if marked else 0,
            limit=hub.settings.chunk_rows_max,
        )
        if chunk:
            detail = {"listings": len(chunk), "due_for": due_for, **which.detail}
            await audit.write(connection, which.tenant_id, action, which.subject, **detail)
    return chunk
