"""Weeks of the histories that are older than they are to be kept."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import asyncpg
import pytest

from lumbung.db import partitions
from lumbung.db.partitions import PARTITIONED, WEEK, partition_name, weeks
from lumbung.db.pool import Pool
from tests.world import World, stock_update

HISTORIES = [parent for parent in PARTITIONED if parent != "call"]
COVERS = {"take_turn", "has_open_updates", "set_lock_timeout", "reset_lock_timeout", "removal_statements"}


async def old_week(world: World, days: int) -> datetime:
    """The Monday of the week of so many days ago, which has its partitions now."""
    then = await world.value("SELECT now() - $1 * interval '1 day'", days)
    [start] = weeks(then, then)
    async with world.pool.transaction() as connection:
        for parent, fillfactor in PARTITIONED.items():
            assert await partitions._make(connection, parent, partition_name(parent, start), start, fillfactor)
    return start


async def drop_old(
    world: World, call_days: int = 14, history_days: int = 400, lock_timeout_ms: int = 2000
) -> list[str]:
    return await partitions.drop_old(
        world.pool,
        call_days=call_days,
        history_days=history_days,
        statement_seconds_max=60,
        lock_timeout_ms=lock_timeout_ms,
    )


async def tables(world: World) -> set[str]:
    rows = await world.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '_\\d{4}_\\d\\d_\\d\\d$'")
    return {row["relname"] for row in rows}


async def put_update(world: World, at: datetime, items_open: int) -> None:
    await world.execute(
        "INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, action_name, total_sku, items,"
        " items_open, updated_at, finished_at) VALUES (1, $1, 1, gen_random_uuid(), 'a', 1, 1, $2, now(),"
        " CASE WHEN $2 = 0 THEN now() END)",
        at,
        items_open,
    )


async def put_call(world: World, at: datetime) -> None:
    await world.execute("INSERT INTO call VALUES (1, $1, 1, 1, 1, '{}', 'GET', '', '', 200, '', '', 0)", at)


async def test_calls_and_histories_are_dropped_after_their_own_times(world: World) -> None:
    month, years = await old_week(world, 40), await old_week(world, 500)
    await put_call(world, month)
    await put_update(world, month, 0)
    before = await tables(world)

    dropped = await drop_old(world)

    expected = {partition_name(parent, years) for parent in PARTITIONED} | {partition_name("call", month)}
    assert (len(dropped), set(dropped)) == (5, expected)
    assert await tables(world) == before - expected
    assert await world.value("SELECT count(*) FROM call") == 0
    assert await world.value("SELECT count(*) FROM stock_update") == 1
    assert await drop_old(world) == []


async def test_zero_days_keeps_everything(world: World) -> None:
    await old_week(world, 5000)
    assert await drop_old(world, call_days=0, history_days=0) == []


async def test_a_week_goes_when_its_last_moment_is_old_enough(world: World) -> None:
    start = await old_week(world, 60)
    now = await world.value("SELECT now()")
    whole_days = (now - start - WEEK).days

    assert await drop_old(world, call_days=whole_days + 1) == []
    assert await drop_old(world, call_days=whole_days) == [partition_name("call", start)]


async def test_what_is_made_at_every_start_is_not_dropped(world: World) -> None:
    await partitions.ensure(world.pool, ahead_days=0)
    before = await tables(world)

    assert await drop_old(world, call_days=1, history_days=1) == []

    assert await tables(world) == before
    assert await partitions.ensure(world.pool, ahead_days=0) == []


async def test_a_week_with_an_open_update_stays_until_it_has_ended(world: World) -> None:
    start = await old_week(world, 500)
    await put_update(world, start + timedelta(days=3), 1)

    assert await drop_old(world) == [partition_name("call", start)]

    await world.execute("UPDATE stock_update SET items_open = 0, finished_at = now()")
    assert await drop_old(world) == [partition_name(parent, start) for parent in HISTORIES]


async def test_the_oldest_week_being_kept_does_not_keep_the_others(world: World) -> None:
    kept, gone = await old_week(world, 600), await old_week(world, 500)
    await put_update(world, kept, 1)

    dropped = await drop_old(world, call_days=0)

    assert dropped == [partition_name(parent, gone) for parent in HISTORIES]


async def test_a_history_that_is_being_read_waits_for_nobody_and_is_dropped_later(world: World) -> None:
    start = await old_week(world, 40)
    name = partition_name("call", start)
    await put_call(world, start)
    async with world.pool.transaction() as reader:
        assert await reader.fetchval("SELECT count(*) FROM call") == 1
        assert await drop_old(world, lock_timeout_ms=50) == []
        assert await world.value("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = $1::text::regclass", name)
        async with world.pool.transaction(lock_timeout_ms=100) as writer:  # the others go on beside it
            now = await writer.fetchval("SELECT now()")
            await writer.execute("INSERT INTO call VALUES (1, $1, 2, 1, 1, '{}', 'GET', '', '', 200, '', '', 0)", now)
        assert await drop_old(world, lock_timeout_ms=50) == []

    assert await drop_old(world) == [name]

    assert name not in await tables(world)
    assert await world.value("SELECT count(*) FROM call") == 1


async def test_one_that_is_in_use_does_not_keep_other_histories(world: World) -> None:
    start = await old_week(world, 500)
    async with world.pool.transaction() as reader:
        await reader.execute("LOCK TABLE item IN ACCESS SHARE MODE")
        dropped = await drop_old(world, lock_timeout_ms=50)
    assert dropped == [partition_name(parent, start) for parent in PARTITIONED if parent != "item"]


async def test_what_a_crash_left_detached_is_dropped(world: World) -> None:
    start = await old_week(world, 40)
    name = partition_name("call", start)
    await world.execute(f"ALTER TABLE call DETACH PARTITION {name} CONCURRENTLY")

    assert await drop_old(world) == [name]

    assert name not in await tables(world)


async def test_the_lock_timeout_does_not_stay_on_the_connection(database_url: str, world: World) -> None:
    await old_week(world, 500)
    assert len(await drop_old(world, lock_timeout_ms=1234)) == 4
    async with world.pool.connection() as connection:
        assert await connection.fetchval("SHOW lock_timeout") == "0"


async def test_several_that_drop_at_once_drop_each_once_and_none_fails(world: World) -> None:
    starts = [await old_week(world, days) for days in (500, 520, 540)]
    results = await asyncio.gather(*(drop_old(world) for _ in range(5)))
    names = [name for dropped in results for name in dropped] + await drop_old(world)
    assert sorted(names) == sorted(partition_name(parent, start) for parent in PARTITIONED for start in starts)


async def test_while_another_process_has_the_turn_nothing_is_done(world: World) -> None:
    await old_week(world, 500)
    async with world.pool.transaction() as other:
        await other.execute("SELECT pg_advisory_xact_lock(hashtext('lumbung: remove partitions'))")
        assert await drop_old(world, lock_timeout_ms=20) == []
    assert len(await drop_old(world)) == 4


async def test_a_detached_week_takes_no_rows(world: World) -> None:
    start = await old_week(world, 40)
    await drop_old(world)
    with pytest.raises(asyncpg.CheckViolationError, match="no partition of relation"):
        await put_call(world, start)


async def test_a_history_goes_on_after_old_weeks_are_gone(world: World, pool: Pool) -> None:
    await old_week(world, 500)
    await world.small()
    assert len(await drop_old(world)) == 4
    await world.accepted(stock_update(blib=1))
    assert len(await world.history()) == 1


async def test_a_session_whose_lock_timeout_cannot_be_undone_is_ended(world: World) -> None:
    """Its next user would give up on locks after our time."""
    async with world.pool.connection() as connection:
        await connection.execute("SET lock_timeout = '7ms'")
        await partitions._undo_lock_timeout(connection)
        assert await connection.fetchval("SHOW lock_timeout") == "0"
        pid = connection.get_server_pid()
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1 / 0")
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await partitions._undo_lock_timeout(connection)
    async with world.pool.connection() as connection:
        assert connection.get_server_pid() != pid
