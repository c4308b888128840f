"""The control API: sets the sandbox up, makes it misbehave, and tells what happened. JSON in, JSON out.

    GET    /_control/status                            counts and maxima
    GET    /_control/listings?channel=&store=          what each shows, with its stock by location
    GET    /_control/writes?after=N&limit=&wait_ms=    the writes that took effect, as entries.Write
    GET    /_control/calls?after=N&limit=&wait_ms=     the calls that ended, as entries.CallEntry
    GET    /_control/sales?after=N&limit=&wait_ms=     what customers bought, as entries.Sale
    POST   /_control/sales                             {channel, store, remote_variant, quantity}: a customer buys
    PUT    /_control/stores/{channel}/{store}          credentials and listings, as the channel's marketplace wants them
    POST   /_control/stores/{channel}/{store}/listings {"listings": [{remote_variant, sku, quantity}]}
    PUT    /_control/stores/{channel}/{store}/holiday  {"holiday": true}: the seller is away
    PUT    /_control/stores/{channel}/{store}/limit    {"calls_per_s": 40, "burst": 40}: a limit of the store's own
    PUT    /_control/applications/{channel}/{name}/limit  the same for all stores of an application (app key) together
    POST   /_control/stores/{channel}/{store}/revoke   the seller withdraws the authorisation: its tokens are dead
    POST   /_control/stores/{channel}/{store}/agree    the seller agrees again: its first tokens work anew
    PUT    /_control/listings                          {channel, store, remote_variant} and any of {reserved_by_orders,
                                                       reserved_by_promotions, condition}: unknown, banned, locked,
                                                       failing or ""
    GET    /_control/clock                             {"ahead_seconds": ...} of the real time
    PUT    /_control/clock                             moves it: tokens expire, signatures grow old, quotas begin anew
    GET    /_control/faults                            {channel: fault set}, where one is armed
    PUT    /_control/faults/{channel}                  replaces the channel's fault set; the keys are in faults.py
    DELETE /_control/faults                            every channel behaves again
    POST   /_control/reset?keep=stores                 forgets everything; with keep=stores all but stores and listings

These limits hold whatever fault set is armed, and are no part of one: a call over one is throttled in the marketplace's
own shape, with `fault: "store_limit"` or `"application_limit"` and the armed set's Retry-After, if any. `burst` is a
second's worth when left out, and at least 1; `calls_per_s` 0 takes the limit away. A call is the store's or the
application's that says so, let in or not. A PUT of the store leaves its limit alone, a reset forgets all of them. The
status counts by channel what was over one, in `over_store_limit` and `over_application_limit`.

Errors are `{"message": ...}` with 400 or 404. Unknown keys and parameters are refused. `after` is the last n that the
caller has seen; `limit` is 1,000 when left out, 10,000 at most; with `wait_ms` (60,000 at most) the answer waits until
there is something after N, and is [] when nothing came in time. Keep-alive is fine; there is no authentication, so
the sandbox listens where only tests can reach it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from aiohttp import web

from lumbung.sandbox.entries import CallEntry
from lumbung.sandbox.errors import RefusedError, SandboxError, UnknownError
from lumbung.sandbox.faults import Faults
from lumbung.sandbox.front import Front
from lumbung.sandbox.ledger import LISTINGS_MAX, Condition, Ledger, Listing, Name, NewListing, Quantity, Store
from lumbung.sandbox.limits import Limit, Limits
from lumbung.sandbox.log import Entry, Log
from lumbung.sandbox.marketplace import Marketplace
from lumbung.sandbox.shape import read_object, read_shape
from lumbung.sandbox.traffic import Traffic

LIMIT = 1_000
LIMIT_MAX = 10_000
WAIT_MS_MAX = 60_000
NUMBER_MAX = 2**63 - 1
BODY_BYTES_MAX = 256 * 1024 * 1024

Action = Callable[[web.Request], Awaitable[object]]


class Holiday(msgspec.Struct, frozen=True):
    holiday: bool


class ClockShape(msgspec.Struct, frozen=True):
    """Up to a century either way."""

    ahead_seconds: Annotated[float, msgspec.Meta(ge=-3_155_760_000, le=3_155_760_000)]


class ListingState(msgspec.Struct, frozen=True):
    """What is left out stays as it is."""

    channel: Name
    store: Name
    remote_variant: Name
    reserved_by_orders: Quantity | None = None
    reserved_by_promotions: Quantity | None = None
    condition: Condition | None = None


class NewSale(msgspec.Struct, frozen=True):
    channel: Name
    store: Name
    remote_variant: Name
    quantity: Annotated[int, msgspec.Meta(ge=1)]


class NewListings(msgspec.Struct, frozen=True):
    listings: Annotated[tuple[NewListing, ...], msgspec.Meta(min_length=1, max_length=LISTINGS_MAX)]


class Control:
    def __init__(
        self,
        ledger: Ledger,
        faults: Faults,
        limits: Limits,
        traffic: Traffic,
        front: Front,
        marketplaces: dict[str, Marketplace],
    ):
        self._ledger = ledger
        self._faults = faults
        self._limits = limits
        self._traffic = traffic
        self._front = front
        self._marketplaces = marketplaces

    def routes(self) -> list[web.RouteDef]:
        actions: tuple[tuple[str, str, Action], ...] = (
            ("GET", "/status", self._status),
            ("GET", "/listings", self._listings),
            ("GET", "/writes", self._writes),
            ("GET", "/calls", self._calls),
            ("GET", "/sales", self._sales),
            ("POST", "/sales", self._sell),
            ("PUT", "/stores/{channel}/{store}", self._put_store),
            ("POST", "/stores/{channel}/{store}/listings", self._add_listings),
            ("PUT", "/stores/{channel}/{store}/holiday", self._put_holiday),
            ("PUT", "/stores/{channel}/{store}/limit", self._put_limit),
            ("PUT", "/applications/{channel}/{application}/limit", self._put_application_limit),
            ("POST", "/stores/{channel}/{store}/revoke", self._revoke),
            ("POST", "/stores/{channel}/{store}/agree", self._agree),
            ("PUT", "/listings", self._put_listing),
            ("GET", "/clock", self._clock),
            ("PUT", "/clock", self._put_clock),
            ("GET", "/faults", self._armed_faults),
            ("PUT", "/faults/{channel}", self._put_faults),
            ("DELETE", "/faults", self._clear_faults),
            ("POST", "/reset", self._reset),
        )
        mounted = [web.route(method, f"/_control{path}", _answering(action)) for method, path, action in actions]
        return [*mounted, web.route("*", "/{rest:.*}", _answering(self._nothing_here))]

    async def reset(self, *, keep_stores: bool = False) -> None:
        """As at the start: what is under way is dropped, numbers start at 1 again, every channel behaves."""
        self._front.drop_pending()
        self._faults.clear()
        self._limits.clear()
        self._traffic.reset()
        self._ledger.clock.ahead_seconds = 0.0
        self._ledger.reset(keep_stores=keep_stores)

    async def _status(self, request: web.Request) -> object:
        _parameters(request)
        ledger = self._ledger
        return {
            "channels": sorted(self._marketplaces),
            "stores": sum(1 for _ in ledger.stores()),
            "listings": sum(len(store.listings) for store in ledger.stores()),
            "calls": ledger.calls.last,
            "calls_oldest_kept": ledger.calls.oldest_kept,
            "writes": ledger.writes.last,
            "writes_oldest_kept": ledger.writes.oldest_kept,
            "sales": ledger.sales.last,
            "in_flight": self._traffic.in_flight,
            "max_in_flight_per_listing": self._traffic.max_in_flight_per_listing,
            "late_writes_pending": self._front.late_pending,
            "over_store_limit": self._limits.stores.over,
            "over_application_limit": self._limits.applications.over,
        }

    async def _listings(self, request: web.Request) -> object:
        wanted = _parameters(request, "channel", "store")
        return [
            _shown(store, listing)
            for store in self._ledger.stores(wanted.get("channel"))
            if wanted.get("store", store.name) == store.name
            for listing in store.listings.values()
        ]

    async def _writes(self, request: web.Request) -> object:
        return await _page(request, self._ledger.writes)

    async def _calls(self, request: web.Request) -> object:
        calls: list[CallEntry] = await _page(request, self._ledger.calls)
        return [call.shown() for call in calls]

    async def _sales(self, request: web.Request) -> object:
        return await _page(request, self._ledger.sales)

    async def _sell(self, request: web.Request) -> object:
        sale = read_shape(await _body(request), NewSale)
        return self._ledger.sell(sale.channel, sale.store, sale.remote_variant, sale.quantity)

    async def _put_store(self, request: web.Request) -> object:
        channel, name = request.match_info["channel"], request.match_info["store"]
        store = self._marketplace(channel).store(name, await _body(request))
        self._ledger.put_store(store)
        return {"channel": channel, "store": name, "listings": len(store.listings)}

    async def _add_listings(self, request: web.Request) -> object:
        channel, name = request.match_info["channel"], request.match_info["store"]
        new = read_shape(await _body(request), NewListings)
        return {"channel": channel, "store": name, "listings": self._ledger.add_listings(channel, name, new.listings)}

    async def _put_holiday(self, request: web.Request) -> object:
        store = self._ledger.store(request.match_info["channel"], request.match_info["store"])
        store.holiday = read_shape(await _body(request), Holiday).holiday
        return {"channel": store.channel, "store": store.name, "holiday": store.holiday}

    async def _put_limit(self, request: web.Request) -> object:
        store = self._ledger.store(request.match_info["channel"], request.match_info["store"])
        limit = read_shape(await _body(request), Limit)
        self._limits.stores.set(store.channel, store.name, limit, time.monotonic())
        return {"channel": store.channel, "store": store.name, "calls_per_s": limit.calls_per_s, "burst": limit.size}

    async def _put_application_limit(self, request: web.Request) -> object:
        """Before its first store is put, too: whose an application is only its stores say."""
        channel, application = request.match_info["channel"], request.match_info["application"]
        self._marketplace(channel)
        limit = read_shape(await _body(request), Limit)
        self._limits.applications.set(channel, application, limit, time.monotonic())
        return {"channel": channel, "application": application, "calls_per_s": limit.calls_per_s, "burst": limit.size}

    def _marketplace(self, channel: str) -> Marketplace:
        marketplace = self._marketplaces.get(channel)
        if marketplace is None:
            raise UnknownError(f"there is no channel {channel!r}; channels are {', '.join(sorted(self._marketplaces))}")
        return marketplace

    async def _revoke(self, request: web.Request) -> object:
        _parameters(request)
        store = self._ledger.store(request.match_info["channel"], request.match_info["store"])
        self._marketplaces[store.channel].revoke(store)
        return {"channel": store.channel, "store": store.name}

    async def _agree(self, request: web.Request) -> object:
        _parameters(request)
        store = self._ledger.store(request.match_info["channel"], request.match_info["store"])
        if store.start_again is None:
            raise RefusedError(f"{store.channel} has no tokens to agree to")
        store.start_again()
        return {"channel": store.channel, "store": store.name}

    async def _put_listing(self, request: web.Request) -> object:
        state = read_shape(await _body(request), ListingState)
        listing = self._ledger.listing(state.channel, state.store, state.remote_variant)
        for name in ("reserved_by_orders", "reserved_by_promotions", "condition"):
            if (value := getattr(state, name)) is not None:
                setattr(listing, name, value)
        return _shown(self._ledger.store(state.channel, state.store), listing)

    async def _clock(self, request: web.Request) -> object:
        _parameters(request)
        return {"ahead_seconds": self._ledger.clock.ahead_seconds}

    async def _put_clock(self, request: web.Request) -> object:
        self._ledger.clock.ahead_seconds = read_shape(await _body(request), ClockShape).ahead_seconds
        return {"ahead_seconds": self._ledger.clock.ahead_seconds}

    async def _armed_faults(self, request: web.Request) -> object:
        _parameters(request)
        return self._faults.sets()

    async def _put_faults(self, request: web.Request) -> object:
        return self._faults.set(request.match_info["channel"], **await _body(request))

    async def _clear_faults(self, request: web.Request) -> object:
        _parameters(request)
        self._faults.clear()
        return {}

    async def _reset(self, request: web.Request) -> object:
        keep = _parameters(request, "keep").get("keep")
        if keep not in (None, "stores"):
            raise RefusedError(f"keep is {keep!r}; it can only be 'stores'")
        await self.reset(keep_stores=keep == "stores")
        return {}

    async def _nothing_here(self, request: web.Request) -> object:
        mounts = ", ".join(f"/{channel}/" for channel in sorted(self._marketplaces))
        raise UnknownError(
            f"{request.method} is not answered here; marketplaces are below {mounts}, control below /_control/"
        )


def _shown(store: Store, listing: Listing) -> dict[str, object]:
    return {
        "channel": store.channel,
        "store": store.name,
        "remote_variant": listing.remote_variant,
        "sku": listing.sku,
        "quantity": listing.quantity,
        "stock": listing.stock,
        "reserved_by_orders": listing.reserved_by_orders,
        "reserved_by_promotions": listing.reserved_by_promotions,
        "condition": listing.condition,
        "applied_at": listing.applied_at,
    }


def _answering(action: Action) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return _json(200, await action(request))
        except SandboxError as error:
            return _json(error.status, {"message": str(error)})

    return handle


def _json(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), headers={"Content-Type": "application/json"})


async def _body(request: web.Request) -> dict[str, object]:
    _parameters(request)
    try:
        body = await request.clone(client_max_size=BODY_BYTES_MAX).read()
    except web.HTTPRequestEntityTooLarge as error:
        raise RefusedError(f"the body is larger than {BODY_BYTES_MAX} bytes; send it in parts") from error
    except web.RequestPayloadError as error:
        raise RefusedError("the body is broken as HTTP; send it with a Content-Length") from error
    return read_object(body)


async def _page(request: web.Request, log: Log[Entry]) -> list[Entry]:
    wanted = _parameters(request, "after", "limit", "wait_ms")
    after = _number(wanted, "after", 0, NUMBER_MAX)
    limit = _number(wanted, "limit", LIMIT, LIMIT_MAX)
    wait_ms = _number(wanted, "wait_ms", 0, WAIT_MS_MAX)
    if wait_ms and log.last <= after:
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await log.wait_for(after + 1)
        except TimeoutError:
            pass
    return log.after(after, limit)


def _parameters(request: web.Request, *known: str) -> dict[str, str]:
    given = dict(request.query)
    if unknown := sorted(given.keys() - set(known)):
        names = ", ".join(repr(name) for name in unknown)
        raise RefusedError(f"unknown query parameter: {names}; known here: {', '.join(known) or 'none'}")
    return given


def _number(wanted: dict[str, str], name: str, default: int, most: int) -> int:
    text = wanted.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise RefusedError(f"{name} is {text!r}; it must be a whole number from 0 to {most}")
    return int(text)
