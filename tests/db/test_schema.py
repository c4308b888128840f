"""What the schema holds by itself, the migrations that make it, and the partitions of the histories."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import asyncpg
import pytest

from lumbung.db import migrate, partitions, schema
from lumbung.db.partitions import PARTITIONED, WEEK, ensure, partition_name, weeks
from lumbung.db.pool import Pool
from lumbung.db.schema import Migration
from lumbung.errors import ConfigurationError, LockBusy
from lumbung.model import DueFor, Lane, ListingStatus, StockLimit, StoreMode, UnknownSku, WaitReason
from lumbung.settings import Settings
from tests.db.delivering import blocked
from tests.world import World, stock_update

COVERS = {
    "clock",
    "partitions",
    "partition_statements",
    "server_version_number",
    "has_migration_table",
    "create_migration_table",
    "lock_migration_table",
    "newest_migration",
    "digest_of",
    "record_migration",
}

OF_THE_INSTALLATION = {
    "tenant", "partner", "channel_app", "worker", "store_lease", "budget", "session", "migration",
}  # fmt: skip


async def tables(pool: Pool) -> list[str]:
    async with pool.connection() as connection:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1"
        )
    return [row["relname"] for row in rows]


# --- rules that the database holds ---


async def test_every_table_of_a_tenant_has_a_primary_key_that_begins_with_tenant_id(world: World) -> None:
    """Or an index of its key alone, where rows change too often for a unique one (migration 0006)."""
    rows = await world.rows(
        """
        SELECT c.relname AS name, (
            SELECT a.attname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = c.oid AND (i.indisprimary OR x.relname = c.relname || '_key')) AS first,
            c.relreplident = 'f'
            OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS told_apart
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
        """
    )
    first = {row["name"]: row["first"] for row in rows}
    assert {name for name, column in first.items() if column != "tenant_id"} == OF_THE_INSTALLATION
    assert None not in first.values()
    assert all(row["told_apart"] for row in rows)  # or they could not be replicated logically


BUSY_ROWS = {
    "listing_state": "listing_id = (SELECT min(listing_id) FROM listing_state)",
    "contribution": "listing_id = (SELECT min(listing_id) FROM contribution)",
    "stock_level": "variant_id = (SELECT min(variant_id) FROM stock_level)",
}


@pytest.mark.parametrize("table", BUSY_ROWS)
async def test_a_key_without_a_unique_index_is_unique_all_the_same(world: World, table: str) -> None:
    await world.small()
    await world.accepted(stock_update(blib=1))
    copy = f"INSERT INTO {table} SELECT * FROM {table} WHERE {BUSY_ROWS[table]}"  # noqa: S608
    with pytest.raises(asyncpg.UniqueViolationError, match="already"):
        await world.execute(copy)
    column = BUSY_ROWS[table].partition(" ")[0]
    await world.execute(f"UPDATE {table} SET {column} = {column}")  # noqa: S608
    assert await world.value(f"SELECT count(*) = count(DISTINCT {column}) FROM {table}")  # noqa: S608


@pytest.mark.parametrize("table", BUSY_ROWS)
async def test_of_two_that_make_the_same_row_at_once_the_second_is_refused(world: World, table: str) -> None:
    await world.small()
    await world.accepted(stock_update(blib=1))
    async with world.pool.connection() as one, world.pool.connection() as two:
        await one.execute(f"CREATE TABLE copy AS SELECT * FROM {table} WHERE {BUSY_ROWS[table]}; DELETE FROM {table}")  # noqa: S608
        insert = f"INSERT INTO {table} SELECT * FROM copy"  # noqa: S608
        await one.execute(f"BEGIN; {insert}")
        second = asyncio.create_task(two.execute(insert))
        await blocked(world)
        await one.execute("COMMIT")
        with pytest.raises(asyncpg.UniqueViolationError, match="already"):
            await second
    assert await world.value(f"SELECT count(*) FROM {table}") == 1  # noqa: S608


WORDS: list[tuple[str, str, type[StrEnum]]] = [
    ("listing_state", "state", ListingStatus),
    ("listing_state", "due_for", DueFor),
    ("listing_wait", "reason", WaitReason),
    ("store", "mode", StoreMode),
    ("tenant", "unknown_sku", UnknownSku),
    ("tenant", "channel_stock_limit", StockLimit),
]


async def test_each_check_has_the_words_of_its_enum(world: World) -> None:
    for table, column, words in WORDS:
        checks = await world.rows(
            "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint"
            " WHERE conrelid = $1::regclass AND contype = 'c'",
            table,
        )
        [text] = [row["text"] for row in checks if row["text"].startswith(f"CHECK (({column} = ANY")]
        assert re.findall(r"'([a-z]+)'", text) == [word.value for word in words]


def test_the_state_diagram_of_the_documents_has_every_word_of_a_listings_state() -> None:
    page = Path(__file__).parents[2] / "docs/explanation/delivery.md"
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    [diagram] = [block for block in blocks if re.search(r"\bidle\b", block)][:1]
    assert set(ListingStatus) <= set(re.findall(r"[a-z]+", diagram))


async def test_a_lane_is_one_of_those_that_the_engine_knows(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=1))
    for lane in Lane:
        state = "idle" if lane is Lane.NONE else "due"
        await world.execute("UPDATE listing_state SET lane = $1, state = $2", int(lane), state)
    with pytest.raises(asyncpg.CheckViolationError):
        await world.execute("UPDATE listing_state SET lane = $1", max(Lane) + 1)


def test_the_lanes_of_retries_are_the_others_shifted_by_three() -> None:
    """release_waits, write_states and record_states count on it."""
    assert {int(lane): lane.name.removeprefix("RETRY_") for lane in Lane} == {
        0: "NONE", 1: "FALLING", 2: "RISING", 3: "REFRESH", 4: "FALLING", 5: "RISING", 6: "REFRESH",
    }  # fmt: skip


MEANINGLESS = [
    "state = 'idle'",
    "lane = 0",
    "state = 'parked', lane = 0",
    "park_reason = 'a'",
    "version_delivered = version_due + 1",
    "version_settled = version_due + 1",
    "version_delivered = version_due, version_settled = version_due - 1",
    "quantity_due = -1",
    "attempts = -1",
    "quantity_floor = -1",
    "due_for = 'ask'",
    "due_for = 'what'",
    "handle = 'h'",
    "handle_version = 1",
    "handle = 'h', handle_version = 1, handle_quantity = 1",
]


async def test_a_state_that_means_nothing_is_refused(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=1))
    for change in MEANINGLESS:
        with pytest.raises(asyncpg.CheckViolationError):
            await world.execute(f"UPDATE listing_state SET {change}")  # noqa: S608


FORBIDDEN = [
    "UPDATE warehouse SET name = 'x' WHERE id <> 0",
    "UPDATE store SET name = 'x'",
    "UPDATE store SET channel = 'shpe'",
    "UPDATE variant SET sku = 'x'",
    "UPDATE listing SET remote_variant = 'x'",
    "UPDATE listing SET variant_id = variant_id + 1",
    "UPDATE listing SET store_id = store_id + 1",
    "DELETE FROM warehouse",
    "DELETE FROM store",
    "DELETE FROM variant",
    "DELETE FROM listing",
]


async def test_what_history_names_is_neither_renamed_nor_deleted(world: World) -> None:
    await world.small()
    await world.warehouse("east")
    for change in FORBIDDEN:
        with pytest.raises(asyncpg.RaiseError, match=r"history names this row|retired, never deleted"):
            await world.execute(change)


async def test_what_history_names_may_be_retired_and_keep_its_name(world: World) -> None:
    await world.small()
    await world.warehouse("east")
    for table in ("listing", "variant", "store"):
        await world.execute(f"UPDATE {table} SET retired_at = now()")  # noqa: S608
    await world.execute("UPDATE warehouse SET retired_at = now(), name = name WHERE id <> 0")
    with pytest.raises(asyncpg.CheckViolationError):
        await world.execute("UPDATE warehouse SET retired_at = now() WHERE id = 0")


async def test_no_extension_is_needed(world: World) -> None:
    assert await world.rows("SELECT extname FROM pg_extension") == [{"extname": "plpgsql"}]


# --- hot rows ---


HOT = {
    "listing_state": {"fillfactor": 60, "autovacuum_vacuum_scale_factor": 0.02, "autovacuum_vacuum_cost_delay": 1},
    "contribution": {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02, "autovacuum_vacuum_cost_delay": 1},
    "listing_wait": {"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02},
    "stock_level": {"fillfactor": 70},
    "channel_stock": {"fillfactor": 70},
    "worker": {"fillfactor": 50},
    "store_lease": {"fillfactor": 50},
    "budget": {"fillfactor": 50},
    "stats_minute": {"fillfactor": 70},
}


async def test_hot_rows_have_room_and_are_vacuumed_early(world: World) -> None:
    rows = await world.rows("SELECT relname, reloptions FROM pg_class WHERE relname = ANY($1)", list(HOT))
    found = {row["relname"]: [option.partition("=") for option in row["reloptions"]] for row in rows}
    assert {table: {name: float(value) for name, _, value in options} for table, options in found.items()} == HOT


async def test_weeks_of_the_histories_are_vacuumed_as_they_grow_and_not_for_their_dead_rows(world: World) -> None:
    """New ones as they are made, older ones by the migration."""
    weeks = """
        SELECT inhparent::regclass::text || ' ' || relname AS week, reloptions FROM pg_class
        JOIN pg_inherits ON inhrelid = pg_class.oid WHERE relkind = 'r'
    """
    made = {row["week"]: row["reloptions"] for row in await world.rows(weeks)}
    assert {week.split()[0] for week in made} == {"stock_update", "item", "stock_change", "call"}
    assert all("autovacuum_vacuum_scale_factor=5" in options for options in made.values())
    name = next(week for week in made if week.startswith("item ")).split()[1]
    await world.execute(f"ALTER TABLE {name} RESET (autovacuum_vacuum_scale_factor)")
    [migration] = [one for one in schema.migrations() if one.number == 7]
    await world.execute(migration.sql)
    assert {row["week"]: sorted(row["reloptions"]) for row in await world.rows(weeks)} == {
        week: sorted(options) for week, options in made.items()
    }


async def test_a_lease_that_means_nothing_is_refused(world: World) -> None:
    await world.small()
    for change in ("lifetime_seconds = 0", "quiesce_seconds = -1", "trouble = 'a'", "trouble_since = now()"):
        with pytest.raises(asyncpg.CheckViolationError):
            await world.execute(f"UPDATE store_lease SET {change}")  # noqa: S608


async def test_listing_state_has_no_index_but_its_key_the_lanes_and_what_is_parked(world: World) -> None:
    rows = await world.rows("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'listing_state' ORDER BY 1")
    assert {row["indexname"]: row["indexdef"].partition(" USING ")[2] for row in rows} == {
        "listing_state_key": "btree (tenant_id, listing_id) WITH (deduplicate_items=off)",
        "listing_state_lane": "btree (tenant_id, store_id, lane, listing_id) WHERE (lane > 0)",
        "listing_state_parked": "btree (tenant_id, store_id, listing_id) WHERE (park_reason IS NOT NULL)",
    }


async def test_what_changes_often_is_in_no_index(world: World) -> None:
    rows = await world.rows("SELECT tablename, indexdef FROM pg_indexes WHERE tablename = ANY($1)", [
        "contribution", "stock_level", "channel_stock",
    ])  # fmt: skip
    defined = [row["indexdef"].partition(" USING btree ")[2].partition(" WITH ")[0] for row in rows]
    columns = {name for text in defined for name in re.findall(r"\w+", text)}
    assert columns == {"tenant_id", "variant_id", "warehouse_id", "listing_id", "channel"}


# --- migrations ---


async def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    async with Pool(empty_database_url, Settings()) as pool:
        async with pool.connection() as connection:
            assert await schema.schema_version(connection) == 0
        applied = await migrate.migrate(pool, timeout_seconds=60)
        assert applied == schema.migrations()
        before = await tables(pool)
        assert await migrate.migrate(pool, timeout_seconds=60) == []
        assert await tables(pool) == before
        async with pool.connection() as connection:
            assert await schema.schema_version(connection) == schema.newest_version() == len(applied)


async def test_eight_that_migrate_at_once_apply_each_migration_once(empty_database_url: str) -> None:
    pools = [Pool(empty_database_url, Settings()) for _ in range(8)]
    results = await asyncio.gather(*(migrate.migrate(pool, timeout_seconds=60) for pool in pools))
    applied = [migration.number for result in results for migration in result]
    assert sorted(applied) == [migration.number for migration in schema.migrations()]
    async with pools[0].connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM migration") == len(applied)
    for pool in pools:
        await pool.close()


async def test_a_migration_that_has_changed_since_is_refused(world: World) -> None:
    await world.execute("UPDATE migration SET digest = 'x' WHERE number = 1")
    with pytest.raises(ConfigurationError, match=r"Migration 0001 \(initial\) differs from the one"):
        await migrate.migrate(world.pool, timeout_seconds=60)


def play(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Have these migrations follow the real ones."""
    real = schema.migrations()
    played = [Migration(len(real) + n, f"played {n}", sql) for n, sql in enumerate(more, start=1)]
    monkeypatch.setattr(migrate, "migrations", lambda: real + played)


async def test_a_migration_that_fails_leaves_nothing_and_what_came_before_it_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(
        monkeypatch,
        "CREATE TABLE good (n int)",
        "CREATE TABLE half (n int); SELECT 1 / 0",
        "CREATE TABLE never (n int)",
    )
    before = await tables(world.pool)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(world.pool, timeout_seconds=60)
    assert await tables(world.pool) == sorted([*before, "good"])
    async with world.pool.connection() as connection:
        assert await schema.schema_version(connection) == len(schema.migrations()) + 1


async def test_a_process_waits_for_another_that_migrates_and_gives_up_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, "CREATE TABLE good (n int)")
    async with world.pool.transaction() as connection:
        await connection.execute("LOCK TABLE migration IN SHARE ROW EXCLUSIVE MODE")
        assert await schema.schema_version(connection) == len(schema.migrations())
        with pytest.raises(LockBusy):
            await migrate.migrate(world.pool, timeout_seconds=0.02)
    assert [one.name for one in await migrate.migrate(world.pool, timeout_seconds=60)] == ["played 1"]


async def test_the_timeout_of_statements_does_not_bound_the_wait_for_another_that_migrates(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, "CREATE TABLE good (n int)")
    async with Pool(world.pool.url, Settings(database_command_timeout_seconds=0.5)) as impatient:
        async with world.pool.transaction() as connection:
            await connection.execute("LOCK TABLE migration IN SHARE ROW EXCLUSIVE MODE")
            waiting = asyncio.create_task(migrate.migrate(impatient, timeout_seconds=60))
            assert await asyncio.wait([waiting], timeout=1) == (set(), {waiting})  # twice what a statement may take
        assert [one.name for one in await waiting] == ["played 1"]


async def test_a_server_that_is_too_old_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "OLDEST_SERVER", 990000)
    with pytest.raises(ConfigurationError, match=r"PostgreSQL \d+ is too old: Lumbung needs 15 or newer"):
        await migrate.migrate(world.pool, timeout_seconds=60)


# --- partitions ---


MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("first", "last", "starts"),
    [
        (MONDAY, MONDAY, [MONDAY]),
        (MONDAY - timedelta(microseconds=1), MONDAY, [MONDAY - WEEK, MONDAY]),
        (MONDAY, MONDAY + WEEK - timedelta(microseconds=1), [MONDAY]),
        (MONDAY + timedelta(days=6, hours=23), MONDAY + WEEK, [MONDAY, MONDAY + WEEK]),
        (datetime(2025, 12, 31, 12, tzinfo=UTC), MONDAY, [datetime(2025, 12, 29, tzinfo=UTC), MONDAY]),
    ],
)
def test_weeks_begin_on_monday_at_midnight_utc(first: datetime, last: datetime, starts: list[datetime]) -> None:
    assert weeks(first, last) == starts


async def bounds(pool: Pool, parent: str) -> list[tuple[str, datetime, datetime]]:
    async with pool.connection() as connection:
        rows = await connection.fetch(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits"
            " JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = $1::regclass ORDER BY 1",
            parent,
        )
    found = [(row["relname"], re.findall(r"'([^']+)'", row["bound"])) for row in rows]
    return [(name, datetime.fromisoformat(start), datetime.fromisoformat(end)) for name, (start, end) in found]


async def test_partitions_are_there_from_last_week_to_as_far_ahead_as_asked(world: World) -> None:
    now = await world.value("SELECT now()")
    await ensure(world.pool, ahead_days=60)
    for parent in PARTITIONED:
        found = await bounds(world.pool, parent)
        starts = [start for _, start, _ in found]
        assert starts == weeks(now - WEEK, now + timedelta(days=60))
        assert [end for _, _, end in found] == [start + WEEK for start in starts]
        assert [name for name, _, _ in found] == [partition_name(parent, start) for start in starts]
        assert starts[0] <= now - WEEK < starts[1]
        assert found[-1][2] > now + timedelta(days=60)
    assert await ensure(world.pool, ahead_days=60) == []


async def test_partitions_have_the_room_that_their_rows_need_and_every_index(world: World) -> None:
    rows = await world.rows(
        "SELECT parent.relname AS parent, child.reloptions AS options,"
        " (SELECT count(*) FROM pg_index WHERE indrelid = child.oid AND indisvalid) AS indexes,"
        " (SELECT count(*) FROM pg_index WHERE indrelid = parent.oid) AS wanted"
        " FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent"
        " WHERE parent.relname = ANY($1)",
        list(PARTITIONED),
    )
    assert {row["parent"] for row in rows} == set(PARTITIONED)
    for row in rows:
        assert row["options"] == [f"fillfactor={PARTITIONED[row['parent']]}", "autovacuum_vacuum_scale_factor=5"]
        assert row["indexes"] == row["wanted"] > 0


async def test_several_that_make_partitions_at_once_make_each_once_and_none_fails(world: World) -> None:
    before = len(await tables(world.pool))
    made = await asyncio.gather(*(ensure(world.pool, ahead_days=40) for _ in range(6)))
    new = set[str]().union(*made)
    assert len(await tables(world.pool)) - before == len(new) > 0
    assert sorted(name for names in made for name in names) == sorted(new)  # each was made by one


async def test_a_partition_is_made_while_the_history_is_being_written(world: World) -> None:
    await world.small()
    async with world.pool.transaction() as connection:
        await connection.execute("SELECT FROM stock_update FOR UPDATE")
        await connection.execute("LOCK TABLE item, stock_update IN ROW EXCLUSIVE MODE")
        made = await ensure(world.pool, ahead_days=30, lock_timeout_ms=1000)
        assert len(made) > 0
        async with world.pool.transaction(lock_timeout_ms=100) as other:
            await other.execute("LOCK TABLE item, stock_update IN ROW EXCLUSIVE MODE")


async def test_a_row_of_a_week_without_a_partition_is_refused_and_taken_once_it_is_there(world: World) -> None:
    tenant = await world.tenant()
    later = await world.value("SELECT now() + interval '40 days'")
    insert = "INSERT INTO call VALUES ($1, $2, 1, 1, 1, '{}', 'GET', '', '', 200, '', '', 0)"
    with pytest.raises(asyncpg.CheckViolationError, match="no partition of relation"):
        await world.execute(insert, tenant, later)
    await partitions.ensure(world.pool, ahead_days=40)
    await world.execute(insert, tenant, later)
    [start] = weeks(later, later)
    assert await world.value("SELECT tableoid::regclass::text FROM call") == partition_name("call", start)
