"""Recording what became of pushes: results are buffered and written by set-based statements every few milliseconds.

A result is written only while its store's lease still has the epoch under which the call was made; otherwise somebody
else sends for that store now, and the result is dropped (its listing is still due and will be sent again).
While the database is away results wait here and their listings stay busy, so nothing is sent twice meanwhile.

    a row is locked             the reports' stores are written apart, and only that store waits
    a report cannot be stored   it is written alone; if it still cannot, its listings back off, loudly
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.policy import Deliver, Retry
from lumbung.dispatch.postgres import is_failure, key_of
from lumbung.dispatch.report import Report, Result
from lumbung.dispatch.storage import Recorded, Storage
from lumbung.errors import LockBusy, LumbungError
from lumbung.settings import Settings

log = structlog.get_logger()


class Recorder:
    def __init__(self, storage: Storage, settings: Settings, metrics: WorkerMetrics):
        self._storage = storage
        self._settings = settings
        self._metrics = metrics
        self._reports: list[Report] = []
        self._rows = 0
        self._some = asyncio.Event()
        self._away = False

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that nothing more should be sent."""
        return self._rows >= self._settings.record_backlog_rows_max

    def put(self, report: Report) -> None:
        """Take a report in; its future becomes True when it is written, False when the lease was lost."""
        self._reports.append(report)
        self._rows += len(report.results)
        self._some.set()

    async def run(self) -> None:
        """Write until cancelled. A database that is away is tried again with the next batch."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._settings.record_interval_ms / 1000)
            left = await self._write_or_keep(self._take())
            self._reports = left + self._reports
            self._rows = sum(len(report.results) for report in self._reports)
            if left:
                await asyncio.sleep(self._settings.poll_seconds)
            if not self._reports:
                self._some.clear()

    def _take(self) -> list[Report]:
        """Whole reports, oldest first, up to the limit of rows; of two about one listing only the first: a statement
        may not touch a row twice."""
        taken: list[Report] = []
        left: list[Report] = []
        seen: set[tuple[int, int]] = set()
        rows = 0
        for report in self._reports:
            listings = {(report.tenant_id, result.listing_id) for result in report.results}
            if rows >= self._settings.record_rows_max or not seen.isdisjoint(listings):
                left.append(report)
            else:
                taken.append(report)
                rows += len(listings)
            seen |= listings
        self._reports = left
        return taken

    async def _write_or_keep(self, reports: list[Report]) -> list[Report]:
        """Write and tell; returns what could not be written now."""
        try:
            recorded = await self._storage.record(reports)
        except LockBusy:
            return await self._write_apart(reports)
        except LumbungError as error:
            if not self._away:
                log.warning("results cannot be recorded, trying again", error=str(error))
            self._away = True
            return reports
        except Exception as error:  # noqa: BLE001
            # A bug, or an answer that PostgreSQL does not take: it must not stop what is written with it.
            return await self._isolate(reports, error)
        if self._away:
            log.info("results are recorded again")
        self._away = False
        self._tell(reports, recorded)
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

    async def _isolate(self, reports: list[Report], error: Exception) -> list[Report]:
        """One of these cannot be stored: it is found, and its listings back off without what cannot be stored."""
        if len(reports) > 1:
            half = len(reports) // 2
            return await self._write_or_keep(reports[:half]) + await self._write_or_keep(reports[half:])
        [report] = reports
        if not report.calls and all(isinstance(result.decision, Retry) for result in report.results):
            raise error  # not even that: a bug that must be seen
        log.error("results cannot be stored", store=report.store_id, exc_info=error)
        return await self._write_or_keep([_bare(report, self._settings.backoff_max_seconds)])

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
            log.debug(
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
        tell = log.info if is_failure(result.decision) else log.debug
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
