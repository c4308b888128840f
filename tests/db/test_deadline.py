"""Items that are out of time end, once, with a reason; their listings stay due. Against everybody who ends items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest

from lumbung.db import deadline, delivery
from lumbung.db.query import Connection
from lumbung.dispatch.deadline import keep_sweeping, sweep
from lumbung.inventory.stock import accept
from lumbung.model import Submission
from lumbung.settings import Settings
from tests.db.delivering import blocked
from tests.world import PARTNER_ID, RULES, World, stock_update

COVERS = {
    "add_watermarks",
    "sweep_seconds",
    "pass_over",
    "tenants_to_sweep",
    "take_turn",
    "open_records",
    "listings_of_open_items",
    "read_open_items",
    "end_late_items",
    "move_watermark",
}

PADI = "TOQ-1-1-1"
SETTINGS = Settings()
HOUR = SETTINGS.deadline_margin_seconds + 3600
LATE = "Not delivered within 1 h: "
FIRST = "Other listings were sent first"


async def age(world: World, seconds: float = 3630) -> None:
    """Have every update that has an open item been accepted so long ago."""
    for table, column in (("contribution", "item_created_at"), ("item", "created_at"), ("stock_update", "created_at")):
        await world.execute(
            f"UPDATE {table} x SET {column} = x.{column} - $1 * interval '1 second' FROM"  # noqa: S608
            " (SELECT id FROM stock_update WHERE finished_at IS NULL) u WHERE u.id = "
            + {"contribution": "x.version", "item": "x.update_id", "stock_update": "x.id"}[table],
            seconds,
        )


async def late(world: World, figure: int = 20) -> int:
    """An update of a small world that is out of time; returns the listing."""
    await world.small()
    await world.accepted(stock_update(blib=figure))
    await age(world)
    return int((await world.states())[PADI]["listing_id"])


async def again(world: World) -> None:
    await world.execute("UPDATE item_deadline SET swept_at = '-infinity'")


async def ends(world: World) -> list[tuple[bool | None, str | None]]:
    rows = await world.rows("SELECT success, message FROM item ORDER BY update_id, id")
    return [(row["success"], row["message"]) for row in rows]


async def records(world: World) -> list[tuple[int, bool]]:
    rows = await world.rows("SELECT items_open, finished_at IS NOT NULL AS finished FROM stock_update ORDER BY id")
    return [(row["items_open"], row["finished"]) for row in rows]


async def watermark_age(world: World) -> float:
    """Seconds from the watermark to now."""
    return float(await world.value("SELECT extract(epoch FROM now() - ended_until)::float8 FROM item_deadline"))


async def settle_on(connection: Connection, world: World, listing: int, version: int) -> None:
    """What a recorder does to items when a listing was delivered, after it has locked its state."""
    await delivery.settle_items(
        connection, [(world.tenant_id, listing, version, 0, True, "Successfully Updated", "{}", None)]
    )
    await connection.execute(
        "UPDATE listing_state SET state = 'idle', lane = 0, version_delivered = $1, version_settled = $1,"
        " quantity_delivered = quantity_due, due_since = NULL WHERE listing_id = $2",
        version,
        listing,
    )


async def lock_result(connection: Connection, world: World, listing: int) -> None:
    store = world.stores["Toko Padi"].id
    assert await delivery.lock_results(connection, [(world.tenant_id, listing, store, 0)])


async def deliver(world: World, listing: int, version: int) -> None:
    async with world.pool.transaction() as connection:
        await lock_result(connection, world, listing)
        await settle_on(connection, world, listing, version)


@asynccontextmanager
async def locked(world: World, table: str) -> AsyncIterator[None]:
    """Somebody holds every row of a table."""
    async with world.pool.transaction() as connection:
        await connection.execute(f"SELECT FROM {table} FOR NO KEY UPDATE")
        yield


async def test_an_item_that_is_out_of_time_ends_and_its_listing_stays_due(world: World) -> None:
    await late(world)
    before = await world.states()
    assert await sweep(world.pool, SETTINGS) == 1
    [record] = await world.history()
    [item] = record.items
    assert (item.success, item.message, item.client_response, item.retries) == (False, LATE + FIRST, "", 0)
    assert item.finished_at is not None
    assert record.finished_at is not None
    assert record.updated_at >= item.finished_at
    assert await records(world) == [(0, True)]
    assert await world.states() == before
    assert before[PADI]["state"] == "due"


async def test_an_item_that_is_in_time_stays_open(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    await age(world, 3500)
    assert await sweep(world.pool, SETTINGS) == 0
    assert await ends(world) == [(None, None)]
    await world.execute("UPDATE tenant SET history_item_deadline_seconds = 3400")
    await again(world)
    assert await sweep(world.pool, SETTINGS) == 1


async def test_a_late_delivery_leaves_the_ended_item_as_it_was(world: World) -> None:
    listing = await late(world)
    assert await sweep(world.pool, SETTINGS) == 1
    before = await world.history()
    await deliver(world, listing, (await world.states())[PADI]["version_due"])
    assert await world.history() == before
    state = (await world.states())[PADI]
    assert (state["state"], state["quantity_delivered"]) == ("idle", 20)


async def test_an_update_that_overtakes_an_ended_item_leaves_it_as_it_was(world: World) -> None:
    await late(world)
    await sweep(world.pool, SETTINGS)
    await world.accepted(stock_update(blib=7))
    assert await ends(world) == [(False, LATE + FIRST), (None, None)]
    assert await records(world) == [(0, True), (1, False)]


async def test_calls_after_the_first_are_counted_while_the_item_is_the_listings(world: World) -> None:
    await late(world)
    await world.execute("UPDATE listing_state SET calls = calls + 4")
    await sweep(world.pool, SETTINGS)
    assert await world.value("SELECT retries FROM item") == 3


REASONS = {
    "UPDATE store SET mode = 'paused', pause_reason = 'Token dead', mode_before_pause = 'live'": (
        "Store paused: Token dead"
    ),
    "UPDATE store SET mode = 'observe'": "The store is observed: nothing is sent to it",
    "UPDATE tenant SET disabled_at = now()": "The tenant is disabled",
    "UPDATE store_lease SET trouble = 'Refused', trouble_since = '2026-11-23T10:00:00Z'": (
        "Marketplace unavailable since 2026-11-23T10:00:00Z: Refused"
    ),
    "UPDATE listing_state SET state = 'parked', lane = 0, park_reason = 'Unknown item'": "Parked: Unknown item",
    "WITH w AS (INSERT INTO listing_wait SELECT tenant_id, listing_id, store_id, 'deferred', now() FROM listing_state)"
    " UPDATE listing_state SET state = 'waiting', lane = 0, last_outcome = 'Deferred', last_message = 'Campaign'": (
        "Waiting (deferred): Campaign"
    ),
    "UPDATE listing_state SET last_outcome = 'Throttled', last_message = 'Too fast'": "Too fast",
}


@pytest.mark.parametrize("change", REASONS)
async def test_the_reason_is_that_of_the_moment(world: World, change: str) -> None:
    await late(world)
    await world.execute(change)
    await sweep(world.pool, SETTINGS)
    assert await ends(world) == [(False, LATE + REASONS[change])]


async def test_each_open_item_of_a_record_ends_and_the_others_stay_as_they_were(world: World) -> None:
    await world.small()
    await world.listings([("sku1", "Toko Padi", "second")])
    await world.accepted(stock_update(blib=20, shpe=3))
    ids = {remote: row["listing_id"] for remote, row in (await world.states()).items()}
    await deliver(world, ids[PADI], (await world.states())[PADI]["version_due"])
    await age(world)
    assert await sweep(world.pool, SETTINGS) == 1
    assert sorted(str(message) for _, message in await ends(world)) == [
        "No store: there is no Shopee (shpe) store",
        LATE + FIRST,
        "Successfully Updated",
    ]
    assert await records(world) == [(0, True)]


# --- the watermark ---


async def test_the_watermark_stays_a_margin_behind_what_may_still_become_visible(world: World) -> None:
    await late(world)
    await sweep(world.pool, SETTINGS)
    assert HOUR <= await watermark_age(world) < HOUR + 30
    await world.accepted(stock_update(blib=7))
    await age(world, HOUR - 30)
    await again(world)
    assert await sweep(world.pool, SETTINGS) == 1


async def test_what_was_looked_at_is_not_looked_at_again(world: World) -> None:
    await late(world)
    await sweep(world.pool, SETTINGS)
    await world.accepted(stock_update(blib=7))
    await age(world, HOUR + 60)
    await again(world)
    assert await sweep(world.pool, SETTINGS) == 0


async def test_a_tenant_is_swept_at_most_about_every_interval(world: World) -> None:
    await late(world)
    await sweep(world.pool, SETTINGS)
    await world.accepted(stock_update(blib=7))
    await age(world)
    assert await sweep(world.pool, SETTINGS) == 0
    await world.execute("UPDATE item_deadline SET swept_at = now() - interval '6 s'")
    assert await sweep(world.pool, SETTINGS) == 1


@pytest.mark.parametrize("jump", ["swept_at = now() + interval '1 day'", "ended_until = now() + interval '1 day'"])
async def test_a_clock_that_has_jumped_back_is_noticed(world: World, jump: str) -> None:
    await late(world)
    await world.execute("INSERT INTO item_deadline SELECT id FROM tenant")
    await world.execute(f"UPDATE item_deadline SET {jump}")  # noqa: S608
    assert await sweep(world.pool, SETTINGS) == 1
    assert HOUR <= await watermark_age(world) < HOUR + 30


async def test_a_longer_deadline_does_not_move_the_watermark_back(world: World) -> None:
    await late(world)
    await sweep(world.pool, SETTINGS)
    before = await world.value("SELECT ended_until FROM item_deadline")
    await world.execute("UPDATE tenant SET history_item_deadline_seconds = 36000")
    await again(world)
    assert await sweep(world.pool, SETTINGS) == 0
    assert await world.value("SELECT ended_until FROM item_deadline") == before


async def test_many_records_are_ended_in_chunks(world: World) -> None:
    await world.tenant()
    await world.store()
    skus = [f"sku{n}" for n in range(7)]
    await world.variants(*skus)
    await world.listings([(sku, "Toko Padi", sku) for sku in skus])
    await world.accept(*(stock_update(sku, blib=1) for sku in skus))
    await age(world, HOUR + 600)
    assert await sweep(world.pool, replace(SETTINGS, chunk_rows_max=2)) == 7
    assert await records(world) == [(0, True)] * 7
    assert HOUR <= await watermark_age(world) < HOUR + 30


async def test_records_that_are_finished_are_read_past(world: World) -> None:
    await late(world)
    await world.execute(
        "INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, action_name, total_sku, items,"
        " items_open, updated_at, finished_at) SELECT tenant_id, created_at - n * interval '1 second', -n,"
        " gen_random_uuid(), 'a', 1, 0, 0, created_at, created_at FROM stock_update, generate_series(1, 50) n"
    )
    assert await sweep(world.pool, replace(SETTINGS, chunk_rows_max=1)) == 1


async def test_every_tenant_is_swept_and_only_its_own_items_end(world: World) -> None:
    await late(world)
    other = World(world.pool)
    await other.tenant("Other")
    await other.store("Elsewhere")
    await other.variants("sku1")
    await other.listings([("sku1", "Elsewhere", "x")])
    await other.accepted(stock_update(blib=1))
    assert await sweep(world.pool, SETTINGS) == 1
    assert [record.finished_at is None for record in await other.history()] == [True]
    assert await world.value("SELECT count(*) FROM item_deadline WHERE swept_at > now() - interval '1 minute'") == 2


# --- at the same moment ---


async def test_an_item_that_is_being_delivered_ends_as_delivered(world: World) -> None:
    listing = await late(world)
    version = (await world.states())[PADI]["version_due"]
    async with world.pool.transaction() as connection:
        await lock_result(connection, world, listing)
        sweeping = asyncio.create_task(sweep(world.pool, SETTINGS))
        await blocked(world)
        await settle_on(connection, world, listing, version)
    assert await sweeping == 0
    assert await ends(world) == [(True, "Successfully Updated")]
    assert await records(world) == [(0, True)]


async def test_an_item_that_is_being_ended_is_not_ended_again_by_its_delivery(world: World) -> None:
    listing = await late(world)
    version = (await world.states())[PADI]["version_due"]
    async with locked(world, "stock_update"):
        sweeping = asyncio.create_task(sweep(world.pool, SETTINGS))
        await blocked(world)
        delivering = asyncio.create_task(deliver(world, listing, version))
        await blocked(world, 2)
    await delivering
    assert await sweeping == 1
    assert await ends(world) == [(False, LATE + FIRST)]
    assert await records(world) == [(0, True)]
    assert (await world.states())[PADI]["state"] == "idle"


async def test_an_item_that_is_being_overtaken_ends_as_superseded(world: World) -> None:
    await late(world)
    code = uuid4()
    async with world.pool.transaction() as connection:
        await accept(connection, [Submission(world.tenant_id, PARTNER_ID, code, stock_update(blib=7))], RULES)
        sweeping = asyncio.create_task(sweep(world.pool, SETTINGS))
        await blocked(world)
    assert await sweeping == 0
    assert await ends(world) == [(True, f"Superseded by {code}"), (None, None)]
    assert await records(world) == [(0, True), (1, False)]


async def test_an_item_that_is_being_ended_is_not_overtaken(world: World) -> None:
    await late(world)
    async with locked(world, "stock_update"):
        sweeping = asyncio.create_task(sweep(world.pool, SETTINGS))
        await blocked(world)
        accepting = asyncio.create_task(world.accepted(stock_update(blib=7)))
        await blocked(world, 2)
    await accepting
    assert await sweeping == 1
    assert await ends(world) == [(False, LATE + FIRST), (None, None)]
    assert await records(world) == [(0, True), (1, False)]


async def test_two_sweeps_at_once_do_not_do_the_same(world: World) -> None:
    await late(world)
    async with locked(world, "listing_state"):
        first = asyncio.create_task(sweep(world.pool, SETTINGS))
        await blocked(world)
        assert await sweep(world.pool, SETTINGS) == 0
    assert await first == 1
    assert await sweep(world.pool, SETTINGS) == 0
    assert await records(world) == [(0, True)]


async def test_a_lock_that_is_not_had_leaves_the_rest_to_the_next_sweep(world: World) -> None:
    await late(world)
    async with locked(world, "listing_state"):
        assert await sweep(world.pool, replace(SETTINGS, update_lock_timeout_ms=1)) == 0
    assert await ends(world) == [(None, None)]
    assert await sweep(world.pool, SETTINGS) == 1


async def test_sweeping_goes_on_until_it_is_cancelled(world: World) -> None:
    await late(world)
    sweeping = asyncio.create_task(keep_sweeping(world.pool, replace(SETTINGS, deadline_sweep_seconds=0.01)))
    async with asyncio.timeout(20):
        for _ in range(2):
            while await world.value("SELECT count(*) FROM item WHERE finished_at IS NULL"):
                continue
            await world.accepted(stock_update(blib=7))
            await age(world)
    sweeping.cancel()
    [result] = await asyncio.gather(sweeping, return_exceptions=True)
    assert isinstance(result, asyncio.CancelledError)


async def test_a_tenant_with_a_short_deadline_is_swept_as_often(world: World) -> None:
    async def seconds() -> float:
        async with world.pool.connection() as connection:
            return await deadline.sweep_seconds(connection, sweep_seconds=10.0)

    assert await seconds() == 10.0
    await world.tenant()
    assert await seconds() == 10.0
    await world.execute("UPDATE tenant SET history_item_deadline_seconds = 3")
    assert await seconds() == 3.0
