"""The proxy's socket towards one side of a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from lumbung.torture.pipe import Pipe

NO_LINGER = struct.pack("ii", 1, 0)


class Closing(Enum):
    """How one end took its leave: FINISHED says no more but may listen on; BROKEN was reset."""

    FINISHED = "finished"
    BROKEN = "broken"


class End(asyncio.Protocol):
    """The proxy's socket towards the client, or towards the server.

    `made` is called when it is connected, `left` when it is closed for good. `out` takes what arrives here, `into`
    brings what is to be written here.
    """

    out: Pipe
    into: Pipe
    left: Callable[[], None]

    def __init__(self, made: Callable[[End], None]) -> None:
        self._made = made
        self._reading = True
        self._finished = False
        self.transport: asyncio.Transport | None = None
        self.open = False
        self.full = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none of asyncio's classes
        self.open = True
        self._made(self)

    def data_received(self, data: bytes) -> None:
        self.out.take(data)

    def eof_received(self) -> bool:
        self._finished = True
        self.out.close(Closing.FINISHED)
        return True  # the other direction goes on

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self.give_up()
        if exc is not None:  # without one it was the proxy that closed it
            self.out.close(Closing.BROKEN)
        self.left()

    def pause_writing(self) -> None:
        self.full = True
        self.into.regulate()

    def resume_writing(self) -> None:
        self.full = False
        self.into.pump()

    def give_up(self) -> None:
        """Nothing can be written here any more, or ever."""
        self.gone = True
        self.into.empty()

    def read(self, wanted: bool) -> None:
        """Reads on, or leaves what comes in the kernel, so that whoever writes it has to wait."""
        if self.transport is None or not self.open or self._finished or wanted is self._reading:
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def finish(self) -> None:
        """Says that no more comes, and listens on."""
        if self.transport is not None and self.open:
            self.transport.write_eof()

    def close(self) -> None:
        """Closes in order, once what was written is out."""
        if self.transport is not None and self.open:
            self.open = False
            self.transport.close()

    def abort(self) -> None:
        """Closes at once. The other side sees an end, or a reset if it had written something that was not read."""
        self.open = False
        if self.transport is not None:
            self.transport.abort()

    def reset(self) -> None:
        """Closes at once with an RST."""
        kernel = None if self.transport is None else self.transport.get_extra_info("socket")
        if kernel is not None:  # as uvloop has it once it is closed
            with suppress(OSError):  # as asyncio says then
                kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.abort()
