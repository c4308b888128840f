"""Statistics a minute: whoever adds to them, the sums are exact."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from lumbung.db import stats
from lumbung.db.stats import Counts
from lumbung.model import LATENCY_SECONDS
from tests.db.delivering import blocked, waiting
from tests.world import World

COVERS = {"add_stats", "forget_stats"}

BUCKETS = len(LATENCY_SECONDS) + 1
ONE_SLOT = "CREATE FUNCTION public.pg_backend_pid() RETURNS int LANGUAGE sql AS 'SELECT 3'"


def buckets(**counts: int) -> list[int]:
    """A latency array: `b3=2` are two items in the fourth bucket."""
    return [counts.get(f"b{n}", 0) for n in range(BUCKETS)]


async def sums(world: World) -> dict[tuple[int, int], tuple[Any, ...]]:
    """accepted, pushed, failed and latency of each store, over everything."""
    rows = await world.rows(
        "SELECT tenant_id, store_id, sum(accepted)::int AS a, sum(pushed)::int AS p, sum(failed)::int AS f"
        " FROM stats_minute GROUP BY 1, 2"
    )
    latency = await world.rows(
        "SELECT tenant_id, store_id, n, sum(one)::int AS s FROM stats_minute,"
        " unnest(latency) WITH ORDINALITY AS u (one, n) GROUP BY 1, 2, 3 ORDER BY 3"
    )
    return {
        (row["tenant_id"], row["store_id"]): (
            row["a"],
            row["p"],
            row["f"],
            [
                one["s"]
                for one in latency
                if one["store_id"] == row["store_id"] and one["tenant_id"] == row["tenant_id"]
            ],
        )
        for row in rows
    }


async def add(world: World, counts: dict[tuple[int, int], Counts]) -> None:
    async with world.pool.transaction() as connection:
        await stats.add(connection, counts)


async def share(world: World, *stores: int) -> None:
    """In the slot that everybody has after ONE_SLOT."""
    async with world.pool.transaction() as connection:
        await connection.execute("SET LOCAL search_path = public, pg_catalog")
        await stats.add(connection, {(1, store): Counts(1, 1, 1, buckets(b0=1)) for store in stores})


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.01, 0), (0.010001, 1), (0.5, 5), (1.0, 6), (3600.0, 14), (3600.1, 15), (10**9, 15)],
)
def test_a_time_is_counted_in_the_first_bucket_whose_limit_it_does_not_exceed(seconds: float, bucket: int) -> None:
    counts = Counts()
    counts.delivered_after(seconds)
    assert counts.latency == buckets(**{f"b{bucket}": 1})


async def test_what_is_added_in_a_minute_is_summed_element_by_element(world: World) -> None:
    async with world.pool.transaction() as connection:  # one transaction is one minute and one slot
        await stats.add(connection, {(1, 7): Counts(1, 2, 3, buckets(b0=1, b15=2)), (1, 8): Counts(accepted=9)})
        await stats.add(connection, {(2, 7): Counts(failed=5), (1, 7): Counts(10, 20, 30, buckets(b0=4, b3=5))})
    assert await sums(world) == {
        (1, 7): (11, 22, 33, buckets(b0=5, b3=5, b15=2)),
        (1, 8): (9, 0, 0, buckets()),
        (2, 7): (0, 0, 5, buckets()),
    }
    rows = await world.rows("SELECT DISTINCT minute = date_trunc('minute', minute) AS whole, slot FROM stats_minute")
    assert [row["whole"] for row in rows] == [True]
    assert await world.value("SELECT count(*) FROM stats_minute") == 3


async def test_buckets_that_a_row_does_not_have_yet_count_as_none(world: World) -> None:
    async with world.pool.transaction() as connection:
        await stats.add(connection, {(1, 7): Counts(latency=[])})
        await stats.add(connection, {(1, 7): Counts(latency=[1, 2])})
        await stats.add(connection, {(1, 7): Counts(latency=buckets(b1=1, b2=1))})
        await stats.add(connection, {(1, 7): Counts(latency=[1])})
    assert await sums(world) == {(1, 7): (0, 0, 0, buckets(b0=2, b1=3, b2=1))}


async def test_nothing_to_add_is_no_statement(world: World) -> None:
    async with world.pool.transaction() as connection:
        await connection.execute("SET TRANSACTION READ ONLY")
        await stats.add(connection, {})


async def test_writers_of_the_same_minute_add_up_exactly_and_never_deadlock(world: World) -> None:
    stores = [(tenant, store) for tenant in (2, 1) for store in (9, 5, 7)]
    one = Counts(1, 2, 3, buckets(b2=1, b15=4))

    async def writer(number: int) -> None:
        for turn in range(8):
            start = (number + turn) % len(stores)
            await add(world, dict.fromkeys(stores[start:] + stores[:start], one))

    await asyncio.gather(*(writer(number) for number in range(8)))
    assert await sums(world) == dict.fromkeys(stores, (64, 128, 192, buckets(b2=64, b15=256)))
    assert await world.value("SELECT bool_and(slot BETWEEN 0 AND 15) FROM stats_minute")


async def test_two_writers_that_share_a_slot_lose_nothing(world: World) -> None:
    """More writers than slots: each writes and waits for the others' commits."""
    await world.execute(ONE_SLOT)
    await asyncio.gather(*(share(world, 7) for _ in range(12)))  # they make the row
    await asyncio.gather(
        *(share(world, 7) for _ in range(12))
    )  # they find it, and another version when they have its lock
    assert await sums(world) == {(1, 7): (24, 24, 24, buckets(b0=24))}
    assert await world.value("SELECT array_agg(DISTINCT slot) FROM stats_minute") == [3]


async def test_writers_that_share_a_slot_wait_for_rows_in_one_order_also_while_one_is_missing(world: World) -> None:
    await world.execute(ONE_SLOT)
    await share(world, 5)
    async with world.pool.transaction() as connection:
        await connection.execute("SELECT FROM stats_minute WHERE store_id = 5 FOR UPDATE")
        first = asyncio.create_task(share(world, 3, 5))  # 3 is not there yet
        await blocked(world)
        maker = asyncio.create_task(share(world, 3))
        async with asyncio.timeout(20):
            while not maker.done() and await waiting(world) < 2:
                continue
        second = asyncio.create_task(share(world, 3, 5))
        await blocked(world, 2 if maker.done() else 3)
    await asyncio.gather(first, maker, second)
    assert {store: counts[0] for (_, store), counts in (await sums(world)).items()} == {3: 3, 5: 3}


async def test_what_is_older_than_the_retention_is_forgotten(world: World) -> None:
    now: datetime = await world.value("SELECT now()")
    for days in (0, 29, 31):
        await world.execute(
            "INSERT INTO stats_minute (tenant_id, store_id, minute, slot) VALUES (1, $1, $2, 0)",
            days,
            now - timedelta(days=days),
        )
    async with world.pool.connection() as connection:
        await stats.forget(connection, days=30)
    assert await world.rows("SELECT store_id FROM stats_minute ORDER BY 1") == [{"store_id": 0}, {"store_id": 29}]
