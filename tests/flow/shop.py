"""The hub with a worker that knows the marketplace of the tests, which can answer everything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lumbung.channels.base import Channel
from lumbung.channels.registry import CHANNELS
from lumbung.db.stores import StoreRow
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.tokens import digest, seal
from lumbung.inventory.listings import Mapped, import_listings
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.flow.hub import FAST, Hub, running_hub, running_worker, until
from tests.flow.market import Market
from tests.flow.market_account import Account
from tests.flow.market_channel import MarketChannel, market_credentials, remote_variant, tokens_of


@dataclass
class Shop:
    """A hub, the market, and one store there with an item for each SKU (its id is the SKU)."""

    hub: Hub
    market: Market
    account: Account
    store: StoreRow
    metrics: WorkerMetrics

    async def update(self, sku: str = "a", quantity: int = 0, **more: Any) -> str:
        return await self.hub.update(sku, **{"shpe": quantity, **more})

    async def state(self, sku: str = "a") -> dict[str, Any]:
        [row] = await self.hub.world.rows(
            "SELECT s.* FROM listing_state s JOIN listing l ON l.tenant_id = s.tenant_id AND l.id = s.listing_id"
            " JOIN variant v ON v.tenant_id = l.tenant_id AND v.id = l.variant_id"
            " WHERE v.sku = $1 AND l.store_id = $2 AND l.retired_at IS NULL",
            sku,
            self.store.id,
        )
        return row

    async def item(self, code: str) -> dict[str, Any]:
        [item] = (await self.hub.records())[code]["update_stock_history_item"]
        return dict(item)

    async def in_state(self, state: str, sku: str = "a") -> dict[str, Any]:
        """Wait until a listing is in a state."""
        found: dict[str, Any] = await until(lambda: self.state(sku), lambda row: row["state"] == state)
        return found

    async def waiting_for(self, *reasons: str) -> None:
        await until(self.hub.waits, lambda waits: waits == list(reasons))


async def open_store(
    hub: Hub, market: Market, skus: tuple[str, ...], name: str = "Toko Pasar", *, tokens: bool = False, **more: object
) -> tuple[Account, StoreRow]:
    """A live store of the market with an account of the same name."""
    account = market.account(name.replace(" ", "-"))
    account.put(*skus)
    credentials = market_credentials(market, account, api_key=not tokens, **more)
    await hub.world.store(name, "shpe", credentials=credentials)
    store = hub.world.stores[name]
    if tokens:
        assert hub.world.keyring is not None
        pair = tokens_of(account.issue(), account.name)
        await hub.world.execute(
            "UPDATE store SET tokens = $1, tokens_digest = $2 WHERE id = $3",
            seal(hub.world.keyring, store.id, pair),
            digest(pair),
            store.id,
        )
    await hub.world.variants(*skus)
    mapped = [Mapped(sku, store.id, "shpe", remote_variant(sku)) for sku in skus]
    async with hub.world.pool.transaction() as connection:
        await import_listings(
            connection, hub.world.tenant_id, mapped, remap_doubt_seconds=120.0, submitted_seconds=3600.0
        )
    return account, store


@asynccontextmanager
async def running_shop(
    database_url: str,
    keyring: Keyring,
    settings: Settings = FAST,
    *,
    skus: tuple[str, ...] = ("a", "b", "c"),
    channel: Channel | None = None,
    tokens: bool = False,
    worker: bool = True,
    **more: Any,
) -> AsyncIterator[Shop]:
    async with running_hub(database_url, keyring, settings, worker=False) as hub, Market() as market:
        account, store = await open_store(hub, market, skus, tokens=tokens, **more)
        shop = Shop(hub, market, account, store, WorkerMetrics())
        if not worker:
            yield shop
            return
        async with running_market_worker(settings, database_url, keyring, channel, shop.metrics, clock=hub.clock):
            yield shop


@asynccontextmanager
async def running_market_worker(
    settings: Settings,
    url: str,
    keyring: Keyring,
    channel: Channel | None = None,
    metrics: WorkerMetrics | None = None,
    **more: Any,
) -> AsyncIterator[None]:
    channels: Mapping[str, Channel] = {**CHANNELS, "shpe": channel or MarketChannel()}
    async with running_worker(settings, url, keyring, channels=channels, metrics=metrics, **more):
        yield
