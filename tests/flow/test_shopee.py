"""Shopee end to end: applications, tokens, batches, locations, locks and floors, over real HTTP against the sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lumbung.channels.base import Tokens
from lumbung.db import applications
from lumbung.db import stores as stores_db
from lumbung.dispatch.tokens import digest, seal, unseal
from lumbung.inventory import stores
from lumbung.inventory.listings import Mapped, import_listings
from lumbung.keyring import Keyring
from tests.flow.hub import FAST, Hub, running_hub, running_worker, until
from tests.world import REMAP_DOUBT_SECONDS, SUBMITTED_SECONDS

PARTNER_ID = 1000001
PARTNER_KEY = "partner-key-of-the-sandbox"
UPDATE = "/shpe/api/v2/product/update_stock"
REFRESH = "/shpe/api/v2/auth/access_token/get"
LIFE = timedelta(hours=4)
REFRESH_LIFE = timedelta(days=30)


class ShopeeHub:
    """A hub with Shopee shops of one application. A shop's items are named by their SKUs: `ITEM` or `ITEM/MODEL`."""

    def __init__(self, hub: Hub, application_id: int):
        self.hub = hub
        self.application_id = application_id

    async def shop(
        self,
        shop_id: str,
        listed: Mapping[str, str],
        *,
        warehouses: Mapping[int, str | None] | None = None,
        tokens: bool = True,
        **settings: object,
    ) -> int:
        """A live store; `listed`: SKU by remote variant."""
        pair = {"access_token": f"access-of-{shop_id}", "refresh_token": f"refresh-of-{shop_id}"}
        rows = [{"remote_variant": remote, "sku": sku, "quantity": 0} for remote, sku in listed.items()]
        self.hub.sandbox.put_store(
            "shpe",
            shop_id,
            {"partner_id": PARTNER_ID, "partner_key": PARTNER_KEY, "listings": rows, **pair, **settings},
        )
        store_id = await self.hub.world.store(
            f"Shop {shop_id}",
            "shpe",
            warehouses=warehouses,
            credentials={"shop_id": shop_id, "calls_per_second": "500"},
            application_id=self.application_id,
        )
        if tokens:
            now = datetime.now(UTC)
            await self.put_tokens(
                store_id, Tokens(pair["access_token"], pair["refresh_token"], now, now + LIFE, now + REFRESH_LIFE)
            )
        await self.hub.world.variants(*listed.values())
        mapped = [Mapped(sku, store_id, "shpe", _remote(remote)) for remote, sku in listed.items()]
        async with self.hub.world.pool.transaction() as connection:
            await import_listings(
                connection,
                self.hub.world.tenant_id,
                mapped,
                remap_doubt_seconds=REMAP_DOUBT_SECONDS,
                submitted_seconds=SUBMITTED_SECONDS,
            )
        return store_id

    async def put_tokens(self, store_id: int, pair: Tokens) -> None:
        assert self.hub.world.keyring is not None
        await self.hub.world.execute(
            "UPDATE store SET tokens = $1, tokens_digest = $2, access_expires_at = $3, refresh_expires_at = $4"
            " WHERE id = $5",
            seal(self.hub.world.keyring, store_id, pair),
            digest(pair),
            pair.access_expires_at,
            pair.refresh_expires_at,
            store_id,
        )

    async def tokens(self, store_id: int) -> Tokens:
        assert self.hub.world.keyring is not None
        blob = await self.hub.world.value("SELECT tokens FROM store WHERE id = $1", store_id)
        return unseal(self.hub.world.keyring, store_id, blob)

    def shown(self, shop_id: str, remote: str) -> dict[str, int]:
        """Units by location, "" where there is none."""
        return dict(self.hub.sandbox.ledger.listing("shpe", shop_id, remote).stock)

    def calls(self, path: str = UPDATE, store: str | None = None) -> list[Any]:
        every = self.hub.sandbox.ledger.calls.after(0)
        return [json.loads(call.response_body) for call in every if call.path == path and store in {None, call.store}]

    def refreshes(self) -> int:
        """Calls that traded a token pair, or tried to; their bodies are kept nowhere."""
        return sum(call.path == REFRESH for call in self.hub.sandbox.ledger.calls.after(0))

    def sent(self) -> list[Any]:
        """The bodies of the stock updates, in the order in which they ended."""
        every = self.hub.sandbox.ledger.calls.after(0)
        return [json.loads(call.request_body) for call in every if call.path == UPDATE]


def _remote(text: str) -> str:
    item, _, model = text.partition("/")
    return json.dumps({"item_id": int(item), "variation_id": int(model or 0)})


@asynccontextmanager
async def running(database_url: str, keyring: Keyring, *, worker: bool = True) -> AsyncIterator[ShopeeHub]:
    async with running_hub(database_url, keyring, worker=False) as hub:
        key = {"partner_id": str(PARTNER_ID), "partner_key": PARTNER_KEY, "base_url": f"{hub.sandbox.url}/shpe"}
        shopee = ShopeeHub(hub, await hub.world.application(credentials=key))
        if not worker:
            yield shopee
            return
        async with running_worker(FAST, database_url, keyring, clock=hub.clock):
            yield shopee


@pytest.fixture
async def shopee(database_url: str, keyring: Keyring) -> AsyncIterator[ShopeeHub]:
    async with running(database_url, keyring) as hub:
        yield hub


async def test_an_update_reaches_shopee_and_its_history_tells_in_the_shape_of_the_contract(shopee: ShopeeHub) -> None:
    await shopee.shop("2000002", {"12346": "sku1"})
    code = await shopee.hub.update("sku1", 100, shpe=10)
    [item] = (await shopee.hub.ended(code))[code]["update_stock_history_item"]
    assert (item["channel"], item["qty"], item["success"], item["message"]) == (
        "shpe",
        10,
        True,
        "Successfully Updated",
    )
    assert item["remote_variant"] == '{"item_id": 12346, "variation_id": 0}'
    assert json.loads(item["client_reponse"])["stock"] == 10
    assert shopee.shown("2000002", "12346") == {"": 10}


async def test_variations_of_one_item_share_a_call(database_url: str, keyring: Keyring) -> None:
    async with running(database_url, keyring, worker=False) as shopee:
        await shopee.shop("1", {**{f"7/{n}": f"sku{n}" for n in range(1, 61)}, "8": "single"})
        codes = [await shopee.hub.update(f"sku{n}", 100, shpe=n) for n in range(1, 61)]
        codes.append(await shopee.hub.update("single", 100, shpe=99))
        async with running_worker(FAST, database_url, keyring, clock=shopee.hub.clock):
            await shopee.hub.ended(*codes)
        assert sorted((body["item_id"], len(body["stock_list"])) for body in shopee.sent()) == [
            (7, 10),
            (7, 50),
            (8, 1),
        ]
        assert all(shopee.shown("1", f"7/{n}") == {"": n} for n in range(1, 61))


async def test_an_expired_token_is_refreshed_once_under_ten_concurrent_pushes(shopee: ShopeeHub) -> None:
    store_id = await shopee.shop("1", {str(n): f"sku{n}" for n in range(1, 11)}, access_seconds=100)
    first = await shopee.tokens(store_id)
    shopee.hub.sandbox.ledger.clock.ahead_seconds = 200.0  # less than signatures may be old
    async with shopee.hub.sandbox.gate("shpe") as gate:
        codes = [await shopee.hub.update(f"sku{n}", 100, shpe=n) for n in range(1, 11)]
        await gate.entered(10)
        gate.open()
    await shopee.hub.ended(*codes)

    assert [answer["error"] for answer in shopee.calls()] == ["invalid_acceess_token"] * 10 + [""] * 10
    assert shopee.refreshes() == 1
    assert [shopee.shown("1", str(n)) for n in range(1, 11)] == [{"": n} for n in range(1, 11)]
    second = await shopee.tokens(store_id)
    assert first.access != second.access
    assert first.refresh != second.refresh
    retries = await shopee.hub.world.rows("SELECT DISTINCT attempts FROM listing_state")
    assert retries == [{"attempts": 0}]


async def test_a_token_is_refreshed_at_half_its_life_without_a_refused_call(shopee: ShopeeHub) -> None:
    store_id = await shopee.shop("1", {"1": "sku1"})
    shopee.hub.days_later(2.5 / 24)
    await shopee.hub.ended(await shopee.hub.update("sku1", 100, shpe=5))
    assert [answer["error"] for answer in shopee.calls()] == [""]
    assert shopee.refreshes() == 1
    assert (await shopee.tokens(store_id)).refresh != "refresh-of-1"


async def test_a_dead_refresh_token_pauses_one_store_only_and_keeps_its_work(shopee: ShopeeHub) -> None:
    dead = await shopee.shop("1", {"1": "sku1"})
    await shopee.shop("2", {"2": "sku1"})
    await _revoke(shopee, "1")
    code = await shopee.hub.update("sku1", 100, shpe=5)

    reason = await shopee.hub.paused("Shop 1")

    await until(lambda: _shown(shopee, "2", "2"), lambda shown: shown == {"": 5})
    assert "shop_no_linked" in reason or "refresh" in reason.lower()
    modes = await shopee.hub.world.rows("SELECT name, mode FROM store ORDER BY name")
    assert modes == [{"name": "Shop 1", "mode": "paused"}, {"name": "Shop 2", "mode": "live"}]

    async def under_way() -> dict[str, bool]:
        items = (await shopee.hub.records())[code]["update_stock_history_item"]
        return {item["store_name"]: item["progress"] for item in items}

    await until(under_way, lambda progress: progress == {"Shop 1": True, "Shop 2": False})
    states = await shopee.hub.world.rows("SELECT store_id, state FROM listing_state ORDER BY store_id")
    assert [row["state"] for row in states if row["store_id"] == dead] == ["due"]


async def test_a_store_that_is_changed_while_its_token_is_traded_is_opened_when_the_new_pair_is_written(
    shopee: ShopeeHub,
) -> None:
    """Opened before, it would trade the same refresh token again, hear that it is dead, and pause."""
    store_id = await shopee.shop("1", {"1": "sku1"})
    shopee.hub.days_later(2.5 / 24)
    world = shopee.hub.world
    async with shopee.hub.sandbox.gate("shpe") as gate:
        code = await shopee.hub.update("sku1", 100, shpe=5)
        await gate.entered()
        async with world.pool.transaction() as connection:
            await stores_db.revoke_lease(connection, store_id=store_id, quiesce_seconds=60.0)
        for _ in range(4):  # so often the worker has looked, and could have opened it
            await _renewed_again(shopee)
        assert gate.arrivals == 1
        gate.open()
        await shopee.hub.ended(code)
    assert shopee.refreshes() == 1
    assert await world.value("SELECT mode FROM store") == "live"
    assert shopee.shown("1", "1") == {"": 5}


async def test_a_refresh_whose_answer_is_lost_is_told_and_a_new_authorisation_mends_it(shopee: ShopeeHub) -> None:
    store_id = await shopee.shop("1", {"1": "sku1"}, access_seconds=100)
    shopee.hub.sandbox.ledger.clock.ahead_seconds = 200.0
    shopee.hub.sandbox.faults.set("shpe", drop_response_rate=1, times=1, path_contains="/auth/access_token/get")
    code = await shopee.hub.update("sku1", 100, shpe=5)
    assert "refresh" in (await shopee.hub.paused("Shop 1")).lower()

    shopee.hub.sandbox.put_store(
        "shpe",
        "1",
        {
            "partner_id": PARTNER_ID,
            "partner_key": PARTNER_KEY,
            "access_token": "a-new-access-token",
            "refresh_token": "a-new-refresh-token",
            "listings": [{"remote_variant": "1", "sku": "sku1", "quantity": 0}],
        },
    )
    now = datetime.now(UTC)
    new = Tokens("a-new-access-token", "a-new-refresh-token", now, now + LIFE, now + REFRESH_LIFE)
    await shopee.put_tokens(store_id, new)
    await shopee.hub.world.execute("UPDATE store SET mode = 'live', pause_reason = NULL, mode_before_pause = NULL")
    await shopee.hub.ended(code)
    assert shopee.shown("1", "1") == {"": 5}


async def test_a_store_that_sells_nothing_for_weeks_keeps_its_authorisation(
    database_url: str, keyring: Keyring
) -> None:
    async with running(database_url, keyring, worker=False) as shopee:
        store_id = await shopee.shop("1", {"1": "sku1"})
        shopee.hub.days_later(21)
        await _grown_old(shopee, 21)
        async with running_worker(FAST, database_url, keyring, clock=shopee.hub.clock):
            renewed = await until(lambda: shopee.tokens(store_id), lambda pair: pair.refresh != "refresh-of-1")
            kept = await until(lambda: shopee.hub.world.rows("SELECT url FROM call"), bool)
        assert shopee.calls() == []
        assert shopee.refreshes() == 1
        assert renewed.refresh_expires_at > shopee.hub.clock.now() + timedelta(days=29)
        assert [row["url"].partition("?")[0].endswith(REFRESH) for row in kept] == [True]


async def test_an_authorisation_that_died_unused_pauses_the_store_before_it_is_needed(
    database_url: str, keyring: Keyring
) -> None:
    async with running(database_url, keyring, worker=False) as shopee:
        await shopee.shop("1", {"1": "sku1"})
        shopee.hub.days_later(31)
        await _grown_old(shopee, 31)
        async with running_worker(FAST, database_url, keyring, clock=shopee.hub.clock):
            reason = await shopee.hub.paused("Shop 1")
        assert "refresh_token_expired" in reason
        assert shopee.calls() == []


async def test_a_store_that_nobody_authorised_is_paused_without_a_call(shopee: ShopeeHub) -> None:
    await shopee.shop("1", {"1": "sku1"}, tokens=False)
    await shopee.hub.update("sku1", 100, shpe=5)
    assert "lumbung store authorize" in await shopee.hub.paused("Shop 1")
    assert shopee.hub.sandbox.ledger.calls.last == 0


async def test_each_warehouse_is_shown_at_its_own_location_and_one_that_is_unlinked_shows_nothing(
    shopee: ShopeeHub,
) -> None:
    world = shopee.hub.world
    east = await world.warehouse("surabaya")
    await shopee.shop("1", {"1": "sku1"}, warehouses={0: "IDJ", east: "IDS"}, locations=["IDJ", "IDS"])
    await shopee.hub.ended(await shopee.hub.update("sku1", 100, shpe=7))
    await shopee.hub.ended(await shopee.hub.update("sku1", 100, warehouse="surabaya", shpe=5))
    assert shopee.shown("1", "1") == {"IDJ": 7, "IDS": 5}

    await _unlink(shopee, east)
    await until(lambda: _shown(shopee, "1", "1"), lambda shown: shown == {"IDJ": 7, "IDS": 0})
    await shopee.hub.ended(await shopee.hub.update("sku1", 100, shpe=6))
    assert shopee.shown("1", "1") == {"IDJ": 6, "IDS": 0}


async def test_a_write_of_the_wrong_structure_parks_the_listing_with_shopees_words(shopee: ShopeeHub) -> None:
    await shopee.shop("1", {"1": "sku1"}, warehouses={0: "IDJ"}, locations=["IDJ"])
    await shopee.hub.ended(await shopee.hub.update("sku1", 100, shpe=3))
    await _link(shopee, 0, None)
    query = "SELECT park_reason FROM listing_state"
    reason = await until(lambda: shopee.hub.world.value(query), lambda reason: reason is not None)
    assert "structure" in reason
    assert shopee.shown("1", "1") == {"IDJ": 3}


async def test_below_what_is_reserved_the_minimum_is_shown_and_the_rest_follows(shopee: ShopeeHub) -> None:
    await shopee.shop("1", {"1": "sku1"})
    await shopee.hub.ended(await shopee.hub.update("sku1", 100, shpe=50))
    listing = shopee.hub.sandbox.ledger.listing("shpe", "1", "1")
    listing.reserved_by_promotions = 8
    code = await shopee.hub.update("sku1", 100, shpe=3)
    await until(lambda: _shown(shopee, "1", "1"), lambda shown: shown == {"": 8})
    listing.reserved_by_promotions = 0
    await until(shopee.hub.waits, lambda waits: waits == ["floor"])
    await shopee.hub.later(FAST.floor_retry_seconds + 1)
    await shopee.hub.ended(code)
    assert shopee.shown("1", "1") == {"": 3}


async def test_of_one_call_the_healthy_rows_are_taken_and_the_others_told_apart(
    database_url: str, keyring: Keyring
) -> None:
    async with running(database_url, keyring, worker=False) as shopee:
        await shopee.shop("1", {f"7/{n}": f"sku{n}" for n in range(1, 5)})
        shopee.hub.sandbox.faults.set("shpe", row_faults={"sku2": "unknown", "sku3": "locked"})
        codes = {n: await shopee.hub.update(f"sku{n}", 100, shpe=n) for n in range(1, 5)}
        async with running_worker(FAST, database_url, keyring, clock=shopee.hub.clock):
            records = await shopee.hub.ended(codes[1], codes[2], codes[4])
            await until(shopee.hub.waits, lambda waits: waits == ["parked", "deferred"])
        told = {n: records[codes[n]]["update_stock_history_item"][0] for n in (1, 2, 4)}
        assert [told[n]["success"] for n in (1, 2, 4)] == [True, False, True]
        assert [shopee.shown("1", f"7/{n}") for n in range(1, 5)] == [{"": 1}, {"": 0}, {"": 0}, {"": 4}]
        assert len(shopee.calls()) == 1


async def test_a_holiday_is_waited_for(shopee: ShopeeHub) -> None:
    await shopee.shop("1", {"1": "sku1"})
    store = shopee.hub.sandbox.ledger.store("shpe", "1")
    store.holiday = True
    code = await shopee.hub.update("sku1", 100, shpe=5)
    await until(shopee.hub.waits, lambda waits: waits == ["deferred"])
    store.holiday = False
    await shopee.hub.later(FAST.defer_default_seconds + 1)
    await shopee.hub.ended(code)
    assert shopee.shown("1", "1") == {"": 5}


async def test_stores_of_one_application_stay_within_its_limit_together(database_url: str, keyring: Keyring) -> None:
    async with running(database_url, keyring, worker=False) as shopee:
        for shop in ("1", "2", "3"):
            await shopee.shop(shop, {f"{shop}{n}": f"sku{shop}{n}" for n in range(10)})
        async with shopee.hub.world.pool.transaction() as connection:
            await applications.set_limit(
                connection, application_id=shopee.application_id, calls_per_second=15.0, burst=1
            )
        shopee.hub.sandbox.faults.set("shpe", application_rate_limit_per_s=16)
        codes = [await shopee.hub.update(f"sku{shop}{n}", 100, shpe=n) for shop in ("1", "2", "3") for n in range(10)]
        async with running_worker(FAST, database_url, keyring, clock=shopee.hub.clock):
            await shopee.hub.ended(*codes)
        assert [answer["error"] for answer in shopee.calls()] == [""] * 30


async def test_what_was_in_doubt_is_read_back_by_item(shopee: ShopeeHub) -> None:
    await shopee.shop("1", {"7/1": "sku1", "7/2": "sku2", "8": "sku3"})
    shopee.hub.sandbox.faults.set("shpe", apply_then_5xx_rate=1, times=1, path_contains="update_stock")
    code = await shopee.hub.update("sku1", 100, shpe=5)
    await shopee.hub.ended(code)
    await until(shopee.hub.waits, lambda waits: waits == ["confirmation"])
    await shopee.hub.later(61)
    await shopee.hub.at_rest()
    assert len(shopee.calls("/shpe/api/v2/product/get_model_list")) == 1
    assert shopee.shown("1", "7/1") == {"": 5}


async def _shown(shopee: ShopeeHub, shop_id: str, remote: str) -> dict[str, int]:
    return shopee.shown(shop_id, remote)


async def _revoke(shopee: ShopeeHub, shop_id: str) -> None:
    async with asyncio.timeout(10):
        url = f"{shopee.hub.sandbox.url}/_control/stores/shpe/{shop_id}/revoke"
        async with shopee.hub.client.session.post(url) as answer:
            assert answer.status == 200


async def _renewed_again(shopee: ShopeeHub) -> None:
    query = "SELECT max(renewed_at) FROM worker"
    before = await shopee.hub.world.value(query)
    await until(lambda: shopee.hub.world.value(query), lambda at: at > before)


async def _grown_old(shopee: ShopeeHub, days: float) -> None:
    """What the database thinks of the tokens, whose clock is the real one."""
    await shopee.hub.world.execute(
        "UPDATE store SET access_expires_at = access_expires_at - $1 * interval '1 day',"
        " refresh_expires_at = refresh_expires_at - $1 * interval '1 day'",
        days,
    )


async def _unlink(shopee: ShopeeHub, warehouse_id: int) -> None:
    await _change_links(shopee, stores_db.unlink, warehouse_id=warehouse_id)


async def _link(shopee: ShopeeHub, warehouse_id: int, location: str | None) -> None:
    await _change_links(shopee, stores_db.link, warehouse_id=warehouse_id, location=location)


async def _change_links(shopee: ShopeeHub, change: Callable[..., Awaitable[object]], **which: object) -> None:
    world = shopee.hub.world
    [store] = world.stores.values()
    async with world.pool.transaction() as connection:
        await change(connection, tenant_id=world.tenant_id, store_id=store.id, **which)
    await stores.settle(world.pool, FAST, store, lambda _: None)
