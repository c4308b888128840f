"""How long a page of the history takes: `python -m tests.measure.history --records 1000000`.

Fills databases of an embedded PostgreSQL in a temporary directory, one for each way in which records lie:

    year     evenly over 52 weeks
    hour     within one hour
    backlog  within one hour, and ended at any time within the hour after it was made

Of the first two, nine in ten records end within 5 s, the others within an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

from lumbung.db import history
from lumbung.db.embedded import EmbeddedPostgres
from lumbung.db.migrate import migrate
from lumbung.db.partitions import PARTITIONED, WEEK, _make, attached, ensure, partition_name, weeks
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.settings import Settings

LIMIT = 100
CHUNK = 250_000
BASE = """
    INSERT INTO tenant (id, name) VALUES (1, 'Toko');
    INSERT INTO warehouse (tenant_id, id, name) VALUES (1, 0, 'default');
    INSERT INTO store (tenant_id, id, channel, name, mode, credentials) VALUES (1, 1, 'blib', 'Toko Padi', 'live', '');
    INSERT INTO variant (tenant_id, id, sku) VALUES (1, 1, 'sku1');
    INSERT INTO listing (tenant_id, id, variant_id, store_id, remote_variant) VALUES (1, 1, 1, 1, '{}');
"""
RECORDS = """
    INSERT INTO stock_update (tenant_id, created_at, id, transaction_code, partner_id, action_name, total_sku, items,
                              items_open, updated_at, finished_at)
    SELECT 1, created, n, gen_random_uuid(), 'B98KL87', 'partner_update_stocks', 1, 1, 0, created + lag, created + lag
    FROM generate_series($1::bigint, $2::bigint) AS n,
         LATERAL (SELECT $3::timestamptz + n * $4::float8 * interval '1 second') AS c (created),
         LATERAL (SELECT random() * interval '1 second' * CASE WHEN NOT $5 AND n % 10 > 0 THEN 5 ELSE 3600 END) l (lag)
"""
ITEMS = """
    INSERT INTO item (tenant_id, created_at, update_id, id, listing_id, store_id, warehouse_id, variant_id, channel,
                      quantity, success, message, client_response, finished_at)
    SELECT 1, created_at, id, id, 1, 1, 0, 1, 'blib', 9, true, 'Successfully Updated', '{}', updated_at
    FROM stock_update WHERE id BETWEEN $1 AND $2 AND created_at >= $3
"""


@dataclass(frozen=True)
class Shape:
    """Where the records lie."""

    name: str
    length: timedelta
    backlog: bool = False


SHAPES = [
    Shape("year", 52 * WEEK),
    Shape("hour", timedelta(hours=1)),
    Shape("backlog", timedelta(hours=1), backlog=True),
]


async def fill(pool: Pool, shape: Shape, records: int) -> datetime:
    """Returns the time of the newest record; all have ended by now."""
    await migrate(pool, timeout_seconds=60)
    await ensure(pool, ahead_days=14)
    async with pool.connection() as connection:
        ends: datetime = await connection.fetchval("SELECT now() - interval '1 hour'")
        starts = ends - shape.length
        await _make_weeks(connection, starts, ends)
        await connection.execute(BASE)
        apart = shape.length.total_seconds() / records
        for first in range(1, records + 1, CHUNK):
            last = min(first + CHUNK - 1, records)
            await connection.execute(RECORDS, first, last, starts, apart, shape.backlog, timeout=600)
            since = starts + (first - 1) * apart * timedelta(seconds=1)
            await connection.execute(ITEMS, first, last, since, timeout=600)
            await history.roll_up(pool, settled_seconds=-60)
        await history.fold(pool)
        await connection.execute("VACUUM ANALYZE", timeout=600)
    return ends


async def _make_weeks(connection: Connection, starts: datetime, ends: datetime) -> None:
    present = await attached(connection)
    for start in weeks(starts, ends):
        for parent, fillfactor in PARTITIONED.items():
            name = partition_name(parent, start)
            if name not in present:
                await _make(connection, parent, name, start, fillfactor)


async def measure(table: Table, pool: Pool, shape: Shape, ends: datetime, rounds: int) -> None:
    filters = {"none": None, "last minute": ends - timedelta(minutes=1), "half": ends - shape.length / 2}
    async with pool.connection() as connection:
        for name, since in filters.items():
            total = await _total(connection, since)
            for place, offset in {"first": 0, "middle": total // 2, "last": max(0, total - LIMIT)}.items():
                times = sorted([await _once(connection, since, offset) for _ in range(rounds)])
                p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
                table.add_row(shape.name, name, f"{total:,}", place, f"{median(times):.1f}", f"{p99:.1f}")


async def _total(connection: Connection, since: datetime | None) -> int:
    """As the history says, and it must be what counting says."""
    _, total = await history.page(connection, tenant_id=1, updated_at=since, limit=1, offset=0, items_max=1)
    counted = await connection.fetchval(
        "SELECT count(*) FROM stock_update WHERE $1::timestamptz IS NULL OR updated_at >= $1", since, timeout=600
    )
    assert total == counted, (total, counted)
    return total


async def _once(connection: Connection, since: datetime | None, offset: int) -> float:
    """Milliseconds."""
    began = perf_counter()
    await history.page(connection, tenant_id=1, updated_at=since, limit=LIMIT, offset=offset, items_max=1000)
    return (perf_counter() - began) * 1000


async def main(records: int, rounds: int, shapes: list[Shape]) -> None:
    console = Console()
    table = Table(title=f"A page of {LIMIT} of {records:,} records")
    for column in ("records over", "updated_at", "total", "page", "p50 ms", "p99 ms"):
        table.add_column(column, justify="left" if column in {"records over", "updated_at", "page"} else "right")
    with (
        tempfile.TemporaryDirectory(prefix="lumbung-measure-") as directory,
        EmbeddedPostgres.start(Path(directory), durable=False) as server,
    ):
        for shape in shapes:
            server.ensure_database(shape.name)
            async with Pool(server.url(shape.name), Settings()) as pool:
                began = perf_counter()
                ends = await fill(pool, shape, records)
                console.print(f"{shape.name}: filled in {perf_counter() - began:.0f} s")
                await measure(table, pool, shape, ends, rounds)
    console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", choices=[shape.name for shape in SHAPES])
    asked = parser.parse_args()
    asyncio.run(main(asked.records, asked.rounds, [s for s in SHAPES if asked.only in {None, s.name}]))
