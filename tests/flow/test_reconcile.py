"""Reading back through real HTTP: drift up is corrected, drift down is reported, observing changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lumbung.db import upkeep, wake
from lumbung.keyring import Keyring
from lumbung.model import DueFor
from tests.flow.shop import Shop, running_shop


@pytest.fixture
async def shop(database_url: str, keyring: Keyring) -> AsyncIterator[Shop]:
    async with running_shop(database_url, keyring) as running:
        await running.hub.ended(*[await running.update(sku, 20) for sku in ("a", "b", "c")])
        yield running


async def read_back(shop: Shop, due_for: DueFor = DueFor.RECONCILE) -> dict[str, int]:
    """What the operator's command does, and what was observed of each SKU."""
    world = shop.hub.world
    async with world.pool.transaction() as connection:
        marked = await upkeep.mark_idle(
            connection,
            tenant_id=world.tenant_id,
            store_ids=[shop.store.id],
            skus=None,
            due_for=due_for,
            after=0,
            limit=100,
        )
    assert len(marked) == 3
    await wake.notify(world.pool, [shop.store.id])
    await shop.hub.at_rest()
    return {sku: (await shop.state(sku))["quantity_observed"] for sku in ("a", "b", "c")}


async def test_what_oversells_is_corrected_and_what_was_sold_is_left(shop: Shop) -> None:
    shop.account.shown["a"] = 25
    shop.account.sold("b", 3)
    assert await read_back(shop) == {"a": 25, "b": 17, "c": 20}
    assert shop.account.shown == {"a": 20, "b": 17, "c": 20}
    assert [len(call.ids) for call in shop.account.called("/read")] == [3]


async def test_observing_corrects_nothing(shop: Shop) -> None:
    shop.account.shown["a"] = 25
    assert await read_back(shop, DueFor.OBSERVE) == {"a": 25, "b": 20, "c": 20}
    assert shop.account.shown["a"] == 25


async def test_an_update_while_a_listing_is_read_back_is_pushed(shop: Shop) -> None:
    async with shop.account.gate("/read") as gate:
        world = shop.hub.world
        async with world.pool.transaction() as connection:
            await upkeep.mark_idle(
                connection,
                tenant_id=world.tenant_id,
                store_ids=[shop.store.id],
                skus=None,
                due_for=DueFor.RECONCILE,
                after=0,
                limit=100,
            )
        await wake.notify(world.pool, [shop.store.id])
        await gate.entered()
        code = await shop.update("a", 7)
        gate.open()
    await shop.hub.ended(code)
    await shop.hub.at_rest()
    assert shop.account.quantities("a") == [20, 7]


async def test_what_cannot_be_read_now_is_read_later(shop: Shop) -> None:
    shop.account.fail_next(503, {"error": "maintenance"}, route="/read")
    shop.account.shown["a"] = 25
    assert await read_back(shop) == {"a": 25, "b": 20, "c": 20}
    assert shop.account.shown["a"] == 20
