"""The item deadline: an item that was not delivered in time ends with the reason of that moment. Its listing stays due.

    ended_until                            now - deadline - margin     now - deadline                    now
    ----|----- looked at by this sweep ------------|----- looked at, and again -----|----- not yet late ----|

A tenant's watermark says up to when all items have ended. A sweep reads the records from there by their key, a chunk a
transaction, under the tenant's row, so that several workers never do the same; then it moves the watermark. A record
may become visible later than its created_at says, by as long as accepting takes: so the watermark stays a margin
behind. Only unfinished records are touched, so nothing ends twice, and no index is needed.

Locks are taken in the order of everybody else: the listings' states, sorted; their items; the records, sorted. So an
item ends by delivery, by being overtaken or by the deadline, whichever has the state's lock first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import structlog

from lumbung.db import deadline as db
from lumbung.db import stock
from lumbung.db.deadline import OpenItem, Turn
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.errors import LockBusy, LumbungError
from lumbung.model import DueFor, ListingStatus, StoreMode, WaitReason
from lumbung.settings import Settings

log = structlog.get_logger()

CHUNKS_A_PAGE = 20  # finished records are only read past
UNAVAILABLE = frozenset({"Unavailable", "InDoubt"})
FINE = frozenset({"Accepted", "Observed"})
TELLING = frozenset({WaitReason.DEFERRED, WaitReason.FLOOR, WaitReason.SUBMITTED})


async def keep_sweeping(pool: Pool, settings: Settings) -> None:
    """Sweep until cancelled; a database that is away is tried again."""
    away = False
    while True:
        try:
            await sweep(pool, settings)
            async with pool.connection() as connection:
                seconds = await db.sweep_seconds(connection, sweep_seconds=settings.deadline_sweep_seconds)
            away = False
        except LumbungError as error:
            if not away:
                log.warning("items that are out of time cannot be ended, trying again", error=str(error))
            away = True
            seconds = settings.deadline_sweep_seconds
        await asyncio.sleep(seconds)


async def sweep(pool: Pool, settings: Settings) -> int:
    """End what is out of time, of all tenants that nobody else has just swept; returns how many items ended."""
    sweep_seconds, margin_seconds = settings.deadline_sweep_seconds, settings.deadline_margin_seconds
    async with pool.transaction() as connection:
        await db.pass_over(connection, sweep_seconds=sweep_seconds, margin_seconds=margin_seconds)
    async with pool.connection() as connection:
        tenants = await db.tenants_to_sweep(connection, sweep_seconds=sweep_seconds)
    ended = 0
    for tenant_id in tenants:
        ended += await _sweep_tenant(pool, settings, tenant_id)
    return ended


async def _sweep_tenant(pool: Pool, settings: Settings, tenant_id: int) -> int:
    """Chunk by chunk. A lock that is not had in time leaves the rest to the next sweep."""
    ended, after, more = 0, None, True
    while more:
        try:
            async with pool.transaction(lock_timeout_ms=settings.update_lock_timeout_ms) as connection:
                count, after, more = await _sweep_chunk(connection, settings, tenant_id, after)
        except LockBusy:
            log.info("items are out of time, but their listings are locked: left to the next sweep", tenant=tenant_id)
            return ended
        ended += count
    if ended:
        log.info("items ended that were out of time", tenant=tenant_id, items=ended)
    return ended


async def _sweep_chunk(
    connection: Connection, settings: Settings, tenant_id: int, after: tuple[datetime, int] | None
) -> tuple[int, tuple[datetime, int] | None, bool]:
    """How many items ended, after which record to go on, and whether there is more."""
    turn = await db.take_turn(
        connection,
        tenant_id=tenant_id,
        sweep_seconds=settings.deadline_sweep_seconds,
        margin_seconds=settings.deadline_margin_seconds,
    )
    if turn is None:
        return 0, None, False
    page = await db.open_records(
        connection,
        turn,
        after or (turn.since, 0),
        records_max=CHUNKS_A_PAGE * settings.chunk_rows_max,
        items_max=settings.chunk_rows_max,
    )
    ended = await _end(connection, turn, page.open) if page.open else 0
    handled = page.last[0] if page.more and page.last is not None else turn.until
    ended_until = max(turn.since, min(handled, turn.until))
    await db.move_watermark(connection, tenant_id=tenant_id, ended_until=ended_until, swept=not page.more)
    return ended, page.last, page.more


async def _end(connection: Connection, turn: Turn, records: Sequence[tuple[datetime, int]]) -> int:
    listings = await db.listings_of_open_items(connection, turn.tenant_id, records)
    await stock.lock_states(connection, ((turn.tenant_id, listing) for listing in listings))
    items = await db.open_items(connection, turn.tenant_id, records)
    return await db.end_items(
        connection, turn.tenant_id, [(item, message(item, turn.deadline_seconds)) for item in items]
    )


def message(item: OpenItem, deadline_seconds: int) -> str:
    """What people read of an item that is out of time."""
    return f"Not delivered within {period(deadline_seconds)}: {reason(item)}"


def reason(item: OpenItem) -> str:
    """Why an item is still open: what stands in the way of all first, then what stands in the way of its listing."""
    last = item.last_message if item.last_outcome not in FINE else None
    if item.store_mode is StoreMode.PAUSED:
        return f"Store paused: {item.pause_reason}"
    if item.store_mode is StoreMode.OBSERVE:
        return "The store is observed: nothing is sent to it"
    if item.tenant_disabled:
        return "The tenant is disabled"
    if item.state is ListingStatus.PARKED:
        return f"Parked: {item.park_reason}"
    if item.trouble is not None and item.trouble_since is not None:
        return f"Marketplace unavailable since {_moment(item.trouble_since)}: {item.trouble}"
    if item.failing_since is not None and item.last_outcome in UNAVAILABLE:
        return f"Marketplace unavailable since {_moment(item.failing_since)}: {last}"
    if (waits := _waits_for(item)) is not None:
        return f"Waiting ({waits}): {last}" if last else f"Waiting ({waits})"
    return last or "Other listings were sent first"


def _waits_for(item: OpenItem) -> WaitReason | None:
    if item.due_for is DueFor.ASK:
        return WaitReason.SUBMITTED
    waits = item.state is ListingStatus.WAITING and item.wait_reason in TELLING
    return item.wait_reason if waits else None


def period(seconds: int) -> str:
    """In words: 90 s, 15 min, 1 h, 2 h 30 min."""
    minutes, rest = divmod(seconds, 60)
    if rest and seconds < 3600:
        return f"{seconds} s"
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
