"""A seller's program, as the tests need it: calls the fake Blibli as the fact sheet says, and nothing cleverer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp

STORE: dict[str, object] = {
    "api_client_id": "client",
    "api_client_key": "client-key",
    "api_seller_key": "seller-key",
    "username": "owner@shop.test",
    "listings": [
        {"remote_variant": "TOQ-1-1-1", "sku": "sku1", "quantity": 7},
        {"remote_variant": "TOQ-1-1-2", "sku": "sku2"},
    ],
}
OTHER_STORE: dict[str, object] = {**STORE, "api_seller_key": "other-seller-key", "listings": []}

HEADERS = {
    "Authorization": "Basic " + base64.b64encode(b"client:client-key").decode(),
    "Api-Seller-Key": "seller-key",
    "Content-Type": "application/json",
}
QUERY = {
    "requestId": "r-1",
    "channelId": "lumbung",
    "storeId": "10001",
    "username": "owner@shop.test",
    "storeCode": "TOQ-1",
}


class Seller:
    """Calls are context managers of aiohttp: `async with seller.put(5) as answer`."""

    def __init__(self, session: aiohttp.ClientSession, url: str):
        self.session = session
        self.products = f"{url}/blib/v2/proxy/seller/v1/products"

    def put(
        self,
        quantity: object,
        *,
        sku: str = "TOQ-1-1-1",
        body: bytes | io.BytesIO | None = None,
        query: Mapping[str, str] = QUERY,
        headers: Mapping[str, str] = HEADERS,
        timeout_seconds: float = 30,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.session.put(
            f"{self.products}/{sku}/stock",
            params={**query, "blibli-sku": sku},
            data=body if body is not None else json.dumps({"availableStock": quantity}).encode(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        )

    def get(
        self, *, sku: str = "TOQ-1-1-1", headers: Mapping[str, str] = HEADERS
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.session.get(f"{self.products}/{sku}", params=QUERY, headers=headers)

    async def set(self, quantity: object, *, sku: str = "TOQ-1-1-1") -> tuple[int, dict[str, Any]]:
        async with self.put(quantity, sku=sku) as answer:
            return answer.status, await answer.json()


def signed(key: str, method: str, body: bytes, path: str, at_ms: int) -> dict[str, str]:
    """The headers with a signature; written a second time here, so that the sandbox does not check itself."""
    date = datetime.fromtimestamp(at_ms / 1000, ZoneInfo("Asia/Jakarta")).strftime("%a %b %d %H:%M:%S %Z %Y")
    content_type = "" if method == "GET" else "application/json"
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest() if body else ""
    raw = f"{method}\n{md5}\n{content_type}\n{date}\n{path}"
    digest = hmac.new(key.encode(), raw.encode(), hashlib.sha256).digest()
    return {**HEADERS, "Signature": base64.b64encode(digest).decode(), "Signature-Time": str(at_ms)}
