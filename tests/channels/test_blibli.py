"""Blibli: the contract, the golden signature, the table, and any bytes at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lumbung.channels.blibli
from lumbung.channels.base import (
    Accepted,
    Channel,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Observed,
    Outcome,
    Push,
    ReadRow,
    Rejected,
    Scope,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.blibli import signing, wire
from lumbung.channels.blibli.channel import BlibliChannel, BlibliSession, read_credentials
from lumbung.channels.blibli.errors import classify
from lumbung.channels.http import Answer, Exchange, NoAnswer, NotSent
from lumbung.channels.registry import CHANNELS
from lumbung.clock import ManualClock
from lumbung.errors import BadRequest, ConfigurationError

from .contract import ChannelContract, Shop

NOW = datetime(2023, 11, 14, 15, 13, 20, tzinfo=UTC)
CREDENTIALS = {
    "api_client_id": "mta-api-client",
    "api_client_key": "client-key-0123456789",
    "api_seller_key": "seller-key-0123456789",
    "username": "seller+one@example.test",
    "store_code": "TOQ-1",
}
SETTINGS = {
    "api_client_id": "mta-api-client",
    "api_client_key": "client-key-0123456789",
    "api_seller_key": "seller-key-0123456789",
    "username": "seller+one@example.test",
    "listings": [
        {"remote_variant": "TOQ-1-1-1", "sku": "sku1", "quantity": 0},
        {"remote_variant": "TOQ-1-1-2", "sku": "sku2", "quantity": 4},
    ],
}


class TestBlibli(ChannelContract):
    channel: ClassVar[Channel] = CHANNELS["blib"]
    mount = "/blib/v2"
    credentials: ClassVar[Mapping[str, str]] = CREDENTIALS
    wrong_credentials: ClassVar[Mapping[str, str]] = {"api_client_key": "another-key-0123456789"}
    sandbox_store = "TOQ-1"
    sandbox_settings: ClassVar[Mapping[str, object]] = SETTINGS
    listing = "TOQ-1-1-1"
    unknown_listing = "TOQ-1-1-9"
    bad_listings = (
        "",
        "TOQ 1",
        "../../admin",
        "TOQ/1",
        "TOQ-1?x=1",
        "TOQ-1\nTOQ-2",
        "TOQ-١",
        "{",
        "{}",
        "[]",
        '{"blibli_sku": ""}',
        '{"blibli_sku": 1}',
        '{"blibli_sku": "TOQ-1", "item_id": 2}',
        '{"blibli_sku": "TOQ-1", "pickup_point_code": ""}',
        '{"blibli_sku": "\\ud800"}',
        '{"x": ' + "[" * 900,
        "A" * 1001,
        "\ud800",
        '{"blibli_sku": "\ud800"}',
    )
    expected_of_a_listing = "TOQ-15126-00451-00001"

    async def state(self, shop: Shop, **state: object) -> None:
        named = {"channel": "blib", "store": "TOQ-1", "remote_variant": "TOQ-1-1-2"}
        await shop._control("PUT", "/listings", {**named, **state})

    async def test_a_promotion_and_a_holiday_lock_a_listing_for_a_time(self, shop: Shop) -> None:
        await self.state(shop, condition="locked")
        row = await self.push(shop.session(), 3, listing="TOQ-1-1-2")
        said = "PRODUCT_IN_PROMOTION: the stock of a product in a promotion cannot be changed"
        assert row.outcome == Deferred(None, f"Locked for now: {said}")
        assert (await self.push(shop.session(), 3)).outcome == Accepted()
        await shop._control("PUT", "/stores/blib/TOQ-1/holiday", {"holiday": True})
        row = await self.push(shop.session(), 4)
        assert row.outcome == Deferred(None, "Locked for now: STORE_ON_HOLIDAY: the store is on holiday")
        assert await shop.session().check() == Accepted()
        assert await shop.writes() == [3]

    async def test_a_suspended_product_is_rejected_with_the_marketplaces_words(self, shop: Shop) -> None:
        await self.state(shop, condition="banned")
        row = await self.push(shop.session(), 3, listing="TOQ-1-1-2")
        assert row.outcome == Rejected(UNKNOWN + "PRODUCT_SUSPENDED: product TOQ-1-1-2 is suspended")
        assert await shop.writes() == []

    async def test_what_is_reserved_for_a_promotion_is_a_floor_that_is_then_taken(self, shop: Shop) -> None:
        await self.state(shop, reserved_by_orders=9, reserved_by_promotions=3)
        row = await self.push(shop.session(), 2, listing="TOQ-1-1-2")
        assert isinstance(row.outcome, Floor)
        assert row.outcome.minimum == 3
        assert (await self.push(shop.session(), 3, listing="TOQ-1-1-2")).outcome == Accepted()
        assert await shop.writes() == [3]

    async def test_a_pickup_point_is_named_by_the_parameter_that_the_store_says(self, shop: Shop) -> None:
        points = {"PP-1": "Jakarta", "PP-2": "Surabaya"}
        settings = {**self.sandbox_settings, "locations": points, "pickup_point_parameter": "pickup-point-code"}
        await shop._control("PUT", "/stores/blib/TOQ-1", settings)
        here = shop.session(pickup_point_parameter="pickup-point-code")
        there = '{"blibli_sku": "TOQ-1-1-1", "pickup_point_code": "PP-2"}'
        assert (await self.push(here, 5, listing=there)).outcome == Accepted()
        assert [write["location"] for write in await shop._control("GET", "/writes?after=0")] == ["PP-2"]
        for session, listing in (
            (here, "TOQ-1-1-1"),
            (here, there.replace("PP-2", "PP-3")),
            (shop.session(), there),
        ):
            outcome = (await self.push(session, 6, listing=listing)).outcome
            assert isinstance(outcome, Misconfigured)
            assert outcome.scope is Scope.LISTING
        assert await shop.writes() == [5]


class TestBlibliSigned(TestBlibli):
    credentials: ClassVar[Mapping[str, str]] = {**CREDENTIALS, "signature_key": "signature-key-0123456789"}
    wrong_credentials: ClassVar[Mapping[str, str]] = {"signature_key": "another-key-0123456789"}
    sandbox_settings: ClassVar[Mapping[str, object]] = {**SETTINGS, "signature_key": "signature-key-0123456789"}


# --- Fakes ---


class FakeTransport:
    """Answers every request with the same exchange and keeps the requests."""

    def __init__(self, exchange: Exchange):
        self._exchange = exchange
        self.requests: list[tuple[str, str, Mapping[str, str], bytes | None, float]] = []

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Exchange:
        self.requests.append((method, url, headers, body, timeout_seconds))
        return self._exchange


def answer(status: int, body: bytes, retry_after_seconds: float | None = None) -> Answer:
    return Answer(status, body, {}, NOW, 12.5, retry_after_seconds)


OK = b'{"requestId": "r", "success": true, "errorCode": "", "errorMessage": "", "value": null}'


def session(exchange: Exchange, **changes: str) -> tuple[BlibliSession, FakeTransport]:
    transport = FakeTransport(exchange)
    return BlibliSession(read_credentials({**CREDENTIALS, **changes}), transport, ManualClock(NOW)), transport


# --- The request ---


async def test_a_push_is_one_put_with_the_documented_query_body_and_headers() -> None:
    store, transport = session(answer(200, OK), call_timeout_seconds="3")
    attempt = await store.push([Push(1, "TOQ-1-1-1", 5)])
    ((method, url, headers, body, timeout_seconds),) = transport.requests
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, strict_parsing=True))
    request_id = query.pop("requestId")
    assert (method, body, timeout_seconds) == ("PUT", b'{"availableStock":5}', 3.0)
    assert (parts.scheme, parts.netloc) == ("https", "api.blibli.com")
    assert parts.path == "/v2/proxy/seller/v1/products/TOQ-1-1-1/stock"
    assert "username=seller%2Bone%40example.test" in parts.query
    assert query == {
        "channelId": "lumbung",
        "storeId": "10001",
        "username": "seller+one@example.test",
        "storeCode": "TOQ-1",
        "blibli-sku": "TOQ-1-1-1",
    }
    assert len(request_id) == 32
    assert headers == {
        "Authorization": "Basic bXRhLWFwaS1jbGllbnQ6Y2xpZW50LWtleS0wMTIzNDU2Nzg5",
        "Api-Seller-Key": "seller-key-0123456789",
        "Accept": "application/json",
        "Content-Type": "application/json",
        "requestId": request_id,
        "sessionId": request_id,
    }
    (call,) = attempt.calls
    assert (call.method, call.url, call.request, call.status) == ("PUT", url, '{"availableStock":5}', 200)
    assert (call.response, call.started_at, call.duration_ms) == (OK.decode(), NOW, 12.5)


async def test_every_call_has_a_request_id_of_its_own() -> None:
    store, transport = session(answer(200, OK))
    await store.push([Push(1, "TOQ-1-1-1", 5)])
    await store.push([Push(1, "TOQ-1-1-1", 5)])
    assert transport.requests[0][1] != transport.requests[1][1]


async def test_a_pickup_point_is_named_in_the_query_and_such_a_listing_is_not_read() -> None:
    store, transport = session(answer(200, OK))
    variant = '{"blibli_sku": "TOQ-1-1-1", "pickup_point_code": "PP-3001234"}'
    await store.push([Push(1, variant, 5)])
    reading = await store.read([Push(1, variant, 5)])
    assert reading.rows == (ReadRow(1, Rejected("Blibli does not tell the stock of one pickup point")),)
    assert (reading.calls, len(transport.requests)) == ((), 1)
    assert transport.requests[0][1].endswith("&blibli-sku=TOQ-1-1-1&pickupPointCode=PP-3001234")


async def test_a_listing_with_ids_that_cannot_be_is_rejected_without_a_call() -> None:
    store, transport = session(answer(200, OK))
    attempt = await store.push([Push(1, '{"item_id": 1}', 5)])
    assert isinstance(attempt.rows[0].outcome, Rejected)
    assert (attempt.calls, transport.requests) == ((), [])


async def test_nothing_to_push_is_no_call() -> None:
    store, transport = session(answer(200, OK))
    attempt = await store.push([])
    assert (attempt.rows, attempt.calls, transport.requests) == ((), (), [])


# --- The signature ---


def test_the_golden_vector() -> None:
    headers = signing.signature_headers(
        "bli_secret",
        method="PUT",
        path="/proxy/seller/v1/products/TOQ-1-1-1/stock",
        body=b'{"availableStock":5}',
        now=NOW,
    )
    assert headers == {
        "Signature": "E9f65sE0UBYm72DvTsJXQ/3donWeBT81Il0m5vKKCQQ=",
        "Signature-Time": "1699974800000",
    }


def test_the_five_lines_that_are_signed() -> None:
    assert signing.raw_string("PUT", "/seller/v1/products/TOQ-1-1-1/stock", b'{"availableStock":5}', NOW) == (
        "PUT\n04aebbdc4858409e9f63406f0479df8d\napplication/json\nTue Nov 14 22:13:20 WIB 2023\n"
        "/seller/v1/products/TOQ-1-1-1/stock"
    )
    assert signing.raw_string("GET", "/x", None, NOW) == "GET\n\n\nTue Nov 14 22:13:20 WIB 2023\n/x"


def test_the_signed_path_follows_the_proxy_and_knows_mta() -> None:
    assert signing.signed_path("/proxy/seller/v1/products/A/stock") == "/seller/v1/products/A/stock"
    assert (
        signing.signed_path("/proxy/mta/api/businesspartner/v1/feed/list") == "/mtaapi/api/businesspartner/v1/feed/list"
    )


def test_the_date_is_jakartas_across_midnight_with_two_digit_days() -> None:
    assert signing.jakarta_date(datetime(2025, 12, 31, 17, 0, 0, tzinfo=UTC)) == "Thu Jan 01 00:00:00 WIB 2026"


async def test_calls_are_signed_only_when_a_key_is_configured() -> None:
    plain, plain_transport = session(answer(200, OK))
    signed, transport = session(answer(200, OK), signature_key="bli_secret")
    other, other_transport = session(
        answer(200, OK), signature_key="bli_secret", signature_path_prefix="/seller-api/api"
    )
    for store in (plain, signed, other):
        await store.push([Push(1, "TOQ-1-1-1", 5)])
    assert "Signature" not in plain_transport.requests[0][2]
    assert transport.requests[0][2]["Signature"] == "E9f65sE0UBYm72DvTsJXQ/3donWeBT81Il0m5vKKCQQ="
    assert transport.requests[0][2]["Signature-Time"] == "1699974800000"
    assert other_transport.requests[0][2]["Signature"] != transport.requests[0][2]["Signature"]


# --- The table ---


def refusal(code: object, message: str = "") -> bytes:
    return json.dumps({"requestId": "r", "success": False, "errorCode": code, "errorMessage": message}).encode()


UNKNOWN = "Blibli does not know the item, or has closed it: "
RESERVED = "Below what Blibli has reserved: "


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, OK, Accepted()),
        (201, b'{"success": true}', Accepted()),
        (204, b"", Accepted()),
        (200, b'{"success": true, "errorCode": null, "value": {"a": [1, null]}}', Accepted()),
        (200, b'{"success": true, "errorCode": "X"}', InDoubt("Blibli's answer contradicts itself: X")),
        (400, OK, InDoubt("Blibli's answer contradicts itself: HTTP 400, no reason given")),
        (200, refusal("PRODUCT_NOT_FOUND", "no such"), Rejected(UNKNOWN + "PRODUCT_NOT_FOUND: no such")),
        (404, refusal("E1", "Produk tidak ditemukan"), Rejected(UNKNOWN + "E1: Produk tidak ditemukan")),
        (400, refusal("INVALID_GDN_SKU"), Rejected(UNKNOWN + "INVALID_GDN_SKU")),
        (422, refusal("E2", "item has been Deleted"), Rejected(UNKNOWN + "E2: item has been Deleted")),
        (200, refusal("ERR-17", "nothing we know"), Rejected("Blibli refused: ERR-17: nothing we know")),
        (200, refusal(17), Rejected("Blibli refused: 17")),
        (200, refusal(""), InDoubt("Blibli's answer contradicts itself: HTTP 200, no reason given")),
        (200, refusal(None), InDoubt("Blibli's answer contradicts itself: HTTP 200, no reason given")),
        (400, refusal(""), Rejected("Blibli refused: HTTP 400, no reason given")),
        (200, refusal("", "no such sku: not found"), Rejected(UNKNOWN + "no such sku: not found")),
        (200, refusal("", "we do not want it"), Rejected("Blibli refused: we do not want it")),
        (200, refusal("SYSTEM_BUSY"), InDoubt("Blibli is not sure: SYSTEM_BUSY")),
        (
            200,
            refusal("E", "Internal timeout: not found"),
            InDoubt("Blibli is not sure: E: Internal timeout: not found"),
        ),
        (200, refusal("TOO_MANY_REQUESTS"), Throttled(None)),
        (200, refusal("RATE_LIMIT_EXCEEDED"), Throttled(None)),
        (200, refusal("E", "API quota exceeded"), Throttled(None)),
        (200, refusal("E", "the request limit has been exceeded"), Throttled(None)),
        (
            200,
            refusal("STOCK_LIMIT_EXCEEDED", "Maximum stock limit exceeded"),
            Rejected("Blibli refused: STOCK_LIMIT_EXCEEDED: Maximum stock limit exceeded"),
        ),
        (
            200,
            refusal("PROMO_QUOTA_EXCEEDED", "Flash sale quota exceeded for item"),
            Deferred(None, "Locked for now: PROMO_QUOTA_EXCEEDED: Flash sale quota exceeded for item"),
        ),
        (
            403,
            refusal("FORBIDDEN", "SKU does not belong to merchant"),
            Rejected("Blibli forbids this item: FORBIDDEN: SKU does not belong to merchant"),
        ),
        (403, refusal("PRODUCT_NOT_FOUND"), Rejected(UNKNOWN + "PRODUCT_NOT_FOUND")),
        (403, refusal("ITEM_LOCKED"), Deferred(None, "Locked for now: ITEM_LOCKED")),
        (403, refusal("TOO_MANY_REQUESTS"), Throttled(None)),
        (403, refusal("E", "temporarily unavailable"), InDoubt("Blibli is not sure: E: temporarily unavailable")),
        (
            403,
            refusal("E", "this API client may not update a product"),
            Misconfigured(
                "Blibli forbids this store's calls: E: this API client may not update a product", Scope.STORE
            ),
        ),
        (
            401,
            refusal("E", "token not found"),
            Unauthorized("Blibli does not accept the login: E: token not found", False),
        ),
        (
            200,
            refusal("UNAUTHORIZED_PRODUCT", "You are unauthorized to update this product"),
            Rejected("Blibli refused: UNAUTHORIZED_PRODUCT: You are unauthorized to update this product"),
        ),
        (
            200,
            refusal("UNAUTHORIZED", "this product is not for you"),
            Rejected("Blibli refused: UNAUTHORIZED: this product is not for you"),
        ),
        (
            200,
            refusal("E", "sku of an inactive merchant"),
            Rejected("Blibli refused: E: sku of an inactive merchant"),
        ),
        (200, refusal("UNAUTHORIZED"), Unauthorized("Blibli does not accept the login: UNAUTHORIZED", False)),
        (
            200,
            refusal("E", "merchant not found"),
            Misconfigured("Blibli does not accept the store: E: merchant not found", Scope.STORE),
        ),
        (
            200,
            refusal("E", "pickup point not found"),
            Misconfigured("The pickup point is wrong: E: pickup point not found", Scope.LISTING),
        ),
        (200, refusal("E", "in a flash sale"), Deferred(None, "Locked for now: E: in a flash sale")),
        (200, refusal("ITEM_LOCKED"), Deferred(None, "Locked for now: ITEM_LOCKED")),
        (200, refusal("E", "toko sedang tutup"), Deferred(None, "Locked for now: E: toko sedang tutup")),
        (
            200,
            refusal("STOCK_BELOW_RESERVED", "not less than 3"),
            Floor(3, RESERVED + "STOCK_BELOW_RESERVED: not less than 3"),
        ),
        (
            200,
            refusal("E", "stok tidak boleh kurang dari 4, sudah dipesan"),
            Floor(4, RESERVED + "E: stok tidak boleh kurang dari 4, sudah dipesan"),
        ),
        (200, refusal("E", "2 units are reserved in stock"), Floor(2, RESERVED + "E: 2 units are reserved in stock")),
        (200, refusal("E", "reserved stock is 7"), Floor(7, RESERVED + "E: reserved stock is 7")),
        (200, refusal("E", "stock is reserved"), Deferred(None, RESERVED + "E: stock is reserved")),
        (
            200,
            refusal("E", "reserved stock is 5: at least 6"),
            Deferred(None, RESERVED + "E: reserved stock is 5: at least 6"),
        ),
        (
            200,
            refusal("E", "reserved stock must be at least 0"),
            Deferred(None, RESERVED + "E: reserved stock must be at least 0"),
        ),
        (
            200,
            refusal("E", "reserved stock: price at least 1000"),
            Deferred(None, RESERVED + "E: reserved stock: price at least 1000"),
        ),
        (200, refusal("E", "stock must be at least 3"), Rejected("Blibli refused: E: stock must be at least 3")),
        (401, refusal("X"), Unauthorized("Blibli does not accept the login: X", False)),
        (401, b"", Unauthorized("Blibli does not accept the login: HTTP 401", False)),
        (403, b"<html>", Misconfigured("Blibli forbids this store's calls: HTTP 403", Scope.STORE)),
        (301, b"", Misconfigured("Blibli redirects elsewhere: HTTP 301", Scope.STORE)),
        (302, b"", Unavailable("Blibli redirects for now, is base_url right? HTTP 302")),
        (303, b"", InDoubt("Blibli redirects for its answer: HTTP 303")),
        (307, b"", Unavailable("Blibli redirects for now, is base_url right? HTTP 307")),
        (404, b"<html>", Rejected("Blibli has no such address (item unknown, or base_url wrong): HTTP 404")),
        (413, b"", Rejected("Blibli finds the request too large: HTTP 413")),
        (415, b"", Rejected("Blibli does not take this content type: HTTP 415")),
        (429, b"", Throttled(None)),
        (408, refusal("NOT_FOUND"), InDoubt("Blibli gave up waiting: NOT_FOUND")),
        (500, OK, InDoubt("Blibli failed: HTTP 500, no reason given")),
        (503, refusal("PRODUCT_NOT_FOUND"), InDoubt("Blibli failed: PRODUCT_NOT_FOUND")),
        (418, refusal("X"), InDoubt("Blibli answered strangely: X")),
        (400, b"<html>", InDoubt("Blibli's answer cannot be read: HTTP 400")),
        (200, b"<html>", InDoubt("Blibli's answer cannot be read: HTTP 200")),
        (200, b"", InDoubt("Blibli's answer cannot be read: HTTP 200")),
        (200, b'{"success": "true"}', InDoubt("Blibli's answer cannot be read: HTTP 200")),
        (200, b'{"errorCode": ""}', InDoubt("Blibli's answer cannot be read: HTTP 200")),
        (200, OK[:-1], InDoubt("Blibli's answer cannot be read: HTTP 200")),
        (200, b"[" * 100_000, InDoubt("Blibli's answer cannot be read: HTTP 200")),
        (101, b"", InDoubt("Blibli's answer cannot be read: HTTP 101")),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, outcome: Outcome) -> None:
    assert classify(status, wire.envelope(body), None) == outcome


def test_a_refusal_at_the_door_that_will_pass_does_not_stop_the_store() -> None:
    assert classify(403, None, 9.0) == Throttled(9.0)
    assert classify(403, wire.envelope(refusal("X")), 9.0) == Throttled(9.0)


async def test_a_throttle_keeps_its_length_and_an_unavailable_server_is_in_doubt_all_the_same() -> None:
    throttled, _ = session(answer(429, b"", 60.0))
    failing, _ = session(answer(503, b"", 60.0))
    assert (await throttled.push([Push(1, "A", 1)])).rows[0].outcome == Throttled(60.0)
    assert (await failing.push([Push(1, "A", 1)])).rows[0].outcome == InDoubt("Blibli failed: HTTP 503")


async def test_surely_not_sent_is_unavailable_and_no_answer_is_in_doubt() -> None:
    unsent, _ = session(NotSent("refused", NOW, 1.0))
    unanswered, _ = session(NoAnswer("reset", NOW, 1.0))
    assert (await unsent.push([Push(1, "A", 1)])).rows[0].outcome == Unavailable("refused")
    attempt = await unanswered.push([Push(1, "A", 1)])
    assert attempt.rows[0].outcome == InDoubt("reset")
    assert (attempt.calls[0].status, attempt.calls[0].response) == (0, "")


async def test_a_server_that_echoes_our_secrets_does_not_get_them_kept() -> None:
    echo = " ".join(
        ("client-key-0123456789", "seller-key-0123456789", "bXRhLWFwaS1jbGllbnQ6Y2xpZW50LWtleS0wMTIzNDU2Nzg5")
    )
    store, _ = session(answer(200, refusal("E", echo)))
    attempt = await store.push([Push(1, "A", 1)])
    assert attempt.rows[0].outcome == Rejected("Blibli refused: E: *** *** ***")
    assert attempt.rows[0].answer == refusal("E", "*** *** ***").decode()
    assert attempt.calls[0].response == attempt.rows[0].answer


async def test_the_marketplaces_words_are_one_line_of_bounded_length() -> None:
    store, _ = session(answer(200, refusal("E\0", "a\nb\x1b[31m\u2028" + "x" * 5000)))
    outcome = (await store.push([Push(1, "A", 1)])).rows[0].outcome
    assert isinstance(outcome, Rejected)
    assert outcome.message.startswith("Blibli refused: E: a b [31m xxx")
    assert len(outcome.message) < 600


# --- Checking and reading ---


@pytest.mark.parametrize(
    ("exchange", "outcome"),
    [
        (answer(200, OK), Accepted()),
        (answer(200, refusal("NOT_FOUND")), Accepted()),
        (answer(404, refusal("NOT_FOUND")), Accepted()),
        (answer(200, refusal("PICKUP_POINT")), Accepted()),
        (
            answer(404, b"<html>"),
            Misconfigured("Blibli has no such address (item unknown, or base_url wrong): HTTP 404", Scope.STORE),
        ),
        (answer(401, b""), Unauthorized("Blibli does not accept the login: HTTP 401", False)),
        (answer(429, b"", 3.0), Throttled(3.0)),
        (answer(200, b"<html>"), InDoubt("Blibli's answer cannot be read: HTTP 200")),
        (NotSent("refused", NOW, 1.0), Unavailable("refused")),
    ],
)
async def test_a_check_asks_for_a_product_that_does_not_exist(exchange: Exchange, outcome: Outcome) -> None:
    store, transport = session(exchange)
    assert await store.check() == outcome
    ((method, url, headers, body, _),) = transport.requests
    assert (method, urlsplit(url).path, body) == ("GET", "/v2/proxy/seller/v1/products/LUMBUNG-00000-00000-00000", None)
    assert "Content-Type" not in headers


@pytest.mark.parametrize(
    ("value", "quantity"),
    [
        ({"availableStock": 5}, 5),
        ({"blibliSku": "A", "availableStock": 0}, 0),
        ({"stock": 6}, 6),
        ({"stock": {"availableStock": 7}}, 7),
        ({"blibliSku": "B", "availableStock": 5}, None),
        ({"availableStock": "5"}, None),
        ({"availableStock": -1}, None),
        ({"availableStock": True}, None),
        ({"availableStock": 1e300}, None),
        ({"stock": {}}, None),
        ({}, None),
        (None, None),
        ([], None),
    ],
)
async def test_a_quantity_is_read_where_it_is_assumed_to_be(value: object, quantity: int | None) -> None:
    store, _ = session(answer(200, json.dumps({"success": True, "errorCode": "", "value": value}).encode()))
    unreadable = Rejected("Blibli shows no stock that can be read")
    reading = await store.read([Push(1, "A", 9)])
    assert reading.rows == (ReadRow(1, unreadable if quantity is None else Observed(quantity)),)


async def test_a_read_is_one_get_and_its_call_is_kept() -> None:
    body = b'{"success": true, "errorCode": "", "value": {"availableStock": 5}}'
    store, transport = session(answer(200, body))
    (call,) = (await store.read([Push(1, "A", 9)])).calls
    ((method, url, _, sent, _),) = transport.requests
    assert (method, urlsplit(url).path, sent) == ("GET", "/v2/proxy/seller/v1/products/A", None)
    assert (call.method, call.url, call.request, call.status) == ("GET", url, "", 200)
    assert (call.response, call.started_at, call.duration_ms) == (body.decode(), NOW, 12.5)


@pytest.mark.parametrize(
    ("exchange", "seen", "calls"),
    [
        (answer(429, b"", 3.0), Throttled(3.0), 1),
        (answer(401, b""), Unauthorized("Blibli does not accept the login: HTTP 401", False), 1),
        (answer(403, b""), Misconfigured("Blibli forbids this store's calls: HTTP 403", Scope.STORE), 1),
        (NotSent("refused", NOW, 1.0), Unavailable("refused"), 1),
        (NoAnswer("reset", NOW, 1.0), Unavailable("reset"), 1),
        (answer(500, b""), Unavailable("Blibli failed: HTTP 500"), 1),
        (answer(200, b"<html>"), Unavailable("Blibli's answer cannot be read: HTTP 200"), 1),
        (answer(204, b""), Rejected("Blibli shows no stock that can be read"), 2),
        (answer(200, refusal("NOT_FOUND")), Rejected(UNKNOWN + "NOT_FOUND"), 2),
        (answer(200, refusal("PROMO")), Deferred(None, "Locked for now: PROMO"), 2),
        (
            answer(200, refusal("PICKUP_POINT")),
            Misconfigured("The pickup point is wrong: PICKUP_POINT", Scope.LISTING),
            2,
        ),
    ],
)
async def test_a_read_that_fails_for_the_whole_store_makes_no_further_call(
    exchange: Exchange, seen: Outcome, calls: int
) -> None:
    store, transport = session(exchange)
    reading = await store.read([Push(1, "A", 9), Push(2, "B", 9)])
    assert reading.rows == (ReadRow(1, seen), ReadRow(2, seen))
    assert (len(reading.calls), len(transport.requests)) == (calls, calls)


async def test_ids_that_cannot_be_are_not_read_while_the_others_are() -> None:
    store, transport = session(answer(200, b'{"success": true, "errorCode": "", "value": {"stock": 5}}'))
    reading = await store.read([Push(1, "A", 9), Push(2, "not one", 9), Push(3, "B", 9)])
    assert [row.listing_id for row in reading.rows] == [1, 2, 3]
    assert (reading.rows[0].seen, reading.rows[2].seen) == (Observed(5), Observed(5))
    assert isinstance(reading.rows[1].seen, Rejected)
    assert len(transport.requests) == 2


# --- Ids and credentials ---


def test_ids_become_one_text_however_they_are_written() -> None:
    channel = BlibliChannel()
    assert channel.remote_variant("TOQ-1-1-1") == '{"blibli_sku": "TOQ-1-1-1"}'
    assert (
        channel.remote_variant('{"blibli_sku":"TOQ-1-1-1","pickup_point_code":null}') == '{"blibli_sku": "TOQ-1-1-1"}'
    )
    assert channel.remote_variant('{"pickup_point_code":"PP-1","blibli_sku":"TOQ-1-1-1"}') == (
        '{"blibli_sku": "TOQ-1-1-1", "pickup_point_code": "PP-1"}'
    )


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"signatur_key": "x"}, ["signatur_key"]),
        ({"api_seller_key": "two words"}, ["api_seller_key"]),
        ({"api_seller_key": "line\r\nX-Evil: 1"}, ["api_seller_key", "api_seller_key"]),
        ({"username": "a\0b"}, ["username"]),
        ({"store_code": " "}, ["store_code"]),
        ({"channel_id": "x" * 5000}, ["channel_id"]),
        ({"pickup_point_parameter": "pickup point"}, ["pickup_point_parameter"]),
        ({"call_timeout_seconds": "0"}, ["call_timeout_seconds"]),
        ({"call_timeout_seconds": "21"}, ["call_timeout_seconds"]),
        ({"call_timeout_seconds": "nan"}, ["call_timeout_seconds"]),
        ({"calls_per_second": "fast"}, ["calls_per_second"]),
        ({"quiesce_seconds": "-1"}, ["quiesce_seconds"]),
        ({"username": "", "base_url": "http://example.test"}, ["username", "base_url"]),
    ],
)
def test_every_field_that_cannot_be_right_is_named_and_its_value_is_not(
    changes: dict[str, str], fields: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_credentials({**CREDENTIALS, **changes})
    assert [problem.field for problem in raised.value.problems] == fields
    assert "Evil" not in str(raised.value)
    assert CREDENTIALS["api_client_key"] not in str(raised.value)


@pytest.mark.parametrize(
    ("base_url", "kept"),
    [
        ("https://api.blibli.com/v2/", "https://api.blibli.com/v2"),
        ("https://API.Blibli.com/v2", "https://api.blibli.com/v2"),
        ("http://localhost:8700/blib/v2", "http://localhost:8700/blib/v2"),
        ("http://127.8.9.1", "http://127.8.9.1"),
        ("http://[::1]:80/v2", "http://[::1]:80/v2"),
        ("", "https://api.blibli.com/v2"),
    ],
)
def test_a_base_url_is_put_together_again_from_its_parts(base_url: str, kept: str) -> None:
    assert read_credentials({**CREDENTIALS, "base_url": base_url}).base_url == kept


def test_secrets_are_not_in_the_repr_of_the_credentials() -> None:
    text = repr(read_credentials({**CREDENTIALS, "signature_key": "signature-key-0123456789"}))
    assert "0123456789" not in text


def test_the_readme_names_every_field() -> None:
    readme = (Path(lumbung.channels.blibli.__file__).parent / "README.md").read_text()
    for field in BlibliChannel.manifest.credentials:
        assert f"`{field.name}`" in readme, field.name


# --- Anything at all ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "success": st.booleans() | json_values,
        "errorCode": st.text() | json_values,
        "errorMessage": st.text() | json_values,
        "value": json_values | st.fixed_dictionaries({"availableStock": json_values, "stock": json_values}),
    },
).map(lambda value: json.dumps(value).encode())
exchanges = st.one_of(
    st.builds(
        Answer,
        status=st.sampled_from([101, 200, 201, 204, 302, 400, 401, 403, 404, 422, 429, 500, 503])
        | st.integers(100, 999),
        body=st.binary() | envelopes,
        headers=st.just({}),
        started_at=st.just(NOW),
        duration_ms=st.just(1.0),
        retry_after_seconds=st.none() | st.floats(0, 1e9),
    ),
    st.builds(NotSent, st.text(), st.just(NOW), st.just(1.0)),
    st.builds(NoAnswer, st.text(), st.just(NOW), st.just(1.0)),
)


@given(exchanges)
def test_whatever_a_server_answers_there_is_one_row_and_text_that_can_be_kept(exchange: Exchange) -> None:
    store, transport = session(exchange)
    attempt = asyncio.run(store.push([Push(7, "TOQ-1-1-1", 5)]))
    assert [row.listing_id for row in attempt.rows] == [7]
    assert (len(attempt.calls), len(transport.requests)) == (1, 1)
    row, call = attempt.rows[0], attempt.calls[0]
    if isinstance(row.outcome, Accepted):
        assert isinstance(exchange, Answer)
        assert 200 <= exchange.status < 300
    if isinstance(exchange, NotSent):
        assert row.outcome == Unavailable(exchange.message)
    elif isinstance(row.outcome, Unavailable):
        assert isinstance(exchange, Answer)
        assert exchange.status in {302, 307}
    assert "\0" not in call.response
    call.response.encode()
    if row.answer:
        json.loads(row.answer)


@given(exchanges)
def test_whatever_a_server_answers_reading_and_checking_do_not_raise(exchange: Exchange) -> None:
    store, _ = session(exchange)
    reading = asyncio.run(store.read([Push(7, "TOQ-1-1-1", 5)]))
    (row,) = reading.rows
    assert (row.listing_id, len(reading.calls)) == (7, 1)
    assert not isinstance(row.seen, Accepted | InDoubt)
    assert not isinstance(row.seen, Observed) or row.seen.quantity >= 0
    asyncio.run(store.check())


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_either_canonical_ids_or_a_bad_request(text: str) -> None:
    channel = BlibliChannel()
    try:
        canonical = channel.remote_variant(text)
    except BadRequest:
        return
    assert channel.remote_variant(canonical) == canonical


@given(st.integers(0, 4_000_000_000_000))
def test_the_signed_date_is_the_instant_of_signature_time(milliseconds: int) -> None:
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    headers = signing.signature_headers("key", method="GET", path="/proxy/x", body=None, now=now)
    assert headers["Signature-Time"] == str(milliseconds)
    assert signing.jakarta_date(now) == signing.jakarta_date(now.replace(microsecond=0))
