"""What the demonstration shows: a merchant with two warehouses, two stores and fifty SKUs, and what it sends."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from lumbung.cli.compose import Installation
from lumbung.db import catalogue, stores, tenants
from lumbung.db.query import Connection
from lumbung.inventory.listings import Mapped, import_listings
from lumbung.model import StockLimit, StoreMode, UnknownSku, purpose_of_partner, purpose_of_store

PARTNER_ID = "B98KL87"
SECOND_WAREHOUSE = "surabaya"
SKUS = tuple(f"sku{n}" for n in range(1, 51))
CHANNEL = "blib"
CALLS_PER_SECOND = "100"  # of the sandbox; a real store keeps to the marketplace's limit


@dataclass(frozen=True, slots=True)
class DemoStore:
    """`code` is the store's code on the marketplace; `warehouses` serve it."""

    name: str
    code: str
    warehouses: tuple[str, ...]

    def remote_of(self, sku: str) -> str:
        return f"{self.code}-{int(sku.removeprefix('sku')):05}-00001"


STORES = (
    DemoStore("Toko Padi", "TOP-70001", ("default",)),
    DemoStore("Toko Padi Surabaya", "TOS-70002", ("default", SECOND_WAREHOUSE)),
)

SEED_EXAMPLE: dict[str, object] = {
    "sku": "sku1",
    "sync_stock": False,
    "warehouse": "default",
    "available_stock": 100,
    "buffer_stock": 0,
    "channel_stock": [{"code": "bklp", "qty": 30}, {"code": "blib", "qty": 20}],
}
SECOND_WAREHOUSE_EXAMPLE: dict[str, object] = {
    "sku": "sku1",
    "sync_stock": False,
    "warehouse": SECOND_WAREHOUSE,
    "available_stock": 40,
    "buffer_stock": 5,
    "channel_stock": [{"code": "blib", "qty": 12}],
}
SYNC_EXAMPLE: dict[str, object] = {
    "sku": "sku1",
    "sync_stock": True,
    "warehouse": "default",
    "available_stock": 100,
    "buffer_stock": 10,
    "channel_stock": [],
}
EXAMPLES = (
    ("The seed's example", SEED_EXAMPLE, {"Toko Padi": 20, "Toko Padi Surabaya": 20}),
    ("The second warehouse adds 12", SECOND_WAREHOUSE_EXAMPLE, {"Toko Padi": 20, "Toko Padi Surabaya": 32}),
    ("In sync: 100 - 10 is sellable", SYNC_EXAMPLE, {"Toko Padi": 90, "Toko Padi Surabaya": 102}),
)


@dataclass(frozen=True, slots=True)
class Seeded:
    """What the demonstration's database holds. `stores`: id by name."""

    tenant_id: int
    secret: str
    warehouses: dict[str, int]
    stores: dict[str, int]


def other_updates() -> Iterator[tuple[dict[str, object], int]]:
    """An update in sync for each of the other SKUs, with what its listings are to show."""
    for n, sku in enumerate(SKUS[1:], 2):
        available, buffer = n * 3, n % 7
        update: dict[str, object] = {
            "sku": sku,
            "sync_stock": True,
            "warehouse": "default",
            "available_stock": available,
            "buffer_stock": buffer,
            "channel_stock": [],
        }
        yield update, available - buffer


def expected() -> dict[tuple[str, str], int]:
    """What each listing is to show in the end, by (store code, remote variant); worked out here, not by the hub."""
    numbers = {(store.code, store.remote_of("sku1")): EXAMPLES[-1][2][store.name] for store in STORES}
    for update, quantity in other_updates():
        numbers.update({(store.code, store.remote_of(str(update["sku"]))): quantity for store in STORES})
    return numbers


def marketplace_login(store: DemoStore) -> dict[str, str]:
    """Login of a store at the sandbox marketplace. The keys are of this run only."""
    return {
        "api_client_id": f"lumbung-{store.code}",
        "api_client_key": secrets.token_urlsafe(16),
        "api_seller_key": secrets.token_urlsafe(16),
        "signature_key": secrets.token_urlsafe(16),
        "username": "merchant@example.test",
    }


def sandbox_store(store: DemoStore, login: dict[str, str]) -> dict[str, object]:
    """The store as the sandbox is told of it."""
    listings = [{"remote_variant": store.remote_of(sku), "sku": sku, "quantity": 0} for sku in SKUS]
    return {**login, "listings": listings}


async def seed(hub: Installation, sandbox_url: str, logins: dict[str, dict[str, str]]) -> Seeded:
    """Make the merchant: tenant, partner, warehouses, stores, variants and listings."""
    secret = b64encode(secrets.token_bytes(32)).decode()
    async with hub.pool.transaction() as connection:
        tenant_id = await tenants.add_tenant(
            connection, name="Toko Padi", unknown_sku=UnknownSku.REJECT, channel_stock_limit=StockLimit.NONE
        )
        assert tenant_id is not None
        blob = hub.keyring.encrypt(secret.encode(), purpose_of_partner(PARTNER_ID))
        await tenants.add_partner(
            connection, partner_id=PARTNER_ID, tenant_id=tenant_id, name="Demonstration", secret=blob, strict=False
        )
        second = await tenants.add_warehouse(connection, tenant_id=tenant_id, name=SECOND_WAREHOUSE)
        assert second is not None
        warehouses = {"default": 0, SECOND_WAREHOUSE: second}
        await catalogue.put_variants(connection, tenant_id, [(sku, f"Demonstration {sku}") for sku in SKUS])
        seeded = Seeded(tenant_id, secret, warehouses, {})
        for store in STORES:
            credentials = {
                **logins[store.code],
                "store_code": store.code,
                "base_url": f"{sandbox_url}/blib/v2",
                "calls_per_second": CALLS_PER_SECOND,
            }
            seeded.stores[store.name] = await _add_store(connection, hub, seeded, store, credentials)
        mapped = [
            Mapped(sku, seeded.stores[store.name], CHANNEL, json.dumps({"blibli_sku": store.remote_of(sku)}))
            for store in STORES
            for sku in SKUS
        ]
        await import_listings(
            connection,
            tenant_id,
            mapped,
            remap_doubt_seconds=hub.settings.remap_doubt_seconds,
            submitted_seconds=hub.settings.submitted_seconds_max,
        )
    return seeded


async def _add_store(
    connection: Connection, hub: Installation, seeded: Seeded, store: DemoStore, credentials: dict[str, str]
) -> int:
    store_id = await stores.add_store(
        connection, tenant_id=seeded.tenant_id, channel=CHANNEL, name=store.name, mode=StoreMode.LIVE
    )
    assert store_id is not None
    blob = hub.keyring.encrypt(json.dumps(credentials).encode(), purpose_of_store(store_id))
    await stores.set_credentials(connection, tenant_id=seeded.tenant_id, store_id=store_id, credentials=blob)
    for name in store.warehouses:
        await stores.link(
            connection,
            tenant_id=seeded.tenant_id,
            store_id=store_id,
            warehouse_id=seeded.warehouses[name],
            location=None,
        )
    return store_id
