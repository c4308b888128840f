"""What the fake Blibli answers when nothing is wrong with the sandbox."""

from __future__ import annotations

import asyncio
import gzip
import io
import time

import pytest

from lumbung.sandbox.blibli import signature, signed_date
from lumbung.sandbox.server import Sandbox

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
