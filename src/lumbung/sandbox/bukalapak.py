"""Bukalapak as it was, on one address for both of its hosts: the stock of one SKU is set and read, and tokens expire.

    PATCH /bklp/api/products/{product_id}/skus/{sku_id}      body {"stock": 5} with "state": "active" or "inactive"
    GET   /bklp/api/products/{product_id}
    GET   /bklp/api/stores/me/products?limit=&offset=
    GET   /bklp/accounts/oauth/authorize                     the page on which a merchant agrees
    POST  /bklp/accounts/oauth/token                         form; authorization_code or refresh_token

Source: fact sheet, section 5 [C], and RFC 6749; what is made up here is marked [I]. Published nowhere: the error codes,
the rate limit, how long tokens live, and most fields of a product. A store's listings are named `product/sku`.

Units that are reserved for orders have left `stock` already; what is reserved for a promotion is the least that a
write may set [I].
"""

from __future__ import annotations

import hmac
import html
import secrets
from collections.abc import Mapping
from typing import Annotated, cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import msgspec
from aiohttp import web

from lumbung.sandbox.call import Answer, Call, Change, Target, Verdict
from lumbung.sandbox.faults import RowFaults
from lumbung.sandbox.ledger import LISTINGS_MAX, QUANTITY_MAX, Ledger, Listing, Name, NewListing, Store, listings_by_id
from lumbung.sandbox.marketplace import Handler, check_failing, condition_of
from lumbung.sandbox.shape import read_shape

CHANNEL = "bklp"
API = f"/{CHANNEL}/api"
ACCOUNTS = f"/{CHANNEL}/accounts"
AUTHORIZE = f"{ACCOUNTS}/oauth/authorize"
TOKEN = f"{ACCOUNTS}/oauth/token"

CODE_SECONDS = 600  # [I] the most that RFC 6749 recommends
LIMIT_MAX = 100  # [I]
STATES = ("active", "inactive")

Token = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10 * 365 * 86_400)]

# [I] 10001 stands in the one sample that is known; connectors must not depend on any of them.
CODES = {400: 10400, 401: 10002, 403: 10003, 404: 10001, 413: 10413, 422: 10422, 429: 10429}

_encode = msgspec.json.Encoder().encode


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /_control/stores/bklp/{shop_id}`.

    Without tokens the store is one that has not been authorised. `rotates`: a refresh token works once, and its answer
    brings the next one; otherwise it brings none and the old one goes on working.
    """

    client_id: Name
    client_secret: Name
    user_agent: Name
    access_token: Token | None = None
    refresh_token: Token | None = None
    access_seconds: Seconds = 7200
    refresh_seconds: Seconds = 30 * 86_400
    rotates: bool = True
    listings: Annotated[tuple[NewListing, ...], msgspec.Meta(max_length=LISTINGS_MAX)] = ()


class Lasting(msgspec.Struct, frozen=True):
    """A token or a code, and the unix second from which it is worth nothing. A code holds for one `redirect` only."""

    text: str
    ends_at: float
    redirect: str = ""


class Account(msgspec.Struct):
    """One shop's dealings with one application. `spent`: access tokens that are no longer good. `inactive`: listings
    that the shop has taken down."""

    settings: Settings
    access: Lasting | None
    refresh: Lasting | None
    codes: dict[str, Lasting] = {}
    spent: set[str] = set()
    inactive: set[str] = set()

    def begin(self, now: float) -> None:
        """As it was set up: with its first tokens, issued now."""
        given = self.settings
        self.access = Lasting(given.access_token, now + given.access_seconds) if given.access_token else None
        self.refresh = Lasting(given.refresh_token, now + given.refresh_seconds) if given.refresh_token else None
        self.codes, self.spent, self.inactive = {}, set(), set()

    def give(self, pair: tuple[Lasting, Lasting]) -> None:
        """The old access token is dead at once [I]."""
        if self.access is not None:
            self.spent.add(self.access.text)
        self.access, self.refresh = pair

    def has_given(self, text: str) -> bool:
        """Whether a token or code is of this account, be it still good or not."""
        held = (self.access, self.refresh)
        return any(one is not None and one.text == text for one in held) or text in self.spent or text in self.codes

    def revoke(self) -> None:
        if self.access is not None:
            self.spent.add(self.access.text)
        self.access = self.refresh = None
        self.codes.clear()


class Bukalapak:
    channel = CHANNEL
    headers_shown = ("content-type", "user-agent")

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    @property
    def mounts(self) -> Mapping[str, str]:
        return {"base_url": API, "accounts_url": ACCOUNTS}

    def routes(self, handler: Handler) -> list[web.RouteDef]:
        return [web.route("*", f"/{CHANNEL}/{{rest:.*}}", handler)]

    def store(self, name: str, settings: Mapping[str, object]) -> Store:
        read = read_shape(settings, Settings)
        account = Account(read, None, None)
        account.begin(self._ledger.clock.now())

        def start_again() -> None:
            account.begin(self._ledger.clock.now())

        return Store(CHANNEL, name, account, listings_by_id(read.listings), start_again=start_again)

    def target(self, call: Call) -> Target:
        store = self._store_of(call)
        application = _account(store).settings.client_id if store is not None else ""
        name = store.name if store is not None else ""
        return Target(name, tuple(_listings_of(call)), application, is_secret=call.path.startswith(f"{ACCOUNTS}/"))

    def judge(self, call: Call, ledger: Ledger, row_faults: RowFaults) -> Verdict:
        if call.path.startswith(f"{ACCOUNTS}/"):
            return self._log_in(call)
        if not call.headers.get("User-Agent"):
            return _refused(403, "a User-Agent is required")
        store = self._store_of(call)
        if stopped := _stopped_at_the_door(call, store):
            return stopped
        assert store is not None
        check_failing(_concerned(call, store), row_faults)
        match call.method, *call.path.removeprefix(f"{API}/").split("/"):
            case "PATCH", "products", product_id, "skus", sku_id:
                return _set_stock(call, store, f"{unquote(product_id)}/{unquote(sku_id)}", row_faults)
            case "GET", "products", product_id:
                return _read_product(store, unquote(product_id), row_faults)
            case "GET", "stores", "me", "products":
                return _list_products(call, store, row_faults)
            case _:
                return _refused(404, f"{call.method} is not answered at {call.path}")

    def refusal(self, call: Call, status: int) -> Answer:
        if call.path.startswith(f"{ACCOUNTS}/"):
            return _oauth_error(status, "temporarily_unavailable" if status >= 429 else "invalid_request")
        return _refusal(status, {429: "too many requests", 413: "the request is too large"}.get(status, "sorry"))

    def quota_refusal(self, call: Call) -> Answer:
        return self.refusal(call, 429)

    def revoke(self, store: Store) -> None:
        _account(store).revoke()

    # --- The login ---

    def _log_in(self, call: Call) -> Verdict:
        if (call.method, call.path) == ("GET", AUTHORIZE):
            return self._ask_the_merchant(call)
        if (call.method, call.path) == ("POST", TOKEN):
            return self._trade(call)
        return Verdict(_oauth_error(404, "invalid_request", f"{call.method} is not answered at {call.path}"))

    def _ask_the_merchant(self, call: Call) -> Verdict:
        """A page with one link for each shop that the application knows: whoever follows one has agreed as that shop.

        The code is good from the moment that the page is shown [I].
        """
        redirect = call.query.get("redirect_uri", "")
        if call.query.get("response_type") != "code" or urlsplit(redirect).scheme not in {"http", "https"}:
            return Verdict(
                _oauth_error(400, "invalid_request", "response_type is not code, or redirect_uri no address")
            )
        stores = [store for store in self._stores() if _is_of(store, call.query.get("client_id", ""))]
        if not stores:
            return Verdict(_oauth_error(401, "invalid_client", "no such application"))
        codes = [(store, Lasting(secrets.token_hex(16), call.now + CODE_SECONDS, redirect)) for store in stores]

        def remember() -> None:
            for store, code in codes:
                _account(store).codes[code.text] = code

        links = "".join(_link(store.name, code, call.query.get("state")) for store, code in codes)
        page = f"<!DOCTYPE html><title>Bukalapak</title><p>Allow the application to act for</p><ul>{links}</ul>"
        return Verdict(Answer(200, page.encode(), "text/html; charset=utf-8"), effect=remember)

    def _trade(self, call: Call) -> Verdict:
        form = _form(call)
        mine = [store for store in self._stores() if _is_of(store, form.get("client_id", ""))]
        secret = form.get("client_secret", "")
        if not any(_same(secret, _account(store).settings.client_secret) for store in mine):
            return Verdict(_oauth_error(401, "invalid_client", "client_id or client_secret is wrong"))
        match form.get("grant_type"):
            case "authorization_code":
                return _trade_code(call, form, mine)
            case "refresh_token":
                return _trade_refresh_token(call, form, mine)
            case _:
                return Verdict(_oauth_error(400, "unsupported_grant_type"))

    # --- Whose call it is ---

    def _stores(self) -> list[Store]:
        return list(self._ledger.stores(CHANNEL))

    def _store_of(self, call: Call) -> Store | None:
        """The shop whose token, code or refresh token the call bears, whether or not it is still good."""
        if call.path == TOKEN:
            form = _form(call)
            borne = form.get("refresh_token") or form.get("code") or ""
        else:
            borne = _bearer(call)
        return next((store for store in self._stores() if borne and _account(store).has_given(borne)), None)


def _account(store: Store) -> Account:
    return cast(Account, store.credentials)


def _is_of(store: Store, client_id: str) -> bool:
    return _account(store).settings.client_id == client_id


def _bearer(call: Call) -> str:
    """Of the header or, as some clients did, of the query [C]."""
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else call.query.get("access_token", "")


def _listings_of(call: Call) -> list[str]:
    match call.path.removeprefix(f"{API}/").split("/"):
        case "products", product_id, "skus", sku_id:
            return [f"{unquote(product_id)}/{unquote(sku_id)}"]
        case _:
            return []


def _concerned(call: Call, store: Store) -> list[Listing]:
    """The store's listings that a call names, or that are of the product that it names."""
    match call.path.removeprefix(f"{API}/").split("/"):
        case "products", product_id:
            return _of_product(store, unquote(product_id))
        case _:
            return [listing for name in _listings_of(call) if (listing := store.listings.get(name)) is not None]


def _of_product(store: Store, product_id: str) -> list[Listing]:
    return [one for one in store.listings.values() if one.remote_variant.partition("/")[0] == product_id]


def _stopped_at_the_door(call: Call, store: Store | None) -> Verdict | None:
    """401 for a token that is not good [C], 403 for the User-Agent of another [I]."""
    access = _account(store).access if store is not None else None
    if store is None or access is None or not _same(_bearer(call), access.text):
        return _refused(401, "the access token is invalid")
    if call.now >= access.ends_at:
        return _refused(401, "the access token has expired")
    if call.headers.get("User-Agent") != _account(store).settings.user_agent:
        return _refused(403, "this User-Agent is not registered for the application")
    return None


# --- Tokens ---


def _trade_code(call: Call, form: Mapping[str, str], stores: list[Store]) -> Verdict:
    """A code works once, within its time, and with the address that it was sent to."""
    for account in map(_account, stores):
        code = account.codes.get(form.get("code", ""))
        if code is None:
            continue
        if call.now >= code.ends_at or form.get("redirect_uri") != code.redirect:
            break
        pair = _new_pair(account, call.now)

        def trade(account: Account = account, code: Lasting = code, pair: tuple[Lasting, Lasting] = pair) -> None:
            if account.codes.pop(code.text, None) is not None:
                account.give(pair)

        return Verdict(_granted(account, pair, True), effect=trade)
    return Verdict(_oauth_error(400, "invalid_grant", "the code is unknown, used, too old or of another address"))


def _trade_refresh_token(call: Call, form: Mapping[str, str], stores: list[Store]) -> Verdict:
    given = form.get("refresh_token", "")
    for account in map(_account, stores):
        old = account.refresh
        if old is None or not _same(given, old.text) or call.now >= old.ends_at:
            continue
        access, refresh = _new_pair(account, call.now)
        pair = (access, refresh if account.settings.rotates else old)

        def trade(account: Account = account, old: Lasting = old, pair: tuple[Lasting, Lasting] = pair) -> None:
            if account.refresh == old:  # or another trade took effect meanwhile
                account.give(pair)

        return Verdict(_granted(account, pair, account.settings.rotates), effect=trade)
    return Verdict(_oauth_error(400, "invalid_grant", "the refresh token is unknown, used, revoked or too old"))


def _new_pair(account: Account, now: float) -> tuple[Lasting, Lasting]:
    own = account.settings
    return (
        Lasting(secrets.token_hex(32), now + own.access_seconds),
        Lasting(secrets.token_hex(32), now + own.refresh_seconds),
    )


def _granted(account: Account, pair: tuple[Lasting, Lasting], with_refresh_token: bool) -> Answer:
    access, refresh = pair
    granted: dict[str, object] = {
        "access_token": access.text,
        "token_type": "bearer",
        "expires_in": int(account.settings.access_seconds),
        "scope": "public user store",
        "created_at": int(access.ends_at - account.settings.access_seconds),
    }
    return Answer(200, _encode({**granted, "refresh_token": refresh.text} if with_refresh_token else granted))


def _link(shop: str, code: Lasting, state: str | None) -> str:
    more = {"code": code.text} if state is None else {"code": code.text, "state": state}
    joint = "&" if urlsplit(code.redirect).query else "?"
    return f'<li><a href="{html.escape(code.redirect + joint + urlencode(more))}">{html.escape(shop)}</a></li>'


def _form(call: Call) -> dict[str, str]:
    if not call.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    return dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))


def _oauth_error(status: int, error: str, description: str = "") -> Answer:
    return Answer(status, _encode({"error": error, "error_description": description or error.replace("_", " ")}))


# --- Products ---


def _set_stock(call: Call, store: Store, remote_variant: str, row_faults: RowFaults) -> Verdict:
    try:
        body = msgspec.json.decode(call.body)
    except (ValueError, RecursionError):
        return _refused(400, "the body is not JSON")
    listing = store.listings.get(remote_variant)
    condition, struck = condition_of(listing, row_faults)
    if listing is None or condition == "unknown":
        return _refused(404, f"sku {remote_variant} was not found", struck=struck)
    if condition == "banned":
        return _refused(422, "the product is banned by a moderator", struck=struck)
    if store.holiday:
        return _refused(422, "the store is on holiday", struck=struck)
    if condition == "locked":
        return _refused(422, "the stock of a product in a promotion cannot be changed", struck=struck)
    fields = body if isinstance(body, dict) else {}
    quantity, state = fields.get("stock"), fields.get("state", "active")
    # A bool is an int to Python, but no stock to a marketplace.
    if type(quantity) is not int or not 0 <= quantity <= QUANTITY_MAX:
        return _refused(422, f"stock must be a whole number from 0 to {QUANTITY_MAX}")
    if state not in STATES:
        return _refused(422, f"state must be {' or '.join(STATES)}")
    if quantity < listing.reserved_by_promotions:
        return _refused(422, f"stock cannot be less than {listing.reserved_by_promotions}, reserved for a promotion")
    return _written(store, listing, quantity, cast(str | None, fields.get("state")))


def _written(store: Store, listing: Listing, quantity: int, state: str | None) -> Verdict:
    inactive = _account(store).inactive

    def put_up_or_take_down() -> None:
        if state == "active":
            inactive.discard(listing.remote_variant)
        elif state == "inactive":
            inactive.add(listing.remote_variant)

    shown = _variant(store, listing) | {"stock": quantity} | ({} if state is None else {"state": state})
    change = Change(CHANNEL, store.name, listing.remote_variant, "", quantity)
    return Verdict(_success(shown), (change,), effect=put_up_or_take_down)


def _read_product(store: Store, product_id: str, row_faults: RowFaults) -> Verdict:
    listings = _of_product(store, product_id)
    sound = [one for one in listings if condition_of(one, row_faults)[0] not in {"unknown", "banned"}]
    if not sound:
        struck = any(condition_of(one, row_faults)[1] for one in listings)
        return _refused(404, f"product {product_id} was not found", struck=struck)
    return Verdict(_success(_product(store, product_id, sound)))


def _list_products(call: Call, store: Store, row_faults: RowFaults) -> Verdict:
    limit, offset = _number(call, "limit", 10), _number(call, "offset", 0)
    if limit is None or offset is None or limit > LIMIT_MAX:
        return _refused(400, f"limit must be a number from 0 to {LIMIT_MAX}, offset a number")
    products: dict[str, list[Listing]] = {}
    for listing in store.listings.values():
        if condition_of(listing, row_faults)[0] not in {"unknown", "banned"}:
            products.setdefault(listing.remote_variant.partition("/")[0], []).append(listing)
    page = list(products.items())[offset : offset + limit]
    meta = {"http_status": 200, "limit": limit, "offset": offset, "total": len(products)}
    data = [_product(store, product_id, listings) for product_id, listings in page]
    return Verdict(Answer(200, _encode({"data": data, "meta": meta})))


def _product(store: Store, product_id: str, listings: list[Listing]) -> dict[str, object]:
    # `data.stock` [C], `variants` with id, product_id and sku_name [C]; a variant's stock and state [I].
    return {
        "id": product_id,
        "stock": sum(listing.quantity for listing in listings),
        "variants": [_variant(store, listing) for listing in listings],
    }


def _variant(store: Store, listing: Listing) -> dict[str, object]:
    product_id, _, sku_id = listing.remote_variant.partition("/")
    return {
        "id": int(sku_id) if sku_id.isascii() and sku_id.isdigit() and len(sku_id) < 16 else sku_id,
        "product_id": product_id,
        "sku_name": listing.sku,
        "stock": listing.quantity,
        "state": "inactive" if listing.remote_variant in _account(store).inactive else "active",
    }


def _number(call: Call, name: str, default: int) -> int | None:
    text = call.query.get(name, str(default))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _success(data: dict[str, object]) -> Answer:
    return Answer(200, _encode({"data": data, "meta": {"http_status": 200}}))


def _refused(status: int, message: str, *, struck: bool = False) -> Verdict:
    return Verdict(_refusal(status, message), struck=struck)


def _refusal(status: int, message: str) -> Answer:
    errors = [{"code": CODES.get(status, 10000), "message": message}]
    return Answer(status, _encode({"errors": errors, "meta": {"http_status": status}}))


def _same(left: str, right: str) -> bool:
    """Bytes, because compare_digest takes no text beyond ASCII, and headers may hold anything."""
    return hmac.compare_digest(left.encode("utf-8", "surrogateescape"), right.encode())
