"""Bukalapak: one SKU of a product a call, absolute quantity, answered at once.

    PATCH {base_url}/products/{product_id}/skus/{sku_id}     {"stock": 5}
    GET   {base_url}/products/{product_id}
    GET   {base_url}/stores/me/products?limit=1&offset=0

Source: marketplaces.md section 5 [C]. `state` is sent only where a store asks for it (`send_state`), and only above 0:
with every update it would put up again what the merchant has taken down. What a product shows when read is assumed [M].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    Refreshed,
    Rejected,
    Row,
    Scope,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.bukalapak import errors, wire
from lumbung.channels.bukalapak.manifest import ACCOUNTS_URL, BASE_URL, MANIFEST, SCOPE
from lumbung.channels.bukalapak.tokens import authorization_url, code_form, refresh_form, traded
from lumbung.channels.call import Answered, Called, call
from lumbung.channels.credentials import CredentialReader
from lumbung.channels.http import NoAnswer, NotSent, Transport
from lumbung.channels.text import json_text
from lumbung.clock import Clock
from lumbung.errors import BadRequest

_NOT_AUTHORISED = Unauthorized("The store is not authorised yet: run `lumbung store authorize`", refreshable=False)
_UNREADABLE = Rejected("Bukalapak shows no stock of this SKU that can be read")
_NO_ACCESS_TOKEN = Unauthorized("The store has no access token yet", refreshable=True)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A store's and its application's credentials files, checked, with the defaults filled in."""

    client_id: str
    client_secret: str = field(repr=False)
    user_agent: str
    scope: str
    base_url: str
    accounts_url: str
    shop_id: str
    send_state: bool
    call_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class _Call:
    """One exchange and what it means. No `records`: none was made, for want of a token to make it with."""

    outcome: Outcome
    records: tuple[CallRecord, ...] = ()
    envelope: wire.Envelope | None = None
    answer: str = ""


class BukalapakChannel:
    manifest: Manifest = MANIFEST

    def open(self, credentials: Mapping[str, str], http: Transport, clock: Clock) -> BukalapakSession:
        """Bind to a store. Raises ConfigurationError that names every field that cannot be right."""
        return BukalapakSession(read_credentials(credentials), http)

    def account(self, credentials: Mapping[str, str]) -> str:
        return read_credentials(credentials).shop_id

    def remote_variant(self, text: str) -> str:
        """`abc/123` or `{"product_id": "abc", "sku_id": "123"}` -> the latter. Raises BadRequest with what is
        expected."""
        return wire.remote_variant(text).text()

    def batch_key(self, remote_variant: str) -> str:
        """Each listing is a call of its own."""
        return remote_variant

    def read_key(self, remote_variant: str) -> str:
        """A product's answer shows all of its SKUs. What cannot be read goes alone."""
        try:
            return wire.remote_variant(remote_variant).product_id
        except BadRequest:
            return remote_variant


class BukalapakSession:
    """One store's calls. Keeps nothing between them but the token pair that it is given."""

    def __init__(self, credentials: Credentials, http: Transport):
        self._credentials = credentials
        self._http = http
        self._tokens: Tokens | None = None

    # --- Stock ---

    async def push(self, pushes: Sequence[Push]) -> Attempt:
        """Set `stock`. Raises ValueError for more than one listing or a quantity below 0 (caller's bugs)."""
        if len(pushes) > MANIFEST.batch_max:
            raise ValueError(f"{len(pushes)} listings in one call; Bukalapak takes {MANIFEST.batch_max}")
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
            made = await self._set_stock(variant, push.quantity)
            rows.append(Row(push.listing_id, made.outcome, made.answer))
            calls.extend(made.records)
        return Attempt(tuple(rows), tuple(calls))

    async def read(self, pushes: Sequence[Push]) -> Reading:
        """One call for each product; the first answer that concerns the whole store stands for all that follow."""
        seen: dict[int, Observed | Outcome] = {}
        calls: list[CallRecord] = []
        made: _Call | None = None
        for product_id, listings in _by_product(pushes, seen).items():
            if made is None or not _concerns_the_store(made.outcome):
                made = await self._get(f"/products/{product_id}", {})
                calls.extend(made.records)
            seen |= _seen(made, product_id, listings)
        return Reading(tuple(ReadRow(push.listing_id, seen[push.listing_id]) for push in pushes), tuple(calls))

    async def check(self) -> Outcome:
        """Read the store's first product: Accepted when Bukalapak knows us well enough to answer that."""
        made = await self._get("/stores/me/products", {"limit": "1", "offset": "0"})
        match made.outcome:
            case Rejected(message) | Misconfigured(message, scope=Scope.LISTING):
                return Misconfigured(message, Scope.STORE)
            case Deferred():
                return Accepted()
            case outcome:
                return outcome

    # --- Tokens ---

    def use(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def refresh(self, tokens: Tokens) -> Refreshed:
        """Trade the pair for a new one; the old refresh token may be used up by it."""
        return await self._trade(refresh_form(tokens), tokens)

    def authorization_url(self, redirect: str) -> str:
        own = self._credentials
        return authorization_url(
            own.accounts_url, client_id=own.client_id, redirect=redirect, scope=own.scope, shop_id=own.shop_id
        )

    async def authorize(self, redirected: str) -> Refreshed:
        """Trade the code for the first pair. Raises BadRequest when there is none, or it is another store's."""
        return await self._trade(code_form(redirected, self._credentials.shop_id), None)

    async def _trade(self, form: Mapping[str, str], old: Tokens | None) -> Refreshed:
        own = self._credentials
        fields = {**form, "client_id": own.client_id, "client_secret": own.client_secret}
        called = await call(
            self._http,
            "POST",
            f"{own.accounts_url}/oauth/token",
            headers={
                "User-Agent": own.user_agent,
                "Accept": "application/json",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            body=urlencode(fields, quote_via=quote, safe="").encode(),
            timeout_seconds=own.call_timeout_seconds,
            secrets=self._secrets(form.get("code", ""), *(() if old is None else (old.access, old.refresh))),
        )
        return traded(called, old)

    # --- Calls ---

    async def _set_stock(self, variant: wire.RemoteVariant, quantity: int) -> _Call:
        state = "active" if self._credentials.send_state and quantity > 0 else None
        body = msgspec.json.encode(wire.SetStock(quantity, state))
        made = await self._call("PATCH", f"/products/{variant.product_id}/skus/{variant.sku_id}", body)
        return _contradicted(made, variant, quantity)

    async def _get(self, path: str, query: Mapping[str, str]) -> _Call:
        return await self._call("GET", f"{path}?{urlencode(query)}" if query else path, None)

    async def _call(self, method: str, path: str, body: bytes | None) -> _Call:
        if self._tokens is None:
            return _Call(_NOT_AUTHORISED)
        if not self._tokens.access:
            return _Call(_NO_ACCESS_TOKEN)
        called = await call(
            self._http,
            method,
            f"{self._credentials.base_url}{path}",
            headers=self._headers(self._tokens.access, body),
            body=body,
            timeout_seconds=self._credentials.call_timeout_seconds,
            secrets=self._secrets(self._tokens.access, self._tokens.refresh),
        )
        return _understood(called)

    def _headers(self, access: str, body: bytes | None) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {access}",
            "User-Agent": self._credentials.user_agent,
            "Accept": "application/json",
        }
        return headers if body is None else {**headers, "Content-Type": "application/json"}

    def _secrets(self, *more: str) -> tuple[str, ...]:
        return tuple(filter(None, (self._credentials.client_secret, *more)))


def _understood(called: Called) -> _Call:
    match called.came:
        case NotSent(message):
            return _Call(Unavailable(message), (called.record,))
        case NoAnswer(message):
            return _Call(InDoubt(message), (called.record,))
        case Answered(status, text, retry_after_seconds):
            envelope = wire.envelope(text.encode())
            outcome = errors.classify(status, envelope, retry_after_seconds)
            return _Call(outcome, (called.record,), envelope, json_text(text))
        case _:
            assert_never(called.came)


def _contradicted(made: _Call, variant: wire.RemoteVariant, quantity: int) -> _Call:
    """A success that shows another quantity than was sent is none."""
    if not isinstance(made.outcome, Accepted) or made.envelope is None:
        return made
    units = wire.stock_echoed(made.envelope, variant)
    if units is None or units == quantity:
        return made
    message = f"Bukalapak's answer contradicts what was sent: {units} instead of {quantity}"
    return replace(made, outcome=InDoubt(message))


def _by_product(
    pushes: Sequence[Push], seen: dict[int, Observed | Outcome]
) -> dict[str, list[tuple[int, wire.RemoteVariant]]]:
    """The listings of each product; ids that cannot be are told in `seen`."""
    products: dict[str, list[tuple[int, wire.RemoteVariant]]] = {}
    for push in pushes:
        try:
            variant = wire.remote_variant(push.remote_variant)
        except BadRequest as error:
            seen[push.listing_id] = Rejected(str(error))
            continue
        products.setdefault(variant.product_id, []).append((push.listing_id, variant))
    return products


def _seen(
    made: _Call, product_id: str, listings: Sequence[tuple[int, wire.RemoteVariant]]
) -> dict[int, Observed | Outcome]:
    """What a product's answer shows for each listing of the product."""
    match made.outcome:
        case InDoubt(message):  # reading changes nothing, so an unclear answer leaves no doubt behind
            return dict.fromkeys((listing_id for listing_id, _ in listings), Unavailable(message))
        case Accepted():
            return _shown(made.envelope, product_id, listings)
        case outcome:
            return dict.fromkeys((listing_id for listing_id, _ in listings), outcome)


def _shown(
    envelope: wire.Envelope | None, product_id: str, listings: Sequence[tuple[int, wire.RemoteVariant]]
) -> dict[int, Observed | Outcome]:
    product = None if envelope is None else wire.product_read(envelope, product_id)
    units = {} if product is None else wire.stocks_of(product, [variant.sku_id for _, variant in listings])
    return {
        listing_id: Observed(units[variant.sku_id]) if variant.sku_id in units else _UNREADABLE
        for listing_id, variant in listings
    }


def _concerns_the_store(outcome: Outcome) -> bool:
    match outcome:
        case Throttled() | Unavailable() | InDoubt() | Unauthorized() | Misconfigured(scope=Scope.STORE):
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
        client_id=reader.text("client_id"),
        client_secret=reader.text("client_secret"),
        user_agent=reader.header("user_agent", spaces=True),
        scope=reader.text("scope", SCOPE),
        base_url=reader.base_url(BASE_URL),
        accounts_url=reader.base_url(ACCOUNTS_URL, "accounts_url"),
        shop_id=reader.text("shop_id"),
        send_state=reader.yes("send_state"),
        # Not above the manifest's: the worker's lease is measured by that.
        call_timeout_seconds=reader.number(
            "call_timeout_seconds", MANIFEST.call_timeout_seconds, above=0, at_most=MANIFEST.call_timeout_seconds
        ),
    )
    reader.finish()
    return credentials
