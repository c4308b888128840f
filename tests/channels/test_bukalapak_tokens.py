"""Bukalapak's login: what is sent, what answers mean, that no token is kept, and all of it against the sandbox."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from html import unescape
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.base import (
    Accepted,
    InDoubt,
    Push,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.bukalapak.channel import BukalapakChannel, BukalapakSession
from lumbung.channels.http import Answer, Exchange, HttpClient, NoAnswer, NotSent
from lumbung.clock import SystemClock
from lumbung.errors import BadRequest
from lumbung.sandbox.server import Sandbox

from .test_bukalapak import ACCESS, CREDENTIALS, NOW, REFRESH, SETTINGS, TOKENS, USER_AGENT, answer, exchanges, session

REDIRECT = "https://hub.example.test/bukalapak"
NEW_ACCESS, NEW_REFRESH = "new-access-0123456789", "new-refresh-0123456789"
GRANTED: Mapping[str, object] = {
    "access_token": NEW_ACCESS,
    "token_type": "bearer",
    "expires_in": 7200,
    "refresh_token": NEW_REFRESH,
    "scope": "public user store",
    "created_at": 1714979289,
}


def granted(**changes: object) -> Answer:
    return answer(
        200, json.dumps({name: value for name, value in {**GRANTED, **changes}.items() if value != ""}).encode()
    )


def refused(error: object, status: int = 400, description: str = "no") -> Answer:
    return answer(status, json.dumps({"error": error, "error_description": description}).encode())


# --- The link and the code ---


def test_the_link_is_the_documented_one_and_carries_the_store_there_and_back() -> None:
    store, transport = session(granted())
    link = store.authorization_url(f"{REDIRECT}?a=b&c=d")
    assert urlsplit(link)[:3] == ("https", "accounts.bukalapak.com", "/oauth/authorize")
    assert dict(parse_qsl(urlsplit(link).query, strict_parsing=True)) == {
        "client_id": "client-1",
        "redirect_uri": f"{REDIRECT}?a=b&c=d",
        "response_type": "code",
        "scope": "public user store",
        "state": "4017",
    }
    assert "scope=public%20user%20store" in link
    assert transport.requests == []


@pytest.mark.parametrize(
    ("redirected", "fields"),
    [
        ("code-1", {"code": "code-1"}),
        ("  code-1\n", {"code": "code-1"}),
        (f"{REDIRECT}?code=code-1&state=4017", {"code": "code-1", "redirect_uri": REDIRECT}),
        (f"{REDIRECT}?code=code-1", {"code": "code-1", "redirect_uri": REDIRECT}),
        (f"{REDIRECT}?a=b&code=code-1&c=&state=4017#x", {"code": "code-1", "redirect_uri": f"{REDIRECT}?a=b&c="}),
    ],
)
async def test_a_code_is_traded_with_the_address_that_it_came_with(redirected: str, fields: Mapping[str, str]) -> None:
    store, transport = session(granted(), call_timeout_seconds="3")
    refreshed = await store.authorize(redirected)
    ((method, url, headers, body, timeout_seconds),) = transport.requests
    assert (method, url, timeout_seconds) == ("POST", "https://accounts.bukalapak.com/oauth/token", 3.0)
    assert headers == {
        "User-Agent": USER_AGENT,
        "Accept": "application/json",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    assert body is not None
    assert dict(parse_qsl(body.decode(), strict_parsing=True, keep_blank_values=True)) == {
        "grant_type": "authorization_code",
        "client_id": "client-1",
        "client_secret": "client-secret-0123456789",
        **fields,
    }
    assert refreshed.result == Tokens(NEW_ACCESS, NEW_REFRESH, NOW, NOW + timedelta(seconds=7200))


@pytest.mark.parametrize(
    ("redirected", "what"),
    [
        ("", "holds no code"),
        ("two words", "holds no code"),
        (REDIRECT, "holds no code"),
        (f"{REDIRECT}?code=", "holds no code"),
        (f"{REDIRECT}?state=4017", "holds no code"),
        (f"{REDIRECT}?error=access_denied&state=4017", "Bukalapak says access_denied"),
        (f"{REDIRECT}?code=code-1&state=4018", "another store"),
        ("https://[::1/?code=code-1", "is not an address"),
        ("x" * 4097, "longer than 4096"),
    ],
)
async def test_what_holds_no_code_of_this_store_is_refused_without_a_call(redirected: str, what: str) -> None:
    store, transport = session(granted())
    with pytest.raises(BadRequest, match=what) as raised:
        await store.authorize(redirected)
    assert [problem.field for problem in raised.value.problems] == ["redirected"]
    assert transport.requests == []


# --- Refreshing ---


async def test_a_refresh_sends_the_old_refresh_token_once() -> None:
    store, transport = session(granted())
    assert (await store.refresh(TOKENS)).result == Tokens(NEW_ACCESS, NEW_REFRESH, NOW, NOW + timedelta(seconds=7200))
    ((_, _, _, body, _),) = transport.requests
    assert body is not None
    assert dict(parse_qsl(body.decode(), strict_parsing=True)) == {
        "grant_type": "refresh_token",
        "refresh_token": REFRESH,
        "client_id": "client-1",
        "client_secret": "client-secret-0123456789",
    }


async def test_without_a_new_refresh_token_the_old_one_stays() -> None:
    for body in (granted(refresh_token=""), granted(refresh_token=None)):
        store, _ = session(body)
        result = (await store.refresh(TOKENS)).result
        assert isinstance(result, Tokens)
        assert (result.access, result.refresh) == (NEW_ACCESS, REFRESH)


async def test_a_first_pair_without_a_refresh_token_is_none() -> None:
    store, _ = session(granted(refresh_token=""))
    result = (await store.authorize("code-1")).result
    assert isinstance(result, Unauthorized)
    assert "gave no refresh token" in result.message
    assert not result.refreshable


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (60, 60),
        ("60", 60),
        (0.5, 0.5),
        ("", 1800),
        (None, 1800),
        (0, 1800),
        (-5, 1800),
        (1e300, 1800),
        ("soon", 1800),
        ("nan", 1800),
        (True, 1800),
        ({}, 1800),
        ([60], 1800),
        (10**400, 1800),
    ],
)
async def test_a_life_that_is_not_told_is_taken_to_be_short(expires_in: object, seconds: float) -> None:
    store, _ = session(granted(expires_in=expires_in))
    result = (await store.refresh(TOKENS)).result
    assert isinstance(result, Tokens)
    assert result.access_expires_at == NOW + timedelta(seconds=seconds)


async def test_a_pair_is_kept_however_long_it_is_and_whatever_stands_beside_it() -> None:
    for exchange, access, refresh in (
        (granted(access_token="e" * 16384), "e" * 16384, NEW_REFRESH),
        (granted(refresh_token=5), NEW_ACCESS, REFRESH),
        (granted(token_type={}, scope=[]), NEW_ACCESS, NEW_REFRESH),
        (answer(200, granted(expires_in=17).body.replace(b"17,", b"1e999,")), NEW_ACCESS, NEW_REFRESH),
    ):
        store, _ = session(exchange)
        result = (await store.refresh(TOKENS)).result
        assert isinstance(result, Tokens)
        assert (result.access, result.refresh) == (access, refresh)


async def test_a_token_without_a_whole_answer_is_kept_out_of_the_record_and_the_outcome() -> None:
    body = {"error": "invalid_grant", "error_description": f"not {NEW_ACCESS}", "x": {"access_token": [NEW_ACCESS]}}
    store, _ = session(answer(400, json.dumps(body).encode()))
    got = await store.refresh(TOKENS)
    assert got.result == Unauthorized(OVER + "invalid_grant: not ***", refreshable=False)
    assert json.loads(got.calls[0].response) == {
        "error": "invalid_grant",
        "error_description": "not ***",
        "x": "***",
    }


OVER = "The authorisation is over or was used before, so the merchant must agree again: "
KEYS = "Bukalapak does not accept client_id or client_secret: "
NOT_THIS = "Bukalapak does not let this application (client_id) do that: "
NOT_ACCEPTED = "Bukalapak does not accept the application (check client_id, client_secret and user_agent): "
UNCLEAR = "Bukalapak's login did not answer clearly: "


@pytest.mark.parametrize(
    ("exchange", "result"),
    [
        (refused("invalid_grant"), Unauthorized(OVER + "invalid_grant: no", False)),
        (refused("invalid_grant", 401), Unauthorized(OVER + "invalid_grant: no", False)),
        (refused("invalid_client", 401), Unauthorized(KEYS + "invalid_client: no", False)),
        (refused("unauthorized_client"), Unauthorized(NOT_THIS + "unauthorized_client: no", False)),
        (refused("unsupported_grant_type"), Unauthorized(NOT_THIS + "unsupported_grant_type: no", False)),
        (
            refused("invalid_scope"),
            Unauthorized("Bukalapak does not know the application's scope: invalid_scope: no", False),
        ),
        (refused("access_denied", 403), Unauthorized("The merchant has not agreed: access_denied: no", False)),
        (answer(401, b""), Unauthorized(NOT_ACCEPTED + "HTTP 401", False)),
        (answer(403, b"<html>"), Unauthorized(NOT_ACCEPTED + "HTTP 403", False)),
        (refused("invalid_request"), InDoubt(UNCLEAR + "invalid_request: no")),
        (refused("invalid_grant", 500), InDoubt(UNCLEAR + "invalid_grant: no")),
        (refused("invalid_grant", 200), InDoubt(UNCLEAR + "invalid_grant: no")),
        (refused("invalid_grant", 408), InDoubt(UNCLEAR + "invalid_grant: no")),
        (refused(17), InDoubt(UNCLEAR + "HTTP 400")),
        (answer(429, b"", 9.0), Throttled(9.0)),
        (answer(503, b"", 9.0), InDoubt(UNCLEAR + "HTTP 503")),
        (answer(404, b"<html>"), Unavailable("Bukalapak's login is not there, is accounts_url right? HTTP 404")),
        (refused("nobody_knows", 404), InDoubt(UNCLEAR + "nobody_knows: no")),
        (answer(302, b""), InDoubt(UNCLEAR + "HTTP 302")),
        (answer(200, b"<html>"), InDoubt(UNCLEAR + "HTTP 200")),
        (answer(200, b'{"access_token": ""}'), InDoubt(UNCLEAR + "HTTP 200")),
        (answer(200, b'{"access_token": "line\\r\\nX-Evil: 1"}'), InDoubt(UNCLEAR + "HTTP 200")),
        (answer(200, b"[" * 100_000), InDoubt(UNCLEAR + "HTTP 200")),
        (replace(granted(), status=400), InDoubt(UNCLEAR + "HTTP 400")),
        (NotSent("refused", NOW, 1.0), Unavailable("refused")),
        (NoAnswer("reset", NOW, 1.0), InDoubt("reset")),
    ],
)
async def test_what_an_answer_of_the_login_means(exchange: Exchange, result: object) -> None:
    store, _ = session(exchange)
    refreshed = await store.refresh(TOKENS)
    assert refreshed.result == result
    assert len(refreshed.calls) == 1


# --- No token is kept ---


async def test_nothing_that_is_kept_of_a_trade_holds_a_token_or_the_secret() -> None:
    store, _ = session(granted(id_token="another-secret-0123456789", scope=f"{NEW_ACCESS} {REFRESH}"))
    (call,) = (await store.refresh(TOKENS)).calls
    assert call.request == ("grant_type=refresh_token&refresh_token=***&client_id=client-1&client_secret=***")
    assert json.loads(call.response) == {
        "access_token": "***",
        "token_type": "bearer",
        "expires_in": 7200,
        "refresh_token": "***",
        "scope": "*** ***",
        "created_at": 1714979289,
        "id_token": "***",
    }


async def test_a_code_is_not_kept_either() -> None:
    store, _ = session(refused("invalid_grant", description="code-0123456789 is unknown"))
    (call,) = (await store.authorize("code-0123456789")).calls
    assert "code-0123456789" not in repr(call)
    assert json.loads(call.response) == {"error": "invalid_grant", "error_description": "*** is unknown"}


@pytest.mark.parametrize("body", [granted().body[:-1], b"<html>" + granted().body, b'["' + NEW_ACCESS.encode() + b'"]'])
async def test_an_answer_that_cannot_be_read_is_not_kept_for_it_may_hold_a_token(body: bytes) -> None:
    store, _ = session(answer(200, body))
    refreshed = await store.refresh(TOKENS)
    assert refreshed.calls[0].response == ""
    assert NEW_ACCESS not in repr(refreshed)


async def test_a_pair_does_not_show_itself() -> None:
    store, _ = session(granted())
    refreshed = await store.refresh(TOKENS)
    store.use(TOKENS)
    assert "0123456789" not in repr(refreshed)
    assert "0123456789" not in repr(store)


@given(
    exchanges
    | st.dictionaries(st.sampled_from(sorted(GRANTED)), st.text() | st.none() | st.integers()).map(
        lambda fields: answer(200, json.dumps(fields).encode())
    )
)
def test_whatever_the_login_answers_there_is_a_result_and_text_that_can_be_kept(exchange: Exchange) -> None:
    store, transport = session(exchange)
    refreshed = asyncio.run(store.refresh(TOKENS))
    assert (len(refreshed.calls), len(transport.requests)) == (1, 1)
    if isinstance(refreshed.result, Tokens):
        assert refreshed.result.access
        assert refreshed.result.refresh
        assert refreshed.result.access_expires_at > refreshed.result.issued_at
    if isinstance(refreshed.result, Unavailable):
        assert isinstance(exchange, NotSent) or (isinstance(exchange, Answer) and exchange.status == 404)
    assert not isinstance(exchange, NotSent) or refreshed.result == Unavailable(exchange.message)
    assert "\0" not in refreshed.calls[0].response
    refreshed.calls[0].response.encode()


# --- Against the sandbox ---


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox.start() as sandbox:
        sandbox.put_store("bklp", "4017", dict(SETTINGS))
        yield sandbox


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient(SystemClock()) as client:
        yield client


@pytest.fixture
def store(sandbox: Sandbox, http: HttpClient) -> BukalapakSession:
    addresses = {"base_url": f"{sandbox.url}/bklp/api", "accounts_url": f"{sandbox.url}/bklp/accounts"}
    return BukalapakChannel().open({**CREDENTIALS, **addresses}, http, SystemClock())


async def agree(http: HttpClient, link: str) -> str:
    """The address that the merchant's browser is sent to."""
    page = await http.request("GET", link, headers={}, body=None, timeout_seconds=5)
    assert isinstance(page, Answer), page
    (address,) = re.findall(r'href="([^"]+)"', page.body.decode())
    return unescape(address)


async def pushed(store: BukalapakSession, quantity: int) -> object:
    return (await store.push([Push(1, "abc/123", quantity)])).rows[0].outcome


async def test_a_merchant_agrees_and_the_store_can_be_written_to(
    sandbox: Sandbox, http: HttpClient, store: BukalapakSession
) -> None:
    untouched = {name: value for name, value in SETTINGS.items() if not name.endswith("_token")}
    sandbox.put_store("bklp", "4017", untouched)
    store.use(TOKENS)
    assert isinstance(await pushed(store, 5), Unauthorized)
    address = await agree(http, store.authorization_url(REDIRECT))
    first = (await store.authorize(address)).result
    assert isinstance(first, Tokens)
    store.use(first)
    assert await pushed(store, 5) == Accepted()
    again = (await store.authorize(address)).result
    assert isinstance(again, Unauthorized)
    assert again.message.startswith(OVER)
    assert await pushed(store, 6) == Accepted()
    assert [write.quantity for write in sandbox.ledger.writes.after(0)] == [5, 6]


async def test_an_access_token_that_has_expired_is_traded_once_and_the_old_pair_is_dead(
    sandbox: Sandbox, store: BukalapakSession
) -> None:
    store.use(TOKENS)
    assert await pushed(store, 5) == Accepted()
    sandbox.ledger.clock.ahead_seconds = 7201
    assert await pushed(store, 6) == Unauthorized(
        "Bukalapak does not accept the access token: 10002: the access token has expired", True
    )
    new = (await store.refresh(TOKENS)).result
    assert isinstance(new, Tokens)
    assert new.access_expires_at - new.issued_at == timedelta(seconds=7200)
    assert (await store.refresh(TOKENS)).result == Unauthorized(
        OVER + "invalid_grant: the refresh token is unknown, used, revoked or too old", False
    )
    store.use(new)
    assert await pushed(store, 7) == Accepted()
    assert [write.quantity for write in sandbox.ledger.writes.after(0)] == [5, 7]


async def test_a_merchant_who_withdraws_leaves_two_dead_tokens(
    sandbox: Sandbox, http: HttpClient, store: BukalapakSession
) -> None:
    store.use(TOKENS)
    answered = await http.request(
        "POST", f"{sandbox.url}/_control/stores/bklp/4017/revoke", headers={}, body=None, timeout_seconds=5
    )
    assert isinstance(answered, Answer)
    assert answered.status == 200
    outcome = await pushed(store, 5)
    assert isinstance(outcome, Unauthorized)
    assert outcome.refreshable
    dead = (await store.refresh(TOKENS)).result
    assert isinstance(dead, Unauthorized)
    assert not dead.refreshable
    assert sandbox.ledger.writes.last == 0


async def test_a_wrong_client_secret_is_named(sandbox: Sandbox, http: HttpClient) -> None:
    addresses = {"base_url": f"{sandbox.url}/bklp/api", "accounts_url": f"{sandbox.url}/bklp/accounts"}
    wrong = {**CREDENTIALS, **addresses, "client_secret": "another-secret-0123456789"}
    result = (await BukalapakChannel().open(wrong, http, SystemClock()).refresh(TOKENS)).result
    assert isinstance(result, Unauthorized)
    assert result.message.startswith(KEYS)


async def test_a_login_that_does_not_rotate_keeps_the_old_refresh_token(
    sandbox: Sandbox, store: BukalapakSession
) -> None:
    sandbox.put_store("bklp", "4017", {**SETTINGS, "rotates": False})
    pair: Tokens = TOKENS
    for quantity in (1, 2):
        new = (await store.refresh(pair)).result
        assert isinstance(new, Tokens)
        assert new.refresh == REFRESH
        assert new.access not in {ACCESS, pair.access}
        pair = new
        store.use(pair)
        assert await pushed(store, quantity) == Accepted()


@pytest.mark.parametrize("faults", [{"error_rate": 1}, {"apply_then_5xx_rate": 1}, {"drop_response_rate": 1}])
async def test_a_trade_that_is_not_answered_clearly_is_in_doubt(
    sandbox: Sandbox, store: BukalapakSession, faults: Mapping[str, object]
) -> None:
    sandbox.faults.set("bklp", **faults)
    assert isinstance((await store.refresh(TOKENS)).result, InDoubt)
    assert isinstance((await store.authorize("code-1")).result, InDoubt)


async def test_a_login_that_is_too_busy_says_for_how_long(sandbox: Sandbox, store: BukalapakSession) -> None:
    sandbox.faults.set("bklp", throttle_rate=1, retry_after_s=17)
    assert (await store.refresh(TOKENS)).result == Throttled(17.0)
    sandbox.faults.clear()
    assert isinstance((await store.refresh(TOKENS)).result, Tokens)


def test_the_clock_of_a_pair_is_utc() -> None:
    store, _ = session(granted())
    result = asyncio.run(store.refresh(TOKENS)).result
    assert isinstance(result, Tokens)
    assert isinstance(result.issued_at, datetime)
    assert result.issued_at.utcoffset() == timedelta(0)
