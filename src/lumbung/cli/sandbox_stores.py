"""Stores on the sandbox, each as its marketplace and as the hub are told of it. Keys are of one run."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

CALLS_PER_SECOND = "100"  # of the sandbox; a real store keeps to the marketplace's limit
LIMITS: Mapping[str, str] = {"calls_per_second": CALLS_PER_SECOND}
SKUS_OF_AN_ITEM = 10


@dataclass(frozen=True, slots=True)
class Application:
    """An app key of a merchant."""

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


class SandboxStore(Protocol):
    """`code`: the account on the marketplace; `warehouses`: who serves it, each with its location there; `limits`: what
    the hub is told beside its keys."""

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
    limits: Mapping[str, str] = field(default_factory=lambda: LIMITS)
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
        return {**self._login, "store_code": self.code, "base_url": f"{sandbox_url}/blib/v2", **self.limits}

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
    limits: Mapping[str, str] = field(default_factory=lambda: LIMITS)
    access_seconds: int = 4 * 3600
    partner_id: int = 1000001
    partner_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _access: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _refresh: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

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
            "partner_id": self.partner_id,
            "partner_key": self.partner_key,
            "access_token": self._access,
            "refresh_token": self._refresh,
            "access_seconds": self.access_seconds,
            "locations": [location for location in self.warehouses.values() if location is not None],
            "listings": _listings(self, skus),
        }

    def credentials(self, sandbox_url: str) -> dict[str, str]:
        return {"shop_id": self.code, **self.limits}

    def application(self, sandbox_url: str) -> Application:
        key = {"partner_id": str(self.partner_id), "partner_key": self.partner_key, "base_url": f"{sandbox_url}/shpe"}
        return Application(self.channel, "Shopee app", key)

    def tokens(self) -> TokenPair | None:
        return TokenPair(self._access, self._refresh, self.access_seconds, 30 * 86400)


@dataclass(frozen=True, slots=True)
class BukalapakStore:
    name: str
    code: str
    warehouses: Mapping[str, str | None]
    channel: str = "bklp"
    limits: Mapping[str, str] = field(default_factory=lambda: LIMITS)
    access_seconds: int = 7200
    client_id: str = "lumbung-demo"
    _secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _access: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    _refresh: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def _ids(self, sku: str) -> tuple[str, str]:
        return f"p{_number(sku):03}", f"{_number(sku)}"

    def remote_of(self, sku: str) -> str:
        return "/".join(self._ids(sku))

    def remote_variant(self, sku: str) -> str:
        product, variant = self._ids(sku)
        return json.dumps({"product_id": product, "sku_id": variant})

    def _application(self) -> dict[str, str]:
        return {"client_id": self.client_id, "client_secret": self._secret, "user_agent": "lumbung-demo"}

    def sandbox_store(self, skus: Sequence[str]) -> dict[str, object]:
        tokens = {"access_token": self._access, "refresh_token": self._refresh, "access_seconds": self.access_seconds}
        return {**self._application(), **tokens, "listings": _listings(self, skus)}

    def credentials(self, sandbox_url: str) -> dict[str, str]:
        return {"shop_id": self.code, **self.limits}

    def application(self, sandbox_url: str) -> Application | None:
        urls = {"base_url": f"{sandbox_url}/bklp/api", "accounts_url": f"{sandbox_url}/bklp/accounts"}
        return Application(self.channel, "Bukalapak app", {**self._application(), **urls})

    def tokens(self) -> TokenPair | None:
        return TokenPair(self._access, self._refresh, self.access_seconds, None)


def _number(sku: str) -> int:
    return int(sku.removeprefix("sku"))


def _listings(store: SandboxStore, skus: Sequence[str]) -> list[dict[str, object]]:
    return [{"remote_variant": store.remote_of(sku), "sku": sku, "quantity": 0} for sku in skus]
