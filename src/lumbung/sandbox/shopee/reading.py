"""What a shop, its items, models and warehouses show [D, section 1.5]; fields that a stock hub has no use for are left
out.

An order takes its units out of seller_stock at once (a sale over the control API does), so `reserved_by_orders` shows
nowhere. `total_reserved_stock` is what promotions have reserved; these units are part of seller_stock, and not of
`total_available_stock` [I: the pages do not say of which].
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lumbung.sandbox.call import Call, Verdict
from lumbung.sandbox.faults import RowFaults
from lumbung.sandbox.ledger import Condition, Listing, Store
from lumbung.sandbox.marketplace import check_failing, condition_of
from lumbung.sandbox.shopee.shop import shop_of, split
from lumbung.sandbox.shopee.wire import RefusalError, flat_success, success

SHOP_INFO = "/api/v2/shop/get_shop_info"
WAREHOUSES = "/api/v2/shop/get_warehouse_detail"
ITEM_LIST = "/api/v2/product/get_item_list"
ITEM_INFO = "/api/v2/product/get_item_base_info"
MODEL_LIST = "/api/v2/product/get_model_list"

ITEM_IDS_MAX = 50
PAGE_SIZE_MAX = 100
NUMBER_MAX = 2**63 - 1
ITEM_STATUSES = frozenset({"NORMAL", "BANNED", "UNLIST", "REVIEWING", "SELLER_DELETE", "SHOPEE_DELETE"})
AUTHORIZED_SECONDS = 365 * 86_400


def shop_info(call: Call, store: Store, row_faults: RowFaults) -> Verdict:
    authorized_at = int(shop_of(store).tokens.authorized_at)
    fields: dict[str, object] = {
        "shop_name": f"Shop {store.name}",
        "region": "ID",
        "status": "NORMAL",
        "auth_time": authorized_at,
        "expire_time": authorized_at + AUTHORIZED_SECONDS,
        "is_cb": False,
        "is_upgraded_cbsc": False,
        "merchant_id": None,
        "shop_fulfillment_flag": "Others",
    }
    return Verdict(flat_success(fields))


def warehouses(call: Call, store: Store, row_faults: RowFaults) -> Verdict:
    locations = shop_of(store).locations
    if not locations:
        raise RefusalError("warehouse.error_not_in_whitelist", "The shop is not in the whitelist of multi warehouse.")
    shown = [
        {
            "warehouse_id": number,
            "warehouse_name": f"Warehouse {location}",
            "warehouse_type": 1,
            "location_id": location,
            "address_id": number,
            "region": "ID",
            "holiday_mode_state": 0,
        }
        for number, location in enumerate(locations, 1)
    ]
    return Verdict(success(shown))


def item_list(call: Call, store: Store, row_faults: RowFaults) -> Verdict:
    offset = _number(call, "offset", 0, NUMBER_MAX)
    page_size = _number(call, "page_size", 1, PAGE_SIZE_MAX)
    status = call.query.get("item_status", "")
    if status not in ITEM_STATUSES:
        raise RefusalError("error_param", "Wrong parameters, detail: item_status.")
    opened_at = shop_of(store).opened_at
    # Writes of stock do not move an item's update_time [C]: all of a shop's items have the same, for ever.
    since = _number(call, "update_time_from", 0, NUMBER_MAX) if "update_time_from" in call.query else 0
    until = _number(call, "update_time_to", 0, NUMBER_MAX) if "update_time_to" in call.query else NUMBER_MAX
    items = shop_of(store).items
    statuses = {item_id: _status(store, item_id, row_faults) for item_id in items.ids()}
    struck = any(_is_struck(items.of(item_id), row_faults) for item_id in statuses)
    found = [item_id for item_id, shown in statuses.items() if shown == status and since <= opened_at <= until]
    page = found[offset : offset + page_size]
    left = len(found) > offset + len(page)
    response: dict[str, object] = {
        "item": [{"item_id": int(item_id), "item_status": status, "update_time": opened_at} for item_id in page],
        "total_count": len(found),
        "has_next_page": left,
    }
    if left:
        response["next_offset"] = offset + len(page)
    return Verdict(success(response), struck=struck)


def item_info(call: Call, store: Store, row_faults: RowFaults) -> Verdict:
    """Items that are not there are left out [I]."""
    asked = call.query.get("item_id_list", "").split(",")
    if not all(_is_number(item_id) for item_id in asked):
        raise RefusalError("error_param", "Wrong parameters, detail: item_id_list.")
    if len(asked) > ITEM_IDS_MAX:
        raise RefusalError("error_param", f"Wrong parameters, detail: item_id_list has more than {ITEM_IDS_MAX} ids.")
    opened_at = shop_of(store).opened_at
    items = []
    struck = False
    for item_id in dict.fromkeys(asked):
        variants = shop_of(store).items.of(item_id)
        check_failing(variants, row_faults)
        struck = struck or _is_struck(variants, row_faults)
        status = _status(store, item_id, row_faults)
        if not status:
            continue
        has_model = _has_models(variants)
        items.append(
            {
                "item_id": int(item_id),
                "item_sku": "" if has_model else variants[0].sku,
                "item_status": status,
                "has_model": has_model,
                "create_time": opened_at,
                "update_time": opened_at,
                "stock_info_v2": {**_summary(variants), "shopee_stock": [{"location_id": "", "stock": 0}]},
            }
        )
    return Verdict(success({"item_list": items}), struck=struck)


def model_list(call: Call, store: Store, row_faults: RowFaults) -> Verdict:
    """Without models when the item has none [I]."""
    item_id = call.query.get("item_id", "")
    if not _is_number(item_id):
        raise RefusalError("error_param", "Wrong parameters, detail: item_id.")
    variants = shop_of(store).items.of(item_id)
    check_failing(variants, row_faults)
    struck = _is_struck(variants, row_faults)
    if not _status(store, item_id, row_faults):
        raise RefusalError("error_item_not_found", "Product not found.", struck=struck)
    models = [
        {
            "model_id": int(split(listing.remote_variant)[1]),
            "model_sku": listing.sku,
            "model_status": "MODEL_NORMAL" if condition != "banned" else "MODEL_UNAVAILABLE",
            "tier_index": [number],
            # A string here, and only here [C].
            "stock_info_v2": {**_summary([listing]), "shopee_stock": [{"location_id": "", "stock": "0"}]},
        }
        for number, (listing, condition) in enumerate(_there(variants, row_faults))
        if _has_models(variants)
    ]
    options = [{"option": model["model_sku"]} for model in models]
    tiers = [{"name": "Variation", "option_list": options}] if models else []
    return Verdict(success({"tier_variation": tiers, "model": models}), struck=struck)


def _summary(variants: Sequence[Listing]) -> dict[str, object]:
    """The seller's part of stock_info_v2: of a model, or of all the models of an item, added up."""
    places: dict[str, int] = {}
    for listing in variants:
        for location, units in listing.stock.items():
            places[location] = places.get(location, 0) + units
    reserved = sum(listing.reserved_by_promotions for listing in variants)
    return {
        "summary_info": {
            "total_reserved_stock": reserved,
            "total_available_stock": max(0, sum(places.values()) - reserved),
        },
        "seller_stock": [
            {"location_id": location, "stock": units, "if_saleable": True} for location, units in places.items()
        ],
    }


def _status(store: Store, item_id: str, row_faults: RowFaults) -> str:
    """The item's status; "" when it is not there."""
    conditions = {condition for _, condition in _there(shop_of(store).items.of(item_id), row_faults)}
    if not conditions:
        return ""
    return "BANNED" if conditions == {"banned"} else "NORMAL"


def _there(variants: Iterable[Listing], row_faults: RowFaults) -> list[tuple[Listing, Condition]]:
    conditions = [(listing, condition_of(listing, row_faults)[0]) for listing in variants]
    return [(listing, condition) for listing, condition in conditions if condition != "unknown"]


def _is_struck(variants: Iterable[Listing], row_faults: RowFaults) -> bool:
    """Whether the fault set changes what is read; a lock does not show."""
    conditions = [condition_of(listing, row_faults) for listing in variants]
    return any(struck and condition in {"unknown", "banned"} for condition, struck in conditions)


def _has_models(variants: Sequence[Listing]) -> bool:
    return bool(split(variants[0].remote_variant)[1])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20


def _number(call: Call, name: str, least: int, most: int) -> int:
    text = call.query.get(name, "")
    if not (_is_number(text) and least <= int(text) <= most):
        raise RefusalError("error_param", f"Wrong parameters, detail: {name}.")
    return int(text)
