"""Weekly partitions of the histories, made ahead of time by every role at start and hourly.

A partition is made as a table of its own (CREATE ... LIKE) and then attached: `CREATE TABLE ... PARTITION OF` would
take an exclusive lock on the history, behind which every update would queue.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg

from lumbung.db.pool import Pool
from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)

# Room for the one time that a row is written again: updates count their open items, items end.
PARTITIONED = {"stock_update": 60, "item": 60, "stock_change": 100, "call": 100}
WEEK = timedelta(days=7)


async def ensure(pool: Pool, *, ahead_days: int, lock_timeout_ms: int = 2000) -> list[str]:
    """Make what is missing from last week to `ahead_days` ahead of the database's clock; returns the new names."""
    async with pool.connection() as connection:
        now: datetime = await _queries["clock"].value(connection)
        present = {row["name"] for row in await _queries["partitions"].all(connection, parents=list(PARTITIONED))}
    made = []
    for start in weeks(now - WEEK, now + timedelta(days=ahead_days)):
        for parent, fillfactor in PARTITIONED.items():
            name = partition_name(parent, start)
            if name not in present:
                async with pool.transaction(lock_timeout_ms=lock_timeout_ms) as connection:
                    new = await _make(connection, parent, name, start, fillfactor)
                if new:
                    made.append(name)
    return made


def weeks(first: datetime, last: datetime) -> list[datetime]:
    """The Mondays, midnight UTC, of every week from the one of `first` to the one of `last`."""
    monday = (
        (first - timedelta(days=first.weekday())).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    )
    count = (last - monday) // WEEK + 1
    return [monday + n * WEEK for n in range(count)]


def partition_name(parent: str, start: datetime) -> str:
    return f"{parent}_{start:%Y_%m_%d}"


async def _make(connection: Connection, parent: str, name: str, start: datetime, fillfactor: int) -> bool:
    """False when another process has just made it."""
    # DDL takes no parameters: format() quotes the names on the server.
    try:
        async with connection.transaction():
            for statement in await _queries["partition_statements"].all(
                connection, parent=parent, name=name, starts=start, ends=start + WEEK, fillfactor=fillfactor
            ):
                await connection.execute(statement["sql"])
    except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return False
    return True
