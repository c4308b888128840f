"""Accepting an update, in memory: decided by the real VariantStock, as inventory/stock.py does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from lumbung.inventory.sellable import lane_of
from lumbung.inventory.stock import due_of
from lumbung.inventory.variant_stock import Contribution as Held
from lumbung.inventory.variant_stock import EndedItem, ListingStock, NewItem, StoredItem, VariantStock
from lumbung.model import StockUpdate
from tests.simulation.tables import Contribution, Item, Key, Listing, State, Tables, Update


@dataclass(frozen=True, slots=True)
class Accepted:
    """`due`: the listings that are to be told something; `hints`: what a wake-up says of them."""

    update_id: int
    code: str
    hints: dict[int, dict[int, int]]
    due: tuple[int, ...]


def accept(tables: Tables, tenant_id: int, update: StockUpdate, code: str, warehouse_id: int = 0) -> Accepted:
    variant_id = tables.variants[tenant_id, update.sku]
    stock = _load(tables, tenant_id, variant_id, update.sku)
    tables.version += 1
    version, at = tables.version, datetime.fromtimestamp(tables.now(), UTC)
    stock.apply(update, warehouse_id, version=version, at=at, code=code)
    items = stock.changes.items
    still_open = sum(item.message is None for item in items)
    tables.updates[version] = Update(version, tenant_id, code, at, len(items), still_open)
    ids_taken = tables.item + len(stock.channels_served_by(warehouse_id))  # as many items as there may be
    _write(tables, stock)
    tables.item = ids_taken
    return Accepted(version, code, due_of(stock, items), tuple(stock.changes.due))


def _load(tables: Tables, tenant_id: int, variant_id: int, sku: str) -> VariantStock:
    key = (tenant_id, variant_id)
    stock = VariantStock(tenant_id, variant_id, sku)
    stock.levels.update(tables.levels.get(key, {}))
    stock.figures.update({warehouse: dict(of) for warehouse, of in tables.figures.get(key, {}).items()})
    for listing in tables.listings.values():
        if (listing.tenant_id, listing.variant_id) == key:
            stock.listings[listing.id] = _listing(tables, listing)
    return stock


def _listing(tables: Tables, listing: Listing) -> ListingStock:
    key = (listing.tenant_id, listing.id)
    store, state = tables.stores[listing.store_id], tables.states.get(key)
    stock = ListingStock(listing.id, store.id, store.channel, dict(store.serving))
    if state is not None:
        stock.delivered, stock.version_settled, stock.calls = (
            state.quantity_delivered,
            state.version_settled,
            state.calls,
        )
    for warehouse, row in tables.contributions.get(key, {}).items():
        item = None
        if row.item_id is not None and row.item_created_at is not None:
            item = StoredItem(row.version, row.item_created_at, row.item_id, max(0, stock.calls - row.calls_before))
        stock.contributions[warehouse] = Held(row.quantity, row.location, row.version, item, row.calls_before)
    return stock


def _write(tables: Tables, stock: VariantStock) -> None:
    changes, tenant_id = stock.changes, stock.tenant_id
    for item in changes.items:
        _write_item(tables, tenant_id, item)
    for listing_id, version in changes.due.items():
        listing = stock.listings[listing_id]
        quantity = listing.desired()
        if quantity is not None:
            lane = int(lane_of(quantity, listing.delivered))
            _write_state(tables, (tenant_id, listing_id), listing.store_id, lane, version, quantity)
    for listing_id, version in changes.cleared.items():
        _clear(tables, (tenant_id, listing_id), version)
    for (listing_id, warehouse), held in changes.contributions.items():
        of_listing = tables.contributions.setdefault((tenant_id, listing_id), {})
        _leave(tables, (tenant_id, listing_id), of_listing.get(warehouse), held.location)
        of_listing[warehouse] = _contribution(held)
    for listing_id, warehouse in changes.dropped:
        dropped = tables.contributions.get((tenant_id, listing_id), {}).pop(warehouse, None)
        _leave(tables, (tenant_id, listing_id), dropped, None)
    tables.levels[tenant_id, stock.id] = stock.levels
    tables.figures[tenant_id, stock.id] = stock.figures
    for ended in changes.ended:
        _end(tables, ended)


def _leave(tables: Tables, key: Key, before: Contribution | None, location: str | None) -> None:
    """A listing that is no longer shown at a location is remembered there."""
    if before is not None and before.location is not None and before.location != location:
        tables.former.setdefault(key, set()).add(before.location)


def _write_item(tables: Tables, tenant_id: int, item: NewItem) -> None:
    tables.item += 1
    item.id = tables.item
    tables.items[item.id] = Item(
        item.id,
        item.update_id,
        tenant_id,
        item.listing_id,
        item.store_id,
        item.quantity,
        item.created_at,
        item.success,
        item.message,
    )


def _contribution(held: Held) -> Contribution:
    item = held.item
    return Contribution(
        held.quantity,
        held.location,
        held.version,
        item.id if item else None,
        item.created_at if item else None,
        held.calls_before,
    )


def _end(tables: Tables, ended: EndedItem) -> None:
    item = tables.items[ended.item.id]
    if item.success is None:
        item.success, item.message, item.retries = ended.success, ended.message, max(0, ended.item.calls - 1)
        tables.updates[item.update_id].items_open -= 1


def _write_state(tables: Tables, key: Key, store_id: int, lane: int, version: int, quantity: int) -> None:
    s, now = tables.states.get(key), tables.now()
    if s is None:
        tables.states[key] = State(*key, store_id, lane, version, quantity, now)
        return
    s.version_due, s.quantity_due = version, quantity
    s.due_since = now if s.due_since is None else s.due_since
    s.due_for = "ask" if s.due_for == "ask" else "push"
    keeps_parked = s.state == "parked" and s.park_retry_at is not None
    if s.state == "waiting" or keeps_parked:
        s.lane = 0
    elif s.state == "parked":
        s.state, s.lane = "due", 3
    else:
        s.state, s.lane = "due", lane + (3 if s.attempts > 0 else 0)
    if not keeps_parked:
        s.park_reason = None
    s.check()


def _clear(tables: Tables, key: Key, version: int) -> None:
    s = tables.states.get(key)
    if s is not None:
        s.state, s.lane, s.park_reason, s.park_retry_at = "idle", 0, None, None
        s.version_due, s.version_settled, s.due_for = version, version, "push"
        s.due_since, s.failing_since, s.quantity_floor = None, None, None
        s.handle, s.handle_version, s.handle_quantity, s.handle_at = None, None, None, None
        s.check()
    tables.waits.pop(key, None)
