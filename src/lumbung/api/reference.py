"""Every request gets a reference: in the header x-request-id, in the body where its shape has one, in the log line."""

from __future__ import annotations

from uuid import uuid4

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from lumbung.api.metrics import ApiMetrics
from lumbung.clock import Clock

log = structlog.get_logger()

HEADER = b"x-request-id"
KEY = "lumbung_reference"


def reference_of(scope: Scope) -> str:
    """The reference of the request that a scope belongs to."""
    return str(scope["state"].setdefault(KEY, str(uuid4())))


class ReferenceMiddleware:
    """Gives the reference, counts and times the request, and logs it."""

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics, clock: Clock):
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = self._clock.monotonic()
        scope.setdefault("state", {})
        reference = reference_of(scope)
        status = 0

        async def send_with_reference(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, reference.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_reference)
        finally:
            self._done(scope, status, reference, self._clock.monotonic() - started)

    def _done(self, scope: Scope, status: int, reference: str, seconds: float) -> None:
        route = str(scope.get("path_template") or "other")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        level = log.error if status >= 500 else log.info if status >= 400 else log.debug
        level("request", reference=reference, method=scope.get("method"), path=scope["path"], status=status)
