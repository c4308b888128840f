"""The main job, whole: signed updates over HTTP reach the marketplace, and their history can be read."""

from __future__ import annotations

import asyncio
import json

from lumbung.keyring import Keyring
from lumbung.model import StoreMode
from tests.flow.hub import FAST, QUIESCE_SECONDS, STORE_CODE, Hub, running_hub, running_worker, until


async def test_an_update_reaches_the_marketplace_and_its_item_ends(hub: Hub) -> None:
    store_id = await hub.store()
    code = await hub.update(blib=20)
    record = (await hub.ended(code))[code]
    assert hub.shown() == 20
    [item] = record["update_stock_history_item"]
    assert item["store_id"] == store_id
    assert (item["success"], item["message"], item["progress"]) == (True, "Successfully Updated", False)
    assert (item["retrier_count"], item["qty"], item["channel"]) == (0, 20, "blib")
    assert json.loads(item["client_reponse"])["success"] is True
    assert record["updated_at"] > record["created_at"]
    assert hub.written() == [20]


async def test_what_a_call_said_is_kept_without_a_secret(hub: Hub) -> None:
    await hub.store()
    await hub.ended(await hub.update(blib=20))
    [call] = await hub.world.rows("SELECT * FROM call")
    assert (call["method"], call["status"], call["outcome"]) == ("PUT", 200, "Accepted")
    assert call["request"] == '{"availableStock":20}'
    assert json.loads(call["response"])["success"] is True
    [item] = await hub.world.rows("SELECT call_id FROM item")
    assert item["call_id"] == call["id"]
    for secret in ("client-key-of-the-sandbox", f"seller-key-of-{STORE_CODE}", f"signature-key-of-{STORE_CODE}"):
        assert secret not in repr(call)


async def test_two_warehouses_updated_at_the_same_moment_a_thousand_times_give_the_right_sum(hub: Hub) -> None:
    surabaya = await hub.world.warehouse("surabaya")
    await hub.store(warehouses={0: None, surabaya: None})
    last: dict[str, int] = {}

    async def keep_updating(warehouse: str, step: int) -> None:
        for n in range(500):
            await hub.update(warehouse=warehouse, blib=n * step)
            last[warehouse] = n * step

    await asyncio.gather(keep_updating("default", 1), keep_updating("surabaya", 3))
    await hub.at_rest()
    assert last == {"default": 499, "surabaya": 1497}
    assert hub.shown() == 499 + 1497
    contributions = await hub.world.rows("SELECT warehouse_id, quantity FROM contribution ORDER BY 1")
    assert contributions == [
        {"warehouse_id": 0, "quantity": 499},
        {"warehouse_id": surabaya, "quantity": 1497},
    ]


async def test_a_burst_coalesces_into_the_newest_quantity(hub: Hub) -> None:
    await hub.store()
    async with hub.sandbox.gate("blib") as gate:
        first = await hub.update(blib=500)
        await gate.entered()
        codes = [await hub.update(blib=n) for n in range(200, 100, -1)]
        gate.open()
    await hub.ended(first, *codes)
    await hub.at_rest()
    assert hub.written() == [500, 101]
    records = await hub.records()
    messages = [records[code]["update_stock_history_item"][0]["message"] for code in (first, *codes)]
    assert messages[:-1] == [f"Superseded by {code}" for code in codes]
    assert messages[-1] == "Successfully Updated"


async def test_an_update_that_races_a_push_is_sent_after_it(hub: Hub) -> None:
    await hub.store()
    async with hub.sandbox.gate("blib") as gate:
        await hub.update(blib=10)
        await gate.entered()
        newer = await hub.update(blib=7)
        state = (await hub.world.states())[hub.listed["sku1"]]
        assert (state["state"], state["quantity_due"]) == ("due", 7)
        gate.open()
    await hub.ended(newer)
    await hub.at_rest()
    assert hub.written() == [10, 7]
    assert hub.sandbox.traffic.max_in_flight_per_listing == 1


async def test_an_older_item_is_superseded_by_its_own_warehouse_only(hub: Hub) -> None:
    surabaya = await hub.world.warehouse("surabaya")
    await hub.store(warehouses={0: None, surabaya: None})
    async with hub.sandbox.gate("blib") as gate:
        first = await hub.update(blib=1)
        await gate.entered()
        older = await hub.update(blib=10)
        other = await hub.update(warehouse="surabaya", blib=5)
        newer = await hub.update(blib=20)
        records = await hub.records()
        items = {c: records[c]["update_stock_history_item"][0] for c in (first, older, other, newer)}
        assert items[first]["message"] == f"Superseded by {older}"
        assert items[older]["message"] == f"Superseded by {newer}"
        assert (items[other]["progress"], items[newer]["progress"]) == (True, True)
        gate.open()
    records = await hub.ended(other, newer)
    assert [records[c]["update_stock_history_item"][0]["message"] for c in (other, newer)] == [
        "Successfully Updated",
        "Successfully Updated",
    ]
    assert hub.written() == [1, 25]


async def test_no_figure_no_push(hub: Hub) -> None:
    await hub.store(skus=("sku1", "sku2"))
    code = await hub.update(available=50)
    record = (await hub.records())[code]
    assert record["update_stock_history_item"] == []
    assert record["finished_at"] == record["created_at"].split(".")[0] + "Z"
    await hub.ended(await hub.update("sku2", blib=3))  # the worker has looked since
    assert hub.written() == []


async def test_observe_writes_nothing_until_the_store_is_set_live(hub: Hub) -> None:
    await hub.store(mode=StoreMode.OBSERVE)
    await hub.store("Other", ("sku2",), code="TOQ-2")
    observed = await hub.update(blib=9)
    await hub.ended(await hub.update("sku2", blib=3))
    await hub.world.execute("SELECT pg_notify('lumbung_due', '')")
    await hub.ended(await hub.update("sku2", blib=4))
    assert hub.sandbox.ledger.calls.after(0)[0].store == "TOQ-2"
    assert {call.store for call in hub.sandbox.ledger.calls.after(0)} == {"TOQ-2"}
    assert (await hub.records())[observed]["finished_at"] is None
    await hub.world.execute("UPDATE store SET mode = 'live' WHERE name = 'Toko Padi'")
    await hub.ended(observed)
    assert hub.written() == [9]


async def test_a_refused_figure_is_pushed_again_even_when_it_is_equal(hub: Hub) -> None:
    await hub.store()
    await hub.ended(await hub.update(blib=20))
    hub.sandbox.ledger.sell("blib", STORE_CODE, hub.listed["sku1"], 4)
    assert hub.shown() == 16
    await hub.ended(await hub.update(blib=20))
    assert hub.shown() == 20
    assert hub.written() == [20, 20]


async def test_zeros_go_before_rises(hub: Hub) -> None:
    skus = tuple(f"sku{n}" for n in range(1, 21))
    await hub.store(skus=skus)
    await hub.ended(*[await hub.update(sku, blib=5) for sku in skus])
    async with hub.sandbox.gate("blib") as gate:
        in_flight = [await hub.update(sku, blib=6) for sku in skus[:4]]
        await gate.entered(4)
        rises = [await hub.update(sku, blib=7) for sku in skus[4:12]]
        zeros = [await hub.update(sku, blib=0) for sku in skus[12:]]
        gate.open()
    await hub.ended(*in_flight, *rises, *zeros)
    writes = [w.quantity for w in hub.sandbox.ledger.writes.after(0)][-16:]
    assert sorted(writes) == [0] * 8 + [7] * 8
    assert sum(position for position, quantity in enumerate(writes) if quantity == 0) < sum(
        position for position, quantity in enumerate(writes) if quantity == 7
    )


async def test_a_worker_that_stops_records_what_was_in_flight_and_gives_its_leases_back(
    database_url: str, keyring: Keyring
) -> None:
    async with running_hub(database_url, keyring, worker=False) as hub:
        await hub.store()
        async with hub.sandbox.gate("blib") as gate, asyncio.TaskGroup() as group:
            async with running_worker(FAST, database_url, keyring):
                code = await hub.update(blib=20)
                await gate.entered()
                group.create_task(open_when_stopping(hub, gate))
            record = (await hub.records())[code]
        assert record["update_stock_history_item"][0]["message"] == "Successfully Updated"
        assert hub.written() == [20]
        assert await hub.world.rows("SELECT worker_id, epoch FROM store_lease") == [{"worker_id": None, "epoch": 1}]
        assert await hub.world.value("SELECT bool_and(stopping) FROM worker") is True


async def open_when_stopping(hub: Hub, gate: object) -> None:
    """By the time another connection has answered, the stop has begun: the call in flight may end now."""
    await hub.world.value("SELECT 1")
    gate.open()  # type: ignore[attr-defined]


async def test_the_next_worker_goes_on_where_a_stopped_one_left(database_url: str, keyring: Keyring) -> None:
    async with running_hub(database_url, keyring, worker=False) as hub:
        await hub.store(skus=("sku1", "sku2"))
        async with running_worker(FAST, database_url, keyring):
            await hub.ended(await hub.update("sku1", blib=1))
        code = await hub.update("sku2", blib=2)
        async with running_worker(FAST, database_url, keyring):
            await hub.ended(code)
        assert hub.shown("sku2") == 2
        assert await hub.world.value("SELECT epoch FROM store_lease") == 2


async def test_a_store_of_a_lost_worker_is_taken_over_and_confirmed_once(database_url: str, keyring: Keyring) -> None:
    async with running_hub(database_url, keyring, worker=False) as hub:
        store_id = await hub.store()
        await hub.world.execute(
            "INSERT INTO worker (name, started_at, renewed_at, expires_at, lifetime_seconds)"
            " VALUES ('lost', now(), now(), now() - interval '1 ms', 3)"
        )
        await hub.world.execute(
            "UPDATE store_lease SET epoch = 7, worker_id = (SELECT id FROM worker) WHERE store_id = $1", store_id
        )
        code = await hub.update(blib=20)
        async with running_worker(FAST, database_url, keyring):
            await hub.ended(code)
            assert await hub.world.value("SELECT epoch FROM store_lease") == 8
            assert await hub.waits() == ["confirmation"]
            assert hub.written() == [20]
        await hub.world.execute("UPDATE store_lease SET doubt_until = now()")
        await hub.later(QUIESCE_SECONDS)
        async with running_worker(FAST, database_url, keyring):
            await hub.at_rest()
            assert await hub.world.value("SELECT epoch FROM store_lease") == 9
        assert hub.written() == [20]
        assert [call.method for call in hub.sandbox.ledger.calls.after(0)] == ["PUT", "GET"]
        assert await hub.waits() == []


async def test_many_stores_of_many_tenants_are_all_served(hub: Hub) -> None:
    for n in range(2, 12):
        await hub.store(f"Store {n}", ("sku1", f"sku{n}"), code=f"TOQ-{n}")
    codes = [await hub.update("sku1", blib=33)]
    codes += [await hub.update(f"sku{n}", blib=n) for n in range(2, 12)]
    await hub.ended(*codes)
    assert [hub.sandbox.ledger.listing("blib", f"TOQ-{n}", f"TOQ-{n}-00001-00001").quantity for n in range(2, 12)] == [
        33
    ] * 10
    assert [hub.sandbox.ledger.listing("blib", f"TOQ-{n}", f"TOQ-{n}-00002-00001").quantity for n in range(2, 12)] == [
        *range(2, 12)
    ]


async def test_the_write_log_never_goes_back_to_an_older_quantity(hub: Hub) -> None:
    skus = tuple(f"sku{n}" for n in range(1, 6))
    await hub.store(skus=skus)

    async def keep_updating(sku: str) -> None:
        for n in range(1, 101):
            await hub.update(sku, available=1_000_000, blib=n)

    await asyncio.gather(*(keep_updating(sku) for sku in skus))
    await hub.at_rest()
    for sku in skus:
        assert hub.written(sku) == sorted(hub.written(sku))
        assert hub.shown(sku) == 100
    assert hub.sandbox.traffic.max_in_flight_per_listing == 1


async def test_a_slow_store_keeps_its_pace(database_url: str, keyring: Keyring) -> None:
    async with running_hub(database_url, keyring, worker=False) as hub:
        skus = tuple(f"sku{n}" for n in range(1, 11))  # twice as many as the marketplace takes at once
        await hub.store(skus=skus, calls_per_second="5")
        hub.sandbox.faults.set("blib", rate_limit_per_s=5)
        codes = [await hub.update(sku, blib=5) for sku in skus]
        async with running_worker(FAST, database_url, keyring):
            await hub.ended(*codes)
        assert [call.status for call in hub.sandbox.ledger.calls.after(0)] == [200] * 10


async def test_a_store_that_is_paused_by_an_operator_sends_nothing_and_goes_on_when_resumed(hub: Hub) -> None:
    await hub.store(skus=("sku1",))
    await hub.ended(await hub.update(blib=1))
    await hub.world.execute(
        "UPDATE store SET mode = 'paused', pause_reason = 'stock-taking', mode_before_pause = 'live'"
    )
    await hub.store("Other", ("sku2",), code="TOQ-2")
    code = await hub.update(blib=2)
    await hub.ended(await hub.update("sku2", blib=3))
    assert hub.written() == [1]
    await hub.world.execute("UPDATE store SET mode = 'live', pause_reason = NULL, mode_before_pause = NULL")
    await hub.ended(code)
    assert hub.written() == [1, 2]
    assert await until(hub.records, lambda records: len(records) == 3)
