"""update_stock: one item, 1 to 50 models, the seller's stock as it shall be [D, section 1.4].

A row is a model; it succeeds or fails as a whole, and models and locations that are not named stay as they are. When
some rows fail the answer is a success with a list of failures; when all fail, `error_busi_update_stock_failed` wraps
that list. Whatever concerns the item or the shop refuses the call.

Which stock an item has is sticky: in a shop with several warehouses the first write decides whether it lies in
locations, and later writes must be alike. Units that the control API set up lie in no location until then [I].
"""

from __future__ import annotations

from typing import cast

import msgspec

from lumbung.sandbox.call import Call, Change, Verdict
from lumbung.sandbox.faults import RowFaults
from lumbung.sandbox.ledger import Listing, Store
from lumbung.sandbox.marketplace import check_failing, condition_of
from lumbung.sandbox.shopee.shop import listing_name, shop_of, split
from lumbung.sandbox.shopee.wire import CHANNEL, RefusalError, failure, is_whole, read_body, success

UPDATE_STOCK = "/api/v2/product/update_stock"
MODELS_MAX = 50
STOCK_MAX = 10_000_000

OUT_OF_RANGE = f"Stock should be within 0-{STOCK_MAX}"
# The first is measured [C]; the others are [I].
REASONS = {
    "unknown": "model ID not exist in sku",
    "banned": "Product status is abnormal",
    "locked": "Cannot edit stock, the model is in promotion",
}


class Row(msgspec.Struct, frozen=True):
    """What one entry of stock_list asks for: units by location, "" where none is named."""

    model_id: int
    stock: dict[str, int]


class Failure(msgspec.Struct, frozen=True):
    model_id: int
    failed_reason: str


class Written(msgspec.Struct, frozen=True):
    model_id: int
    location_id: str
    stock: int


def update_stock(call: Call, store: Store, row_faults: RowFaults) -> Verdict:
    item_id, rows = _read(call)
    check_failing((store.listings.get(listing_name(item_id, row.model_id)) for row in rows), row_faults)
    if store.holiday:
        raise RefusalError("error_holiday_mode_change_stock", "Cannot change stock when the shop is in holiday mode.")
    variants = shop_of(store).items.of(str(item_id))
    _check_item(variants, rows, row_faults)
    _check_locations(store, variants, rows)
    written: list[Written] = []
    failed: list[Failure] = []
    changes: list[Change] = []
    struck = False
    for row in rows:
        name = listing_name(item_id, row.model_id)
        listing = store.listings.get(name)
        reason, row_struck = _what_is_wrong(row, listing, row_faults)
        struck = struck or row_struck
        if reason:
            failed.append(Failure(row.model_id, reason))
            continue
        written.extend(Written(row.model_id, location, units) for location, units in row.stock.items())
        changes.extend(Change(CHANNEL, store.name, name, location, units) for location, units in row.stock.items())
    lists = {"success_list": written, "failure_list": failed}
    if not written:
        message = "Update stock failed, please check failure_list."
        return Verdict(failure("error_busi_update_stock_failed", message, response=lists), struck=struck)
    return Verdict(success(lists), tuple(changes), struck=struck)


def named(body: dict[str, object]) -> tuple[str, ...]:
    """The listings that a body names, before anything is checked."""
    item_id, entries = body.get("item_id"), body.get("stock_list")
    if not is_whole(item_id) or not isinstance(entries, list):
        return ()
    models = [entry.get("model_id", 0) for entry in entries[:MODELS_MAX] if isinstance(entry, dict)]
    return tuple(listing_name(cast(int, item_id), model) for model in models if is_whole(model))


def _read(call: Call) -> tuple[int, list[Row]]:
    body = read_body(call)
    item_id, entries = body.get("item_id"), body.get("stock_list")
    if item_id is None:
        raise RefusalError("product.error_param", "invalid field ItemId: value must  Not Null")
    if not is_whole(item_id):
        raise RefusalError("product.error_param", "invalid field ItemId")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MODELS_MAX:
        raise RefusalError("product.error_param", f"invalid field StockList: size must be 1 to {MODELS_MAX}")
    rows = [_row(entry) for entry in entries]
    if len({row.model_id for row in rows}) < len(rows):
        raise RefusalError("error_param", "Repeat model_id")
    return cast(int, item_id), rows


def _row(entry: object) -> Row:
    if not isinstance(entry, dict):
        raise RefusalError("product.error_param", "invalid field StockList")
    model_id, places = entry.get("model_id", 0), entry.get("seller_stock")
    if not is_whole(model_id) or model_id < 0:
        raise RefusalError("product.error_param", "invalid field ModelId")
    if not isinstance(places, list) or not places:
        raise RefusalError("product.error_param", "invalid field SellerStock: value must  Not Null")
    stock: dict[str, int] = {}
    for place in places:
        location, units = _place(place)
        if location in stock:
            raise RefusalError("error_param", "Repeat location_id")
        stock[location] = units
    return Row(cast(int, model_id), stock)


def _place(place: object) -> tuple[str, int]:
    if not isinstance(place, dict):
        raise RefusalError("product.error_param", "invalid field SellerStock")
    location, units = place.get("location_id", ""), place.get("stock")
    if not isinstance(location, str):
        raise RefusalError("product.error_param", "invalid field LocationId")
    if not is_whole(units):
        raise RefusalError("product.error_param", "invalid field Stock")
    return location, cast(int, units)


def _check_item(variants: list[Listing], rows: list[Row], row_faults: RowFaults) -> None:
    """Refuses what concerns the whole item."""
    conditions = [condition_of(listing, row_faults) for listing in variants]
    struck = any(by_fault for _, by_fault in conditions)
    # An item is as bad as all of its models; while one is healthy the others fail on their own.
    worst = {condition for condition, _ in conditions}
    if worst <= {"unknown"}:
        raise RefusalError("error_item_not_found", "Product not found.", struck=struck)
    if worst <= {"unknown", "banned"}:
        raise RefusalError("error_item_uneditable", "The status of the item is abnormal.", struck=struck)
    has_models = bool(split(variants[0].remote_variant)[1])
    if has_models and any(row.model_id == 0 for row in rows):
        raise RefusalError("error_edit_item_stock_for_item_has_model", "The item has models, edit their stock.")
    if not has_models and any(row.model_id for row in rows):
        raise RefusalError("error_param", "Wrong model_id")


def _check_locations(store: Store, variants: list[Listing], rows: list[Row]) -> None:
    known = shop_of(store).locations
    asked = {location for row in rows for location in row.stock}
    if not known and asked != {""}:
        raise RefusalError("error_auth", "The shop has no permission to set seller_stock by location_id.")
    if not known:
        return
    if "" in asked and len(asked) > 1:
        raise RefusalError("error_busi", "multi warehouse, please input location id")
    if asked - {""} - set(known):
        raise RefusalError("error_inner", "Invalid stock location ID")
    if (in_locations := _lies_in_locations(variants)) is not None and in_locations != (asked != {""}):
        raise RefusalError("error_param", "The item has a different stock structure.")


def _lies_in_locations(variants: list[Listing]) -> bool | None:
    """None while nothing was written to any model of the item."""
    written = [listing for listing in variants if listing.applied_at is not None]
    return any("" not in listing.stock for listing in written) if written else None


def _what_is_wrong(row: Row, listing: Listing | None, row_faults: RowFaults) -> tuple[str, bool]:
    """The failed_reason of a row, "" for none, and whether only the fault set says so."""
    condition, struck = condition_of(listing, row_faults)
    if condition:
        return REASONS[condition], struck
    assert listing is not None
    if any(not 0 <= units <= STOCK_MAX for units in row.stock.values()):
        return OUT_OF_RANGE, False
    if _total(row, listing) < listing.reserved_by_promotions:
        return f"Stock should be larger than {listing.reserved_by_promotions} (reserve stock number)", False
    return "", False


def _total(row: Row, listing: Listing) -> int:
    """All units of the model once the row is carried out; the number that the reserve is compared with [D]."""
    if "" in row.stock:
        return row.stock[""]
    kept = {location: units for location, units in listing.stock.items() if location}
    return sum({**kept, **row.stock}.values())
