"""How a store that its merchant must agree to gets its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from lumbung.channels.base import Tokens
from lumbung.db import stores
from lumbung.dispatch.tokens import digest, unseal
from lumbung.errors import Unavailable

from .conftest import Operator
from .marketplaces import PARTNER_ID, PARTNER_KEY, SHOP_ID, Marketplaces, marketplaces

REDIRECT = "https://shop.example/done"


@pytest.fixture
def market() -> Iterator[Marketplaces]:
    with marketplaces() as running:
        running.add_shop()
        yield running


@pytest.fixture
def shopee(operator: Operator, market: Marketplaces) -> Operator:
    """A Shopee store that nobody has agreed to yet."""
    operator.done("tenant", "add", "Toko")
    key = {"partner_id": str(PARTNER_ID), "partner_key": PARTNER_KEY, "base_url": f"{market.url}/shpe"}
    file = operator.file("app.json", json.dumps(key))
    operator.done("app", "add", "--channel", "shpe", "--name", "App", "--credentials", file)
    file = operator.file("shop.json", json.dumps({"shop_id": SHOP_ID}))
    result = operator("store", "add", "--channel", "shpe", "--name", "Padi", "--credentials", file)
    assert result.err == (
        "The merchant must agree first: `lumbung store authorize 1 --redirect URL`\n"
        "Nothing is written to the marketplace until `lumbung store live 1`\n"
    )
    return operator


def agreed(operator: Operator) -> str:
    """The address that the merchant's browser is sent to after agreeing."""
    link = urlsplit(operator.done("store", "authorize", "Padi", "--redirect", REDIRECT).strip())
    connection = HTTPConnection(link.netloc, timeout=10)
    try:
        connection.request("GET", f"{link.path}?{link.query}")
        answer = connection.getresponse()
        assert answer.status == 302
        location = answer.getheader("Location")
    finally:
        connection.close()
    assert location is not None
    assert location.startswith(f"{REDIRECT}?")
    return location


def stored(operator: Operator) -> Tokens | None:
    [row] = operator.rows("SELECT tokens, tokens_digest, access_expires_at, refresh_expires_at FROM store")
    if row["tokens"] is None:
        return None
    pair = unseal(operator.keyring(), 1, row["tokens"])
    assert row["tokens_digest"] == digest(pair)
    assert (row["access_expires_at"], row["refresh_expires_at"]) == (pair.access_expires_at, pair.refresh_expires_at)
    return pair


def test_a_store_goes_live_once_its_merchant_has_agreed(shopee: Operator) -> None:
    need = "lumbung: Store 'Padi' is not authorised yet: `lumbung store authorize 1 --redirect URL`\n"
    assert shopee.refused("store", "live", "Padi") == need
    doctor = shopee("doctor").out
    assert "not authorised yet" in doctor
    assert "have the merchant agree: `lumbung store authorize 1 --redirect URL`" in doctor

    result = shopee("store", "authorize", "Padi", "--redirected", agreed(shopee))

    assert result.exit == 0, result.err
    assert result.out.startswith("Store 'Padi' is authorised until 20")
    assert result.out.endswith("Z; while it is live its tokens renew themselves\n")
    assert result.err == "Nothing is written to the marketplace until `lumbung store live 1`\n"
    pair = stored(shopee)
    assert pair is not None
    lasts = pair.access_expires_at - datetime.now(UTC)
    assert timedelta(hours=3) < lasts <= timedelta(hours=4)
    assert shopee.done("store", "live", "Padi") == "Store 'Padi' is live\n"
    assert "live, reachable" in shopee("doctor").out
    assert shopee.json("store", "list")[0]["authorised_until"] is not None
    assert ("store.authorize", "store:1", {}) in shopee.audit()
    kept = repr((shopee.contents(), result))
    assert pair.access not in kept
    assert pair.refresh not in kept


def test_a_code_works_once_and_the_pair_stays(shopee: Operator) -> None:
    address = agreed(shopee)
    shopee.done("store", "authorize", "Padi", "--redirected", address)
    before = stored(shopee)

    said = shopee.refused("store", "authorize", "Padi", "--redirected", address)

    assert "Nothing was changed; have the merchant agree with `lumbung store authorize`, from --redirect on" in said
    assert stored(shopee) == before


def test_an_address_of_another_shop_or_without_a_code_is_refused(shopee: Operator, market: Marketplaces) -> None:
    for address in (f"{REDIRECT}?code=abc&shop_id=7", f"{REDIRECT}?error=denied"):
        assert shopee("store", "authorize", "Padi", "--redirected", address).exit == 1
    assert stored(shopee) is None
    assert market.paths() == []


def test_a_marketplace_that_is_away_says_that_the_code_still_stands(shopee: Operator, market: Marketplaces) -> None:
    address = agreed(shopee)
    market.control("PUT", "/faults/shpe", {"throttle_rate": 1})
    said = shopee.refused("store", "authorize", "Padi", "--redirected", address)
    assert "Run this again in a moment: it is still good, a code for a few minutes" in said
    market.control("DELETE", "/faults")
    shopee.done("store", "authorize", "Padi", "--redirected", address)


def test_neither_option_or_both_is_explained(shopee: Operator) -> None:
    explained = (
        "lumbung: Say --redirect URL to get the link, or --redirected with the address that it led to in the end\n"
    )
    assert shopee.refused("store", "authorize", "Padi") == explained
    both = ("--redirect", REDIRECT, "--redirected", "code")
    assert shopee.refused("store", "authorize", "Padi", *both) == explained


@pytest.mark.parametrize("redirect", ["example.com/done", "ftp://a.example/", "https://", "https://a.example/a b"])
def test_a_redirect_that_is_no_address_is_refused(shopee: Operator, redirect: str) -> None:
    said = shopee.refused("store", "authorize", "Padi", "--redirect", redirect)
    assert said == f"lumbung: --redirect {redirect}: must be a whole address, such as https://example.com/done\n"


def test_a_new_authorisation_of_a_paused_store_says_how_to_go_on(shopee: Operator) -> None:
    shopee.execute("UPDATE store SET mode = 'paused', pause_reason = 'Dead token', mode_before_pause = 'live'")
    result = shopee("store", "authorize", "Padi", "--redirected", agreed(shopee))
    assert result.err == "It is still paused (Dead token): `lumbung store resume 1`\n"


@pytest.fixture
def elsewhere(shopee: Operator, market: Marketplaces) -> Operator:
    """Another system holds the tokens of the shop."""
    market.add_shop(access_token="access-of-before", refresh_token="refresh-of-before")
    return shopee


def take_over(operator: Operator, refresh: str = "refresh-of-before") -> tuple[str, ...]:
    return ("store", "tokens", "Padi", operator.file("tokens.json", json.dumps({"refresh_token": refresh})))


def test_tokens_are_taken_over_from_another_system_and_renewed_at_once(elsewhere: Operator) -> None:
    [lease] = elsewhere.rows("SELECT epoch FROM store_lease")

    said = elsewhere.done(*take_over(elsewhere))

    assert said.startswith("Store 'Padi' has new tokens until 20")
    kept = stored(elsewhere)
    assert kept is not None
    assert kept.refresh != "refresh-of-before"
    assert kept.refresh_expires_at is not None
    assert elsewhere.rows("SELECT epoch FROM store_lease") == [{"epoch": lease["epoch"] + 1}]
    assert ("store.tokens", "store:1", {}) in elsewhere.audit()


def test_the_file_of_an_old_pair_does_not_take_the_place_of_a_good_one(elsewhere: Operator) -> None:
    elsewhere.done(*take_over(elsewhere))
    good = stored(elsewhere)

    said = elsewhere.refused(*take_over(elsewhere))

    assert "Nothing was changed" in said
    assert stored(elsewhere) == good


def test_a_pair_that_was_traded_waits_for_a_store_that_is_locked(
    elsewhere: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refresh token is used up: to give up would lose the store."""
    away, put = [Unavailable("away")], stores.put_tokens

    async def sometimes(*given: Any, **more: Any) -> None:
        if away:
            raise away.pop()
        await put(*given, **more)

    monkeypatch.setattr(stores, "put_tokens", sometimes)
    elsewhere.done(*take_over(elsewhere))
    assert away == []
    kept = stored(elsewhere)
    assert kept is not None
    assert kept.refresh != "refresh-of-before"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"access_token": "secret-value"}, "refresh_token is missing"),
        (
            {"refresh_token": "secret-value", "extra": "secret-value"},
            "extra is not known here; the fields are access_token, refresh_token, expires_in, refresh_expires_in",
        ),
    ],
)
def test_a_tokens_file_that_cannot_be_right_is_refused(
    shopee: Operator, content: dict[str, object], message: str
) -> None:
    said = shopee.refused("store", "tokens", "Padi", shopee.file("tokens.json", json.dumps(content)))
    assert said.endswith(f"tokens.json: {message}\n")
    assert "secret-value" not in said


def test_a_channel_that_needs_no_authorisation_says_so(operator: Operator) -> None:
    operator.done("tenant", "add", "Toko")
    file = operator.credentials()
    operator.done("store", "add", "--channel", "blib", "--name", "Main", "--credentials", file)
    said = "lumbung: Blibli needs no authorisation: its credentials file is all it takes\n"
    assert operator.refused("store", "authorize", "Main", "--redirected", "code") == said


def test_a_store_that_needs_an_authorisation_is_not_added_live(shopee: Operator) -> None:
    file = shopee.file("shop.json", json.dumps({"shop_id": "3"}))
    words = ("store", "add", "--channel", "shpe", "--name", "Live", "--credentials", file, "--live")
    said = "Shopee asks the merchant first: add the store without --live, then authorise it"
    assert shopee.refused(*words) == f"lumbung: {said}\n"


def test_another_shops_credentials_need_a_store_of_their_own(shopee: Operator) -> None:
    file = shopee.file("shop.json", json.dumps({"shop_id": "3"}))
    said = f"lumbung: Store 'Padi' is account {SHOP_ID}: add a store of its own for account 3\n"
    assert shopee.refused("store", "credentials", "Padi", "--credentials", file) == said


def test_warehouses_have_locations_all_or_none(shopee: Operator) -> None:
    shopee.done("warehouse", "add", "surabaya")
    mixed = (
        "lumbung: Either each warehouse of a store has a location or none has: write --warehouse NAME=LOCATION for"
        " every one that serves it, in one command\n"
    )
    assert shopee.refused("store", "link", "Padi", "--warehouse", "surabaya=IDS") == mixed
    both = ("--warehouse", "surabaya=IDS", "--warehouse", "default=IDJ")
    assert shopee.done("store", "link", "Padi", *both) == (
        "Warehouse 'surabaya' serves store 'Padi' at IDS\nWarehouse 'default' serves store 'Padi' at IDJ\n"
    )
    assert shopee.json("store", "list")[0]["warehouses"] == {"default": "IDJ", "surabaya": "IDS"}
    assert shopee.refused("store", "link", "Padi", "--warehouse", "surabaya") == mixed


def test_a_dead_authorisation_is_told_with_what_to_do(shopee: Operator, market: Marketplaces) -> None:
    shopee.done("store", "authorize", "Padi", "--redirected", agreed(shopee))
    market.control("POST", f"/stores/shpe/{SHOP_ID}/revoke")
    assert "reachable, its access token has expired" in shopee("doctor").out
    shopee.execute("UPDATE store SET refresh_expires_at = now() - interval '1 day'")
    doctor = shopee("doctor")
    assert "its authorisation has ended (20" in doctor.out
    assert "have the merchant agree: `lumbung store authorize 1 --redirect URL`" in doctor.out
    assert doctor.exit == 1


def test_credentials_that_cannot_be_opened_any_more_are_replaced(shopee: Operator) -> None:
    shopee.execute("UPDATE store SET credentials = '\\x00'")
    assert "use `lumbung store credentials 1`" in shopee("doctor").out
    file = shopee.file("shop.json", json.dumps({"shop_id": SHOP_ID}))
    shopee.done("store", "credentials", "Padi", "--credentials", file)
    shopee.execute("UPDATE channel_app SET credentials = '\\x00'")
    assert "use `lumbung app credentials 1`" in shopee("doctor").out


def test_a_warehouse_that_is_unlinked_with_its_location_can_be_unlinked_again(shopee: Operator) -> None:
    shopee.done("warehouse", "add", "surabaya")
    shopee.done("store", "link", "Padi", "--warehouse", "surabaya=IDS", "--warehouse", "default=IDJ")
    unlink = ("store", "unlink", "Padi", "--warehouse", "surabaya=IDS")
    shopee.done(*unlink)
    shopee.execute("UPDATE store_warehouse SET settled_at = NULL WHERE retired_at IS NOT NULL")
    shopee.done(*unlink)
    said = "lumbung: Warehouse 'surabaya' does not serve store 'Padi'\n"
    assert shopee.refused(*unlink) == said


def test_a_location_is_forgotten_when_the_marketplace_no_longer_has_it(shopee: Operator) -> None:
    shopee.done("warehouse", "add", "surabaya")
    both = ("--warehouse", "surabaya=IDS", "--warehouse", "default=IDJ")
    shopee.done("store", "link", "Padi", *both)
    shopee.done("variant", "import", shopee.file("v.csv", "sku,name\nsku1,One\n"))
    shopee.done("listing", "import", shopee.file("l.csv", "sku,store,remote_variant\nsku1,Padi,12346/55\n"))
    shopee.update("sku1", 5, shpe=5)
    shopee.update("sku1", 3, shpe=3, warehouse="surabaya")
    said = "lumbung: A warehouse serves store 'Padi' at 'IDS': unlink it first\n"
    assert shopee.refused("store", "forget-location", "Padi", "IDS") == said
    shopee.done("store", "unlink", "Padi", "--warehouse", "surabaya")

    said = shopee.done("store", "forget-location", "Padi", "IDS")

    assert said == "Nothing is told to 'IDS' of store 'Padi' any more (1 listings were)\n"
    assert shopee.audit()[-1] == ("store.forget_location", "store:1", {"location": "IDS", "listings": 1})
    said = "lumbung: No listing of store 'Padi' was shown at 'IDS' before\n"
    assert shopee.refused("store", "forget-location", "Padi", "IDS") == said
