"""Blibli, as far as it is known: the stock of one SKU is set and read.

    PUT /blib/v2/proxy/seller/v1/products/{blibli-sku}/stock     body {"availableStock": 5}
    GET /blib/v2/proxy/seller/v1/products/{blibli-sku}

Source: fact sheet, section 4 [C: the official Java client and others]; what is made up here is marked [I]. Published
nowhere: the error codes, the rate limit, whether the signature is mandatory, the fields of a product, and how a call
names a pickup point.

Units that are reserved for orders have left availableStock already [C]; what is reserved for a promotion is the least
that a write may leave of a product [I].
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, cast
from urllib.parse import unquote

import msgspec
from aiohttp import web

from lumbung.sandbox.call import Answer, Call, Change, Target, Verdict
from lumbung.sandbox.errors import RefusedError
from lumbung.sandbox.faults import RowFaults
from lumbung.sandbox.ledger import LISTINGS_MAX, QUANTITY_MAX, Ledger, Listing, Name, NewListing, Store, listings_by_id
from lumbung.sandbox.marketplace import Handler, check_failing, condition_of
from lumbung.sandbox.shape import read_shape

CHANNEL = "blib"
PROXY = f"/{CHANNEL}/v2/proxy"
PRODUCTS = f"{PROXY}/seller/v1/products/"
STOCK = "/stock"

STORE_ID = "10001"
SKEW_MAX_MS = 5 * 60 * 1000
CALL_PARAMETERS = ("requestId", "channelId", "storeId", "username", "storeCode")

WIB = timezone(timedelta(hours=7))
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# [I] the exact strings are unknown; connectors must not depend on them beyond "not empty".
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    413: "PAYLOAD_TOO_LARGE",
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL_SERVER_ERROR",
    502: "BAD_GATEWAY",
    503: "SERVICE_UNAVAILABLE",
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /_control/stores/blib/{storeCode}`.

    With a `signature_key` every call must be signed. A `business_partner_code` is compared with the query's
    businessPartnerCode where a call sends one. `locations`: the codes of the store's pickup points with their names. A
    write may name one of them in the query's `pickup_point_parameter` [M], and has to when there are several [I].
    """

    api_client_id: Name
    api_client_key: Name
    api_seller_key: Name
    username: Name
    signature_key: Name | None = None
    business_partner_code: Name | None = None
    listings: Annotated[tuple[NewListing, ...], msgspec.Meta(max_length=LISTINGS_MAX)] = ()
    locations: dict[Name, str] = {}
    pickup_point_parameter: Name = "pickupPointCode"


class Credentials(msgspec.Struct, frozen=True):
    authorization: str
    api_seller_key: str
    username: str
    signature_key: bytes | None
    business_partner_code: str | None
    pickup_points: frozenset[str]
    pickup_point_parameter: str


class Envelope(msgspec.Struct, rename="camel"):
    """Every answer: an empty errorCode means that it went well [C]."""

    request_id: str
    success: bool
    error_code: str = ""
    error_message: str = ""
    value: dict[str, object] | None = None


# [I] likewise.
LOCKED = ("PRODUCT_IN_PROMOTION", "the stock of a product in a promotion cannot be changed")
HOLIDAY = ("STORE_ON_HOLIDAY", "the store is on holiday")

_encode = msgspec.json.Encoder().encode


class Blibli:
    channel = CHANNEL
    headers_shown = ("content-type", "user-agent", "signature-time")

    @property
    def mounts(self) -> Mapping[str, str]:
        return {"base_url": f"/{CHANNEL}/v2"}

    def routes(self, handler: Handler) -> list[web.RouteDef]:
        return [web.route("*", f"/{CHANNEL}/{{rest:.*}}", handler)]

    def store(self, name: str, settings: Mapping[str, object]) -> Store:
        read = read_shape(settings, Settings)
        pair = f"{read.api_client_id}:{read.api_client_key}".encode()
        credentials = Credentials(
            authorization=base64.b64encode(pair).decode(),
            api_seller_key=read.api_seller_key,
            username=read.username,
            signature_key=read.signature_key.encode() if read.signature_key else None,
            business_partner_code=read.business_partner_code,
            pickup_points=frozenset(read.locations),
            pickup_point_parameter=read.pickup_point_parameter,
        )
        return Store(CHANNEL, name, credentials, listings_by_id(read.listings))

    def target(self, call: Call) -> Target:
        product = call.path.removeprefix(PRODUCTS) if call.path.startswith(PRODUCTS) else ""
        blibli_sku = unquote(product.removesuffix(STOCK))
        return Target(call.query.get("storeCode", ""), (blibli_sku,) if blibli_sku else ())

    def judge(self, call: Call, ledger: Ledger, row_faults: RowFaults) -> Verdict:
        target = self.target(call)
        if not target.remote_variants or "/" in call.path[len(PRODUCTS) :].removesuffix(STOCK):
            return _refused(call, 404, f"there is nothing at {call.path}")
        if missing := [name for name in CALL_PARAMETERS if not call.query.get(name)]:
            return _refused(call, 400, f"missing query parameter: {', '.join(missing)}")
        store = ledger.find_store(CHANNEL, target.store)
        if stopped := _stopped_at_the_door(call, store, ledger):
            return stopped
        assert store is not None
        check_failing([store.listings.get(target.remote_variants[0])], row_faults)
        is_stock = call.path.endswith(STOCK)
        if call.method == "PUT" and is_stock:
            return _set_stock(call, store, target.remote_variants[0], row_faults)
        if call.method == "GET" and not is_stock:
            return _read_product(call, store, target.remote_variants[0], row_faults)
        return _refused(call, 404, f"{call.method} is not answered at {call.path}")

    def refusal(self, call: Call, status: int) -> Answer:
        return _refused(call, status, CODES[status].replace("_", " ").lower()).answer

    def quota_refusal(self, call: Call) -> Answer:
        return self.refusal(call, 429)

    def revoke(self, store: Store) -> None:
        raise RefusedError("Blibli has no tokens: PUT the store again with other keys")


def signature(key: bytes, method: str, body: bytes, date: str, path: str) -> str:
    """The header `Signature`: five lines, LF joined, HMAC-SHA256, base64 [C, section 4; golden vector in 0.4].

    `date` is as `signed_date` writes it, `path` is what follows /proxy, without the query.
    """
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest() if body else ""
    content_type = "" if method == "GET" else "application/json"
    signed_path = "/mtaapi" + path.removeprefix("/mta") if path.startswith("/mta/") else path
    raw = "\n".join((method, digest, content_type, date, signed_path))
    return base64.b64encode(hmac.digest(key, raw.encode(), "sha256")).decode()


def signed_date(at_ms: int) -> str:
    """Java's `EEE MMM dd HH:mm:ss zzz yyyy` in Asia/Jakarta, in English: Tue Nov 14 22:13:20 WIB 2023."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC).astimezone(WIB)
    return f"{DAYS[at.weekday()]} {MONTHS[at.month - 1]} {at.day:02} {at:%H:%M:%S} WIB {at.year}"


def _stopped_at_the_door(call: Call, store: Store | None, ledger: Ledger) -> Verdict | None:
    """Statuses 401 and 403 [C]; which of the two for what is [I]."""
    seller_key = call.headers.get("Api-Seller-Key", "")
    if store is None:
        return _wrong_seller_key(call, seller_key, ledger)
    mine = cast(Credentials, store.credentials)
    scheme, _, pair = call.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic" or not _same(pair.strip(), mine.authorization):
        return _refused(call, 401, "wrong API client id or key")
    if not _same(seller_key, mine.api_seller_key):
        return _wrong_seller_key(call, seller_key, ledger)
    return _refused_access(call, mine)


def _refused_access(call: Call, mine: Credentials) -> Verdict | None:
    if call.query["storeId"] != STORE_ID or call.query["username"] != mine.username:
        return _refused(call, 403, "this user has no access to this store")
    if call.query.get("businessPartnerCode", mine.business_partner_code) != mine.business_partner_code:
        return _refused(call, 403, "the business partner is another")
    if mine.signature_key is not None and not _is_signed(call, mine.signature_key):
        return _refused(call, 401, "the signature is missing, wrong or too old")
    return None


def _wrong_seller_key(call: Call, seller_key: str, ledger: Ledger) -> Verdict:
    """403 for the key of another store, 401 for the key of nobody."""
    others = (cast(Credentials, store.credentials).api_seller_key for store in ledger.stores(CHANNEL))
    if any(_same(seller_key, other) for other in others):
        return _refused(call, 403, "this Api-Seller-Key belongs to another store")
    return _refused(call, 401, "the Api-Seller-Key is missing or unknown")


def _is_signed(call: Call, key: bytes) -> bool:
    sent_at = call.headers.get("Signature-Time", "")
    if not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) <= 15):
        return False
    if abs(int(sent_at) - call.now * 1000) > SKEW_MAX_MS:
        return False
    expected = signature(key, call.method, call.body, signed_date(int(sent_at)), call.path.removeprefix(PROXY))
    return _same(call.headers.get("Signature", ""), expected)


def _set_stock(call: Call, store: Store, remote_variant: str, row_faults: RowFaults) -> Verdict:
    if call.query.get("blibli-sku") != remote_variant:
        return _refused(call, 400, "the query's blibli-sku is not the path's")
    try:
        body = msgspec.json.decode(call.body)
    except (ValueError, RecursionError):
        return _refused(call, 400, "the body is not JSON")
    listing = store.listings.get(remote_variant)
    condition, struck = condition_of(listing, row_faults)
    if listing is None or condition in {"unknown", "banned"}:
        return _not_for_sale(call, remote_variant, condition, struck)
    mine = cast(Credentials, store.credentials)
    location = call.query.get(mine.pickup_point_parameter, "")
    if refused := _wrong_pickup_point(call, mine, location):
        return refused
    if condition == "locked" or store.holiday:
        return Verdict(_answer(call, 200, *(HOLIDAY if store.holiday else LOCKED)), struck=struck)
    return _write(call, store, listing, location, body)


def _write(call: Call, store: Store, listing: Listing, location: str, body: object) -> Verdict:
    quantity = body.get("availableStock") if isinstance(body, dict) else None
    # A bool is an int to Python, but no stock to a marketplace.
    if type(quantity) is not int or not 0 <= quantity <= QUANTITY_MAX:
        return Verdict(_answer(call, 200, "INVALID_STOCK", f"availableStock must be 0 to {QUANTITY_MAX}"))
    if quantity < (least := _least(listing, location)):
        words = f"availableStock cannot be less than {least}, reserved for a promotion"
        return Verdict(_answer(call, 200, "STOCK_BELOW_RESERVED", words))
    value: dict[str, object] = {"blibliSku": listing.remote_variant, "availableStock": quantity}
    if location:
        value["pickupPointCode"] = location
    return Verdict(_success(call, value), (Change(CHANNEL, store.name, listing.remote_variant, location, quantity),))


def _wrong_pickup_point(call: Call, mine: Credentials, location: str) -> Verdict | None:
    """[I], as are the codes."""
    if location and location not in mine.pickup_points:
        return Verdict(_answer(call, 200, "PICKUP_POINT_NOT_FOUND", f"there is no pickup point {location}"))
    if not location and len(mine.pickup_points) > 1:
        return Verdict(_answer(call, 200, "PICKUP_POINT_REQUIRED", "the store has several pickup points; name one"))
    return None


def _least(listing: Listing, location: str) -> int:
    """The fewest units that a write may leave at a pickup point: what is reserved counts for the whole product."""
    elsewhere = sum(units for point, units in listing.stock.items() if point not in {"", location})
    return listing.reserved_by_promotions - (elsewhere if location else 0)


def _read_product(call: Call, store: Store, remote_variant: str, row_faults: RowFaults) -> Verdict:
    listing = store.listings.get(remote_variant)
    condition, struck = condition_of(listing, row_faults)
    if listing is None or condition in {"unknown", "banned"}:
        return _not_for_sale(call, remote_variant, condition, struck)
    # [I] the field names: the write's own, since the product's are not published.
    value: dict[str, object] = {
        "blibliSku": remote_variant,
        "merchantSku": listing.sku,
        "availableStock": listing.quantity,
    }
    if cast(Credentials, store.credentials).pickup_points:
        value["pickupPoints"] = [
            {"pickupPointCode": point, "availableStock": units} for point, units in listing.stock.items() if point
        ]
    return Verdict(_success(call, value))


def _not_for_sale(call: Call, remote_variant: str, condition: str, struck: bool) -> Verdict:
    # success false with HTTP 200 is [C]; the codes are [I].
    if condition == "banned":
        answer = _answer(call, 200, "PRODUCT_SUSPENDED", f"product {remote_variant} is suspended")
    else:
        answer = _answer(call, 200, "PRODUCT_NOT_FOUND", f"product {remote_variant} was not found")
    return Verdict(answer, struck=struck)


def _refused(call: Call, status: int, message: str) -> Verdict:
    return Verdict(_answer(call, status, CODES[status], message))


def _success(call: Call, value: dict[str, object]) -> Answer:
    return Answer(200, _encode(Envelope(call.query.get("requestId", ""), True, value=value)))


def _answer(call: Call, status: int, code: str, message: str) -> Answer:
    return Answer(status, _encode(Envelope(call.query.get("requestId", ""), False, code, message)))


def _same(left: str, right: str) -> bool:
    """Bytes, because compare_digest takes no text beyond ASCII, and headers may hold anything."""
    return hmac.compare_digest(left.encode("utf-8", "surrogateescape"), right.encode())
