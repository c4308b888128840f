"""A TCP proxy that does to connections what networks do: between workers and PostgreSQL, workers and marketplaces."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from lumbung.torture.end import End
from lumbung.torture.fault import PASS, Direction, Fault
from lumbung.torture.link import Link
from lumbung.torture.traffic import Condition, Counts, Traffic

Upstream = tuple[str, int] | Path
"""Host and port, or a unix socket."""

BACKLOG = 1024
KNOCK_SECONDS = 0.005


class Proxy:
    """Every client is known by the address that it calls from, its `source`: on Linux all of 127.0.0.0/8 is loopback,
    so each process can have one of its own. A server over TCP is called from that same address.

    A fault stands for one source or for all; the one for a source wins, even if it is PASS. Faults act on connections
    that are there and on new ones.
    """

    def __init__(self, upstream: Upstream, *, held_bytes_max: int) -> None:
        self._upstream = upstream
        self._held_bytes_max = held_bytes_max
        self._for_all = PASS
        self._by_source: dict[str, Fault] = {}
        self._links: dict[Link, str] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._traffic = Traffic()
        self._closed = False
        self._server: asyncio.Server | None = None
        self._deserted = asyncio.Event()
        self._deserted.set()
        self._triggered = False

    @classmethod
    @asynccontextmanager
    async def start(
        cls, upstream: Upstream, *, host: str = "127.0.0.1", port: int = 0, held_bytes_max: int = 16 * 1024 * 1024
    ) -> AsyncIterator[Proxy]:
        """Listens until the context ends; port 0 takes a free one.

        `held_bytes_max`: what one direction of one connection may hold back, in bytes, before its writer has to wait.
        """
        proxy = cls(upstream, held_bytes_max=held_bytes_max)
        loop = asyncio.get_running_loop()
        proxy._server = await loop.create_server(lambda: End(proxy._accepted), host, port, backlog=BACKLOG)
        try:
            yield proxy
        finally:
            await proxy.close()

    @property
    def port(self) -> int:
        assert self._server is not None
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    def set(self, fault: Fault, source: str | None = None) -> None:
        """The fault takes the place of the one that stood for this source, or (None) for all that have none."""
        if source is None:
            self._for_all = fault
        else:
            self._by_source[source] = fault
        self._strike()

    def set_when_asked(self, awaited: bytes, fault: Fault) -> None:
        """As `set` for all, once a request has these bytes in it: that request goes as the fault says, too."""
        self._triggered = False

        def begin() -> None:
            self._triggered = True
            self.set(fault)

        self._traffic.when_asked(awaited, begin)

    @property
    def triggered(self) -> bool:
        """Whether what `set_when_asked` waits for has come."""
        return self._triggered

    def clear(self, source: str | None = None) -> None:
        """Ends the fault of this source, or (None) the one for all, one that still waits for its request included; a
        source's own then still stands."""
        if source is None:
            self._for_all = PASS
            self._traffic.forget_when_asked()
        else:
            self._by_source.pop(source, None)
        self._strike()

    def heal(self) -> None:
        """Ends every fault."""
        self._by_source.clear()
        self.clear()

    def counts(self, source: str | None = None) -> Counts:
        """What one source did, or (None) all together. A copy."""
        return self._traffic.counts(source)

    async def until(self, condition: Condition, source: str | None = None) -> Counts:
        """Waits for the source's counts, or (None) those of all, to satisfy the condition; returns them.

        ConnectionAbortedError when the proxy is closed before.
        """
        return await self._traffic.until(condition, source)

    async def moved(self, source: str | None, direction: Direction, *, after: int | None = None) -> int:
        """Waits until more than `after` bytes of this direction have come to the proxy, held or passed; returns how
        many have. None: more than until now."""
        before = self.counts(source).bytes_of(direction) if after is None else after
        counts = await self.until(lambda now: now.bytes_of(direction) > before, source)
        return counts.bytes_of(direction)

    async def close(self) -> None:
        """Ends every connection, and whoever waits for one; returns when all sockets are closed."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for link in tuple(self._links):
            link.abort()
        await self._deserted.wait()
        self._traffic.close()
        if self._server is not None:
            await self._server.wait_closed()

    def _fault_of(self, source: str) -> Fault:
        return self._by_source.get(source, self._for_all)

    def _strike(self) -> None:
        for link, source in tuple(self._links.items()):
            link.befall(self._fault_of(source))

    def _accepted(self, client: End) -> None:
        assert client.transport is not None
        peer = client.transport.get_extra_info("peername")
        source: str = peer[0] if peer else ""  # it has left again already
        meter = self._traffic.meter(source)
        link = Link(client, meter, held_bytes_max=self._held_bytes_max, finished=self._forget)
        self._links[link] = source
        self._deserted.clear()
        meter.opened()
        if self._closed:
            link.abort()
        elif link.start(self._fault_of(source)):
            task = asyncio.create_task(self._connect(link, source))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, link: Link, source: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            if isinstance(self._upstream, Path):
                await loop.create_unix_connection(lambda: link.upstream, sock=await _knock(self._upstream))
            else:
                host, port = self._upstream
                await loop.create_connection(lambda: link.upstream, host, port, local_addr=(source, 0))
        except OSError:
            link.refused()

    def _forget(self, link: Link) -> None:
        source = self._links.pop(link)
        self._traffic.meter(source).closed()
        if not self._links:
            self._deserted.set()


async def _knock(path: Path) -> socket.socket:
    """A socket that is connected to the unix socket. OSError when nobody listens there.

    A full backlog is EAGAIN at once, where a TCP client would be kept waiting, and the loop takes it for a connection
    under way: so it is tried again here, until the task is cancelled.
    """
    knocking = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        knocking.setblocking(False)
        while True:
            with suppress(BlockingIOError):
                knocking.connect(str(path))
                return knocking
            await asyncio.sleep(KNOCK_SECONDS)
    except BaseException:
        knocking.close()
        raise
