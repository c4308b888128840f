"""The HTTP server in front of the application, with every limit that a client meets before its request is read."""

from __future__ import annotations

import os
import socket

from granian._granian import ListenerSpec
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server
from litestar.types import ASGIApp

from lumbung.settings import Settings

BACKLOG = 1024


def make_server(app: ASGIApp, settings: Settings) -> Server:
    """Not started yet: `serve()` runs it in the current loop until `stop()`."""
    return _Server(
        app,
        settings.answer_write_timeout_seconds,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_read_timeout_seconds * 1000)),
        backlog=BACKLOG,
        backpressure=settings.connections_max,
        websockets=False,
        log_enabled=False,
    )


class _Server(Server):
    """Granian's, and a client that takes nothing of its answer is cut off.

    Granian waits for such a client for ever, and nothing in the application can end that: what it has sent lies in
    the server's buffer, which is not looked at again before the client reads. The kernel can: TCP_USER_TIMEOUT ends a
    connection whose data are not acknowledged, or cannot be sent because the client's window is shut, for that long.
    Accepted connections inherit it from the listening socket, so that one is opened here, as Granian itself opens it
    where its workers cannot.
    """

    def __init__(self, app: ASGIApp, write_timeout_seconds: float, **options: object):
        super().__init__(app, **options)  # type: ignore[arg-type]
        self._write_timeout_seconds = write_timeout_seconds

    def _init_shared_socket(self) -> None:
        if not hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only
            super()._init_shared_socket()  # type: ignore[no-untyped-call]
            return
        held = ListenerSpec(self.bind_addr, self.bind_port, self.backlog).build()
        with socket.socket(fileno=os.dup(held.get_fd())) as listening:
            timeout_ms = int(self._write_timeout_seconds * 1000)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        self._shd = held  # type: ignore[assignment]
