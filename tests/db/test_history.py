"""Reading the history of updates: order, filter, pages, and what is read live."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import uuid4

from lumbung.db import history, stock
from lumbung.model import HistoryRecord
from tests.db.delivering import Told, leased, record
from tests.world import PARTNER_ID, World, stock_update

COVERS = {"page"}


async def page(
    world: World,
    *,
    tenant_id: int | None = None,
    updated_at: datetime | None = None,
    limit: int = 100,
    offset: int = 0,
    items_max: int = 1000,
) -> tuple[list[HistoryRecord], int]:
    async with world.pool.connection() as connection:
        return await history.page(
            connection,
            tenant_id=tenant_id or world.tenant_id,
            updated_at=updated_at,
            limit=limit,
            offset=offset,
            items_max=items_max,
        )


async def test_an_empty_history_has_no_records_and_a_total_of_0(world: World) -> None:
    await world.tenant()
    assert await page(world) == ([], 0)
    assert await page(world, offset=5) == ([], 0)


async def test_records_come_newest_first_in_pages_that_leave_none_out(world: World) -> None:
    await world.small()
    codes = [await world.accepted(stock_update(blib=n)) for n in range(5)]
    pages = [await page(world, limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [[recorded.transaction_code for recorded in records] for records, _ in pages] == [
        [codes[4], codes[3]],
        [codes[2], codes[1]],
        [codes[0]],
        [],
    ]
    assert {total for _, total in pages} == {5}


async def test_records_of_one_moment_come_by_their_ids(world: World) -> None:
    tenant = await world.tenant()
    async with world.pool.transaction() as connection:
        [(_, at)], _ = await stock.take_ids(connection, versions=1)
        updates = [(tenant, at, number, uuid4(), PARTNER_ID, 0, 0) for number in (7, 9, 8)]
        await stock.write_history(connection, updates=updates, items=[], changes=[])
    records, total = await page(world)
    assert ([recorded.id for recorded in records], total) == ([9, 8, 7], 3)


async def test_a_tenant_sees_only_its_own_records(world: World) -> None:
    first = await world.tenant("a")
    await world.variants("sku1")
    await world.accepted(stock_update())
    second = await world.tenant("b")
    await world.variants("sku1")
    await world.accepted(stock_update())
    await world.accepted(stock_update())
    assert (await page(world, tenant_id=first))[1] == 1
    assert (await page(world, tenant_id=second))[1] == 2
    assert {recorded.tenant_id for recorded in (await page(world, tenant_id=first))[0]} == {first}


async def test_the_filter_finds_what_was_updated_at_or_after_a_time(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=1))
    await world.accepted(stock_update(blib=2))  # ends the first one's item, so that both were updated now
    newest, oldest = (await page(world))[0]
    assert oldest.updated_at > newest.created_at == newest.updated_at
    moment = timedelta(microseconds=1)
    for since, found in (
        (newest.updated_at, [newest.id, oldest.id]),
        (newest.updated_at + moment, [oldest.id]),
        (oldest.updated_at, [oldest.id]),
        (oldest.updated_at + moment, []),
    ):
        records, total = await page(world, updated_at=since)
        assert ([recorded.id for recorded in records], total) == (found, len(found))


async def test_a_record_embeds_its_first_items_only_and_the_limit_counts_records(world: World) -> None:
    await world.tenant()
    await world.store()
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", f"l{n}") for n in range(5)])
    await world.accepted(stock_update(blib=1))
    await world.accepted(stock_update(blib=2))
    records, total = await page(world, items_max=3)
    assert ([len(recorded.items) for recorded in records], total) == ([3, 3], 2)
    assert [item.remote_variant for item in records[0].items] == [f'{{"blibli_sku": "l{n}"}}' for n in range(3)]
    assert [len(recorded.items) for recorded in (await page(world, limit=1))[0]] == [5]


async def test_an_item_carries_the_names_that_it_was_made_with(world: World) -> None:
    await world.tenant()
    east = await world.warehouse("east")
    store = await world.store(warehouses={east: None})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", "a")])
    await world.accepted(stock_update(warehouse="east", blib=6))
    await world.execute("UPDATE store SET retired_at = now()")
    await world.execute("UPDATE listing SET retired_at = now()")
    await world.execute("UPDATE warehouse SET retired_at = now() WHERE id <> 0")
    [recorded], _ = await page(world)
    [item] = recorded.items
    assert (item.store_id, item.store_name, item.warehouse_id, item.warehouse_name) == (
        store,
        "Toko Padi",
        east,
        "east",
    )
    assert (item.sku, item.remote_variant, item.quantity) == ("sku1", '{"blibli_sku": "a"}', 6)
    assert (item.update_id, item.created_at, item.updated_at) == (
        recorded.id,
        recorded.created_at,
        recorded.created_at,
    )


async def test_retries_are_read_live_until_the_item_ends_and_stay_then(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=1))
    held = await leased(world)
    [state] = (await world.states()).values()
    told = Told(state["listing_id"], state["version_due"], 1, "stay")
    seen = []
    for one in (told, told, told, Told(told.listing_id, told.version, 1)):
        await record(world, held, one)
        seen.append([item.retries for item in (await page(world))[0][0].items])
    await world.accepted(stock_update(blib=2))
    await record(world, held, told)
    seen.append([item.retries for item in (await page(world))[0][1].items])
    assert seen == [[0], [1], [2], [3], [3]]
