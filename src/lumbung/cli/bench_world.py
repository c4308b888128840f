"""The tenants of a benchmark, made in the hub's database as their commands would make them, and filled by SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lumbung.bench.world import BenchTenant, BenchWorld
from lumbung.cli.compose import Installation
from lumbung.cli.sandbox_stores import BlibliStore, SandboxStore, ShopeeStore
from lumbung.cli.seeding import add_application, add_partner, add_store
from lumbung.db import bench, stores, tenants
from lumbung.db.bench import Assortment
from lumbung.db.query import Connection
from lumbung.model import DEFAULT_WAREHOUSE, StockLimit, UnknownSku

CALLS_PER_SECOND = 1000  # the most that a store may say: no marketplace's limit is what is measured
LIMITS = {"calls_per_second": f"{CALLS_PER_SECOND}"}
CHUNK_SKUS = 50_000
NOWHERE = "http://127.0.0.1:9"  # of stores that nothing is sent to


async def make(
    hub: Installation, market_url: str, name: str, *, merchants: int, skus: int, channels: Sequence[str]
) -> BenchWorld:
    """`skus`: of each tenant, each listed in all of its stores, which are one for each of `channels`."""
    made = [await _tenant(hub, market_url, f"{name} {n}", skus, channels) for n in range(1, merchants + 1)]
    async with hub.pool.connection() as connection:
        await bench.tidy(connection)
    return BenchWorld(tuple(made))


async def add_stores(hub: Installation, tenant: BenchTenant, channel: str, count: int) -> list[str]:
    """More stores for a tenant, without listings; returns their names."""
    async with hub.pool.transaction() as connection:
        ids = {await _store(connection, hub, tenant.id, place, channel, NOWHERE) for place in range(1, count + 1)}
        return [row["name"] for row in await stores.list_stores(connection, tenant.id) if row["id"] in ids]


async def settle(hub: Installation) -> None:
    """Nothing is due any more."""
    async with hub.pool.connection() as connection:
        await bench.settle_all(connection)
        await bench.tidy(connection)


async def _tenant(hub: Installation, market_url: str, name: str, skus: int, channels: Sequence[str]) -> BenchTenant:
    partner_id = name.replace(" ", "-")
    async with hub.pool.transaction() as connection:
        tenant_id = await tenants.add_tenant(
            connection, name=name, unknown_sku=UnknownSku.REJECT, channel_stock_limit=StockLimit.NONE
        )
        assert tenant_id is not None
        secret = await add_partner(connection, hub.keyring, tenant_id, partner_id)
        store_ids = [
            await _store(connection, hub, tenant_id, place, channel, market_url)
            for place, channel in enumerate(channels, 1)
        ]
    for first in range(1, skus + 1, CHUNK_SKUS):
        goods = Assortment(tenant_id, first, min(first + CHUNK_SKUS - 1, skus), store_ids)
        async with hub.pool.connection() as connection:
            await bench.put_assortment(connection, goods)
    named = tuple(dict.fromkeys(channels))
    return BenchTenant(tenant_id, partner_id, secret, [f"sku{n}" for n in range(1, skus + 1)], tuple(store_ids), named)


async def _store(
    connection: Connection, hub: Installation, tenant_id: int, place: int, channel: str, market_url: str
) -> int:
    code = f"{tenant_id:03}{place:03}"
    store: SandboxStore
    application_id = None
    if channel == "shpe":
        store = ShopeeStore(
            f"Shopee {code}", code, {DEFAULT_WAREHOUSE: None}, limits=LIMITS, partner_id=1_000_000 + int(code)
        )
        application_id = await add_application(
            connection,
            hub.keyring,
            tenant_id,
            replace(store.application(market_url), name=f"Shopee app {code}"),
            calls_per_second=CALLS_PER_SECOND,
            burst=CALLS_PER_SECOND,
        )
    else:
        store = BlibliStore(f"Blibli {code}", f"TOB-{code}", {DEFAULT_WAREHOUSE: None}, limits=LIMITS)
    return await add_store(
        connection,
        hub.keyring,
        tenant_id,
        store,
        {DEFAULT_WAREHOUSE: 0},
        market_url,
        application_id=application_id,
    )
