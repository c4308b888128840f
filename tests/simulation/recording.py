"""Writing down what became of pushes: the second half of db/delivery.sql, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lumbung.db.delivery import Ended
from lumbung.dispatch.policy import AwaitFloor, Defer, Deliver, Park, Retry, Submit
from lumbung.dispatch.recording import is_failure, key_of, state_row
from lumbung.dispatch.report import Report, Result
from lumbung.dispatch.storage import Recorded
from tests.simulation import leases
from tests.simulation.tables import Key, State, Tables, Wait


@dataclass(frozen=True, slots=True)
class Row:
    """The columns of `record_states`, in their order."""

    tenant_id: int
    listing_id: int
    version: int
    quantity: int
    kind: str
    outcome: str
    message: str
    calls: int
    doubt: str
    doubt_seconds: float
    due_for: str
    handle: str | None
    floor: int | None
    was_observed: bool
    observed: int | None
    lane: int

    @property
    def told(self) -> bool:
        return self.kind in {"delivered", "floored"}


def record(tables: Tables, reports: Sequence[Report], park_retry_seconds: float, doubt_seconds_max: float) -> Recorded:
    ours = _ours(tables, reports)
    rows = sorted(
        ((report, result) for report in reports for result in report.results if key_of(report, result) in ours),
        key=lambda row: (row[0].tenant_id, row[1].listing_id),
    )
    for report, result in rows:
        _write_state(tables, Row(*state_row(report, result)), park_retry_seconds, doubt_seconds_max)
    ended = [
        item
        for report, result in rows
        if isinstance(result.decision, Deliver | Park)
        for item in _settle(tables, report, result, ours[key_of(report, result)])
    ]
    for report, result in rows:
        _write_wait(tables, report, result, park_retry_seconds)
    for report in reports:
        _unpark(tables, report)
        if report.pause is not None and any(key_of(report, result) in ours for result in report.results):
            leases.pause(tables, report.store_id, report.pause)
    failed = [(r.tenant_id, x.listing_id) for r, x in rows if is_failure(x.decision)]
    waiting = {key: codes for key in failed if (codes := _open_transactions(tables, key))}
    return Recorded(set(ours), ended, waiting)


def _ours(tables: Tables, reports: Iterable[Report]) -> dict[tuple[int, int, int], int]:
    """version_settled of those results whose lease still has the epoch in which they were made."""
    return {
        key_of(report, result): tables.states[report.tenant_id, result.listing_id].version_settled
        for report in reports
        if holds(tables, report)
        for result in report.results
    }


def holds(tables: Tables, report: Report) -> bool:
    return tables.leases[report.store_id].epoch == report.epoch


def _write_state(tables: Tables, row: Row, park_retry_seconds: float, doubt_seconds_max: float) -> None:
    """All of it is decided from the row as it was."""
    s, now = tables.states[row.tenant_id, row.listing_id], tables.now()
    state = _state_after(s, row)
    attempts = _attempts_after(s, row)
    lane = _lane_after(s, row, state)
    if s.doubtful_until is not None:
        s.doubtful_until = min(s.doubtful_until, now + doubt_seconds_max)
    _write_doubt(s, row, now)
    due_for = _due_for_after(s, row, state)
    s.due_since = None if state == "idle" else now if row.kind == "delivered" else _or(s.due_since, now)
    s.calls += row.calls
    delivered_at = s.delivered_at
    if row.kind == "delivered":
        s.version_delivered = max(s.version_delivered, row.version)
    if row.kind in {"delivered", "parked"}:
        s.version_settled = max(s.version_settled, row.version)
    if row.told:
        s.quantity_delivered, s.delivered_at = row.quantity, max(now, s.observed_at or 0.0)
    if row.was_observed:
        s.quantity_observed, s.observed_at = row.observed, max(now, (delivered_at or 0.0) + 1e-6)
    keeps_floor = row.floor is None and (row.kind in {"stay", "again"} or row.handle is not None)
    s.quantity_floor = s.quantity_floor if keeps_floor else row.floor
    s.attempts = attempts
    s.failing_since = _or(s.failing_since, now) if attempts > 0 else None
    s.last_outcome, s.last_message = row.outcome, row.message
    _write_handle(s, row, now)
    if state != "parked":
        s.park_reason, s.park_retry_at = None, None
    elif s.state != "parked":
        s.park_reason, s.parked_at, s.park_retry_at = row.message, now, now + park_retry_seconds
    s.state, s.lane, s.due_for = state, lane, due_for
    s.check()


def _due_for_after(s: State, row: Row, state: str) -> str:
    if row.handle is not None:
        return "ask"
    if s.due_for in {"push", "ask"}:
        return "push"
    if s.due_for == "reconcile" and (row.due_for == "observe" or (row.kind == "settled" and state == "due")):
        return "reconcile"
    return row.due_for


def _is_read_again(s: State, row: Row) -> bool:
    """Correcting was asked for while a mere look was under way."""
    return s.due_for == "reconcile" and row.observed is not None and row.observed > s.quantity_due


def _state_after(s: State, row: Row) -> str:
    if s.state != "due":
        return s.state
    if row.kind in {"stay", "again", "correct"}:
        return "due"
    if row.kind in {"delivered", "floored", "floor"} and s.version_due > row.version:
        return "due"
    if row.kind == "settled" and (s.due_for == "push" or _is_read_again(s, row)):
        return "due"
    if row.kind in {"delivered", "settled"}:
        return "idle"
    return "parked" if row.kind == "parked" else "waiting"


def _attempts_after(s: State, row: Row) -> int:
    if row.kind in {"retry", "again"}:
        return s.attempts + 1
    return s.attempts if row.kind in {"stay", "defer", "submitted"} else 0


def _lane_after(s: State, row: Row, state: str) -> int:
    if state != "due":
        return 0
    if row.told:
        if s.quantity_due == row.quantity:
            return 3
        return 1 if s.quantity_due == 0 or s.quantity_due < row.quantity else 2
    if row.kind == "correct" and s.due_for != "push":
        return row.lane
    return s.lane - 3 if s.lane > 3 and _attempts_after(s, row) == 0 else s.lane


def _write_doubt(s: State, row: Row, now: float) -> None:
    until = max(now + row.doubt_seconds, s.doubtful_until or 0.0)
    match row.doubt:
        case "clear":
            s.quantity_doubtful, s.doubtful_until = None, None
        case "unknown":
            s.quantity_doubtful, s.doubtful_until = None, until
        case "this":
            is_only_one = s.doubtful_until is None or s.doubtful_until < now or s.quantity_doubtful == row.quantity
            s.quantity_doubtful = row.quantity if is_only_one else None
            s.doubtful_until = until
        case _:
            assert row.doubt == "keep"


def _write_handle(s: State, row: Row, now: float) -> None:
    if row.handle is None:
        s.handle, s.handle_version, s.handle_quantity, s.handle_at = None, None, None, None
    else:
        s.handle_at = now if s.handle is None else s.handle_at
        s.handle, s.handle_version, s.handle_quantity = row.handle, row.version, row.quantity


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _settle(tables: Tables, report: Report, result: Result, settled_before: int) -> list[Ended]:
    key = (report.tenant_id, result.listing_id)
    ended = []
    for held in tables.contributions.get(key, {}).values():
        if held.item_id is None or not settled_before < held.version <= result.version:
            continue
        item = tables.items[held.item_id]
        if item.success is not None:
            continue
        item.success, item.message = isinstance(result.decision, Deliver), result.message
        item.retries = max(0, tables.states[key].calls - held.calls_before - 1)
        update = tables.updates[item.update_id]
        update.items_open -= 1
        latency = tables.now() - item.created_at.timestamp()
        ended.append(
            Ended(
                item.tenant_id,
                item.store_id,
                result.listing_id,
                update.code,
                item.success,
                item.message,
                item.retries,
                latency,
            )
        )
    return ended


def _write_wait(tables: Tables, report: Report, result: Result, park_retry_seconds: float) -> None:
    match result.decision:
        case Retry(after_seconds=seconds):
            reason = "backoff"
        case Defer(after_seconds=seconds):
            reason = "deferred"
        case Submit(after_seconds=seconds):
            reason = "submitted"
        case AwaitFloor(after_seconds=seconds):
            reason = "floor"
        case Park():
            reason, seconds = "parked", park_retry_seconds
        case Deliver(confirm_after_seconds=float(seconds)):
            reason = "confirmation"
        case _:
            return
    tables.waits[report.tenant_id, result.listing_id] = Wait(report.store_id, reason, tables.now() + seconds)


def _unpark(tables: Tables, report: Report) -> None:
    for listing_id in report.unpark:
        key = (report.tenant_id, listing_id)
        state = tables.states.get(key)
        if state is None or state.state != "parked" or tables.leases[state.store_id].epoch != report.epoch:
            continue
        state.state, state.lane, state.due_for = "due", 3, "push"
        state.due_since = _or(state.due_since, tables.now())
        state.park_reason, state.park_retry_at = None, None
        if key in tables.waits and tables.waits[key].reason == "parked":
            del tables.waits[key]


def _open_transactions(tables: Tables, key: Key) -> list[str]:
    settled = tables.states[key].version_settled
    return sorted(
        {
            tables.updates[held.version].code
            for held in tables.contributions.get(key, {}).values()
            if held.item_id is not None and held.version > settled
        }
    )
