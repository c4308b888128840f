"""Several workers on one database: each holds its share, the excess is given back in good order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from lumbung.channels.base import Scope
from lumbung.keyring import Keyring
from tests.flow.hub import FAST, until
from tests.flow.shop import Shop, open_store, running_market_worker, running_shop

STORES = 6
SETTINGS = replace(FAST, lease_renew_seconds=0.1, throttle_seconds_max=3600.0)


@asynccontextmanager
async def stores_with_work(database_url: str, keyring: Keyring) -> AsyncIterator[Shop]:
    """Stores that each have a listing due, and whose marketplace asks to wait."""
    async with running_shop(database_url, keyring, SETTINGS, skus=("s0",), worker=False) as shop:
        shop.account.throttle(Scope.STORE, 3000.0, times=100)
        for n in range(1, STORES):
            account, _ = await open_store(shop.hub, shop.market, (f"s{n}",), f"store{n}")
            account.throttle(Scope.STORE, 3000.0, times=100)
        for n in range(STORES):
            await shop.update(f"s{n}", 5)
        yield shop


async def holders(shop: Shop) -> list[int]:
    """How many stores each worker holds, fewest first."""
    rows = await shop.hub.world.rows(
        "SELECT count(*)::int AS n FROM store_lease WHERE worker_id IS NOT NULL GROUP BY worker_id ORDER BY 1"
    )
    return [row["n"] for row in rows]


async def test_a_second_worker_gets_its_share_and_the_first_takes_over_again_when_it_stops(
    database_url: str, keyring: Keyring
) -> None:
    async with stores_with_work(database_url, keyring) as shop, running_market_worker(SETTINGS, database_url, keyring):
        await until(lambda: holders(shop), lambda held: held == [STORES])
        async with running_market_worker(SETTINGS, database_url, keyring):
            await until(lambda: holders(shop), lambda held: held == [STORES // 2, STORES // 2])
        await until(lambda: holders(shop), lambda held: held == [STORES])
        doubts = await shop.hub.world.value("SELECT count(*) FROM store_lease WHERE doubt_until IS NOT NULL")
        assert doubts == 0  # everything was handed over in good order


async def test_a_store_that_has_been_idle_for_long_is_given_back_and_taken_again_with_the_next_update(
    database_url: str, keyring: Keyring
) -> None:
    """Nobody looks for work meanwhile: a sender finds out by itself that it has nothing left to do."""
    settings = replace(SETTINGS, store_idle_seconds=0.0, poll_seconds=3600.0)
    async with running_shop(database_url, keyring, settings, skus=("a",)) as shop:
        await shop.hub.ended(await shop.update("a", 5))
        await until(lambda: holders(shop), lambda held: held == [])
        await shop.hub.ended(await shop.update("a", 6))
        assert shop.account.quantities("a") == [5, 6]
