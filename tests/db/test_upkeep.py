"""What operators do about listings, where rows change under their hands. What the commands do: tests/cli."""

from __future__ import annotations

import asyncio

from lumbung.db import upkeep
from lumbung.db.upkeep import Marked
from lumbung.model import DueFor
from tests.db.delivering import blocked
from tests.world import World, stock_update

COVERS = {
    "failing_listings",
    "lock_failed",
    "retry_failed",
    "count_due",
    "count_idle",
    "mark_idle",
    "count_others",
    "still_unread",
    "read_observed",
    "correct_down",
    "workers_live",
    "store_troubles",
}

PADI = "TOQ-1-1-1"
PARKED = "UPDATE listing_state SET state = 'parked', lane = 0, park_reason = 'why'"
IDLE = (
    "UPDATE listing_state SET state = 'idle', lane = 0, version_delivered = version_due, version_settled = version_due,"
    " quantity_delivered = quantity_due"
)
NEWER = "UPDATE listing_state SET version_due = version_due + 1, quantity_due = 5, state = 'due', lane = 1"


async def listed(world: World, change: str) -> int:
    await world.small()
    await world.accepted(stock_update(blib=20))
    await world.execute(change)
    return int((await world.states())[PADI]["listing_id"])


async def retry(world: World) -> list[int]:
    async with world.pool.transaction() as connection:
        _, stores = await upkeep.retry_chunk(
            connection, tenant_id=world.tenant_id, store_id=None, skus=None, after=0, limit=10
        )
    return stores


async def mark(world: World, due_for: DueFor = DueFor.PUSH) -> list[Marked]:
    async with world.pool.transaction() as connection:
        return await upkeep.mark_idle(
            connection,
            tenant_id=world.tenant_id,
            store_ids=[row.id for row in world.stores.values()],
            skus=None,
            due_for=due_for,
            after=0,
            limit=10,
        )


async def test_a_parked_listing_that_an_update_brings_back_meanwhile_stays_as_the_update_has_it(world: World) -> None:
    await listed(world, PARKED)
    async with world.pool.transaction() as connection:
        await connection.execute("UPDATE listing_state SET state = 'due', lane = 3, park_reason = NULL")
        retrying = asyncio.create_task(retry(world))
        await blocked(world)
    assert await retrying == []
    assert (await world.states())[PADI]["lane"] == 3


async def test_a_listing_that_becomes_due_meanwhile_is_not_marked(world: World) -> None:
    await listed(world, IDLE)
    async with world.pool.transaction() as connection:
        await connection.execute(NEWER)
        marking = asyncio.create_task(mark(world))
        await blocked(world)
    assert await marking == []
    assert (await world.states())[PADI]["lane"] == 1


async def test_marking_tells_the_version_that_is_to_be_shown(world: World) -> None:
    listing = await listed(world, IDLE)
    state = (await world.states())[PADI]
    [marked] = await mark(world)
    assert (marked.listing_id, marked.version) == (listing, state["version_due"])
    assert await mark(world) == []


async def test_a_look_that_is_due_becomes_a_correction_and_never_the_other_way_round(world: World) -> None:
    await listed(world, IDLE)
    for due_for, after in (
        (DueFor.OBSERVE, "observe"),
        (DueFor.OBSERVE, "observe"),
        (DueFor.RECONCILE, "reconcile"),
        (DueFor.OBSERVE, "reconcile"),
        (DueFor.RECONCILE, "reconcile"),
    ):
        assert len(await mark(world, due_for)) == 1
        assert (await world.states())[PADI]["due_for"] == after
    assert await mark(world) == []


async def test_a_look_that_ends_or_is_overtaken_meanwhile_is_marked_as_it_is_by_then(world: World) -> None:
    await listed(world, IDLE)
    await mark(world, DueFor.OBSERVE)
    async with world.pool.transaction() as connection:
        await connection.execute(IDLE + ", due_for = 'push'")
        marking = asyncio.create_task(mark(world, DueFor.RECONCILE))
        await blocked(world)
    assert len(await marking) == 1
    await mark(world, DueFor.OBSERVE)
    async with world.pool.transaction() as connection:
        await connection.execute(NEWER + ", due_for = 'push'")
        marking = asyncio.create_task(mark(world, DueFor.RECONCILE))
        await blocked(world)
    assert await marking == []


async def test_what_was_told_something_newer_is_not_corrected_down(world: World) -> None:
    await listed(world, IDLE)
    [marked] = await mark(world)
    await world.execute(IDLE + ", quantity_observed = 3")
    async with world.pool.transaction() as connection:
        await connection.execute(NEWER)
        assert await upkeep.correct_down(connection, tenant_id=world.tenant_id, marked=[marked]) == []
        await connection.execute(IDLE)
        assert await upkeep.correct_down(connection, tenant_id=world.tenant_id, marked=[marked]) == []
        await connection.execute("UPDATE listing_state SET version_delivered = 0, version_settled = 0")
        await connection.execute("UPDATE listing_state SET version_due = version_due - 1")
        told = await upkeep.correct_down(connection, tenant_id=world.tenant_id, marked=[marked])
    assert told == [marked.store_id]


async def test_other_tenants_listings_are_never_touched(world: World) -> None:
    await listed(world, PARKED)
    other = World(world.pool)
    await other.tenant("Other")
    assert await retry(other) == []
    assert (await world.states())[PADI]["state"] == "parked"
