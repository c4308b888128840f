"""Recording what became of pushes: results are buffered and written by set-based statements every few milliseconds.

A result is written only while its store's lease still has the epoch under which the call was made; otherwise somebody
else sends for that store now, and the result is dropped (its listing is still due and will be sent again).
While the database is away results wait here and their listings stay busy, so nothing is sent twice meanwhile.

    put -> a queue a store -> together: a report of each store in turn, up to the limit of rows
              |                   '-- a row is locked: the stores concerned go apart
              '-> apart: each store by itself, a few at once, who was tried in vain most often last
                                  '-- written: together with the others again

    a report cannot be stored   it is written alone; if it still cannot, its listings back off, loudly
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, zip_longest

import structlog

from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.policy import Deliver, Retry
from lumbung.dispatch.recording import is_failure, key_of
from lumbung.dispatch.report import Report, Result
from lumbung.dispatch.storage import Recorded, Storage
from lumbung.errors import LockBusy, LumbungError
from lumbung.settings import Settings

log = structlog.get_logger()

APART_AT_ONCE = 4  # stores that may each wait for a lock, with a connection of its own


@dataclass(slots=True)
class Left:
    """What could not be written now: a row of it is locked, or the database is away."""

    locked: list[Report] = field(default_factory=list)
    away: list[Report] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.locked or self.away)

    def __add__(self, other: Left) -> Left:
        return Left(self.locked + other.locked, self.away + other.away)


class Recorder:
    def __init__(self, storage: Storage, settings: Settings, metrics: WorkerMetrics):
        self._storage = storage
        self._settings = settings
        self._metrics = metrics
        self._log = log.bind()  # looked up once: what is delivered is not logged by default
        self._queues: dict[int, list[Report]] = {}  # by store, in the order of their turns
        self._rows: dict[int, int] = {}  # by store: not written yet, those being written among them
        self._rows_of_all = 0
        self._some = asyncio.Event()
        self._apart: dict[int, int] = {}  # stores that are written by themselves: how often in vain
        self._turns: asyncio.PriorityQueue[tuple[int, int, int]] = asyncio.PriorityQueue()
        self._number = count()
        self._away = False

    def is_behind(self, store_id: int) -> bool:
        """Whether so much waits to be written that nothing more should be sent for a store. Stores that are apart have
        a backlog of their own: what somebody has locked must not fill up everybody's."""
        apart = sum(self._rows.get(one, 0) for one in self._apart)
        rows = apart if store_id in self._apart else self._rows_of_all - apart
        return rows >= self._settings.record_backlog_rows_max

    def put(self, report: Report) -> None:
        """Take a report in; its future becomes True when it is written, False when the lease was lost."""
        self._queues.setdefault(report.store_id, []).append(report)
        self._count(report.store_id, len(report.results))
        self._some.set()

    async def run(self) -> None:
        """Write until cancelled. A database that is away is tried again with the next batch."""
        writers = [asyncio.create_task(self._write_together())]
        # Those who wait for a lock leave most connections to others.
        apart_at_once = min(APART_AT_ONCE, max(1, self._settings.database_connections_max // 4))
        writers += [asyncio.create_task(self._write_apart()) for _ in range(apart_at_once)]
        try:
            await asyncio.gather(*writers)
        finally:
            for writer in writers:
                writer.cancel()

    async def _write_together(self) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(self._settings.record_interval_ms / 1000)
            stores = [store_id for store_id in self._queues if store_id not in self._apart]
            if not stores:
                self._some.clear()
                continue
            left = await self._write(self._take(stores))
            for store_id in self._put_back(left.locked):
                self._apart[store_id] = 0
                self._queue_apart(store_id)
            if self._put_back(left.away):
                await asyncio.sleep(self._settings.poll_seconds)

    async def _write_apart(self) -> None:
        """One store at a time, so that only it waits for its lock."""
        while True:
            _, _, store_id = await self._turns.get()
            left = await self._write(self._take([store_id]))
            if left:
                self._put_back(left.locked)
                self._put_back(left.away)
                self._apart[store_id] += 1
                self._try_later(store_id)
            elif self._rows.get(store_id, 0) >= self._settings.record_rows_max:
                self._apart[store_id] = 0
                self._queue_apart(store_id)  # what it has gathered would fill up the others' backlog
            else:
                del self._apart[store_id]
                self._some.set()

    def _try_later(self, store_id: int) -> None:
        asyncio.get_running_loop().call_later(self._settings.poll_seconds, self._queue_apart, store_id)

    def _queue_apart(self, store_id: int) -> None:
        self._turns.put_nowait((self._apart[store_id], next(self._number), store_id))

    def _take(self, store_ids: Iterable[int]) -> list[Report]:
        """Whole reports, a report of each store in turn, oldest first, up to the limit of rows. Stores that had their
        turn are behind the others then."""
        taken: dict[Report, None] = {}
        rows = 0
        turns = zip_longest(*(_first_of_each_listing(self._queues[store_id]) for store_id in store_ids))
        for report in chain.from_iterable(turns):
            if rows >= self._settings.record_rows_max:
                break
            if report is not None:
                taken[report] = None
                rows += len(report.results)
        for store_id in {report.store_id: None for report in taken}:
            left = [report for report in self._queues.pop(store_id) if report not in taken]
            if left:
                self._queues[store_id] = left
        return list(taken)

    def _put_back(self, reports: Sequence[Report]) -> list[int]:
        """Before what has come since, which may be about the same listings; returns their stores."""
        stores: dict[int, list[Report]] = {}
        for report in reports:
            stores.setdefault(report.store_id, []).append(report)
        for store_id, of_store in stores.items():
            self._queues[store_id] = of_store + self._queues.get(store_id, [])
        return list(stores)

    def _count(self, store_id: int, rows: int) -> None:
        self._rows_of_all += rows
        self._metrics.backlog.set(self._rows_of_all)
        self._rows[store_id] = self._rows.get(store_id, 0) + rows
        if not self._rows[store_id]:
            del self._rows[store_id]

    async def _write(self, reports: list[Report]) -> Left:
        """Write and tell; returns what could not be written now."""
        try:
            recorded = await self._storage.record(reports)
        except LockBusy:
            return Left(locked=reports)
        except LumbungError as error:
            if not self._away:
                log.warning("results cannot be recorded, trying again", error=str(error))
            self._away = True
            return Left(away=reports)
        except Exception as error:  # noqa: BLE001
            # A bug, or an answer that PostgreSQL does not take: it must not stop what is written with it.
            return await self._isolate(reports, error)
        if self._away:
            log.info("results are recorded again")
        self._away = False
        for report in reports:
            self._count(report.store_id, -len(report.results))
        self._tell(reports, recorded)
        return Left()

    async def _isolate(self, reports: list[Report], error: Exception) -> Left:
        """One of these cannot be stored: it is found, and its listings back off without what cannot be stored."""
        if len(reports) > 1:
            half = len(reports) // 2
            return await self._write(reports[:half]) + await self._write(reports[half:])
        [report] = reports
        if not report.calls and all(isinstance(result.decision, Retry) for result in report.results):
            raise error  # not even that: a bug that must be seen
        log.error("results cannot be stored", store=report.store_id, exc_info=error)
        return await self._write([_bare(report, self._settings.backoff_max_seconds)])

    def _tell(self, reports: Sequence[Report], recorded: Recorded) -> None:
        concerned = _concerned(recorded)
        for report in reports:
            for result in report.results:
                self._log_attempt(
                    report,
                    result,
                    concerned.get((report.tenant_id, result.listing_id)),
                    counted=key_of(report, result) in recorded.written,
                )
            if not report.recorded.done():
                ours = all(key_of(report, result) in recorded.written for result in report.results)
                report.recorded.set_result(ours)
        for item in recorded.ended:
            if item.success:
                self._metrics.accept_to_delivered.observe(item.latency_seconds)
            self._log.debug(
                "item ended",
                tenant=item.tenant_id,
                store=item.store_id,
                listing=item.listing_id,
                transaction=item.transaction_code,
                attempt=item.retries + 1,
                success=item.success,
                message=item.message,
            )

    def _log_attempt(
        self, report: Report, result: Result, transactions: Sequence[str] | None, *, counted: bool
    ) -> None:
        self._metrics.attempts.labels(report.channel, result.outcome).inc(result.calls)
        tell = self._log.info if is_failure(result.decision) else self._log.debug
        tell(
            "delivered" if isinstance(result.decision, Deliver) else "attempted",
            tenant=report.tenant_id,
            store=report.store_id,
            listing=result.listing_id,
            transaction=transactions,
            attempt=result.attempt,
            outcome=result.outcome,
            reason=result.message,
            counted=counted,
        )


def _first_of_each_listing(reports: Iterable[Report]) -> Iterator[Report]:
    """Of two about one listing only the first: a statement may not touch a row twice. Of one store."""
    seen: set[int] = set()
    for report in reports:
        listings = {result.listing_id for result in report.results}
        if seen.isdisjoint(listings):
            yield report
        seen |= listings


def _concerned(recorded: Recorded) -> dict[tuple[int, int], list[str]]:
    """The transactions that each listing's result ended an item of, or that still wait for it."""
    codes: dict[tuple[int, int], set[str]] = {key: set(waiting) for key, waiting in recorded.waiting.items()}
    for item in recorded.ended:
        codes.setdefault((item.tenant_id, item.listing_id), set()).add(item.transaction_code)
    return {key: sorted(found) for key, found in codes.items()}


def _bare(report: Report, seconds: float) -> Report:
    """The same without anything that came from outside; whatever became of the call is in doubt."""
    results = tuple(
        replace(
            result,
            decision=Retry(seconds, doubt_seconds=seconds),
            outcome="InDoubt",
            message="The answer could not be stored: see the log",
            answer="",
            handle=None,
        )
        for result in report.results
    )
    return replace(report, results=results, calls=(), pause=None, unpark=())
