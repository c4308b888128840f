"""Sentences of the design that no other test of the database holds."""

from __future__ import annotations

import asyncio
import re
from importlib import resources

import pytest

from lumbung.cli.compose import maintain
from lumbung.db import partitions, wake
from lumbung.db.partitions import PARTITIONED, partition_name, weeks
from lumbung.db.wake import Listener
from lumbung.dispatch.policy import Again, Deliver, Park, Retry
from lumbung.settings import Settings
from tests.db.delivering import Told, leased, record, release
from tests.world import World, stock_update

PADI = "TOQ-1-1-1"


async def test_a_sum_of_warehouses_may_be_more_than_one_warehouse_can_hold(world: World) -> None:
    most = 2**31 - 1
    await world.tenant()
    await world.warehouse("east")
    await world.warehouse("west")
    stores = {row["id"]: None for row in await world.rows("SELECT id FROM warehouse")}
    await world.store(warehouses=stores)
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", PADI)])
    for warehouse in ("default", "east", "west"):
        await world.accepted(stock_update(available=most, warehouse=warehouse, blib=most))
    assert await world.due() == {PADI: 3 * most}
    state = (await world.states())[PADI]
    await record(world, await leased(world), Told(state["listing_id"], state["version_due"], 3 * most))
    assert (await world.states())[PADI]["quantity_delivered"] == 3 * most


async def test_attempts_write_no_history_until_an_item_ends(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    held, state = await leased(world), (await world.states())[PADI]

    async def rows() -> list[list[dict[str, object]]]:
        tables = ("item", "stock_update", "stock_change", "contribution")
        return [await world.rows(f"SELECT xmin::text, ctid::text FROM {table}") for table in tables]  # noqa: S608

    before = await rows()
    for decision in (Again(doubt_seconds=60.0), Retry(0.0)):
        await record(world, held, Told(state["listing_id"], state["version_due"], 20, decision))
    assert (await world.states())[PADI]["attempts"] == 2
    assert await rows() == before
    await world.execute("UPDATE listing_wait SET due_at = now() - interval '1 second'")
    await release(world)
    await record(world, held, Told(state["listing_id"], state["version_due"], 20, Deliver()))
    after = await rows()
    assert (after[0] != before[0], after[1] != before[1], after[2:] == before[2:]) == (True, True, True)


async def test_accepting_notifies_nobody_in_its_own_transaction(world: World) -> None:
    await world.small()
    heard: asyncio.Queue[frozenset[int] | None] = asyncio.Queue()
    listening = asyncio.create_task(Listener(world.pool, Settings()).listen(heard.put_nowait))
    assert await heard.get() is None
    await world.accepted(stock_update(blib=1))
    await wake.notify(world.pool, [4711])
    assert await heard.get() == frozenset({4711})
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.parametrize("name", ["stock", "delivery", "lease", "budget", "stats", "upkeep"])
def test_no_statement_that_accepts_or_delivers_passes_over_a_row_that_is_there(name: str) -> None:
    """DO NOTHING takes no lock: what is decided upon such a row is decided upon what may have changed."""
    sql = resources.files("lumbung.db").joinpath(f"{name}.sql").read_text(encoding="utf-8")
    statements = re.sub(r"--.*", "", sql)
    assert "do nothing" not in statements.lower()


async def test_every_role_makes_partitions_as_long_as_it_runs(world: World) -> None:
    ahead = await world.value("SELECT now() + interval '60 days'")
    [last] = weeks(ahead, ahead)
    names = {partition_name(parent, last) for parent in PARTITIONED}

    async def made() -> bool:
        async with world.pool.connection() as connection:
            return names <= await partitions.attached(connection)

    maintaining = asyncio.create_task(maintain(world.pool, Settings(maintenance_interval_seconds=0.01)))
    async with asyncio.timeout(30):
        for _ in range(2):  # at its start, and again
            while not await made():
                continue
            await world.execute(f"DROP TABLE {', '.join(sorted(names))}")
    maintaining.cancel()
    await asyncio.wait([maintaining])


async def test_a_parked_listing_that_is_mapped_to_another_sku_is_sent_at_once(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accept(stock_update(blib=20), stock_update("sku2", blib=5))
    old, held = (await world.states())[PADI], await leased(world)
    await record(world, held, Told(old["listing_id"], old["version_due"], 20, Park("Banned")))
    assert await world.due() == {PADI: None}
    await world.listings([("sku2", "Toko Padi", PADI)])
    assert await world.due() == {PADI: 5}
    assert (await world.states())[PADI]["listing_id"] != old["listing_id"]
