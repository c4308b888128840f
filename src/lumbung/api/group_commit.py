"""Group commit: requests that arrive within a moment of each other share one transaction, and one fsync.

One queue per tenant, served in turn, so that a tenant with many requests does not hold up the others. A group whose
locks are not had in time, or of which one request is bad, is rolled back and split: by tenant, then by request, so that
one bad or blocked request fails or waits alone.

When the connection is lost during a COMMIT, the group is looked up, never run again blindly.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from lumbung.api.metrics import ApiMetrics
from lumbung.clock import Clock
from lumbung.db import stock as db
from lumbung.db.pool import Pool
from lumbung.db.wake import Waker
from lumbung.errors import CommitUnknown, LockBusy, LumbungError, Unavailable
from lumbung.inventory.stock import Receipt, Rules, accept
from lumbung.model import Submission
from lumbung.settings import Settings

log = structlog.get_logger()

Result = Receipt | LumbungError


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    submission: Submission
    result: asyncio.Future[Result] = field(repr=False)


class GroupCommit:
    def __init__(
        self, pool: Pool, rules: Rules, settings: Settings, *, waker: Waker, metrics: ApiMetrics, clock: Clock
    ):
        self._pool = pool
        self._rules = rules
        self._settings = settings
        self._waker = waker
        self._metrics = metrics
        self._clock = clock
        self._queues: OrderedDict[int, deque[_Waiting]] = OrderedDict()
        self._queued = 0
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._free = asyncio.Semaphore(settings.group_commits_in_flight_max)
        self._commits: set[asyncio.Task[None]] = set()

    async def submit(self, submission: Submission) -> Receipt:
        """Wait until the submission is durably committed. Raises the error that answers it."""
        if self._queued >= self._settings.accept_queue_max:
            raise Unavailable("Too many updates wait to be committed; send this one again", retry_after_seconds=1)
        waiting = _Waiting(submission, asyncio.get_running_loop().create_future())
        self._queues.setdefault(submission.tenant_id, deque()).append(waiting)
        self._count(1)
        self._some.set()
        try:
            async with asyncio.timeout(self._settings.accept_timeout_seconds):
                result = await waiting.result
        except TimeoutError:
            raise Unavailable(
                "The update was not committed in time: it may still take effect and may be sent again",
                retry_after_seconds=1,
            ) from None
        if isinstance(result, LumbungError):
            raise result
        return result

    async def run(self) -> None:
        """Commit groups until cancelled."""
        while True:
            await self._some.wait()
            await self._gather()
            await self._free.acquire()
            group = self._take()
            if not group:
                self._free.release()
                continue
            task = asyncio.create_task(self._commit_and_answer(group))
            self._commits.add(task)
            task.add_done_callback(self._committed)

    async def drain(self) -> None:
        """Commit what was taken in; used at a stop, after the last request was read."""
        while self._queued or self._commits:
            if self._commits:
                await asyncio.wait(self._commits)
            else:
                await asyncio.sleep(0)

    async def _gather(self) -> None:
        """Wait a moment for more, unless a full group is there already."""
        if self._queued < self._settings.group_updates_max:
            self._full.clear()
            try:
                async with asyncio.timeout(self._settings.group_wait_ms / 1000):
                    await self._full.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting]:
        """Up to a group's worth, one from each tenant in turn."""
        group: list[_Waiting] = []
        while self._queues and len(group) < self._settings.group_updates_max:
            tenant_id, queue = self._queues.popitem(last=False)
            waiting = queue.popleft()
            self._count(-1)
            if not waiting.result.done():  # its client has gone
                group.append(waiting)
            if queue:
                self._queues[tenant_id] = queue
        if not self._queues:
            self._some.clear()
        return group

    def _count(self, change: int) -> None:
        self._queued += change
        self._metrics.queued.set(self._queued)
        if self._queued >= self._settings.group_updates_max:
            self._full.set()

    def _committed(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        self._free.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a group could not be answered", exc_info=error)

    async def _commit_and_answer(self, group: Sequence[_Waiting]) -> None:
        results = await self._commit(group)
        stores: set[int] = set()
        for waiting, result in zip(group, results, strict=True):
            if isinstance(result, Receipt):
                stores |= result.stores
            if not waiting.result.done():
                waiting.result.set_result(result)
        self._waker.wake(stores)

    async def _commit(self, group: Sequence[_Waiting]) -> list[Result]:
        """The result of each request of the group; splits the group when it cannot be committed as a whole."""
        alone = len(group) == 1
        timeout = self._settings.update_lock_timeout_ms if alone else self._settings.group_lock_timeout_ms
        try:
            return await self._transact(group, timeout)
        except LockBusy as error:
            if alone:
                return [error]
        except Unavailable as error:
            return [error] * len(group)
        except Exception as error:
            if alone:
                log.error("an update could not be accepted", exc_info=error)
                return [LumbungError("An internal error: the update was not accepted")]
        self._metrics.splits.inc()
        return await self._commit_split(group)

    async def _commit_split(self, group: Sequence[_Waiting]) -> list[Result]:
        tenants: dict[int, list[_Waiting]] = {}
        for waiting in group:
            tenants.setdefault(waiting.submission.tenant_id, []).append(waiting)
        parts = list(tenants.values()) if len(tenants) > 1 else _by_sku(group)
        answered = await asyncio.gather(*(self._commit_part(part, alone=len(tenants) == 1) for part in parts))
        results = {w: r for part, rs in zip(parts, answered, strict=True) for w, r in zip(part, rs, strict=True)}
        return [results[waiting] for waiting in group]

    async def _commit_part(self, part: Sequence[_Waiting], *, alone: bool) -> list[Result]:
        if not alone:
            return await self._commit(part)
        return [result for waiting in part for result in await self._commit([waiting])]

    async def _transact(self, group: Sequence[_Waiting], lock_timeout_ms: int) -> list[Result]:
        started = self._clock.monotonic()
        results: list[Result] = []
        try:
            async with self._pool.transaction(lock_timeout_ms=lock_timeout_ms) as connection:
                results = await accept(connection, [waiting.submission for waiting in group], self._rules)
        except CommitUnknown:
            if not await self._found(results):
                raise
        self._metrics.group_updates.observe(len(group))
        self._metrics.commit_seconds.observe(self._clock.monotonic() - started)
        return results

    async def _found(self, results: Sequence[Result]) -> bool:
        """Whether a group whose COMMIT was not answered took effect: all of it did, or none."""
        written = next((r for r in results if isinstance(r, Receipt) and r.created_at is not None), None)
        if written is None or written.created_at is None:
            return False
        try:
            async with self._pool.connection() as connection:
                return await db.committed(
                    connection,
                    tenant_id=written.tenant_id,
                    created_at=written.created_at,
                    update_id=written.update_id,
                )
        except Unavailable:
            return False


def _by_sku(group: Sequence[_Waiting]) -> list[list[_Waiting]]:
    """Requests of one SKU stay in one part, in their order: they would only wait for each other."""
    parts: dict[str, list[_Waiting]] = {}
    for waiting in group:
        parts.setdefault(waiting.submission.update.sku, []).append(waiting)
    return list(parts.values())
