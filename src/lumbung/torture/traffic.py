"""What passed a fault proxy, by source, and waiting for it instead of sleeping."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from lumbung.torture.fault import Direction


@dataclass(slots=True)
class Counts:
    """What came from one source, or from all. Bytes count when they arrive at the proxy, whatever becomes of them.

    `open`: connections of which the proxy still has an end. `resets`: those that a fault reset, or that were reset
    because the server was away; a reset that one end sent to the other is not among them.
    """

    connections: int = 0
    open: int = 0
    resets: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0

    def bytes_of(self, direction: Direction) -> int:
        return self.request_bytes if direction is Direction.REQUESTS else self.answer_bytes


Condition = Callable[[Counts], bool]


class Traffic:
    """The counts of all sources. `changed` wakes those whose condition has come true."""

    def __init__(self) -> None:
        self._by_source: defaultdict[str, Counts] = defaultdict(Counts)
        self._waiting: list[tuple[Condition, str | None, asyncio.Future[Counts]]] = []
        self._closed = False
        self._awaited = b""
        self._act: Callable[[], None] | None = None

    def meter(self, source: str) -> Meter:
        return Meter(self._by_source[source], self)

    def counts(self, source: str | None = None) -> Counts:
        """A copy: of one source's, or (None) the sum of all."""
        if source is not None:
            return replace(self._by_source.get(source, Counts()))
        every = self._by_source.values()
        return Counts(*(sum(getattr(counts, field.name) for counts in every) for field in fields(Counts)))

    async def until(self, condition: Condition, source: str | None) -> Counts:
        """The counts once the condition holds. ConnectionAbortedError when the proxy is closed before."""
        counts = self.counts(source)
        if condition(counts):
            return counts
        if self._closed:
            raise ConnectionAbortedError("the proxy is closed")
        come_true: asyncio.Future[Counts] = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, source, come_true))
        return await come_true

    def when_asked(self, awaited: bytes, act: Callable[[], None]) -> None:
        """Has something done, once, as soon as a request has these bytes in it, before any of it goes on."""
        self._awaited, self._act = awaited, act

    def forget_when_asked(self) -> None:
        self._act = None

    def look_at(self, request: bytes) -> None:
        """A pattern that is cut by two reads is not found: what it awaits is short and comes again."""
        if self._act is not None and self._awaited in request:
            act, self._act = self._act, None
            act()

    def changed(self) -> None:
        if not self._waiting:
            return
        for condition, source, come_true in self._waiting:
            counts = self.counts(source)
            if not come_true.done() and condition(counts):
                come_true.set_result(counts)
        self._waiting = [waiting for waiting in self._waiting if not waiting[2].done()]

    def close(self) -> None:
        """Nothing will change any more."""
        self._closed = True
        for _, _, come_true in self._waiting:
            if not come_true.done():
                come_true.set_exception(ConnectionAbortedError("the proxy is closed"))
        self._waiting = []


class Meter:
    """Counts what one source's connections do."""

    def __init__(self, counts: Counts, traffic: Traffic) -> None:
        self._counts = counts
        self._traffic = traffic

    def arrived(self, direction: Direction, data: bytes) -> None:
        if direction is Direction.REQUESTS:
            self._counts.request_bytes += len(data)
            self._traffic.look_at(data)
        else:
            self._counts.answer_bytes += len(data)
        self._traffic.changed()

    def opened(self) -> None:
        self._counts.connections += 1
        self._counts.open += 1
        self._traffic.changed()

    def was_reset(self) -> None:
        self._counts.resets += 1
        self._traffic.changed()

    def closed(self) -> None:
        self._counts.open -= 1
        self._traffic.changed()
