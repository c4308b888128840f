"""Accepting and recording on the same rows from several connections at once: no deadlock, nothing lost or left open."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from lumbung.db.delivery import Due
from lumbung.db.lease import LeaseRow
from lumbung.errors import LockBusy, LumbungError
from lumbung.inventory.stock import Receipt
from lumbung.model import StockUpdate
from tests.db.delivering import Told, claim, record, register, release, window
from tests.world import RULES, World, stock_update

SKUS, STORES, ROUNDS, ACCEPTORS = 20, ("one", "two", "three"), 12, 3

LEFT_OPEN = """
SELECT count(*) FROM item i WHERE finished_at IS NULL AND NOT EXISTS (
    SELECT FROM contribution c JOIN listing_state s USING (tenant_id, listing_id)
    WHERE c.tenant_id = i.tenant_id AND c.listing_id = i.listing_id AND c.warehouse_id = i.warehouse_id
      AND (c.item_id, c.item_created_at, c.version) = (i.id, i.created_at, i.update_id)
      AND c.version > s.version_settled)
"""
MISCOUNTED = """
SELECT count(*) FROM stock_update u
WHERE items_open <> (SELECT count(*) FROM item i WHERE i.tenant_id = u.tenant_id AND i.created_at = u.created_at
                                                  AND i.update_id = u.id AND i.finished_at IS NULL)
   OR items <> (SELECT count(*) FROM item i WHERE i.tenant_id = u.tenant_id AND i.created_at = u.created_at
                                              AND i.update_id = u.id)
   OR updated_at < created_at OR finished_at < created_at
"""
WRONG_SUMS = """
SELECT count(*) FROM listing_state s
WHERE quantity_due <> (SELECT sum(quantity) FROM contribution c
                       WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id)
   OR version_due <> (SELECT max(version) FROM contribution c
                      WHERE c.tenant_id = s.tenant_id AND c.listing_id = s.listing_id)
"""
FORGOTTEN = """
SELECT count(*) FROM listing_state s
WHERE (version_due > version_settled OR state = 'waiting') AND lane = 0 AND NOT EXISTS (
    SELECT FROM listing_wait w WHERE w.tenant_id = s.tenant_id AND w.listing_id = s.listing_id)
"""
# A parked listing waits in listing_wait for as long as updates leave it alone: not at all here.
AT_ONCE = replace(RULES, park_retry_seconds=0.0)


@dataclass
class Crowd:
    """Everybody who works on the same rows; `last` is what each (SKU, warehouse) was told last, by version."""

    world: World
    dice: random.Random
    last: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)

    async def accept(self) -> None:
        updates = [self._update() for _ in range(self.dice.randrange(1, 24))]
        results = await self._patiently(lambda: self.world.accept(*updates, rules=AT_ONCE))
        for update, result in zip(updates, results, strict=True):
            assert isinstance(result, Receipt), result
            key = (update.sku, update.warehouse)
            self.last[key] = max(self.last.get(key, (0, 0)), (result.update_id, update.figures["blib"]))

    def _update(self) -> StockUpdate:
        sku = f"sku{self.dice.randrange(SKUS)}"
        return stock_update(sku, warehouse=self.dice.choice(["default", "east"]), blib=self.dice.randrange(50))

    async def deliver(self, held: LeaseRow) -> None:
        due = await window(self.world, store=held.store_name, limit=40)
        self.dice.shuffle(due)
        told = [self._told(listing) for listing in due]
        if told:
            assert await self._patiently(lambda: record(self.world, held, *told)) == {t.listing_id for t in told}

    def _told(self, due: Due) -> Told:
        kind = self.dice.choice(["delivered", "delivered", "retry", "stay", "parked"])
        wait = {"retry": 0.0, "parked": 0.0}.get(kind)
        reason = "parked" if kind == "parked" else "backoff"
        return Told(due.listing_id, due.version, due.quantity, kind, wait, reason)

    async def release(self) -> None:
        await self._patiently(lambda: release(self.world))

    async def _patiently(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """A lock that is not had in time may be tried again; a deadlock is a mistake in the order of locks."""
        while True:
            try:
                return await work()
            except LockBusy as error:
                self.busy.append(type(error.__cause__).__name__)
            except LumbungError as error:
                raise AssertionError(error) from error


async def crowd_of(world: World, seed: int) -> tuple[Crowd, list[LeaseRow]]:
    await world.tenant()
    east = await world.warehouse("east")
    ids = [await world.store(name, warehouses={0: None, east: None}) for name in STORES]
    # The ids of variants, listings and SKUs are in different orders.
    skus = [f"sku{n}" for n in range(SKUS)]
    for sku in reversed(skus):
        await world.variants(sku)
    await world.listings([(sku, store, f"{sku}-{store}") for store in STORES for sku in skus])
    return Crowd(world, random.Random(seed)), await claim(world, await register(world), *ids)


async def test_updates_and_results_on_the_same_listings_never_deadlock_and_leave_everything_right(world: World) -> None:
    crowd, leases = await crowd_of(world, seed=7)
    for _ in range(ROUNDS):
        await asyncio.gather(
            *(crowd.accept() for _ in range(ACCEPTORS)), *(crowd.deliver(held) for held in leases), crowd.release()
        )
    assert crowd.busy == []
    for query in (LEFT_OPEN, MISCOUNTED, WRONG_SUMS, FORGOTTEN):
        assert await world.value(query) == 0, query
    for (sku, warehouse), (_, figure) in crowd.last.items():
        quantities = await world.rows(
            "SELECT DISTINCT c.quantity FROM contribution c JOIN listing l ON l.id = c.listing_id"
            " JOIN variant v ON v.id = l.variant_id JOIN warehouse w ON w.id = c.warehouse_id"
            " WHERE v.sku = $1 AND w.name = $2",
            sku,
            warehouse,
        )
        assert [row["quantity"] for row in quantities] == [figure]


async def test_when_updates_have_ended_every_listing_is_delivered_and_every_item_ended(world: World) -> None:
    crowd, leases = await crowd_of(world, seed=11)
    for _ in range(3):
        await asyncio.gather(*(crowd.accept() for _ in range(ACCEPTORS)), *(crowd.deliver(held) for held in leases))
    for _ in range(50):
        await world.execute("UPDATE listing_wait SET due_at = now() - interval '1 second'")
        await crowd.release()
        # An update that came too soon after a park is retried; what was rejected since waits for the next update.
        await asyncio.gather(*(crowd.deliver(held) for held in leases))
        if await world.value("SELECT count(*) FROM listing_state WHERE version_due > version_settled") == 0:
            break
    assert crowd.busy == []
    assert await world.value("SELECT count(*) FROM item WHERE finished_at IS NULL") == 0
    assert await world.value("SELECT count(*) FROM stock_update WHERE finished_at IS NULL") == 0
    assert await world.rows(
        "SELECT count(*) AS n FROM listing_state WHERE version_delivered = version_due"
        " AND (quantity_delivered <> quantity_due OR state NOT IN ('idle'))"
    ) == [{"n": 0}]
