"""Sentences of the design that no other test of the database holds."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import asyncpg
import pytest
from asyncpg.connection import LoggedQuery

from lumbung.cli.compose import maintain
from lumbung.db import budget, delivery, lease, partitions, schema, stock, wake
from lumbung.db.partitions import PARTITIONED, partition_name, weeks
from lumbung.db.query import Queries
from lumbung.db.wake import Hints, Listener
from lumbung.dispatch.policy import Again, Deliver, Park, Retry
from lumbung.inventory.stock import Receipt, accept
from lumbung.model import StockUpdate, Submission
from lumbung.settings import Settings
from tests.db.delivering import Told, blocked, leased, record, release
from tests.world import PARTNER_ID, RULES, World, stock_update

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
    heard: asyncio.Queue[Hints | None] = asyncio.Queue()
    listening = asyncio.create_task(Listener(world.pool, Settings()).listen(heard.put_nowait))
    assert await heard.get() is None
    await world.accepted(stock_update(blib=1))
    await wake.notify(world.pool, [4711])
    assert await heard.get() == {4711: {}}
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


async def test_applications_and_modes_of_stores_are_in_the_first_migration(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute(schema.migrations()[0].sql)
        tenant = await connection.fetchval("INSERT INTO tenant (name) VALUES ('Toko') RETURNING id")
        add_app = "INSERT INTO channel_app (tenant_id, channel, name, credentials) VALUES ($1, 'shpe', 'key', '')"
        for owner in (tenant, None):  # of one tenant, and of the installation
            await connection.execute(f"{add_app} RETURNING id", owner)
        app = await connection.fetchval("SELECT max(id) FROM channel_app")
        add_store = (
            "INSERT INTO store (tenant_id, channel_app_id, channel, name, mode, credentials, pause_reason,"
            " mode_before_pause) VALUES ($1, $2, 'shpe', $3::text, $3::text, '', $4, $5)"
        )
        for mode, *paused in (("observe", None, None), ("live", None, None), ("paused", "why", "live")):
            await connection.execute(add_store, tenant, app, mode, *paused)
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(add_store, tenant, app, "off", None, None)
    finally:
        await connection.close()


async def test_a_version_is_taken_after_the_lock(world: World) -> None:
    await world.small()
    async with world.pool.transaction() as connection:
        await connection.execute("SELECT FROM variant FOR NO KEY UPDATE")
        accepting = asyncio.create_task(world.accepted(stock_update(blib=5)))
        await blocked(world)
        taken = await world.value("SELECT nextval('version_seq')")
    await accepting
    assert (await world.states())[PADI]["version_due"] > taken


async def test_a_group_locks_then_reads_then_writes_in_as_many_statements_as_one_update(world: World) -> None:
    await world.tenant()
    await world.store()
    skus = [f"sku{n}" for n in range(40)]
    await world.variants(*skus)
    await world.listings([(sku, "Toko Padi", sku) for sku in skus])
    names = {query.sql: query.name for query in Queries(str(stock.__file__))}
    asked: list[str] = []

    def note(query: LoggedQuery) -> None:
        asked.append(query.query)

    async def statements_of(*updates: StockUpdate) -> list[str]:
        asked.clear()
        submissions = [Submission(world.tenant_id, PARTNER_ID, uuid4(), update) for update in updates]
        async with connection.transaction():
            with connection.query_logger(note):
                answers = await accept(connection, submissions, RULES)
        assert all(isinstance(answer, Receipt) for answer in answers)
        return list(asked)

    async with world.pool.connection() as connection:
        await statements_of(stock_update("sku0", blib=1))  # the driver asks about types, once a connection
        one = await statements_of(stock_update("sku1", blib=1))
        many = await statements_of(*(stock_update(sku, blib=1) for sku in skus[2:]))
    assert many == one
    order = [names[sql] for sql in many if sql in names]
    assert order == [
        *("resolve", "lock_variants", "read_stock", "read_listings", "take_ids"),
        *("lock_states", "write_states", "write_stock", "write_history"),
    ]


async def test_accepting_leaves_durability_as_the_server_has_it(world: World) -> None:
    await world.small()
    submission = Submission(world.tenant_id, PARTNER_ID, uuid4(), stock_update(blib=5))
    async with world.pool.transaction(lock_timeout_ms=50) as connection:
        await accept(connection, [submission], RULES)
        rows = await connection.fetch(
            "SELECT name, source FROM pg_settings WHERE name IN ('synchronous_commit', 'lock_timeout')"
        )
    sources = {row["name"]: row["source"] for row in rows}
    assert sources["lock_timeout"] == "session"  # what this connection has set itself is seen
    assert sources["synchronous_commit"] in {"default", "configuration file", "command line"}
    unlogged = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relpersistence <> 'p'"
    assert await world.rows(unlogged) == []


@pytest.mark.parametrize("module", [lease, delivery, budget], ids=lambda module: module.__name__.rpartition(".")[2])
async def test_no_process_tells_the_database_what_time_it_is(world: World, module: ModuleType) -> None:
    """What two processes compare is compared by the database's clock: they give it lengths of time only."""
    given = set()
    async with world.pool.connection() as connection:
        for query in Queries(str(module.__file__)):
            types = [parameter.name for parameter in (await connection.prepare(query.sql)).get_parameters()]
            if any(name.startswith(("timestamp", "time", "date", "_timestamp")) for name in types):
                given.add(query.name)
    assert given == ({"swap_tokens"} if module is lease else set())  # when a pair expires: the marketplace says so


async def test_no_history_has_a_default_partition(world: World) -> None:
    rows = await world.rows(
        "SELECT partrelid::regclass::text AS name, partdefid::int AS other FROM pg_partitioned_table"
    )
    assert {row["name"]: row["other"] for row in rows} == dict.fromkeys(PARTITIONED, 0)


async def test_a_change_says_by_whom_it_was_made(world: World) -> None:
    await world.small()
    as_of = datetime(2026, 1, 5, tzinfo=UTC)
    code = await world.accepted(stock_update(available=50, blib=3, as_of=as_of))
    [row] = await world.rows(
        "SELECT u.partner_id, u.transaction_code, c.available, c.as_of, c.replaced FROM stock_change c"
        " JOIN stock_update u ON u.tenant_id = c.tenant_id AND u.created_at = c.created_at AND u.id = c.update_id"
    )
    assert tuple(row.values()) == (PARTNER_ID, code, 50, as_of, None)


def test_only_what_may_be_late_takes_turns_by_an_advisory_lock_and_within_a_transaction_only() -> None:
    package = Path(str(resources.files("lumbung")))
    calls = {
        path.relative_to(package).as_posix(): re.findall(r"pg_\w*advisory\w*", path.read_text(encoding="utf-8"))
        for path in [*package.rglob("*.py"), *package.rglob("*.sql")]
    }
    assert {name: found for name, found in calls.items() if found} == {
        "db/history.sql": ["pg_try_advisory_xact_lock"],  # roll-ups
        "db/partitions.sql": ["pg_advisory_xact_lock"],  # removing old partitions
    }
