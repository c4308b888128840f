"""Our load generator: requests that were made beforehand, over keep-alive connections, one at a time on each.

`ceaselessly` sends the next as soon as the last is answered: how much is done at most. `steadily` sends at even times
whatever the answers take, and an answer's time counts from when its request was due: how long it takes at a pace.
It shares the machine with what it measures; wrk (wrk.py) costs less of it.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

from lumbung.bench.load import Load
from lumbung.errors import LumbungError

TICK_SECONDS = 0.001
LAST_ANSWERS_SECONDS = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One keep-alive connection; `answered` is told of each whole answer whether it was 200."""

    def __init__(self, answered: Callable[[Connection, bool], None]):
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._came = b""
        self.due_at = 0.0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def send(self, request: bytes, due_at: float) -> None:
        assert self._transport is not None
        self.due_at = due_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        came = self._came + data if self._came else data
        end = came.find(b"\r\n\r\n")
        if end < 0:
            self._came = came
            return
        length = _LENGTH.search(came, 0, end + 2)
        if length is None:
            raise LumbungError("An answer without Content-Length: the load generator reads no others")
        if len(came) < end + 4 + int(length[1]):
            self._came = came
            return
        self._came = b""
        self._answered(self, came.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._answered(self, False)

    def close(self) -> None:
        self._answered = lambda *_: None
        if self._transport is not None:
            self._transport.close()


class Generator:
    """`requests` go round. One load at a time; the next begins where the last one ended."""

    def __init__(self, url: str, requests: Sequence[bytes]):
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._requests: Iterator[bytes] = cycle(requests)

    async def ceaselessly(self, seconds: float, connections: int) -> Load:
        answered = failed = under_way = 0
        ends = 0.0
        idle = asyncio.Event()

        def done(connection: Connection, right: bool) -> None:
            nonlocal answered, failed, under_way
            now = perf_counter()
            in_time = now <= ends  # nobody counts what was under way at the end
            if in_time:
                answered += right
                failed += not right
            if in_time and not connection.lost:
                connection.send(next(self._requests), now)
                return
            under_way -= 1
            if not under_way:
                idle.set()

        opened = await self._open(connections, done)
        began = perf_counter()
        ends = began + seconds
        under_way = len(opened)
        for connection in opened:
            connection.send(next(self._requests), began)
        await self._close(opened, idle, seconds)
        return Load(answered, failed, seconds)

    async def steadily(self, per_second: float, seconds: float, connections: int) -> Load:
        """At most `connections` under way; what finds none free waits, and its time counts."""
        count = int(per_second * seconds)
        latencies: list[float] = []
        failed = 0
        waiting: deque[float] = deque()
        idle = asyncio.Event()

        def done(connection: Connection, right: bool) -> None:
            nonlocal failed
            if right:
                latencies.append(perf_counter() - connection.due_at)
            else:
                failed += 1
            if connection.lost:
                pass
            elif waiting:
                connection.send(next(self._requests), waiting.popleft())
            else:
                free.append(connection)
            if len(latencies) + failed == count:
                idle.set()

        opened = await self._open(connections, done)
        free = deque(opened)
        began = perf_counter()
        sent = 0
        while sent < count:
            due = min(count, int((perf_counter() - began) * per_second) + 1)
            for number in range(sent, due):
                due_at = began + number / per_second
                if free:
                    free.popleft().send(next(self._requests), due_at)
                else:
                    waiting.append(due_at)
            sent = due
            await asyncio.sleep(TICK_SECONDS)
        await self._close(opened, idle, 0)
        return Load(len(latencies), count - len(latencies), seconds, latencies)

    async def one_by_one(self, count: int) -> Load:
        """So many on one connection, each sent when the one before is answered."""
        answers: asyncio.Queue[bool] = asyncio.Queue()
        [connection] = await self._open(1, lambda _, right: answers.put_nowait(right))
        latencies: list[float] = []
        began = perf_counter()
        for request in islice(self._requests, count):
            sent_at = perf_counter()
            connection.send(request, sent_at)
            if await answers.get():
                latencies.append(perf_counter() - sent_at)
        connection.close()
        return Load(len(latencies), count - len(latencies), perf_counter() - began, latencies)

    async def _open(self, count: int, answered: Callable[[Connection, bool], None]) -> list[Connection]:
        loop = asyncio.get_running_loop()
        return [(await loop.create_connection(lambda: Connection(answered), *self._address))[1] for _ in range(count)]

    async def _close(self, opened: Sequence[Connection], idle: asyncio.Event, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(idle.wait(), seconds + LAST_ANSWERS_SECONDS)
        for connection in opened:
            connection.close()
