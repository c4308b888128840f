"""What the log says of requests that are answered 503."""

from __future__ import annotations

from typing import Any, cast

import pytest
from litestar.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from lumbung.api.metrics import ApiMetrics
from lumbung.api.reference import AGAIN_SECONDS, ReferenceMiddleware, note_refusal
from lumbung.clock import ManualClock


class Route:
    """Answers what it is told to; `said` are the log's lines that are no request's own."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.middleware = ReferenceMiddleware(self._answer, metrics=ApiMetrics(), clock=self.clock)
        self.status, self.reason = 200, ""
        self.lines: list[dict[str, Any]] = []

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.status == 503:
            note_refusal(scope, self.reason)
        await send(cast(Message, {"type": "http.response.start", "status": self.status, "headers": []}))

    async def call(self, status: int, reason: str = "") -> None:
        async def sent(_message: Message) -> None:
            return None

        self.status, self.reason = status, reason
        scope = {"type": "http", "path": "/x", "path_template": "/x", "method": "POST", "state": {}}
        with capture_logs() as lines:
            await self.middleware(cast(Any, scope), cast(Any, None), sent)
        self.lines += [dict(line) for line in lines]

    @property
    def said(self) -> list[tuple[str, str | None]]:
        return [(line["event"], line.get("reason")) for line in self.lines if line["event"] != "request"]


@pytest.fixture
def route() -> Route:
    return Route()


async def test_a_queue_that_is_full_now_and_then_is_told_of_once(route: Route) -> None:
    for _ in range(20):
        await route.call(503, "The queue is full")
        await route.call(200)
        route.clock.advance(1.0)
    assert route.said == [("requests are answered 503", "The queue is full")]
    route.clock.advance(AGAIN_SECONDS)
    await route.call(200)
    assert route.said[1:] == [("requests are answered again", None)]


async def test_each_reason_is_told_once(route: Route) -> None:
    for reason in ("The queue is full", "The disk is full", "The queue is full", "The disk is full"):
        await route.call(503, reason)
    assert route.said == [
        ("requests are answered 503", "The queue is full"),
        ("requests are answered 503", "The disk is full"),
    ]


async def test_each_request_says_why_it_was_refused(route: Route) -> None:
    await route.call(503, "It may have taken effect")
    await route.call(200)
    requests = [line for line in route.lines if line["event"] == "request"]
    assert [(line["status"], line.get("reason")) for line in requests] == [
        (503, "It may have taken effect"),
        (200, None),
    ]
