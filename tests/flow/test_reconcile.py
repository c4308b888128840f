"""Reading back through real HTTP: drift up is corrected, drift down is reported, observing changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lumbung.db import upkeep, wake
from lumbung.db.upkeep import Marked
from lumbung.keyring import Keyring
from lumbung.model import DueFor
from tests.flow.hub import QUIESCE_SECONDS
from tests.flow.shop import Shop, running_shop


@pytest.fixture
async def shop(database_url: str, keyring: Keyring) -> AsyncIterator[Shop]:
    async with running_shop(database_url, keyring) as running:
        await running.hub.ended(*[await running.update(sku, 20) for sku in ("a", "b", "c")])
        yield running


async def marked(shop: Shop, due_for: DueFor) -> list[Marked]:
    world = shop.hub.world
    async with world.pool.transaction() as connection:
        found = await upkeep.mark_idle(
            connection,
            tenant_id=world.tenant_id,
            store_ids=[shop.store.id],
            skus=None,
            due_for=due_for,
            after=0,
            limit=100,
        )
    await wake.notify(world.pool, [shop.store.id])
    return found


async def read_back(shop: Shop, due_for: DueFor = DueFor.RECONCILE) -> dict[str, int]:
    """What the operator's command does, and what was observed of each SKU."""
    assert len(await marked(shop, due_for)) == 3
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
        await marked(shop, DueFor.RECONCILE)
        await gate.entered()
        code = await shop.update("a", 7)
        gate.open()
    await shop.hub.ended(code)
    await shop.hub.at_rest()
    assert shop.account.quantities("a") == [20, 7]


async def test_what_oversells_is_corrected_when_that_was_asked_for_while_a_mere_look_was_under_way(shop: Shop) -> None:
    shop.account.shown["a"] = 25
    shop.account.sold("b", 3)
    async with shop.account.gate("/read") as gate:
        await marked(shop, DueFor.OBSERVE)
        await gate.entered()
        assert len(await marked(shop, DueFor.RECONCILE)) == 3
        gate.open()
    await shop.hub.at_rest()
    assert shop.account.shown == {"a": 20, "b": 17, "c": 20}


async def test_a_look_that_failed_is_a_correction_when_one_was_asked_for_meanwhile(shop: Shop) -> None:
    shop.account.shown["a"] = 25
    async with shop.account.gate("/read") as gate:
        await marked(shop, DueFor.OBSERVE)
        await gate.entered()
        shop.account.fail_next(503, {"error": "maintenance"}, route="/read")
        await marked(shop, DueFor.RECONCILE)
        gate.open()
    await shop.hub.at_rest()
    assert shop.account.shown["a"] == 20


async def test_a_look_that_has_not_begun_is_a_correction_when_one_is_asked_for(shop: Shop) -> None:
    await shop.hub.world.execute("UPDATE store SET mode = 'paused', mode_before_pause = 'live', pause_reason = 'why'")
    await marked(shop, DueFor.OBSERVE)
    assert len(await marked(shop, DueFor.RECONCILE)) == 3
    shop.account.shown["a"] = 25
    await shop.hub.world.execute("UPDATE store SET mode = 'live', mode_before_pause = NULL, pause_reason = NULL")
    await wake.notify(shop.hub.world.pool, [shop.store.id])
    await shop.hub.at_rest()
    assert shop.account.shown["a"] == 20


async def test_what_cannot_be_read_now_is_read_later(shop: Shop) -> None:
    shop.account.fail_next(503, {"error": "maintenance"}, route="/read")
    shop.account.shown["a"] = 25
    assert await read_back(shop) == {"a": 25, "b": 20, "c": 20}
    assert shop.account.shown["a"] == 20


async def test_a_listing_that_will_be_confirmed_is_not_read_before(shop: Shop) -> None:
    async with shop.account.gate() as gate:
        await shop.update("a", 5)
        await gate.entered()
        newer = await shop.update("a", 9)
        gate.let_later_pass()
        await shop.hub.ended(newer)
        await shop.waiting_for("confirmation")
        world = shop.hub.world
        read = await marked(shop, DueFor.RECONCILE)
        async with world.pool.connection() as connection:
            others = await upkeep.count_others(connection, tenant_id=world.tenant_id, store_ids=[shop.store.id])
        assert (len(read), others["busy"]) == (2, 1)  # the one in doubt
        gate.open()
        await shop.account.wait_for_writes(5)
    await shop.hub.later(QUIESCE_SECONDS)
    await shop.hub.at_rest()
    assert shop.account.quantities("a") == [20, 9, 5, 9]


async def test_what_shows_too_much_is_brought_down_to_the_floor(shop: Shop) -> None:
    shop.account.shown["a"] = 25
    shop.account.reserve("a", 22)
    await marked(shop, DueFor.RECONCILE)
    await shop.waiting_for("floor")
    assert shop.account.shown["a"] == 22
