"""The connector of the marketplace of the tests, with every capability a connector can have, and one with none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, assert_never, get_args
from urllib.parse import quote

import msgspec

from lumbung.channels.base import (
    Accepted,
    Attempt,
    CallRecord,
    CredentialField,
    InDoubt,
    Manifest,
    Misconfigured,
    Observed,
    Outcome,
    Pacing,
    Push,
    Reading,
    ReadRow,
    Refreshed,
    Rejected,
    Row,
    Scope,
    Session,
    Submitted,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.credentials import CredentialReader
from lumbung.channels.http import Answer, HttpClient, NoAnswer, NotSent
from lumbung.channels.redaction import redact
from lumbung.clock import Clock
from lumbung.errors import BadRequest, Problem

from .market import Market
from .market_account import Account
from .market_tokens import Pair

MANIFEST = Manifest(
    code="shpe",
    name="Market of the tests",
    hosts=("market.test",),
    batch_max=10,
    in_flight_max=4,
    pacing=Pacing(calls_per_second=500.0, burst=50),
    credentials=(
        CredentialField("base_url", "the address of the market"),
        CredentialField("account", "the store's account"),
        CredentialField("api_key", "used until there are tokens", secret=True, required=False),
        CredentialField("call_timeout_seconds", "how long to wait for an answer", required=False),
        CredentialField("quiesce_seconds", "how long a lost call may still take effect", required=False),
        CredentialField("calls_per_second", "the rate limit of this store", required=False),
    ),
    call_timeout_seconds=5.0,
    quiesce_seconds=60.0,
    read_max=10,
)

Seen = Observed | Outcome
T = TypeVar("T")

_KINDS: Mapping[object, type[Any]] = {kind.__name__.lower(): kind for kind in (Observed, *get_args(Outcome))}


class _Ids(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str


class _Rows(msgspec.Struct):
    rows: list[dict[str, object]]


class _Pong(msgspec.Struct):
    pass


class _Refusal(msgspec.Struct):
    """The body of an answer for a whole call."""

    error: str = ""
    message: str = ""
    scope: Scope = Scope.STORE


@dataclass(frozen=True, slots=True)
class Credentials:
    base_url: str
    account: str
    api_key: str = field(repr=False)
    call_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """One exchange: what was asked for, or what became of everything that it was about."""

    said: T | Outcome
    record: CallRecord


class PlainMarketSession:
    """Pushes and checks, and nothing else: no job, no reading, no tokens."""

    _capable = False

    def __init__(self, manifest: Manifest, credentials: Credentials, http: HttpClient):
        self._manifest = manifest
        self._credentials = credentials
        self._http = http
        self._access = credentials.api_key

    async def push(self, pushes: Sequence[Push]) -> Attempt:
        _check_size(pushes, self._manifest.batch_max)
        if not pushes:
            return Attempt((), ())
        call = await self._call("POST", "/push", _Rows, {"items": [_item(push) for push in pushes]})
        if isinstance(call.said, _Rows):
            return Attempt(self._rows(call.said, pushes), (call.record,))
        rows = tuple(Row(push.listing_id, call.said) for push in pushes)
        return Attempt(rows, (call.record,), as_a_whole=isinstance(call.said, InDoubt | Rejected))

    async def check(self) -> Outcome:
        call = await self._call("GET", "/ping", _Pong)
        return Accepted() if isinstance(call.said, _Pong) else call.said

    def _rows(self, said: _Rows, pushes: Sequence[Push]) -> tuple[Row, ...]:
        by_id = _by_id(said)
        return tuple(Row(push.listing_id, *self._pushed(by_id, push)) for push in pushes)

    def _pushed(self, by_id: Mapping[object, dict[str, object]], push: Push) -> tuple[Outcome, str]:
        """A push can come to anything but a quantity, or a job that nobody can ask about."""
        seen = _seen(by_id, push)
        if isinstance(seen, Observed) or (isinstance(seen, Submitted) and not self._capable):
            seen = InDoubt("An answer that this connector does not know")
        row = by_id.get(_id(push))
        return seen, "" if row is None else msgspec.json.encode(row).decode()

    async def _call(
        self, method: str, path: str, kind: type[T], sent: object = None, secrets: tuple[str, ...] = ()
    ) -> _Call[T]:
        own = self._credentials
        body = None if sent is None else msgspec.json.encode(sent)
        headers = {"X-Account": own.account, "Authorization": f"Bearer {self._access}"}
        url = own.base_url + path
        exchange = await self._http.request(
            method, url, headers=headers, body=body, timeout_seconds=own.call_timeout_seconds
        )
        secrets += (self._access, own.api_key)
        said: T | Outcome
        status, response = 0, ""
        match exchange:
            case NotSent(message):
                said = Unavailable(message)
            case NoAnswer(message):
                said = InDoubt(message)
            case Answer():
                status, response = exchange.status, redact(exchange.body.decode(errors="replace"), secrets)
                said = self._said(exchange, kind)
            case _:
                assert_never(exchange)
        request = redact((body or b"").decode(), secrets)
        record = CallRecord(method, url, request, status, response, exchange.started_at, exchange.duration_ms)
        return _Call(said, record)

    def _said(self, answer: Answer, kind: type[T]) -> T | Outcome:
        if answer.status == 200:
            return _decoded(answer.body, kind) or InDoubt("The answer cannot be read")
        said = _decoded(answer.body, _Refusal) or _Refusal()
        words = said.message or said.error or f"HTTP {answer.status}"
        match answer.status:
            case 400:
                return Rejected(words)
            case 401:
                return Unauthorized(words, refreshable=self._capable and said.error == "expired")
            case 403:
                return Misconfigured(words, Scope.STORE)
            case 429:
                return Throttled(answer.retry_after_seconds, said.scope, words)
            case 503 if said.error == "maintenance":
                return Unavailable(words)
            case _:
                return InDoubt(words)


class MarketSession(PlainMarketSession):
    """Also asks, reads back and rotates its tokens."""

    _capable = True

    async def ask(self, handle: str, pushes: Sequence[Push]) -> Attempt:
        call = await self._call("GET", f"/jobs/{quote(handle, safe='')}", _Rows)
        if isinstance(call.said, _Rows):
            return Attempt(self._rows(call.said, pushes), (call.record,))
        unknown = call.record.status in {400, 404}
        said = InDoubt("The market knows no such job") if unknown else _harmless(call.said)
        return Attempt(tuple(Row(push.listing_id, said) for push in pushes), (call.record,))

    async def read(self, pushes: Sequence[Push]) -> Reading:
        _check_size(pushes, self._manifest.read_max)
        if not pushes:
            return Reading((), ())
        call = await self._call("POST", "/read", _Rows, {"ids": [_id(push) for push in pushes]})
        if isinstance(call.said, _Rows):
            by_id = _by_id(call.said)
            seen = [_seen(by_id, push) for push in pushes]
        else:
            seen = [call.said] * len(pushes)
        rows = (
            ReadRow(push.listing_id, one if isinstance(one, Observed) else _harmless(one))
            for push, one in zip(pushes, seen, strict=True)
        )
        return Reading(tuple(rows), (call.record,))

    def use(self, tokens: Tokens) -> None:
        self._access = tokens.access

    async def refresh(self, tokens: Tokens) -> Refreshed:
        call = await self._call("POST", "/token", Pair, {"refresh": tokens.refresh}, (tokens.access, tokens.refresh))
        match call.said:
            case Pair() as pair:
                record = replace(call.record, response=redact(call.record.response, (pair.access, pair.refresh)))
                return Refreshed(tokens_of(pair, self._credentials.account, record.started_at), (record,))
            case Throttled() | Unavailable() | InDoubt() as outcome:
                return Refreshed(outcome, (call.record,))
            case Rejected(message) | Unauthorized(message):
                return Refreshed(Unauthorized(message, refreshable=False), (call.record,))
            case outcome:
                return Refreshed(InDoubt(f"An answer that makes no sense: {outcome}"), (call.record,))


class PlainMarketChannel:
    """`manifest` may be another one: `replace(MANIFEST, batch_max=1)`."""

    def __init__(self, manifest: Manifest = MANIFEST):
        self.manifest = manifest

    def open(self, credentials: Mapping[str, str], http: HttpClient, clock: Clock) -> Session:
        return PlainMarketSession(self.manifest, self._read(credentials), http)

    def account(self, credentials: Mapping[str, str]) -> str:
        return self._read(credentials).account

    def remote_variant(self, text: str) -> str:
        """`a` or `{"id": "a"}` -> the latter."""
        stripped = text.strip()
        ids = _decoded(stripped.encode(), _Ids) if stripped.startswith("{") else _Ids(stripped)
        if ids is None or not ids.id:
            message = 'must be an id, or JSON: {"id": "a"}'
            raise BadRequest(f"remote_variant {message}", (Problem("remote_variant", message),))
        return remote_variant(ids.id)

    def batch_key(self, remote_variant: str) -> str:
        return ""

    def read_key(self, remote_variant: str) -> str:
        return ""

    def _read(self, values: Mapping[str, str]) -> Credentials:
        reader, manifest = CredentialReader(self.manifest, values), self.manifest
        reader.number("quiesce_seconds", manifest.quiesce_seconds, above=0, at_most=3600)
        reader.number("calls_per_second", manifest.pacing.calls_per_second, above=0, at_most=1000)
        timeout_seconds = reader.number(
            "call_timeout_seconds", manifest.call_timeout_seconds, above=0, at_most=manifest.call_timeout_seconds
        )
        credentials = Credentials(
            reader.base_url("http://127.0.0.1"), reader.header("account"), reader.header("api_key"), timeout_seconds
        )
        reader.finish()
        return credentials


class MarketChannel(PlainMarketChannel):
    def open(self, credentials: Mapping[str, str], http: HttpClient, clock: Clock) -> MarketSession:
        return MarketSession(self.manifest, self._read(credentials), http)


def market_credentials(market: Market, account: Account, *, api_key: bool = True, **more: object) -> dict[str, str]:
    """A credentials file. Without the API key a session needs tokens."""
    own = {"api_key": account.tokens.api_key} if api_key else {}
    given = {name: str(value) for name, value in more.items()}
    return {"base_url": market.url, "account": account.name, **own, **given}


def tokens_of(pair: Pair, account: str, issued_at: datetime | None = None) -> Tokens:
    """A pair of the market as the engine keeps it; issued now unless said otherwise."""
    issued_at = issued_at or datetime.now(UTC)
    return Tokens(
        access=pair.access,
        refresh=pair.refresh,
        issued_at=issued_at,
        access_expires_at=issued_at + timedelta(seconds=pair.access_seconds),
        refresh_expires_at=issued_at + timedelta(seconds=pair.refresh_seconds),
        more={"shop": account},
    )


def remote_variant(id: str) -> str:
    return json.dumps({"id": id})


def _id(push: Push) -> str:
    return msgspec.json.decode(push.remote_variant, type=_Ids).id


def _item(push: Push) -> dict[str, object]:
    if push.quantity < 0:
        raise ValueError(f"listing {push.listing_id}: quantity {push.quantity} is below 0")
    locations = dict(push.locations)
    return {"id": _id(push), "quantity": push.quantity, "expected": push.expected, "locations": locations}


def _check_size(pushes: Sequence[Push], most: int) -> None:
    if len(pushes) > most:
        raise ValueError(f"{len(pushes)} listings in one call; the market takes {most}")


def _by_id(said: _Rows) -> dict[object, dict[str, object]]:
    return {row.get("id"): row for row in said.rows}


def _seen(by_id: Mapping[object, dict[str, object]], push: Push) -> Seen:
    row = by_id.get(_id(push))
    if row is None:
        return InDoubt("The answer leaves this item out")
    try:
        if row.get("outcome") == "misconfigured":  # msgspec knows no Literal of an enum
            scope = Scope(str(row["scope"]))
            return Misconfigured(str(row["message"]), Scope.STORE if scope is Scope.STORE else Scope.LISTING)
        seen: Seen = msgspec.convert(row, _KINDS[row.get("outcome")])
    except (KeyError, ValueError):
        return InDoubt("The answer for this item cannot be read")
    return seen


def _harmless(outcome: Outcome) -> Outcome:
    """Asking and reading change nothing, so an unclear answer leaves no doubt behind."""
    return Unavailable(outcome.message) if isinstance(outcome, InDoubt) else outcome


def _decoded(body: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeError):
        return None
