"""Every request gets a reference: in the header x-request-id, in the body where its shape has one, in the log line."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import uuid4

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Counter, Histogram

from lumbung.api.metrics import ApiMetrics
from lumbung.clock import Clock

log = structlog.get_logger()

HEADER = b"x-request-id"
KEY = "lumbung_reference"
REASON = "lumbung_refusal"
UNAVAILABLE = 503
AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class Refusing:
    """A route that answers 503: why, so far, and when it did last (monotonic)."""

    reasons: set[str | None] = field(default_factory=set)
    last: float = 0.0


def reference_of(scope: Scope) -> str:
    """The reference of the request that a scope belongs to."""
    return str(scope["state"].setdefault(KEY, str(uuid4())))


def note_refusal(scope: Scope, reason: str) -> None:
    """Why a request is answered 503, for the log."""
    scope["state"][REASON] = reason


class ReferenceMiddleware:
    """Gives the reference, counts and times the request, and logs it.

    That a route can do nothing just now is warned of once for each reason, and told once when it has answered nothing
    but 200 for some seconds: while a database is away, or a queue is full, a line for each request says nothing new.
    """

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics, clock: Clock):
        self._app = app
        self._metrics = metrics
        self._clock = clock
        self._log = log.bind()  # looked up once: most requests log nothing
        self._refusing: dict[str, Refusing] = {}
        self._counters: dict[
            tuple[str, int], tuple[Counter, Histogram]
        ] = {}  # found once: it takes as long as counting

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
        counted, timed = self._counter_of(route, status)
        counted.inc()
        timed.observe(seconds)
        if status == UNAVAILABLE or self._refusing:
            self._note_change(scope, route, status)
        more = {"reason": reason} if (reason := scope["state"].get(REASON)) else {}
        if status >= 500 and status != UNAVAILABLE:
            level = self._log.error
        else:
            level = self._log.info if status >= 400 else self._log.debug
        level("request", reference=reference, method=scope.get("method"), path=scope["path"], status=status, **more)

    def _counter_of(self, route: str, status: int) -> tuple[Counter, Histogram]:
        found = self._counters.get((route, status))
        if found is None:
            found = self._metrics.requests.labels(route, str(status)), self._metrics.request_seconds.labels(route)
            self._counters[route, status] = found
        return found

    def _note_change(self, scope: Scope, route: str, status: int) -> None:
        now = self._clock.monotonic()
        before = self._refusing.get(route)
        if status == UNAVAILABLE:
            refusing = self._refusing.setdefault(route, Refusing())
            refusing.last = now
            reason = scope["state"].get(REASON)
            if reason not in refusing.reasons:
                refusing.reasons.add(reason)
                log.warning("requests are answered 503", route=route, reason=reason)
        elif status == 200 and before is not None and now - before.last >= AGAIN_SECONDS:
            del self._refusing[route]
            log.info("requests are answered again", route=route)
