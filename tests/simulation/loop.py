"""An asyncio event loop with virtual time: nothing blocks; when nothing is ready, time jumps to the next timer.

What runs belongs to a `Process` (a simulated worker) or to the world around them (marketplaces, the database, faults).
A process can be frozen, as by SIGSTOP: what it would do next waits, while time goes on. Or killed, as by SIGKILL: what
it would do next is never done, not even its `finally`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime
from typing import Any

STARTED_AT = datetime(2026, 1, 5, tzinfo=UTC)


class Process:
    """What is held back of a frozen process is done in the same order when it goes on; of a dead one, never (or when
    the simulation has ended and is taken apart)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.frozen_until = -1.0
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[asyncio.Handle] = []


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class NothingLeft(Exception):
    """Nothing is ready and no timer is set: whoever waits, waits for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`steps` counts the callbacks that ran."""

    _ready: deque[Any]
    _scheduled: list[Any]

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.steps = 0
        self.failure: BaseException | None = None
        self.world: Context = copy_context()
        self.world.run(PROCESS.set, None)
        self.set_task_factory(_task_of_process)
        self.set_exception_handler(_fail)

    def time(self) -> float:
        return self._now

    def later(self, seconds: float, callback: Callable[..., object], *values: Any) -> asyncio.TimerHandle:
        """In the world, whoever asks for it: it takes place also when the process that asked is gone."""
        return self.call_at(self._now + seconds, callback, *values, context=self.world)

    def start(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(work, context=context)

    def fail(self, error: BaseException) -> None:
        """The simulation ends here."""
        self.failure = self.failure or error
        self.stop()

    def freeze(self, process: Process, until: float) -> None:
        process.frozen = True
        process.frozen_until = until
        self.later(until - self._now, self._thaw, process)

    def _thaw(self, process: Process) -> None:
        process.frozen = False
        if not process.dead:
            self._ready.extend(process.held)
            process.held.clear()

    def take_apart(self, process: Process) -> None:
        """Nobody looks any more: whatever still runs is cancelled."""
        process.frozen = process.dead = False
        for task in process.tasks:
            task.cancel()
        self._ready.extend(process.held)
        process.held.clear()

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise NothingLeft
            self._now = max(self._now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None and (process.dead or process.frozen):
                process.held.append(handle)
                continue
            self.steps += 1
            handle._run()

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""


def _task_of_process(
    loop: asyncio.AbstractEventLoop, work: Any, *, context: Context | None = None, **more: Any
) -> asyncio.Task[Any]:
    process = PROCESS.get() if context is None else context.get(PROCESS)
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **more)
    if process is not None:
        process.tasks.append(task)
    return task


def _fail(loop: asyncio.AbstractEventLoop, details: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    loop.fail(details.get("exception") or RuntimeError(details["message"]))


class VirtualClock:
    """The clock of a process: the loop's."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> datetime:
        return datetime.fromtimestamp(STARTED_AT.timestamp() + self._loop.time(), UTC)

    def monotonic(self) -> float:
        return self._loop.time()
