"""What the fake Blibli answers when nothing is wrong with the sandbox."""

from __future__ import annotations

import asyncio
import gzip
import io
import time

import pytest

from lumbung.sandbox.blibli import signature, signed_date
from lumbung.sandbox.server import Sandbox

from .conftest import Controller
from .seller import HEADERS, QUERY, STORE, Seller, signed

PATH = "/seller/v1/products/TOQ-1-1-1/stock"


def test_the_signature_is_the_golden_vector_of_the_fact_sheet() -> None:
    date = signed_date(1699974800_999)
    assert date == "Tue Nov 14 22:13:20 WIB 2023"
    assert (
        signature(b"bli_secret", "PUT", b'{"availableStock":5}', date, PATH)
        == "E9f65sE0UBYm72DvTsJXQ/3donWeBT81Il0m5vKKCQQ="
    )


def test_a_signature_without_a_body_signs_two_empty_lines_and_rewrites_mta() -> None:
    same = signature(b"k", "GET", b"", "d", "/mtaapi/api/x")
    assert signature(b"k", "GET", b"", "d", "/mta/api/x") == same
    assert signature(b"k", "GET", b"{}", "d", "/mtaapi/api/x") != same


async def test_setting_the_stock_is_answered_and_applied(sandbox: Sandbox, seller: Seller) -> None:
    assert await seller.set(5) == (
        200,
        {
            "requestId": "r-1",
            "success": True,
            "errorCode": "",
            "errorMessage": "",
            "value": {"blibliSku": "TOQ-1-1-1", "availableStock": 5},
        },
    )
    assert sandbox.ledger.listing("blib", "TOQ-1", "TOQ-1-1-1").quantity == 5
    assert sandbox.ledger.writes.last == 1


async def test_a_product_is_read_back(seller: Seller) -> None:
    async with seller.get() as answer:
        assert answer.status == 200
        assert await answer.json() == {
            "requestId": "r-1",
            "success": True,
            "errorCode": "",
            "errorMessage": "",
            "value": {"blibliSku": "TOQ-1-1-1", "merchantSku": "sku1", "availableStock": 7},
        }


async def test_an_unknown_sku_is_no_success_with_status_200(sandbox: Sandbox, seller: Seller) -> None:
    status, body = await seller.set(5, sku="TOQ-9-9-9")
    assert (status, body["success"], body["errorCode"], body["value"]) == (200, False, "PRODUCT_NOT_FOUND", None)
    async with seller.get(sku="TOQ-9-9-9") as answer:
        assert (await answer.json())["errorCode"] == "PRODUCT_NOT_FOUND"
    assert sandbox.ledger.writes.last == 0


@pytest.mark.parametrize("quantity", [-1, 2**31, 1.5, "5", True, None, [], {}])
async def test_an_impossible_stock_is_refused(sandbox: Sandbox, seller: Seller, quantity: object) -> None:
    status, body = await seller.set(quantity)
    assert (status, body["success"], body["errorCode"]) == (200, False, "INVALID_STOCK")
    assert sandbox.ledger.writes.last == 0


@pytest.mark.parametrize("quantity", [0, 2**31 - 1])
async def test_the_smallest_and_the_largest_stock_are_taken(sandbox: Sandbox, seller: Seller, quantity: int) -> None:
    assert (await seller.set(quantity))[1]["success"] is True
    assert sandbox.ledger.listing("blib", "TOQ-1", "TOQ-1-1-1").quantity == quantity


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b'{"availableStock":', b"[" * 100_000, b'{"a":"\\ud800"}', b'{"a":"\xff"}', b"\x00" * 100],
)
async def test_a_body_that_is_no_json_is_answered_400_in_shape(sandbox: Sandbox, seller: Seller, body: bytes) -> None:
    async with seller.put(0, body=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["errorCode"] == "BAD_REQUEST"
    assert sandbox.ledger.writes.last == 0


@pytest.mark.parametrize("body", [b"[]", b"5", b"null", b'"x"', b"{}", b'{"stock":5}'])
async def test_json_without_a_stock_is_an_invalid_stock(seller: Seller, body: bytes) -> None:
    async with seller.put(0, body=body) as answer:
        assert (answer.status, (await answer.json())["errorCode"]) == (200, "INVALID_STOCK")


async def test_a_packed_body_is_no_json(seller: Seller) -> None:
    packed = gzip.compress(b'{"availableStock":5}')
    async with seller.put(0, body=packed, headers={**HEADERS, "Content-Encoding": "gzip"}) as answer:
        assert (answer.status, (await answer.json())["errorCode"]) == (400, "BAD_REQUEST")


async def test_chunks_that_are_no_chunks_are_answered_400(sandbox: Sandbox) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    writer.write(b"PUT /blib/v2/proxy/seller/v1/products/A/stock HTTP/1.1\r\nHost: x\r\n")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
    await writer.drain()
    writer.write(b"nonsense\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert sandbox.ledger.writes.last == 0


async def test_a_body_over_one_mebibyte_is_answered_413(sandbox: Sandbox, seller: Seller) -> None:
    async with seller.put(0, body=io.BytesIO(b" " * (1024 * 1024 + 1))) as answer:
        assert (answer.status, (await answer.json())["errorCode"]) == (413, "PAYLOAD_TOO_LARGE")
    async with seller.put(0, body=io.BytesIO(b" " * (1024 * 1024))) as answer:
        assert answer.status == 400
    assert [call.status for call in sandbox.ledger.calls.after(0)] == [413, 400]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Basic !!!"}, 401),
        ({"Authorization": "Bearer Y2xpZW50OmNsaWVudC1rZXk="}, 401),
        ({"Api-Seller-Key": ""}, 401),
        ({"Api-Seller-Key": "nobody's"}, 401),
        ({"Api-Seller-Key": "other-seller-key"}, 403),
    ],
)
async def test_wrong_credentials_are_answered_401_and_anothers_403(
    sandbox: Sandbox, seller: Seller, headers: dict[str, str], status: int
) -> None:
    async with seller.put(5, headers={**HEADERS, **headers}) as answer:
        body = await answer.json()
    code = {401: "UNAUTHORIZED", 403: "FORBIDDEN"}[status]
    assert (answer.status, body["success"], body["errorCode"]) == (status, False, code)
    assert body.keys() == {"requestId", "success", "errorCode", "errorMessage", "value"}
    assert sandbox.ledger.writes.last == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"storeId": "10002"}, 403),
        ({"username": "somebody"}, 403),
        ({"businessPartnerCode": "X"}, 403),
        ({"storeCode": "TOQ-2"}, 403),
        ({"storeCode": "TOQ-9"}, 403),
        ({"requestId": ""}, 400),
        ({"channelId": ""}, 400),
    ],
)
async def test_a_wrong_query_is_refused(seller: Seller, change: dict[str, str], status: int) -> None:
    async with seller.put(5, query={**QUERY, **change}) as answer:
        assert (answer.status, (await answer.json())["success"]) == (status, False)


async def test_the_sku_of_the_query_must_be_that_of_the_path(sandbox: Sandbox, seller: Seller) -> None:
    url = f"{seller.products}/TOQ-1-1-1/stock"
    query = {**QUERY, "blibli-sku": "TOQ-1-1-2"}
    async with seller.session.put(url, params=query, data=b'{"availableStock":5}', headers=HEADERS) as answer:
        assert answer.status == 400
    assert sandbox.ledger.writes.last == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/blib"),
        ("GET", "/blib/"),
        ("GET", "/blib/v2/oauth/token"),
        ("GET", "/blib/v2/proxy/seller/v1/products/"),
        ("GET", "/blib/v2/proxy/seller/v1/products/a/b/stock"),
        ("POST", "/blib/v2/proxy/seller/v1/products/TOQ-1-1-1/stock"),
        ("PUT", "/blib/v2/proxy/seller/v1/products/TOQ-1-1-1"),
        ("GET", "/blib/v2/proxy/seller/v1/products/TOQ-1-1-1/stock"),
    ],
)
async def test_an_unknown_path_or_method_is_answered_404(
    sandbox: Sandbox, seller: Seller, method: str, path: str
) -> None:
    async with seller.session.request(method, sandbox.url + path, params=QUERY, headers=HEADERS) as answer:
        assert answer.status == 404
        if path != "/blib":
            assert (await answer.json())["errorCode"] == "NOT_FOUND"


async def test_a_signed_store_takes_signed_calls_and_no_others(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.put_store("blib", "TOQ-1", {**STORE, "signature_key": "bli_secret"})
    now_ms = int(time.time() * 1000)
    body = b'{"availableStock":5}'
    good = signed("bli_secret", "PUT", body, PATH, now_ms)
    async with seller.put(0, body=body, headers=good) as answer:
        assert answer.status == 200
    read = signed("bli_secret", "GET", b"", PATH.removesuffix("/stock"), now_ms)
    async with seller.get(headers=read) as answer:
        assert (await answer.json())["value"]["availableStock"] == 5
    for bad in (
        HEADERS,
        {**good, "Signature": ""},
        {**good, "Signature": "é"},
        {**good, "Signature-Time": str(now_ms + 1000)},
        {**good, "Signature-Time": "now"},
        {**good, "Signature-Time": "9" * 15},
        signed("another", "PUT", body, PATH, now_ms),
        signed("bli_secret", "PUT", b"{}", PATH, now_ms),
        signed("bli_secret", "PUT", body, PATH, now_ms - 301_000),
        signed("bli_secret", "PUT", body, PATH, now_ms + 301_000),
    ):
        async with seller.put(0, body=body, headers=bad) as answer:
            assert (answer.status, (await answer.json())["errorCode"]) == (401, "UNAUTHORIZED")
    async with seller.put(0, body=body, headers=signed("bli_secret", "PUT", body, PATH, now_ms - 295_000)) as answer:
        assert answer.status == 200
    assert sandbox.ledger.writes.last == 2


async def test_a_signature_grows_old_by_the_sandboxs_clock(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.put_store("blib", "TOQ-1", {**STORE, "signature_key": "bli_secret"})
    body = b'{"availableStock":5}'
    now_ms = int(time.time() * 1000)
    headers = signed("bli_secret", "PUT", body, PATH, now_ms)
    for ahead_seconds, status in ((301, 401), (-301, 401), (290, 200), (-290, 200)):
        sandbox.ledger.clock.ahead_seconds = ahead_seconds
        async with seller.put(0, body=body, headers=headers) as answer:
            assert (answer.status, (await answer.json())["success"]) == (status, status == 200)
    sandbox.ledger.clock.ahead_seconds = 86_400
    tomorrow = signed("bli_secret", "PUT", body, PATH, now_ms + 86_400_000)
    async with seller.put(0, body=body, headers=tomorrow) as answer:
        assert answer.status == 200
    assert sandbox.ledger.writes.last == 3


# --- What is the matter with a listing ---

FIRST = {"channel": "blib", "store": "TOQ-1", "remote_variant": "TOQ-1-1-1"}


async def code_of(seller: Seller, quantity: int, *, sku: str = "TOQ-1-1-1") -> str:
    status, body = await seller.set(quantity, sku=sku)
    assert (status, body["success"]) == (200, body["errorCode"] == "")
    return str(body["errorCode"])


@pytest.mark.parametrize(
    ("condition", "code", "shown"),
    [
        ("unknown", "PRODUCT_NOT_FOUND", "PRODUCT_NOT_FOUND"),
        ("banned", "PRODUCT_SUSPENDED", "PRODUCT_SUSPENDED"),
        ("locked", "PRODUCT_IN_PROMOTION", ""),
    ],
)
async def test_a_condition_is_answered_until_it_is_over_and_its_sister_is_well(
    sandbox: Sandbox, seller: Seller, control: Controller, condition: str, code: str, shown: str
) -> None:
    await control("PUT", "/listings", {**FIRST, "condition": condition})
    assert await code_of(seller, 5) == code
    assert await code_of(seller, 5, sku="TOQ-1-1-2") == ""
    async with seller.get() as answer:
        assert (await answer.json())["errorCode"] == shown
    assert sandbox.ledger.listing("blib", "TOQ-1", "TOQ-1-1-1").quantity == 7
    await control("PUT", "/listings", {**FIRST, "condition": ""})
    assert await code_of(seller, 5) == ""
    assert [write.remote_variant for write in sandbox.ledger.writes.after(0)] == ["TOQ-1-1-2", "TOQ-1-1-1"]


async def test_one_row_may_be_struck_by_its_sku_or_its_id(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", row_faults={"sku1": "locked", "TOQ-1-1-2": "banned"})
    assert await code_of(seller, 5) == "PRODUCT_IN_PROMOTION"
    assert await code_of(seller, 5, sku="TOQ-1-1-2") == "PRODUCT_SUSPENDED"
    assert [call.fault for call in sandbox.ledger.calls.after(0)] == ["row_faults", "row_faults"]
    assert sandbox.ledger.writes.last == 0


async def test_a_store_on_holiday_takes_no_stock_and_shows_what_it_has(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    await control("PUT", "/stores/blib/TOQ-1/holiday", {"holiday": True})
    assert await code_of(seller, 5) == "STORE_ON_HOLIDAY"
    async with seller.get() as answer:
        assert (await answer.json())["value"]["availableStock"] == 7
    await control("PUT", "/stores/blib/TOQ-1/holiday", {"holiday": False})
    assert await code_of(seller, 5) == ""
    assert sandbox.ledger.writes.last == 1


async def test_what_is_reserved_for_a_promotion_is_the_least_and_orders_have_left_the_stock_already(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    await control("PUT", "/listings", {**FIRST, "reserved_by_orders": 6, "reserved_by_promotions": 3})
    status, body = await seller.set(2)
    assert (status, body["errorCode"]) == (200, "STOCK_BELOW_RESERVED")
    assert body["errorMessage"] == "availableStock cannot be less than 3, reserved for a promotion"
    assert sandbox.ledger.listing("blib", "TOQ-1", "TOQ-1-1-1").quantity == 7
    assert await code_of(seller, 3) == ""
    await control("POST", "/sales", {**FIRST, "quantity": 1})
    async with seller.get() as answer:
        assert (await answer.json())["value"]["availableStock"] == 2


# --- Pickup points ---


async def put_at(seller: Seller, point: str, quantity: int, *, parameter: str = "pickupPointCode") -> str:
    async with seller.put(quantity, query={**QUERY, parameter: point}) as answer:
        return str((await answer.json())["errorCode"])


async def test_each_pickup_point_has_its_own_stock(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.put_store("blib", "TOQ-1", {**STORE, "locations": {"PP-1": "Jakarta", "PP-2": "Surabaya"}})
    assert await put_at(seller, "PP-1", 3) == ""
    assert await put_at(seller, "PP-2", 4) == ""
    assert await put_at(seller, "PP-1", 1) == ""
    assert [(write.location, write.quantity) for write in sandbox.ledger.writes.after(0)] == [
        ("PP-1", 3),
        ("PP-2", 4),
        ("PP-1", 1),
    ]
    async with seller.get() as answer:
        value = (await answer.json())["value"]
    assert value["availableStock"] == 5
    assert value["pickupPoints"] == [
        {"pickupPointCode": "PP-1", "availableStock": 1},
        {"pickupPointCode": "PP-2", "availableStock": 4},
    ]


async def test_a_pickup_point_has_to_be_one_of_the_stores_and_named_where_there_are_several(
    sandbox: Sandbox, seller: Seller
) -> None:
    assert await put_at(seller, "PP-1", 3) == "PICKUP_POINT_NOT_FOUND"
    sandbox.put_store("blib", "TOQ-1", {**STORE, "locations": {"PP-1": "Jakarta", "PP-2": "Surabaya"}})
    assert await put_at(seller, "PP-3", 3) == "PICKUP_POINT_NOT_FOUND"
    assert await code_of(seller, 3) == "PICKUP_POINT_REQUIRED"
    assert sandbox.ledger.writes.last == 0
    sandbox.put_store("blib", "TOQ-1", {**STORE, "locations": {"PP-1": "Jakarta"}})
    assert await code_of(seller, 3) == ""
    assert [write.location for write in sandbox.ledger.writes.after(0)] == [""]


async def test_the_parameter_that_names_a_pickup_point_is_the_stores(sandbox: Sandbox, seller: Seller) -> None:
    points = {"PP-1": "Jakarta", "PP-2": "Surabaya"}
    sandbox.put_store("blib", "TOQ-1", {**STORE, "locations": points, "pickup_point_parameter": "pp"})
    assert await put_at(seller, "PP-1", 3) == "PICKUP_POINT_REQUIRED"
    assert await put_at(seller, "PP-1", 3, parameter="pp") == ""
    assert [write.location for write in sandbox.ledger.writes.after(0)] == ["PP-1"]


async def test_what_is_reserved_counts_over_all_pickup_points(
    sandbox: Sandbox, seller: Seller, control: Controller
) -> None:
    sandbox.put_store("blib", "TOQ-1", {**STORE, "locations": {"PP-1": "Jakarta", "PP-2": "Surabaya"}})
    await put_at(seller, "PP-1", 3)
    await put_at(seller, "PP-2", 4)
    await control("PUT", "/listings", {**FIRST, "reserved_by_promotions": 5})
    assert await put_at(seller, "PP-1", 0) == "STOCK_BELOW_RESERVED"
    assert await put_at(seller, "PP-1", 1) == ""
    assert sandbox.ledger.listing("blib", "TOQ-1", "TOQ-1-1-1").stock == {"PP-1": 1, "PP-2": 4}


# --- Limits ---


async def test_a_limit_counts_each_store_for_itself_and_says_how_long_to_wait(sandbox: Sandbox, seller: Seller) -> None:
    sandbox.faults.set("blib", rate_limit_per_s=0.001, retry_after_s=60)
    other = {**QUERY, "storeCode": "TOQ-2"}
    other_headers = {**HEADERS, "Api-Seller-Key": "other-seller-key"}
    seen: list[tuple[int, str | None]] = []
    for query, headers in ((QUERY, HEADERS), (QUERY, HEADERS), (other, other_headers), (other, other_headers)):
        async with seller.put(5, query=query, headers=headers) as answer:
            seen.append((answer.status, answer.headers.get("Retry-After")))
    assert seen == [(200, None), (429, "60"), (200, None), (429, "60")]
    async with seller.get() as answer:
        assert (answer.status, (await answer.json())["errorCode"]) == (429, "TOO_MANY_REQUESTS")
    assert sandbox.ledger.writes.last == 1
