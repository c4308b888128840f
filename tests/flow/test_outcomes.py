"""What marketplaces answer, and what becomes of listings, items and stores then."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lumbung.keyring import Keyring
from tests.flow.hub import FAST, STORE_CODE, Hub, running_hub, until


async def item_of(hub: Hub, code: str) -> dict[str, object]:
    [item] = (await hub.records())[code]["update_stock_history_item"]
    return dict(item)


async def test_a_throttle_costs_no_attempt_and_is_tried_again_after_its_time(hub: Hub) -> None:
    await hub.store()
    hub.sandbox.faults.set("blib", throttle_rate=1.0, retry_after_s=1, times=1)
    code = await hub.update(blib=20)
    await hub.ended(code)
    first, second = hub.sandbox.ledger.calls.after(0)
    assert (first.status, second.status) == (429, 200)
    assert second.at - first.at >= 0.9
    item = await item_of(hub, code)
    assert (item["success"], item["retrier_count"]) == (True, 1)
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["attempts"], state["calls"]) == (0, 2)
    assert hub.written() == [20]


async def test_a_throttled_store_waits_a_default_time_when_none_is_named(hub: Hub) -> None:
    await hub.store()
    hub.sandbox.faults.set("blib", throttle_rate=1.0, times=2)
    await hub.ended(await hub.update(blib=20))
    assert [call.status for call in hub.sandbox.ledger.calls.after(0)] == [429, 429, 200]


async def test_a_server_error_is_in_doubt_retried_and_confirmed_once(hub: Hub) -> None:
    await hub.store()
    hub.sandbox.faults.set("blib", apply_then_5xx_rate=1.0, times=1)
    code = await hub.update(blib=20)
    await hub.ended(code)
    assert (await item_of(hub, code))["retrier_count"] == 1
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["state"], state["attempts"], state["quantity_doubtful"]) == ("idle", 0, 20)
    await hub.sandbox.ledger.wait_for_writes(3)
    await hub.at_rest()
    assert hub.written() == [20, 20, 20]
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["quantity_doubtful"], state["doubtful_at"]) == (None, None)


async def test_an_older_write_applied_late_is_healed_by_the_confirmation(database_url: str, keyring: Keyring) -> None:
    async with running_hub(database_url, keyring) as hub:
        await hub.store(call_timeout_seconds="0.2")
        hub.sandbox.faults.set("blib", timeout_rate=1.0, timeout_ms=5000, late_apply_ms=600, times=1)
        await hub.update(blib=99)
        await hub.sandbox.ledger.wait_for_calls(1)
        hub.sandbox.faults.clear()
        await hub.ended(await hub.update(blib=5))
        await hub.sandbox.ledger.wait_for_writes(3)
        await hub.at_rest()
        assert hub.written() == [5, 99, 5]
        assert hub.shown() == 5


@pytest.mark.parametrize("fault", ["drop_response_rate", "garbage_rate", "error_rate"])
async def test_an_unclear_answer_is_followed_by_the_newest_quantity(hub: Hub, fault: str) -> None:
    await hub.store()
    hub.sandbox.faults.set("blib", **{fault: 1.0, "times": 2})
    code = await hub.update(blib=20)
    await hub.ended(code)
    assert hub.shown() == 20
    item = await item_of(hub, code)
    assert (item["success"], item["retrier_count"]) == (True, 2)


async def test_a_rejected_listing_is_parked_and_its_item_says_why(hub: Hub) -> None:
    await hub.store(skus=("sku1", "sku2"))
    hub.sandbox.faults.set("blib", reject_skus=["sku1"])
    code = await hub.update("sku1", blib=20)
    other = await hub.update("sku2", blib=7)
    await hub.ended(code, other)
    item = await item_of(hub, code)
    assert item["success"] is False
    assert "PRODUCT_NOT_FOUND" in str(item["message"]) or "not found" in str(item["message"]).lower()
    assert json.loads(str(item["client_reponse"]))["success"] is False
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["state"], state["park_reason"], state["lane"]) == ("parked", item["message"], 0)
    assert hub.shown("sku2") == 7


async def test_a_parked_listing_is_tried_again_by_a_new_update_at_most_every_so_often(
    database_url: str, keyring: Keyring
) -> None:
    async with running_hub(database_url, keyring, replace(FAST, park_retry_seconds=1.0)) as hub:
        await hub.store(skus=("sku1",))
        hub.sandbox.faults.set("blib", reject_skus=["sku1"])
        await hub.ended(await hub.update(blib=20))
        hub.sandbox.faults.clear()
        parked_at = (await hub.world.states())[hub.listed["sku1"]]["parked_at"]
        code = await hub.update(blib=21)
        assert (await item_of(hub, code))["progress"] is True
        await hub.ended(code)
        state = (await hub.world.states())[hub.listed["sku1"]]
        assert (state["state"], state["park_reason"]) == ("idle", None)
        assert (state["delivered_at"] - parked_at).total_seconds() >= 1.0
        assert hub.shown() == 21


async def test_a_parked_listing_without_a_new_update_stays_parked(database_url: str, keyring: Keyring) -> None:
    async with running_hub(database_url, keyring, replace(FAST, park_retry_seconds=0.3)) as hub:
        await hub.store(skus=("sku1",))
        hub.sandbox.faults.set("blib", reject_skus=["sku1"])
        await hub.ended(await hub.update(blib=20))
        await until(lambda: hub.world.value("SELECT count(*) FROM listing_wait"), lambda count: count == 0)
        assert (await hub.world.states())[hub.listed["sku1"]]["state"] == "parked"
        assert len(hub.sandbox.ledger.calls.after(0)) == 1


async def test_a_login_that_is_refused_pauses_its_store_only_and_keeps_the_work(hub: Hub) -> None:
    await hub.store("Broken", ("sku1",), code="TOQ-9", api_client_key="wrong")
    await hub.store("Fine", ("sku2",), code="TOQ-2")
    code = await hub.update("sku1", blib=20)
    await hub.ended(await hub.update("sku2", blib=7))
    await until(lambda: hub.world.value("SELECT mode FROM store WHERE name = 'Broken'"), lambda mode: mode == "paused")
    assert await hub.world.value("SELECT pause_reason FROM store WHERE name = 'Broken'") != ""
    assert (await item_of(hub, code))["progress"] is True
    states = await hub.world.states()
    assert (states[hub.listed["sku1"]]["state"], states[hub.listed["sku1"]]["version_delivered"]) == ("due", 0)
    assert len([c for c in hub.sandbox.ledger.calls.after(0) if c.store == "TOQ-9"]) == 1


async def test_credentials_that_cannot_be_decrypted_pause_their_store_only(hub: Hub) -> None:
    await hub.store("Broken", ("sku1",), code="TOQ-9")
    await hub.world.execute("UPDATE store SET credentials = '\\x00' WHERE name = 'Broken'")
    await hub.store("Fine", ("sku2",), code="TOQ-2")
    await hub.update("sku1", blib=20)
    await hub.ended(await hub.update("sku2", blib=7))
    await until(lambda: hub.world.value("SELECT mode FROM store WHERE name = 'Broken'"), lambda mode: mode == "paused")
    assert hub.sandbox.ledger.listing("blib", "TOQ-2", hub.listed["sku2"]).quantity == 7


async def test_a_marketplace_that_is_down_opens_the_breaker_and_nothing_is_given_up(hub: Hub) -> None:
    skus = tuple(f"sku{n}" for n in range(1, 31))
    await hub.store(skus=skus, base_url="http://127.0.0.1:9/blib/v2")
    codes = [await hub.update(sku, blib=5) for sku in skus]
    await until(
        lambda: hub.world.value("SELECT count(*) FROM listing_state WHERE last_outcome = 'Unavailable'"),
        lambda count: count >= 5,
    )
    calls = await hub.world.value("SELECT sum(calls) FROM listing_state")
    assert calls <= 30
    records = await hub.records()
    assert all(records[code]["finished_at"] is None for code in codes)
    states = await hub.world.states()
    assert {state["state"] for state in states.values()} <= {"due", "waiting"}


async def test_a_marketplace_that_comes_back_gets_every_newest_quantity(hub: Hub) -> None:
    skus = tuple(f"sku{n}" for n in range(1, 21))
    await hub.store(skus=skus)
    hub.sandbox.faults.set("blib", down=True)
    for sku in skus:
        await hub.update(sku, blib=1)
    await hub.sandbox.ledger.wait_for_calls(3)
    codes = [await hub.update(sku, blib=2) for sku in skus]
    hub.sandbox.faults.clear()
    await hub.ended(*codes)
    assert {hub.shown(sku) for sku in skus} == {2}


async def test_a_connector_that_fails_does_not_stop_its_store(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from lumbung.channels.blibli import channel

    real = channel.BlibliSession.push
    failures = iter([True])

    async def broken(self: channel.BlibliSession, pushes: object) -> object:
        if next(failures, False):
            raise RuntimeError("a bug")
        return await real(self, pushes)  # type: ignore[arg-type]

    monkeypatch.setattr(channel.BlibliSession, "push", broken)
    await hub.store()
    await hub.ended(await hub.update(blib=20))
    assert hub.shown() == 20


async def test_the_answer_of_a_listing_that_was_removed_meanwhile_marks_nothing(hub: Hub) -> None:
    await hub.store(skus=("sku1",))
    remote = hub.listed["sku1"]
    async with hub.sandbox.gate("blib") as gate:
        code = await hub.update(blib=20)
        await gate.entered()
        await hub.world.variants("sku9")
        await hub.world.listings([("sku9", "Toko Padi", remote)])
        item = await item_of(hub, code)
        assert (item["success"], item["message"]) == (False, "The listing was mapped to another SKU")
        gate.open()
    await until(lambda: hub.world.value("SELECT count(*) FROM call"), lambda count: count == 1)
    assert (await item_of(hub, code))["message"] == "The listing was mapped to another SKU"
    states = await hub.world.rows("SELECT state, lane FROM listing_state ORDER BY listing_id")
    assert states == [{"state": "idle", "lane": 0}]
    assert hub.sandbox.ledger.listing("blib", STORE_CODE, remote).quantity == 20
