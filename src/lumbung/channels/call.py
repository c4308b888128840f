"""One call of a connector: sent once, and written down without a secret in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from lumbung.channels.base import CallRecord
from lumbung.channels.http import Answer, NoAnswer, NotSent, Transport
from lumbung.channels.redaction import redact


@dataclass(frozen=True, slots=True)
class Answered:
    """The marketplace's answer. `text` is its body without the secrets of the call: nothing that is made of it can hold
    one, unless it brings new ones. `at` (UTC): when the call was begun."""

    status: int
    text: str = field(repr=False)
    retry_after_seconds: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Called:
    """One exchange: what came of it, and its record for people to read. `body` is the answer as it came, secrets
    included, for the few answers that bring some; empty without an answer."""

    came: Answered | NotSent | NoAnswer
    record: CallRecord = field(repr=False)
    body: bytes = field(default=b"", repr=False)


async def call(
    http: Transport,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout_seconds: float,
    secrets: Iterable[str],
) -> Called:
    """Send one request, once. `secrets` are kept out of all that is kept of it, its URL and its body included."""
    every = tuple(secrets)
    exchange = await http.request(method, url, headers=headers, body=body, timeout_seconds=timeout_seconds)
    came: Answered | NotSent | NoAnswer
    answered = b""
    match exchange:
        case Answer():
            answered = exchange.body
            text = redact(answered.decode(errors="replace"), every)
            came = Answered(exchange.status, text, exchange.retry_after_seconds, exchange.started_at)
        case NotSent() | NoAnswer():
            came = exchange
        case _:
            assert_never(exchange)
    record = CallRecord(
        method=method,
        url=redact(url, every),
        request="" if body is None else redact(body.decode(), every),
        status=came.status if isinstance(came, Answered) else 0,
        # The database's text has no NUL.
        response=came.text.replace("\0", "\ufffd") if isinstance(came, Answered) else "",
        started_at=exchange.started_at,
        duration_ms=exchange.duration_ms,
    )
    return Called(came, record, answered)
