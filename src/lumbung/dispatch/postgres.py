"""The delivery half's storage in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, assert_never

from lumbung.channels.base import CallRecord
from lumbung.db import budget, delivery, lease, stats, stores
from lumbung.db.budget import Grant
from lumbung.db.delivery import Due, Ended, Work
from lumbung.db.lease import ChannelTimes, LeaseRow, StoredTokens
from lumbung.db.pool import Pool
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
from lumbung.dispatch.report import Key, Lease, Report, Result
from lumbung.dispatch.storage import Recorded, Renewal
from lumbung.errors import CommitUnknown, LumbungError
from lumbung.model import DueFor, Lane, WaitReason
from lumbung.settings import Settings

RESPONSE_BYTES_MAX = 512

Row = tuple[Any, ...]


class PostgresStorage:
    """`lease_pool` has a connection of its own, so that renewing never queues behind reading and recording."""

    def __init__(self, pool: Pool, lease_pool: Pool, settings: Settings, channels: Mapping[str, ChannelTimes]):
        self._pool = pool
        self._lease_pool = lease_pool
        self._settings = settings
        self._channels = channels

    # --- this process ---

    async def register(self, name: str, lifetime_seconds: float) -> int:
        async with self._lease_pool.connection() as connection:
            return await lease.register(
                connection, name=name, lifetime_seconds=lifetime_seconds, channels=self._channels
            )

    async def renew(self, worker_id: int) -> Renewal | None:
        async with self._lease_pool.connection() as connection:
            live = await lease.renew(connection, worker_id)
            # Afterwards, as a statement of its own: it sees whatever was claimed while we were late.
            return None if live is None else Renewal(await lease.held(connection, worker_id), live)

    async def stop(self, worker_id: int) -> None:
        async with self._pool.connection() as connection:
            await lease.stop(connection, worker_id)

    # --- stores ---

    async def look(self) -> list[Work]:
        async with self._pool.connection() as connection:
            return await delivery.stores_with_work(
                connection,
                wait_seconds_max=self._wait_seconds_max(),
                renew_ahead_seconds=self._settings.token_renew_ahead_seconds,
            )

    async def claim(self, worker_id: int, store_ids: Iterable[int], limit: int) -> list[LeaseRow]:
        async with self._pool.connection() as connection:
            return await lease.claim(
                connection, worker_id=worker_id, store_ids=store_ids, channels=self._channels, limit=limit
            )

    async def give_back(self, worker_id: int, store_ids: Iterable[int]) -> None:
        async with self._pool.connection() as connection:
            await lease.give_back(connection, worker_id=worker_id, store_ids=store_ids)

    async def note_quiesce(self, held: Lease, seconds: float) -> None:
        async with self._pool.connection() as connection:
            await lease.note_quiesce(connection, store_id=held.store_id, epoch=held.epoch, seconds=seconds)

    async def note_trouble(self, held: Lease, trouble: str | None) -> None:
        async with self._pool.connection() as connection:
            await lease.note_trouble(
                connection,
                store_id=held.store_id,
                epoch=held.epoch,
                trouble=trouble and _text(trouble, RESPONSE_BYTES_MAX),
            )

    async def pause(self, held: Lease, reason: str) -> bool:
        async with self._pool.connection() as connection:
            return await stores.pause_held(
                connection,
                tenant_id=held.tenant_id,
                store_id=held.store_id,
                epoch=held.epoch,
                reason=_text(reason, RESPONSE_BYTES_MAX),
            )

    # --- listings ---

    async def release_waits(self, store_ids: Iterable[int]) -> set[int]:
        async with self._pool.connection() as connection:
            return await delivery.release_waits(
                connection,
                store_ids=store_ids,
                wait_seconds_max=self._wait_seconds_max(),
                limit=self._settings.chunk_rows_max,
            )

    async def due_window(
        self, held: Lease, *, cursors: Mapping[int, int], busy: Iterable[int], limit: int, with_locations: bool
    ) -> list[Due]:
        async with self._pool.connection() as connection:
            return await delivery.due_window(
                connection,
                tenant_id=held.tenant_id,
                store_id=held.store_id,
                epoch=held.epoch,
                cursors=cursors,
                busy=busy,
                limit=limit,
                with_locations=with_locations,
            )

    async def due_now(self, held: Lease, listing_ids: Sequence[int], *, with_locations: bool) -> list[Due]:
        async with self._pool.connection() as connection:
            return await delivery.due_now(
                connection,
                tenant_id=held.tenant_id,
                store_id=held.store_id,
                epoch=held.epoch,
                listing_ids=listing_ids,
                with_locations=with_locations,
            )

    async def record(self, reports: Sequence[Report]) -> Recorded:
        """One transaction. When its COMMIT is not answered PostgreSQL is asked, as long as it takes, what became of it:
        nothing is counted twice, and nothing that took effect is taken for lost."""
        while True:
            transaction, recorded = "", Recorded(set())
            try:
                async with self._pool.transaction(lock_timeout_ms=self._settings.record_lock_timeout_ms) as connection:
                    transaction = await delivery.transaction_id(connection)
                    recorded = await _record(connection, reports, self._settings)
            except CommitUnknown:
                if not await self._took_effect(transaction):
                    continue
            return recorded

    async def _took_effect(self, transaction: str) -> bool:
        while True:
            try:
                async with self._pool.connection() as connection:
                    status = await delivery.transaction_status(connection, transaction)
                if status != "in progress":
                    return status == "committed"
            except LumbungError:
                pass  # away: there is nothing else to do than to ask again
            await asyncio.sleep(self._settings.poll_seconds)

    # --- what stores share, and their tokens ---

    async def reserve(self, channel_app_id: int, calls: int) -> Grant:
        async with self._pool.connection() as connection:
            return await budget.reserve(
                connection,
                channel_app_id=channel_app_id,
                calls=calls,
                block_seconds_max=self._settings.throttle_seconds_max,
            )

    async def block(self, channel_app_id: int, seconds: float) -> None:
        async with self._pool.connection() as connection:
            await budget.block(
                connection,
                channel_app_id=channel_app_id,
                seconds=seconds,
                block_seconds_max=self._settings.throttle_seconds_max,
            )

    async def swap_tokens(self, held: Lease, old_digest: bytes | None, new: StoredTokens) -> bool:
        async with self._pool.connection() as connection:
            return await lease.swap_tokens(
                connection, tenant_id=held.tenant_id, store_id=held.store_id, old_digest=old_digest, new=new
            )

    async def read_tokens(self, held: Lease) -> tuple[bytes, bytes] | None:
        async with self._pool.connection() as connection:
            return await lease.read_tokens(connection, tenant_id=held.tenant_id, store_id=held.store_id)

    def _wait_seconds_max(self) -> float:
        """No wait is longer; one that is further ahead was written before the clock jumped back."""
        settings = self._settings
        quiesce = max((times.quiesce_seconds for times in self._channels.values()), default=0.0)
        return max(
            settings.backoff_max_seconds,
            settings.park_retry_seconds,
            settings.defer_seconds_max,
            settings.throttle_seconds_max,
            settings.floor_retry_seconds,
            settings.submitted_check_seconds_max,
            settings.doubt_seconds_max,
            2 * quiesce,
        )


# --- recording ---


async def _record(connection: Connection, reports: Sequence[Report], settings: Settings) -> Recorded:
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
    await stores.pause(connection, tenant_id=tenant_id, store_id=store_id, reason=_text(reason, RESPONSE_BYTES_MAX))


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
        _text(call.url, chars_max),
        _text(call.request, chars_max),
        call.status,
        _text(call.response, chars_max),
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
        _text(result.message, RESPONSE_BYTES_MAX),
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
        _text(result.message, RESPONSE_BYTES_MAX),
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
