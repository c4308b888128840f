"""The demonstration's stores, each as its marketplace (the sandbox) and the hub are told of it. Keys are of one run."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

CALLS_PER_SECOND = "100"  # of the sandbox; a real store keeps to the marketplace's limit
SKUS_OF_AN_ITEM = 10


@dataclass(frozen=True, slots=True)
class Application:
    """An app key of the demonstration's merchant."""

    channel: str
    name: str
    credentials: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What the merchant would have got by agreeing."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    access_seconds: int
    refresh_seconds: int | None


class DemoStore(Protocol):
    """`code`: the account on the marketplace; `warehouses`: who serves it, each with its location there."""

    @property
    def channel(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def code(self) -> str: ...

    @property
    def warehouses(self) -> Mapping[str, str | None]: ...

    def remote_of(self, sku: str) -> str:
        """The listing as the sandbox names it."""
        ...

    def remote_variant(self, sku: str) -> str:
        """The listing as the hub knows it."""
        ...

    def sandbox_store(self, skus: Sequence[str]) -> dict[str, object]:
        """The body of its `PUT /_control/stores/...`."""
        ...

    def credentials(self, sandbox_url: str) -> dict[str, str]: ...

    def application(self, sandbox_url: str) -> Application | None: ...

    def tokens(self) -> TokenPair | None: ...


@dataclass(frozen=True, slots=True)
class BlibliStore:
    name: str
    code: str
    warehouses: Mapping[str, str | None]
    channel: str = "blib"
    _login: Mapping[str, str] = field(
        default_factory=lambda: {
            "api_client_id": f"lumbung-{secrets.token_hex(4)}",
            "api_client_key": secrets.token_urlsafe(16),
            "api_seller_key": secrets.token_urlsafe(16),
            "signature_key": secrets.token_urlsafe(16),
            "username": "merchant@example.test",
        },
        repr=False,
    )

    def remote_of(self, sku: str) -> str:
        return f"{self.code}-{_number(sku):05}-00001"

    def remote_variant(self, sku: str) -> str:
        return json.dumps({"blibli_sku": self.remote_of(sku)})

    def sandbox_store(self, skus: Sequence[str]) -> dict[str, object]:
        return {**self._login, "listings": _listings(self, skus)}

    def credentials(self, sandbox_url: str) -> dict[str, str]:
        own = {"store_code": self.code, "base_url": f"{sandbox_url}/blib/v2", "calls_per_second": CALLS_PER_SECOND}
        return {**self._login, **own}

    def application(self, sandbox_url: str) -> Application | None:
        return None

    def tokens(self) -> TokenPair | None:
        return None


@dataclass(frozen=True, slots=True)
class ShopeeStore:
    """Its SKUs are variations, ten of an item: they share a call."""

    name: str
    code: str
    warehouses: Mapping[str, str | None]
    channel: str = "shpe"
    _key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _tokens: TokenPair = field(
        default_factory=lambda: TokenPair(secrets.token_hex(16), secrets.token_hex(16), 4 * 3600, 30 * 86400),
        repr=False,
    )

    def _ids(self, sku: str) -> tuple[int, int]:
        item, variation = divmod(_number(sku) - 1, SKUS_OF_AN_ITEM)
        return 1001 + item, 1 + variation

    def remote_of(self, sku: str) -> str:
        return "{}/{}".format(*self._ids(sku))

    def remote_variant(self, sku: str) -> str:
        item, variation = self._ids(sku)
        return json.dumps({"item_id": item, "variation_id": variation})

    def sandbox_store(self, skus: Sequence[str]) -> dict[str, object]:
        return {
            "partner_id": 1000001,
            "partner_key": self._key,
            "access_token": self._tokens.access,
            "refresh_token": self._tokens.refresh,
            "locations": [location for location in self.warehouses.values() if location is not None],
            "listings": _listings(self, skus),
        }

    def credentials(self, sandbox_url: str) -> dict[str, str]:
        return {"shop_id": self.code, "calls_per_second": CALLS_PER_SECOND}

    def application(self, sandbox_url: str) -> Application | None:
        key = {"partner_id": "1000001", "partner_key": self._key, "base_url": f"{sandbox_url}/shpe"}
        return Application(self.channel, "Shopee app", key)

    def tokens(self) -> TokenPair | None:
        return self._tokens


@dataclass(frozen=True, slots=True)
class BukalapakStore:
    name: str
    code: str
    warehouses: Mapping[str, str | None]
    channel: str = "bklp"
    _secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _tokens: TokenPair = field(
        default_factory=lambda: TokenPair(secrets.token_hex(16), secrets.token_hex(16), 7200, None), repr=False
    )

    def _ids(self, sku: str) -> tuple[str, str]:
        return f"p{_number(sku):03}", f"{_number(sku)}"

    def remote_of(self, sku: str) -> str:
        return "/".join(self._ids(sku))

    def remote_variant(self, sku: str) -> str:
        product, variant = self._ids(sku)
        return json.dumps({"product_id": product, "sku_id": variant})

    def _application(self) -> dict[str, str]:
        return {"client_id": "lumbung-demo", "client_secret": self._secret, "user_agent": "lumbung-demo"}

    def sandbox_store(self, skus: Sequence[str]) -> dict[str, object]:
        tokens = {"access_token": self._tokens.access, "refresh_token": self._tokens.refresh}
        return {**self._application(), **tokens, "listings": _listings(self, skus)}

    def credentials(self, sandbox_url: str) -> dict[str, str]:
        return {"shop_id": self.code, "calls_per_second": CALLS_PER_SECOND}

    def application(self, sandbox_url: str) -> Application | None:
        urls = {"base_url": f"{sandbox_url}/bklp/api", "accounts_url": f"{sandbox_url}/bklp/accounts"}
        return Application(self.channel, "Bukalapak app", {**self._application(), **urls})

    def tokens(self) -> TokenPair | None:
        return self._tokens


def _number(sku: str) -> int:
    return int(sku.removeprefix("sku"))


def _listings(store: DemoStore, skus: Sequence[str]) -> list[dict[str, object]]:
    return [{"remote_variant": store.remote_of(sku), "sku": sku, "quantity": 0} for sku in skus]
