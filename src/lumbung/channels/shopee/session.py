"""One store's calls. Keeps nothing between them but the pair of tokens in use.

    POST {base_url}/api/v2/product/update_stock?...    {"item_id":1,"stock_list":[{"model_id":0,"seller_stock":[...]}]}
    GET  {base_url}/api/v2/product/get_item_base_info?...&item_id_list=1,2
    GET  {base_url}/api/v2/product/get_model_list?...&item_id=1
    GET  {base_url}/api/v2/shop/get_shop_info?...
    POST {base_url}/api/v2/auth/token/get?...          {"code":...,"partner_id":...,"shop_id":...}
    POST {base_url}/api/v2/auth/access_token/get?...   {"refresh_token":...,"partner_id":...,"shop_id":...}

`...` is partner_id, timestamp, sign and, but for the last two, access_token and shop_id. Source: marketplaces.md
section 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from lumbung.channels.base import (
    Attempt,
    Deferred,
    Floor,
    Misconfigured,
    Outcome,
    Push,
    Reading,
    ReadRow,
    Refreshed,
    Rejected,
    Row,
    Scope,
    Tokens,
    Unauthorized,
)
from lumbung.channels.call import Called, call
from lumbung.channels.http import Transport
from lumbung.channels.locations import UNPLACED, is_unplaced
from lumbung.channels.shopee import errors, shelf, signing, stock, wire
from lumbung.channels.shopee.authorization import code_of
from lumbung.channels.shopee.manifest import MANIFEST
from lumbung.channels.shopee.tokens import traded
from lumbung.clock import Clock
from lumbung.errors import BadRequest

_UPDATE_STOCK = "/api/v2/product/update_stock"
_ITEMS = "/api/v2/product/get_item_base_info"
_MODELS = "/api/v2/product/get_model_list"
_SHOP = "/api/v2/shop/get_shop_info"
_AUTHORIZE = "/api/v2/shop/auth_partner"
_FIRST_TOKENS = "/api/v2/auth/token/get"
_NEXT_TOKENS = "/api/v2/auth/access_token/get"

_NOT_AUTHORISED = Unauthorized("The store is not authorised yet: run `lumbung store authorize`", refreshable=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A store's credentials with its application's, checked, with the defaults filled in."""

    partner_id: int
    partner_key: str = field(repr=False)
    base_url: str
    shop_id: int
    call_timeout_seconds: float


class ShopeeSession:
    """A store of Shopee; it has to be given tokens before it calls anyone for it."""

    def __init__(self, credentials: Credentials, http: Transport, clock: Clock):
        self._credentials = credentials
        self._http = http
        self._clock = clock
        self._tokens: Tokens | None = None

    def use(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def push(self, pushes: Sequence[Push]) -> Attempt:
        """Set the stock of one item's variations, in one call. Raises ValueError for more than a batch, several items,
        a variation twice, or a quantity below 0 (caller's bugs)."""
        _check_count(len(pushes), MANIFEST.batch_max)
        placed = [push for push in pushes if not is_unplaced(push)]
        readable, unreadable = _variants(placed)
        item_id = _only_item(readable)
        lines = [stock.Line.of(push, variant.variation_id) for push, variant in readable]
        refused = (
            *(Row(listing_id, rejected) for listing_id, rejected in unreadable),
            *(Row(push.listing_id, UNPLACED) for push in pushes if is_unplaced(push)),
        )
        if not lines:
            return Attempt(refused, ())
        tokens = self._tokens
        if tokens is None:
            return Attempt(_in_order(pushes, *(Row(line.listing_id, _NOT_AUTHORISED) for line in lines), *refused), ())
        called = await self._call_for_shop("POST", _UPDATE_STOCK, tokens, body=stock.body(item_id, lines))
        said = stock.said(called.came, lines)
        return Attempt(_in_order(pushes, *said.rows, *refused), (called.record,), said.as_a_whole)

    async def read(self, pushes: Sequence[Push]) -> Reading:
        """One call for items without variations, or for the variations of one item. Raises ValueError for more than a
        call can read (a caller's bug)."""
        _check_count(len(pushes), MANIFEST.read_max)
        readable, unreadable = _variants(pushes)
        if len({variant.read_key for _, variant in readable}) > 1:
            raise ValueError("listings that one call cannot read")
        refused = tuple(ReadRow(listing_id, rejected) for listing_id, rejected in unreadable)
        if not readable:
            return Reading(refused, ())
        tokens = self._tokens
        if tokens is None:
            return Reading(
                _in_order(pushes, *(ReadRow(push.listing_id, _NOT_AUTHORISED) for push, _ in readable), *refused), ()
            )
        called = await self._read_call(tokens, [variant for _, variant in readable])
        rows = shelf.seen(called.came, readable)
        return Reading(_in_order(pushes, *rows, *refused), (called.record,))

    async def check(self) -> Outcome:
        """Ask for the shop's own profile: Accepted when Shopee knows us well enough to tell."""
        tokens = self._tokens
        if tokens is None:
            return _NOT_AUTHORISED
        called = await self._call_for_shop("GET", _SHOP, tokens)
        match errors.outcome(called.came):
            case Rejected(message) | Floor(message=message) | Deferred(message=message):
                return Misconfigured(message, Scope.STORE)
            case Misconfigured(message):
                return Misconfigured(message, Scope.STORE)
            case outcome:
                return outcome

    async def refresh(self, tokens: Tokens) -> Refreshed:
        own = self._credentials
        body = msgspec.json.encode(wire.RefreshToken(tokens.refresh, own.partner_id, own.shop_id))
        called = await self._call_in_public(_NEXT_TOKENS, body, (tokens.access, tokens.refresh))
        return traded(called, own.shop_id)

    def authorization_url(self, redirect: str) -> str:
        """Good for five minutes: it is signed."""
        return self._url(_AUTHORIZE, self._public_query(_AUTHORIZE) | {"redirect": redirect})

    async def authorize(self, redirected: str) -> Refreshed:
        own = self._credentials
        code = code_of(redirected, own.shop_id)
        body = msgspec.json.encode(wire.GetToken(code, own.partner_id, own.shop_id))
        called = await self._call_in_public(_FIRST_TOKENS, body, (code,))
        return traded(called, own.shop_id)

    async def _read_call(self, tokens: Tokens, variants: Sequence[wire.RemoteVariant]) -> Called:
        items = sorted({variant.item_id for variant in variants})
        if variants[0].variation_id:
            return await self._call_for_shop("GET", _MODELS, tokens, more={"item_id": str(items[0])})
        return await self._call_for_shop("GET", _ITEMS, tokens, more={"item_id_list": ",".join(map(str, items))})

    async def _call_for_shop(
        self,
        method: str,
        path: str,
        tokens: Tokens,
        *,
        more: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Called:
        own = self._credentials
        timestamp = self._timestamp()
        sign = signing.sign_shop(
            own.partner_key,
            partner_id=own.partner_id,
            path=path,
            timestamp=timestamp,
            access_token=tokens.access,
            shop_id=own.shop_id,
        )
        query = {
            "partner_id": str(own.partner_id),
            "timestamp": str(timestamp),
            "access_token": tokens.access,
            "shop_id": str(own.shop_id),
            "sign": sign,
        }
        url = self._url(path, query | dict(more or {}))
        return await self._send(method, url, body, (sign, tokens.access, tokens.refresh))

    async def _call_in_public(self, path: str, body: bytes, secrets: tuple[str, ...]) -> Called:
        query = self._public_query(path)
        return await self._send("POST", self._url(path, query), body, (query["sign"], *secrets))

    def _public_query(self, path: str) -> dict[str, str]:
        own = self._credentials
        timestamp = self._timestamp()
        sign = signing.sign_public(own.partner_key, partner_id=own.partner_id, path=path, timestamp=timestamp)
        return {"partner_id": str(own.partner_id), "timestamp": str(timestamp), "sign": sign}

    async def _send(self, method: str, url: str, body: bytes | None, secrets: tuple[str, ...]) -> Called:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await call(
            self._http,
            method,
            url,
            headers=headers,
            body=body,
            timeout_seconds=self._credentials.call_timeout_seconds,
            secrets=(self._credentials.partner_key, *secrets),
        )

    def _url(self, path: str, query: Mapping[str, str]) -> str:
        return f"{self._credentials.base_url}{path}?{urlencode(query, quote_via=quote, safe='')}"

    def _timestamp(self) -> int:
        return int(self._clock.now().timestamp())


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise ValueError(f"{count} listings in one call; Shopee takes {most}")


def _variants(
    pushes: Sequence[Push],
) -> tuple[list[tuple[Push, wire.RemoteVariant]], list[tuple[int, Rejected]]]:
    """The pushes whose ids can be read, and what to say of the others, by listing."""
    readable: list[tuple[Push, wire.RemoteVariant]] = []
    unreadable: list[tuple[int, Rejected]] = []
    for push in pushes:
        if push.quantity < 0:
            raise ValueError(f"listing {push.listing_id}: quantity {push.quantity} is below 0")
        try:
            readable.append((push, wire.remote_variant(push.remote_variant)))
        except BadRequest as error:
            unreadable.append((push.listing_id, Rejected(str(error))))
    return readable, unreadable


def _only_item(readable: Sequence[tuple[Push, wire.RemoteVariant]]) -> int:
    """0 when there is none."""
    items = {variant.item_id for _, variant in readable}
    if len(items) > 1:
        raise ValueError(f"{len(items)} items in one call; Shopee takes 1")
    if len({variant.variation_id for _, variant in readable}) < len(readable):
        raise ValueError("a variation twice in one call")
    return items.pop() if items else 0


R = TypeVar("R", Row, ReadRow)


def _in_order(pushes: Sequence[Push], *rows: R) -> tuple[R, ...]:
    by_listing = {row.listing_id: row for row in rows}
    return tuple(by_listing[push.listing_id] for push in pushes)
