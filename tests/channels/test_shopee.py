"""Shopee: the contract, golden signatures, how calls are made, ids and credentials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.base import (
    Accepted,
    Authorizes,
    Channel,
    Observed,
    Push,
    Rejected,
    RotatesTokens,
    Session,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.http import Answer, HttpClient
from lumbung.channels.registry import CHANNELS
from lumbung.channels.shopee import signing
from lumbung.channels.shopee.channel import ShopeeChannel, read_credentials
from lumbung.clock import ManualClock
from lumbung.errors import BadRequest, ConfigurationError

from .contract import ChannelContract, Shop
from .shopee_transport import APPLICATION, NOW, STORE, answer, push, session, updated

PARTNER_KEY = "partner-key-0123456789"
ACCESS_TOKEN = "access-token-0123456789"
REFRESH_TOKEN = "refresh-token-0123456789"


class TestShopeeContract(ChannelContract):
    channel: ClassVar[Channel] = CHANNELS["shpe"]
    mount = "/shpe"
    credentials: ClassVar[Mapping[str, str]] = {**APPLICATION, **STORE, "partner_key": PARTNER_KEY}
    wrong_credentials: ClassVar[Mapping[str, str]] = {"partner_key": "another-key-0123456789"}
    sandbox_store = "2000002"
    sandbox_settings: ClassVar[Mapping[str, object]] = {
        "partner_id": 1000001,
        "partner_key": PARTNER_KEY,
        "access_token": ACCESS_TOKEN,
        "refresh_token": REFRESH_TOKEN,
        "listings": [
            {"remote_variant": "12346/55", "sku": "sku1", "quantity": 0},
            {"remote_variant": "12346/56", "sku": "sku2", "quantity": 4},
            {"remote_variant": "777", "sku": "sku3", "quantity": 2},
        ],
    }
    listing = "12346/55"
    unknown_listing = "12346/99"
    bad_listings = (
        "",
        "0",
        "-1",
        "012346",
        "12346/",
        "12346/055",
        "12346/55/1",
        "12346 55",
        "12346/-1",
        "1.5",
        "TOQ-1",
        "١٢٣",
        str(2**63),
        "9" * 100,
        "{",
        "{}",
        "[]",
        '"12346"',
        '{"item_id": 0}',
        '{"item_id": "12346"}',
        '{"item_id": 12346.5}',
        '{"item_id": true}',
        '{"variation_id": 55}',
        '{"item_id": 12346, "variation_id": -1}',
        '{"item_id": 12346, "variation_id": null}',
        '{"item_id": 12346, "variation_id": 55, "model_id": 55}',
        '{"item_id": 12346, "sku": "a"}',
        '{"item_id": 9223372036854775808}',
        '{"x": ' + "[" * 190,
        "\ud800",
        '{"item_id": "\ud800"}',
    )
    expected_of_a_listing = "12346/55"

    def prepare(self, session: Session) -> None:
        assert isinstance(session, RotatesTokens)
        now = datetime.now(UTC)
        session.use(Tokens(ACCESS_TOKEN, REFRESH_TOKEN, now, now + timedelta(hours=4)))

    async def test_several_variations_are_written_by_one_call(self, shop: Shop) -> None:
        pushes = [Push(1, self.variant("12346/55"), 8), Push(2, self.variant("12346/56"), 9)]
        attempt = await shop.session().push(pushes)
        assert [row.outcome for row in attempt.rows] == [Accepted(), Accepted()]
        assert len(attempt.calls) == 1
        assert await shop.shown() == {"12346/55": 8, "12346/56": 9, "777": 2}

    async def test_an_item_without_variations_is_written_and_read(self, shop: Shop) -> None:
        row = await self.push(shop.session(), 6, listing="777")
        assert row.outcome == Accepted()
        assert (await self.read(shop.session(), listing="777")).seen == Observed(6)

    async def test_a_pair_of_tokens_is_traded_for_one_that_works(self, shop: Shop) -> None:
        session = shop.session()
        assert isinstance(session, RotatesTokens)
        now = datetime.now(UTC)
        refreshed = await session.refresh(Tokens(ACCESS_TOKEN, REFRESH_TOKEN, now, now))
        assert isinstance(refreshed.result, Tokens)
        for secret in (ACCESS_TOKEN, REFRESH_TOKEN, refreshed.result.access, refreshed.result.refresh, PARTNER_KEY):
            assert secret not in repr(refreshed.calls)
        session.use(refreshed.result)
        assert await session.check() == Accepted()
        again = await session.refresh(Tokens(ACCESS_TOKEN, REFRESH_TOKEN, now, now))
        assert isinstance(again.result, Unauthorized)

    async def test_a_merchant_who_agrees_gives_a_code_that_works_once(self, shop: Shop, http: HttpClient) -> None:
        session = shop.session()
        assert isinstance(session, Authorizes)
        assert isinstance(session, RotatesTokens)
        url = session.authorization_url("http://127.0.0.1:9/back?x=1")
        agreed = await http.request("GET", url, headers={}, body=None, timeout_seconds=5)
        assert isinstance(agreed, Answer)
        assert agreed.status == 302
        first = await session.authorize(agreed.headers["Location"])
        assert isinstance(first.result, Tokens)
        session.use(first.result)
        assert await session.check() == Accepted()
        assert isinstance((await session.authorize(agreed.headers["Location"])).result, Unauthorized)

    async def test_a_token_that_is_not_known_may_be_refreshed(self, shop: Shop) -> None:
        session = shop.session()
        assert isinstance(session, RotatesTokens)
        now = datetime.now(UTC)
        session.use(Tokens("another-token-0123456789", REFRESH_TOKEN, now, now + timedelta(hours=4)))
        outcome = (await self.push(session, 3)).outcome
        assert isinstance(outcome, Unauthorized)
        assert outcome.refreshable is True
        assert await shop.writes() == []

    async def test_a_clock_that_is_wrong_stops_nothing_for_good(self, shop: Shop, http: HttpClient) -> None:
        late = ManualClock(datetime.now(UTC) - timedelta(minutes=6))
        session = self.channel.open({**self.credentials, "base_url": f"{shop.url}{self.mount}"}, http, late)
        self.prepare(session)
        assert isinstance((await self.push(session, 3)).outcome, Unavailable)
        assert await shop.writes() == []
        late.advance(360)
        assert (await self.push(session, 3)).outcome == Accepted()

    async def test_one_call_tells_of_each_variation(self, shop: Shop) -> None:
        pushes = [Push(1, self.variant("12346/55"), 8), Push(2, self.variant(self.unknown_listing), 9)]
        attempt = await shop.session().push(pushes)
        assert [type(row.outcome) for row in attempt.rows] == [Accepted, Rejected]
        assert attempt.as_a_whole is False
        assert await shop.writes() == [8]


# --- Signatures ---


def test_the_golden_vector_of_a_shops_call() -> None:
    assert signing.sign_shop(
        "test_partner_key",
        partner_id=1000001,
        path="/api/v2/product/update_stock",
        timestamp=1700000000,
        access_token="tok_abc",
        shop_id=2000002,
    ) == ("febd863a962682d014d75ec2c10760de9399b5363c9a1369d9f9413de455c0e5")


def test_the_golden_vector_of_a_public_call() -> None:
    assert signing.sign_public(
        "test_partner_key", partner_id=1000001, path="/api/v2/auth/access_token/get", timestamp=1700000000
    ) == ("3f92740945b65af9a4ac9b97bc66d63a6fd66aa81c1c727cd04b17d0a8636775")


@pytest.mark.parametrize("base_url", ["", "http://127.0.0.1:8700/shpe", "https://openplatform.shopee.cn/"])
async def test_the_signed_path_begins_at_api_whatever_stands_before_it(base_url: str) -> None:
    store, transport = session(answer(200, updated()), base_url=base_url)
    await store.push([push(1, 55)])
    ((method, url, headers, _, timeout_seconds),) = transport.requests
    begin = base_url.rstrip("/") or "https://partner.shopeemobile.com"
    assert url.startswith(f"{begin}/api/v2/product/update_stock?")
    assert transport.query == {
        "partner_id": "1000001",
        "timestamp": "1700000000",
        "access_token": "tok_abc",
        "shop_id": "2000002",
        "sign": "febd863a962682d014d75ec2c10760de9399b5363c9a1369d9f9413de455c0e5",
    }
    assert (method, timeout_seconds) == ("POST", 20.0)
    assert headers == {"Accept": "application/json", "Content-Type": "application/json"}


async def test_a_call_is_kept_without_its_token_and_its_signature() -> None:
    body = updated({"model_id": 55, "stock": 5})
    store, _ = session(answer(200, body), call_timeout_seconds="3")
    (call,) = (await store.push([push(1, 55)])).calls
    assert call.url == (
        "https://partner.shopeemobile.com/api/v2/product/update_stock"
        "?partner_id=1000001&timestamp=1700000000&access_token=***&shop_id=2000002&sign=***"
    )
    assert json.loads(call.request) == {
        "item_id": 12346,
        "stock_list": [{"model_id": 55, "seller_stock": [{"stock": 5}]}],
    }
    assert (call.method, call.status, call.response) == ("POST", 200, body.decode())
    assert (call.started_at, call.duration_ms) == (NOW, 12.5)


async def test_a_token_of_any_characters_is_escaped_in_the_query_and_still_not_kept() -> None:
    store, transport = session(answer(200, updated()))
    store.use(Tokens("a b&c=d/é%x", "refresh_abc", NOW, NOW))
    attempt = await store.push([push(1, 55)])
    assert transport.query["access_token"] == "a b&c=d/é%x"
    assert urlsplit(transport.requests[0][1]).query.count("&") == 4
    assert "&access_token=***&" in attempt.calls[0].url


# --- Ids ---


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("12346", '{"item_id": 12346, "variation_id": 0}'),
        ("12346/55", '{"item_id": 12346, "variation_id": 55}'),
        ("12346/0", '{"item_id": 12346, "variation_id": 0}'),
        ('{"item_id":12346}', '{"item_id": 12346, "variation_id": 0}'),
        ('{"variation_id":55,"item_id":12346}', '{"item_id": 12346, "variation_id": 55}'),
        ('{"item_id":12346,"model_id":55}', '{"item_id": 12346, "variation_id": 55}'),
        ('{"item_id": 12346, "variation_id": 0}', '{"item_id": 12346, "variation_id": 0}'),
        (f"{2**63 - 1}/{2**63 - 1}", f'{{"item_id": {2**63 - 1}, "variation_id": {2**63 - 1}}}'),
    ],
)
def test_ids_become_one_text_however_they_are_written(text: str, canonical: str) -> None:
    assert ShopeeChannel().remote_variant(text) == canonical


def test_variations_of_an_item_share_calls_and_items_without_any_share_reading() -> None:
    channel = ShopeeChannel()
    one, other, plain, far, broken = "12346/55", "12346/56", "12346", "777", "not one"
    assert channel.batch_key(one) == channel.batch_key(other) == channel.batch_key(plain) != channel.batch_key(far)
    assert channel.read_key(one) == channel.read_key(other)
    assert channel.read_key(plain) == channel.read_key(far)
    assert channel.read_key(one) != channel.read_key(plain)
    assert (channel.batch_key(broken), channel.read_key(broken)) == (broken, broken)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ids = st.fixed_dictionaries(
    {"item_id": st.integers(-1, 2**64)},
    optional={"variation_id": st.integers(-1, 2**64) | json_values, "model_id": st.integers() | json_values},
)


@given(st.text() | (json_values | ids).map(json.dumps))
def test_any_text_is_either_canonical_ids_or_a_bad_request(text: str) -> None:
    channel = ShopeeChannel()
    try:
        canonical = channel.remote_variant(text)
    except BadRequest:
        return
    assert channel.remote_variant(canonical) == canonical


# --- Credentials ---


def test_a_stores_account_is_its_shop() -> None:
    assert ShopeeChannel().account({**APPLICATION, **STORE}) == "2000002"


def test_the_application_has_its_own_fields_and_the_store_the_rest() -> None:
    fields = {field.name: field for field in ShopeeChannel().manifest.credentials}
    assert {name for name, field in fields.items() if field.application} == {"partner_id", "partner_key", "base_url"}
    assert {name for name, field in fields.items() if field.secret} == {"partner_key"}
    assert {name for name, field in fields.items() if field.required} == {"partner_id", "partner_key", "shop_id"}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"partner_ids": "1"}, ["partner_ids"]),
        ({"partner_id": "12a"}, ["partner_id"]),
        ({"partner_id": "0"}, ["partner_id"]),
        ({"partner_id": "-5"}, ["partner_id"]),
        ({"shop_id": "٣"}, ["shop_id"]),
        ({"shop_id": "1.0"}, ["shop_id"]),
        ({"shop_id": str(2**63)}, ["shop_id"]),
        ({"shop_id": "9" * 4000}, ["shop_id"]),
        ({"partner_key": " "}, ["partner_key"]),
        ({"call_timeout_seconds": "21"}, ["call_timeout_seconds"]),
        ({"quiesce_seconds": "-1"}, ["quiesce_seconds"]),
        ({"calls_per_second": "fast"}, ["calls_per_second"]),
        ({"shop_id": "x", "base_url": "http://example.test", "partner_id": ""}, ["partner_id", "base_url", "shop_id"]),
    ],
)
def test_every_field_that_cannot_be_right_is_named(changes: dict[str, str], fields: list[str]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read_credentials({**APPLICATION, **STORE, **changes})
    assert [problem.field for problem in raised.value.problems] == fields
    assert APPLICATION["partner_key"] not in str(raised.value)


def test_secrets_are_in_the_repr_of_nothing() -> None:
    credentials = read_credentials({**APPLICATION, **STORE})
    store, _ = session(answer(200, b""))
    assert "test_partner_key" not in f"{credentials!r} {store!r}"
