"""A shop as the control API sets it up, and the items that its listings make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, cast

import msgspec

from lumbung.sandbox.errors import RefusedError
from lumbung.sandbox.ledger import LISTINGS_MAX, Ledger, Listing, Name, NewListing, Store, listings_by_id
from lumbung.sandbox.shape import read_shape
from lumbung.sandbox.shopee.tokens import Tokens
from lumbung.sandbox.shopee.wire import CHANNEL

ID_MAX = 2**63 - 1
ACCESS_SECONDS = 4 * 3600
REFRESH_SECONDS = 30 * 86_400

Seconds = Annotated[int, msgspec.Meta(ge=1, le=400 * 86_400)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `PUT /_control/stores/shpe/{shop_id}`.

    `listings` are named ITEM, for an item without variations, or ITEM/MODEL. With `locations` (such as "IDZ") the shop
    has several warehouses. The tokens are issued at once; without any the shop is not linked to the application yet.
    `auth_status`: the HTTP status under which callers are refused, at the door and on /auth/*; the real one is not
    known.
    """

    partner_id: Annotated[int, msgspec.Meta(ge=1, le=ID_MAX)]
    partner_key: Name
    access_token: Name | None = None
    refresh_token: Name | None = None
    access_seconds: Seconds = ACCESS_SECONDS
    refresh_seconds: Seconds = REFRESH_SECONDS
    locations: Annotated[tuple[Name, ...], msgspec.Meta(max_length=100)] = ()
    auth_status: Literal[200, 403] = 200
    listings: Annotated[tuple[NewListing, ...], msgspec.Meta(max_length=LISTINGS_MAX)] = ()


class Shop(msgspec.Struct, frozen=True):
    """What the marketplace keeps of a store beside its listings. `opened_at` is in unix seconds."""

    partner_id: str
    partner_key: str
    tokens: Tokens
    locations: tuple[str, ...]
    auth_status: int
    opened_at: int
    items: Items


class Items:
    """The listings of a shop, by item. An item has one listing, without a model, or one a model."""

    def __init__(self, listings: Mapping[str, Listing]):
        self._listings = listings
        self._counted = 0
        self._by_item: dict[str, list[Listing]] = {}

    def of(self, item_id: str) -> list[Listing]:
        """Empty when the item is not there."""
        return self._indexed().get(item_id, [])

    def ids(self) -> list[str]:
        return list(self._indexed())

    def _indexed(self) -> dict[str, list[Listing]]:
        # Listings are only ever added to a store, so their number tells whether the index is still whole.
        if self._counted != len(self._listings):
            self._by_item = {}
            for remote_variant, listing in self._listings.items():
                self._by_item.setdefault(split(remote_variant)[0], []).append(listing)
            self._counted = len(self._listings)
        return self._by_item


def open_shop(name: str, settings: Mapping[str, object], ledger: Ledger) -> Store:
    """The store that the control API asks for; raises RefusedError."""
    if not _is_id(name):
        raise RefusedError(f"the store is {name!r}; a shop of Shopee is named by its shop_id, a whole number above 0")
    read = read_shape(settings, Settings)
    if len(set(read.locations)) < len(read.locations):
        raise RefusedError("a location is there twice; name each once")
    _check_partner_key(name, str(read.partner_id), read.partner_key, ledger)
    listings = listings_by_id(read.listings)
    check(listings)
    tokens = Tokens(read.access_seconds, read.refresh_seconds)

    def give_tokens() -> None:
        tokens.give(read.access_token, read.refresh_token, ledger.clock.now())

    give_tokens()
    shop = Shop(
        partner_id=str(read.partner_id),
        partner_key=read.partner_key,
        tokens=tokens,
        locations=read.locations,
        auth_status=read.auth_status,
        opened_at=int(ledger.clock.now()),
        items=Items(listings),
    )
    return Store(CHANNEL, name, shop, listings, check=check, start_again=give_tokens)


def shop_of(store: Store) -> Shop:
    return cast(Shop, store.credentials)


def shops_of(partner_id: str, ledger: Ledger) -> list[Store]:
    """The stores of an application."""
    return [store for store in ledger.stores(CHANNEL) if shop_of(store).partner_id == partner_id]


def split(remote_variant: str) -> tuple[str, str]:
    """Item and model of a listing's name; the model is "" without variations."""
    item, _, model = remote_variant.partition("/")
    return item, model


def listing_name(item_id: int, model_id: int) -> str:
    return f"{item_id}/{model_id}" if model_id else str(item_id)


def check(listings: Iterable[str]) -> None:
    """Raises RefusedError when a name is none of Shopee's, or an item stands with and without variations."""
    with_models: dict[str, bool] = {}
    for remote_variant in listings:
        item, slash, model = remote_variant.partition("/")
        if not (_is_id(item) and (_is_id(model) if slash else True)):
            raise RefusedError(f"the remote_variant {remote_variant!r} is neither ITEM nor ITEM/MODEL in whole numbers")
        if with_models.setdefault(item, bool(slash)) != bool(slash):
            raise RefusedError(f"item {item!r} is there with and without variations; it can have only one of the two")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and text[0] != "0" and int(text[:20]) <= ID_MAX


def _check_partner_key(name: str, partner_id: str, partner_key: str, ledger: Ledger) -> None:
    for store in shops_of(partner_id, ledger):
        if store.name != name and shop_of(store).partner_key != partner_key:
            raise RefusedError(
                f"store {store.name!r} has the partner_id {partner_id} with another partner_key; an application has one"
            )
