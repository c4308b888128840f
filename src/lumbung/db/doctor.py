"""What `lumbung doctor` asks the database. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from lumbung.db.partitions import PARTITIONED, attached, partition_name, weeks
from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class Server:
    version: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Delivering:
    """Live workers and stores; listings that are due or wait for a time."""

    workers: int
    live_stores: int
    due: int
    waiting: int


async def delivering(connection: Connection) -> Delivering:
    row = await _queries["delivering"].one(connection)
    assert row is not None
    return Delivering(row["workers"], row["live_stores"], row["due"], row["waiting"])


async def server(connection: Connection) -> Server:
    row = await _queries["server"].one(connection)
    assert row is not None
    return Server(row["version"], row["now"])


async def missing_partitions(connection: Connection, *, now: datetime, ahead_days: int) -> list[str]:
    """Names of the partitions of the histories that the days from `now` on need and that are not there."""
    present = await attached(connection)
    wanted = [
        partition_name(parent, start)
        for start in weeks(now, now + timedelta(days=ahead_days))
        for parent in PARTITIONED
    ]
    return [name for name in wanted if name not in present]
