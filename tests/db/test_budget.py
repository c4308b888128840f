"""Limits that the stores of one application share: never more than the burst and what has flowed out since."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lumbung.db import budget
from lumbung.db.budget import Grant
from tests.world import World

COVERS = {"reserve", "block", "put_budget"}

BLOCK_SECONDS_MAX = 3600.0
SLOW = 0.000_001  # calls a second: nothing flows out during a test


async def app(world: World, name: str = "app", budgets: Mapping[str, tuple[float, int]] | None = None) -> int:
    """An application with budgets of (calls per second, burst), by name."""
    app_id = int(
        await world.value(
            "INSERT INTO channel_app (channel, name, credentials) VALUES ('shpe', $1, '') RETURNING id", name
        )
    )
    for budget_name, (rate, burst) in (budgets or {}).items():
        await put(world, app_id, budget_name, rate, burst)
    return app_id


async def put(world: World, app_id: int, name: str, rate: float, burst: int) -> None:
    async with world.pool.connection() as connection:
        await budget.put_budget(connection, channel_app_id=app_id, name=name, calls_per_second=rate, burst=burst)


async def reserve(world: World, app_id: int, calls: int) -> Grant:
    async with world.pool.connection() as connection:
        return await budget.reserve(connection, channel_app_id=app_id, calls=calls, block_seconds_max=BLOCK_SECONDS_MAX)


async def block(world: World, app_id: int, seconds: float) -> None:
    async with world.pool.connection() as connection:
        await budget.block(connection, channel_app_id=app_id, seconds=seconds, block_seconds_max=BLOCK_SECONDS_MAX)


async def granted(world: World, app_id: int, *wanted: int) -> list[int]:
    return [(await reserve(world, app_id, calls)).calls for calls in wanted]


async def passed(world: World, seconds: float) -> None:
    """Have so much time gone by since the last reservation; negative: the clock jumped back."""
    await world.execute("UPDATE budget SET refilled_at = clock_timestamp() - $1 * interval '1 second'", seconds)


async def test_an_application_without_a_budget_is_not_limited(world: World) -> None:
    app_id, other = await app(world), await app(world, "other", {"day": (1.0, 1)})
    assert await reserve(world, app_id, 7) == Grant(7, 0.0, limited=False)
    assert await reserve(world, other + 100, 7) == Grant(7, 0.0, limited=False)
    await block(world, app_id, 60)
    assert await world.value("SELECT count(*) FROM budget WHERE blocked_until IS NOT NULL") == 0


async def test_a_budget_gives_its_burst_and_then_what_flows_out(world: World) -> None:
    app_id = await app(world, budgets={"second": (SLOW, 10)})
    assert await granted(world, app_id, 4, 4, 4, 4) == [4, 4, 2, 0]
    await put(world, app_id, "second", 2.0, 10)
    await passed(world, 1.75)
    assert await granted(world, app_id, 10, 10) == [3, 0]
    await passed(world, 3600)
    assert await granted(world, app_id, 100) == [10]


async def test_a_budget_that_is_empty_says_when_there_may_be_room(world: World) -> None:
    app_id = await app(world, budgets={"second": (0.5, 4)})
    assert (await reserve(world, app_id, 4)).limited
    grant = await reserve(world, app_id, 1)
    assert grant.calls == 0
    assert grant.wait_seconds == pytest.approx(2.0, abs=0.5)
    await passed(world, grant.wait_seconds)
    assert await granted(world, app_id, 9) == [1]


async def test_what_is_asked_for_is_taken_out_of_every_budget_up_to_the_fullest(world: World) -> None:
    app_id = await app(world, budgets={"second": (SLOW, 3), "day": (SLOW, 5)})
    bystander = await app(world, "bystander", {"second": (SLOW, 3)})
    assert await granted(world, app_id, 2, 2) == [2, 1]
    await put(world, app_id, "second", SLOW, 100)
    assert await granted(world, app_id, 50, 50) == [2, 0]
    used = await world.rows("SELECT name, round(calls_reserved)::int AS used FROM budget ORDER BY id")
    assert [tuple(row.values()) for row in used] == [("second", 5), ("day", 5), ("second", 0)]
    assert await granted(world, bystander, 3) == [3]


async def test_a_wait_is_that_of_the_budget_that_is_full_longest(world: World) -> None:
    app_id = await app(world, budgets={"second": (10.0, 1), "day": (0.1, 1)})
    assert await granted(world, app_id, 1) == [1]
    assert (await reserve(world, app_id, 1)).wait_seconds == pytest.approx(10, abs=1)


async def test_nothing_is_given_while_the_application_is_blocked_and_no_budget_is_spent_by_asking(
    world: World,
) -> None:
    app_id = await app(world, budgets={"second": (SLOW, 3), "day": (SLOW, 5)})
    await block(world, app_id, 100)
    grant = await reserve(world, app_id, 2)
    assert (grant.calls, grant.limited) == (0, True)
    assert grant.wait_seconds == pytest.approx(100, abs=5)
    await block(world, app_id, 1)  # a shorter one shortens nothing
    assert (await reserve(world, app_id, 2)).wait_seconds == pytest.approx(100, abs=5)
    await world.execute("UPDATE budget SET blocked_until = clock_timestamp()")
    assert await granted(world, app_id, 9) == [3]


async def test_a_block_of_one_budget_blocks_the_application(world: World) -> None:
    app_id = await app(world, budgets={"second": (SLOW, 3), "day": (SLOW, 5)})
    await world.execute("UPDATE budget SET blocked_until = now() + interval '30 seconds' WHERE name = 'day'")
    assert await granted(world, app_id, 1) == [0]


@pytest.mark.parametrize(("written_ahead", "blocked"), [(3590.0, True), (3700.0, False), (86400.0, False)])
async def test_a_block_further_ahead_than_any_can_be_is_over(world: World, written_ahead: float, blocked: bool) -> None:
    """It was written before the clock jumped back."""
    app_id = await app(world, budgets={"second": (SLOW, 3)})
    await world.execute("UPDATE budget SET blocked_until = now() + $1 * interval '1 second'", written_ahead)
    assert await granted(world, app_id, 1) == [0 if blocked else 1]


async def test_a_block_after_the_clock_jumped_back_takes_the_place_of_the_old_one(world: World) -> None:
    app_id = await app(world, budgets={"second": (SLOW, 3)})
    await world.execute("UPDATE budget SET blocked_until = now() + interval '1 day'")
    await block(world, app_id, 100)
    grant = await reserve(world, app_id, 1)
    assert grant.calls == 0
    assert grant.wait_seconds == pytest.approx(100, abs=5)


async def test_a_clock_that_jumped_back_gives_nothing_away_and_goes_on_from_there(world: World) -> None:
    app_id = await app(world, budgets={"second": (2.0, 10)})
    await reserve(world, app_id, 10)
    await passed(world, -86400)
    before = await world.value("SELECT clock_timestamp()")
    assert (await reserve(world, app_id, 10)).calls == 0
    assert await world.value("SELECT refilled_at BETWEEN $1 AND clock_timestamp() FROM budget", before)
    await passed(world, 2.25)
    assert await granted(world, app_id, 10) == [4]


async def test_a_budget_that_is_put_again_has_new_limits_and_keeps_what_was_reserved(world: World) -> None:
    app_id = await app(world, budgets={"second": (SLOW, 10)})
    await reserve(world, app_id, 8)
    await put(world, app_id, "second", SLOW, 5)
    assert await granted(world, app_id, 1) == [0]
    await put(world, app_id, "second", SLOW, 12)
    assert await granted(world, app_id, 9) == [4]
    assert await world.value("SELECT count(*) FROM budget") == 1


async def test_reservations_at_the_same_moment_never_give_more_than_the_burst(world: World) -> None:
    app_id = await app(world, budgets={"second": (SLOW, 100), "day": (SLOW, 90)})
    grants = await asyncio.gather(*(reserve(world, app_id, 1 + n % 7) for n in range(60)))
    assert sum(grant.calls for grant in grants) == 90
    assert await world.value("SELECT round(max(calls_reserved)) FROM budget") == 90


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_given_stays_under_the_burst_and_the_rate_whoever_asks_when(world: World, seed: int) -> None:
    """At the end of every reservation: no more than burst + rate x time since the first one began."""
    dice, rate, burst = random.Random(seed), 200.0, 20
    app_id = await app(world, budgets={"second": (rate, burst), "large": (10_000.0, 10_000)})
    began = await world.value("SELECT clock_timestamp()")
    ends: list[tuple[float, int]] = []

    async def ask(pick: Callable[[], Any]) -> None:
        for _ in range(25):
            async with world.pool.connection() as connection:
                grant = await budget.reserve(
                    connection, channel_app_id=app_id, calls=pick(), block_seconds_max=BLOCK_SECONDS_MAX
                )
                at = await connection.fetchval("SELECT clock_timestamp()")
            ends.append(((at - began).total_seconds(), grant.calls))

    await asyncio.gather(*(ask(lambda: dice.randrange(1, 40)) for _ in range(6)))
    given = 0
    for at, calls in sorted(ends):
        given += calls
        assert given <= burst + rate * at
    assert given >= burst
