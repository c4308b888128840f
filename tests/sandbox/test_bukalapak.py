"""What the fake Bukalapak answers: products, tokens that expire and rotate, and trouble in its own shape."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from lumbung.sandbox.server import Sandbox

from .conftest import Controller

USER_AGENT = "Example Hub (Partner)"
STORE: dict[str, object] = {
    "client_id": "client",
    "client_secret": "client-secret",
    "user_agent": USER_AGENT,
    "access_token": "access-1",
    "refresh_token": "refresh-1",
    "access_seconds": 100,
    "refresh_seconds": 1000,
    "listings": [
        {"remote_variant": "abc/123", "sku": "sku1", "quantity": 7},
        {"remote_variant": "abc/x-1", "sku": "sku2", "quantity": 2},
        {"remote_variant": "xyz/1", "sku": "sku3"},
    ],
}
OTHER: dict[str, object] = {**STORE, "access_token": "access-2", "refresh_token": "refresh-2", "listings": []}
REDIRECT = "https://hub.example.test/agreed?a=b"


class Shop:
    """Calls the fake Bukalapak as the fact sheet says, and nothing cleverer."""

    def __init__(self, session: aiohttp.ClientSession, url: str):
        self._session = session
        self.api = f"{url}/bklp/api"
        self.accounts = f"{url}/bklp/accounts"

    def call(
        self,
        method: str,
        path: str,
        json: object = None,
        *,
        token: str = "access-1",
        headers: Mapping[str, str] = {},
        body: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        sent: dict[str, Any] = {"data": body} if body is not None else {} if json is None else {"json": json}
        default = {"User-Agent": USER_AGENT, "Authorization": f"Bearer {token}"}
        return self._session.request(method, self.api + path, headers={**default, **headers}, **sent)

    async def set(self, quantity: object, *, sku: str = "abc/123", token: str = "access-1") -> tuple[int, str]:
        """The status and the words."""
        product_id, _, sku_id = sku.partition("/")
        path = f"/products/{product_id}/skus/{sku_id}"
        async with self.call("PATCH", path, {"stock": quantity}, token=token) as answer:
            body = await answer.json()
            assert body["meta"]["http_status"] == answer.status
            return answer.status, "; ".join(error["message"] for error in body.get("errors", []))

    async def get(self, path: str, *, token: str = "access-1") -> tuple[int, Any]:
        async with self.call("GET", path, token=token) as answer:
            return answer.status, await answer.json()

    async def trade(self, **changes: str) -> tuple[int, dict[str, Any]]:
        form = {
            "grant_type": "refresh_token",
            "client_id": "client",
            "client_secret": "client-secret",
            "refresh_token": "refresh-1",
        }
        fields = {name: value for name, value in (form | changes).items() if value}
        async with self._session.post(f"{self.accounts}/oauth/token", data=fields) as answer:
            return answer.status, await answer.json()

    async def agree(self, **changes: str) -> dict[str, dict[str, str]]:
        """By shop, the query of the address that its merchant is sent to."""
        query = {"client_id": "client", "redirect_uri": REDIRECT, "response_type": "code", "state": "s-1"} | changes
        async with self._session.get(f"{self.accounts}/oauth/authorize", params=query) as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
            links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', await answer.text())
        addresses = {shop: urlsplit(unescape(address)) for address, shop in links}
        assert all(f"{parts.scheme}://{parts.netloc}{parts.path}" in REDIRECT for parts in addresses.values())
        return {shop: dict(parse_qsl(parts.query)) for shop, parts in addresses.items()}


@pytest.fixture
def shop(sandbox: Sandbox, session: aiohttp.ClientSession) -> Shop:
    sandbox.put_store("bklp", "4017", dict(STORE))
    sandbox.put_store("bklp", "4018", dict(OTHER))
    return Shop(session, sandbox.url)


def quantity(sandbox: Sandbox, remote_variant: str = "abc/123") -> int:
    return sandbox.ledger.listing("bklp", "4017", remote_variant).quantity


# --- Products ---


async def test_setting_the_stock_is_answered_and_applied(sandbox: Sandbox, shop: Shop) -> None:
    async with shop.call("PATCH", "/products/abc/skus/123", {"stock": 5}) as answer:
        variant = {"id": 123, "product_id": "abc", "sku_name": "sku1", "stock": 5, "state": "active"}
        assert (answer.status, await answer.json()) == (200, {"data": variant, "meta": {"http_status": 200}})
    assert quantity(sandbox) == 5
    (write,) = sandbox.ledger.writes.after(0)
    assert (write.store, write.remote_variant, write.location, write.quantity) == ("4017", "abc/123", "", 5)


async def test_a_product_shows_its_skus(shop: Shop) -> None:
    assert await shop.get("/products/abc") == (
        200,
        {
            "data": {
                "id": "abc",
                "stock": 9,
                "variants": [
                    {"id": 123, "product_id": "abc", "sku_name": "sku1", "stock": 7, "state": "active"},
                    {"id": "x-1", "product_id": "abc", "sku_name": "sku2", "stock": 2, "state": "active"},
                ],
            },
            "meta": {"http_status": 200},
        },
    )


async def test_products_are_listed_a_page_at_a_time(shop: Shop) -> None:
    async def ids(query: str) -> list[str]:
        _, body = await shop.get(f"/stores/me/products{query}")
        assert body["meta"]["total"] == 2
        return [product["id"] for product in body["data"]]

    assert await ids("") == ["abc", "xyz"]
    assert await ids("?limit=1&offset=0") == ["abc"]
    assert await ids("?limit=1&offset=1") == ["xyz"]
    assert await ids("?limit=1&offset=2") == []
    assert (await shop.get("/stores/me/products?limit=101"))[0] == 400
    assert (await shop.get("/stores/me/products?offset=-1"))[0] == 400


async def test_the_token_may_stand_in_the_query(sandbox: Sandbox, shop: Shop) -> None:
    path = "/products/abc/skus/123?access_token=access-1"
    async with shop.call("PATCH", path, {"stock": 5}, headers={"Authorization": ""}) as answer:
        assert answer.status == 200
    assert quantity(sandbox) == 5


@pytest.mark.parametrize("bad", [-1, 2**31, 1.5, "5", True, None, [], {}])
async def test_an_impossible_stock_is_refused(sandbox: Sandbox, shop: Shop, bad: object) -> None:
    assert await shop.set(bad) == (422, "stock must be a whole number from 0 to 2147483647")
    assert (quantity(sandbox), sandbox.ledger.writes.last) == (7, 0)


@pytest.mark.parametrize("good", [0, 2**31 - 1])
async def test_the_smallest_and_the_largest_stock_are_taken(sandbox: Sandbox, shop: Shop, good: int) -> None:
    assert await shop.set(good) == (200, "")
    assert quantity(sandbox) == good


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"\xff\xfe", 400), (b'{"stock":', 400), (b"[" * 100_000, 400), (b"[]", 422), (b"{}", 422)],
)
async def test_a_body_that_says_no_stock_is_refused(sandbox: Sandbox, shop: Shop, body: bytes, status: int) -> None:
    async with shop.call("PATCH", "/products/abc/skus/123", body=body) as answer:
        assert (answer.status, (await answer.json())["meta"]) == (status, {"http_status": status})
    assert sandbox.ledger.writes.last == 0


async def test_an_unknown_sku_product_or_path_is_answered_404(sandbox: Sandbox, shop: Shop) -> None:
    assert await shop.set(5, sku="abc/999") == (404, "sku abc/999 was not found")
    assert await shop.set(5, sku="ab/c123") == (404, "sku ab/c123 was not found")
    for path in ("/products/nope", "/products", "/", "/products/abc/skus/123", "/products/abc/skus/123/x"):
        assert (await shop.get(path))[0] == 404
    assert sandbox.ledger.writes.last == 0


@pytest.mark.parametrize(
    ("condition", "refusal"),
    [
        ("unknown", (404, "sku abc/123 was not found")),
        ("banned", (422, "the product is banned by a moderator")),
        ("locked", (422, "the stock of a product in a promotion cannot be changed")),
    ],
)
async def test_what_is_the_matter_with_a_listing_is_answered_and_its_sister_is_well(
    sandbox: Sandbox, shop: Shop, control: Controller, condition: str, refusal: tuple[int, str]
) -> None:
    named = {"channel": "bklp", "store": "4017", "remote_variant": "abc/123"}
    await control("PUT", "/listings", {**named, "condition": condition})
    assert await shop.set(5) == refusal
    assert await shop.set(5, sku="abc/x-1") == (200, "")
    _, product = await shop.get("/products/abc")
    hidden = condition != "locked"
    assert [variant["id"] for variant in product["data"]["variants"]] == (["x-1"] if hidden else [123, "x-1"])
    await control("PUT", "/listings", {**named, "condition": ""})
    assert await shop.set(5) == (200, "")
    assert [write.remote_variant for write in sandbox.ledger.writes.after(0)] == ["abc/x-1", "abc/123"]


@pytest.mark.parametrize("name", ["abc/123", "sku1"])
async def test_the_fault_set_may_say_so_too(sandbox: Sandbox, shop: Shop, name: str) -> None:
    sandbox.faults.set("bklp", row_faults={name: "banned"})
    assert await shop.set(5) == (422, "the product is banned by a moderator")
    assert await shop.set(5, sku="abc/x-1") == (200, "")
    assert [call.fault for call in sandbox.ledger.calls.after(0)] == ["row_faults", ""]


async def test_a_store_on_holiday_takes_no_stock_and_shows_what_it_has(
    sandbox: Sandbox, shop: Shop, control: Controller
) -> None:
    await control("PUT", "/stores/bklp/4017/holiday", {"holiday": True})
    assert await shop.set(5) == (422, "the store is on holiday")
    assert (await shop.get("/products/abc"))[1]["data"]["stock"] == 9
    await control("PUT", "/stores/bklp/4017/holiday", {"holiday": False})
    assert await shop.set(5) == (200, "")


async def test_what_is_reserved_for_a_promotion_is_the_least_that_is_taken(
    sandbox: Sandbox, shop: Shop, control: Controller
) -> None:
    named = {"channel": "bklp", "store": "4017", "remote_variant": "abc/123"}
    await control("PUT", "/listings", {**named, "reserved_by_orders": 6, "reserved_by_promotions": 3})
    assert await shop.set(2) == (422, "stock cannot be less than 3, reserved for a promotion")
    assert quantity(sandbox) == 7
    assert await shop.set(3) == (200, "")
    assert quantity(sandbox) == 3


async def test_a_state_is_kept_until_another_one_is_sent(shop: Shop) -> None:
    async def patch(fields: dict[str, object]) -> int:
        async with shop.call("PATCH", "/products/abc/skus/123", fields) as answer:
            return answer.status

    async def state() -> object:
        return (await shop.get("/products/abc"))[1]["data"]["variants"][0]["state"]

    assert await patch({"stock": 1, "state": "inactive"}) == 200
    assert await patch({"stock": 2}) == 200
    assert await state() == "inactive"
    assert await patch({"stock": 3, "state": "gone"}) == 422
    assert await state() == "inactive"
    assert await patch({"stock": 3, "state": "active"}) == 200
    assert await state() == "active"


# --- Who calls ---


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer nobody's"}, 401),
        ({"Authorization": "Bearer refresh-1"}, 401),
        ({"Authorization": "Basic access-1"}, 401),
        ({"Authorization": "Bearer \u00e9"}, 401),
        ({"User-Agent": "Another Hub"}, 403),
        ({"User-Agent": ""}, 403),
    ],
)
async def test_a_stranger_is_stopped_at_the_door(
    sandbox: Sandbox, shop: Shop, headers: Mapping[str, str], status: int
) -> None:
    async with shop.call("PATCH", "/products/abc/skus/123", {"stock": 5}, headers=headers) as answer:
        body = await answer.json()
    assert (answer.status, body["meta"], len(body["errors"])) == (status, {"http_status": status}, 1)
    assert sandbox.ledger.writes.last == 0


async def test_a_token_opens_its_own_shop_only(sandbox: Sandbox, shop: Shop) -> None:
    assert await shop.set(5, token="access-2") == (404, "sku abc/123 was not found")
    assert [call.store for call in sandbox.ledger.calls.after(0)] == ["4018"]
    assert quantity(sandbox) == 7


async def test_an_access_token_ends_by_the_sandboxs_clock(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.ledger.clock.ahead_seconds = 98
    assert await shop.set(5) == (200, "")
    sandbox.ledger.clock.ahead_seconds = 101
    assert await shop.set(6) == (401, "the access token has expired")
    assert quantity(sandbox) == 5


# --- Trading tokens ---


async def test_a_refresh_token_works_once_and_the_old_access_token_is_dead(sandbox: Sandbox, shop: Shop) -> None:
    status, pair = await shop.trade()
    assert (status, pair["token_type"], pair["expires_in"]) == (200, "bearer", 100)
    assert await shop.set(5) == (401, "the access token is invalid")
    assert await shop.set(6, token=pair["access_token"]) == (200, "")
    assert (await shop.trade())[1]["error"] == "invalid_grant"
    assert (await shop.trade(refresh_token=pair["refresh_token"]))[0] == 200
    assert [call.store for call in sandbox.ledger.calls.after(0)] == ["4017", "4017", "4017", "", "4017"]
    assert quantity(sandbox) == 6


async def test_a_refresh_token_that_does_not_rotate_goes_on_working(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.put_store("bklp", "4017", {**STORE, "rotates": False})
    for _ in range(2):
        status, pair = await shop.trade()
        assert (status, "refresh_token" in pair, pair["expires_in"]) == (200, False, 100)
    assert await shop.set(5, token=pair["access_token"]) == (200, "")


async def test_a_refresh_token_ends_by_the_sandboxs_clock(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.ledger.clock.ahead_seconds = 1001
    assert (await shop.trade())[1]["error"] == "invalid_grant"
    sandbox.ledger.clock.ahead_seconds = 998
    assert (await shop.trade())[0] == 200


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"client_id": ""}, 401, "invalid_client"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "unsupported_grant_type"),
        ({"refresh_token": "access-1"}, 400, "invalid_grant"),
        ({"refresh_token": ""}, 400, "invalid_grant"),
        ({"grant_type": "authorization_code", "code": "nobody's"}, 400, "invalid_grant"),
    ],
)
async def test_a_trade_that_is_not_in_order_changes_nothing(
    shop: Shop, changes: dict[str, str], status: int, error: str
) -> None:
    answered, body = await shop.trade(**changes)
    assert (answered, body["error"]) == (status, error)
    assert await shop.set(5) == (200, "")
    assert (await shop.trade())[0] == 200


async def test_a_trade_must_be_a_form(shop: Shop, session: aiohttp.ClientSession) -> None:
    form = {"grant_type": "refresh_token", "client_id": "client", "client_secret": "client-secret"}
    async with session.post(f"{shop.accounts}/oauth/token", json={**form, "refresh_token": "refresh-1"}) as answer:
        assert (answer.status, (await answer.json())["error"]) == (401, "invalid_client")
    assert (await shop.trade())[0] == 200


async def test_the_merchant_agrees_as_one_shop_and_its_code_works_once(sandbox: Sandbox, shop: Shop) -> None:
    answers = await shop.agree()
    assert answers.keys() == {"4017", "4018"}
    assert (answers["4017"]["state"], answers["4017"]["a"]) == ("s-1", "b")
    form = {"grant_type": "authorization_code", "code": answers["4017"]["code"], "refresh_token": ""}
    assert (await shop.trade(**form))[1]["error"] == "invalid_grant"
    assert (await shop.trade(**form, redirect_uri="https://another.test/"))[1]["error"] == "invalid_grant"
    status, pair = await shop.trade(**form, redirect_uri=REDIRECT)
    assert status == 200
    assert (await shop.trade(**form, redirect_uri=REDIRECT))[1]["error"] == "invalid_grant"
    assert await shop.set(5, token=pair["access_token"]) == (200, "")
    assert await shop.set(5) == (401, "the access token is invalid")
    assert (await shop.get("/stores/me/products", token="access-2"))[0] == 200


async def test_a_code_lasts_ten_minutes(sandbox: Sandbox, shop: Shop) -> None:
    answers = await shop.agree(state="")
    assert answers["4018"]["a"] == "b"
    form = {"grant_type": "authorization_code", "code": answers["4018"]["code"], "redirect_uri": REDIRECT}
    sandbox.ledger.clock.ahead_seconds = 601
    assert (await shop.trade(**form))[1]["error"] == "invalid_grant"
    sandbox.ledger.clock.ahead_seconds = 598
    assert (await shop.trade(**form))[0] == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"client_id": "nobody"}, 401), ({"response_type": "token"}, 400), ({"redirect_uri": "javascript:alert(1)"}, 400)],
)
async def test_a_link_that_is_not_in_order_shows_no_page(
    shop: Shop, session: aiohttp.ClientSession, changes: dict[str, str], status: int
) -> None:
    query = {"client_id": "client", "redirect_uri": REDIRECT, "response_type": "code"} | changes
    async with session.get(f"{shop.accounts}/oauth/authorize", params=query) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")


async def test_a_shop_that_withdraws_leaves_nothing_that_works(shop: Shop, control: Controller) -> None:
    code = (await shop.agree())["4017"]["code"]
    assert await control("POST", "/stores/bklp/4017/revoke") == (200, {"channel": "bklp", "store": "4017"})
    assert await shop.set(5) == (401, "the access token is invalid")
    assert (await shop.trade())[1]["error"] == "invalid_grant"
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT}
    assert (await shop.trade(**form))[1]["error"] == "invalid_grant"
    assert (await shop.get("/stores/me/products", token="access-2"))[0] == 200
    assert (await shop.trade(refresh_token="refresh-2"))[0] == 200


async def test_a_reset_that_keeps_the_stores_gives_the_first_tokens_again(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.ledger.clock.ahead_seconds = 101
    assert (await shop.set(5))[0] == 401
    await sandbox.reset(keep_stores=True)
    assert (await shop.set(5))[0] == 200


async def test_a_store_that_was_put_without_tokens_has_to_be_authorised(sandbox: Sandbox, shop: Shop) -> None:
    fresh = {name: value for name, value in STORE.items() if not name.endswith("_token")}
    sandbox.put_store("bklp", "4017", fresh)
    assert await shop.set(5) == (401, "the access token is invalid")
    assert (await shop.trade())[1]["error"] == "invalid_grant"
    form = {"grant_type": "authorization_code", "redirect_uri": REDIRECT}
    _, pair = await shop.trade(**form, code=(await shop.agree())["4017"]["code"])
    assert await shop.set(5, token=pair["access_token"]) == (200, "")


async def test_no_token_stands_in_the_log(sandbox: Sandbox, shop: Shop) -> None:
    _, pair = await shop.trade()
    code = (await shop.agree())["4017"]["code"]
    log = repr([call.shown() for call in sandbox.ledger.calls.after(0)])
    for secret in ("refresh-1", "client-secret", pair["access_token"], pair["refresh_token"], code):
        assert secret not in log


# --- Trouble ---


async def test_trouble_has_the_shape_of_its_host(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.faults.set("bklp", throttle_rate=1, retry_after_s=17)
    async with shop.call("PATCH", "/products/abc/skus/123", {"stock": 5}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "17")
        assert await answer.json() == {
            "errors": [{"code": 10429, "message": "too many requests"}],
            "meta": {"http_status": 429},
        }
    status, body = await shop.trade()
    assert (status, body["error"]) == (429, "temporarily_unavailable")
    sandbox.faults.clear()
    assert (await shop.trade())[0] == 200
    assert sandbox.ledger.writes.last == 0


async def test_a_limit_counts_each_shop_for_itself(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.faults.set("bklp", rate_limit_per_s=0.001)
    assert [(await shop.get("/products/abc"))[0] for _ in range(2)] == [200, 429]
    assert [(await shop.get("/stores/me/products", token="access-2"))[0] for _ in range(2)] == [200, 429]


async def test_a_limit_of_the_application_counts_all_of_its_shops(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.faults.set("bklp", application_rate_limit_per_s=0.001)
    assert (await shop.get("/products/abc"))[0] == 200
    assert (await shop.get("/stores/me/products", token="access-2"))[0] == 429


async def test_a_trade_whose_answer_is_lost_has_used_the_refresh_token_up(sandbox: Sandbox, shop: Shop) -> None:
    sandbox.faults.set("bklp", apply_then_5xx_rate=1)
    assert (await shop.trade())[0] == 500
    sandbox.faults.clear()
    assert (await shop.trade())[1]["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "change", [{"client_id": ""}, {"access_seconds": 0}, {"tokens": 1}, {"rotates": "yes"}, {"listings": [{}]}]
)
async def test_a_store_that_cannot_be_is_refused(control: Controller, change: dict[str, object]) -> None:
    status, body = await control("PUT", "/stores/bklp/4017", {**STORE, **change})
    assert status == 400
    assert next(iter(change)) in body["message"]
    assert await control("GET", "/listings?channel=bklp") == (200, [])


async def test_a_failing_sku_takes_its_product_down_but_neither_its_sister_nor_the_list(
    sandbox: Sandbox, shop: Shop
) -> None:
    sandbox.faults.set("bklp", row_faults={"sku1": "failing"})
    assert await shop.set(5) == (500, "sorry")
    assert (await shop.get("/products/abc"))[0] == 500
    assert (await shop.get("/products/xyz"))[0] == 200
    assert (await shop.set(6, sku="abc/x-1"))[0] == 200
    status, page = await shop.get("/stores/me/products")
    assert (status, [product["id"] for product in page["data"]]) == (200, ["abc", "xyz"])
    assert (quantity(sandbox), quantity(sandbox, "abc/x-1")) == (7, 6)


async def test_a_call_over_its_stores_own_limit_is_throttled_in_shape(
    sandbox: Sandbox, shop: Shop, control: Controller
) -> None:
    [store] = [one.name for one in sandbox.ledger.stores("bklp") if "abc/123" in one.listings]
    assert (await control("PUT", f"/stores/bklp/{store}/limit", {"calls_per_s": 0.001}))[0] == 200
    assert [await shop.set(quantity) for quantity in (1, 2)] == [(200, ""), (429, "too many requests")]
    assert [(call.store, call.fault) for call in sandbox.ledger.calls.after(0)] == [(store, ""), (store, "store_limit")]
    assert quantity(sandbox) == 1
