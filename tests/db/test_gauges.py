"""What stands in the way of everything being delivered, counted for the metrics."""

from __future__ import annotations

import pytest

from lumbung.db import gauges
from lumbung.db.gauges import Gauges
from tests.db.delivering import Told, leased, listing_ids, record
from tests.world import World, stock_update

COVERS = {"count_due", "count_waiting", "count_parked", "oldest_due"}


async def read(world: World, rows_max: int = 100) -> Gauges:
    async with world.pool.connection() as connection:
        return await gauges.read(connection, rows_max=rows_max)


async def listed(world: World, count: int) -> list[int]:
    """So many listings that are due."""
    await world.tenant()
    await world.store()
    skus = [f"sku{n}" for n in range(count)]
    await world.variants(*skus)
    await world.listings([(sku, "Toko Padi", sku) for sku in skus])
    await world.accept(*(stock_update(sku, blib=n) for n, sku in enumerate(skus)))
    return list((await listing_ids(world)).values())


async def test_nothing_to_deliver_is_nothing_to_count(world: World) -> None:
    await world.small()
    assert await read(world) == Gauges({}, {}, 0, 0.0)


async def test_due_waiting_and_parked_listings_are_counted_by_lane_and_reason_up_to_the_limit(world: World) -> None:
    ids = await listed(world, 9)
    held = await leased(world)
    version = await world.value("SELECT min(version_due) FROM listing_state")
    kinds = ("retry", "retry", "retry", "defer", "parked", "parked")
    told = [Told(listing, version, 0, kind, 60.0) for listing, kind in zip(ids, kinds, strict=False)]
    await record(world, held, *told)
    await world.execute("UPDATE listing_state SET lane = 5 WHERE listing_id = $1", ids[-1])
    found = await read(world)
    assert (found.due, found.waiting, found.parked) == ({2: 2, 5: 1}, {"backoff": 3, "deferred": 1, "parked": 2}, 2)
    few = await read(world, rows_max=1)
    assert (sum(few.due.values()), sum(few.waiting.values()), few.parked) == (1, 1, 1)


async def test_the_oldest_that_is_due_is_found_in_every_store(world: World) -> None:
    await listed(world, 3)
    await world.tenant("Other")
    await world.store("elsewhere")
    await world.variants("sku1")
    await world.listings([("sku1", "elsewhere", "x")])
    await world.accepted(stock_update(blib=1))
    for age, listing in enumerate((await world.rows("SELECT listing_id FROM listing_state ORDER BY 1")), start=1):
        await world.execute(
            "UPDATE listing_state SET due_since = now() - $1 * interval '100 seconds' WHERE listing_id = $2",
            age,
            listing["listing_id"],
        )
    assert (await read(world)).oldest_due_seconds == pytest.approx(400, abs=20)
    await world.execute(
        "UPDATE listing_state SET state = 'waiting', lane = 0 WHERE listing_id = $1", listing["listing_id"]
    )
    assert (await read(world)).oldest_due_seconds == pytest.approx(300, abs=20)
