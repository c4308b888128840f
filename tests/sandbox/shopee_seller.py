"""A seller's program for the fake Shopee: signs as the fact sheet says, and nothing cleverer."""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Mapping
from typing import Any

import aiohttp

from lumbung.sandbox.clock import Clock

PARTNER = 1000001
PARTNER_KEY = "test_partner_key"
SHOP = 2000002
OTHER_SHOP = 2000003

UPDATE_STOCK = "/api/v2/product/update_stock"
ITEM_LIST = "/api/v2/product/get_item_list"
ITEM_INFO = "/api/v2/product/get_item_base_info"
MODEL_LIST = "/api/v2/product/get_model_list"
SHOP_INFO = "/api/v2/shop/get_shop_info"
WAREHOUSES = "/api/v2/shop/get_warehouse_detail"
AUTH_PARTNER = "/api/v2/shop/auth_partner"
TOKEN_GET = "/api/v2/auth/token/get"
ACCESS_TOKEN_GET = "/api/v2/auth/access_token/get"

STORE: dict[str, object] = {
    "partner_id": PARTNER,
    "partner_key": PARTNER_KEY,
    "access_token": "access-1",
    "refresh_token": "refresh-1",
    "listings": [
        {"remote_variant": "12346/55", "sku": "shirt-red", "quantity": 7},
        {"remote_variant": "12346/56", "sku": "shirt-blue"},
        {"remote_variant": "12347", "sku": "hat", "quantity": 3},
    ],
}
OTHER_STORE: dict[str, object] = {
    **STORE,
    "access_token": "other-access",
    "refresh_token": "other-refresh",
    "listings": [{"remote_variant": "500", "sku": "other", "quantity": 1}],
}

Answer = tuple[int, dict[str, Any]]


class App:
    """An application that calls for a shop; an answer is (HTTP status, JSON without its request_id)."""

    def __init__(self, session: aiohttp.ClientSession, url: str, clock: Clock):
        self.session = session
        self.mount = f"{url}/shpe"
        self.clock = clock
        self.access_token = "access-1"

    def public(self, path: str, *, key: str = PARTNER_KEY, late_seconds: float = 0) -> dict[str, str]:
        """The query of a call that is signed for the application."""
        timestamp = str(int(self.clock.now() - late_seconds))
        return {"partner_id": str(PARTNER), "timestamp": timestamp, "sign": signed(key, f"{PARTNER}{path}{timestamp}")}

    def of_shop(
        self, path: str, *, shop: int = SHOP, key: str = PARTNER_KEY, late_seconds: float = 0, token: str | None = None
    ) -> dict[str, str]:
        """The query of a call that is signed for a shop."""
        token = self.access_token if token is None else token
        timestamp = str(int(self.clock.now() - late_seconds))
        base = f"{PARTNER}{path}{timestamp}{token}{shop}"
        return {
            "partner_id": str(PARTNER),
            "timestamp": timestamp,
            "access_token": token,
            "shop_id": str(shop),
            "sign": signed(key, base),
        }

    async def post(self, path: str, body: object, *, query: Mapping[str, str] | None = None) -> Answer:
        """`body` is sent as JSON, or as it is when it is bytes."""
        sent: dict[str, Any] = {"data": io.BytesIO(body)} if isinstance(body, bytes) else {"json": body}
        query = self.of_shop(path) if query is None else query
        async with self.session.post(self.mount + path, params=query, **sent) as answer:
            return answer.status, await _read(answer)

    async def get(self, path: str, *, query: Mapping[str, str] | None = None, **more: str) -> Answer:
        query = self.of_shop(path) if query is None else query
        async with self.session.get(self.mount + path, params={**query, **more}) as answer:
            return answer.status, await _read(answer)

    async def set(self, *rows: tuple[int, int], item: int = 12346, shop: int = SHOP) -> Answer:
        """Models with their stock."""
        query = self.of_shop(UPDATE_STOCK, shop=shop)
        return await self.post(UPDATE_STOCK, stock(item, *(entry(model, units) for model, units in rows)), query=query)

    async def refresh(self, refresh_token: str, *, shop: int = SHOP) -> Answer:
        body = {"partner_id": PARTNER, "shop_id": shop, "refresh_token": refresh_token}
        return await self.post(ACCESS_TOKEN_GET, body, query=self.public(ACCESS_TOKEN_GET))

    async def trade(self, code: str, *, shop: int = SHOP) -> Answer:
        body = {"partner_id": PARTNER, "shop_id": shop, "code": code}
        return await self.post(TOKEN_GET, body, query=self.public(TOKEN_GET))

    async def agree(self, **more: str) -> tuple[int, str]:
        """The seller follows the link: status and Location."""
        query = {**self.public(AUTH_PARTNER), "redirect": "https://hub.test/back?a=b", **more}
        async with self.session.get(self.mount + AUTH_PARTNER, params=query, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("Location", "")

    async def is_let_in(self, token: str) -> str:
        """The error of a call with this token; "" when it was taken."""
        _, body = await self.get(SHOP_INFO, query=self.of_shop(SHOP_INFO, token=token))
        error: str = body["error"]
        return error


def signed(key: str, base: str) -> str:
    return hmac.new(key.encode(), base.encode(), hashlib.sha256).hexdigest()


def stock(item: int, *entries: dict[str, object]) -> dict[str, object]:
    return {"item_id": item, "stock_list": list(entries)}


def entry(model: int, units: int) -> dict[str, object]:
    """A model with `units` in no location."""
    return {"model_id": model, "seller_stock": [{"stock": units}]}


def placed(model: int, **places: int) -> dict[str, object]:
    """A model with its units by location."""
    return {
        "model_id": model,
        "seller_stock": [{"location_id": location, "stock": units} for location, units in places.items()],
    }


def ok(response: object) -> Answer:
    return 200, {"error": "", "message": "", "warning": "", "response": response}


def no(error: str, message: str, status: int = 200) -> Answer:
    return status, {"error": error, "message": message}


async def _read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    body: dict[str, Any] = await answer.json()
    request_id = body.pop("request_id")
    assert len(request_id) == 32
    return body
