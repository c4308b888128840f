"""Group commit: requests that arrive within a moment of each other share one transaction, and one fsync.

One queue per tenant, served in turn, so that a tenant with many requests does not hold up the others. A group whose
locks are not had in time, or of which one request is bad, is rolled back and split: by tenant, then by SKU, then by
request, and each part is answered as soon as it is committed.

A SKU whose lock is not had even alone is set aside: its updates, and those that arrive meanwhile, wait for the lock
together and hold up nothing else.

When the connection is lost during a COMMIT, the group is looked up, never run again blindly.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

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
Sku = tuple[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    submission: Submission
    result: asyncio.Future[Result] = field(repr=False)

    @property
    def sku(self) -> Sku:
        return self.submission.tenant_id, self.submission.update.sku

    def give_up(self) -> None:
        if not self.result.done():
            late = "The update was not committed in time: it may still take effect and may be sent again"
            self.result.set_result(Unavailable(late, retry_after_seconds=1))


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
        self._callers = 0
        self._aside: dict[Sku, list[_Waiting]] = {}
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._free = asyncio.Semaphore(settings.group_commits_in_flight_max)
        self._free_aside = asyncio.Semaphore(settings.group_commits_in_flight_max)
        self._commits: set[asyncio.Task[None]] = set()

    async def submit(self, submission: Submission) -> Receipt:
        """Wait until the submission is durably committed. Raises the error that answers it."""
        if self._callers >= self._settings.accept_queue_max:
            raise Unavailable("Too many updates wait to be committed; send this one again", retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(submission, loop.create_future())
        self._callers += 1
        self._queues.setdefault(submission.tenant_id, deque()).append(waiting)
        self._count(1)
        self._some.set()
        expiry = loop.call_later(self._settings.accept_timeout_seconds, waiting.give_up)
        try:
            result = await waiting.result
        finally:
            expiry.cancel()
            self._callers -= 1
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
            self._start(self._commit_in_slot(group))

    async def drain(self) -> None:
        """Commit what was taken in; used at a stop, after the last request was read."""
        while self._queued or self._commits:
            if self._commits:
                await asyncio.wait(self._commits)
            else:
                await asyncio.sleep(0)

    async def _gather(self) -> None:
        """Wait a moment for more, unless a full group is there already, or the database has nothing to do meanwhile."""
        if not self._commits:
            await asyncio.sleep(0)
        elif self._queued < self._most():
            self._full.clear()
            try:
                async with asyncio.timeout(self._settings.group_wait_ms / 1000):
                    await self._full.wait()
            except TimeoutError:
                return

    def _take(self) -> list[_Waiting]:
        """Up to a group's worth, one from each tenant in turn."""
        group: list[_Waiting] = []
        most = self._most()
        while self._queues and len(group) < most:
            tenant_id, queue = self._queues.popitem(last=False)
            waiting = queue.popleft()
            self._count(-1)
            if waiting.sku in self._aside:
                self._aside[waiting.sku].append(waiting)
            elif not waiting.result.done():  # its client has gone
                group.append(waiting)
            if queue:
                self._queues[tenant_id] = queue
        if not self._queues:
            self._some.clear()
        return group

    def _most(self) -> int:
        """A fair part of all that wait for an answer, so that as many groups as may be are under way: partners who send
        their next update when the last is answered would else all wait for one group, and the database for them."""
        part = -(-self._callers // self._settings.group_commits_in_flight_max)
        return min(self._settings.group_updates_max, max(1, part, self._settings.group_updates_min))

    def _count(self, change: int) -> None:
        self._queued += change
        self._metrics.queued.set(self._queued)
        if self._queued >= self._most():
            self._full.set()

    def _start(self, commit: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(commit)
        self._commits.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._commits.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a group could not be answered", exc_info=error)

    async def _commit_in_slot(self, group: Sequence[_Waiting]) -> None:
        try:
            await self._commit(group)
        finally:
            self._free.release()

    async def _commit(self, group: Sequence[_Waiting], *, aside: bool = False) -> None:
        """Commit a group and answer it; split it when it cannot be committed as a whole."""
        timeout = self._settings.update_lock_timeout_ms if aside else self._settings.group_lock_timeout_ms
        try:
            self._answer(group, await self._transact(group, timeout))
        except LockBusy as error:
            if aside:
                self._answer(group, [error] * len(group))
            else:
                await self._split(group, self._set_aside)
        except Unavailable as error:
            self._answer(group, [error] * len(group))
        except Exception as error:
            log.error("updates could not be accepted", updates=len(group), exc_info=error)
            await self._split(group, self._one_by_one)

    async def _split(
        self, group: Sequence[_Waiting], of_one_sku: Callable[[Sequence[_Waiting]], Awaitable[None]]
    ) -> None:
        """Commit a group's tenants apart, or a tenant's SKUs; `of_one_sku` says what becomes of the last part."""
        self._metrics.splits.inc()
        parts = _parts(group, lambda waiting: waiting.submission.tenant_id)
        if len(parts) == 1:
            parts = _parts(group, lambda waiting: waiting.sku)
        if len(parts) == 1:
            await of_one_sku(group)
        else:
            await asyncio.gather(*(self._commit(part) for part in parts))

    async def _one_by_one(self, group: Sequence[_Waiting]) -> None:
        """One of these cannot be accepted: it fails alone."""
        if len(group) == 1:
            self._answer(group, [LumbungError("An internal error: the update was not accepted")])
            return
        for waiting in group:
            await self._commit([waiting])

    async def _set_aside(self, group: Sequence[_Waiting]) -> None:
        """Another change holds the lock of these updates' SKU: they wait for it elsewhere."""
        sku = group[0].sku
        if sku in self._aside:
            self._aside[sku].extend(group)
        else:
            self._aside[sku] = list(group)
            self._start(self._commit_aside(sku))

    async def _commit_aside(self, sku: Sku) -> None:
        """Commit what is set aside for a SKU, and what joins it meanwhile."""
        queue = self._aside[sku]
        while queue:
            async with self._free_aside:
                group = [waiting for waiting in queue[: self._settings.group_updates_max] if not waiting.result.done()]
                del queue[: self._settings.group_updates_max]
                if group:
                    await self._commit(group, aside=True)
        del self._aside[sku]

    def _answer(self, group: Sequence[_Waiting], results: Sequence[Result]) -> None:
        for waiting, result in zip(group, results, strict=True):
            if isinstance(result, Receipt):
                self._waker.wake(result.due)
            if not waiting.result.done():
                waiting.result.set_result(result)

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


def _parts(group: Sequence[_Waiting], key: Callable[[_Waiting], object]) -> list[list[_Waiting]]:
    """The group by key, each part in its order."""
    parts: dict[object, list[_Waiting]] = {}
    for waiting in group:
        parts.setdefault(key(waiting), []).append(waiting)
    return list(parts.values())
