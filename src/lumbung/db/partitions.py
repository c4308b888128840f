"""Weekly partitions of the histories, made ahead of time by every role at start and hourly.

A partition is made as a table of its own (CREATE ... LIKE) and then attached: `CREATE TABLE ... PARTITION OF` would
take an exclusive lock on the history, behind which every update would queue. For the same reason one that is too old
is detached before it is dropped:

    attached --DETACH CONCURRENTLY--> pending --readers have ended--> detached --DROP--> gone
                                         '--stopped by a lock or a crash: FINALIZE--^

Weeks of the history are hidden from readers before that, and their counters are forgotten after it: totals stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from lumbung.db import history
from lumbung.db.pool import Pool, savepoint
from lumbung.db.query import Connection, Queries
from lumbung.errors import LockBusy

_queries = Queries(__file__)

# Room for the one time that a row is written again: updates count their open items, items end.
PARTITIONED = {"stock_update": 60, "item": 60, "stock_change": 100, "call": 100}
CALLS = "call"
RECORDS = "stock_update"
NAMED_AFTER = "%Y_%m_%d"  # a partition: after the Monday that it begins with
WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Partition:
    """One week of a history. `pending`: its detach was begun and not ended; it is still `attached`."""

    parent: str
    name: str
    attached: bool
    pending: bool

    @property
    def starts(self) -> datetime:
        return datetime.strptime(self.name.removeprefix(f"{self.parent}_"), NAMED_AFTER).replace(tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        return self.starts + WEEK


async def ensure(pool: Pool, *, ahead_days: int, lock_timeout_ms: int = 2000) -> list[str]:
    """Make what is missing from last week to `ahead_days` ahead of the database's clock; returns the new names."""
    async with pool.connection() as connection:
        now: datetime = await _queries["clock"].value(connection)
        present = await attached(connection)
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


async def ensure_week(connection: Connection, start: datetime) -> None:
    """Make what is missing of one week, the Monday of which is `start`."""
    present = await attached(connection)
    for parent, fillfactor in PARTITIONED.items():
        if (name := partition_name(parent, start)) not in present:
            await _make(connection, parent, name, start, fillfactor)


async def attached(connection: Connection) -> set[str]:
    """The names of the partitions that rows can go into."""
    return {partition.name for partition in await _partitions(connection) if partition.attached}


async def drop_old(
    pool: Pool, *, call_days: int, history_days: int, statement_seconds_max: float, lock_timeout_ms: int = 2000
) -> list[str]:
    """Drop the weeks that ended more than so many days ago, 0: none; returns the names of the partitions.

    A week of the history with an update that is still open stays, and so does the last week, which `ensure` would make
    again. What is in use, or what a crash left half done, is done by a later call of any process.
    """
    # The turn is a transaction that touches no history: what detaches waits for all who do, and is in none itself.
    removal = _Removal(pool, statement_seconds_max, lock_timeout_ms)
    try:
        async with pool.transaction(lock_timeout_ms=lock_timeout_ms, may_idle=True) as turn:
            await _queries["take_turn"].run(turn)
            old = await _old(pool, {parent: call_days if parent == CALLS else history_days for parent in PARTITIONED})
            await _hide(pool, [one for partitions in old for one in partitions], lock_timeout_ms)
            return [name for partitions in old for name in await removal.of(partitions)]
    except LockBusy:
        return []


async def _old(pool: Pool, days: Mapping[str, int]) -> list[list[Partition]]:
    """The partitions, by parent, that ended more than its `days` ago."""
    async with pool.connection() as connection:
        now: datetime = await _queries["clock"].value(connection)
        every = await _partitions(connection)
    keep = {parent: max(timedelta(days=kept), WEEK) for parent, kept in days.items() if kept}
    return [
        [partition for partition in every if partition.parent == parent and partition.ends <= now - kept]
        for parent, kept in keep.items()
    ]


async def _hide(pool: Pool, old: list[Partition], lock_timeout_ms: int) -> None:
    """Also an old week that stays for now, because an update of it is open."""
    ends = [partition.ends for partition in old if partition.parent == RECORDS]
    if ends:
        async with pool.transaction(lock_timeout_ms=lock_timeout_ms) as connection:
            await history.hide_before(connection, max(ends))


class _Removal:
    def __init__(self, pool: Pool, statement_seconds_max: float, lock_timeout_ms: int):
        self._pool = pool
        self._statement_seconds_max = statement_seconds_max
        self._lock_timeout_ms = lock_timeout_ms

    async def of(self, old: list[Partition]) -> list[str]:
        """Of one parent, which may have one pending detach at a time: that one first, and none after one in use."""
        dropped = []
        for partition in sorted(old, key=lambda one: (not one.pending, one.name)):
            try:
                if partition.parent == CALLS or not await self._has_open_updates(partition):
                    await self._remove(partition)
                    dropped.append(partition.name)
            except (LockBusy, asyncpg.ObjectNotInPrerequisiteStateError):
                break
        return dropped

    async def _has_open_updates(self, partition: Partition) -> bool:
        async with self._pool.connection() as connection:
            query = _queries["has_open_updates"].within(self._statement_seconds_max)
            found: bool = await query.value(connection, starts=partition.starts, ends=partition.ends)
        return found

    async def _remove(self, partition: Partition) -> None:
        async with self._pool.connection() as connection:
            try:
                await _queries["set_lock_timeout"].value(connection, lock_timeout=f"{self._lock_timeout_ms}ms")
                await self._detach_and_drop(connection, partition)
            finally:
                await _undo_lock_timeout(connection)
        if partition.parent == RECORDS:
            async with self._pool.transaction() as connection:
                await history.forget(connection, partition.starts, partition.ends)

    async def _detach_and_drop(self, connection: Connection, partition: Partition) -> None:
        for statement in await _queries["removal_statements"].all(
            connection,
            parent=partition.parent,
            name=partition.name,
            attached=partition.attached,
            pending=partition.pending,
        ):
            await connection.execute(statement["sql"], timeout=self._statement_seconds_max)


async def _undo_lock_timeout(connection: Connection) -> None:
    """Or end the connection: its next user would give up on locks after our time."""
    try:
        await _queries["reset_lock_timeout"].run(connection)
    except BaseException:
        with suppress(asyncpg.InterfaceError):  # it is lost already
            connection.terminate()
        raise


def weeks(first: datetime, last: datetime) -> list[datetime]:
    """The Mondays, midnight UTC, of every week from the one of `first` to the one of `last`."""
    monday = (
        (first - timedelta(days=first.weekday())).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    )
    count = (last - monday) // WEEK + 1
    return [monday + n * WEEK for n in range(count)]


def partition_name(parent: str, start: datetime) -> str:
    return f"{parent}_{start.strftime(NAMED_AFTER)}"


async def _partitions(connection: Connection) -> list[Partition]:
    rows = await _queries["partitions"].all(connection, parents=list(PARTITIONED))
    return [Partition(row["parent"], row["name"], row["attached"], row["pending"]) for row in rows]


async def _make(connection: Connection, parent: str, name: str, start: datetime, fillfactor: int) -> bool:
    """False when another process has just made it."""
    # DDL takes no parameters: format() quotes the names on the server.
    try:
        async with savepoint(connection):
            for statement in await _queries["partition_statements"].all(
                connection, parent=parent, name=name, starts=start, ends=start + WEEK, fillfactor=fillfactor
            ):
                await connection.execute(statement["sql"])
    except (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        return False
    return True
