"""What a benchmark fills a database with is what the hub itself would have left there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lumbung.db import bench, history
from lumbung.db.bench import BARE_KNOWN, BARE_OF_LISTING, BARE_OF_UPDATE, Assortment, Bare
from lumbung.db.query import Connection
from lumbung.inventory.stock import Receipt
from tests.world import World, stock_update

COVERS = {
    "now", "put_variants", "put_levels", "put_figures", "put_listings", "put_contributions", "put_states",
    "settle_states", "settle_all_items", "settle_updates", "due_records", "due_contributions",
    "due_states", "analyze", "vacuum", "checkpoint", "count_updates", "is_finished", "server_settings",
    "bare_tables", "bare_keys", "bare_commits", "bare_updates", "bare_changes", "bare_levels", "bare_figures",
    "bare_items", "bare_contributions", "bare_states", "anything_due", "an_hour_ago", "put_records",
}  # fmt: skip
LISTINGS = "SELECT remote_variant FROM listing ORDER BY store_id, id"


async def filled(world: World, connection: Connection) -> list[int]:
    """Three SKUs, each in a store of Blibli and one of Shopee."""
    await world.tenant()
    stores = [await world.store("Padi", "blib"), await world.store("Jagung", "shpe")]
    await bench.put_assortment(connection, Assortment(world.tenant_id, 1, 3, stores, variations=2))
    return stores


async def test_what_is_filled_in_is_taken_for_what_updates_have_left(world: World) -> None:
    async with world.pool.connection() as connection:
        await filled(world, connection)
    assert [row["remote_variant"] for row in await world.rows(LISTINGS)] == [
        '{"blibli_sku": "-0000001-00001"}', '{"blibli_sku": "-0000002-00001"}', '{"blibli_sku": "-0000003-00001"}',
        '{"item_id": 1, "variation_id": 2}', '{"item_id": 2, "variation_id": 1}', '{"item_id": 2, "variation_id": 2}',
    ]  # fmt: skip
    [receipt] = await world.accept(stock_update("sku2", 7, blib=4, shpe=5))
    assert isinstance(receipt, Receipt)
    assert {store: list(due.values()) for store, due in receipt.due.items()} == {1: [2], 2: [2]}  # rising from 1


async def test_everything_can_be_made_due_and_be_settled_again(world: World) -> None:
    counts = "SELECT state, count(*) AS n FROM listing_state GROUP BY 1"
    opened = "SELECT items_open, count(*) AS n FROM stock_update GROUP BY 1"
    ended = "SELECT count(*) FILTER (WHERE finished_at IS NULL) AS open, count(*) AS n FROM item"
    async with world.pool.connection() as connection:
        stores = await filled(world, connection)
        assert not await bench.anything_due(connection)
        await bench.make_due(connection, stores)
        assert await bench.anything_due(connection)
        assert await world.rows(counts) == [{"state": "due", "n": 6}]
        assert await world.rows(opened) == [{"items_open": 1, "n": 6}]
        wrong = (
            "SELECT FROM listing_state s JOIN contribution c USING (tenant_id, listing_id)"
            " JOIN item i ON i.id = c.item_id"
            " WHERE (s.version_due, s.quantity_due) <> (c.version, c.quantity) OR i.update_id <> c.version"
            " OR i.listing_id <> c.listing_id OR i.quantity <> c.quantity"
        )
        assert await world.rows(wrong) == []
        await bench.settle_all(connection)
        assert not await bench.anything_due(connection)
    assert await world.rows(opened) == [{"items_open": 0, "n": 6}]
    assert await world.rows(ended) == [{"open": 0, "n": 6}]


async def test_an_update_is_finished_when_its_last_item_has_ended(world: World) -> None:
    async with world.pool.connection() as connection:
        await filled(world, connection)
        code = str(await world.accepted(stock_update("sku2", 7, blib=4)))
        assert not await bench.is_finished(connection, tenant_id=world.tenant_id, transaction_code=code)
        await bench.settle_all(connection)
        assert await bench.is_finished(connection, tenant_id=world.tenant_id, transaction_code=code)


async def test_records_of_the_past_are_counted_by_the_history_as_they_are(world: World) -> None:
    async with world.pool.connection() as connection:
        await filled(world, connection)
        newest = await bench.an_hour_ago(connection)
        oldest = newest - timedelta(weeks=3)
        await bench.make_weeks(connection, oldest, newest)
        await bench.put_records(connection, world.tenant_id, 1, 50, oldest=oldest, apart_seconds=3 * 7 * 86400 / 50)
        for since in (None, newest - timedelta(days=10)):
            counted = await bench.count_updates(connection, tenant_id=world.tenant_id, since=since)
            records, told = await history.page(
                connection, tenant_id=world.tenant_id, updated_at=since, limit=10, offset=0, items_max=5
            )
            assert counted == told
            assert [len(record.items) for record in records] == [1] * 10
        assert counted < 50


@pytest.mark.parametrize("listings", [1, 2])
async def test_bare_upserts_write_as_many_rows_as_they_say(world: World, listings: int) -> None:
    bare = Bare(world.pool, keys=20, rows=5)
    await bare.prepare()
    async with world.pool.connection() as connection:
        assert await bare.once(connection, listings) == 5 * (4 + 3 * listings)
    for name in ("bare_stock_level", "bare_channel_stock", "bare_contribution", "bare_listing_state"):
        assert len(await world.rows(f"SELECT FROM {name}")) == 20
    assert len(await world.rows("SELECT FROM bare_item")) == 5 * listings
    assert set(BARE_KNOWN) < {*BARE_OF_UPDATE, *BARE_OF_LISTING}


async def test_the_settings_that_speed_depends_on_are_told(world: World) -> None:
    async with world.pool.connection() as connection:
        told = await bench.settings(connection)
        await bench.tidy(connection)
    assert list(told) == list(bench.DURABILITY)
    assert told["full_page_writes"] in {"on", "off"}
