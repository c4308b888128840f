"""What the demonstration shows: a merchant with two warehouses, four stores and fifty SKUs, and what it sends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lumbung.cli.compose import Installation
from lumbung.cli.sandbox_stores import BlibliStore, BukalapakStore, SandboxStore, ShopeeStore
from lumbung.cli.seeding import add_partner, add_store
from lumbung.db import catalogue, tenants
from lumbung.inventory.listings import Mapped, import_listings
from lumbung.model import (
    StockLimit,
    UnknownSku,
)

PARTNER_ID = "B98KL87"
SECOND_WAREHOUSE = "surabaya"
SKUS = tuple(f"sku{n}" for n in range(1, 51))
STORES: tuple[SandboxStore, ...] = (
    BlibliStore("Toko Padi", "TOP-70001", {"default": None}),
    BlibliStore("Toko Padi Surabaya", "TOS-70002", {"default": None, SECOND_WAREHOUSE: None}),
    BukalapakStore("Padi di Bukalapak", "70003", {"default": None}),
    ShopeeStore("Padi di Shopee", "70004", {"default": "IDJ", SECOND_WAREHOUSE: "IDS"}),
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
    "channel_stock": [{"code": "blib", "qty": 12}, {"code": "shpe", "qty": 7}],
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
    ("The seed's example", SEED_EXAMPLE, (20, 20, 30, 0)),
    ("The second warehouse adds 12 on Blibli, and 7 at its own location on Shopee", SECOND_WAREHOUSE_EXAMPLE,
     (20, 32, 30, 7)),
    ("In sync: 100 - 10 is sellable", SYNC_EXAMPLE, (90, 102, 90, 97)),
)  # fmt: skip
"""Each with what sku1 then shows in each of STORES."""


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
    numbers = {
        (store.code, store.remote_of("sku1")): number for store, number in zip(STORES, EXAMPLES[-1][2], strict=True)
    }
    for update, quantity in other_updates():
        numbers.update({(store.code, store.remote_of(str(update["sku"]))): quantity for store in STORES})
    return numbers


async def seed(hub: Installation, sandbox_url: str) -> Seeded:
    """Make the merchant: tenant, partner, warehouses, stores, variants and listings."""
    async with hub.pool.transaction() as connection:
        tenant_id = await tenants.add_tenant(
            connection, name="Toko Padi", unknown_sku=UnknownSku.REJECT, channel_stock_limit=StockLimit.NONE
        )
        assert tenant_id is not None
        secret = await add_partner(connection, hub.keyring, tenant_id, PARTNER_ID)
        second = await tenants.add_warehouse(connection, tenant_id=tenant_id, name=SECOND_WAREHOUSE)
        assert second is not None
        warehouses = {"default": 0, SECOND_WAREHOUSE: second}
        await catalogue.put_variants(connection, tenant_id, [(sku, f"Demonstration {sku}") for sku in SKUS])
        seeded = Seeded(tenant_id, secret, warehouses, {})
        for store in STORES:
            seeded.stores[store.name] = await add_store(
                connection, hub.keyring, tenant_id, store, seeded.warehouses, sandbox_url
            )
        mapped = [
            Mapped(sku, seeded.stores[store.name], store.channel, store.remote_variant(sku))
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
