"""What marketplaces answer, and what becomes of listings, items and stores then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from lumbung.channels.base import Attempt, Deferred, Outcome, Push, Row
from lumbung.channels.blibli.channel import BlibliSession
from lumbung.channels.blibli.manifest import MANIFEST
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_store
from tests.flow.hub import DEADLINE_SECONDS, FAST, QUIESCE_SECONDS, STORE_CODE, Hub, running_hub, until


class FirstPush:
    """Blibli's first push is not made but answered by `answer`, once `answers` is set; later ones are real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Sequence[Push]], Attempt]):
        self._asked = asyncio.Event()
        self.answers = asyncio.Event()
        real = BlibliSession.push

        async def push(session: BlibliSession, pushes: Sequence[Push]) -> Attempt:
            if self._asked.is_set():
                return await real(session, pushes)
            self._asked.set()
            await self.answers.wait()
            return answer(pushes)

        monkeypatch.setattr(BlibliSession, "push", push)

    async def asked(self) -> None:
        """Wait until the first push is under way."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._asked.wait()


def all_rows(outcome: Outcome) -> Callable[[Sequence[Push]], Attempt]:
    return lambda pushes: Attempt(tuple(Row(push.listing_id, outcome) for push in pushes), ())


def no_rows(pushes: Sequence[Push]) -> Attempt:
    return Attempt((), ())


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
    assert hub.written() == [20, 20]
    assert await hub.waits() == ["confirmation"]
    await hub.later(QUIESCE_SECONDS)
    await hub.at_rest()
    assert hub.written() == [20, 20]  # it was read back, and shows what it should
    assert await hub.waits() == []
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["quantity_doubtful"], state["doubtful_until"], state["quantity_observed"]) == (None, None, 20)


async def test_an_older_write_applied_late_is_healed_by_the_confirmation(hub: Hub) -> None:
    await hub.store(call_timeout_seconds="2")
    async with hub.sandbox.gate("blib") as gate:
        await hub.update(blib=99)
        await gate.entered()
        newer = await hub.update(blib=5)
        gate.let_later_pass()
        await hub.ended(newer)  # once nobody waits for the answer of the first call any more
        assert hub.written() == [5]
        gate.open()
        await hub.writes(2)
    assert hub.written() == [5, 99]
    assert hub.shown() == 99
    assert await hub.waits() == ["confirmation"]
    await hub.later(QUIESCE_SECONDS)
    await hub.at_rest()
    assert hub.written() == [5, 99, 5]
    assert hub.shown() == 5
    assert await hub.waits() == []


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


async def test_a_parked_listing_is_tried_again_by_a_new_update_at_most_every_so_often(hub: Hub) -> None:
    await hub.store(skus=("sku1", "sku2"))
    hub.sandbox.faults.set("blib", reject_skus=["sku1"])
    await hub.ended(await hub.update(blib=20))
    hub.sandbox.faults.clear()
    code = await hub.update(blib=21)
    await hub.ended(await hub.update("sku2", blib=7))  # the worker has looked since
    assert (await item_of(hub, code))["progress"] is True
    assert (await hub.world.states())[hub.listed["sku1"]]["state"] == "parked"
    assert len(hub.sandbox.ledger.calls.after(0)) == 2
    await hub.later(hub.settings.park_retry_seconds)
    await hub.ended(code)
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["state"], state["park_reason"]) == ("idle", None)
    assert hub.written() == [21]
    assert await hub.waits() == []


async def test_a_parked_listing_without_a_new_update_stays_parked(hub: Hub) -> None:
    await hub.store(skus=("sku1",))
    hub.sandbox.faults.set("blib", reject_skus=["sku1"])
    await hub.ended(await hub.update(blib=20))
    assert await hub.waits() == ["parked"]
    await hub.later(hub.settings.park_retry_seconds)
    await until(hub.waits, lambda reasons: reasons == [])
    assert (await hub.world.states())[hub.listed["sku1"]]["state"] == "parked"
    assert len(hub.sandbox.ledger.calls.after(0)) == 1


async def test_a_login_that_is_refused_pauses_its_store_only_and_keeps_the_work(hub: Hub) -> None:
    await hub.store("Broken", ("sku1",), code="TOQ-9", api_client_key="wrong")
    await hub.store("Fine", ("sku2",), code="TOQ-2")
    code = await hub.update("sku1", blib=20)
    await hub.ended(await hub.update("sku2", blib=7))
    assert await hub.paused("Broken") != ""
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
    assert await hub.paused("Broken") != ""
    assert hub.shown("sku2", "TOQ-2") == 7


@pytest.mark.parametrize("content", [b"not JSON", b"\xff\xfe", b"[1]"])
async def test_credentials_that_are_not_a_json_object_pause_their_store_only(hub: Hub, content: bytes) -> None:
    store_id = await hub.store("Broken", ("sku1",), code="TOQ-9")
    assert hub.world.keyring is not None
    blob = hub.world.keyring.encrypt(content, purpose_of_store(store_id))
    await hub.world.execute("UPDATE store SET credentials = $1 WHERE id = $2", blob, store_id)
    code = await hub.update("sku1", blib=20)
    assert await hub.paused("Broken") != ""
    await hub.store("Fine", ("sku2",), code="TOQ-2")
    await hub.ended(await hub.update("sku2", blib=7))
    assert hub.shown("sku2", "TOQ-2") == 7
    assert (await item_of(hub, code))["progress"] is True
    assert {call.store for call in hub.sandbox.ledger.calls.after(0)} == {"TOQ-2"}


async def test_a_marketplace_that_is_down_opens_the_breaker_and_nothing_is_given_up(
    database_url: str, keyring: Keyring
) -> None:
    settings = replace(FAST, breaker_probe_seconds=60.0, breaker_probe_seconds_max=60.0)
    async with running_hub(database_url, keyring, settings) as hub:
        skus = tuple(f"sku{n}" for n in range(1, 31))
        down = await hub.store("Down", skus, code="TOQ-9", base_url="http://127.0.0.1:9/blib/v2")
        await hub.store("Fine", ("other",), code="TOQ-2")
        query = "SELECT coalesce(sum(calls), 0)::int FROM listing_state WHERE store_id = $1"
        codes = [await hub.update(sku, blib=5) for sku in skus]
        await until(lambda: hub.world.value(query, down), lambda calls: calls >= settings.breaker_failures)
        for quantity in range(1, 11):  # time enough for calls in flight to end, and for backoffs
            await hub.ended(await hub.update("other", blib=quantity))
        calls = await hub.world.value(query, down)
        assert settings.breaker_failures <= calls <= settings.breaker_failures + MANIFEST.in_flight_max - 1
        for quantity in range(11, 31):
            await hub.ended(await hub.update("other", blib=quantity))
        assert await hub.world.value(query, down) == calls
        assert hub.written("other") == list(range(1, 31))
        records = await hub.records()
        assert [records[code]["finished_at"] for code in codes] == [None] * 30
        rows = await hub.world.rows("SELECT state FROM listing_state WHERE store_id = $1", down)
        assert {row["state"] for row in rows} <= {"due", "waiting"}


async def test_a_marketplace_that_comes_back_gets_every_newest_quantity(hub: Hub) -> None:
    skus = tuple(f"sku{n}" for n in range(1, 21))
    await hub.store(skus=skus)
    hub.sandbox.faults.set("blib", down=True)
    for sku in skus:
        await hub.update(sku, blib=1)
    await hub.calls(3)
    codes = [await hub.update(sku, blib=2) for sku in skus]
    hub.sandbox.faults.clear()
    await hub.ended(*codes)
    assert {hub.shown(sku) for sku in skus} == {2}


async def test_a_connector_that_fails_does_not_stop_its_store(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pushes: Sequence[Push]) -> Attempt:
        raise RuntimeError("a bug")

    FirstPush(monkeypatch, fail).answers.set()
    await hub.store()
    await hub.ended(await hub.update(blib=20))
    assert hub.shown() == 20


async def test_a_deferred_listing_gets_the_newest_quantity_later(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FirstPush(monkeypatch, all_rows(Deferred(0.05, "A campaign")))
    await hub.store(skus=("sku1", "sku2"))
    older = await hub.update("sku1", blib=20)
    await first.asked()
    newer = await hub.update("sku1", blib=21)
    first.answers.set()
    await hub.ended(older, newer, await hub.update("sku2", blib=7))
    await hub.at_rest()
    assert (hub.written("sku1"), hub.written("sku2")) == ([21], [7])
    item = await item_of(hub, newer)
    assert (item["success"], item["message"]) == (True, "Successfully Updated")
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["state"], state["attempts"], state["calls"]) == ("idle", 0, 2)
    assert await hub.waits() == []


async def test_a_deferred_listing_waits_while_its_store_goes_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    FirstPush(monkeypatch, all_rows(Deferred(1000.0, "A campaign"))).answers.set()
    await hub.store(skus=("sku1", "sku2"))
    code = await hub.update("sku1", blib=20)
    await until(hub.waits, lambda reasons: reasons == ["deferred"])
    await hub.ended(await hub.update("sku2", blib=7))
    state = (await hub.world.states())[hub.listed["sku1"]]
    assert (state["state"], state["last_outcome"], state["attempts"]) == ("waiting", "Deferred", 0)
    assert (await item_of(hub, code))["progress"] is True
    await hub.later(1000.0)
    await hub.ended(code)
    assert (hub.written("sku1"), hub.written("sku2")) == ([20], [7])


async def test_an_answer_that_nobody_can_use_is_logged_and_its_listing_is_sent_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FirstPush(monkeypatch, no_rows)
    store_id = await hub.store(skus=("sku1", "sku2"))
    with capture_logs() as logs:
        code = await hub.update("sku1", blib=20)
        await first.asked()
        first.answers.set()
        await hub.ended(code, await hub.update("sku2", blib=7))
    assert [entry["store"] for entry in logs if entry["log_level"] == "error"] == [store_id]
    assert (hub.written("sku1"), hub.written("sku2")) == ([20], [7])
    item = await item_of(hub, code)
    assert (item["success"], item["retrier_count"]) == (True, 1)


async def test_no_marketplace_can_stop_a_store_for_longer_than_the_longest_throttle(
    database_url: str, keyring: Keyring
) -> None:
    async with running_hub(database_url, keyring, replace(FAST, throttle_seconds_max=0.1)) as hub:
        await hub.store()
        hub.sandbox.faults.set("blib", throttle_rate=1.0, retry_after_s=86_400, times=2)
        await hub.ended(await hub.update(blib=20))
        assert [call.status for call in hub.sandbox.ledger.calls.after(0)] == [429, 429, 200]
        assert hub.written() == [20]


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
    assert states == [{"state": "idle", "lane": 0}] * 2  # the new one has a state because a call is in doubt
    assert hub.sandbox.ledger.listing("blib", STORE_CODE, remote).quantity == 20
