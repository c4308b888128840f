"""Plays the delivery half with the named queries: leases, results, and statements that stop where a test wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lumbung.db import delivery, lease
from lumbung.db.delivery import Due
from lumbung.db.lease import LeaseRow
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from tests.world import World

QUIESCE = {"blib": 60.0}
DAY = 86400.0
GATE = 4711


@dataclass(frozen=True)
class Told:
    """What a call told of one listing. `kind`: delivered, retry, stay or parked."""

    listing_id: int
    version: int
    quantity: int = 0
    kind: str = "delivered"
    wait_seconds: float | None = None
    reason: str = "backoff"
    doubtful: bool = False
    message: str = "Successfully Updated"
    answer: str = '{"ok": true}'


async def register(world: World, lifetime_seconds: float = 15.0) -> int:
    async with world.pool.connection() as connection:
        return await lease.register(connection, name="test", lifetime_seconds=lifetime_seconds)


async def claim(world: World, worker_id: int, *store_ids: int, limit: int = 100) -> list[LeaseRow]:
    async with world.pool.connection() as connection:
        return await lease.claim(
            connection, worker_id=worker_id, store_ids=store_ids, quiesce_seconds=QUIESCE, limit=limit
        )


async def leased(world: World) -> LeaseRow:
    """The lease of the only store, under a new worker."""
    [store_id] = [row.id for row in world.stores.values()]
    [row] = await claim(world, await register(world), store_id)
    return row


async def record(world: World, held: LeaseRow, *told: Told, epoch: int | None = None) -> set[int]:
    """Write results in the recorder's order; returns the listings whose results were written."""
    async with world.pool.transaction() as connection:
        return await record_on(connection, held, *told, epoch=epoch)


async def record_on(connection: Connection, held: LeaseRow, *told: Told, epoch: int | None = None) -> set[int]:
    tenant = held.tenant_id
    found = await delivery.lock_results(
        connection, [(tenant, t.listing_id, held.store_id, held.epoch if epoch is None else epoch) for t in told]
    )
    ours = {key[:2]: version_settled for key, version_settled in found.items()}
    mine = sorted((t for t in told if (tenant, t.listing_id) in ours), key=lambda t: t.listing_id)
    states = [
        (tenant, t.listing_id, t.version, t.quantity, t.kind, "Outcome", t.message, t.doubtful, _confirm(t))
        for t in mine
    ]
    await delivery.write(connection, "record_states", states)
    settled = [
        (tenant, t.listing_id, t.version, ours[tenant, t.listing_id], t.kind == "delivered", t.message, t.answer, None)
        for t in mine
        if t.kind in {"delivered", "parked"}
    ]
    await delivery.write(connection, "settle_items", settled)
    waits = [
        (tenant, t.listing_id, held.store_id, t.reason, t.wait_seconds) for t in mine if t.wait_seconds is not None
    ]
    await delivery.write(connection, "write_waits", waits)
    return {listing for _, listing in ours}


def _confirm(told: Told) -> float | None:
    return told.wait_seconds if told.kind == "delivered" else None


async def window(world: World, *, store: str = "Toko Padi", **more: Any) -> list[Due]:
    arguments: dict[str, Any] = {"cursors": {1: 0, 2: 0, 3: 0}, "busy": [], "limit": 100, "with_locations": False}
    async with world.pool.connection() as connection:
        return await delivery.due_window(
            connection, tenant_id=world.tenant_id, store_id=world.stores[store].id, **arguments | more
        )


async def release(world: World, limit: int = 100) -> set[int]:
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


async def blocked(world: World, count: int = 1) -> None:
    """Until so many connections wait for a lock of this database."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'"
    )
    async with asyncio.timeout(20):
        while await world.value(query) < count:
            continue
