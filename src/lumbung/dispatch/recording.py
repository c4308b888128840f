"""What became of calls, as rows: everything that one transaction of results writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

from lumbung.channels.base import CallRecord
from lumbung.db import delivery, stats, stores
from lumbung.db.delivery import Ended
from lumbung.db.query import Connection
from lumbung.db.stats import Counts
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Defer,
    Deliver,
    ListingDecision,
    Park,
    Retry,
    Settle,
    Stay,
    Submit,
)
from lumbung.dispatch.report import Key, Report, Result
from lumbung.dispatch.storage import Recorded
from lumbung.model import DueFor, Lane, WaitReason
from lumbung.settings import Settings

RESPONSE_BYTES_MAX = 512

Row = tuple[Any, ...]


async def record(connection: Connection, reports: Sequence[Report], settings: Settings) -> Recorded:
    if paused := {report.store_id for report in reports if report.pause is not None}:
        await stores.lock(connection, paused)
    ours = await delivery.lock_results(
        connection, {(r.tenant_id, x.listing_id, r.store_id, r.epoch) for r in reports for x in r.results}
    )
    call_ids = await _write_calls(connection, reports, settings)
    rows = [
        (report, result, call_id)
        for report, call_id in zip(reports, call_ids, strict=True)
        for result in report.results
        if key_of(report, result) in ours
    ]
    rows.sort(key=lambda row: (row[0].tenant_id, row[1].listing_id))
    await delivery.record_states(
        connection,
        [state_row(report, result) for report, result, _ in rows],
        park_retry_seconds=settings.park_retry_seconds,
        doubt_seconds_max=settings.doubt_seconds_max,
    )
    settled = [_settle_row(r, x, call, ours[key_of(r, x)]) for r, x, call in rows if _settles(x)]
    ended = await delivery.settle_items(connection, settled)
    waits = [row for report, result, _ in rows if (row := _wait_row(report, result, settings)) is not None]
    await delivery.write_waits(connection, waits)
    await _write_of_stores(connection, reports, ours)
    failed = [(report.tenant_id, result.listing_id) for report, result, _ in rows if is_failure(result.decision)]
    waiting = await delivery.open_transactions(connection, failed) if failed else {}
    await stats.add(connection, _counts(rows, ended))
    return Recorded(set(ours), ended, waiting)


async def _write_of_stores(connection: Connection, reports: Sequence[Report], ours: Mapping[Key, int]) -> None:
    for report in reports:
        if report.unpark:
            await delivery.unpark(connection, tenant_id=report.tenant_id, epoch=report.epoch, listing_ids=report.unpark)
        if report.pause is not None and any(key_of(report, result) in ours for result in report.results):
            await _pause(connection, report.tenant_id, report.store_id, report.pause)


async def _pause(connection: Connection, tenant_id: int, store_id: int, reason: str) -> None:
    """The reason has the marketplace's own words in it."""
    await stores.pause(connection, tenant_id=tenant_id, store_id=store_id, reason=storable(reason, RESPONSE_BYTES_MAX))


def _counts(rows: Iterable[tuple[Report, Result, int | None]], ended: Iterable[Ended]) -> dict[tuple[int, int], Counts]:
    counts: dict[tuple[int, int], Counts] = {}
    for report, result, _ in rows:
        held = counts.setdefault((report.tenant_id, report.store_id), Counts())
        held.pushed += isinstance(result.decision, Deliver)
        held.failed += is_failure(result.decision)
    for item in ended:
        if item.success:
            counts.setdefault((item.tenant_id, item.store_id), Counts()).delivered_after(item.latency_seconds)
    return counts


def key_of(report: Report, result: Result) -> Key:
    return report.tenant_id, result.listing_id, report.epoch


async def _write_calls(connection: Connection, reports: Sequence[Report], settings: Settings) -> list[int | None]:
    """Keep every HTTP call; returns for each report the id of its last call."""
    count = sum(len(report.calls) for report in reports)
    fresh = iter(await delivery.take_call_ids(connection, count) if count else [])
    rows: list[Row] = []
    last: list[int | None] = []
    for report in reports:
        call_id: int | None = None
        for call in report.calls:
            call_id = next(fresh)
            rows.append(_call_row(report, call, call_id, settings.call_text_chars_max))
        last.append(call_id)
    await delivery.write_calls(connection, rows)
    return last


def _call_row(report: Report, call: CallRecord, call_id: int, chars_max: int) -> Row:
    return (
        report.tenant_id,
        call_id,
        report.store_id,
        report.epoch,
        "{" + ",".join(str(result.listing_id) for result in report.results) + "}",
        call.method,
        storable(call.url, chars_max),
        storable(call.request, chars_max),
        call.status,
        storable(call.response, chars_max),
        ",".join(sorted({result.outcome for result in report.results})),
        call.duration_ms,
    )


def state_row(report: Report, result: Result) -> Row:
    """The columns of `record_states`."""
    decision = result.decision
    doubt, doubt_seconds = _doubt(result)
    floor, observed = _noted(decision)
    return (
        report.tenant_id,
        result.listing_id,
        result.version,
        result.quantity,
        _kind(decision),
        result.outcome,
        storable(result.message, RESPONSE_BYTES_MAX),
        result.calls,
        doubt,
        doubt_seconds,
        str(_due_for_after(result)),
        _handle_after(result),
        floor,
        _was_observed(result),
        observed,
        int(Lane.FALLING if observed is not None and observed > result.quantity else Lane.REFRESH),
    )


def _kind(decision: ListingDecision) -> str:
    match decision:
        case Deliver():
            return "delivered"
        case AwaitFloor(sent=sent):
            return "floored" if sent else "floor"
        case Again():
            return "again"
        case Retry():
            return "retry"
        case Defer():
            return "defer"
        case Submit():
            return "submitted"
        case Stay():
            return "stay"
        case Park():
            return "parked"
        case Settle():
            return "settled"
        case Correct():
            return "correct"
        case _:
            assert_never(decision)


def _doubt(result: Result) -> tuple[str, float]:
    """What becomes of the listing's doubt: cleared, kept, about this call's quantity, or about nobody knows what."""
    match result.decision:
        case Deliver(confirm_after_seconds=None) | AwaitFloor(sent=True, doubt_seconds=None):
            return "clear", 0.0
        case Deliver(confirm_after_seconds=float(seconds)) | AwaitFloor(sent=True, doubt_seconds=float(seconds)) if (
            result.doubt_unknown
        ):
            return "unknown", seconds
        case Again(doubt_seconds=float(seconds)) | Retry(doubt_seconds=float(seconds)):
            return "unknown" if result.doubt_unknown else "this", seconds
        case Settle() if result.due_for is DueFor.CONFIRM:
            return "clear", 0.0
        case _:
            return "keep", 0.0


def _noted(decision: ListingDecision) -> tuple[int | None, int | None]:
    """The floor, and the quantity that is shown, if they were told."""
    match decision:
        case Again(floor=floor, observed=observed):
            return floor, observed
        case Retry(observed=observed) | Settle(observed=observed) | Correct(observed=observed):
            return None, observed
        case _:
            return None, None


def _was_observed(result: Result) -> bool:
    """Also a conflict that names no quantity: then nobody knows what is shown."""
    if isinstance(result.decision, Settle | Correct):
        return result.decision.observed is not None
    return result.outcome == "Conflict"


def _handle_after(result: Result) -> str | None:
    """A question that could not be asked now is asked again; any answer ends it."""
    match result.decision:
        case Submit(handle=handle):
            return handle
        case Stay():
            return result.handle
        case Retry() | Defer() if result.outcome in {"Unavailable", "Throttled"}:
            return result.handle
        case _:
            return None


def _due_for_after(result: Result) -> DueFor:
    """What could not be read now is read again."""
    return result.due_for if isinstance(result.decision, Retry | Stay | Defer) else DueFor.PUSH


def _settles(result: Result) -> bool:
    return isinstance(result.decision, Deliver | Park)


def is_failure(decision: ListingDecision) -> bool:
    """An attempt that did not bring the listing where it should be, through no wish of the marketplace's."""
    return isinstance(decision, Again | Retry | Park)


def _settle_row(report: Report, result: Result, call_id: int | None, settled_before: int) -> Row:
    return (
        report.tenant_id,
        result.listing_id,
        result.version,
        settled_before,
        isinstance(result.decision, Deliver),
        storable(result.message, RESPONSE_BYTES_MAX),
        clip_json(result.answer, RESPONSE_BYTES_MAX),
        call_id,
    )


def _wait_row(report: Report, result: Result, settings: Settings) -> Row | None:
    head = (report.tenant_id, result.listing_id, report.store_id)
    match result.decision:
        case Retry(after_seconds=seconds):
            return (*head, WaitReason.BACKOFF, seconds)
        case Defer(after_seconds=seconds):
            return (*head, WaitReason.DEFERRED, seconds)
        case Submit(after_seconds=seconds):
            return (*head, WaitReason.SUBMITTED, seconds)
        case AwaitFloor(after_seconds=seconds):
            return (*head, WaitReason.FLOOR, seconds)
        case Park():
            return (*head, WaitReason.PARKED, settings.park_retry_seconds)
        case Deliver(confirm_after_seconds=float(seconds)):
            return (*head, WaitReason.CONFIRMATION, seconds)
        case _:
            return None


def clip_json(answer: str, bytes_max: int) -> str:
    """JSON text of at most `bytes_max` bytes: the answer as it is, or, when it is longer, its beginning as a string."""
    answer = storable(answer, len(answer))
    if len(answer if answer.isascii() else answer.encode()) <= bytes_max:
        return answer
    kept = answer
    while len(text := json.dumps(kept + "...", ensure_ascii=False).encode()) > bytes_max:
        kept = kept[: max(0, min(len(kept) - 1, len(kept) - (len(text) - bytes_max) // 4))]
    return text.decode()


def storable(text: str, chars_max: int) -> str:
    """What PostgreSQL can keep: no NUL, no lone surrogates, not too long."""
    kept = text[:chars_max].replace("\x00", "\ufffd")
    return kept if kept.isascii() else kept.encode("utf-8", "replace").decode()
