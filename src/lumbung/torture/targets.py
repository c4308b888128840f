"""What the nemesis works on, and how it looks at it."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from lumbung.db import inspection
from lumbung.db.pool import Pool
from lumbung.errors import LumbungError
from lumbung.torture.fleet import Fleet, Member
from lumbung.torture.journal import Journal
from lumbung.torture.market import Market
from lumbung.torture.world import World

LOOK_SECONDS = 0.005


class Server(Protocol):
    """An embedded PostgreSQL; both may block."""

    @property
    def postmaster_pid(self) -> int | None: ...

    def revive(self, *, timeout_seconds: float = 10) -> None: ...


@dataclass(slots=True)
class Targets:
    """`lifetime`: of a lease, `quiesce`: of every store, `timeout`: of a call; seconds. `pool`: a way to the database
    of our own. `agree_again(channel, code)`: what an operator does about a store whose authorisation is dead.
    `clock_file`: where the database's clock is set, if it can be."""

    fleet: Fleet
    world: World
    market: Market
    journal: Journal
    pool: Pool
    server: Server
    seed: int
    lifetime: float
    quiesce: float
    timeout: float
    outage_seconds: float
    agree_again: Callable[[str, str], Awaitable[None]]
    clock_file: Path | None = None
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311

    def with_own_dice(self) -> Targets:
        """The same, for a hand whose dice nobody else throws. They begin alike: a hand does with another beside it what
        it does alone."""
        return replace(self)

    @property
    def longest_wait(self) -> float:
        """Seconds within which any healthy listing is told its newest number, while nothing goes wrong."""
        return max(self.world.longest_wait(store, self.lifetime) for store in self.world.stores)

    def a_worker(self) -> Member:
        return self.dice.choice(self.fleet.workers)

    def an_api(self) -> Member:
        return self.dice.choice(self.fleet.apis)

    async def lifetimes(self, least: float, most: float) -> None:
        """Let so many go by."""
        await asyncio.sleep(self.lifetime * self.dice.uniform(least, most))

    async def works(self, member: Member) -> bool:
        """Whether an API process can do its work, or a worker has registered."""
        if not member.source:
            return await asyncio.to_thread(ready, member) == 200
        try:
            async with self.pool.connection() as connection:
                return await inspection.registered(connection, name_of(member))
        except LumbungError:
            return False

    async def held_by(self, worker: Member) -> set[tuple[str, str]]:
        try:
            async with self.pool.connection() as connection:
                return await inspection.held_by(connection, name_of(worker))
        except LumbungError:
            return set()

    async def left_in_order(self, name: str) -> bool | None:
        """Whether a process of this name has given back all that it held, with nothing in doubt; None: nobody knows."""
        try:
            async with self.pool.connection() as connection:
                return await inspection.left_in_order(connection, name)
        except LumbungError:
            return None

    async def stop_database(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, nothing is told to anybody."""
        pid = self.server.postmaster_pid
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)

    async def start_database(self) -> None:
        await asyncio.to_thread(self.server.revive, timeout_seconds=60)

    async def until(self, seen: Callable[[], Awaitable[bool]], lifetimes: float) -> bool:
        """Look every few milliseconds; whether it was seen in time."""
        ends = asyncio.get_running_loop().time() + lifetimes * self.lifetime
        while asyncio.get_running_loop().time() < ends:
            if await seen():
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False


def name_of(worker: Member) -> str:
    """As the process calls itself in the database."""
    return f"{socket.gethostname()}:{worker.process.pid}"


def ready(api: Member) -> int:
    """The status of /readyz; 0 when nobody answers. Blocks."""
    return _get(api.url, "/readyz")[0]


def metric(worker: Member, name: str) -> float | None:
    """A worker's gauge of that name without labels; None when nobody answers. Blocks."""
    status, text = _get(worker.url, "/metrics")
    for line in text.splitlines() if status == 200 else ():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    return None


def _get(url: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
