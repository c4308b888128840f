"""Accepting updates on a real database: what listings are to show, and what the history says."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from lumbung.errors import BadRequest, Conflict, NotFound
from lumbung.inventory.stock import Receipt
from lumbung.model import Idempotency, StockLimit, Submission, UnknownSku
from tests.world import PARTNER_ID, World, stock_update


async def test_the_seeds_example_ends_as_no_connector_and_as_due(world: World) -> None:
    await world.small()
    code = await world.accepted(stock_update(available=100, bklp=30, blib=20))
    [record] = await world.history()
    assert record.transaction_code == code
    assert (record.total_sku, record.action_name, record.user_id) == (1, "partner_update_stocks", 0)
    assert record.finished_at is None
    by_channel = {item.channel: item for item in record.items}
    bklp, blib = by_channel["bklp"], by_channel["blib"]
    assert (bklp.store_id, bklp.store_name, bklp.remote_variant, bklp.quantity) == (0, "", "", 30)
    assert bklp.message == "No connector: Lumbung cannot deliver to Bukalapak (bklp)"
    assert (bklp.success, bklp.finished_at) == (False, record.created_at)
    assert (blib.store_name, blib.warehouse_id, blib.warehouse_name) == ("Toko Padi", 0, "default")
    assert (blib.remote_variant, blib.quantity) == ('{"blibli_sku": "TOQ-1-1-1"}', 20)
    assert (blib.finished_at, blib.message, blib.retries) == (None, "", 0)
    assert await world.due() == {"TOQ-1-1-1": 20}


async def test_without_a_figure_nothing_is_sent(world: World) -> None:
    await world.small()
    assert await world.due() == {"TOQ-1-1-1": None}
    await world.accepted(stock_update(available=100))
    assert await world.due() == {"TOQ-1-1-1": None}
    [record] = await world.history()
    assert record.items == ()
    assert record.finished_at == record.created_at


async def test_in_sync_every_listing_shows_sellable_named_or_not(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(available=100, buffer=15, sync=True))
    assert await world.due() == {"TOQ-1-1-1": 85}
    [record] = await world.history()
    assert [(item.channel, item.quantity) for item in record.items] == [("blib", 85)]


async def test_switching_sync_off_leaves_what_was_shown_and_lowers_it_with_sellable(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(available=50, sync=True))
    await world.accepted(stock_update(available=80))
    assert await world.due() == {"TOQ-1-1-1": 50}
    await world.accepted(stock_update(available=30))
    assert await world.due() == {"TOQ-1-1-1": 30}
    await world.accepted(stock_update(available=90))
    assert await world.due() == {"TOQ-1-1-1": 30}
    await world.accepted(stock_update(available=90, blib=70))
    assert await world.due() == {"TOQ-1-1-1": 70}


async def test_a_kept_figure_is_used_again_when_sync_is_switched_off(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(available=50, blib=7))
    await world.accepted(stock_update(available=50, sync=True))
    assert await world.due() == {"TOQ-1-1-1": 50}
    await world.accepted(stock_update(available=50))
    assert await world.due() == {"TOQ-1-1-1": 7}


async def test_a_listing_shows_the_sum_of_its_warehouses(world: World) -> None:
    await world.tenant()
    surabaya = await world.warehouse("surabaya")
    await world.store(warehouses={0: None, surabaya: None})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", "TOQ-1-1-1")])
    await world.accepted(stock_update(available=100, blib=20))
    await world.accepted(stock_update(available=40, warehouse="surabaya", sync=True))
    assert await world.due() == {"TOQ-1-1-1": 60}
    newest, oldest = await world.history()
    assert [item.quantity for item in newest.items] == [40]
    assert [(item.quantity, item.message) for item in oldest.items] == [(20, "")]


async def test_two_warehouses_of_one_sku_at_the_same_moment_give_the_right_sum(world: World) -> None:
    await world.tenant()
    surabaya = await world.warehouse("surabaya")
    await world.store(warehouses={0: None, surabaya: None})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", "TOQ-1-1-1")])
    for n in range(50):
        await asyncio.gather(
            world.accepted(stock_update(available=1000, blib=n)),
            world.accepted(stock_update(available=1000, warehouse="surabaya", blib=n * 3)),
        )
        assert await world.due() == {"TOQ-1-1-1": n * 4}


async def test_a_newer_update_of_the_same_warehouse_overtakes_an_open_item(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    code = await world.accepted(stock_update(blib=10))
    newest, oldest = await world.history()
    [item] = oldest.items
    assert (item.success, item.message) == (True, f"Superseded by {code}")
    assert oldest.finished_at is not None
    assert oldest.updated_at > oldest.created_at
    assert [(i.message, i.finished_at) for i in newest.items] == [("", None)]


async def test_an_update_is_overtaken_within_its_own_group_too(world: World) -> None:
    await world.small()
    first, second = await world.accept(stock_update(blib=20), stock_update(blib=10))
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    newest, oldest = await world.history()
    assert [item.message for item in oldest.items] == [f"Superseded by {second.transaction_code}"]
    assert oldest.finished_at == oldest.created_at
    assert newest.id > oldest.id
    assert await world.due() == {"TOQ-1-1-1": 10}


async def test_a_group_refuses_each_bad_request_alone(world: World) -> None:
    await world.small()
    results = await world.accept(
        stock_update(blib=1), stock_update("nope", warehouse="nowhere"), stock_update(warehouse="nowhere")
    )
    assert isinstance(results[0], Receipt)
    assert isinstance(results[1], NotFound)
    assert [problem.field for problem in results[1].problems] == ["sku", "warehouse"]
    assert isinstance(results[2], NotFound)
    assert [problem.field for problem in results[2].problems] == ["warehouse"]
    assert len(await world.history()) == 1
    assert await world.rows("SELECT sku, times FROM unknown_sku") == [{"sku": "nope", "times": 1}]


async def test_a_tenant_may_have_unknown_skus_made(world: World) -> None:
    await world.tenant(unknown_sku=UnknownSku.CREATE)
    await world.accepted(stock_update("new", available=5, blib=3))
    [record] = await world.history()
    assert [(i.sku, i.message) for i in record.items] == [("new", "No store: there is no Blibli (blib) store")]
    assert await world.value("SELECT available FROM stock_level") == 5


async def test_why_a_named_channel_cannot_be_reached(world: World) -> None:
    await world.tenant()
    await world.warehouse("surabaya")
    await world.store()
    await world.variants("sku1")
    await world.accepted(stock_update(shpe=1, blib=2))
    await world.accepted(stock_update(warehouse="surabaya", blib=2))
    surabaya, default = await world.history()
    assert {item.channel: item.message for item in default.items} == {
        "shpe": "No store: there is no Shopee (shpe) store",
        "blib": "No listing: this SKU has no listing in a Blibli (blib) store that warehouse 'default' serves",
    }
    assert [item.message for item in surabaya.items] == ["Warehouse 'surabaya' does not serve a Blibli (blib) store"]


async def test_a_figure_is_kept_and_pushed_when_a_listing_appears(world: World) -> None:
    await world.tenant()
    await world.store()
    await world.variants("sku1")
    await world.accepted(stock_update(blib=20))
    await world.listings([("sku1", "Toko Padi", "TOQ-1-1-1")])
    assert await world.due() == {"TOQ-1-1-1": 20}


async def test_an_older_as_of_is_recorded_and_changes_nothing(world: World) -> None:
    await world.small()
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    await world.accepted(stock_update(available=50, blib=20, as_of=noon))
    await world.accepted(stock_update(available=9, blib=9, as_of=noon - timedelta(seconds=1)))
    assert await world.due() == {"TOQ-1-1-1": 20}
    newest, oldest = await world.history()
    assert [item.message for item in newest.items] == ["Not applied: older than 2026-01-05T12:00:00.000000Z"]
    assert [item.finished_at for item in oldest.items] == [None]
    assert await world.rows("SELECT available, newest_as_of FROM stock_level") == [
        {"available": 50, "newest_as_of": noon}
    ]
    assert await world.rows("SELECT applied FROM stock_change ORDER BY update_id") == [
        {"applied": True},
        {"applied": False},
    ]
    await world.accepted(stock_update(available=8, blib=8, as_of=noon))
    assert await world.due() == {"TOQ-1-1-1": 8}


async def test_a_stock_limit_refuses_more_than_can_be_sold(world: World) -> None:
    await world.tenant(channel_stock_limit=StockLimit.TOTAL)
    await world.variants("sku1")
    [over, fits] = await world.accept(
        stock_update(available=50, buffer=10, blib=21, shpe=20), stock_update(available=50, buffer=10, blib=20, shpe=20)
    )
    assert isinstance(over, BadRequest)
    assert [(p.field, p.message) for p in over.problems] == [
        ("channel_stock", "The sum 41 is more than the 40 that can be sold")
    ]
    assert isinstance(fits, Receipt)


async def test_a_stock_limit_for_each_channel_names_the_entry(world: World) -> None:
    await world.tenant(channel_stock_limit=StockLimit.EACH)
    await world.variants("sku1")
    [over] = await world.accept(stock_update(available=50, buffer=10, blib=40, shpe=41))
    assert isinstance(over, BadRequest)
    assert [p.field for p in over.problems] == ["channel_stock[1].qty"]
    assert await world.history() == []


async def test_an_idempotency_key_has_one_effect(world: World) -> None:
    await world.small()

    def keyed(body: bytes, key: str = "k1") -> Submission:
        return Submission(world.tenant_id, PARTNER_ID, uuid4(), stock_update(blib=5), Idempotency(key, body))

    [first] = await world.submit(keyed(b"a"))
    again, other, fresh = await world.submit(keyed(b"a"), keyed(b"b"), keyed(b"a", "k2"))
    assert isinstance(first, Receipt)
    assert isinstance(again, Receipt)
    assert again.transaction_code == first.transaction_code
    assert isinstance(other, Conflict)
    assert isinstance(fresh, Receipt)
    assert fresh.transaction_code != first.transaction_code
    assert len(await world.history()) == 2


async def test_the_same_key_twice_in_one_group_has_one_effect(world: World) -> None:
    await world.small()
    submissions = [
        Submission(world.tenant_id, PARTNER_ID, uuid4(), stock_update(blib=5), Idempotency("k", b"a")) for _ in range(3)
    ]
    receipts = await world.submit(*submissions)
    assert {r.transaction_code for r in receipts if isinstance(r, Receipt)} == {submissions[0].transaction_code}
    assert len(await world.history()) == 1


async def test_a_refused_request_leaves_its_key_free(world: World) -> None:
    await world.small()
    bad = Submission(world.tenant_id, PARTNER_ID, uuid4(), stock_update("nope"), Idempotency("k", b"a"))
    good = Submission(world.tenant_id, PARTNER_ID, uuid4(), stock_update(), Idempotency("k", b"b"))
    [refused] = await world.submit(bad)
    [accepted] = await world.submit(good)
    assert isinstance(refused, NotFound)
    assert isinstance(accepted, Receipt)


async def test_what_an_update_replaced_is_kept(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(available=50, buffer=5, blib=3))
    await world.accepted(stock_update(available=40, sync=True))
    rows = await world.rows("SELECT available, figures, replaced FROM stock_change ORDER BY update_id")
    assert rows == [
        {"available": 50, "figures": '{"blib": 3}', "replaced": None},
        {"available": 40, "figures": "{}", "replaced": '{"sync": false, "buffer": 5, "available": 50}'},
    ]
