"""The control API, over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine

import aiohttp
import pytest

from lumbung.sandbox.server import Sandbox

from .conftest import Controller
from .seller import STORE, Seller
from .shopee_seller import SHOP, UPDATE_STOCK, App, placed, stock
from .shopee_seller import STORE as SHOPEE_STORE

HEALTHY = {"reserved_by_orders": 0, "reserved_by_promotions": 0, "condition": "", "applied_at": None}
LISTINGS = [
    {
        "channel": "blib",
        "store": "TOQ-1",
        "remote_variant": "TOQ-1-1-1",
        "sku": "sku1",
        "quantity": 7,
        "stock": {"": 7},
        **HEALTHY,
    },
    {
        "channel": "blib",
        "store": "TOQ-1",
        "remote_variant": "TOQ-1-1-2",
        "sku": "sku2",
        "quantity": 0,
        "stock": {"": 0},
        **HEALTHY,
    },
]
ONE = {"channel": "blib", "store": "TOQ-1", "remote_variant": "TOQ-1-1-1"}


async def test_listings_show_what_the_stores_were_set_up_with(control: Controller) -> None:
    assert await control("GET", "/listings") == (200, LISTINGS)
    assert await control("GET", "/listings?channel=blib&store=TOQ-1") == (200, LISTINGS)
    assert await control("GET", "/listings?store=TOQ-2") == (200, [])
    assert await control("GET", "/listings?channel=shpe") == (200, [])


async def test_a_write_shows_in_the_listings_and_in_the_writes(control: Controller, seller: Seller) -> None:
    before = time.time()
    await seller.set(5)
    await seller.set(3, sku="TOQ-1-1-2")
    status, writes = await control("GET", "/writes?after=0")
    assert status == 200
    moments = [write.pop("at") for write in writes]
    assert before <= moments[0] <= moments[1] <= time.time()
    common = {"channel": "blib", "store": "TOQ-1", "location": ""}
    assert writes == [
        {"n": 1, **common, "remote_variant": "TOQ-1-1-1", "sku": "sku1", "quantity": 5, "call": 1},
        {"n": 2, **common, "remote_variant": "TOQ-1-1-2", "sku": "sku2", "quantity": 3, "call": 2},
    ]
    _, listings = await control("GET", "/listings")
    assert [(one["quantity"], one["applied_at"]) for one in listings] == [(5, moments[0]), (3, moments[1])]


async def test_writes_are_read_in_pages(control: Controller, seller: Seller) -> None:
    for quantity in range(5):
        await seller.set(quantity)
    numbers = {}
    for query in ("", "?after=2", "?limit=2", "?after=1&limit=2", "?after=5", "?after=99", "?limit=0"):
        _, writes = await control("GET", f"/writes{query}")
        numbers[query] = [write["n"] for write in writes]
    assert numbers == {
        "": [1, 2, 3, 4, 5],
        "?after=2": [3, 4, 5],
        "?limit=2": [1, 2],
        "?after=1&limit=2": [2, 3],
        "?after=5": [],
        "?after=99": [],
        "?limit=0": [],
    }


async def test_a_long_poll_answers_as_soon_as_there_is_something(control: Controller, seller: Seller) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        writes = group.create_task(control("GET", "/writes?after=0&wait_ms=60000"))
        calls = group.create_task(control("GET", "/calls?after=0&wait_ms=60000"))
        await seller.set(5)
    assert [write["quantity"] for write in writes.result()[1]] == [5]
    assert [call["status"] for call in calls.result()[1]] == [200]


async def test_a_long_poll_gives_up_with_nothing(control: Controller) -> None:
    assert await control("GET", "/writes?wait_ms=1") == (200, [])


async def test_calls_show_everything_but_secrets(control: Controller, seller: Seller) -> None:
    before = time.time()
    await seller.set(5)
    _, [call] = await control("GET", "/calls?after=0")
    assert before <= call.pop("at") <= time.time()
    assert 0 <= call.pop("duration_ms") < 10_000
    headers = call.pop("headers")
    assert headers.pop("user-agent").startswith("Python/")
    assert headers == {"content-type": "application/json"}
    assert call == {
        "n": 1,
        "channel": "blib",
        "store": "TOQ-1",
        "caller": "127.0.0.1",
        "received": 1,
        "remote_variants": ["TOQ-1-1-1"],
        "method": "PUT",
        "path": "/blib/v2/proxy/seller/v1/products/TOQ-1-1-1/stock",
        "status": 200,
        "request_body": '{"availableStock": 5}',
        "response_body": '{"requestId":"r-1","success":true,"errorCode":"","errorMessage":"",'
        '"value":{"blibliSku":"TOQ-1-1-1","availableStock":5}}',
        "fault": "",
    }
    assert "seller-key" not in str(call)


async def test_long_bodies_are_cut_and_odd_bytes_shown(control: Controller, seller: Seller) -> None:
    async with seller.put(0, body=b"\xff" + b"x" * 10_000) as answer:
        assert answer.status == 400
    _, [call] = await control("GET", "/calls")
    assert call["request_body"] == "\ufffd" + "x" * 4095


async def test_bytes_that_are_no_text_in_the_query_and_headers_are_survived(
    sandbox: Sandbox, control: Controller
) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /blib/v2/proxy/seller/v1/products/%ff?requestId=%ff&storeCode=%00 HTTP/1.1\r\n"
        b"Host: x\r\nConnection: close\r\nUser-Agent: \xff\xfe\r\nAuthorization: \xff\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 400 ")
    status, calls = await control("GET", "/calls")
    assert status == 200
    assert [(call["status"], call["headers"]["user-agent"]) for call in calls] == [(400, "\ufffd\ufffd")]


async def test_a_sale_lowers_the_stock_and_is_no_write(control: Controller) -> None:
    sale = {"channel": "blib", "store": "TOQ-1", "remote_variant": "TOQ-1-1-1", "quantity": 3}
    status, sold = await control("POST", "/sales", sale)
    assert (status, sold["n"], sold["sku"], sold["quantity"], sold["left"]) == (200, 1, "sku1", 3, 4)
    assert await control("GET", "/sales") == (200, [sold])
    assert await control("GET", "/writes") == (200, [])
    _, listings = await control("GET", "/listings")
    assert (listings[0]["quantity"], listings[0]["applied_at"]) == (4, None)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"quantity": 8}, 400, "only 7 of 'TOQ-1-1-1' are left; nobody can buy 8"),
        ({"quantity": 0}, 400, "Expected `int` >= 1 - at `$.quantity`"),
        ({"remote_variant": "X"}, 404, "store 'TOQ-1' has no listing 'X'"),
        ({"store": "X"}, 404, "there is no store 'X' of 'blib'"),
        ({"price": 1}, 400, "unknown key: 'price'; known keys are channel, store, remote_variant, quantity"),
    ],
)
async def test_an_impossible_sale_changes_nothing(
    control: Controller, change: dict[str, object], status: int, message: str
) -> None:
    sale = {"channel": "blib", "store": "TOQ-1", "remote_variant": "TOQ-1-1-1", "quantity": 1, **change}
    answered, body = await control("POST", "/sales", sale)
    assert (answered, body["message"][: len(message)]) == (status, message)
    assert await control("GET", "/listings") == (200, LISTINGS)


async def test_a_store_is_set_up_over_http_and_replaced_as_a_whole(control: Controller, seller: Seller) -> None:
    new = {**STORE, "username": "x", "listings": [{"remote_variant": "A", "sku": "a"}], "locations": {"P1": "Bandung"}}
    assert await control("PUT", "/stores/blib/TOQ-1", new) == (
        200,
        {"channel": "blib", "store": "TOQ-1", "listings": 1},
    )
    _, listings = await control("GET", "/listings?store=TOQ-1")
    assert [one["remote_variant"] for one in listings] == ["A"]
    assert (await seller.set(5))[0] == 403


async def test_listings_are_added_all_or_none(control: Controller) -> None:
    path = "/stores/blib/TOQ-1/listings"
    new = {"remote_variant": "C", "sku": "c", "quantity": 2}
    taken = {"remote_variant": "TOQ-1-1-1", "sku": "x"}
    status, body = await control("POST", path, {"listings": [new, taken]})
    assert (status, body["message"][:32]) == (400, "store 'TOQ-1' has 'TOQ-1-1-1' al")
    status, body = await control("POST", path, {"listings": [new, new]})
    assert (status, body["message"]) == (400, "the remote_variant 'C' is there twice; name each listing once")
    assert await control("GET", "/listings") == (200, LISTINGS)
    assert await control("POST", path, {"listings": [new]}) == (
        200,
        {"channel": "blib", "store": "TOQ-1", "listings": 3},
    )
    assert (await control("POST", "/stores/blib/nobody/listings", {"listings": [new]}))[0] == 404


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({**STORE, "token": "x"}, "unknown key: 'token'; known keys are api_client_id"),
        ({**STORE, "username": 5}, "Expected `str`, got `int` - at `$.username`"),
        ({**STORE, "listings": [{"remote_variant": "A", "sku": "a", "qty": 1}]}, "Object contains unknown field `qty`"),
        ({**STORE, "listings": [{"remote_variant": "A", "sku": "a", "quantity": -1}]}, "Expected `int` >= 0"),
        ({"username": "x"}, "Object missing required field `api_client_id`"),
        ([], "the body is not a JSON object"),
    ],
)
async def test_a_wrong_store_is_refused_by_name(control: Controller, store: object, message: str) -> None:
    status, body = await control("PUT", "/stores/blib/TOQ-1", store)
    assert (status, body["message"][: len(message)]) == (400, message)
    assert await control("GET", "/listings") == (200, LISTINGS)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_is_refused(control: Controller, body: bytes) -> None:
    for method, path in (("PUT", "/stores/blib/TOQ-1"), ("PUT", "/faults/blib"), ("POST", "/sales")):
        status, answer = await control(method, path, body=body)
        assert (status, answer["message"][:19]) == (400, "the body is no JSON")


async def test_unknown_channels_and_paths_are_answered_404(control: Controller) -> None:
    for path in ("/stores/nope/1", "/faults/nope"):
        status, body = await control("PUT", path, {})
        assert (status, body["message"]) == (404, "there is no channel 'nope'; channels are bklp, blib, shpe")
    for method, path in (("GET", "/nothing"), ("DELETE", "/writes"), ("GET", "/reset")):
        status, body = await control(method, path)
        assert (status, body["message"][:30]) == (404, f"{method} is not answered here; mark"[:30])


@pytest.mark.parametrize(
    "path",
    [
        "/writes?since=1",
        "/writes?after=-1",
        "/calls?after=x",
        "/calls?limit=10001",
        "/sales?wait_ms=60001",
        "/status?x=1",
    ],
)
async def test_wrong_query_parameters_are_refused(control: Controller, path: str) -> None:
    status, body = await control("GET", path)
    assert status == 400
    assert path.partition("?")[2].partition("=")[0] in body["message"]


async def test_the_status_counts(sandbox: Sandbox, control: Controller, seller: Seller) -> None:
    await seller.set(5)
    await seller.set(5, sku="unknown")
    async with sandbox.gate("blib") as gate, asyncio.TaskGroup() as group:
        group.create_task(seller.set(1))
        group.create_task(seller.set(2))
        group.create_task(seller.set(2, sku="TOQ-1-1-2"))
        await gate.entered(3)
        _, status = await control("GET", "/status")
        gate.open()
    assert status == {
        "channels": ["bklp", "blib", "shpe"],
        "stores": 2,
        "listings": 2,
        "calls": 2,
        "calls_oldest_kept": 1,
        "writes": 1,
        "writes_oldest_kept": 1,
        "sales": 0,
        "in_flight": 3,
        "max_in_flight_per_listing": 2,
        "late_writes_pending": 0,
        "over_store_limit": {"bklp": 0, "blib": 0, "shpe": 0},
        "over_application_limit": {"bklp": 0, "blib": 0, "shpe": 0},
    }
    _, status = await control("GET", "/status")
    assert (status["calls"], status["writes"], status["in_flight"]) == (5, 4, 0)


async def test_a_reset_forgets_everything(control: Controller, seller: Seller) -> None:
    await seller.set(5)
    await control("PUT", "/faults/blib", {"down": True})
    assert await control("POST", "/reset") == (200, {})
    for what in ("listings", "writes", "calls", "sales"):
        assert await control("GET", f"/{what}") == (200, [])
    assert await control("GET", "/faults") == (200, {})
    _, status = await control("GET", "/status")
    assert (status["stores"], status["max_in_flight_per_listing"]) == (0, 0)


async def test_a_reset_that_keeps_the_stores_puts_their_first_quantities_back(
    control: Controller, seller: Seller
) -> None:
    await seller.set(5)
    assert await control("POST", "/reset?keep=stores") == (200, {})
    assert await control("GET", "/listings") == (200, LISTINGS)
    await seller.set(6)
    _, writes = await control("GET", "/writes")
    assert [(write["n"], write["quantity"]) for write in writes] == [(1, 6)]


async def test_a_reset_with_a_wrong_keep_resets_nothing(control: Controller, seller: Seller) -> None:
    await seller.set(5)
    for query in ("?keep=all", "?drop=stores"):
        assert (await control("POST", f"/reset{query}"))[0] == 400
    assert len((await control("GET", "/writes"))[1]) == 1


async def test_a_reset_drops_what_is_under_way(sandbox: Sandbox, control: Controller, seller: Seller) -> None:
    sandbox.faults.set("blib", timeout_rate=1, late_apply_ms=3_600_000, times=1)
    async with sandbox.gate("blib") as gate:
        calls = [asyncio.create_task(seller.set(quantity)) for quantity in (1, 2)]
        await gate.entered(2)
        await control("POST", "/reset?keep=stores")
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["ServerDisconnectedError"] * 2
    _, status = await control("GET", "/status")
    assert (status["calls"], status["writes"], status["in_flight"], status["late_writes_pending"]) == (0, 0, 0, 0)


async def test_a_reset_cancels_late_writes(sandbox: Sandbox, control: Controller, seller: Seller) -> None:
    for quantity, late_apply_ms in ((1, 300), (2, 500)):
        sandbox.faults.set("blib", timeout_rate=1, late_apply_ms=late_apply_ms)
        with pytest.raises(TimeoutError):
            async with seller.put(quantity, timeout_seconds=0.1):
                pass
        if quantity == 1:
            assert await control("POST", "/reset?keep=stores") == (200, {})
    await sandbox.ledger.wait_for_writes(1)
    assert [(write.n, write.quantity) for write in sandbox.ledger.writes.after(0)] == [(1, 2)]


async def test_the_clock_dates_what_happens_and_a_reset_puts_it_right(
    sandbox: Sandbox, control: Controller, seller: Seller
) -> None:
    assert await control("GET", "/clock") == (200, {"ahead_seconds": 0.0})
    assert await control("PUT", "/clock", {"ahead_seconds": 86_400}) == (200, {"ahead_seconds": 86_400.0})
    assert await control("GET", "/clock") == (200, {"ahead_seconds": 86_400.0})
    before = time.time() + 86_400
    await seller.set(5)
    sale = await control("POST", "/sales", {**ONE, "quantity": 1})
    _, [write] = await control("GET", "/writes")
    _, [call] = await control("GET", "/calls")
    assert before <= call["at"] <= write["at"] <= sale[1]["at"] <= time.time() + 86_400
    assert 0 <= call["duration_ms"] < 10_000
    assert await control("POST", "/reset") == (200, {})
    assert await control("GET", "/clock") == (200, {"ahead_seconds": 0.0})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"ahead_seconds": 1e10}, "Expected `float` <= 3155760000.0 - at `$.ahead_seconds`"),
        ({"ahead_seconds": "1"}, "Expected `float`, got `str` - at `$.ahead_seconds`"),
        ({}, "Object missing required field `ahead_seconds`"),
        ({"seconds": 1}, "unknown key: 'seconds'; known keys are ahead_seconds"),
    ],
)
async def test_a_wrong_clock_is_refused(control: Controller, body: object, message: str) -> None:
    await control("PUT", "/clock", {"ahead_seconds": -5})
    status, answer = await control("PUT", "/clock", body)
    assert (status, answer["message"][: len(message)]) == (400, message)
    assert await control("GET", "/clock") == (200, {"ahead_seconds": -5.0})


async def test_a_listings_state_is_set_and_what_is_left_out_stays(control: Controller) -> None:
    expected = dict(LISTINGS[0])
    for change in (
        {"condition": "banned"},
        {"reserved_by_orders": 2},
        {"reserved_by_promotions": 3, "condition": ""},
        {"reserved_by_orders": 0},
    ):
        expected |= change
        assert await control("PUT", "/listings", {**ONE, **change}) == (200, expected)
    assert await control("GET", "/listings") == (200, [expected, LISTINGS[1]])


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"condition": "sad"}, 400, "Invalid enum value 'sad' - at `$.condition`"),
        ({"reserved_by_orders": -1}, 400, "Expected `int` >= 0 - at `$.reserved_by_orders`"),
        ({"reserved_by_promotions": 1.5}, 400, "Expected `int | null`, got `float`"),
        ({"quantity": 1}, 400, "unknown key: 'quantity'; known keys are channel, store, remote_variant,"),
        ({"remote_variant": "X"}, 404, "store 'TOQ-1' has no listing 'X'"),
        ({"store": "X"}, 404, "there is no store 'X' of 'blib'"),
    ],
)
async def test_a_wrong_state_of_a_listing_changes_nothing(
    control: Controller, change: dict[str, object], status: int, message: str
) -> None:
    answered, body = await control("PUT", "/listings", {**ONE, "condition": "banned", **change})
    assert (answered, body["message"][: len(message)]) == (status, message)
    assert await control("GET", "/listings") == (200, LISTINGS)


async def test_a_seller_goes_on_holiday_and_comes_back(sandbox: Sandbox, control: Controller) -> None:
    for holiday in (True, False):
        assert await control("PUT", "/stores/blib/TOQ-1/holiday", {"holiday": holiday}) == (
            200,
            {"channel": "blib", "store": "TOQ-1", "holiday": holiday},
        )
        away = [store.holiday for store in sandbox.ledger.stores("blib")]
        assert away == [holiday, False]
    assert (await control("PUT", "/stores/blib/nobody/holiday", {"holiday": True}))[0] == 404
    assert (await control("PUT", "/stores/blib/TOQ-1/holiday", {"holiday": "yes"}))[0] == 400


async def test_a_marketplace_without_tokens_refuses_to_revoke_them(control: Controller, seller: Seller) -> None:
    assert await control("POST", "/stores/blib/TOQ-1/revoke") == (
        400,
        {"message": "Blibli has no tokens: PUT the store again with other keys"},
    )
    assert (await control("POST", "/stores/blib/nobody/revoke"))[0] == 404
    assert (await seller.set(5))[0] == 200


async def test_a_reset_that_keeps_the_stores_brings_the_seller_and_healthy_listings_back(
    sandbox: Sandbox, control: Controller
) -> None:
    await control("PUT", "/stores/blib/TOQ-1/holiday", {"holiday": True})
    state = {**ONE, "condition": "locked", "reserved_by_orders": 1, "reserved_by_promotions": 2}
    await control("PUT", "/listings", state)
    assert await control("POST", "/reset?keep=stores") == (200, {})
    assert await control("GET", "/listings") == (200, LISTINGS)
    assert sandbox.ledger.store("blib", "TOQ-1").holiday is False


async def test_a_sale_takes_from_one_location_after_the_other(app: App, sandbox: Sandbox, control: Controller) -> None:
    sandbox.put_store("shpe", str(SHOP), {**SHOPEE_STORE, "locations": ["IDZ", "IDY", "IDX"]})
    assert (await app.post(UPDATE_STOCK, stock(12347, placed(0, IDZ=2, IDY=0, IDX=4))))[1]["error"] == ""
    sale = {"channel": "shpe", "store": str(SHOP), "remote_variant": "12347"}
    status, sold = await control("POST", "/sales", {**sale, "quantity": 3})
    assert (status, sold["quantity"], sold["left"]) == (200, 3, 3)
    assert sandbox.ledger.listing("shpe", str(SHOP), "12347").stock == {"IDZ": 0, "IDY": 0, "IDX": 3}
    status, body = await control("POST", "/sales", {**sale, "quantity": 4})
    assert (status, body["message"]) == (400, "only 3 of '12347' are left; nobody can buy 4")
    _, listings = await control("GET", f"/listings?channel=shpe&store={SHOP}")
    assert (listings[2]["quantity"], listings[2]["stock"]) == (3, {"IDZ": 0, "IDY": 0, "IDX": 3})
    assert sandbox.ledger.writes.last == 3


async def test_calls_in_flight_are_counted_for_each_listing_that_they_name(
    app: App, sandbox: Sandbox, control: Controller
) -> None:
    async def in_flight_at_most(*calls: Coroutine[object, object, object]) -> int:
        await control("POST", "/reset?keep=stores")
        async with sandbox.gate("shpe") as gate, asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(call)
            await gate.entered(len(calls))
            _, status = await control("GET", "/status")
            gate.open()
        most: int = status["max_in_flight_per_listing"]
        return most

    assert await in_flight_at_most(app.set((55, 1), (56, 1)), app.set((0, 1), item=12347)) == 1
    assert await in_flight_at_most(app.set((55, 1), (56, 1)), app.set((56, 2), (57, 2))) == 2
    assert await in_flight_at_most(app.set((55, 1), (55, 2))) == 1
    assert sandbox.traffic.in_flight == 0


async def test_calls_of_several_machines_are_told_apart_by_their_addresses(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector) as elsewhere:
        await Seller(elsewhere, sandbox.url).set(1)
    await seller.set(2)
    _, ended = await control("GET", "/calls")
    assert [(call["received"], call["caller"]) for call in ended] == [(1, "127.0.0.2"), (2, "127.0.0.1")]


async def test_calls_are_numbered_as_they_come_and_writes_bear_the_number_of_their_call(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    async with sandbox.gate("blib") as gate:
        first = asyncio.create_task(seller.set(1))
        await gate.entered(1)
        gate.let_later_pass()
        await seller.set(2)
        await seller.set(3, sku="unknown")
        gate.open()
        await first
    _, ended = await control("GET", "/calls")
    _, writes = await control("GET", "/writes")
    assert [(call["n"], call["received"]) for call in ended] == [(1, 2), (2, 3), (3, 1)]
    assert [(write["n"], write["quantity"], write["call"]) for write in writes] == [(1, 2, 2), (2, 1, 1)]
    await control("POST", "/reset?keep=stores")
    await seller.set(4)
    assert [call.received for call in sandbox.ledger.calls.after(0)] == [1]
    assert [write.call for write in sandbox.ledger.writes.after(0)] == [1]


async def test_a_batch_and_its_writes_name_the_same_listings_and_call(app: App, control: Controller) -> None:
    await app.is_let_in("access-1")
    assert (await app.set((55, 1), (56, 2)))[1]["error"] == ""
    _, ended = await control("GET", "/calls")
    _, writes = await control("GET", "/writes")
    assert [(call["received"], call["remote_variants"]) for call in ended] == [(1, []), (2, ["12346/55", "12346/56"])]
    assert [(write["remote_variant"], write["call"]) for write in writes] == [("12346/55", 2), ("12346/56", 2)]


async def test_a_stores_own_limit_is_said_and_taken_away(control: Controller, seller: Seller) -> None:
    path, store = "/stores/blib/TOQ-1/limit", {"channel": "blib", "store": "TOQ-1"}
    for limit, burst in (
        ({"calls_per_s": 40, "burst": 3}, 3.0),
        ({"calls_per_s": 40}, 40.0),
        ({"calls_per_s": 0.001}, 1.0),
    ):
        expected = {**store, "calls_per_s": float(limit["calls_per_s"]), "burst": burst}
        assert await control("PUT", path, limit) == (200, expected)
    assert [(await seller.set(quantity))[0] for quantity in (1, 2)] == [200, 429]
    assert await control("PUT", path, {"calls_per_s": 0}) == (200, {**store, "calls_per_s": 0.0, "burst": 0.0})
    assert [(await seller.set(quantity))[0] for quantity in (3, 4)] == [200, 200]


async def test_an_applications_limit_is_said_and_taken_away(control: Controller) -> None:
    path, application = "/applications/shpe/2000001/limit", {"channel": "shpe", "application": "2000001"}
    limit = {"calls_per_s": 40, "burst": 3}
    assert await control("PUT", path, limit) == (200, {**application, "calls_per_s": 40.0, "burst": 3.0})
    assert await control("PUT", path, {"calls_per_s": 0}) == (200, {**application, "calls_per_s": 0.0, "burst": 0.0})
    answered, body = await control("PUT", "/applications/nowhere/2000001/limit", limit)
    assert (answered, body["message"]) == (404, "there is no channel 'nowhere'; channels are bklp, blib, shpe")


@pytest.mark.parametrize(
    ("store", "limit", "status", "message"),
    [
        ("TOQ-1", {}, 400, "Object missing required field `calls_per_s`"),
        ("TOQ-1", {"calls_per_s": -1}, 400, "Expected `float` >= 0.0 - at `$.calls_per_s`"),
        ("TOQ-1", {"calls_per_s": 1, "burst": 0.5}, 400, "Expected `float` >= 1.0 - at `$.burst`"),
        ("TOQ-1", {"rate": 1}, 400, "unknown key: 'rate'; known keys are calls_per_s, burst"),
        ("nobody", {"calls_per_s": 1}, 404, "there is no store 'nobody' of 'blib'"),
    ],
)
async def test_a_wrong_limit_is_refused_and_the_old_one_holds(
    control: Controller, seller: Seller, store: str, limit: dict[str, float], status: int, message: str
) -> None:
    await control("PUT", "/stores/blib/TOQ-1/limit", {"calls_per_s": 0.001})
    await seller.set(1)
    answered, body = await control("PUT", f"/stores/blib/{store}/limit", limit)
    assert (answered, body["message"][: len(message)]) == (status, message)
    assert (await seller.set(2))[0] == 429
