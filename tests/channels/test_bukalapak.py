"""Bukalapak's stock: the contract, the request, the table, reading, and any bytes at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lumbung.channels.bukalapak
from lumbung.channels.base import (
    Accepted,
    Authorizes,
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
    RotatesTokens,
    Scope,
    Session,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.bukalapak import wire
from lumbung.channels.bukalapak.channel import BukalapakChannel, BukalapakSession, read_credentials
from lumbung.channels.bukalapak.errors import classify
from lumbung.channels.http import Answer, Exchange, NoAnswer, NotSent
from lumbung.channels.registry import CHANNELS
from lumbung.errors import BadRequest, ConfigurationError

from .contract import ChannelContract, Shop

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
USER_AGENT = "Example Hub (Partner; +https://hub.example.test)"
ACCESS, REFRESH = "access-token-0123456789", "refresh-token-0123456789"
TOKENS = Tokens(ACCESS, REFRESH, NOW, NOW + timedelta(hours=2))
CREDENTIALS = {
    "client_id": "client-1",
    "client_secret": "client-secret-0123456789",
    "user_agent": USER_AGENT,
    "shop_id": "4017",
}
SETTINGS: Mapping[str, object] = {
    "client_id": "client-1",
    "client_secret": "client-secret-0123456789",
    "user_agent": USER_AGENT,
    "access_token": ACCESS,
    "refresh_token": REFRESH,
    "listings": [
        {"remote_variant": "abc/123", "sku": "sku1", "quantity": 0},
        {"remote_variant": "abc/124", "sku": "sku2", "quantity": 4},
        {"remote_variant": "xyz/1", "sku": "sku3", "quantity": 8},
    ],
}


class TestBukalapak(ChannelContract):
    channel: ClassVar[Channel] = CHANNELS["bklp"]
    mount = "/bklp/api"
    credentials: ClassVar[Mapping[str, str]] = CREDENTIALS
    wrong_credentials: ClassVar[Mapping[str, str]] = {"user_agent": "Another Hub"}
    sandbox_store = "4017"
    sandbox_settings: ClassVar[Mapping[str, object]] = SETTINGS
    listing = "abc/123"
    unknown_listing = "abc/999"
    bad_listings = (
        "",
        "abc",
        "abc/",
        "/123",
        "abc/123/4",
        "abc 1/2",
        "../admin",
        "..",
        "abc/..",
        "abc/1?x=1",
        "abc/1\nabc/2",
        "abc/١",
        "{",
        "{}",
        "[]",
        '{"product_id": "abc"}',
        '{"product_id": "abc", "sku_id": 123}',
        '{"product_id": "abc", "sku_id": ""}',
        '{"product_id": "abc", "sku_id": "1", "item_id": "2"}',
        '{"product_id": "\\ud800", "sku_id": "1"}',
        '{"x": ' + "[" * 900,
        "A" * 1001,
        "\ud800/1",
    )
    expected_of_a_listing = "1lxw25g/4017523"

    def prepare(self, session: Session) -> None:
        assert isinstance(session, RotatesTokens)
        session.use(TOKENS)

    async def test_a_store_that_is_not_authorised_makes_no_call(self, shop: Shop) -> None:
        fresh = shop.session()
        assert isinstance(fresh, BukalapakSession)
        fresh._tokens = None
        outcome = Unauthorized("The store is not authorised yet: run `lumbung store authorize`", refreshable=False)
        attempt = await fresh.push([Push(1, self.variant(), 3)])
        reading = await fresh.read([Push(1, self.variant(), 3), Push(2, self.variant("xyz/1"), 3)])
        assert ([row.outcome for row in attempt.rows], attempt.calls) == ([outcome], ())
        assert ([row.seen for row in reading.rows], reading.calls) == ([outcome, outcome], ())
        assert await fresh.check() == outcome
        assert await shop._control("GET", "/calls?after=0") == []

    async def test_all_skus_of_a_product_are_read_by_one_call(self, shop: Shop) -> None:
        session = self.reader(shop.session())
        names = ("abc/124", "xyz/1", "abc/123", "abc/999")
        reading = await session.read([Push(n, self.variant(name), 0) for n, name in enumerate(names)])
        unreadable = Rejected("Bukalapak shows no stock of this SKU that can be read")
        assert [row.seen for row in reading.rows] == [Observed(4), Observed(8), Observed(0), unreadable]
        assert [call.url.partition("/bklp")[2] for call in reading.calls] == ["/api/products/abc", "/api/products/xyz"]

    async def test_what_the_sandbox_has_reserved_is_a_floor(self, shop: Shop) -> None:
        await shop._control(
            "PUT",
            "/listings",
            {"channel": "bklp", "store": "4017", "remote_variant": "abc/124", "reserved_by_promotions": 3},
        )
        row = await self.push(shop.session(), 2, listing="abc/124")
        assert isinstance(row.outcome, Floor)
        assert row.outcome.minimum == 3
        assert (await shop.shown())["abc/124"] == 4

    async def test_a_product_that_was_taken_down_stays_down_unless_the_store_asks_otherwise(self, shop: Shop) -> None:
        async def states() -> list[object]:
            product = (await self.reader(shop.session()).read([Push(1, self.variant(), 0)])).calls[0].response
            return [variant["state"] for variant in json.loads(product)["data"]["variants"]]

        session = shop.session()
        assert isinstance(session, BukalapakSession)
        await session._call("PATCH", "/products/abc/skus/123", b'{"stock": 0, "state": "inactive"}')
        assert (await self.push(shop.session(), 5)).outcome == Accepted()
        assert await states() == ["inactive", "active"]
        assert (await self.push(shop.session(send_state="yes"), 0)).outcome == Accepted()
        assert await states() == ["inactive", "active"]
        assert (await self.push(shop.session(send_state="yes"), 5)).outcome == Accepted()
        assert await states() == ["active", "active"]


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


OK = b'{"data": {"id": 123, "stock": 5}, "meta": {"http_status": 200}}'
LISTING = '{"product_id": "abc", "sku_id": "123"}'


def session(exchange: Exchange, **changes: str) -> tuple[BukalapakSession, FakeTransport]:
    transport = FakeTransport(exchange)
    made = BukalapakSession(read_credentials({**CREDENTIALS, **changes}), transport)
    made.use(TOKENS)
    return made, transport


# --- The request ---


async def test_a_push_is_one_patch_with_the_documented_path_body_and_headers() -> None:
    store, transport = session(answer(200, OK), call_timeout_seconds="3")
    attempt = await store.push([Push(1, LISTING, 5)])
    url = "https://api.bukalapak.com/products/abc/skus/123"
    headers = {
        "Authorization": f"Bearer {ACCESS}",
        "User-Agent": USER_AGENT,
        "Accept": "application/json",
        "Content-Type": "application/json",
    }
    assert transport.requests == [("PATCH", url, headers, b'{"stock":5}', 3.0)]
    (call,) = attempt.calls
    assert (call.method, call.url, call.request, call.status) == ("PATCH", url, '{"stock":5}', 200)
    assert (call.response, call.started_at, call.duration_ms) == (OK.decode(), NOW, 12.5)
    assert attempt.rows[0].answer == OK.decode()


@pytest.mark.parametrize(
    ("send_state", "quantity", "body"),
    [
        ("no", 5, b'{"stock":5}'),
        ("no", 0, b'{"stock":0}'),
        ("yes", 5, b'{"stock":5,"state":"active"}'),
        ("yes", 0, b'{"stock":0}'),
    ],
)
async def test_a_state_is_sent_only_where_it_is_wanted_and_never_with_nothing_in_stock(
    send_state: str, quantity: int, body: bytes
) -> None:
    store, transport = session(answer(200, OK), send_state=send_state)
    await store.push([Push(1, LISTING, quantity)])
    assert [request[3] for request in transport.requests] == [body]


async def test_a_listing_with_ids_that_cannot_be_is_rejected_without_a_call() -> None:
    store, transport = session(answer(200, OK))
    attempt = await store.push([Push(1, '{"item_id": 1}', 5)])
    assert isinstance(attempt.rows[0].outcome, Rejected)
    assert (attempt.calls, transport.requests) == ((), [])


async def test_nothing_to_push_is_no_call() -> None:
    store, transport = session(answer(200, OK))
    attempt = await store.push([])
    assert (attempt.rows, attempt.calls, transport.requests) == ((), (), [])


async def test_a_pair_without_an_access_token_is_to_be_refreshed_first() -> None:
    store, transport = session(answer(200, OK))
    store.use(Tokens("", REFRESH, NOW, NOW))
    attempt = await store.push([Push(1, LISTING, 5)])
    assert attempt.rows[0].outcome == Unauthorized("The store has no access token yet", refreshable=True)
    assert (attempt.calls, transport.requests) == ((), [])


async def test_a_call_is_made_with_the_pair_that_was_given_last() -> None:
    store, transport = session(answer(200, OK))
    store.use(Tokens("another-access-token", REFRESH, NOW, NOW + timedelta(hours=2)))
    await store.push([Push(1, LISTING, 5)])
    assert transport.requests[0][2]["Authorization"] == "Bearer another-access-token"


# --- The table ---


def refusal(message: str, status: int = 422, code: object = 10001) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}], "meta": {"http_status": status}}).encode()


UNKNOWN = "Bukalapak does not know the item, or has closed it: 10001: "
RESERVED = "Below what Bukalapak has reserved: 10001: "
STORE = "Bukalapak does not accept the store: 10001: "
TOKEN = "Bukalapak does not accept the access token: "
FORBIDDEN = "Bukalapak forbids this store's calls (check user_agent and scope): "


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, OK, Accepted()),
        (200, b'{"data": [], "errors": null, "meta": {"http_status": 200}}', Accepted()),
        (200, b'{"data": {}, "meta": {"http_status": 202}}', Accepted()),
        (201, OK, Accepted()),
        (200, b'{"meta": {"http_status": 200}}', InDoubt("Bukalapak's answer contradicts itself: HTTP 200")),
        (400, OK, InDoubt("Bukalapak's answer contradicts itself: HTTP 400")),
        (404, OK, InDoubt("Bukalapak's answer contradicts itself: HTTP 404")),
        (200, b'{"data": {}, "meta": {"http_status": 17}}', InDoubt("Bukalapak's answer contradicts itself: HTTP 17")),
        (200, refusal("sku was not found", 404), Rejected(UNKNOWN + "sku was not found")),
        (200, refusal("sku was not found", 200), Rejected(UNKNOWN + "sku was not found")),
        (404, refusal("Produk tidak ditemukan", 404), Rejected(UNKNOWN + "Produk tidak ditemukan")),
        (422, refusal("the product is banned"), Rejected(UNKNOWN + "the product is banned")),
        (422, refusal("stock is no number"), Rejected("Bukalapak refused: 10001: stock is no number")),
        (400, refusal("", 400, None), Rejected("Bukalapak refused: HTTP 400")),
        (404, b'{"errors": [{"code": "gone"}]}', Rejected("Bukalapak refused: gone")),
        (200, b'{"errors": [{"message": "no"}]}', Rejected("Bukalapak refused: no")),
        (
            422,
            refusal("the system is busy: item deleted"),
            InDoubt("Bukalapak is not sure: 10001: the system is busy: item deleted"),
        ),
        (422, refusal("too many requests"), Throttled(None)),
        (422, refusal("token expired"), Unauthorized(TOKEN + "10001: token expired", True)),
        (422, refusal("shop not found"), Misconfigured(STORE + "shop not found", Scope.STORE)),
        (422, refusal("toko tidak aktif"), Rejected("Bukalapak refused: 10001: toko tidak aktif")),
        (
            422,
            refusal("stock cannot be less than 3, reserved for a promotion"),
            Floor(3, RESERVED + "stock cannot be less than 3, reserved for a promotion"),
        ),
        (
            422,
            refusal("2 units are already booked: stock too low"),
            Floor(2, RESERVED + "2 units are already booked: stock too low"),
        ),
        (
            422,
            refusal("stok tidak boleh kurang dari 4, sudah dipesan"),
            Floor(4, RESERVED + "stok tidak boleh kurang dari 4, sudah dipesan"),
        ),
        (422, refusal("reserved stock is 5: at least 6"), Deferred(None, RESERVED + "reserved stock is 5: at least 6")),
        (422, refusal("stock is reserved"), Deferred(None, RESERVED + "stock is reserved")),
        (
            422,
            refusal("stock cannot be less than 0 reserved"),
            Deferred(None, RESERVED + "stock cannot be less than 0 reserved"),
        ),
        (
            422,
            refusal("price of reserved stock at least 1000"),
            Deferred(None, RESERVED + "price of reserved stock at least 1000"),
        ),
        (422, refusal("stock must be at least 3"), Rejected("Bukalapak refused: 10001: stock must be at least 3")),
        (422, refusal("in a promotion"), Deferred(None, "Locked for now: 10001: in a promotion")),
        (422, refusal("toko sedang libur"), Deferred(None, "Locked for now: 10001: toko sedang libur")),
        (422, refusal("the store is closed"), Deferred(None, "Locked for now: 10001: the store is closed")),
        (401, refusal("expired", 401), Unauthorized(TOKEN + "10001: expired", True)),
        (401, b"", Unauthorized(TOKEN + "HTTP 401", True)),
        (200, refusal("expired", 401), Unauthorized(TOKEN + "10001: expired", True)),
        (403, b"<html>", Misconfigured(FORBIDDEN + "HTTP 403", Scope.STORE)),
        (403, refusal("no such scope", 403), Misconfigured(FORBIDDEN + "10001: no such scope", Scope.STORE)),
        (
            403,
            refusal("this product is not yours", 403),
            Rejected("Bukalapak says that the item is another shop's: 10001: this product is not yours"),
        ),
        (403, refusal("Produk diblokir", 403), Rejected(UNKNOWN + "Produk diblokir")),
        (403, refusal("Product is banned", 403), Rejected(UNKNOWN + "Product is banned")),
        (
            403,
            refusal("You are not allowed to edit this product", 403),
            Rejected("Bukalapak forbids this item: 10001: You are not allowed to edit this product"),
        ),
        (
            403,
            refusal("Produk sedang promo, stok terkunci", 403),
            Deferred(None, "Locked for now: 10001: Produk sedang promo, stok terkunci"),
        ),
        (403, refusal("Too many requests", 403), Throttled(None)),
        (
            403,
            refusal("the scope does not allow editing a product", 403),
            Misconfigured(FORBIDDEN + "10001: the scope does not allow editing a product", Scope.STORE),
        ),
        (401, refusal("token not found", 401), Unauthorized(TOKEN + "10001: token not found", True)),
        (
            422,
            refusal("Unauthorized to edit this product"),
            Rejected("Bukalapak refused: 10001: Unauthorized to edit this product"),
        ),
        (422, refusal("Unauthorized"), Unauthorized(TOKEN + "10001: Unauthorized", True)),
        (
            422,
            refusal("product of an inactive shop, shop not found"),
            Rejected(UNKNOWN + "product of an inactive shop, shop not found"),
        ),
        (301, b"", Misconfigured("Bukalapak redirects elsewhere: HTTP 301", Scope.STORE)),
        (302, b"", Unavailable("Bukalapak redirects for now, is base_url right? HTTP 302")),
        (303, b"", InDoubt("Bukalapak redirects for its answer: HTTP 303")),
        (307, b"", Unavailable("Bukalapak redirects for now, is base_url right? HTTP 307")),
        (404, b"<html>", Rejected("Bukalapak has no such address (item unknown, or base_url wrong): HTTP 404")),
        (413, b"", Rejected("Bukalapak finds the request too large: HTTP 413")),
        (415, b"", Rejected("Bukalapak does not take this content type: HTTP 415")),
        (429, b"", Throttled(None)),
        (200, refusal("slow", 429), Throttled(None)),
        (408, refusal("not found", 408), InDoubt("Bukalapak gave up waiting: 10001: not found")),
        (500, OK, InDoubt("Bukalapak failed: HTTP 500")),
        (200, refusal("oops", 502), InDoubt("Bukalapak failed: 10001: oops")),
        (503, refusal("sku not found", 503), InDoubt("Bukalapak failed: 10001: sku not found")),
        (418, refusal("teapot", 418), InDoubt("Bukalapak answered strangely: 10001: teapot")),
        (204, b"", InDoubt("Bukalapak's answer cannot be read: HTTP 204")),
        (400, b"<html>", InDoubt("Bukalapak's answer cannot be read: HTTP 400")),
        (200, b"<html>", InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (200, b"", InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (200, b"{}", InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (200, b'{"data": {"stock": 5}}', InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (200, b'{"data": {}, "meta": {"http_status": "200"}}', InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (200, OK[:-1], InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (200, b"[" * 100_000, InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (101, b"", InDoubt("Bukalapak's answer cannot be read: HTTP 101")),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, outcome: Outcome) -> None:
    assert classify(status, wire.envelope(body), None) == outcome


def test_a_refusal_at_the_door_that_will_pass_does_not_stop_the_store() -> None:
    assert classify(403, None, 9.0) == Throttled(9.0)
    assert classify(403, wire.envelope(refusal("no", 403)), 9.0) == Throttled(9.0)


@pytest.mark.parametrize(
    ("data", "units"),
    [
        ({"stock": 99}, 99),
        ({"id": 123, "stock": 99}, 99),
        ({"id": "abc", "stock": 99, "variants": [{"id": 123, "stock": 4}]}, 4),
        ({"stock": 5}, None),
        ({"id": "abc", "stock": 99}, None),
        ({"id": "abc", "stock": 99, "variants": [{"id": 124, "stock": 4}]}, None),
        ({"id": 123, "stock": "99"}, None),
        ({}, None),
    ],
)
async def test_a_success_that_shows_another_quantity_is_in_doubt(data: object, units: int | None) -> None:
    store, _ = session(shown(data))
    outcome = (await store.push([Push(1, LISTING, 5)])).rows[0].outcome
    contradicted = InDoubt(f"Bukalapak's answer contradicts what was sent: {units} instead of 5")
    assert outcome == (Accepted() if units is None else contradicted)


async def test_a_throttle_keeps_its_length_and_an_unavailable_server_is_in_doubt_all_the_same() -> None:
    throttled, _ = session(answer(429, b"", 60.0))
    failing, _ = session(answer(503, b"", 60.0))
    assert (await throttled.push([Push(1, LISTING, 1)])).rows[0].outcome == Throttled(60.0)
    assert (await failing.push([Push(1, LISTING, 1)])).rows[0].outcome == InDoubt("Bukalapak failed: HTTP 503")


async def test_surely_not_sent_is_unavailable_and_no_answer_is_in_doubt() -> None:
    unsent, _ = session(NotSent("refused", NOW, 1.0))
    unanswered, _ = session(NoAnswer("reset", NOW, 1.0))
    assert (await unsent.push([Push(1, LISTING, 1)])).rows[0].outcome == Unavailable("refused")
    attempt = await unanswered.push([Push(1, LISTING, 1)])
    assert attempt.rows[0].outcome == InDoubt("reset")
    assert (attempt.calls[0].status, attempt.calls[0].response) == (0, "")


async def test_a_server_that_echoes_our_secrets_does_not_get_them_kept() -> None:
    store, _ = session(answer(422, refusal(f"{ACCESS} {REFRESH} client-secret-0123456789")))
    attempt = await store.push([Push(1, LISTING, 1)])
    assert attempt.rows[0].outcome == Rejected("Bukalapak refused: 10001: *** *** ***")
    assert attempt.rows[0].answer == refusal("*** *** ***").decode()
    assert attempt.calls[0].response == attempt.rows[0].answer


async def test_the_marketplaces_words_are_one_line_of_bounded_length() -> None:
    store, _ = session(answer(422, refusal("a\nb\x1b[31m\u2028" + "x" * 5000, 422, "E\0")))
    outcome = (await store.push([Push(1, LISTING, 1)])).rows[0].outcome
    assert isinstance(outcome, Rejected)
    assert outcome.message.startswith("Bukalapak refused: E: a b [31m xxx")
    assert len(outcome.message) < 600


# --- Checking and reading ---


@pytest.mark.parametrize(
    ("exchange", "outcome"),
    [
        (answer(200, b'{"data": [], "meta": {"http_status": 200}}'), Accepted()),
        (answer(422, refusal("the store is on holiday")), Accepted()),
        (answer(404, refusal("not found", 404)), Misconfigured(UNKNOWN + "not found", Scope.STORE)),
        (
            answer(404, b"<html>"),
            Misconfigured("Bukalapak has no such address (item unknown, or base_url wrong): HTTP 404", Scope.STORE),
        ),
        (answer(401, b""), Unauthorized(TOKEN + "HTTP 401", True)),
        (answer(403, b""), Misconfigured(FORBIDDEN + "HTTP 403", Scope.STORE)),
        (answer(429, b"", 3.0), Throttled(3.0)),
        (answer(200, b"<html>"), InDoubt("Bukalapak's answer cannot be read: HTTP 200")),
        (NotSent("refused", NOW, 1.0), Unavailable("refused")),
    ],
)
async def test_a_check_asks_for_the_stores_first_product(exchange: Exchange, outcome: Outcome) -> None:
    store, transport = session(exchange)
    assert await store.check() == outcome
    ((method, url, headers, body, _),) = transport.requests
    assert (method, url, body) == ("GET", "https://api.bukalapak.com/stores/me/products?limit=1&offset=0", None)
    assert "Content-Type" not in headers


def shown(data: object) -> Answer:
    return answer(200, json.dumps({"data": data, "meta": {"http_status": 200}}).encode())


@pytest.mark.parametrize(
    ("data", "quantity"),
    [
        ({"variants": [{"id": 123, "stock": 5}]}, 5),
        ({"id": "abc", "stock": 9, "variants": [{"id": 124, "stock": 4}, {"id": "123", "stock": 5}]}, 5),
        ({"variants": [{"id": 123, "stock": 0}]}, 0),
        ({"id": "abc", "stock": 6, "variants": []}, 6),
        ({"stock": 6, "variants": []}, 6),
        ({"id": "abc", "stock": 6, "variants": None}, None),
        ({"stock": 7}, None),
        ({"id": "xyz", "stock": 7}, None),
        ({"stock": 7, "variants": [{"id": 124, "stock": 7}]}, None),
        ({"stock": 7, "variants": [{"id": 123}]}, None),
        ({"variants": [{"id": 123, "stock": "5"}]}, None),
        ({"variants": [{"id": 123, "stock": True}]}, None),
        ({"stock": -1}, None),
        ({"stock": 1e300}, None),
        ({}, None),
        ([], None),
        ("abc", None),
    ],
)
async def test_a_quantity_is_read_where_it_is_assumed_to_be(data: object, quantity: int | None) -> None:
    store, _ = session(shown(data))
    unreadable = Rejected("Bukalapak shows no stock of this SKU that can be read")
    reading = await store.read([Push(1, LISTING, 9)])
    assert reading.rows == (ReadRow(1, unreadable if quantity is None else Observed(quantity)),)


async def test_a_products_own_stock_is_not_given_to_several_skus() -> None:
    unreadable = Rejected("Bukalapak shows no stock of this SKU that can be read")
    for data in ({"id": "abc", "stock": 50}, {"id": "abc", "stock": 50, "variants": []}):
        store, transport = session(shown(data))
        reading = await store.read([Push(1, LISTING, 5), Push(2, "abc/124", 45)])
        assert reading.rows == (ReadRow(1, unreadable), ReadRow(2, unreadable))
        assert len(transport.requests) == 1


async def test_a_read_is_one_get_and_its_call_is_kept() -> None:
    store, transport = session(shown({"stock": 5}))
    (call,) = (await store.read([Push(1, LISTING, 9)])).calls
    ((method, url, _, sent, _),) = transport.requests
    assert (method, url, sent) == ("GET", "https://api.bukalapak.com/products/abc", None)
    assert (call.method, call.url, call.request, call.status) == ("GET", url, "", 200)


@pytest.mark.parametrize(
    ("exchange", "seen", "calls"),
    [
        (answer(429, b"", 3.0), Throttled(3.0), 1),
        (answer(401, b""), Unauthorized(TOKEN + "HTTP 401", True), 1),
        (answer(403, b""), Misconfigured(FORBIDDEN + "HTTP 403", Scope.STORE), 1),
        (NotSent("refused", NOW, 1.0), Unavailable("refused"), 1),
        (NoAnswer("reset", NOW, 1.0), Unavailable("reset"), 1),
        (answer(500, b""), Unavailable("Bukalapak failed: HTTP 500"), 1),
        (answer(200, b"<html>"), Unavailable("Bukalapak's answer cannot be read: HTTP 200"), 1),
        (answer(404, refusal("not found", 404)), Rejected(UNKNOWN + "not found"), 2),
        (answer(422, refusal("promo")), Deferred(None, "Locked for now: 10001: promo"), 2),
    ],
)
async def test_a_read_that_fails_for_the_whole_store_makes_no_further_call(
    exchange: Exchange, seen: Outcome, calls: int
) -> None:
    store, transport = session(exchange)
    reading = await store.read([Push(1, LISTING, 9), Push(2, "xyz/1", 9)])
    assert reading.rows == (ReadRow(1, seen), ReadRow(2, seen))
    assert (len(reading.calls), len(transport.requests)) == (calls, calls)


async def test_ids_that_cannot_be_are_not_read_while_the_others_are() -> None:
    store, transport = session(shown({"stock": 5, "variants": []}))
    reading = await store.read([Push(1, LISTING, 9), Push(2, "not one", 9), Push(3, "xyz/1", 9)])
    assert [row.listing_id for row in reading.rows] == [1, 2, 3]
    assert (reading.rows[0].seen, reading.rows[2].seen) == (Observed(5), Observed(5))
    assert isinstance(reading.rows[1].seen, Rejected)
    assert len(transport.requests) == 2


# --- Ids, credentials and the manifest ---


def test_ids_become_one_text_however_they_are_written() -> None:
    channel = BukalapakChannel()
    assert channel.remote_variant("abc/123") == LISTING
    assert channel.remote_variant('{"sku_id":"123","product_id":"abc"}') == LISTING
    assert (channel.batch_key(LISTING), channel.read_key(LISTING)) == (LISTING, "abc")
    assert (channel.batch_key("not one"), channel.read_key("not one")) == ("not one", "not one")


def test_a_stores_account_is_its_shop() -> None:
    assert BukalapakChannel().account(CREDENTIALS) == "4017"


def test_an_application_serves_many_stores_and_has_all_but_what_is_the_stores() -> None:
    manifest = BukalapakChannel.manifest
    assert manifest.has_applications
    assert manifest.authorizes
    assert manifest.closed
    assert {field.name for field in manifest.credentials if not field.application} == {
        "shop_id",
        "send_state",
        "call_timeout_seconds",
        "quiesce_seconds",
        "calls_per_second",
    }
    store, _ = session(answer(200, OK))
    assert isinstance(store, RotatesTokens)
    assert isinstance(store, Authorizes)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"secret": "x"}, ["secret"]),
        ({"user_agent": "line\r\nX-Evil: 1"}, ["user_agent", "user_agent"]),
        ({"user_agent": "Hub \u00e9"}, ["user_agent"]),
        ({"shop_id": " "}, ["shop_id"]),
        ({"send_state": "true"}, ["send_state"]),
        ({"accounts_url": "http://169.254.169.254/latest"}, ["accounts_url"]),
        ({"accounts_url": "https://accounts.example.test"}, ["accounts_url"]),
        ({"accounts_url": "http://accounts.bukalapak.com"}, ["accounts_url"]),
        ({"accounts_url": "http://[::1/"}, ["accounts_url"]),
        ({"base_url": "http://10.0.0.5", "accounts_url": "v2"}, ["base_url", "accounts_url"]),
        ({"call_timeout_seconds": "21"}, ["call_timeout_seconds"]),
        ({"calls_per_second": "fast"}, ["calls_per_second"]),
        ({"quiesce_seconds": "-1"}, ["quiesce_seconds"]),
    ],
)
def test_every_field_that_cannot_be_right_is_named_and_its_value_is_not(
    changes: dict[str, str], fields: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_credentials({**CREDENTIALS, **changes})
    assert [problem.field for problem in raised.value.problems] == fields
    assert "Evil" not in str(raised.value)
    assert CREDENTIALS["client_secret"] not in str(raised.value)


def test_secrets_are_not_in_the_repr_of_the_credentials() -> None:
    assert "0123456789" not in repr(read_credentials(CREDENTIALS))


def test_the_readme_names_every_field() -> None:
    readme = (Path(lumbung.channels.bukalapak.__file__).parent / "README.md").read_text()
    for field in BukalapakChannel.manifest.credentials:
        assert f"`{field.name}`" in readme, field.name


# --- Anything at all ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
refusals = st.lists(
    st.fixed_dictionaries({}, optional={"code": st.integers() | json_values, "message": st.text() | json_values}),
    max_size=3,
)
products = st.fixed_dictionaries(
    {},
    optional={
        "id": st.just("abc") | json_values,
        "stock": st.integers(-1, 9) | json_values,
        "variants": st.lists(
            st.fixed_dictionaries({"id": st.just(123) | json_values, "stock": st.integers(-1, 9) | json_values}),
            max_size=2,
        )
        | json_values,
    },
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "data": products | json_values,
        "errors": refusals | json_values,
        "meta": st.fixed_dictionaries({"http_status": st.sampled_from([200, 401, 404, 429, 500]) | json_values})
        | json_values,
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
    attempt = asyncio.run(store.push([Push(7, LISTING, 5)]))
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
        assert row.outcome.message.startswith("Bukalapak redirects for now, is base_url right? ")
    assert "\0" not in call.response
    call.response.encode()
    if row.answer:
        json.loads(row.answer)


@given(exchanges)
def test_whatever_a_server_answers_reading_and_checking_do_not_raise(exchange: Exchange) -> None:
    store, _ = session(exchange)
    reading = asyncio.run(store.read([Push(7, LISTING, 5)]))
    (row,) = reading.rows
    assert (row.listing_id, len(reading.calls)) == (7, 1)
    assert not isinstance(row.seen, Accepted | InDoubt)
    assert not isinstance(row.seen, Observed) or row.seen.quantity >= 0
    asyncio.run(store.check())


@given(st.text() | json_values.map(json.dumps))
def test_any_text_is_either_canonical_ids_or_a_bad_request(text: str) -> None:
    channel = BukalapakChannel()
    try:
        canonical = channel.remote_variant(text)
    except BadRequest:
        return
    assert channel.remote_variant(canonical) == canonical
