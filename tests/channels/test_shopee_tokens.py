"""Shopee: authorisation and tokens: the pair that comes is kept, and stands in nothing that is kept for people."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.base import (
    Authorizes,
    InDoubt,
    Refreshed,
    RotatesTokens,
    Scope,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.http import Answer, NoAnswer, NotSent
from lumbung.errors import BadRequest

from .shopee_transport import NOW, TOKENS, answer, envelope, push, session, updated

OLD = Tokens("old_access", "old_refresh", NOW, NOW)
PAIR = {
    "access_token": "new_access",
    "refresh_token": "new_refresh",
    "expire_in": 14400,
    "request_id": "r1",
    "error": "",
    "message": "",
}


def new(expires: timedelta = timedelta(hours=4)) -> Tokens:
    return Tokens("new_access", "new_refresh", NOW, NOW + expires, NOW + timedelta(days=30))


def pair(**changes: object) -> bytes:
    return json.dumps(PAIR | changes).encode()


async def refresh(status: int, body: bytes, retry_after_seconds: float | None = None) -> Refreshed:
    store, transport = session(answer(status, body, retry_after_seconds))
    got = await store.refresh(OLD)
    assert len(transport.requests) == 1
    kept = repr(got.calls)
    for secret in ("old_access", "old_refresh", "new_access", "new_refresh", "test_partner_key"):
        assert secret not in kept
    assert transport.query["sign"] not in kept
    return got


def test_the_session_rotates_tokens_and_authorizes() -> None:
    store, _ = session(answer(200, pair()))
    assert isinstance(store, RotatesTokens)
    assert isinstance(store, Authorizes)


# --- Refreshing ---


async def test_a_refresh_is_signed_publicly_and_names_the_shop() -> None:
    store, transport = session(answer(200, pair()))
    got = await store.refresh(OLD)
    ((method, url, headers, _, timeout_seconds),) = transport.requests
    assert (method, urlsplit(url).path, timeout_seconds) == ("POST", "/api/v2/auth/access_token/get", 20.0)
    assert transport.query == {
        "partner_id": "1000001",
        "timestamp": "1700000000",
        "sign": "3f92740945b65af9a4ac9b97bc66d63a6fd66aa81c1c727cd04b17d0a8636775",
    }
    assert transport.sent == {"refresh_token": "old_refresh", "partner_id": 1000001, "shop_id": 2000002}
    assert headers["Content-Type"] == "application/json"
    assert got.result == new()


async def test_the_record_of_a_refresh_tells_all_but_the_tokens() -> None:
    (call,) = (await refresh(200, pair(shop_id=2000002, something="else", warning=None))).calls
    assert call.url == (
        "https://partner.shopeemobile.com/api/v2/auth/access_token/get?partner_id=1000001&timestamp=1700000000&sign=***"
    )
    assert json.loads(call.request) == {"refresh_token": "***", "partner_id": 1000001, "shop_id": 2000002}
    assert json.loads(call.response) == {
        "access_token": "***",
        "refresh_token": "***",
        "expire_in": 14400,
        "request_id": "r1",
        "error": "",
        "message": "",
        "shop_id": 2000002,
        "warning": None,
    }
    assert (call.status, call.started_at, call.duration_ms) == (200, NOW, 12.5)


@pytest.mark.parametrize(
    ("expire_in", "life"),
    [
        (14400, timedelta(hours=4)),
        (13859, timedelta(seconds=13859)),
        (1_700_014_400, timedelta(hours=4)),
        (1_700_000_000, timedelta(hours=4)),
        (1_600_000_000, timedelta(hours=4)),
        (0, timedelta(hours=4)),
        (-5, timedelta(hours=4)),
        (2**70, timedelta(hours=4)),
        (True, timedelta(hours=4)),
        ("soon", timedelta(hours=4)),
        (None, timedelta(hours=4)),
        ({}, timedelta(hours=4)),
        (900_000_000, timedelta(days=30)),
        (3_000_000_000, timedelta(days=30)),
    ],
)
async def test_a_pair_is_kept_however_its_life_is_told(expire_in: object, life: timedelta) -> None:
    assert (await refresh(200, pair(expire_in=expire_in))).result == new(life)


@pytest.mark.parametrize(
    "beside",
    [
        {"error": None},
        {"shop_id": ""},
        {"shop_id": 0},
        {"shop_id": -5},
        {"shop_id": None},
        {"shop_id": "2000002"},
        {"shop_id": "x"},
        {"shop_id": {}},
        {"message": {"a": 1}},
        {"request_id": []},
        {"partner_id": 10**400},
        {"expire_in": "14400"},
    ],
)
async def test_a_pair_is_kept_whatever_stands_beside_it(beside: dict[str, object]) -> None:
    assert (await refresh(200, pair(**beside))).result == new()


async def test_a_pair_without_an_error_is_a_pair() -> None:
    bare = json.dumps({"access_token": "new_access", "refresh_token": "new_refresh"}).encode()
    assert (await refresh(200, bare)).result == new()


async def test_a_life_that_no_number_can_hold_does_not_lose_the_pair() -> None:
    body = pair(expire_in=14400).replace(b"14400", b"1" + b"0" * 5000)
    got = await refresh(200, body)
    assert got.result == new()
    assert "new_" not in repr(got.calls)


@pytest.mark.parametrize(
    "body",
    [
        pair(refresh_token="", message="it was new_access"),
        pair(error="error_auth", message="it was new_access"),
        pair(access_token={"deep": ["new_access"]}, message="it was new_access"),
        pair(access_token=None, response={"access_token": "new_access"}, message="it was new_access"),
    ],
)
async def test_a_token_without_its_pair_is_kept_out_of_the_record_and_the_outcome(body: bytes) -> None:
    got = await refresh(200, body)
    assert isinstance(got.result, InDoubt | Unauthorized)
    assert got.result.message.endswith("it was ***")
    assert json.loads(got.calls[0].response)["message"] == "it was ***"
    assert "new_access" not in repr(got)


@pytest.mark.parametrize("status", [200, 201, 403, 429, 500])
async def test_a_pair_is_kept_under_any_status(status: int) -> None:
    assert (await refresh(status, pair())).result == new()


@pytest.mark.parametrize("body", [pair(message="new_access new_refresh"), pair(new_refresh="new_access")])
async def test_new_tokens_are_kept_out_of_the_record_wherever_they_stand(body: bytes) -> None:
    assert (await refresh(200, body)).result == new()


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, pair(shop_id=5), InDoubt("Shopee answered for shop 5, not for 2000002")),
        (200, pair()[:-1], InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, b"", InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, b"<html>", InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, b'["new_access", "new_refresh"]', InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (
            200,
            pair(access_token=""),
            InDoubt("Shopee gives no tokens, and does not plainly say why: HTTP 200, no reason given"),
        ),
        (
            200,
            pair(refresh_token=None),
            InDoubt("Shopee gives no tokens, and does not plainly say why: HTTP 200, no reason given"),
        ),
        (200, envelope(error="error_server"), InDoubt("Shopee is not sure: error_server")),
        (200, envelope(error="error_inner"), InDoubt("Shopee is not sure: error_inner")),
        (500, envelope(error="error_auth"), InDoubt("Shopee failed: error_auth")),
        (502, b"<html>", InDoubt("Shopee failed: HTTP 502")),
        (408, b"", InDoubt("Shopee gave up waiting: HTTP 408")),
        (200, pair(error="error_new"), InDoubt("Shopee gives no tokens, and does not plainly say why: error_new")),
        (
            403,
            envelope(error="Forbidden"),
            Unavailable(
                "Refused before it came to Shopee (is this machine's address in the app's IP whitelist?): Forbidden"
            ),
        ),
        (
            200,
            envelope(error="error_new"),
            InDoubt("Shopee gives no tokens, and does not plainly say why: error_new"),
        ),
        (
            403,
            b"<html>",
            Unavailable(
                "Refused before it came to Shopee (is this machine's address in the app's IP whitelist?): HTTP 403"
            ),
        ),
        (404, b"", Unavailable("There is no such address, is base_url right? HTTP 404")),
        (
            403,
            envelope(error="error_param", message="Invalid timestamp"),
            Unavailable(
                "Shopee does not accept the time of the call, check this machine's clock: "
                "error_param: Invalid timestamp"
            ),
        ),
        (
            200,
            envelope(error="error_rate_limit"),
            Throttled(None, Scope.STORE, "Shopee asks to slow down: error_rate_limit"),
        ),
        (429, b"", Throttled(None, Scope.STORE, "Shopee asks to slow down: HTTP 429")),
        (
            403,
            envelope(error="error_sign", message="Wrong sign."),
            Unauthorized("Shopee does not accept the application: error_sign: Wrong sign.", refreshable=False),
        ),
    ],
)
async def test_what_gives_no_pair(status: int, body: bytes, result: object) -> None:
    assert (await refresh(status, body)).result == result


@pytest.mark.parametrize(
    "code",
    [
        "error_auth",
        "error_param",
        "error_shop_refresh_token",
        "refresh_token_expired",
        "shop_access_expired",
        "shop_no_linked",
        "shop_banned",
        "merchant_access_expired",
        "invalid_code",
        "invalid_shop_id",
        "invalid_main_acount_id",
    ],
)
async def test_a_dead_refresh_token_needs_the_merchant(code: str) -> None:
    message = "Invalid refresh_token."
    got = await refresh(200, envelope(error=code, message=message))
    spoken = f"Shopee gives no tokens for the store: {code}: {message}"
    assert got.result == Unauthorized(spoken, refreshable=False)


async def test_a_refresh_that_was_not_sent_is_unavailable_and_one_without_an_answer_is_in_doubt() -> None:
    unsent, _ = session(NotSent("refused", NOW, 1.0))
    unanswered, _ = session(NoAnswer("reset", NOW, 1.0))
    assert (await unsent.refresh(OLD)).result == Unavailable("refused")
    got = await unanswered.refresh(OLD)
    assert got.result == InDoubt("reset")
    assert (got.calls[0].status, got.calls[0].response) == (0, "")


async def test_an_answer_that_is_no_json_is_not_kept_at_all() -> None:
    (call,) = (await refresh(200, pair()[:-1])).calls
    assert call.response == "(not kept: it may hold tokens)"


async def test_later_calls_are_made_with_the_pair_in_use() -> None:
    store, transport = session(answer(200, updated()), tokens=None)
    store.use(TOKENS)
    store.use(OLD)
    await store.push([push(1, 55)])
    assert transport.query["access_token"] == "old_access"


# --- Authorising ---


async def test_the_merchant_is_sent_to_a_signed_address() -> None:
    store, transport = session(answer(200, pair()), tokens=None)
    parts = urlsplit(store.authorization_url("https://hub.example.test/back?store=7&x=a b"))
    assert (parts.scheme, parts.netloc, parts.path) == (
        "https",
        "partner.shopeemobile.com",
        "/api/v2/shop/auth_partner",
    )
    assert dict(parse_qsl(parts.query, strict_parsing=True)) == {
        "partner_id": "1000001",
        "timestamp": "1700000000",
        # HMAC-SHA256 of 1000001/api/v2/shop/auth_partner1700000000, made with openssl.
        "sign": "b9fa64275dd66e11d4a46fc9afe9154773bc66745f639aa9bed64b9f82bad9c8",
        "redirect": "https://hub.example.test/back?store=7&x=a b",
    }
    assert transport.requests == []


@pytest.mark.parametrize(
    "redirected",
    [
        "https://hub.example.test/back?code=4a5b6c&shop_id=2000002",
        "  https://hub.example.test/back?store=7&code=4a5b6c&shop_id=2000002#x\n",
        "https://hub.example.test/back?code=4a5b6c",
        "?code=4a5b6c&shop_id=2000002",
        "4a5b6c",
    ],
)
async def test_a_code_is_traded_for_the_first_pair(redirected: str) -> None:
    store, transport = session(answer(200, pair(shop_id=2000002)), tokens=None)
    got = await store.authorize(redirected)
    ((method, url, _, _, _),) = transport.requests
    assert (method, urlsplit(url).path) == ("POST", "/api/v2/auth/token/get")
    assert transport.sent == {"code": "4a5b6c", "partner_id": 1000001, "shop_id": 2000002}
    assert set(transport.query) == {"partner_id", "timestamp", "sign"}
    assert got.result == new()
    assert "4a5b6c" not in repr(got.calls)
    assert "new_" not in repr(got.calls)


@pytest.mark.parametrize(
    ("redirected", "words"),
    [
        ("https://hub.example.test/back?code=4a5b6c&shop_id=5", "is of shop 5, but the store is shop 2000002"),
        ("https://hub.example.test/back?code=4a5b6c&shop_id=", "is of shop , but the store is shop 2000002"),
        ("https://hub.example.test/back?code=4a5b6c&main_account_id=9", "main account"),
        ("https://hub.example.test/back?shop_id=2000002", "the whole address"),
        ("https://hub.example.test/back?code=&shop_id=2000002", "the whole address"),
        ("https://hub.example.test/back?code=a&code=b", "the whole address"),
        ("https://hub.example.test/back?code=a%20b", "the whole address"),
        ("https://[", "the whole address"),
        ("", "the whole address"),
        ("two words", "the whole address"),
        ("x" * 4097, "longer than 4096"),
        ("?" + "&".join(["a=b"] * 100), "the whole address"),
    ],
)
async def test_an_address_without_this_stores_code_is_refused_without_a_call(redirected: str, words: str) -> None:
    store, transport = session(answer(200, pair()), tokens=None)
    with pytest.raises(BadRequest, match=words) as raised:
        await store.authorize(redirected)
    assert [problem.field for problem in raised.value.problems] == ["redirected"]
    assert transport.requests == []


async def test_a_code_that_was_used_needs_the_merchant_again() -> None:
    body = envelope(error="invalid_code", message="The code is expired or used or invalid")
    store, _ = session(answer(200, body), tokens=None)
    assert (await store.authorize("4a5b6c")).result == Unauthorized(
        "Shopee gives no tokens for the store: invalid_code: The code is expired or used or invalid", refreshable=False
    )


# --- Anything at all ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
bodies = st.binary() | st.fixed_dictionaries(
    {},
    optional={
        "error": st.sampled_from(["", "error_auth", "error_limit"]) | json_values,
        "message": st.text() | json_values,
        "access_token": st.text() | json_values,
        "refresh_token": st.text() | json_values,
        "expire_in": st.integers() | json_values,
        "shop_id": st.just(2000002) | json_values,
    },
).map(lambda value: json.dumps(value).encode())


@given(st.integers(100, 999), bodies)
def test_whatever_a_server_answers_there_is_a_result_and_a_pair_has_a_life(status: int, body: bytes) -> None:
    store, _ = session(Answer(status, body, {}, NOW, 1.0, None))
    got = asyncio.run(store.refresh(OLD))
    assert len(got.calls) == 1
    assert "\0" not in got.calls[0].response
    got.calls[0].response.encode()
    if isinstance(got.result, Tokens):
        assert NOW < got.result.access_expires_at <= NOW + timedelta(days=30)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6), st.text(), st.booleans())
def test_a_new_token_is_in_nothing_that_is_kept(token: str, noise: str, whole: bool) -> None:
    token = f"{token}~tail"
    body = pair(access_token=token, message=f"{noise}{token}{noise}")
    store, _ = session(Answer(200, body if whole else body[:-1], {}, NOW, 1.0, None))
    got = asyncio.run(store.refresh(OLD))
    assert isinstance(got.result, Tokens) is whole
    assert token not in repr(got)
    assert token not in "".join(json.loads(call.response).get("message") if whole else "" for call in got.calls)


def test_times_are_utc() -> None:
    store, _ = session(answer(200, pair(expire_in=1_700_014_400)))
    got = asyncio.run(store.refresh(OLD)).result
    assert isinstance(got, Tokens)
    assert got.access_expires_at == datetime.fromtimestamp(1_700_014_400, UTC)
    assert got.access_expires_at.tzinfo is UTC
