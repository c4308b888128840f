"""Token pairs, codes and the seller's consent of the fake Shopee, on a clock that is moved."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from lumbung.sandbox.server import Sandbox
from lumbung.sandbox.shopee.tokens import Pair, Tokens

from .conftest import Controller
from .shopee_seller import (
    ACCESS_TOKEN_GET,
    OTHER_SHOP,
    PARTNER,
    SHOP,
    STORE,
    TOKEN_GET,
    App,
    no,
)

HOURS = 3_600
DAYS = 86_400
EXPIRED = "invalid_acceess_token"
DEAD = no("error_auth", "Invalid refresh_token.")
NOT_LINKED = no("shop_no_linked", "The shop is not linked to this partner.")
NO_CODE = no("invalid_code", "Invalid code.")
REFRESH_BODY: dict[str, object] = {"partner_id": PARTNER, "shop_id": SHOP, "refresh_token": "refresh-1"}


def ahead(sandbox: Sandbox, seconds: float) -> None:
    sandbox.ledger.clock.ahead_seconds = seconds


async def pair(app: App, refresh_token: str) -> tuple[str, str]:
    """A new pair: access token, refresh token."""
    status, body = await app.refresh(refresh_token)
    assert (status, body["error"]) == (200, "")
    return body["access_token"], body["refresh_token"]


async def code_of(app: App) -> str:
    status, location = await app.agree(shop_id=str(SHOP))
    assert status == 302
    [code] = parse_qs(urlsplit(location).query)["code"]
    return code


async def test_a_refresh_brings_a_new_pair(app: App) -> None:
    status, body = await app.refresh("refresh-1")
    tokens = {body.pop("access_token"), body.pop("refresh_token")}
    assert (status, body) == (
        200,
        {"error": "", "message": "", "expire_in": 14_400, "partner_id": PARTNER, "shop_id": SHOP},
    )
    assert len(tokens | {"access-1", "refresh-1"}) == 4
    assert {len(token) for token in tokens} == {32}


async def test_an_access_token_dies_after_four_hours(sandbox: Sandbox, app: App) -> None:
    ahead(sandbox, 4 * HOURS - 10)
    assert await app.is_let_in("access-1") == ""
    ahead(sandbox, 4 * HOURS)
    assert await app.is_let_in("access-1") == EXPIRED
    assert await app.is_let_in("other-access") == "error_auth"
    access, _ = await pair(app, "refresh-1")
    assert await app.is_let_in(access) == ""


async def test_an_expired_token_changes_nothing(sandbox: Sandbox, app: App) -> None:
    ahead(sandbox, 4 * HOURS)
    assert await app.set((55, 1)) == no(EXPIRED, "Invalid access_token.")
    assert sandbox.ledger.writes.last == 0


async def test_lives_are_settings_of_the_store(sandbox: Sandbox, app: App) -> None:
    sandbox.put_store("shpe", str(SHOP), {**STORE, "access_seconds": 60, "refresh_seconds": 120})
    assert (await app.refresh("refresh-1"))[1]["expire_in"] == 60
    sandbox.put_store("shpe", str(SHOP), {**STORE, "access_seconds": 60, "refresh_seconds": 120})
    ahead(sandbox, 60)
    assert await app.is_let_in("access-1") == EXPIRED
    ahead(sandbox, 120)
    assert (await app.refresh("refresh-1"))[1]["error"] == "refresh_token_expired"


async def test_a_refresh_token_works_once(app: App) -> None:
    access, refresh = await pair(app, "refresh-1")
    assert await app.refresh("refresh-1") == DEAD
    assert await app.is_let_in(access) == ""
    assert (await app.refresh(refresh))[1]["error"] == ""


async def test_the_old_access_token_lives_five_more_minutes(sandbox: Sandbox, app: App) -> None:
    access, _ = await pair(app, "refresh-1")
    ahead(sandbox, 290)
    assert [await app.is_let_in(token) for token in ("access-1", access)] == ["", ""]
    ahead(sandbox, 300)
    assert [await app.is_let_in(token) for token in ("access-1", access)] == [EXPIRED, ""]


async def test_the_grace_ends_with_the_old_tokens_own_life(sandbox: Sandbox, app: App) -> None:
    ahead(sandbox, 4 * HOURS - 60)
    access, _ = await pair(app, "refresh-1")
    assert await app.is_let_in("access-1") == ""
    ahead(sandbox, 4 * HOURS)
    assert [await app.is_let_in(token) for token in ("access-1", access)] == [EXPIRED, ""]


async def test_a_second_refresh_does_not_lengthen_the_grace_of_the_first(sandbox: Sandbox, app: App) -> None:
    second, refresh = await pair(app, "refresh-1")
    ahead(sandbox, 200)
    third, _ = await pair(app, refresh)
    ahead(sandbox, 300)
    assert [await app.is_let_in(token) for token in ("access-1", second, third)] == [EXPIRED, "", ""]


async def test_a_refresh_token_dies_after_thirty_days(sandbox: Sandbox, app: App) -> None:
    ahead(sandbox, 30 * DAYS)
    assert await app.refresh("refresh-1") == no("refresh_token_expired", "The refresh_token has expired.")
    ahead(sandbox, 30 * DAYS - 10)
    _, refresh = await pair(app, "refresh-1")
    ahead(sandbox, 60 * DAYS - 60)
    assert (await app.refresh(refresh))[1]["error"] == ""


async def test_a_refresh_whose_answer_is_lost_kills_the_old_token(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", drop_response_rate=1, path_contains="/auth/", times=1)
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await app.refresh("refresh-1")
    assert await app.refresh("refresh-1") == DEAD
    assert await app.is_let_in("access-1") == ""
    ahead(sandbox, 300)
    assert await app.is_let_in("access-1") == EXPIRED


@pytest.mark.parametrize(
    ("faults", "traded"),
    [
        ({"error_rate": 1}, False),
        ({"throttle_rate": 1}, False),
        ({"quota_calls": 1}, True),
        ({"apply_then_5xx_rate": 1}, True),
        ({"garbage_rate": 1, "seed": 4}, True),
        ({"garbage_rate": 1, "seed": 1}, False),
        ({"timeout_rate": 1, "timeout_ms": 1}, True),
        ({"timeout_rate": 1, "timeout_ms": 20, "late_apply_ms": 10}, True),
        ({"timeout_rate": 1, "timeout_ms": 1, "late_apply_ms": 3_600_000}, False),
        ({"latency_ms": 1}, True),
    ],
)
async def test_a_fault_trades_the_pair_exactly_when_it_applies(
    sandbox: Sandbox, app: App, faults: dict[str, object], traded: bool
) -> None:
    sandbox.faults.set("shpe", **faults)
    async with app.session.post(
        app.mount + ACCESS_TOKEN_GET, params=app.public(ACCESS_TOKEN_GET), json=REFRESH_BODY
    ) as answer:
        await answer.read()
    sandbox.faults.clear()
    assert (await app.refresh("refresh-1"))[1]["error"] == ("error_auth" if traded else "")


def test_a_trade_that_is_applied_late_does_not_undo_a_newer_one() -> None:
    tokens = Tokens(access_seconds=100, refresh_seconds=1_000)
    tokens.give("a0", "r0", 0)
    tokens.refresh("r0", Pair("a1", "r1"), 10)
    tokens.refresh("r0", Pair("a2", "r2"), 5)
    assert [tokens.is_current(token) for token in ("r0", "r1", "r2")] == [False, True, False]
    assert [tokens.is_valid(token, 20) for token in ("a0", "a1", "a2")] == [True, True, False]


def test_a_code_that_is_traded_late_is_traded_once() -> None:
    tokens = Tokens(access_seconds=100, refresh_seconds=1_000)
    tokens.add_code("c", 0)
    tokens.trade_code("c", Pair("a1", "r1"), 10)
    tokens.trade_code("c", Pair("a2", "r2"), 5)
    assert [tokens.is_current(token) for token in ("r1", "r2")] == [True, False]


def test_tokens_that_were_issued_long_ago_are_forgotten() -> None:
    tokens = Tokens(access_seconds=100, refresh_seconds=1_000)
    tokens.give("a0", "r0", 0)
    for n in range(1_000):
        tokens.refresh(f"r{n}", Pair(f"a{n + 1}", f"r{n + 1}"), n)
    assert [tokens.knows(token) for token in ("a0", "a1", "a1000")] == [False, True, True]


async def test_a_seller_who_withdraws_kills_every_token(app: App, control: Controller) -> None:
    code = await code_of(app)
    access, refresh = await pair(app, "refresh-1")
    assert await control("POST", f"/stores/shpe/{SHOP}/revoke") == (200, {"channel": "shpe", "store": str(SHOP)})
    assert [await app.is_let_in(token) for token in ("access-1", access)] == [EXPIRED, EXPIRED]
    assert await app.refresh(refresh) == NOT_LINKED
    assert await app.trade(code) == NO_CODE
    _, body = await app.trade(await code_of(app))
    assert await app.is_let_in(body["access_token"]) == ""
    assert (await app.refresh("other-refresh", shop=OTHER_SHOP))[1]["error"] == ""


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"refresh_token": "wrong"}, "error_auth", "Invalid refresh_token."),
        ({"refresh_token": "\u00e9"}, "error_auth", "Invalid refresh_token."),
        ({"refresh_token": "other-refresh"}, "error_auth", "Invalid refresh_token."),
        ({"shop_id": OTHER_SHOP}, "error_auth", "Invalid refresh_token."),
        ({"shop_id": 3000000}, "error_auth", "Invalid partner_id or shopid."),
        ({"shop_id": 9}, "shop_no_linked", "The shop is not known."),
        ({"partner_id": 7}, "error_param", "Invalid partner_id."),
        ({"partner_id": str(PARTNER)}, "error_param", "Invalid partner_id."),
        ({"shop_id": str(SHOP)}, "error_param", "Wrong parameters, detail: shop_id."),
        ({"refresh_token": ""}, "error_param", "Wrong parameters, detail: refresh_token."),
        ({"refresh_token": None}, "error_param", "Wrong parameters, detail: refresh_token."),
    ],
)
async def test_a_wrong_refresh_is_refused_and_costs_nothing(
    sandbox: Sandbox, app: App, change: dict[str, object], error: str, message: str
) -> None:
    sandbox.put_store("shpe", "3000000", {**STORE, "partner_id": 7, "partner_key": "theirs"})
    query = app.public(ACCESS_TOKEN_GET)
    assert await app.post(ACCESS_TOKEN_GET, {**REFRESH_BODY, **change}, query=query) == no(error, message)
    assert (await app.refresh("refresh-1"))[1]["error"] == ""
    assert (await app.refresh("other-refresh", shop=OTHER_SHOP))[1]["error"] == ""


async def test_a_refresh_needs_the_signature_of_the_application(app: App) -> None:
    for query, error, message in (
        (app.public(ACCESS_TOKEN_GET, key="another"), "error_sign", "Wrong sign."),
        (app.public(TOKEN_GET), "error_sign", "Wrong sign."),
        (app.of_shop(ACCESS_TOKEN_GET), "error_sign", "Wrong sign."),
        (app.public(ACCESS_TOKEN_GET, late_seconds=305), "error_param", "Invalid timestamp"),
        ({}, "error_param", "There is no partner_id in query."),
    ):
        assert await app.post(ACCESS_TOKEN_GET, REFRESH_BODY, query=query) == no(error, message)
    assert (await app.refresh("refresh-1"))[1]["error"] == ""


async def test_a_shop_without_tokens_is_not_linked_until_a_code_is_traded(sandbox: Sandbox, app: App) -> None:
    bare = {name: value for name, value in STORE.items() if name not in {"access_token", "refresh_token"}}
    sandbox.put_store("shpe", str(SHOP), bare)
    assert await app.is_let_in("access-1") == "error_auth"
    assert await app.refresh("refresh-1") == NOT_LINKED
    status, body = await app.trade(await code_of(app))
    assert (status, body["error"], body["expire_in"], body["shop_id"]) == (200, "", 14_400, SHOP)
    assert await app.is_let_in(body["access_token"]) == ""
    assert (await app.refresh(body["refresh_token"]))[1]["error"] == ""


async def test_the_seller_is_sent_back_with_a_code_and_the_shop(app: App) -> None:
    status, location = await app.agree(shop_id=str(SHOP))
    parts = urlsplit(location)
    query = parse_qs(parts.query)
    assert (status, parts.scheme, parts.netloc, parts.path) == (302, "https", "hub.test", "/back")
    assert (query["a"], query["shop_id"], len(query["code"][0])) == (["b"], [str(SHOP)], 32)


async def test_the_only_shop_of_an_application_need_not_be_named(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    sandbox.put_store("shpe", str(SHOP), STORE)
    app = App(session, sandbox.url, sandbox.ledger.clock)
    status, location = await app.agree(redirect="https://hub.test/back")
    assert (status, location.startswith("https://hub.test/back?code=")) == (302, True)


@pytest.mark.parametrize(
    "change",
    [
        {},  # two shops, and none is named
        {"shop_id": "9"},
        {"shop_id": str(SHOP), "redirect": ""},
        {"shop_id": str(SHOP), "redirect": "hub.test"},
        {"shop_id": str(SHOP), "redirect": "https://hub.test/\r\nSet-Cookie: a=b"},
        {"shop_id": str(SHOP), "sign": "0" * 64},
        {"shop_id": str(SHOP), "timestamp": "1"},
    ],
)
async def test_a_wrong_link_leads_nowhere(app: App, change: dict[str, str]) -> None:
    assert await app.agree(**change) == (200, "")


async def test_a_code_works_once_and_for_ten_minutes(sandbox: Sandbox, app: App) -> None:
    first, second = await code_of(app), await code_of(app)
    assert (await app.trade(first))[1]["error"] == ""
    assert await app.trade(first) == NO_CODE
    ahead(sandbox, 600)
    assert await app.trade(second) == NO_CODE
    ahead(sandbox, 590)
    assert (await app.trade(second))[1]["error"] == ""


async def test_a_code_of_another_shop_is_refused(app: App) -> None:
    code = await code_of(app)
    assert await app.trade(code, shop=OTHER_SHOP) == NO_CODE
    assert await app.trade(code, shop=9) == no("invalid_shop_id", "The shop is not known.")
    assert await app.trade("wrong") == NO_CODE
    assert (await app.trade(code))[1]["error"] == ""


async def test_a_new_authorisation_replaces_the_old_pair(sandbox: Sandbox, app: App) -> None:
    _, body = await app.trade(await code_of(app))
    assert await app.refresh("refresh-1") == DEAD
    assert [await app.is_let_in(token) for token in ("access-1", body["access_token"])] == ["", ""]
    ahead(sandbox, 300)
    assert await app.is_let_in("access-1") == EXPIRED


async def test_a_reset_that_keeps_the_stores_issues_their_first_tokens_again(
    sandbox: Sandbox, app: App, control: Controller
) -> None:
    ahead(sandbox, 29 * DAYS)
    code = await code_of(app)
    access, refresh = await pair(app, "refresh-1")
    assert await control("POST", "/reset?keep=stores") == (200, {})
    assert await app.is_let_in("access-1") == ""
    assert await app.is_let_in(access) == "error_auth"
    assert await app.refresh(refresh) == DEAD
    assert await app.trade(code) == NO_CODE
    assert (await app.refresh("refresh-1"))[1]["error"] == ""


async def test_tokens_are_issued_when_the_store_is_set_up(sandbox: Sandbox, app: App) -> None:
    ahead(sandbox, 10 * DAYS)
    sandbox.put_store("shpe", str(SHOP), STORE)
    assert await app.is_let_in("access-1") == ""
    ahead(sandbox, 10 * DAYS + 4 * HOURS)
    assert await app.is_let_in("access-1") == EXPIRED


async def test_shops_of_one_application_have_their_own_tokens(app: App) -> None:
    access, _ = await pair(app, "refresh-1")
    assert (await app.refresh("other-refresh", shop=OTHER_SHOP))[1]["error"] == ""
    assert await app.is_let_in(access) == ""
