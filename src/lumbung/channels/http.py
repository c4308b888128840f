"""The one HTTP client: every call to a marketplace goes through here, and what may have happened to it comes out.

The difference that matters is whether a call was **surely not** seen by the marketplace (`NotSent`: refused, DNS,
TLS, no byte written) or **may have been** (`NoAnswer`: timeout, reset or an unreadable answer after the first byte).

How it is told apart: aiohttp's tracing reports the moment before the head of a request is handed to the socket. Before
that moment nothing of the request can have left; from that moment on some of it may have, whatever went wrong. A
kept-alive connection that the server closed meanwhile therefore counts as `NoAnswer`, although most often nothing
was read there: a wrong `NoAnswer` costs a second call, a wrong `NotSent` could leave a wrong quantity standing.

Nothing is ever sent twice. aiohttp sends "idempotent" methods (PUT is one) again on its own when a reused connection
breaks; an older quantity sent again behind a newer one would break the promised order, so that is turned off here.
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace, TracebackType
from typing import Protocol, Self
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from lumbung.clock import Clock
from lumbung.errors import ConfigurationError
from lumbung.settings import PREFIX

_RETRY_AFTER_SECONDS = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_USER_AGENT = "lumbung"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `retry_after_seconds` is the parsed Retry-After header (seconds or a date)."""

    status: int
    body: bytes = field(repr=False)  # it may bring tokens
    headers: Mapping[str, str]
    started_at: datetime
    duration_ms: float
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class NotSent:
    """The marketplace has surely not seen the call."""

    message: str
    started_at: datetime
    duration_ms: float


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The call was sent, at least in part, and no whole answer came: it may have been applied, now or later."""

    message: str
    started_at: datetime
    duration_ms: float


Exchange = Answer | NotSent | NoAnswer


class Transport(Protocol):
    """What a channel needs of the client; tests pass a fake."""

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Exchange:
        """Send one request, once, and tell what became of it."""
        ...


class HttpClient:
    """One pool of connections for all channels. Make it inside a running event loop; close it, or use `async with`.

    `connect_timeout_seconds` bounds the wait for a free connection plus DNS, TCP and TLS; `call_timeout_seconds_max`
    bounds every exchange, whatever its caller allows; `answer_bytes_max` bounds the body of an answer. Answers are not
    decompressed (none is asked for), redirects not followed, cookies not kept, the environment's proxies not used.

    `source_address` is the IP address of this machine that calls leave from, and then only hosts that have an address
    of its family are reached; empty: as the system chooses. Raises ConfigurationError when it is none of this machine.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        connect_timeout_seconds: float = 5.0,
        call_timeout_seconds_max: float = 20.0,
        connections_per_host_max: int = 64,
        answer_bytes_max: int = 1_048_576,
        source_address: str = "",
    ):
        self._clock = clock
        self._connect_timeout_seconds = connect_timeout_seconds
        self._call_timeout_seconds_max = call_timeout_seconds_max
        self._answer_bytes_max = answer_bytes_max
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_note_first_byte)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=connections_per_host_max,
                family=_family_of(source_address) if source_address else socket.AF_UNSPEC,
                local_addr=(source_address, 0) if source_address else None,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            trace_configs=[tracing],
            middlewares=[_send_once],
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; calls under way end as `NoAnswer` or are cancelled by their owner."""
        await self._session.close()

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Exchange:
        """Send one request, once. `url` goes out exactly as given, so it must be percent-encoded already.

        `timeout_seconds` bounds the whole exchange, as does `call_timeout_seconds_max`. Never raises for what the
        network or the server does; a cancellation passes through.
        """
        timeout_seconds = min(timeout_seconds, self._call_timeout_seconds_max)
        progress = _Progress()
        started_at = self._clock.now()
        started = self._clock.monotonic()
        try:
            response = await self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=self._timeout(timeout_seconds),
                trace_request_ctx=progress,
            )
            try:
                answer = await self._read(response)
            finally:
                response.close()  # drops a connection that was not read to its end; keeps one that was
        except (aiohttp.ClientError, OSError) as error:
            duration_ms = (self._clock.monotonic() - started) * 1000
            cause = error.__cause__ if isinstance(error, _BrokenError) and error.__cause__ else error
            if progress.sending:
                return NoAnswer(_why_no_answer(cause, timeout_seconds), started_at, duration_ms)
            host = urlsplit(url).netloc
            return NotSent(_why_not_sent(cause, host), started_at, duration_ms)
        return Answer(
            status=response.status,
            body=answer,
            headers=response.headers,
            started_at=started_at,
            duration_ms=(self._clock.monotonic() - started) * 1000,
            retry_after_seconds=retry_after_seconds(response.headers.get("Retry-After"), self._clock.now()),
        )

    def _timeout(self, timeout_seconds: float) -> aiohttp.ClientTimeout:
        # Without the threshold aiohttp rounds timeouts up to a whole second, and a call could outlive its lease.
        return aiohttp.ClientTimeout(
            total=timeout_seconds,
            connect=self._connect_timeout_seconds,
            sock_connect=self._connect_timeout_seconds,
            ceil_threshold=math.inf,
        )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := await response.content.readany():
            size += len(part)
            if size > self._answer_bytes_max:
                raise _TooLargeError(f"The answer is larger than {self._answer_bytes_max} bytes")
            parts.append(part)
        return b"".join(parts)


def _family_of(source_address: str) -> socket.AddressFamily:
    """The family of an address that calls can leave from; raises ConfigurationError. Without the look every call would
    fail for ever, as if the marketplaces were away."""
    variable = f"{PREFIX}CALL_SOURCE_ADDRESS"
    try:
        family, kind, *_, address = socket.getaddrinfo(
            source_address, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{variable} must be an IP address, not {source_address!r}") from error
    with socket.socket(family, kind) as probe:
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigurationError(
                f"Calls cannot leave from {source_address} ({error.strerror}): set {variable} to an address of this"
                " machine, or leave it empty"
            ) from error
    return family


class _Progress:
    """`sending`: some of the request may have left this machine."""

    __slots__ = ("sending",)

    def __init__(self) -> None:
        self.sending = False


async def _note_first_byte(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceRequestHeadersSentParams
) -> None:
    context.trace_request_ctx.sending = True


class _BrokenError(aiohttp.ClientError):
    """A connection broke; the cause says how. Not one of the types that make aiohttp send again."""


class _TooLargeError(aiohttp.ClientError):
    pass


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide broken connections from aiohttp's own second try (ClientSession._request, RFC 9112 9.3.1).

    It repeats an idempotent method on ClientOSError and ServerDisconnectedError, and on nothing else.
    """
    try:
        return await send(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenError from error


def _why_not_sent(error: BaseException, host: str) -> str:
    # Never str(error) as it stands: some of aiohttp's messages hold the URL, and a URL may hold a token.
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"{host}: the name cannot be resolved"
        case aiohttp.ClientSSLError():
            return f"{host}: the TLS handshake failed"
        case aiohttp.ClientConnectorError():
            return f"{host}: {error.os_error.strerror or 'cannot connect'}"
        case TimeoutError():
            return f"{host}: no connection in time"
        case _:
            return f"{host}: no connection ({type(error).__name__})"


def _why_no_answer(error: BaseException, timeout_seconds: float) -> str:
    match error:
        case _TooLargeError():
            return str(error)
        case TimeoutError():
            return f"No answer within {timeout_seconds:g} s"
        case aiohttp.ServerDisconnectedError():
            return "The connection was closed before an answer came"
        case aiohttp.ClientPayloadError():
            return "The answer broke off"
        case aiohttp.ClientResponseError():
            return "The answer is not HTTP"
        case _:
            return "The connection was lost before a whole answer came"


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Seconds from `now` that a Retry-After header asks for; 0 when that is past; None when absent or unreadable.

    The header is a number of seconds or an HTTP date (RFC 9110 10.2.3).
    """
    if header is None:
        return None
    text = header.strip()
    if _RETRY_AFTER_SECONDS.fullmatch(text):
        return max(0.0, float(text))
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, (date - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
