"""Accepting and recording on the same rows from several connections at once: no deadlock, nothing lost or left open."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lumbung.db.delivery import Due
from lumbung.db.lease import LeaseRow
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Defer,
    Deliver,
    ListingDecision,
    Park,
    Retry,
    Settle,
    Stay,
    Submit,
)
from lumbung.errors import LockBusy, LumbungError
from lumbung.inventory.stock import Receipt
from lumbung.model import DueFor, StockUpdate
from lumbung.settings import Settings
from tests.db.delivering import Told, claim, record, register, release, window
from tests.world import World, stock_update

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
WHERE (version_due > version_settled OR state = 'waiting' OR park_retry_at IS NOT NULL) AND lane = 0 AND NOT EXISTS (
    SELECT FROM listing_wait w WHERE w.tenant_id = s.tenant_id AND w.listing_id = s.listing_id)
"""
# A parked listing is tried again at once.
AT_ONCE = Settings(park_retry_seconds=0.0)

PUSHED: list[ListingDecision] = [
    Deliver(),
    Deliver(),
    Deliver(0.0),
    AwaitFloor(0.0, sent=True),
    AwaitFloor(0.0, sent=False),
    Retry(0.0, doubt_seconds=1.0),
    Again(),
    Defer(0.0),
    Stay(),
    Submit("handle", 0.0),
    Park("Banned"),
]
READ: list[ListingDecision] = [Settle(1), Settle(None), Correct(99), Retry(0.0), Stay(), Defer(0.0)]


@dataclass
class Crowd:
    """Everybody who works on the same rows; `last` is what each (SKU, warehouse) was told last, by version."""

    world: World
    dice: random.Random
    last: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)

    async def accept(self) -> None:
        updates = [self._update() for _ in range(self.dice.randrange(1, 24))]
        results = await self._patiently(lambda: self.world.accept(*updates))
        for update, result in zip(updates, results, strict=True):
            assert isinstance(result, Receipt), result
            key = (update.sku, update.warehouse)
            self.last[key] = max(self.last.get(key, (0, 0)), (result.update_id, update.figures["blib"]))

    def _update(self) -> StockUpdate:
        sku = f"sku{self.dice.randrange(SKUS)}"
        return stock_update(sku, warehouse=self.dice.choice(["default", "east"]), blib=self.dice.randrange(50))

    async def deliver(self, held: LeaseRow, decision: ListingDecision | None = None) -> int:
        """Tell everything that is due, with one decision or any; returns how much it was."""
        due = await window(self.world, store=held.store_name, limit=40)
        self.dice.shuffle(due)
        told = [self._told(listing, decision) for listing in due]
        if told:
            assert await self._patiently(lambda: record(self.world, held, *told, settings=AT_ONCE)) == {
                t.listing_id for t in told
            }
        return len(told)

    def _told(self, due: Due, decision: ListingDecision | None) -> Told:
        version, quantity, handle = due.version, due.quantity, None
        if due.due_for is DueFor.ASK and due.submitted is not None:
            version, quantity, handle = due.submitted.version, due.submitted.quantity, due.submitted.handle
        if decision is None:
            decision = self.dice.choice(READ if due.due_for is DueFor.CONFIRM else PUSHED)
        return Told(due.listing_id, version, quantity, decision, due_for=due.due_for, handle=handle)

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
    for decision in [None] * 10 + [Deliver()] * 10:
        await world.execute("UPDATE listing_wait SET due_at = now() - interval '1 second'")
        await crowd.release()
        left = await asyncio.gather(*(crowd.deliver(held, decision) for held in leases))
        if decision is not None and sum(left) == 0:
            break
    else:
        raise AssertionError("something is always due")
    assert crowd.busy == []
    for query in (LEFT_OPEN, MISCOUNTED, WRONG_SUMS, FORGOTTEN):
        assert await world.value(query) == 0, query
    assert await world.value("SELECT count(*) FROM item WHERE finished_at IS NULL") == 0
    assert await world.value("SELECT count(*) FROM stock_update WHERE finished_at IS NULL") == 0
    ends = await world.rows(
        "SELECT DISTINCT state, version_settled = version_due AS settled, version_delivered = version_due AS delivered,"
        " quantity_delivered = quantity_due AS shown FROM listing_state WHERE state <> 'parked'"
    )
    assert ends == [{"state": "idle", "settled": True, "delivered": True, "shown": True}]
    assert await world.value("SELECT count(*) FROM listing_state WHERE version_settled <> version_due") == 0
