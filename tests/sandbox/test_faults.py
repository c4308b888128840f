"""Every fault key, as a client and the write log see it."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from lumbung.sandbox.bucket import Bucket
from lumbung.sandbox.errors import RefusedError
from lumbung.sandbox.faults import ArmedFaults, FaultSet
from lumbung.sandbox.limits import Buckets, Limit
from lumbung.sandbox.server import Sandbox

from .conftest import Controller
from .seller import HEADERS, QUERY, STORE, Seller
from .shopee_seller import ITEM_INFO, ITEM_LIST, MODEL_LIST, OTHER_SHOP, SHOP, UPDATE_STOCK, App
from .shopee_seller import STORE as SHOPEE_STORE


def applied(sandbox: Sandbox) -> list[int]:
    return [write.quantity for write in sandbox.ledger.writes.after(0)]


def calls(sandbox: Sandbox) -> list[tuple[int, str]]:
    return [(call.status, call.fault) for call in sandbox.ledger.calls.after(0)]


async def test_errors_come_in_turn_and_apply_nothing(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", error_rate=1)
    answers = [await seller.set(5) for _ in range(4)]
    assert [(status, body["success"], body["errorCode"]) for status, body in answers] == [
        (500, False, "INTERNAL_SERVER_ERROR"),
        (502, False, "BAD_GATEWAY"),
        (503, False, "SERVICE_UNAVAILABLE"),
        (500, False, "INTERNAL_SERVER_ERROR"),
    ]
    assert applied(sandbox) == []
    assert calls(sandbox) == [(500, "error_rate"), (502, "error_rate"), (503, "error_rate"), (500, "error_rate")]


async def test_a_throttle_is_answered_429_and_applies_nothing(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", throttle_rate=1)
    async with seller.put(5) as answer:
        body = await answer.json()
    assert (answer.status, body["requestId"], body["success"], body["errorCode"]) == (
        429,
        "r-1",
        False,
        "TOO_MANY_REQUESTS",
    )
    assert "Retry-After" not in answer.headers
    assert applied(sandbox) == []
    assert calls(sandbox) == [(429, "throttle_rate")]


async def test_a_throttle_says_when_to_come_back_if_asked_to(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", throttle_rate=1, retry_after_s=17)
    async with seller.put(5) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "17")


async def test_a_late_answer_is_applied_at_once(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", timeout_rate=1)
    call = asyncio.create_task(seller.set(5))
    await sandbox.ledger.wait_for_writes(1)
    assert applied(sandbox) == [5]
    assert not call.done()
    call.cancel()
    await sandbox.ledger.wait_for_calls(1)
    assert calls(sandbox) == [(0, "timeout_rate")]
    assert sandbox.traffic.in_flight == 0


async def test_a_late_answer_comes_in_the_end(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", timeout_rate=1, timeout_ms=30)
    started = time.monotonic()
    status, _ = await seller.set(5)
    assert (status, time.monotonic() - started >= 0.03) == (200, True)


async def test_a_late_apply_overwrites_a_newer_write(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", timeout_rate=1, late_apply_ms=500, times=1)
    with pytest.raises(TimeoutError):
        async with seller.put(10, timeout_seconds=0.1):
            pass
    assert (await seller.set(11))[0] == 200
    assert applied(sandbox) == [11]
    await sandbox.ledger.wait_for_writes(2)
    assert applied(sandbox) == [11, 10]
    assert [(write.n, write.call) for write in sandbox.ledger.writes.after(0)] == [(1, 2), (2, 1)]
    assert sandbox.ledger.listing("blib", "TOQ-1", "TOQ-1-1-1").quantity == 10


async def test_a_late_apply_of_a_listing_that_is_gone_is_nothing(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", timeout_rate=1, late_apply_ms=400)
    for quantity, sku in ((5, "TOQ-1-1-1"), (6, "TOQ-1-1-2")):
        with pytest.raises(TimeoutError):
            async with seller.put(quantity, sku=sku, timeout_seconds=0.1):
                pass
    sandbox.put_store("blib", "TOQ-1", {**STORE, "listings": [{"remote_variant": "TOQ-1-1-2", "sku": "sku2"}]})
    await sandbox.ledger.wait_for_writes(1)
    assert applied(sandbox) == [6]


async def test_a_dropped_answer_was_applied(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", drop_response_rate=1, times=1)
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await seller.set(5)
    assert applied(sandbox) == [5]
    assert calls(sandbox) == [(0, "drop_response_rate")]


async def test_a_500_after_applying(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", apply_then_5xx_rate=1)
    assert (await seller.set(5))[0] == 500
    assert applied(sandbox) == [5]
    assert calls(sandbox) == [(500, "apply_then_5xx_rate")]


async def test_garbage_is_html_then_half_then_nothing_and_a_coin_decides(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", garbage_rate=1, seed=4)
    bodies = []
    for quantity in range(30):
        async with seller.put(quantity) as answer:
            assert answer.status == 200
            bodies.append((answer.content_type, await answer.text()))
    assert bodies[0][0] == "text/html"
    assert bodies[0][1].startswith("<!DOCTYPE html>")
    assert bodies[1][0] == "application/json"
    assert bodies[1][1] == '{"requestId":"r-1","success":true,"errorCode":"","errorMessa'
    assert bodies[2] == ("application/json", "")
    assert bodies[3] == bodies[0]
    assert 0 < len(applied(sandbox)) < 30
    assert set(calls(sandbox)) == {(200, "garbage_rate")}


async def test_latency_comes_before_the_judging(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", latency_ms=40)
    started = time.monotonic()
    call = asyncio.create_task(seller.set(5))
    await sandbox.ledger.wait_for_writes(1)
    assert time.monotonic() - started >= 0.04
    assert (await call)[0] == 200
    assert calls(sandbox) == [(200, "latency_ms")]


async def test_a_call_whose_client_left_during_the_latency_is_applied_all_the_same(
    sandbox: Sandbox, seller: Seller
) -> None:
    sandbox.faults.set("blib", latency_ms=300)
    with pytest.raises(TimeoutError):
        async with seller.put(5, timeout_seconds=0.1):
            pass
    await sandbox.ledger.wait_for_writes(1)
    assert applied(sandbox) == [5]
    assert [status for status, _ in calls(sandbox)] == [0]


async def test_latency_comes_on_top_of_other_faults(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", latency_ms=1, apply_then_5xx_rate=1)
    assert (await seller.set(5))[0] == 500
    assert calls(sandbox) == [(500, "apply_then_5xx_rate")]


async def test_a_rate_limit_counts_for_each_store_with_a_second_at_once(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", rate_limit_per_s=0.001)
    assert [(await seller.set(quantity))[0] for quantity in (1, 2)] == [200, 429]
    sandbox.faults.set("blib", rate_limit_per_s=2.5e-3, retry_after_s=3)
    sandbox.put_store("blib", "TOQ-3", STORE)
    statuses = []
    for store in ("TOQ-1", "TOQ-3", "TOQ-1", "TOQ-3"):
        async with seller.put(5, query={**QUERY, "storeCode": store}) as answer:
            statuses.append((answer.status, answer.headers.get("Retry-After")))
    assert statuses == [(200, None), (200, None), (429, "3"), (429, "3")]
    assert calls(sandbox)[1] == (429, "rate_limit_per_s")
    assert applied(sandbox) == [1, 5, 5]


def test_a_bucket_holds_one_seconds_worth_rounded_up() -> None:
    bucket = Bucket(2.5, now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.39), bucket.take(100.4), bucket.take(100.4)] == [False, True, False]
    assert [bucket.take(500.0) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("name", ["sku1", "TOQ-1-1-1"])
async def test_a_rejected_sku_is_answered_as_unknown(sandbox: Sandbox, seller: Seller, name: str) -> None:
    sandbox.faults.set("blib", reject_skus=[name])
    status, body = await seller.set(5)
    assert (status, body["success"], body["errorCode"]) == (200, False, "PRODUCT_NOT_FOUND")
    assert (await seller.set(5, sku="TOQ-1-1-2"))[1]["success"] is True
    assert calls(sandbox) == [(200, "reject_skus"), (200, "")]


async def test_down_resets_the_connection_and_reads_nothing(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", down=True)
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        async with seller.get():
            pass
    assert applied(sandbox) == []
    assert set(calls(sandbox)) == {(0, "down")}
    sandbox.faults.clear()
    assert (await seller.set(5))[0] == 200


async def test_times_disarms_after_so_many_changed_calls(sandbox: Sandbox, seller: Seller, control: Controller) -> None:
    for keys, changed in (
        ({"error_rate": 1}, [500, 502]),
        ({"throttle_rate": 1, "latency_ms": 1}, [429, 429]),
        ({"apply_then_5xx_rate": 1}, [500, 500]),
    ):
        sandbox.faults.set("blib", **keys, times=2)
        assert [(await seller.set(5))[0] for _ in range(3)] == [*changed, 200]
        assert await control("GET", "/faults") == (200, {})


async def test_times_counts_a_rejected_call_once(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", reject_skus=["sku1"], latency_ms=1, times=2)
    assert [(await seller.set(5))[1]["success"] for _ in range(3)] == [False, False, True]
    sandbox.faults.set("blib", reject_skus=["sku1"], times=2)
    await seller.set(5, sku="TOQ-1-1-2")
    assert [(await seller.set(5))[1]["success"] for _ in range(3)] == [False, False, True]


def test_a_call_meets_at_most_one_rate_and_a_seed_repeats_the_draws() -> None:
    faults = FaultSet(error_rate=0.25, drop_response_rate=0.25, seed=7)
    one, two = ArmedFaults(faults), ArmedFaults(faults)
    drawn = [one.draw("s", "", 0.0, 0) for _ in range(1000)]
    assert drawn == [two.draw("s", "", 0.0, 0) for _ in range(1000)]
    assert set(drawn) == {"", "error_rate", "drop_response_rate"}
    assert 200 < drawn.count("error_rate") < 300
    assert 200 < drawn.count("drop_response_rate") < 300


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"eror_rate": 1, "x": 2},
            "unknown key: 'eror_rate', 'x'; known keys are latency_ms, error_rate, throttle_rate",
        ),
        ({"self": 1, "channel": 2}, "unknown key: 'channel', 'self'"),
        ({"error_rate": 1.1}, "Expected `float` <= 1.0 - at `$.error_rate`"),
        ({"error_rate": -0.1}, "Expected `float` >= 0.0 - at `$.error_rate`"),
        ({"error_rate": True}, "Expected `float`, got `bool` - at `$.error_rate`"),
        ({"latency_ms": "5"}, "Expected `float`, got `str` - at `$.latency_ms`"),
        ({"down": 1}, "Expected `bool`, got `int` - at `$.down`"),
        ({"reject_skus": "sku1"}, "Expected `array`, got `str` - at `$.reject_skus`"),
        ({"times": 0}, "Expected `int` >= 1 - at `$.times`"),
        ({"quota_calls": -1}, "Expected `int` >= 0 - at `$.quota_calls`"),
        ({"application_rate_limit_per_s": -1}, "Expected `float` >= 0.0 - at `$.application_rate_limit_per_s`"),
        ({"row_faults": {"sku1": "sad"}}, "Invalid enum value 'sad' - at `$.row_faults[...]`"),
        ({"path_contains": None}, "Expected `str`, got `null` - at `$.path_contains`"),
        ({"error_rate": 0.6, "garbage_rate": 0.5}, "the rates add up to 1.1; together they are at most 1"),
    ],
)
async def test_wrong_faults_are_refused_and_change_nothing(
    control: Controller, sandbox: Sandbox, keys: dict[str, object], message: str
) -> None:
    sandbox.faults.set("blib", latency_ms=1)
    status, body = await control("PUT", "/faults/blib", keys)
    assert (status, body["message"][: len(message)]) == (400, message)
    assert sandbox.faults.sets() == {"blib": FaultSet(latency_ms=1)}


async def test_faults_are_set_shown_replaced_and_cleared_over_http(control: Controller, seller: Seller) -> None:
    status, shown = await control("PUT", "/faults/blib", {"error_rate": 1, "seed": 1})
    assert (status, shown["error_rate"], shown["timeout_ms"], shown["reject_skus"]) == (200, 1.0, 30_000, [])
    assert await control("GET", "/faults") == (200, {"blib": shown})
    assert (await seller.set(5))[0] == 500
    await control("PUT", "/faults/blib", {"reject_skus": ["sku1"]})
    assert (await seller.set(5))[1]["errorCode"] == "PRODUCT_NOT_FOUND"
    assert await control("DELETE", "/faults") == (200, {})
    assert (await seller.set(5))[1]["success"] is True


def test_refusing_in_process_raises(sandbox: Sandbox) -> None:
    with pytest.raises(RefusedError, match="unknown key: 'nope'"):
        sandbox.faults.set("blib", nope=1)


async def test_an_applications_limit_is_shared_by_its_stores(sandbox: Sandbox, app: App) -> None:
    stranger = {**SHOPEE_STORE, "partner_id": 7, "partner_key": "theirs"}
    sandbox.put_store("shpe", "3000000", stranger)
    sandbox.faults.set("shpe", application_rate_limit_per_s=0.001)
    assert (await app.set((55, 1)))[1]["error"] == ""
    app.access_token = "other-access"
    assert (await app.set((0, 1), item=500, shop=OTHER_SHOP))[1]["error"] == "error_rate_limit"
    # Another application's first call: its sign is wrong, but it was let through to be told so.
    query = {**app.of_shop(UPDATE_STOCK, shop=3000000), "partner_id": "7"}
    assert (await app.post(UPDATE_STOCK, {}, query=query))[1]["error"] == "error_sign"
    assert calls(sandbox) == [(200, ""), (200, "application_rate_limit_per_s"), (200, "")]
    assert [write.store for write in sandbox.ledger.writes.after(0)] == [str(SHOP)]


def test_what_a_stores_limit_refuses_costs_its_application_nothing() -> None:
    armed = ArmedFaults(FaultSet(rate_limit_per_s=1, application_rate_limit_per_s=2))
    assert [armed.draw(store, "app", 0.0, 0) for store in ("a", "a", "b", "c")] == [
        "",
        "rate_limit_per_s",
        "",
        "application_rate_limit_per_s",
    ]


def test_what_a_limit_refuses_is_not_counted_for_the_quota() -> None:
    armed = ArmedFaults(FaultSet(rate_limit_per_s=1, quota_calls=2))
    drawn = [armed.draw("a", "", at, 0) for at in (0.0, 0.0, 1.0, 2.0)]
    assert drawn == ["", "rate_limit_per_s", "", "quota_calls"]


async def test_a_quota_counts_for_each_store_and_begins_anew_at_midnight(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    sandbox.put_store("blib", "TOQ-3", {**STORE, "listings": []})
    clock = sandbox.ledger.clock
    # A minute before midnight in UTC+8, so that the day does not end on its own meanwhile.
    to_midnight = 86_400 - (clock.now() + 8 * 3600) % 86_400
    await control("PUT", "/clock", {"ahead_seconds": to_midnight - 60})
    sandbox.faults.set("blib", quota_calls=2, retry_after_s=9)
    assert [(await seller.set(quantity))[0] for quantity in (1, 2, 3)] == [200, 200, 429]
    async with seller.put(4) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "9")
    async with seller.put(1, query={**QUERY, "storeCode": "TOQ-3"}) as answer:
        assert (await answer.json())["errorCode"] == "PRODUCT_NOT_FOUND"
    await control("PUT", "/clock", {"ahead_seconds": to_midnight})
    assert [(await seller.set(quantity))[0] for quantity in (5, 6, 7)] == [200, 200, 429]
    assert applied(sandbox) == [1, 2, 5, 6]
    assert [fault for _, fault in calls(sandbox)] == ["", "", "quota_calls", "quota_calls", "", "", "", "quota_calls"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [("unknown", "PRODUCT_NOT_FOUND"), ("banned", "PRODUCT_SUSPENDED"), ("locked", "PRODUCT_IN_PROMOTION")],
)
@pytest.mark.parametrize("name", ["sku1", "TOQ-1-1-1"])
async def test_a_row_fault_concerns_one_listing(
    sandbox: Sandbox, seller: Seller, name: str, fault: str, code: str
) -> None:
    sandbox.faults.set("blib", row_faults={name: fault})
    assert (await seller.set(5))[1]["errorCode"] == code
    assert (await seller.set(6, sku="TOQ-1-1-2"))[1]["errorCode"] == ""
    assert calls(sandbox) == [(200, "row_faults"), (200, "")]
    assert applied(sandbox) == [6]


async def test_a_condition_of_the_listings_own_comes_before_a_row_fault(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    listing = {"channel": "blib", "store": "TOQ-1", "remote_variant": "TOQ-1-1-1", "condition": "banned"}
    assert (await control("PUT", "/listings", listing))[0] == 200
    sandbox.faults.set("blib", row_faults={"sku1": "locked"})
    assert (await seller.set(5))[1]["errorCode"] == "PRODUCT_SUSPENDED"
    assert calls(sandbox) == [(200, "")]


async def test_row_faults_count_a_call_once_however_many_rows_they_strike(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", row_faults={"shirt-red": "banned", "shirt-blue": "locked"}, times=2)
    for errors in ("error_busi_update_stock_failed", "error_busi_update_stock_failed", ""):
        assert (await app.set((55, 1), (56, 2)))[1]["error"] == errors
    assert applied(sandbox) == [1, 2]


async def test_a_fault_set_concerns_only_calls_on_its_paths(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", error_rate=1, path_contains="/auth/")
    assert (await app.set((55, 1)))[0] == 200
    assert (await app.refresh("refresh-1"))[0] == 500
    sandbox.faults.set("shpe", down=True, path_contains="update_stock")
    assert (await app.refresh("refresh-1"))[1]["error"] == ""
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await app.set((55, 2))
    sandbox.faults.set("shpe", rate_limit_per_s=0.001, path_contains="update_stock")
    assert [await app.is_let_in("access-1") for _ in range(3)] == ["", "", ""]
    assert [(await app.set((55, quantity)))[1]["error"] for quantity in (3, 4)] == ["", "error_rate_limit"]
    assert applied(sandbox) == [1, 3]


async def test_a_path_is_not_found_in_the_query(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", error_rate=1, path_contains="access_token")
    assert (await app.set((55, 1)))[0] == 200


# --- Listings that always fail ---


@pytest.mark.parametrize("name", ["sku1", "TOQ-1-1-1"])
async def test_a_failing_listing_is_answered_500_written_and_read_and_its_sister_is_well(
    sandbox: Sandbox, seller: Seller, name: str
) -> None:
    sandbox.faults.set("blib", row_faults={name: "failing"})
    status, body = await seller.set(5)
    assert (status, body["success"], body["errorCode"]) == (500, False, "INTERNAL_SERVER_ERROR")
    async with seller.get() as answer:
        assert (answer.status, (await answer.json())["errorCode"]) == (500, "INTERNAL_SERVER_ERROR")
    assert (await seller.set(6, sku="TOQ-1-1-2"))[0] == 200
    assert calls(sandbox) == [(500, "row_faults"), (500, "row_faults"), (200, "")]
    assert applied(sandbox) == [6]


async def test_a_listing_fails_until_its_condition_is_over(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    listing = {"channel": "blib", "store": "TOQ-1", "remote_variant": "TOQ-1-1-1"}
    assert (await control("PUT", "/listings", {**listing, "condition": "failing"}))[1]["condition"] == "failing"
    assert [(await seller.set(5))[0] for _ in range(3)] == [500, 500, 500]
    await control("PUT", "/listings", {**listing, "condition": ""})
    assert (await seller.set(6))[0] == 200
    assert calls(sandbox) == [(500, "")] * 3 + [(200, "")]
    assert applied(sandbox) == [6]


async def test_a_stranger_is_stopped_before_a_listing_fails(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", row_faults={"sku1": "failing"})
    async with seller.put(5, headers={**HEADERS, "Authorization": "Basic eA=="}) as answer:
        assert answer.status == 401


async def test_a_batch_with_a_failing_listing_fails_as_a_whole(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", row_faults={"shirt-blue": "failing"})
    for rows in (((56, 2),), ((55, 1), (56, 2)), ((56, 2), (55, 1))):
        assert await app.set(*rows) == (500, {"error": "error_server", "message": "Something wrong. Please try later."})
    assert (await app.set((55, 1)))[1]["error"] == ""
    assert (await app.set((0, 4), item=12347))[1]["error"] == ""
    assert calls(sandbox) == [(500, "row_faults")] * 3 + [(200, "")] * 2
    assert applied(sandbox) == [1, 4]


async def test_an_item_with_a_failing_model_cannot_be_read_but_stands_on_its_shops_pages(
    sandbox: Sandbox, app: App
) -> None:
    sandbox.faults.set("shpe", row_faults={"shirt-blue": "failing"})
    assert [(await app.get(ITEM_INFO, item_id_list=ids))[0] for ids in ("12346", "12347,12346", "12347")] == [
        500,
        500,
        200,
    ]
    assert [(await app.get(MODEL_LIST, item_id=item))[0] for item in ("12346", "12347")] == [500, 200]
    status, page = await app.get(ITEM_LIST, offset="0", page_size="10", item_status="NORMAL")
    assert (status, [item["item_id"] for item in page["response"]["item"]]) == (200, [12346, 12347])


# --- Limits of single stores ---


def store_limit(sandbox: Sandbox, store: str, calls_per_s: float, channel: str = "blib") -> None:
    sandbox.limits.stores.set(channel, store, Limit(calls_per_s), time.monotonic())


async def test_a_stores_own_limit_holds_whatever_is_armed_and_is_not_filled_by_it(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    store_limit(sandbox, "TOQ-1", 0.001)
    answers = []
    for faults in ({}, {"retry_after_s": 7}, {"error_rate": 1}, {"latency_ms": 1, "apply_then_5xx_rate": 1}):
        sandbox.faults.set("blib", **faults)
        async with seller.put(5) as answer:
            answers.append((answer.status, answer.headers.get("Retry-After")))
    sandbox.faults.clear()
    sandbox.put_store("blib", "TOQ-1", STORE)
    async with seller.put(5) as answer:
        answers.append((answer.status, answer.headers.get("Retry-After")))
    assert answers == [(200, None), (429, "7"), (429, None), (429, None), (429, None)]
    assert calls(sandbox) == [(200, ""), *[(429, "store_limit")] * 4]
    assert applied(sandbox) == [5]
    assert (await control("GET", "/status"))[1]["over_store_limit"] == {"bklp": 0, "blib": 4, "shpe": 0}


async def test_a_stores_own_limit_concerns_no_other_store(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.put_store("blib", "TOQ-3", STORE)
    store_limit(sandbox, "TOQ-1", 0.001)
    statuses = []
    for store in ("TOQ-1", "TOQ-3", "TOQ-1", "TOQ-3", "nobody"):
        async with seller.put(5, query={**QUERY, "storeCode": store}) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 200, 429, 200, 403]


async def test_a_call_over_its_stores_limit_is_refused_in_shopees_own_shape(sandbox: Sandbox, app: App) -> None:
    store_limit(sandbox, str(SHOP), 0.001, "shpe")
    assert [(await app.set((55, quantity)))[1]["error"] for quantity in (1, 2)] == ["", "error_rate_limit"]
    assert calls(sandbox) == [(200, ""), (200, "store_limit")]
    assert applied(sandbox) == [1]


async def test_a_call_that_is_reset_counts_for_its_stores_limit(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    store_limit(sandbox, "TOQ-1", 0.001)
    sandbox.faults.set("blib", down=True)
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await seller.set(5)
    sandbox.faults.clear()
    over = (await control("GET", "/status"))[1]["over_store_limit"]["blib"]
    assert (await seller.set(5))[0] == 429
    assert (await control("GET", "/status"))[1]["over_store_limit"]["blib"] == over + 1
    assert applied(sandbox) == []


async def test_a_call_over_its_stores_limit_spends_a_fault_set_only_by_its_latency(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    store_limit(sandbox, "TOQ-1", 0.001)
    await seller.set(1)
    sandbox.faults.set("blib", error_rate=1, times=1)
    assert (await seller.set(2))[0] == 429
    assert list((await control("GET", "/faults"))[1]) == ["blib"]
    sandbox.faults.set("blib", latency_ms=1, times=1)
    assert (await seller.set(2))[0] == 429
    assert await control("GET", "/faults") == (200, {})


async def test_a_reset_forgets_the_limits_of_stores_and_what_was_over_them(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    store_limit(sandbox, "TOQ-1", 0.001)
    assert [(await seller.set(5))[0] for _ in range(2)] == [200, 429]
    await control("POST", "/reset?keep=stores")
    assert (await control("GET", "/status"))[1]["over_store_limit"] == {"bklp": 0, "blib": 0, "shpe": 0}
    assert [(await seller.set(5))[0] for _ in range(2)] == [200, 200]


async def test_stores_of_one_application_share_its_limit(sandbox: Sandbox, app: App, control: Controller) -> None:
    """What is over its store's own limit does not count for it."""
    sandbox.limits.applications.set("shpe", str(SHOPEE_STORE["partner_id"]), Limit(0.001, 2.0), time.monotonic())
    store_limit(sandbox, str(SHOP), 0.001, "shpe")
    for quantity in (1, 2, 3):
        await app.set((55, quantity))
    sandbox.limits.stores.clear()
    for quantity in (4, 5):
        await app.set((55, quantity))
    faults = ["", "store_limit", "store_limit", "", "application_limit"]
    assert [fault for _, fault in calls(sandbox)] == faults
    assert applied(sandbox) == [1, 4]
    assert (await control("GET", "/status"))[1]["over_application_limit"] == {"bklp": 0, "blib": 0, "shpe": 1}
    await control("POST", "/reset?keep=stores")
    assert (await control("GET", "/status"))[1]["over_application_limit"] == {"bklp": 0, "blib": 0, "shpe": 0}


def test_a_stores_own_limit_holds_its_burst_and_fills_at_its_rate() -> None:
    limits = Buckets(("blib",))
    limits.set("blib", "a", Limit(2.0, 3.0), now=100.0)
    admitted = [limits.admits("blib", "a", at) for at in (100.0, 100.0, 100.0, 100.0, 100.5, 100.5, 200.0)]
    assert admitted == [True, True, True, False, True, False, True]
    assert limits.over == {"blib": 2}
