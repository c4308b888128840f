"""Keeping child processes running, and ending all of them however this process ends.

    start --> running --exits--> wait (doubling, anew after a steady life) --> start
                 |                     |
                 '------- stop --------'--> SIGTERM, stop_seconds, SIGKILL --> ended

Each child has a session of its own: a Ctrl-C in the terminal reaches us, and we tell the children, once. Its stdin is a
pipe that nobody writes to and that closes when this process is gone, also by SIGKILL; a child awaits that with
`parent_gone` and ends itself. Its stdout and stderr are ours.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from lumbung.clock import Clock, SystemClock
from lumbung.errors import ConfigurationError

EX_CONFIG = 78  # sysexits.h: the child cannot run as it is configured, and says why on stderr

OnEvent = Callable[[str, str, dict[str, object]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """`env` is added to this process's environment."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


class Supervisor:
    """Restarts children after `delay_first_seconds`, doubled each time up to `delay_seconds_max`.

    The delay begins anew after a life of `steady_seconds`.
    """

    def __init__(
        self,
        *,
        delay_first_seconds: float = 0.5,
        delay_seconds_max: float = 30.0,
        steady_seconds: float = 60.0,
        clock: Clock | None = None,
    ):
        self._delay_first = delay_first_seconds
        self._delay_max = delay_seconds_max
        self._steady = steady_seconds
        self._clock = clock or SystemClock()

    async def run(
        self, children: Sequence[Child], *, stop: asyncio.Event, stop_seconds: float, on_event: OnEvent
    ) -> None:
        """Run the children until `stop` is set (or this is cancelled), then end them; returns when none is left.

        `on_event(name, event, facts)` is called once for each of: `started` (pid), `exited` unasked (pid, code,
        lived_seconds, restart_in_seconds), `not_restarted` (error, restart_in_seconds), `killed` because it did not end
        in stop_seconds (pid, after_seconds), `stopped` (pid, code). A code below 0 is the signal that ended it.

        Raises ConfigurationError, with the others ended, when a child cannot be started at all or its first life ends
        with code 78.
        """
        ending = asyncio.Event()
        keepers = [
            asyncio.create_task(self._keep(child, ending, stop_seconds, on_event), name=f"keep {child.name}")
            for child in children
        ]
        asked = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([asked, *keepers], return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            ending.set()
            results = await asyncio.gather(*keepers, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _keep(self, child: Child, ending: asyncio.Event, stop_seconds: float, on_event: OnEvent) -> None:
        delay, first = self._delay_first, True
        while not ending.is_set():
            started_at = self._clock.monotonic()
            try:
                ended = await self._live(child, ending, stop_seconds, on_event)
            except OSError as error:
                if first:
                    raise ConfigurationError(f"{child.name} cannot be started: {error}") from error
                on_event(child.name, "not_restarted", {"error": str(error), "restart_in_seconds": delay})
            else:
                if ended is None:
                    return
                if first and ended.code == EX_CONFIG:
                    raise ConfigurationError(f"{child.name} cannot run as it is configured (its message is above)")
                lived = self._clock.monotonic() - started_at
                if lived >= self._steady:
                    delay = self._delay_first
                on_event(
                    child.name,
                    "exited",
                    {"pid": ended.pid, "code": ended.code, "lived_seconds": lived, "restart_in_seconds": delay},
                )
            first = False
            await _wait_until(ending, delay)
            delay = min(2 * delay, self._delay_max)

    async def _live(self, child: Child, ending: asyncio.Event, stop_seconds: float, on_event: OnEvent) -> _Exit | None:
        """One life: how it exited by itself; None when it was ended."""
        process, pipe = await _start(child)
        try:
            on_event(child.name, "started", {"pid": process.pid})
            if not await _exits_before(process, ending):
                process.terminate()
                if not await _exits_within(process, stop_seconds):
                    on_event(child.name, "killed", {"pid": process.pid, "after_seconds": stop_seconds})
        finally:
            # The group, not the child alone: what it started itself must not outlive it, nor hold its port.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            os.close(pipe)
            code = await process.wait()
        if ending.is_set():
            on_event(child.name, "stopped", {"pid": process.pid, "code": code})
            return None
        return _Exit(process.pid, code)


@dataclass(frozen=True, slots=True)
class _Exit:
    pid: int
    code: int


async def parent_gone(stdin: int = 0) -> None:
    """For a supervised child: returns when the process that started it has closed our stdin, or is dead.

    Whatever is written to the pipe is read and forgotten. Never returns when stdin is not a pipe or socket: then nobody
    supervises us (a terminal, /dev/null).
    """
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    mode = os.fstat(stdin).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        await gone

    def read() -> None:
        if not os.read(stdin, 4096) and not gone.done():
            gone.set_result(None)

    loop.add_reader(stdin, read)
    try:
        await gone
    finally:
        loop.remove_reader(stdin)


async def _start(child: Child) -> tuple[Process, int]:
    """The process, and the end of its stdin's pipe that is to be kept open for as long as it may live."""
    theirs, ours = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *child.argv, stdin=theirs, env={**os.environ, **child.env}, start_new_session=True
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, ours


async def _exits_before(process: Process, ending: asyncio.Event) -> bool:
    exited, asked = asyncio.create_task(process.wait()), asyncio.create_task(ending.wait())
    try:
        await asyncio.wait([exited, asked], return_when=asyncio.FIRST_COMPLETED)
        return exited.done()
    finally:
        exited.cancel()
        asked.cancel()


async def _exits_within(process: Process, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        return False
    return True


async def _wait_until(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
