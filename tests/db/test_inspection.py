"""What a hub says of itself to who inspects it."""

from __future__ import annotations

from lumbung.db import inspection, lease, stores
from lumbung.db.inspection import Effect
from tests.db.delivering import claim
from tests.world import World, stock_update

COVERS = {
    "unsettled",
    "parked",
    "paused",
    "open_items",
    "miscounted",
    "failed_items",
    "effects",
    "held_by",
    "registered",
    "left_in_order",
}
ACCOUNT = ("blib", "TOQ-1")
PLACE = (*ACCOUNT, "sku1")


async def small(world: World) -> int:
    """A store with an account and sku1; returns its id."""
    await world.small()
    await world.execute("UPDATE store SET account = $1", ACCOUNT[1])
    return world.stores["Toko Padi"].id


async def test_what_is_due_waits_or_is_to_be_confirmed_is_unsettled(world: World) -> None:
    store_id = await small(world)
    async with world.pool.connection() as connection:
        assert await inspection.unsettled(connection) == []
        await world.accepted(stock_update(blib=3))
        [due] = await inspection.unsettled(connection)
        assert (due.place, due.state, due.waits_for) == (PLACE, "due", None)
        await world.execute("UPDATE listing_state SET state = 'idle', lane = 0")
        assert await inspection.unsettled(connection) == []
        await world.execute(
            "INSERT INTO listing_wait SELECT tenant_id, listing_id, $1, 'confirmation', now() FROM listing_state",
            store_id,
        )
        [confirmed] = await inspection.unsettled(connection)
        assert (confirmed.state, confirmed.waits_for) == ("idle", "confirmation")


async def test_a_paused_stores_listings_are_not_and_the_store_tells_why(world: World) -> None:
    store_id = await small(world)
    await world.accepted(stock_update(blib=3))
    async with world.pool.connection() as connection:
        assert await inspection.paused(connection) == {}
        await stores.pause(connection, tenant_id=world.tenant_id, store_id=store_id, reason="log in again")
        assert await inspection.paused(connection) == {ACCOUNT: "log in again"}
        assert await inspection.unsettled(connection) == []


async def test_parked_listings_tell_why(world: World) -> None:
    await small(world)
    await world.accepted(stock_update(blib=3))
    async with world.pool.connection() as connection:
        assert await inspection.parked(connection) == {}
        await world.execute("UPDATE listing_state SET state = 'parked', lane = 0, park_reason = 'unknown item'")
        assert await inspection.parked(connection) == {PLACE: "unknown item"}
        assert await inspection.unsettled(connection) == []


async def test_items_that_have_not_ended_are_counted_and_so_are_records_that_miscount_them(world: World) -> None:
    await small(world)
    async with world.pool.connection() as connection:
        assert (await inspection.open_items(connection), await inspection.miscounted(connection)) == (0, 0)
        await world.accepted(stock_update(blib=3))
        assert (await inspection.open_items(connection), await inspection.miscounted(connection)) == (1, 0)
        await world.execute("UPDATE stock_update SET items_open = items_open + 1")
        assert await inspection.miscounted(connection) == 1


async def test_items_that_ended_without_success_tell_why_and_only_those_from_before(world: World) -> None:
    await small(world)
    await world.accepted(stock_update(blib=3))
    await world.accepted(stock_update(blib=4))
    later = await world.value("SELECT max(created_at) + interval '1 second' FROM item")
    first = await world.value("SELECT min(id) FROM item")
    async with world.pool.connection() as connection:
        assert await inspection.failed_items(connection, later) == {}
        ended = "UPDATE item SET success = $1, message = $2, finished_at = now() WHERE (id = $3) = $4"
        await world.execute(ended, True, "delivered", first, True)
        assert await inspection.failed_items(connection, later) == {}
        await world.execute(ended, False, "out of time", first, False)
        assert await inspection.failed_items(connection, later) == {PLACE: "out of time"}
        assert await inspection.failed_items(connection, await world.value("SELECT max(created_at) FROM item")) == {}


async def test_every_update_of_a_sku_and_what_took_effect_is_counted(world: World) -> None:
    await small(world)
    now = await world.value("SELECT now()")
    older = await world.value("SELECT now() - interval '1 hour'")
    await world.accepted(stock_update(blib=3, as_of=now))
    await world.accepted(stock_update(blib=4, as_of=older))
    async with world.pool.connection() as connection:
        assert await inspection.effects(connection) == {("Toko", "sku1", "default"): Effect(2, 1)}


async def test_what_a_process_holds_is_found_by_its_name(world: World) -> None:
    store_id = await small(world)
    async with world.pool.connection() as connection:
        assert not await inspection.registered(connection, "host:7")
        worker_id = await lease.register(connection, name="host:7", lifetime_seconds=60, channels=["blib"])
        assert await inspection.registered(connection, "host:7")
        assert await inspection.held_by(connection, "host:7") == set()
        await claim(world, worker_id, store_id)
        assert await inspection.held_by(connection, "host:7") == {ACCOUNT}
        assert await inspection.held_by(connection, "host:8") == set()


async def test_a_process_has_left_in_order_when_it_has_given_everything_back(world: World) -> None:
    store_id = await small(world)
    async with world.pool.connection() as connection:
        assert not await inspection.left_in_order(connection, "host:7")
        worker_id = await lease.register(connection, name="host:7", lifetime_seconds=60, channels=["blib"])
        await claim(world, worker_id, store_id)
        await lease.stop(connection, worker_id)
        assert not await inspection.left_in_order(connection, "host:7")
        await lease.give_back(connection, worker_id=worker_id, store_ids=[store_id])
        assert await inspection.left_in_order(connection, "host:7")
