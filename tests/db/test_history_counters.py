"""The counters of the history: exact totals and pages at any offset, whatever happens to the records meanwhile.

Each test compares with the plainest model: all records in memory, sorted, filtered, sliced.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import asyncpg
import pytest

from lumbung.cli.compose import maintain
from lumbung.db import history, partitions
from lumbung.db.history import Part, Span
from lumbung.db.partitions import PARTITIONED, WEEK, partition_name, weeks
from lumbung.db.pool import Pool
from lumbung.model import HistoryRecord
from lumbung.settings import Settings
from tests.db.delivering import Told, leased, record
from tests.world import World, stock_update

COVERS = {
    "keep_partitions", "spans", "cells", "scan", "take_turn", "roll_up", "hours_to_fold", "fold", "hide_before",
    "forget_deltas", "forget_cells", "forget_spans", "short_retentions", "old_records",
    "remove_items", "remove_changes", "remove_records",
}  # fmt: skip

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)
COUNTERS = ("history_delta", "history_cell", "history_span")
FILL = """
    INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, action_name, total_sku, items, items_open,
                              updated_at, finished_at)
    SELECT $1, r.created, r.id, gen_random_uuid(), 'a', 1, 1, 0, r.updated, r.updated
    FROM unnest($2::timestamptz[], $3::bigint[], $4::timestamptz[]) AS r (created, id, updated)
"""


class Model:
    """A tenant's records as tests know them: (created_at, id) and updated_at."""

    def __init__(self, world: World, tenant_id: int):
        self.world = world
        self.tenant_id = tenant_id
        self.records: dict[tuple[datetime, int], datetime] = {}
        self._ids = iter(range(1, 10**9))

    async def make(self, moments: Sequence[tuple[datetime, datetime]]) -> None:
        rows = [(created, next(self._ids), updated) for created, updated in moments]
        columns = [list(column) for column in zip(*rows, strict=True)]
        await self.world.execute(FILL, self.tenant_id, *columns)
        self.records.update({(created, number): updated for created, number, updated in rows})

    async def update(self, changed: Sequence[tuple[tuple[datetime, int], datetime]]) -> None:
        await self.world.execute(
            "UPDATE stock_update u SET updated_at = r.updated"
            " FROM unnest($2::timestamptz[], $3::bigint[], $4::timestamptz[]) AS r (created, id, updated)"
            " WHERE u.tenant_id = $1 AND u.created_at = r.created AND u.id = r.id",
            self.tenant_id,
            [created for (created, _), _ in changed],
            [number for (_, number), _ in changed],
            [updated for _, updated in changed],
        )
        self.records.update(dict(changed))

    async def remove(self, keys: Sequence[tuple[datetime, int]]) -> None:
        await self.world.execute(
            "DELETE FROM stock_update WHERE tenant_id = $1 AND id = ANY($2)", self.tenant_id, [n for _, n in keys]
        )
        for key in keys:
            del self.records[key]

    def matching(self, since: datetime | None, kept_from: datetime | None = None) -> list[int]:
        return [
            number
            for (created, number), updated in sorted(self.records.items(), reverse=True)
            if (since is None or updated >= since) and (kept_from is None or created >= kept_from)
        ]

    async def check(
        self, since: datetime | None = None, offsets: Sequence[int] = (0,), limit: int = 7, **more: Any
    ) -> None:
        expected = self.matching(since, **more)
        for offset in offsets:
            records, total = await page(self.world, self.tenant_id, since, limit, offset)
            assert total == len(expected), since
            assert [one.id for one in records] == expected[offset : offset + limit], (since, offset)


async def page(
    world: World, tenant_id: int, since: datetime | None = None, limit: int = 100, offset: int = 0
) -> tuple[list[HistoryRecord], int]:
    async with world.pool.connection() as connection:
        return await history.page(
            connection, tenant_id=tenant_id, updated_at=since, limit=limit, offset=offset, items_max=10
        )


async def weeks_since(world: World, first: datetime) -> None:
    """Partitions from a moment on."""
    now = await world.value("SELECT now()")
    async with world.pool.transaction() as connection:
        present = await partitions.attached(connection)
        for start in weeks(first, now):
            for parent, fillfactor in PARTITIONED.items():
                name = partition_name(parent, start)
                if name not in present:
                    assert await partitions._make(connection, parent, name, start, fillfactor)


async def modelled(world: World, name: str = "Toko", *, days: int = 0) -> tuple[Model, datetime]:
    """A tenant without records and the Monday of so many days ago, from which on there are partitions."""
    model = Model(world, await world.tenant(name))
    then = await world.value("SELECT now() - $1 * interval '1 day'", days)
    [monday] = weeks(then, then)
    await weeks_since(world, monday)
    return model, monday


async def roll_up(world: World) -> int:
    return await history.roll_up(world.pool, settled_seconds=-60)


async def fold(world: World, records_max: int = history.SCANNED_MAX) -> int:
    return await history.fold(world.pool, after_seconds=-86400, records_max=records_max)


async def drop_old(world: World, days: int, *, lock_timeout_ms: int = 2000) -> list[str]:
    return await partitions.drop_old(
        world.pool, call_days=0, history_days=days, statement_seconds_max=60, lock_timeout_ms=lock_timeout_ms
    )


async def counted(world: World, table: str) -> int:
    return int(await world.value(f"SELECT coalesce(sum(records), 0) FROM {table}"))  # noqa: S608


def moments_of(dice: random.Random, start: datetime, count: int) -> list[tuple[datetime, datetime]]:
    """Records in bursts and alone, at and around the beginnings of 10 s, hours, days; updated soon, late or never."""
    anchors = [start + timedelta(hours=dice.choice((0, 1, 2, 23, 24, 25, 50))) for _ in range(4)]
    made = []
    for _ in range(count):
        created = dice.choice(anchors) + timedelta(
            seconds=dice.choice((0, 0, 1, 9, 10, 11, 35, 600, 3599, 3600)),
            microseconds=dice.choice((-1, 0, 0, 1, 250_000)),
        )
        made.append((max(created, start), later(dice, max(created, start))))
    return made


def later(dice: random.Random, created: datetime) -> datetime:
    return created + timedelta(seconds=dice.choice((0, 0, 0, 2, 9.999999, 10, 60, 3600, 7200, 100_000)))


def times_around(dice: random.Random, model: Model) -> list[datetime | None]:
    some = dice.sample(sorted(model.records.items()), 5)
    moments = [moment for (created, _), updated in some for moment in (created, updated)]
    on_10 = [moment - timedelta(seconds=moment.second % 10, microseconds=moment.microsecond) for moment in moments]
    extremes = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    return [None, *extremes, *moments, *(moment + TICK for moment in moments), *(moment - TICK for moment in on_10)]


def offsets_of(dice: random.Random, model: Model, since: datetime | None) -> list[int]:
    total = len(model.matching(since))
    return sorted({0, max(0, total - 1), total, total + 5, dice.randint(0, total), dice.randint(0, total)})


async def check_all(dice: random.Random, model: Model) -> None:
    for since in times_around(dice, model):
        await model.check(since, offsets_of(dice, model, since), limit=dice.choice((1, 3, 100)))


# --- exact, against the model ---


@pytest.mark.parametrize("seed", range(6))
async def test_pages_and_totals_are_those_of_a_list_whatever_has_been_rolled_up(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SKIPPED_MAX", seed)  # so that small spans are divided too
    dice = random.Random(seed)
    model, monday = await modelled(world, days=21)
    other, _ = await modelled(world, "Other")
    await other.make(moments_of(dice, monday, 20))
    for _ in range(4):
        await model.make(moments_of(dice, monday, 40))
        changed = dice.sample(sorted(model.records), 15)
        await model.update([(key, later(dice, model.records[key])) for key in changed])
        await model.remove(dice.sample(sorted(model.records), 4))
        await check_all(dice, model)
        for step in (roll_up, fold):
            if dice.random() < 0.5:
                await step(world)
    await roll_up(world)
    await check_all(dice, model)
    await fold(world)
    assert (await counted(world, "history_delta"), await counted(world, "history_cell")) == (0, 0)
    await check_all(dice, model)
    await other.check()


@pytest.mark.parametrize("rolled_up", [False, True])
async def test_every_offset_of_a_small_history_is_right(
    world: World, rolled_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SKIPPED_MAX", 0)
    model, monday = await modelled(world, days=14)
    moments = [monday + n * timedelta(seconds=7) for n in range(30)] + [monday + DAY + n * HOUR for n in range(30)]
    await model.make([(moment, moment + timedelta(minutes=n)) for n, moment in enumerate(moments)])
    if rolled_up:
        await roll_up(world)
    for since in (None, monday + timedelta(minutes=15), monday + DAY + 5 * HOUR):
        await model.check(since, range(62), limit=4)


async def test_records_of_one_moment_are_told_apart_by_their_ids_on_every_page(world: World) -> None:
    model, monday = await modelled(world, days=14)
    await model.make([(monday, monday)] * 25)
    await roll_up(world)
    await model.check(None, range(26), limit=1)
    await model.check(monday, range(26), limit=10)
    await model.check(monday + TICK)


async def test_a_record_that_was_updated_before_it_was_made_is_found_by_that_time(world: World) -> None:
    """A clock that was set back; the filter is about the time that the record shows."""
    model, monday = await modelled(world, days=14)
    await model.make([(monday + DAY + n * HOUR, monday + n * HOUR) for n in range(10)])
    for _ in range(2):
        await model.check(monday + 4 * HOUR, range(8))
        await model.check(monday + DAY)
        await roll_up(world)


async def test_one_that_ends_after_months_is_counted_and_found(world: World) -> None:
    """Nothing rests on items ending in time."""
    model, monday = await modelled(world, days=120)
    await model.make([(monday + n * DAY / 2, monday + n * DAY / 2) for n in range(200)])
    await roll_up(world)
    late = [(key, monday + 100 * DAY + n * TICK) for n, key in enumerate(sorted(model.records)[:5])]
    await model.update(late)
    for _ in range(2):
        await model.check(monday + 100 * DAY - TICK, range(8))
        await model.check(monday + 100 * DAY + 2 * TICK, range(6), limit=2)
        await model.check(monday + 100 * DAY + 5 * TICK)
        await roll_up(world)
        await fold(world)


async def test_a_full_hour_keeps_its_counters_and_others_are_read_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, monday = await modelled(world, days=14)
    await model.make([(monday + n * timedelta(seconds=60), monday + DAY) for n in range(30)])
    await model.make([(monday + HOUR + n * timedelta(seconds=60), monday + DAY) for n in range(31)])
    await roll_up(world)
    monkeypatch.setattr(history, "FOLD_HOURS", 1)
    assert await history.fold(world.pool, after_seconds=30 * 86400, records_max=30) == 0
    assert await fold(world, records_max=30) == 1
    assert await counted(world, "history_cell") == 31
    assert await fold(world, records_max=30) == 0
    for since in (None, monday + DAY, monday + DAY + TICK, monday + 2 * HOUR):
        await model.check(since, range(0, 62, 9))
    await model.update([(key, monday + 2 * DAY) for key in sorted(model.records)[25:35]])  # of both hours
    await roll_up(world)
    assert await counted(world, "history_cell") == 31
    await model.check(monday + 2 * DAY, range(11), limit=3)


# --- roll-ups and writers at once ---


async def test_roll_ups_by_many_move_each_row_once_and_readers_see_no_difference(world: World) -> None:
    model, monday = await modelled(world, days=14)
    await model.make([(monday + n * timedelta(seconds=10), monday + DAY) for n in range(300)])

    async def read() -> None:
        await model.check(monday + DAY, (0, 150, 299))

    results = await asyncio.gather(*(roll_up(world) for _ in range(6)), *(read() for _ in range(6)))

    assert sum(moved for moved in results if moved is not None) == 300
    assert [await counted(world, table) for table in COUNTERS] == [0, 300, 600]
    await read()


async def test_a_roll_up_leaves_what_a_transaction_has_not_committed_and_does_not_wait(world: World) -> None:
    model, monday = await modelled(world, days=14)
    await model.make([(monday, monday)])
    await world.execute("UPDATE history_delta SET written = written - interval '1 minute'")
    async with world.pool.transaction() as writer:
        for number in (100, 101):  # the second one changes the row that the first one made
            await writer.execute(FILL, model.tenant_id, [monday], [number], [monday])
        assert await roll_up(world) == 1
        await model.check()
    model.records |= {(monday, 100): monday, (monday, 101): monday}
    await model.check()
    async with world.pool.transaction() as other:
        await other.execute("SELECT FROM history_delta FOR UPDATE")
        assert await roll_up(world) == 0
    assert await roll_up(world) == 1
    await model.check()


async def test_every_role_rolls_up_and_removes_what_is_old_as_long_as_it_runs(world: World) -> None:
    model, monday = await modelled(world, days=14)
    now = await world.value("SELECT now()")
    await model.make([(monday, monday), (now, now)])
    kept_from = await retain(world, model.tenant_id, 7)
    settings = Settings(history_roll_up_seconds=0.01)
    maintaining = asyncio.create_task(maintain(world.pool, settings))
    async with asyncio.timeout(30):
        for _ in range(2):
            await world.execute("UPDATE history_delta SET written = written - interval '1 minute'")
            while await world.value("SELECT count(*) FROM history_delta WHERE written < now() - interval '20 s'"):
                pass
    maintaining.cancel()
    await asyncio.wait([maintaining])
    await model.check(kept_from=kept_from)
    assert await world.value("SELECT count(*) FROM stock_update") == 1
    assert await counted(world, "history_span") > 0


async def test_what_was_written_just_now_is_rolled_up_later(world: World) -> None:
    model, monday = await modelled(world, days=14)
    await model.make([(monday, monday)])
    assert await history.roll_up(world.pool) == 0
    await world.execute("UPDATE history_delta SET written = written - interval '30 seconds'")
    assert await history.roll_up(world.pool) == 1


async def test_writers_of_one_tenant_never_wait_for_each_others_commit(world: World) -> None:
    model, monday = await modelled(world, days=14)
    async with world.pool.transaction() as first, world.pool.transaction(lock_timeout_ms=20) as second:
        for number, writer in enumerate((first, second, first, second), start=50):
            await writer.execute(FILL, model.tenant_id, [monday], [number], [monday])
    assert (await page(world, model.tenant_id))[1] == 4


async def test_what_is_rolled_back_was_never_counted(world: World) -> None:
    model, monday = await modelled(world, days=14)
    await model.make([(monday, monday)])
    async with world.pool.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(FILL, model.tenant_id, [monday], [9], [monday])
        await transaction.rollback()
    await roll_up(world)
    await model.check()


async def test_a_page_is_of_one_moment_while_updates_are_accepted_and_delivered(world: World) -> None:
    await world.small()
    held = await leased(world)

    async def write() -> None:
        for n in range(40):
            await world.accept(stock_update(blib=n), stock_update(blib=n + 1))
            if n % 3 == 0:
                [state] = (await world.states()).values()
                await record(world, held, Told(state["listing_id"], state["version_due"]))
            await roll_up(world)

    async def read() -> list[int]:
        totals = []
        while not writing.done():
            records, total = await page(world, world.tenant_id, limit=1000)
            assert total == len(records) == len({one.id for one in records})
            since = records[len(records) // 2].updated_at if records else None
            found, matching = await page(world, world.tenant_id, since, limit=1000)
            assert matching == len(found)
            totals.append(total)
        return totals

    writing = asyncio.create_task(write())
    for totals in await asyncio.gather(read(), read()):
        assert totals == sorted(totals)
    await writing
    assert (await page(world, world.tenant_id))[1] == 80


async def test_delivery_moves_a_record_to_the_time_of_its_end(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=1))
    [before] = await world.history()
    await world.execute("UPDATE history_delta SET written = written - interval '1 minute'")
    await roll_up(world)
    [state] = (await world.states()).values()
    await record(world, await leased(world), Told(state["listing_id"], state["version_due"]))
    [after] = await world.history()
    assert after.updated_at > before.updated_at
    assert (await page(world, world.tenant_id, after.updated_at))[1] == 1
    assert (await page(world, world.tenant_id, after.updated_at + TICK))[1] == 0


# --- what has been there before ---


async def test_the_migration_counts_the_records_that_are_there(world: World) -> None:
    model, monday = await modelled(world, days=14)
    dice = random.Random(1)
    await model.make(moments_of(dice, monday, 100))
    now = await world.value("SELECT now()")
    await model.make([(now - n * timedelta(seconds=20), now) for n in range(30)])
    sql = resources.files("lumbung.db").joinpath("migrations/0003_history_counters.sql").read_text(encoding="utf-8")
    await world.execute(
        "DROP TABLE history_delta, history_cell, history_span; DROP FUNCTION count_history CASCADE;"
        " DROP FUNCTION history_bucket; DROP INDEX stock_update_updated_at;"
        " ALTER TABLE tenant DROP COLUMN history_kept_from"
    )
    await world.execute(sql)
    assert [await counted(world, table) for table in COUNTERS] == [0, 30, 260]
    await check_all(dice, model)
    await model.make([(now, now)])
    await model.check()


# --- what is dropped, hidden and removed ---


async def test_dropped_weeks_are_neither_counted_nor_found(world: World) -> None:
    model, monday = await modelled(world, days=500)
    await model.make([(monday + n * DAY, monday + n * DAY + HOUR) for n in range(100)])
    await roll_up(world)
    await model.make([(monday + n * DAY, monday + n * DAY + HOUR) for n in range(100)])

    gone = await drop_old(world, 480)

    assert len(gone) > 0
    gone_until = max(one for one in weeks(monday, monday + 60 * DAY) if partition_name("item", one - WEEK) in gone)
    for _ in range(2):
        await model.check(None, (0, 50, 199), kept_from=gone_until)
        await model.check(monday + HOUR, (0, 199), kept_from=gone_until)
        left = [await counted(world, table) for table in COUNTERS]
        assert left[0] + left[2] // 2 == len(model.matching(None, gone_until))
        await roll_up(world)


async def test_a_week_in_use_is_hidden_before_it_is_dropped(world: World) -> None:
    model, monday = await modelled(world, days=500)
    await model.make([(monday, monday), (monday + WEEK, monday + WEEK)])
    days = (await world.value("SELECT now()") - monday - WEEK).days
    async with world.pool.transaction() as reader:
        await reader.execute("LOCK TABLE stock_update IN ACCESS SHARE MODE")
        await drop_old(world, days, lock_timeout_ms=50)
        await model.check(kept_from=monday + WEEK)
    await drop_old(world, days)
    await model.check(kept_from=monday + WEEK)
    assert await counted(world, "history_delta") == 1


async def retain(world: World, tenant_id: int, days: int | None) -> datetime | None:
    """Set a tenant's own retention; returns the time from which on it keeps its history."""
    await world.execute("UPDATE tenant SET history_retention_days = $2 WHERE id = $1", tenant_id, days)
    now: datetime = await world.value("SELECT now()")
    return None if days is None else (now - days * DAY).replace(minute=0, second=0, microsecond=0)


async def test_a_tenants_shorter_retention_hides_at_once_and_only_its_own(world: World) -> None:
    model, monday = await modelled(world, days=30)
    other, _ = await modelled(world, "Other")
    moments = [(monday + n * HOUR, monday + n * HOUR + DAY) for n in range(24 * 25)]
    await model.make(moments)
    await other.make(moments)
    for step in (roll_up, fold, roll_up):
        kept_from = await retain(world, model.tenant_id, 20)
        assert kept_from is not None
        for since in (None, monday, kept_from, kept_from + DAY + TICK):
            await model.check(since, (0, 100, 270, 300), limit=20, kept_from=kept_from)
        await other.check(None, (599,))
        await retain(world, model.tenant_id, None)
        await model.check(None, (599,))
        await step(world)


async def test_what_a_tenant_keeps_no_longer_is_removed_in_batches_except_what_is_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "REMOVED_ROWS", 10)
    model, monday = await modelled(world, days=30)
    other, _ = await modelled(world, "Other")
    moments = [(monday + n * HOUR, monday + n * HOUR + DAY) for n in range(24 * 3)]
    await model.make(moments)
    await other.make(moments)
    await world.execute(
        "INSERT INTO item (tenant_id, created_at, update_id, id, store_id, warehouse_id, variant_id, channel, quantity)"
        " SELECT tenant_id, created_at, id, id, 1, 0, 1, 'blib', 1 FROM stock_update"
    )
    await world.execute(
        "INSERT INTO stock_change (tenant_id, created_at, update_id, row_number, variant_id, warehouse_id, available,"
        " buffer, sync, figures, applied) SELECT tenant_id, created_at, id, 0, 1, 0, 1, 0, true, '{}', true"
        " FROM stock_update"
    )
    await roll_up(world)
    opened = sorted(model.records)[0]
    await world.execute(
        "UPDATE stock_update SET items_open = 1, finished_at = NULL WHERE tenant_id = $1 AND id = $2",
        model.tenant_id,
        opened[1],
    )
    await retain(world, model.tenant_id, 20)

    assert await history.remove_old(world.pool) == 71
    assert await history.remove_old(world.pool) == 0

    for table in ("stock_update", "item", "stock_change"):
        rows = await world.rows(f"SELECT tenant_id, count(*) AS n FROM {table} GROUP BY 1 ORDER BY 1")  # noqa: S608
        assert [tuple(row.values()) for row in rows] == [(model.tenant_id, 1), (other.tenant_id, 72)]
    assert (await page(world, model.tenant_id)) == ([], 0)
    await retain(world, model.tenant_id, None)
    model.records = {opened: model.records[opened]}
    for _ in range(2):
        await model.check()
        await roll_up(world)
    await other.check()


async def test_several_that_remove_at_once_remove_each_record_once(world: World) -> None:
    model, monday = await modelled(world, days=30)
    await model.make([(monday + n * HOUR, monday) for n in range(100)])
    await retain(world, model.tenant_id, 1)
    removed = await asyncio.gather(*(history.remove_old(world.pool) for _ in range(4)))
    assert sum(removed) == 100
    await retain(world, model.tenant_id, None)
    assert (await page(world, model.tenant_id))[1] == 0


async def test_tenants_without_a_retention_of_their_own_lose_nothing(world: World) -> None:
    model, monday = await modelled(world, days=30)
    await model.make([(monday, monday)])
    assert await history.remove_old(world.pool) == 0
    await model.check()


# --- the snapshot ---


async def test_a_week_is_not_detached_while_a_page_is_being_read(world: World) -> None:
    async with world.pool.connection() as reader, reader.transaction(isolation="repeatable_read", readonly=True):
        await history._queries["keep_partitions"].run(reader)
        async with world.pool.connection() as other:
            await other.execute("SET lock_timeout = '20ms'")
            [name] = weeks(*[await world.value("SELECT now()")] * 2)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await other.execute(
                    f"ALTER TABLE stock_update DETACH PARTITION {partition_name('stock_update', name)} CONCURRENTLY"
                )


async def test_a_page_leaves_the_connection_as_it_was(pool: Pool) -> None:
    async with pool.connection() as connection:
        await history.page(connection, tenant_id=1, updated_at=None, limit=1, offset=0, items_max=1)
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SHOW transaction_isolation") == "read committed"


# --- which parts of which spans, without a database ---


def spans_of(*records: int) -> list[Span]:
    start = datetime(2026, 1, 5, tzinfo=UTC)
    return [Span(start - n * HOUR, start - (n - 1) * HOUR, count) for n, count in enumerate(records)]


def test_a_page_takes_from_each_span_what_falls_into_it() -> None:
    spans = spans_of(3, 1, 5)
    low, high = ([getattr(span, name) for span in spans] for name in ("low", "high"))
    for offset, count, parts in (
        (0, 2, [(0, 0, 2)]),
        (0, 3, [(0, 0, 3)]),
        (2, 3, [(0, 2, 1), (1, 0, 1), (2, 0, 1)]),
        (3, 1, [(1, 0, 1)]),
        (4, 5, [(2, 0, 5)]),
        (8, 1, [(2, 4, 1)]),
        (9, 0, []),
        (0, 0, []),
    ):
        expected = [Part(low[at], high[at], skip, take) for at, skip, take in parts]
        assert history._parts(spans, offset, count) == expected, offset
