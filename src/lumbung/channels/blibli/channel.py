"""Blibli: one SKU a call, absolute quantity, answered at once.

    PUT {base_url}/proxy/seller/v1/products/{blibli-sku}/stock?...   {"availableStock":5}
    GET {base_url}/proxy/seller/v1/products/{blibli-sku}?...

Source: marketplaces.md section 4 [C]. Assumptions, all of them [M]:
- a pickup point is named by the query parameter `pickup_point_parameter`, sent only for listings that have one;
- what a product shows when read is the whole product's stock, so listings with a pickup point are not read back.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never
from urllib.parse import quote, urlencode

import msgspec

from lumbung.channels.base import (
    Accepted,
    Attempt,
    CallRecord,
    Deferred,
    InDoubt,
    Manifest,
    Misconfigured,
    Observed,
    Outcome,
    Push,
    Reading,
    ReadRow,
    Rejected,
    Row,
    Scope,
    Session,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.blibli import errors, signing, wire
from lumbung.channels.blibli.manifest import BASE_URL, BLIBLI_STORE_ID, CHANNEL_ID, MANIFEST, PICKUP_POINT_PARAMETER
from lumbung.channels.call import Answered, call
from lumbung.channels.credentials import CredentialReader
from lumbung.channels.http import NoAnswer, NotSent, Transport
from lumbung.channels.text import json_text
from lumbung.clock import Clock
from lumbung.errors import BadRequest

# A SKU that no seller has: Blibli's own begin with the seller's code.
_NO_SUCH_SKU = "LUMBUNG-00000-00000-00000"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A store's credentials file, checked, with the defaults filled in."""

    api_client_id: str
    api_client_key: str = field(repr=False)
    api_seller_key: str = field(repr=False)
    signature_key: str = field(repr=False)
    username: str
    store_code: str
    channel_id: str
    blibli_store_id: str
    base_url: str
    signature_path_prefix: str
    pickup_point_parameter: str
    call_timeout_seconds: float

    @property
    def basic(self) -> str:
        return base64.b64encode(f"{self.api_client_id}:{self.api_client_key}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, ...]:
        every = (self.basic, self.api_client_key, self.api_seller_key, self.signature_key)
        return tuple(sorted(filter(None, every), key=len, reverse=True))  # one may be a part of another


@dataclass(frozen=True, slots=True)
class _Call:
    """One exchange and what it means."""

    outcome: Outcome
    envelope: wire.Envelope | None
    answer: str
    record: CallRecord


class BlibliChannel:
    manifest: Manifest = MANIFEST

    def open(self, credentials: Mapping[str, str], http: Transport, clock: Clock) -> Session:
        """Bind to a store. Raises ConfigurationError that names every field that cannot be right."""
        return BlibliSession(read_credentials(credentials), http, clock)

    def account(self, credentials: Mapping[str, str]) -> str:
        return read_credentials(credentials).store_code

    def remote_variant(self, text: str) -> str:
        """`TOQ-1-1-1` or `{"blibli_sku": "TOQ-1-1-1"}` -> the latter. Raises BadRequest with what is expected."""
        return wire.remote_variant(text).text()

    def batch_key(self, remote_variant: str) -> str:
        """Each listing is a call of its own."""
        return remote_variant

    def read_key(self, remote_variant: str) -> str:
        return remote_variant


class BlibliSession:
    """One store's calls. Keeps nothing between them."""

    def __init__(self, credentials: Credentials, http: Transport, clock: Clock):
        self._credentials = credentials
        self._http = http
        self._clock = clock
        fields = {
            "channelId": credentials.channel_id,
            "storeId": credentials.blibli_store_id,
            "username": credentials.username,
            "storeCode": credentials.store_code,
        }
        self._own_query = urlencode(fields, quote_via=quote, safe="")

    async def push(self, pushes: Sequence[Push]) -> Attempt:
        """Set `availableStock`. Raises ValueError for more than one listing or a quantity below 0 (caller's bugs)."""
        if len(pushes) > MANIFEST.batch_max:
            raise ValueError(f"{len(pushes)} listings in one call; Blibli takes {MANIFEST.batch_max}")
        rows: list[Row] = []
        calls: list[CallRecord] = []
        for push in pushes:
            if push.quantity < 0:
                raise ValueError(f"listing {push.listing_id}: quantity {push.quantity} is below 0")
            try:
                variant = wire.remote_variant(push.remote_variant)
            except BadRequest as error:
                rows.append(Row(push.listing_id, Rejected(str(error))))
                continue
            call = await self._set_stock(variant, push.quantity)
            rows.append(Row(push.listing_id, call.outcome, call.answer))
            calls.append(call.record)
        return Attempt(tuple(rows), tuple(calls))

    async def read(self, pushes: Sequence[Push]) -> Reading:
        """One call for each, in order; the first answer that concerns the whole store stands for all that follow."""
        rows: list[ReadRow] = []
        calls: list[CallRecord] = []
        for number, push in enumerate(pushes):
            sku = _readable_sku(push)
            if isinstance(sku, Rejected):
                rows.append(ReadRow(push.listing_id, sku))
                continue
            call = await self._get_product(sku)
            calls.append(call.record)
            seen = _seen(call, sku)
            if _concerns_the_store(seen):
                rows.extend(ReadRow(rest.listing_id, seen) for rest in pushes[number:])
                break
            rows.append(ReadRow(push.listing_id, seen))
        return Reading(tuple(rows), tuple(calls))

    async def check(self) -> Outcome:
        """Read a product that does not exist: Accepted when Blibli knows us well enough to say so."""
        call = await self._get_product(_NO_SUCH_SKU)
        match call.outcome:
            case Rejected(message) if call.envelope is None:
                return Misconfigured(message, Scope.STORE)
            case Rejected() | Deferred() | Misconfigured(scope=Scope.LISTING):
                return Accepted()
            case outcome:
                return outcome

    async def _set_stock(self, variant: wire.RemoteVariant, quantity: int) -> _Call:
        body = msgspec.json.encode(wire.SetStock(available_stock=quantity))
        more = {"blibli-sku": variant.blibli_sku}
        if variant.pickup_point_code is not None:
            more[self._credentials.pickup_point_parameter] = variant.pickup_point_code
        return await self._call("PUT", f"/proxy/seller/v1/products/{variant.blibli_sku}/stock", more, body)

    async def _get_product(self, blibli_sku: str) -> _Call:
        return await self._call("GET", f"/proxy/seller/v1/products/{blibli_sku}", {}, None)

    async def _call(self, method: str, path: str, more: Mapping[str, str], body: bytes | None) -> _Call:
        request_id = uuid.uuid4().hex
        url = f"{self._credentials.base_url}{path}?{self._query(request_id, more)}"
        called = await call(
            self._http,
            method,
            url,
            headers=self._headers(method, path, body, request_id),
            body=body,
            timeout_seconds=self._credentials.call_timeout_seconds,
            secrets=self._credentials.secrets,
        )
        match called.came:
            case NotSent(message):
                return _Call(Unavailable(message), None, "", called.record)
            case NoAnswer(message):
                return _Call(InDoubt(message), None, "", called.record)
            case Answered(status, text, retry_after_seconds):
                envelope = wire.envelope(text.encode())
                outcome = errors.classify(status, envelope, retry_after_seconds)
                return _Call(outcome, envelope, json_text(text), called.record)
            case _:
                assert_never(called.came)

    def _query(self, request_id: str, more: Mapping[str, str]) -> str:
        query = f"requestId={request_id}&{self._own_query}"
        return f"{query}&{urlencode(more, quote_via=quote, safe='')}" if more else query

    def _headers(self, method: str, path: str, body: bytes | None, request_id: str) -> dict[str, str]:
        own = self._credentials
        headers = {
            "Authorization": f"Basic {own.basic}",
            "Api-Seller-Key": own.api_seller_key,
            "Accept": "application/json",
            "requestId": request_id,  # Blibli's own client sends both of these [C]
            "sessionId": request_id,
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        if own.signature_key:
            headers |= signing.signature_headers(
                own.signature_key,
                method=method,
                path=path,
                body=body,
                now=self._clock.now(),
                path_prefix=own.signature_path_prefix,
            )
        return headers


def _readable_sku(push: Push) -> str | Rejected:
    try:
        variant = wire.remote_variant(push.remote_variant)
    except BadRequest as error:
        return Rejected(str(error))
    if variant.pickup_point_code is not None:
        return Rejected("Blibli does not tell the stock of one pickup point")
    return variant.blibli_sku


def _seen(call: _Call, blibli_sku: str) -> Observed | Outcome:
    """What a product's answer shows. Reading changes nothing, so an unclear answer leaves no doubt behind."""
    match call.outcome:
        case InDoubt(message):
            return Unavailable(message)
        case Accepted():
            quantity = None if call.envelope is None else wire.stock_read(call.envelope, blibli_sku)
            return Rejected("Blibli shows no stock that can be read") if quantity is None else Observed(quantity)
        case outcome:
            return outcome


def _concerns_the_store(seen: Observed | Outcome) -> bool:
    match seen:
        case Throttled() | Unavailable() | Unauthorized() | Misconfigured(scope=Scope.STORE):
            return True
        case _:
            return False


def read_credentials(values: Mapping[str, str]) -> Credentials:
    """Raises ConfigurationError that names every field that cannot be right."""
    reader = CredentialReader(MANIFEST, values)
    # These two are the worker's to use; here they are only checked.
    reader.number("quiesce_seconds", MANIFEST.quiesce_seconds, above=0, at_most=3600)
    reader.number("calls_per_second", MANIFEST.pacing.calls_per_second, above=0, at_most=1000)
    credentials = Credentials(
        api_client_id=reader.text("api_client_id"),
        api_client_key=reader.text("api_client_key"),
        api_seller_key=reader.header("api_seller_key"),
        signature_key=reader.text("signature_key"),
        username=reader.text("username"),
        store_code=reader.text("store_code"),
        channel_id=reader.text("channel_id", CHANNEL_ID),
        blibli_store_id=reader.text("blibli_store_id", BLIBLI_STORE_ID),
        base_url=reader.base_url(BASE_URL),
        signature_path_prefix=reader.text("signature_path_prefix"),
        pickup_point_parameter=reader.header("pickup_point_parameter") or PICKUP_POINT_PARAMETER,
        # Not above the manifest's: the worker's lease is measured by that.
        call_timeout_seconds=reader.number(
            "call_timeout_seconds", MANIFEST.call_timeout_seconds, above=0, at_most=MANIFEST.call_timeout_seconds
        ),
    )
    reader.finish()
    return credentials
