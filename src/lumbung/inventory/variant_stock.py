"""A locked variant held in memory: its levels, figures, listings and contributions, and what changes do to them.

Nothing here reads or writes the database: inventory/stock.py and inventory/listings.py fill a `VariantStock` after they
have locked the variant, call its methods in order, and write what `changes` has gathered. A row that several changes
touch is gathered once, with its last value (a statement may not touch a row twice).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from lumbung.inventory.sellable import contribution, desired, figures_after, sellable
from lumbung.model import Figure, StockLevel, StockUpdate

Key = tuple[int, int]


@dataclass(slots=True)
class NewItem:
    """An item of an update that is being accepted. `message` None: open. `id` is given before it is written."""

    update_id: int
    created_at: datetime
    listing_id: int | None
    store_id: int
    warehouse_id: int
    variant_id: int
    channel: str
    quantity: int
    success: bool | None = None
    message: str | None = None
    id: int = 0

    def end(self, *, success: bool, message: str) -> None:
        self.success, self.message = success, message


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item that is in the history already. `calls`: calls made for it so far."""

    update_id: int
    created_at: datetime
    id: int
    calls: int


@dataclass(frozen=True, slots=True)
class EndedItem:
    item: StoredItem
    success: bool
    message: str


@dataclass(slots=True)
class Contribution:
    """What one warehouse adds to a listing, since which version, and its one open item, if any."""

    quantity: int
    location: str | None
    version: int
    item: NewItem | StoredItem | None
    calls_before: int


@dataclass(slots=True)
class ListingStock:
    """One live listing. `serving`: the warehouses that serve its store, each with its location there."""

    id: int
    store_id: int
    channel: str
    serving: dict[int, str | None] = field(default_factory=dict)
    delivered: int | None = None
    version_settled: int = 0
    calls: int = 0
    contributions: dict[int, Contribution] = field(default_factory=dict)

    def desired(self) -> int | None:
        return desired(c.quantity for warehouse, c in self.contributions.items() if warehouse in self.serving)


@dataclass(slots=True)
class Changes:
    """What is to be written for one variant."""

    levels: set[int] = field(default_factory=set)
    figures: set[tuple[int, str]] = field(default_factory=set)
    contributions: dict[Key, Contribution] = field(default_factory=dict)
    dropped: set[Key] = field(default_factory=set)
    due: dict[int, int] = field(default_factory=dict)
    """Listing -> the version that it is due to show."""
    cleared: dict[int, int] = field(default_factory=dict)
    """Listing that is to show nothing any more -> version."""
    items: list[NewItem] = field(default_factory=list)
    ended: list[EndedItem] = field(default_factory=list)


@dataclass(slots=True)
class VariantStock:
    tenant_id: int
    id: int
    sku: str
    levels: dict[int, StockLevel] = field(default_factory=dict)
    figures: dict[int, dict[str, Figure]] = field(default_factory=dict)
    listings: dict[int, ListingStock] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)

    def sellable_of(self, update: StockUpdate, warehouse_id: int) -> int:
        """What the update leaves to sell in its warehouse, units held for orders subtracted."""
        return sellable(self._level_after(update, warehouse_id))

    def is_stale(self, update: StockUpdate, warehouse_id: int) -> bool:
        """Whether the update's as_of is older than the newest accepted one. Equal counts as newer."""
        level = self.levels.get(warehouse_id)
        newest = level.newest_as_of if level else None
        return update.as_of is not None and newest is not None and update.as_of < newest

    def concerned(self, update: StockUpdate, warehouse_id: int) -> list[ListingStock]:
        """The listings that an update is about: all that the warehouse serves, or without sync the named channels'."""
        return [
            listing
            for listing in self.listings.values()
            if warehouse_id in listing.serving and (update.sync or listing.channel in update.figures)
        ]

    def channels_served_by(self, warehouse_id: int) -> list[str]:
        """The channel of each listing that a warehouse serves."""
        return [listing.channel for listing in self.listings.values() if warehouse_id in listing.serving]

    def asks_of(self, update: StockUpdate, warehouse_id: int, channel: str) -> int:
        """What an update asks a named channel to show for its warehouse."""
        return self.sellable_of(update, warehouse_id) if update.sync else update.figures[channel]

    def apply(self, update: StockUpdate, warehouse_id: int, *, version: int, at: datetime, code: object) -> None:
        """Take an update in. `version` is also its id; `code` names it to the items that it overtakes."""
        for listing in self.listings.values():
            dropped = self._drop_unlinked(listing)
            if self._follow_links(listing) or dropped:
                self._show(listing, version)
        before = self.levels.get(warehouse_id)
        after = self._level_after(update, warehouse_id)
        served = [listing for listing in self.listings.values() if warehouse_id in listing.serving]
        old_figures = self.figures.get(warehouse_id, {})
        new_figures = figures_after(before, after, old_figures, update.figures, {item.channel for item in served})
        self.levels[warehouse_id] = after
        self.figures[warehouse_id] = new_figures
        self.changes.levels.add(warehouse_id)
        self.changes.figures.update(
            (warehouse_id, channel) for channel, figure in new_figures.items() if figure != old_figures.get(channel)
        )
        about = {listing.id for listing in self.concerned(update, warehouse_id)}
        for listing in served:
            self._contribute(listing, warehouse_id, version, at, code, about=listing.id in about)

    def refuse_stale(self, update: StockUpdate, warehouse_id: int, *, version: int, at: datetime) -> None:
        """Record an update whose as_of is too old: its items end at once, nothing else changes."""
        newest = self.levels[warehouse_id].newest_as_of
        assert newest is not None
        for listing in self.concerned(update, warehouse_id):
            quantity = self.asks_of(update, warehouse_id, listing.channel)
            item = self._item(listing, warehouse_id, quantity, version, at)
            item.end(success=False, message=f"Not applied: older than {newest:%Y-%m-%dT%H:%M:%S.%fZ}")
            self.changes.items.append(item)

    def refuse_channel(
        self, update: StockUpdate, warehouse_id: int, channel: str, message: str, *, version: int, at: datetime
    ) -> None:
        """One item, ended at once, for a named channel that cannot be reached."""
        quantity = self.asks_of(update, warehouse_id, channel)
        item = NewItem(version, at, None, 0, warehouse_id, self.id, channel, quantity)
        item.end(success=False, message=message)
        self.changes.items.append(item)

    def recompute(self, listing: ListingStock, *, version: int) -> None:
        """Bring one listing in line with the levels, figures and links as they are now (imports, store changes)."""
        changed = self._drop_unlinked(listing)
        for warehouse, location in listing.serving.items():
            changed |= self._refresh(listing, warehouse, location, version)
        if changed:
            self._show(listing, version)

    def remove(self, listing: ListingStock, message: str, *, version: int) -> None:
        """End a listing's items at once and send it nothing any more."""
        for held in listing.contributions.values():
            self._end_item(listing, held, success=False, message=message)
        self.changes.due.pop(listing.id, None)
        self.changes.cleared[listing.id] = version

    def _level_after(self, update: StockUpdate, warehouse_id: int) -> StockLevel:
        before = self.levels.get(warehouse_id)
        newest = before.newest_as_of if before else None
        return StockLevel(
            available=update.available,
            buffer=update.buffer,
            sync=update.sync,
            reserved=before.reserved if before else 0,
            newest_as_of=update.as_of or newest,
        )

    def _contribute(
        self, listing: ListingStock, warehouse_id: int, version: int, at: datetime, code: object, *, about: bool
    ) -> None:
        quantity = contribution(self.levels[warehouse_id], self.figures[warehouse_id].get(listing.channel))
        held = listing.contributions.get(warehouse_id)
        if quantity is None or (not about and held is not None and held.quantity == quantity):
            return
        if held is not None:
            self._end_item(listing, held, success=True, message=f"Superseded by {code}")
        item = self._item(listing, warehouse_id, quantity, version, at)
        self.changes.items.append(item)
        self._hold(
            listing, warehouse_id, Contribution(quantity, listing.serving[warehouse_id], version, item, listing.calls)
        )
        self._show(listing, version)

    def _refresh(self, listing: ListingStock, warehouse_id: int, location: str | None, version: int) -> bool:
        figure = self.figures.get(warehouse_id, {}).get(listing.channel)
        quantity = contribution(self.levels.get(warehouse_id), figure)
        held = listing.contributions.get(warehouse_id)
        if quantity is None or (held is not None and (held.quantity, held.location) == (quantity, location)):
            return False
        item = held.item if held else None
        calls_before = held.calls_before if held else listing.calls
        item_version = held.version if held and item else version
        self._hold(listing, warehouse_id, Contribution(quantity, location, item_version, item, calls_before))
        return True

    def _hold(self, listing: ListingStock, warehouse_id: int, held: Contribution) -> None:
        listing.contributions[warehouse_id] = held
        self.changes.contributions[(listing.id, warehouse_id)] = held
        self.changes.dropped.discard((listing.id, warehouse_id))

    def _show(self, listing: ListingStock, version: int) -> None:
        """Have a listing show what it is to show now, if anything."""
        due, cleared = self.changes.due, self.changes.cleared
        if listing.desired() is None:
            due, cleared = cleared, due
        due[listing.id] = version
        cleared.pop(listing.id, None)

    def _drop_unlinked(self, listing: ListingStock) -> bool:
        """Drop what warehouses contribute that no longer serve the store. Updates do it too: a link that is undone and
        made again before the listings were recomputed would otherwise leave a sum without it."""
        dropped = [warehouse for warehouse in listing.contributions if warehouse not in listing.serving]
        for warehouse in dropped:
            self._drop(listing, warehouse)
        return bool(dropped)

    def _follow_links(self, listing: ListingStock) -> bool:
        """Move what warehouses contribute to where they are linked now, all of it at once: a push that shows one part
        at its new location and another at none would put both in one place."""
        moved = [w for w, held in listing.contributions.items() if held.location != listing.serving[w]]
        for warehouse in moved:
            held = listing.contributions[warehouse]
            self._hold(listing, warehouse, replace(held, location=listing.serving[warehouse]))
        return bool(moved)

    def _drop(self, listing: ListingStock, warehouse_id: int) -> None:
        held = listing.contributions.pop(warehouse_id)
        self._end_item(listing, held, success=False, message="The warehouse no longer serves this store")
        self.changes.contributions.pop((listing.id, warehouse_id), None)
        self.changes.dropped.add((listing.id, warehouse_id))

    def _item(self, listing: ListingStock, warehouse_id: int, quantity: int, version: int, at: datetime) -> NewItem:
        return NewItem(version, at, listing.id, listing.store_id, warehouse_id, self.id, listing.channel, quantity)

    def _end_item(self, listing: ListingStock, held: Contribution, *, success: bool, message: str) -> None:
        match held.item:
            case NewItem() as item:
                item.end(success=success, message=message)
            case StoredItem() as item if item.update_id > listing.version_settled:
                self.changes.ended.append(EndedItem(item, success, message))
            case _:
                return
        held.item = None
