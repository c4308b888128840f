"""Reading the history of updates, at any size: the total is exact and no page counts what is before it.

Counters (migrations/0003_history_counters.sql) divide the history into spans: days, hours, 10 s. A span is `whole` when
all its records match. A page is found like a word in a dictionary:

    1. the days; those of which only some records match, by hours; those again by 10 s (`_matching`)
    2. the sum of all is the total
    3. of the span in which the page begins, finer ones, so that little is skipped (`_zoomed`)
    4. the records, read from each span that has a part of the page (`_parts`)

All from one snapshot. Nothing rests on when items end: that they end in time only bounds how many hours match in part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lumbung.db.pool import Pool
from lumbung.db.query import Connection, Queries
from lumbung.model import HistoryItem, HistoryRecord

_queries = Queries(__file__)

DAY, HOUR, CELL = 86400, 3600, 10
EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
SKIPPED_MAX = 1000  # records that a page reads past before counters of a finer kind are cheaper
SCANNED_MAX = 10_000  # records of an hour that is read through when only some match
ROLL_UP_ROWS = 10_000  # deltas in one transaction
SETTLED_SECONDS = 2 * CELL  # nobody adds to a delta that was begun so long ago
FOLD_HOURS = 100  # in one transaction
FOLD_SECONDS = 2 * DAY  # an hour of so long ago gets no new records
REMOVED_ROWS = 1000  # old records removed in one transaction


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the history from `low` to before `high`. `records`: how many match, all of them if it is `whole`.

    `finer`: the length in seconds of the parts that counters divide it into; 0: none.
    """

    low: datetime
    high: datetime
    records: int
    whole: bool = True
    finer: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """What a page takes of a span: `take` records after the newest `skip`."""

    low: datetime
    high: datetime
    skip: int
    take: int


async def page(
    connection: Connection, *, tenant_id: int, updated_at: datetime | None, limit: int, offset: int, items_max: int
) -> tuple[list[HistoryRecord], int]:
    """Records newest first, each with its first `items_max` items, and how many records match in all.

    Begins a transaction of its own on `connection`.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await _queries["keep_partitions"].run(connection)
        counters = _Counters(connection, tenant_id, updated_at)
        spans = await _matching(counters)
        total = sum(span.records for span in spans)
        parts = _parts(await _zoomed(counters, spans, offset), offset, min(limit, max(0, total - offset)))
        rows = await _read(counters, parts, items_max) if parts else []
    grouped: dict[int, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row["id"], []).append(row)
    return [_record(tenant_id, group) for group in grouped.values()], total


@dataclass(frozen=True, slots=True)
class _Counters:
    """What the counters of a tenant say in the connection's snapshot, newest first."""

    connection: Connection
    tenant_id: int
    updated_at: datetime | None

    async def spans(self, within: Iterable[tuple[datetime, datetime]], seconds: int) -> list[Span]:
        """Days or hours with records that may match."""
        lows, highs = zip(*within, strict=True)
        rows = await _queries["spans"].all(
            self.connection,
            tenant_id=self.tenant_id,
            updated_at=self.updated_at,
            seconds=seconds,
            lows=lows,
            highs=highs,
        )
        return [Span(row["low"], row["high"], row["records"], row["whole"], _finer(seconds, row)) for row in rows]

    async def cells(self, hours: Sequence[Span], *, whole: bool) -> list[Span]:
        """The 10 s of hours that have such counters. `whole`: all records of these hours match."""
        return await self._counted("cells", hours, None if whole else self.updated_at)

    async def scanned(self, hours: Sequence[Span]) -> list[Span]:
        """The same hours with their matches, by reading their records."""
        return await self._counted("scan", hours, self.updated_at)

    async def _counted(self, name: str, hours: Sequence[Span], updated_at: datetime | None) -> list[Span]:
        if not hours:
            return []
        rows = await _queries[name].all(
            self.connection, tenant_id=self.tenant_id, updated_at=updated_at, **_ranges(hours)
        )
        return [Span(row["low"], row["high"], row["records"]) for row in rows]


def _finer(seconds: int, row: Any) -> int:
    if seconds == DAY:
        return HOUR
    return CELL if row["has_cells"] else 0


async def _matching(counters: _Counters) -> list[Span]:
    """Every record that matches is in one of these spans, newest first, and their `records` say how many."""
    days = await counters.spans([EVER], DAY)
    divided = [(day.low, day.high) for day in days if not day.whole]
    hours = await counters.spans(divided, HOUR) if divided else []
    mixed = [hour for hour in hours if not hour.whole]
    return sorted(
        [
            *(span for span in (*days, *hours) if span.whole),
            *await counters.cells([hour for hour in mixed if hour.finer], whole=False),
            *await counters.scanned([hour for hour in mixed if not hour.finer]),
        ],
        key=lambda span: span.low,
        reverse=True,
    )


async def _zoomed(counters: _Counters, spans: list[Span], offset: int) -> list[Span]:
    """The spans again, the one in which a page at `offset` begins in pieces, so that little of it is skipped."""
    for seconds in (HOUR, CELL):
        at, skip = _find(spans, offset)
        if at == len(spans) or skip <= SKIPPED_MAX:
            return spans
        span = spans[at]
        if span.finer == seconds:
            pieces = (
                await counters.spans([(span.low, span.high)], HOUR)
                if seconds == HOUR
                else await counters.cells([span], whole=True)
            )
            spans = [*spans[:at], *pieces, *spans[at + 1 :]]
    return spans


def _find(spans: Sequence[Span], offset: int) -> tuple[int, int]:
    """The index of the span that has the record at `offset`, and how many of its records come before that one."""
    for at, span in enumerate(spans):
        if offset < span.records:
            return at, offset
        offset -= span.records
    return len(spans), 0


def _parts(spans: Sequence[Span], offset: int, count: int) -> list[Part]:
    """What `count` records from `offset` on take of each span."""
    at, skip = _find(spans, offset)
    parts = []
    for span in spans[at:]:
        if not count:
            break
        take = min(count, span.records - skip)
        parts.append(Part(span.low, span.high, skip, take))
        count, skip = count - take, 0
    return parts


def _ranges(of: Sequence[Span] | Sequence[Part]) -> dict[str, Any]:
    lows, highs = [one.low for one in of], [one.high for one in of]
    return {"lows": lows, "highs": highs, "oldest": min(lows), "newest": max(highs)}


async def _read(counters: _Counters, parts: Sequence[Part], items_max: int) -> list[Any]:
    return await _queries["page"].all(
        counters.connection,
        tenant_id=counters.tenant_id,
        updated_at=counters.updated_at,
        skips=[part.skip for part in parts],
        takes=[part.take for part in parts],
        items_max=items_max,
        **_ranges(parts),
    )


async def roll_up(pool: Pool, *, settled_seconds: float = SETTLED_SECONDS) -> int:
    """Move counts that were written so long ago into the counters of 10 s, hours and days; returns how many rows.

    In transactions of their own. Returns at once when another process is at it.
    """
    moved = 0
    while True:
        async with pool.transaction() as connection:
            if not await _queries["take_turn"].value(connection):
                return moved
            rows: int = await _queries["roll_up"].value(connection, seconds=settled_seconds, limit=ROLL_UP_ROWS)
        moved += rows
        if rows < ROLL_UP_ROWS:
            return moved


async def fold(pool: Pool, *, after_seconds: int = FOLD_SECONDS, records_max: int = SCANNED_MAX) -> int:
    """Drop the counters by 10 s of old hours that have few records; returns of how many hours."""
    folded = 0
    while True:
        async with pool.transaction() as connection:
            hours = await _queries["hours_to_fold"].all(
                connection, seconds=after_seconds, records_max=records_max, limit=FOLD_HOURS
            )
            for hour in hours:
                await _queries["fold"].run(connection, tenant_id=hour["tenant_id"], starts=hour["starts"])
        folded += len(hours)
        if len(hours) < FOLD_HOURS:
            return folded


async def remove_old(pool: Pool) -> int:
    """Remove what tenants keep for a shorter time than the installation, in small batches; returns how many records.

    What is still open stays; it is hidden all the same.
    """
    async with pool.connection() as connection:
        tenants = await _queries["short_retentions"].all(connection)
    return sum([await _remove_old_of(pool, tenant["id"], tenant["kept_from"]) for tenant in tenants])


async def _remove_old_of(pool: Pool, tenant_id: int, kept_from: datetime) -> int:
    removed = 0
    while True:
        async with pool.transaction() as connection:
            old = await _queries["old_records"].all(
                connection, tenant_id=tenant_id, kept_from=kept_from, limit=REMOVED_ROWS
            )
            if old:
                await _remove(connection, tenant_id, old)
        removed += len(old)
        if len(old) < REMOVED_ROWS:
            return removed


async def _remove(connection: Connection, tenant_id: int, old: Sequence[Any]) -> None:
    """`old`: records from the oldest to the newest."""
    keys = {
        "tenant_id": tenant_id,
        "created_ats": [row["created_at"] for row in old],
        "ids": [row["id"] for row in old],
        "oldest": old[0]["created_at"],
        "newest": old[-1]["created_at"],
    }
    await _queries["remove_items"].run(connection, **keys)
    await _queries["remove_changes"].run(connection, **keys)
    await _queries["remove_records"].run(connection, **keys)


async def hide_before(connection: Connection, at: datetime) -> None:
    """Of all tenants, for good: what is older is about to be dropped."""
    await _queries["hide_before"].run(connection, at=at)


async def forget(connection: Connection, starts: datetime, ends: datetime) -> None:
    """The counters of whole days whose records are gone. In a transaction that reads committed rows."""
    await _queries["forget_deltas"].run(connection, starts=starts, ends=ends)
    await _queries["forget_cells"].run(connection, starts=starts, ends=ends)
    await _queries["forget_spans"].run(connection, starts=starts, ends=ends)


def _record(tenant_id: int, rows: list[Any]) -> HistoryRecord:
    first = rows[0]
    return HistoryRecord(
        id=first["id"],
        tenant_id=tenant_id,
        user_id=first["user_id"],
        transaction_code=first["transaction_code"],
        action_name=first["action_name"],
        upload_file_url=first["upload_file_url"],
        total_sku=first["total_sku"],
        created_at=first["created_at"],
        updated_at=first["updated_at"],
        finished_at=first["finished_at"],
        items=tuple(_item(row) for row in rows if row["item_id"] is not None),
    )


def _item(row: Any) -> HistoryItem:
    return HistoryItem(
        id=row["item_id"],
        update_id=row["id"],
        store_id=row["store_id"],
        store_name=row["store_name"],
        warehouse_id=row["warehouse_id"],
        warehouse_name=row["warehouse_name"],
        variant_id=row["variant_id"],
        sku=row["sku"],
        remote_variant=row["remote_variant"],
        row_number=row["row_number"],
        channel=row["channel"],
        quantity=row["quantity"],
        retries=row["retries"] or 0,
        client_response=row["client_response"] or "",
        message=row["message"] or "",
        success=bool(row["success"]),
        created_at=row["created_at"],
        updated_at=row["item_finished_at"] or row["created_at"],
        finished_at=row["item_finished_at"],
    )
