"""What the database's planner makes of the statements that run all the time, on tables of some size.

Sequential scans stay allowed: a statement that needs one here would read a million rows in a large installation.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from lumbung.db import delivery, history, lease, stats, stock
from lumbung.db.pool import PLAN_ONCE
from lumbung.db.query import Queries, Query
from tests.conftest import SERVER_URL, TEMPLATE, _drop, _execute, in_database
from tests.db.delivering import Told, leased, record
from tests.world import World, stock_update

STORES, LISTINGS, DUE, WAITS, UPDATES = 20, 20_000, 60, 5_000, 5_000

FILL = f"""
INSERT INTO tenant (id, name) VALUES (1, 'Toko'), (2, 'Other');
INSERT INTO warehouse (tenant_id, id, name) VALUES (1, 0, 'default');
INSERT INTO store (tenant_id, id, channel, name, mode, credentials)
    SELECT 1, n, 'blib', 'store ' || n, 'live', '' FROM generate_series(1, {STORES}) n;
INSERT INTO store_lease (store_id, tenant_id) SELECT id, 1 FROM store;
INSERT INTO store_warehouse (tenant_id, store_id, warehouse_id) SELECT 1, id, 0 FROM store;
INSERT INTO variant (tenant_id, id, sku) SELECT 1, n, 'sku' || n FROM generate_series(1, {LISTINGS}) n;
INSERT INTO listing (tenant_id, id, variant_id, store_id, remote_variant)
    SELECT 1, n, n, 1 + n % {STORES}, 'r' || n FROM generate_series(1, {LISTINGS}) n;
INSERT INTO stock_level SELECT 1, n, 0, 9, 0, 0, true, NULL, now() FROM generate_series(1, {LISTINGS}) n;
INSERT INTO channel_stock SELECT 1, n, 0, 'blib', 9, true FROM generate_series(1, {LISTINGS}) n;
INSERT INTO contribution (tenant_id, listing_id, warehouse_id, quantity, version)
    SELECT 1, n, 0, 9, n FROM generate_series(1, {LISTINGS}) n;
INSERT INTO listing_state (tenant_id, listing_id, store_id, state, lane, version_due, quantity_due)
    SELECT 1, n, 1 + n % {STORES}, CASE WHEN n % {LISTINGS // DUE} = 0 THEN 'due' WHEN n <= {WAITS} THEN 'waiting'
           ELSE 'idle' END, CASE WHEN n % {LISTINGS // DUE} = 0 THEN 1 + n % 3 ELSE 0 END, n, 9
    FROM generate_series(1, {LISTINGS}) n;
INSERT INTO listing_wait SELECT 1, n, 1 + n % {STORES}, 'backoff', now() + (n - 50) * interval '1 second'
    FROM generate_series(1, {WAITS}) n;
INSERT INTO stats_minute (tenant_id, store_id, minute, slot)
    SELECT 1, 1 + n % {STORES}, date_trunc('minute', now()) - n / {STORES} * interval '1 minute', 0
    FROM generate_series(0, {UPDATES}) n;
INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, action_name, total_sku, items, items_open,
                          updated_at, finished_at)
    SELECT 1, now() - n * interval '1 second', n, gen_random_uuid(), 'a', 1, 2, 0, now(), now()
    FROM generate_series(1, {UPDATES}) n;
INSERT INTO item (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel,
                  quantity, success, message, finished_at)
    SELECT 1, u.created_at, u.id, 2 * u.id + k, u.id, 1, 0, u.id, 'blib', 9, true, 'Successfully Updated', now()
    FROM stock_update u, generate_series(0, 1) k;
ANALYZE;
"""  # noqa: S608

STOCK, DELIVERY = Queries(stock.__file__), Queries(delivery.__file__)
PAIRS = {"tenant_ids": [1] * 24, "variant_ids": list(range(1, 19_200, 800))}
LISTED = {"tenant_ids": [1] * 24, "listing_ids": list(range(100, 19_300, 800))}
WINDOW = {"tenant_id": 1, "store_id": 3, "epoch": 0, "with_locations": True}


def named(store_id: int, listing_ids: list[int], *, with_locations: bool = True) -> dict[str, Any]:
    of_each = {"tenant_ids": 1, "store_ids": store_id, "epochs": 0, "with_locations": with_locations}
    return {name: [value] * len(listing_ids) for name, value in of_each.items()} | {"listing_ids": listing_ids}


LANES = {"lanes": [1, 2, 3, 4, 5, 6], "cursors": [0, 0, 0, 0, 0, 0]}

RECORDED: dict[str, Any] = {
    **LISTED,
    "versions": [1] * 24,
    "quantities": [1] * 24,
    "kinds": ["delivered"] * 24,
    "outcomes": ["Accepted"] * 24,
    "messages": ["ok"] * 24,
    "calls": [1] * 24,
    "doubts": ["clear"] * 24,
    "doubt_seconds": [0.0] * 24,
    "due_fors": ["push"] * 24,
    "handles": [None] * 24,
    "floors": [None] * 24,
    "were_observed": [False] * 24,
    "observed": [None] * 24,
    "lanes": [3] * 24,
    "park_retry_seconds": 3600.0,
    "doubt_seconds_max": 3600.0,
}
SETTLED: dict[str, Any] = {
    **LISTED,
    "versions": [20_000] * 24,
    "settled_before": [0] * 24,
    "success": [True] * 24,
    "messages": ["ok"] * 24,
    "answers": ["{}"] * 24,
    "call_ids": [None] * 24,
}
STATES: dict[str, Any] = {
    **LISTED,
    "store_ids": [1] * 24,
    "lanes": [2] * 24,
    "versions": [30_000] * 24,
    "quantities": [9] * 24,
}
WRITTEN: dict[str, Any] = {
    "c_tenant_ids": [1] * 24,
    "c_listing_ids": LISTED["listing_ids"],
    "c_warehouse_ids": [0] * 24,
    "c_quantities": [9] * 24,
    "c_locations": [None] * 24,
    "c_versions": [30_000] * 24,
    "c_item_ids": [None] * 24,
    "c_item_created_ats": [None] * 24,
    "c_calls_before": [0] * 24,
    "l_tenant_ids": [1] * 24,
    "l_variant_ids": PAIRS["variant_ids"],
    "l_warehouse_ids": [0] * 24,
    "l_available": [9] * 24,
    "l_buffer": [0] * 24,
    "l_reserved": [0] * 24,
    "l_sync": [True] * 24,
    "l_newest_as_of": [None] * 24,
    "f_tenant_ids": [1] * 24,
    "f_variant_ids": PAIRS["variant_ids"],
    "f_warehouse_ids": [0] * 24,
    "f_channels": ["blib"] * 24,
    "f_figures": [9] * 24,
    "f_named": [True] * 24,
}
COUNTS: dict[str, Any] = {
    "tenant_ids": [1] * STORES,
    "store_ids": list(range(1, STORES + 1)),
    "accepted": [1] * STORES,
    "pushed": [1] * STORES,
    "failed": [0] * STORES,
    "latencies": ["{1,2}"] * STORES,
}


def many_of(values: dict[str, Any]) -> dict[str, Any]:
    """The same for each of the listings that are changed often."""
    arrays = {name: value[:1] * len(MANY) if isinstance(value, list) else value for name, value in values.items()}
    return arrays | {"listing_ids": MANY}


BUSY, BUSY_STORE = LISTINGS // DUE, 1 + LISTINGS // DUE % STORES
BUSY_ONES, CHANGES, PAGES_MAX, PAGES_OF_A_WRITE_MAX = 400, 100, 8, 20

ASKED: list[tuple[Query, dict[str, Any]]] = [
    (
        DELIVERY["stores_with_work"],
        {"working": [3, 5], "wait_seconds_max": 86400.0, "renew_ahead_seconds": 86400.0},
    ),
    (DELIVERY["due_window"], {**WINDOW, **LANES, "busy": [1, 2, 3], "limit": 200}),
    (DELIVERY["due_now"], named(3, list(range(2, 4802, 200)))),
    (DELIVERY["release_waits"], {"store_ids": [1, 2, 3], "wait_seconds_max": 86400.0, "limit": 1000}),
    (DELIVERY["lock_results"], {**LISTED, "store_ids": [1] * 24, "epochs": [1] * 24}),
    (
        DELIVERY["record_states"],
        RECORDED,
    ),
    (DELIVERY["open_transactions"], LISTED),
    (
        DELIVERY["write_waits"],
        {**LISTED, "store_ids": [1] * 24, "reasons": ["backoff"] * 24, "seconds": [1.0] * 24},
    ),
    (DELIVERY["unpark"], {"tenant_id": 1, "epoch": 0, "listing_ids": LISTED["listing_ids"]}),
    (
        DELIVERY["settle_items"],
        SETTLED,
    ),
    (STOCK["lock_variants"], {"tenant_ids": [1] * 24, "skus": [f"sku{n * 70 + 1}" for n in range(24)]}),
    (STOCK["read_stock"], PAIRS),
    (STOCK["read_listings"], PAIRS),
    (STOCK["lock_states"], LISTED),
    (STOCK["write_states"], STATES),
    (STOCK["write_stock"], WRITTEN),
    (Queries(stats.__file__)["add_stats"], COUNTS),
    (
        Queries(lease.__file__)["claim"],
        {
            "channels": ["blib"],
            "quiesce_seconds": [60.0],
            "lifetimes": [15.0],
            "store_ids": [1, 2, 3],
            "limit": 10,
            "worker_id": 1,
        },
    ),
    (Queries(lease.__file__)["held"], {"worker_id": 1}),
]
HISTORY = Queries(history.__file__)
NOW = datetime.now(UTC)
HOUR_AGO = NOW - timedelta(hours=1)
HOURS = {"lows": [HOUR_AGO - timedelta(hours=1), HOUR_AGO], "highs": [HOUR_AGO, NOW]}
RANGES = {**HOURS, "oldest": HOUR_AGO - timedelta(hours=1), "newest": NOW}
# A page, and each statement that finds one: of the first page, of a deep offset, of the filter.
PAGES: dict[str, tuple[Query, dict[str, Any]]] = {
    "days": (
        HISTORY["spans"],
        {"lows": [history.EVER[0]], "highs": [history.EVER[1]], "seconds": 86400, "updated_at": None},
    ),
    "hours": (HISTORY["spans"], {**HOURS, "seconds": 3600, "updated_at": HOUR_AGO}),
    "cells": (HISTORY["cells"], {**RANGES, "updated_at": None}),
    "cells, filtered": (HISTORY["cells"], {**RANGES, "updated_at": HOUR_AGO}),
    "scan": (HISTORY["scan"], {**RANGES, "updated_at": HOUR_AGO}),
    "page": (HISTORY["page"], {**RANGES, "updated_at": None, "skips": [0, 0], "takes": [50, 50]}),
    "page, deep": (HISTORY["page"], {**RANGES, "updated_at": None, "skips": [900, 0], "takes": [50, 50]}),
    "page, filtered": (HISTORY["page"], {**RANGES, "updated_at": HOUR_AGO, "skips": [0, 0], "takes": [50, 50]}),
}
LARGE = (
    "listing_state",
    "listing_wait",
    "variant",
    "listing",
    "stock_update",
    "item",
    "stock_level",
    "contribution",
    "stats_minute",
)


@pytest.fixture(scope="module")
def large_database() -> Iterator[str]:
    """One database for all tests of this module: they only read it."""
    server, name = os.environ[SERVER_URL], f"lumbung_large_{uuid4().hex}"
    asyncio.run(_execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{os.environ[TEMPLATE]}"'))
    url = in_database(server, name)
    asyncio.run(_execute(url, FILL))
    yield url
    asyncio.run(_drop(server, name))


def literal(value: Any) -> str:
    match value:
        case None:
            return "NULL"
        case bool() | int() | float():
            return str(value).lower()
        case list():
            return "'{" + ",".join("NULL" if item is None else json.dumps(item, default=str) for item in value) + "}'"
        case _:
            return f"'{value}'"


def settings_of(mode: str) -> str:
    """Generic: as processes have their statements planned; custom: as commands that are run by hand have them."""
    settings = PLAN_ONCE if mode == "generic" else {"plan_cache_mode": "force_custom_plan"}
    return "; ".join(f"SET {name} = {value}" for name, value in settings.items())


async def plan_of(
    url: str, query: Query, values: dict[str, Any], *, mode: str, carried_out: bool = False
) -> dict[str, Any]:
    """The plan; with what it did if it is `carried_out`, and what that changed is undone."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"{settings_of(mode)}; PREPARE asked AS {query.sql}; BEGIN")
        arguments = ", ".join(literal(values[name]) for name in query.parameters)
        more = "ANALYZE, BUFFERS, " if carried_out else ""
        text = await connection.fetchval(f"EXPLAIN ({more}FORMAT JSON) EXECUTE asked ({arguments})")
        await connection.execute("ROLLBACK")
    finally:
        await connection.close()
    [plan] = json.loads(text)
    found: dict[str, Any] = plan["Plan"]
    return found


def all_nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for part in plan.get("Plans", ()) for node in all_nodes(part)]


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize(("query", "values"), ASKED, ids=[query.name for query, _ in ASKED])
async def test_no_large_table_is_read_from_end_to_end(
    large_database: str, query: Query, values: dict[str, Any], mode: str
) -> None:
    assert await large_ones_read(large_database, query, values, mode) == []


@pytest.mark.parametrize(("query", "values"), ASKED, ids=[query.name for query, _ in ASKED])
async def test_a_plan_made_while_the_tables_were_empty_is_right_for_large_ones(
    database_url: str, query: Query, values: dict[str, Any]
) -> None:
    """It is kept until the tables are analyzed for the first time."""
    nodes = all_nodes(await plan_of(database_url, query, values, mode="generic"))
    whole = [
        node["Relation Name"]
        for node in nodes
        if "Scan" in node["Node Type"]
        and node.get("Relation Name") in LARGE
        and not any(name in node for name in ("Index Cond", "TID Cond", "Recheck Cond"))
    ]
    steps = ["listing_wait"] if query.name == "stores_with_work" else []  # to the first one of all
    assert whole == steps


@pytest.mark.parametrize("mode", ["custom", "generic"])
@pytest.mark.parametrize("name", PAGES)
async def test_no_page_of_the_history_reads_all_of_it(large_database: str, name: str, mode: str) -> None:
    query, values = PAGES[name]
    values = {"tenant_id": 1, "items_max": 1000, **values}
    assert await large_ones_read(large_database, query, values, mode) == []


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_the_total_and_the_way_to_a_page_are_found_without_records(large_database: str, mode: str) -> None:
    for name in ("days", "hours"):
        query, values = PAGES[name]
        nodes = all_nodes(await plan_of(large_database, query, {"tenant_id": 1, **values}, mode=mode))
        read = {node["Relation Name"] for node in nodes if "Relation Name" in node}
        assert read == {"history_span", "history_delta", "tenant"}


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_what_the_filter_cuts_is_found_by_its_time(large_database: str, mode: str) -> None:
    query, values = PAGES["cells, filtered"]
    nodes = all_nodes(await plan_of(large_database, query, {"tenant_id": 1, **values}, mode=mode))
    by_time = [node["Index Cond"] for node in nodes if "updated_at" in node.get("Index Name", "")]
    assert by_time != []
    assert all("updated_at >=" in condition and "updated_at <" in condition for condition in by_time)


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_waits_that_are_over_are_found_by_their_time_not_among_all_that_wait(
    large_database: str, mode: str
) -> None:
    query, values = next((query, values) for query, values in ASKED if query.name == "release_waits")
    nodes = all_nodes(await plan_of(large_database, query, values, mode=mode))
    by_time = [node["Index Cond"] for node in nodes if node.get("Index Name") == "listing_wait_due"]
    assert len(by_time) == 2
    assert all("due_at" in condition for condition in by_time)


async def test_what_the_caller_works_for_is_stepped_over_however_much_of_it_is_due(large_database: str) -> None:
    values = {"working": list(range(1, STORES)), "wait_seconds_max": 86400.0, "renew_ahead_seconds": 86400.0}
    plan = await plan_of(large_database, DELIVERY["stores_with_work"], values, mode="generic", carried_out=True)
    lanes = [node for node in all_nodes(plan) if node.get("Index Name") == "listing_state_lane"]
    assert lanes != []
    assert sum(rows_of(node) for node in lanes) == 1  # of the last store, the only one that is looked for
    assert all("<" in node["Index Cond"] and ">" in node["Index Cond"] for node in lanes)


@pytest.mark.parametrize("asked", [True, False])
async def test_what_locations_add_up_to_is_read_only_for_who_asks(large_database: str, *, asked: bool) -> None:
    values = named(BUSY_STORE, [BUSY], with_locations=asked)
    nodes = all_nodes(await plan_of(large_database, DELIVERY["due_now"], values, mode="generic", carried_out=True))
    assert sum(rows_of(node) for node in nodes if node.get("Relation Name") == "listing_state") == 2
    read = [node["Actual Loops"] for node in nodes if node.get("Relation Name") == "contribution"]
    assert (max(read) > 0) == asked


@pytest.mark.parametrize("mode", ["custom", "generic"])
async def test_a_window_of_a_store_with_much_due_reads_that_many_listings_wherever_its_cursor_stands(
    large_database: str, mode: str
) -> None:
    limit = 50
    values = {**WINDOW, **LANES, "cursors": [LISTINGS - 1000] * 6, "busy": [], "limit": limit}
    nodes = all_nodes(await plan_of_a_store_with_all_due(large_database, values, mode=mode))
    read = [(node["Relation Name"], rows_of(node)) for node in nodes if node.get("Relation Name") in LARGE]
    assert sorted(read) == [
        ("contribution", limit),
        ("listing", limit),
        ("listing_state", limit),
        ("listing_state", limit),
    ]


async def plan_of_a_store_with_all_due(url: str, values: dict[str, Any], *, mode: str) -> dict[str, Any]:
    """As it was carried out, with every listing due in one lane of one store."""
    query = DELIVERY["due_window"]
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("UPDATE listing_state SET store_id = 3, state = 'due', lane = 2; ANALYZE")
            await connection.execute(f"{settings_of(mode)}; PREPARE asked AS {query.sql}")
            arguments = ", ".join(literal(values[name]) for name in query.parameters)
            text = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked ({arguments})")
            raise _Undone
    except _Undone:
        pass
    finally:
        await connection.close()
    [plan] = json.loads(text)
    found: dict[str, Any] = plan["Plan"]
    return found


class _Undone(Exception):
    """What was changed for a question is not kept."""


def rows_of(node: dict[str, Any]) -> int:
    """All that a node has looked at, also what it did not give on."""
    seen: float = sum(count for name, count in node.items() if name == "Actual Rows" or name.startswith("Rows Removed"))
    loops: int = node["Actual Loops"]
    return round(seen * loops)


async def large_ones_read(url: str, query: Query, values: dict[str, Any], mode: str) -> list[str]:
    """The large tables and filled partitions that a query reads from their beginning to their end."""
    plan = await plan_of(url, query, values, mode=mode)
    filled = await partitions_with_rows(url)
    names = [node["Relation Name"] for node in all_nodes(plan) if node["Node Type"] == "Seq Scan"]
    return [name for name in names if name in LARGE or name in filled]


async def partitions_with_rows(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 500 AND relname ~ '^(item|stock_update)_'"
        )
    finally:
        await connection.close()
    return {row["relname"] for row in rows}


async def test_the_large_tables_are_as_large_as_they_are_said_to_be(large_database: str) -> None:
    connection = await asyncpg.connect(large_database)
    counts = [
        await connection.fetchval(query)
        for query in (
            "SELECT count(*) FROM listing_state",
            "SELECT count(*) FROM listing_state WHERE lane > 0",
            "SELECT count(*) FROM listing_wait",
            "SELECT count(*) FROM item",
        )
    ]
    await connection.close()
    assert counts == [LISTINGS, DUE, WAITS, 2 * UPDATES]
    assert await partitions_with_rows(large_database) != set()


async def test_most_updates_of_a_busy_listing_stay_on_its_page(world: World) -> None:
    """Ten updates are accepted for each push: the state's row changes eleven times, and its index entries seldom."""
    await world.small()
    held = await leased(world)
    for push in range(20):
        await world.accept(*(stock_update(blib=push * 10 + n) for n in range(10)))
        for n in range(9):
            await world.accepted(stock_update(blib=push * 10 + n + 1))
        [state] = (await world.states()).values()
        await record(world, held, Told(state["listing_id"], state["version_due"], state["quantity_due"]))
    async with world.pool.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
    connection_of_its_own = await asyncpg.connect(world.pool.url)
    row = await connection_of_its_own.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'listing_state'"
    )
    await connection_of_its_own.close()
    assert row is not None
    assert row["n_tup_upd"] > 0
    assert row["n_tup_hot_upd"] / row["n_tup_upd"] >= 0.7


MANY = list(range(BUSY, BUSY + BUSY_ONES, 10))
OF_BUSY_ONES: list[tuple[Query, dict[str, Any]]] = [
    (DELIVERY["due_now"], named(BUSY_STORE, MANY)),
    (DELIVERY["record_states"], many_of(RECORDED)),
    (DELIVERY["settle_items"], many_of(SETTLED)),
    (STOCK["read_listings"], {"tenant_ids": [1] * len(MANY), "variant_ids": MANY}),
    (STOCK["lock_states"], {"tenant_ids": [1] * len(MANY), "listing_ids": MANY}),
    (
        DELIVERY["lock_results"],
        {**many_of(LISTED), "store_ids": [1 + n % STORES for n in MANY], "epochs": [0] * len(MANY)},
    ),
    (STOCK["read_stock"], {"tenant_ids": [1] * len(MANY), "variant_ids": MANY}),
]
BUSY_TABLES = {"listing_state", "contribution", "stock_level"}
CHURN = f"""
DO $$ BEGIN FOR n IN 1..{CHANGES} LOOP
    UPDATE listing_state SET state = 'due', lane = 1 + n % 3
    WHERE tenant_id = 1 AND listing_id BETWEEN {BUSY} AND {BUSY + BUSY_ONES};
    UPDATE contribution SET quantity = n WHERE tenant_id = 1 AND listing_id BETWEEN {BUSY} AND {BUSY + BUSY_ONES};
    UPDATE stock_level SET available = n WHERE tenant_id = 1 AND variant_id BETWEEN {BUSY} AND {BUSY + BUSY_ONES};
END LOOP; END $$
"""  # noqa: S608


@pytest.fixture(scope="module")
def churned_database() -> Iterator[str]:
    """Some listings have changed often while somebody holds a snapshot: none of their dead versions can be removed."""
    server, name = os.environ[SERVER_URL], f"lumbung_churned_{uuid4().hex}"
    asyncio.run(_execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{os.environ[TEMPLATE]}"'))
    url = in_database(server, name)
    asyncio.run(_execute(url, FILL))
    with holding_a_snapshot(url):
        asyncio.run(_execute(url, CHURN))
        yield url
    asyncio.run(_drop(server, name))


@contextmanager
def holding_a_snapshot(url: str) -> Iterator[None]:
    """A loop of its own lives on with the connection."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))
    loop.run_until_complete(connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM listing_state"))
    try:
        yield
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


@pytest.mark.parametrize(("query", "values"), OF_BUSY_ONES, ids=[query.name for query, _ in OF_BUSY_ONES])
async def test_a_row_is_found_at_once_however_many_dead_versions_a_snapshot_keeps(
    churned_database: str, query: Query, values: dict[str, Any]
) -> None:
    plan = await plan_of(churned_database, query, values, mode="generic", carried_out=True)  # as processes have it
    scans = [
        node for node in all_nodes(plan) if node.get("Relation Name") in BUSY_TABLES and "Scan" in node["Node Type"]
    ]
    assert sum(rows_of(node) for node in scans) >= len(MANY)
    assert max(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in scans) <= PAGES_MAX * len(MANY)


def changed(values: dict[str, Any], **others: Any) -> dict[str, Any]:
    return many_of({**values, **others})


WRITES: list[tuple[Query, dict[str, Any]]] = [
    (DELIVERY["record_states"], many_of(RECORDED)),
    (STOCK["write_states"], changed(STATES, lanes=[1])),
    (STOCK["write_stock"], {**many_of(WRITTEN), "c_listing_ids": MANY, "l_variant_ids": MANY, "f_variant_ids": MANY}),
]


@pytest.mark.parametrize(("query", "values"), WRITES, ids=[query.name for query, _ in WRITES])
async def test_a_row_is_written_without_a_look_at_its_dead_versions(
    churned_database: str, query: Query, values: dict[str, Any]
) -> None:
    """A unique index would look at each of them before it takes another entry of that key."""
    plan = await plan_of(churned_database, query, values, mode="generic", carried_out=True)
    nodes = all_nodes(plan)
    updates = [node for node in nodes if node.get("Operation") == "Update"]
    assert {sum(rows_of(part) for part in update["Plans"][:1]) for update in updates} == {len(MANY)}
    assert max(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in nodes) <= (
        PAGES_OF_A_WRITE_MAX * len(MANY)
    )
