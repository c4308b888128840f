"""Plays the delivery half: leases, results recorded as the worker records them, and statements that stop where a test
wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lumbung.channels.base import CallRecord
from lumbung.db import delivery, lease
from lumbung.db.delivery import Due
from lumbung.db.lease import ChannelTimes, LeaseRow
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.dispatch.policy import DELIVERED_MESSAGE, Defer, Deliver, ListingDecision, Park, Retry, Stay
from lumbung.dispatch.recording import record as write_results
from lumbung.dispatch.report import Report, Result
from lumbung.model import DueFor, Lane
from lumbung.settings import Settings
from tests.world import World

QUIESCE = 60.0
LIFETIME = 15.0
CHANNELS = {"blib": ChannelTimes(quiesce_seconds=QUIESCE, lifetime_seconds=LIFETIME)}
SETTINGS = Settings()
DAY = 86400.0
GATE = 4711


@dataclass(frozen=True)
class Told:
    """What a call told of one listing. `kind`: a decision, or one of delivered, retry, defer, stay and parked, with the
    `seconds` that it waits or after which a delivery is confirmed."""

    listing_id: int
    version: int
    quantity: int = 0
    kind: str | ListingDecision = "delivered"
    seconds: float | None = None
    outcome: str = "Outcome"
    message: str = DELIVERED_MESSAGE
    answer: str = '{"ok": true}'
    due_for: DueFor = DueFor.PUSH
    handle: str | None = None
    doubt_unknown: bool = False
    calls: int = 1

    @property
    def result(self) -> Result:
        return Result(
            self.listing_id,
            self.version,
            self.quantity,
            self.outcome,
            self._decision(),
            self.message,
            self.answer,
            self.due_for,
            self.handle,
            self.doubt_unknown,
            self.calls,
        )

    def _decision(self) -> ListingDecision:
        if not isinstance(self.kind, str):
            return self.kind
        named: dict[str, ListingDecision] = {
            "delivered": Deliver(self.seconds),
            "retry": Retry(self.seconds or 0.0),
            "defer": Defer(self.seconds or 0.0),
            "stay": Stay(),
            "parked": Park(self.message),
        }
        return named[self.kind]


def report(
    held: LeaseRow,
    *results: Result,
    epoch: int | None = None,
    calls: tuple[CallRecord, ...] = (),
    pause: str | None = None,
    unpark: tuple[int, ...] = (),
) -> Report:
    """What the sender puts into the recorder; of the lease's epoch unless another is given."""
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    at = held.epoch if epoch is None else epoch
    return Report(held.tenant_id, held.store_id, at, held.channel, results, calls, pause, future, unpark)


async def register(world: World, lifetime_seconds: float = LIFETIME, channels: Iterable[str] = ("blib",)) -> int:
    async with world.pool.connection() as connection:
        return await lease.register(connection, name="test", lifetime_seconds=lifetime_seconds, channels=channels)


async def claim(world: World, worker_id: int, *store_ids: int, limit: int = 100) -> list[LeaseRow]:
    async with world.pool.connection() as connection:
        return await lease.claim(connection, worker_id=worker_id, store_ids=store_ids, channels=CHANNELS, limit=limit)


async def leased(world: World) -> LeaseRow:
    """The lease of the only store, under a new worker."""
    [store_id] = [row.id for row in world.stores.values()]
    [row] = await claim(world, await register(world), store_id)
    return row


async def expire(world: World, worker_id: int, ago_seconds: float = 1.0) -> None:
    """Have a worker's leases (and its row) end so long ago; negative: in so many seconds."""
    await world.execute(
        "UPDATE worker SET renewed_at = clock_timestamp() - ($2 + lifetime_seconds) * interval '1 second',"
        " expires_at = clock_timestamp() - $2 * interval '1 second' WHERE id = $1",
        worker_id,
        ago_seconds,
    )


async def record(
    world: World, held: LeaseRow, *told: Told, epoch: int | None = None, settings: Settings = SETTINGS
) -> set[int]:
    """Write results in one transaction; returns the listings whose results were written."""
    async with world.pool.transaction() as connection:
        return await record_on(connection, held, *told, epoch=epoch, settings=settings)


async def record_on(
    connection: Connection, held: LeaseRow, *told: Told, epoch: int | None = None, settings: Settings = SETTINGS
) -> set[int]:
    recorded = await write_results(connection, [report(held, *(one.result for one in told), epoch=epoch)], settings)
    return {listing_id for _, listing_id, _ in recorded.written}


async def window(world: World, *, store: str = "Toko Padi", **more: Any) -> list[Due]:
    """What is due in every lane, for whoever holds the store."""
    store_id = world.stores[store].id
    arguments: dict[str, Any] = {
        "epoch": await world.value("SELECT epoch FROM store_lease WHERE store_id = $1", store_id),
        "cursors": {int(lane): 0 for lane in Lane if lane},
        "busy": [],
        "limit": 100,
        "with_locations": False,
    }
    async with world.pool.connection() as connection:
        return await delivery.due_window(connection, tenant_id=world.tenant_id, store_id=store_id, **arguments | more)


async def release(world: World, limit: int = 100) -> dict[int, dict[int, int]]:
    """What is due by it: listings with their lanes, by store."""
    async with world.pool.connection() as connection:
        return await delivery.release_waits(
            connection, store_ids=[row.id for row in world.stores.values()], wait_seconds_max=DAY, limit=limit
        )


async def listing_ids(world: World) -> dict[str, int]:
    """The live listings by blibli sku."""
    rows = await world.rows(
        "SELECT id, remote_variant::jsonb ->> 'blibli_sku' AS remote FROM listing WHERE retired_at IS NULL ORDER BY id"
    )
    return {row["remote"]: row["id"] for row in rows}


@asynccontextmanager
async def gate(pool: Pool, table: str) -> AsyncIterator[None]:
    """While open, a statement that reads `table` stops there, with its snapshot taken, until the block ends."""
    async with pool.connection() as connection:
        await connection.execute(f"ALTER TABLE {table} RENAME TO {table}_behind_the_gate")
        await connection.execute(
            f"""
            CREATE FUNCTION gate() RETURNS boolean LANGUAGE plpgsql VOLATILE AS
                $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN true; END $$;
            CREATE VIEW {table} AS SELECT * FROM {table}_behind_the_gate WHERE (SELECT gate())
            """  # noqa: S608
        )
        await connection.execute("SELECT pg_advisory_lock($1)", GATE)
        try:
            yield
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", GATE)


async def waiting(world: World) -> int:
    """How many connections wait for a lock of this database."""
    count: int = await world.value(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'"
    )
    return count


async def blocked(world: World, count: int = 1) -> None:
    """Until so many connections wait for a lock of this database."""
    async with asyncio.timeout(20):
        while await waiting(world) < count:
            continue
