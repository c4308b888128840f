"""Recording what became of pushes: results are buffered and written by set-based statements every few milliseconds.

A result is written only while its store's lease still has the epoch under which the call was made; otherwise somebody
else sends for that store now, and the result is dropped (its listing is still due and will be sent again).
While the database is away results wait here and their listings stay busy, so nothing is sent twice meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from lumbung.channels.base import CallRecord
from lumbung.db import delivery as db
from lumbung.db import stores
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.dispatch.policy import Defer, Deliver, ListingDecision, Park, Retry, Stay
from lumbung.errors import CommitUnknown, LockBusy, LumbungError
from lumbung.model import WaitReason
from lumbung.settings import Settings

log = structlog.get_logger()

RESPONSE_BYTES_MAX = 512

Key = tuple[int, int, int]
"""tenant_id, listing_id, epoch: after a lease was lost and taken again, a listing may have a result of each."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one listing of a call."""

    listing_id: int
    version: int
    quantity: int
    outcome: str
    decision: ListingDecision
    message: str
    answer: str


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """One push of a store: its results, the HTTP calls that were made, and a reason to pause the store, if any."""

    tenant_id: int
    store_id: int
    epoch: int
    results: tuple[Result, ...]
    calls: tuple[CallRecord, ...]
    pause: str | None
    recorded: asyncio.Future[bool] = field(repr=False)


class Recorder:
    def __init__(self, pool: Pool, settings: Settings):
        self._pool = pool
        self._settings = settings
        self._reports: list[Report] = []
        self._some = asyncio.Event()
        self._away = False

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that nothing more should be sent."""
        return sum(len(report.results) for report in self._reports) >= self._settings.record_backlog_rows_max

    def put(self, report: Report) -> None:
        """Take a report in; its future becomes True when it is written, False when the lease was lost."""
        self._reports.append(report)
        self._some.set()

    async def run(self) -> None:
        """Write until cancelled. A database that is away is tried again with the next batch."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._settings.record_interval_ms / 1000)
            reports = self._take()
            left = await self._write_or_keep(reports)
            self._reports = left + self._reports
            if left:
                await asyncio.sleep(self._settings.poll_seconds)
            if not self._reports:
                self._some.clear()

    def _take(self) -> list[Report]:
        """Whole reports, oldest first, up to the limit of rows."""
        rows, count = 0, 0
        for report in self._reports:
            rows += len(report.results)
            count += 1
            if rows >= self._settings.record_rows_max:
                break
        taken, self._reports = self._reports[:count], self._reports[count:]
        return taken

    async def _write_or_keep(self, reports: list[Report]) -> list[Report]:
        """Write and tell; returns what could not be written now."""
        try:
            await self._write(reports)
        except LockBusy:
            return await self._write_apart(reports)
        except LumbungError as error:
            if not self._away:
                log.warning("results cannot be recorded, trying again", error=str(error))
            self._away = True
            return reports
        if self._away:
            log.info("results are recorded again")
        self._away = False
        return []

    async def _write_apart(self, reports: list[Report]) -> list[Report]:
        """Somebody holds the lock of a row: only its store waits for it."""
        stores: dict[int, list[Report]] = {}
        for report in reports:
            stores.setdefault(report.store_id, []).append(report)
        if len(stores) == 1:
            return reports
        left = [await self._write_or_keep(of_store) for of_store in stores.values()]
        return [report for of_store in left for report in of_store]

    async def _write(self, reports: Sequence[Report]) -> None:
        """One transaction; a COMMIT whose answer was lost is looked up, so that no call is counted twice."""
        written: set[Key] = set()
        async with self._pool.connection() as connection:
            call_ids = await db.take_call_ids(connection, sum(len(report.calls) for report in reports))
        try:
            async with self._pool.transaction(lock_timeout_ms=self._settings.record_lock_timeout_ms) as connection:
                written = await _record(connection, reports, call_ids, self._settings)
        except CommitUnknown:
            if not call_ids or not await self._took_effect(reports, call_ids):
                raise
        _tell(reports, written)

    async def _took_effect(self, reports: Sequence[Report], call_ids: Sequence[int]) -> bool:
        first = next(report for report in reports if report.calls)
        async with self._pool.connection() as connection:
            return await db.call_was_written(connection, tenant_id=first.tenant_id, call_id=call_ids[0])


def _tell(reports: Sequence[Report], written: set[Key]) -> None:
    for report in reports:
        if not report.recorded.done():
            report.recorded.set_result(all(_key(report, result) in written for result in report.results))


async def _record(
    connection: Connection, reports: Sequence[Report], ids: Sequence[int], settings: Settings
) -> set[Key]:
    ours = await db.lock_results(
        connection, {(r.tenant_id, x.listing_id, r.store_id, r.epoch) for r in reports for x in r.results}
    )
    call_ids = await _write_calls(connection, reports, ids, settings)
    rows = [
        (report, result, call_id)
        for report, call_id in zip(reports, call_ids, strict=True)
        for result in report.results
        if _key(report, result) in ours
    ]
    rows.sort(key=lambda row: (row[0].tenant_id, row[1].listing_id))
    await db.write(connection, "record_states", [_state_row(report, result) for report, result, _ in rows])
    settled = [_settle_row(r, x, call, ours[_key(r, x)]) for r, x, call in rows if _settles(x)]
    await db.write(connection, "settle_items", settled)
    waits = [row for report, result, _ in rows if (row := _wait_row(report, result, settings)) is not None]
    await db.write(connection, "write_waits", waits)
    for report in reports:
        if report.pause is not None and any(_key(report, result) in ours for result in report.results):
            await stores.pause(connection, tenant_id=report.tenant_id, store_id=report.store_id, reason=report.pause)
    return set(ours)


def _key(report: Report, result: Result) -> Key:
    return report.tenant_id, result.listing_id, report.epoch


async def _write_calls(
    connection: Connection, reports: Sequence[Report], ids: Sequence[int], settings: Settings
) -> list[int | None]:
    """Keep every HTTP call; returns for each report the id of its last call."""
    fresh = iter(ids)
    rows: list[tuple[Any, ...]] = []
    last: list[int | None] = []
    for report in reports:
        call_id: int | None = None
        for call in report.calls:
            call_id = next(fresh)
            rows.append(_call_row(report, call, call_id, settings.call_text_chars_max))
        last.append(call_id)
    await db.write(connection, "write_calls", rows)
    return last


def _call_row(report: Report, call: CallRecord, call_id: int, chars_max: int) -> tuple[Any, ...]:
    return (
        report.tenant_id,
        call_id,
        report.store_id,
        report.epoch,
        "{" + ",".join(str(result.listing_id) for result in report.results) + "}",
        call.method,
        _text(call.url, chars_max),
        _text(call.request, chars_max),
        call.status,
        _text(call.response, chars_max),
        ",".join(sorted({result.outcome for result in report.results})),
        call.duration_ms,
    )


def _state_row(report: Report, result: Result) -> tuple[Any, ...]:
    doubtful = isinstance(result.decision, Retry) and result.decision.doubtful
    confirm = result.decision.confirm_after_seconds if isinstance(result.decision, Deliver) else None
    return (
        report.tenant_id,
        result.listing_id,
        result.version,
        result.quantity,
        _kind(result.decision),
        result.outcome,
        _text(result.message, RESPONSE_BYTES_MAX),
        doubtful,
        confirm,
    )


def _settles(result: Result) -> bool:
    return isinstance(result.decision, Deliver | Park)


def _settle_row(report: Report, result: Result, call_id: int | None, settled_before: int) -> tuple[Any, ...]:
    return (
        report.tenant_id,
        result.listing_id,
        result.version,
        settled_before,
        isinstance(result.decision, Deliver),
        _text(result.message, RESPONSE_BYTES_MAX),
        clip_json(result.answer, RESPONSE_BYTES_MAX),
        call_id,
    )


def _wait_row(report: Report, result: Result, settings: Settings) -> tuple[Any, ...] | None:
    head = (report.tenant_id, result.listing_id, report.store_id)
    match result.decision:
        case Retry(after_seconds=seconds):
            return (*head, WaitReason.BACKOFF, seconds)
        case Defer(after_seconds=seconds):
            return (*head, WaitReason.DEFERRED, seconds)
        case Park():
            return (*head, WaitReason.PARKED, settings.park_retry_seconds)
        case Deliver(confirm_after_seconds=seconds) if seconds is not None:
            return (*head, WaitReason.CONFIRMATION, seconds)
        case Deliver() | Stay():
            return None


def _kind(decision: ListingDecision) -> str:
    match decision:
        case Deliver():
            return "delivered"
        case Retry():
            return "retry"
        case Defer():
            return "defer"
        case Stay():
            return "stay"
        case Park():
            return "parked"


def clip_json(answer: str, bytes_max: int) -> str:
    """JSON text of at most `bytes_max` bytes: the answer as it is, or, when it is longer, its beginning as a string."""
    answer = _text(answer, len(answer))
    if len(answer.encode()) <= bytes_max:
        return answer
    kept = answer
    while len(text := json.dumps(kept + "...", ensure_ascii=False).encode()) > bytes_max:
        kept = kept[: max(0, min(len(kept) - 1, len(kept) - (len(text) - bytes_max) // 4))]
    return text.decode()


def _text(text: str, chars_max: int) -> str:
    """What PostgreSQL can keep: no NUL, no lone surrogates, not too long."""
    return text[:chars_max].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
