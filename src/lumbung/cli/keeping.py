"""Keeping the embedded PostgreSQL running beside a long-running command.

up --gone--> revive --answers--> up
               | fails: wait (doubling, anew after a steady life)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from lumbung.errors import ConfigurationError

log = structlog.get_logger()

LOOK_SECONDS = 1.0
DELAY_SECONDS_MAX = 30.0
STEADY_SECONDS = 60.0

Sleep = Callable[[float], Awaitable[None]]


class Server(Protocol):
    """An embedded server as its keeper sees it; both may block."""

    def is_up(self) -> bool: ...

    def revive(self) -> None:
        """Raises ConfigurationError while it cannot be had."""
        ...


async def beside(server: Server | None, work: Awaitable[None]) -> None:
    """Do the work, and keep the server running meanwhile (None: there is none of ours)."""
    keeping = None if server is None else asyncio.create_task(keep_running(server))
    try:
        await work
    finally:
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def keep_running(server: Server, *, sleep: Sleep = asyncio.sleep) -> None:
    """Start the server again whenever it has died, at once the first time. Never ends.

    One that dies again and again is started ever more rarely: whatever kills it needs room to be mended.
    """
    delay, steady = 0.0, 0.0
    while True:
        await sleep(LOOK_SECONDS)
        if await asyncio.to_thread(server.is_up):
            steady += LOOK_SECONDS
            continue
        delay, steady = 0.0 if steady >= STEADY_SECONDS else delay, 0.0
        log.warning("the embedded PostgreSQL is gone: it is started again", in_seconds=delay)
        delay = await _revive(server, delay, sleep)
        log.info("the embedded PostgreSQL runs again")


async def _revive(server: Server, delay: float, sleep: Sleep) -> float:
    """Returns how long the next start waits, if it comes soon."""
    told = False
    while True:
        await sleep(delay)
        delay = min(max(2 * delay, LOOK_SECONDS), DELAY_SECONDS_MAX)
        try:
            await asyncio.to_thread(server.revive)
        except (ConfigurationError, OSError) as error:  # the second: no program can be started just now
            if not told:
                log.warning("the embedded PostgreSQL does not run yet, trying again", error=str(error))
            told = True
        else:
            return delay
