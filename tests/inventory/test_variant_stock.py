"""`VariantStock` against a small model that is written from the contract's sentences alone.

`Model` keeps the log of accepted updates and answers every question by replaying it; it shares no code with what it
judges. `Shelf` plays the database: it hands out a fresh `VariantStock` a transaction and keeps what was gathered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.inventory.variant_stock import Contribution, ListingStock, NewItem, StoredItem, VariantStock
from lumbung.model import Figure, StockLevel, StockUpdate

STORES = {1: "blib", 2: "shpe", 3: "blib"}
WAREHOUSES = (0, 1)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
DELIVERED = "Successfully Updated"
UNLINKED = "The warehouse no longer serves this store"

Links = dict[int, dict[int, str | None]]
Place = tuple[int, int]  # listing, warehouse


@dataclass
class Item:
    listing: int
    warehouse: int
    quantity: int
    update: int
    ended: str | None = None


# --- the contract, replayed ---


@dataclass
class Said:
    """One update of a warehouse, and the channels on which the SKU was listed where the warehouse serves."""

    update: StockUpdate
    listed: set[str]

    @property
    def sellable(self) -> int:
        return max(0, self.update.available - self.update.buffer)


@dataclass
class Model:
    log: dict[int, list[Said]] = field(default_factory=lambda: {warehouse: [] for warehouse in WAREHOUSES})
    links: Links = field(default_factory=lambda: {store: {0: None} for store in STORES})
    listings: dict[int, int] = field(default_factory=dict)
    showing: dict[Place, tuple[int, str | None]] = field(default_factory=dict)
    due: dict[int, int | None] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)

    def adds(self, warehouse: int, channel: str) -> int | None:
        """What a warehouse adds to the listings of a channel, from everything it ever said."""
        named = left = before = None
        for said in self.log[warehouse]:
            named = said.update.figures.get(channel, named)
            switched_off = before is not None and before.update.sync and not said.update.sync
            if before is not None and switched_off and (channel in said.listed or left is not None):
                left = before.sellable  # what it last showed
            if left is not None and not said.update.sync:
                left = min(left, said.sellable)
            before = said
        if before is None:
            return None
        if before.update.sync:
            return before.sellable
        return left if named is None else named

    def quantity(self, listing: int) -> int | None:
        store = self.listings[listing]
        parts = [self.adds(warehouse, STORES[store]) for warehouse in self.links[store]]
        return None if all(part is None for part in parts) else sum(part or 0 for part in parts)

    def update(self, warehouse: int, update: StockUpdate, version: int) -> None:
        asked = [
            listing
            for listing, store in self.listings.items()
            if warehouse in self.links[store] and (update.sync or STORES[store] in update.figures)
        ]
        newest = max((said.update.as_of for said in self.log[warehouse] if said.update.as_of), default=None)
        if newest and update.as_of and update.as_of < newest:
            for listing in asked:
                number = max(0, update.available - update.buffer)
                wanted = number if update.sync else update.figures[STORES[self.listings[listing]]]
                text = f"Not applied: older than {newest:%Y-%m-%dT%H:%M:%S}.000000Z"
                self.items.append(Item(listing, warehouse, wanted, version, text))
            return
        for listing in self.listings:
            self._forget_unlinked(listing, version)
            self._move(listing, version)
        served = [listing for listing, store in self.listings.items() if warehouse in self.links[store]]
        self.log[warehouse].append(Said(update, {STORES[self.listings[listing]] for listing in served}))
        for listing in served:
            adds = self.adds(warehouse, STORES[self.listings[listing]])
            shown = self.showing.get((listing, warehouse))
            if adds is not None and (listing in asked or shown is None or shown[0] != adds):
                self._end(listing, warehouse, f"Superseded by code {version}")
                self.items.append(Item(listing, warehouse, adds, version))
                self.showing[listing, warehouse] = (adds, self.links[self.listings[listing]][warehouse])
                self.due[listing] = version

    def settle(self, listing: int, version: int) -> None:
        store = self.listings[listing]
        self._forget_unlinked(listing, version)
        for warehouse, location in self.links[store].items():
            adds = self.adds(warehouse, STORES[store])
            if adds is not None and self.showing.get((listing, warehouse)) != (adds, location):
                self.showing[listing, warehouse] = (adds, location)
                self.due[listing] = version

    def remove(self, listing: int, message: str) -> None:
        for warehouse in WAREHOUSES:
            self._end(listing, warehouse, message)
        del self.listings[listing]
        self.due.pop(listing, None)

    def delivered(self, listing: int, version: int) -> None:
        for warehouse in WAREHOUSES:
            self._end(listing, warehouse, DELIVERED, up_to=version)

    def _forget_unlinked(self, listing: int, version: int) -> None:
        gone = [w for place, w in self.showing if place == listing and w not in self.links[self.listings[listing]]]
        for warehouse in gone:
            self._end(listing, warehouse, UNLINKED)
            del self.showing[listing, warehouse]
            self.due[listing] = version if any(place == listing for place, _ in self.showing) else None

    def _move(self, listing: int, version: int) -> None:
        links = self.links[self.listings[listing]]
        for (place, warehouse), (adds, location) in list(self.showing.items()):
            if place == listing and location != links[warehouse]:
                self.showing[listing, warehouse] = (adds, links[warehouse])
                self.due[listing] = version

    def _end(self, listing: int, warehouse: int, message: str, up_to: int = 1 << 60) -> None:
        for item in self.items:
            if (item.listing, item.warehouse, item.ended) == (listing, warehouse, None) and item.update <= up_to:
                item.ended = message


# --- the database, played ---


@dataclass
class Row:
    store: int
    version_settled: int = 0
    due: tuple[int, int] | None = None
    contributions: dict[int, Contribution] = field(default_factory=dict)


@dataclass
class Shelf:
    levels: dict[int, StockLevel] = field(default_factory=dict)
    figures: dict[int, dict[str, Figure]] = field(default_factory=dict)
    listings: dict[int, Row] = field(default_factory=dict)
    items: dict[int, Item] = field(default_factory=dict)

    def load(self, links: Links) -> VariantStock:
        variant = VariantStock(1, 1, "sku1", dict(self.levels), {w: dict(f) for w, f in self.figures.items()})
        for listing, row in self.listings.items():
            held = {
                warehouse: Contribution(c.quantity, c.location, c.version, c.item, c.calls_before)
                for warehouse, c in row.contributions.items()
            }
            variant.listings[listing] = ListingStock(
                listing,
                row.store,
                STORES[row.store],
                dict(links[row.store]),
                version_settled=row.version_settled,
                contributions=held,
            )
        return variant

    def write(self, variant: VariantStock) -> None:
        changes = variant.changes
        assert not changes.due.keys() & changes.cleared.keys()
        self.levels.update({w: variant.levels[w] for w in changes.levels})
        for warehouse, channel in changes.figures:
            self.figures.setdefault(warehouse, {})[channel] = variant.figures[warehouse][channel]
        for item in changes.items:
            item.id = len(self.items) + 1
            assert item.listing_id is not None
            self.items[item.id] = Item(item.listing_id, item.warehouse_id, item.quantity, item.update_id, item.message)
        for ended in changes.ended:
            self._end(ended.item.id, ended.message)
        for (listing, warehouse), held in changes.contributions.items():
            self.listings[listing].contributions[warehouse] = Contribution(
                held.quantity, held.location, held.version, _stored(held), held.calls_before
            )
        for listing, warehouse in changes.dropped:
            del self.listings[listing].contributions[warehouse]
        for listing, version in changes.due.items():
            quantity = variant.listings[listing].desired()
            assert quantity is not None
            self.listings[listing].due = (version, quantity)
        for listing, version in changes.cleared.items():
            self.listings[listing].due, self.listings[listing].version_settled = None, version

    def deliver(self, listing: int, version: int) -> None:
        row = self.listings[listing]
        for held in row.contributions.values():
            if isinstance(held.item, StoredItem) and row.version_settled < held.version <= version:
                assert self.items[held.item.id].update == held.version, "the version is part of the pointer"
                self._end(held.item.id, DELIVERED)
        row.version_settled = max(row.version_settled, version)

    def _end(self, item: int, message: str) -> None:
        assert self.items[item].ended is None, "an ended item never changes"
        self.items[item].ended = message


def _stored(held: Contribution) -> StoredItem | None:
    match held.item:
        case NewItem() as item:
            return StoredItem(item.update_id, item.created_at, item.id, 0)
        case item:
            return item


# --- what may happen, in any order ---

figures = st.sampled_from([(), (), ("blib",), ("shpe",), ("blib", "shpe")])
moments = st.sampled_from([None, None, *(NOON + timedelta(hours=hours) for hours in range(3))])
places = st.sampled_from(list(STORES))
houses = st.sampled_from(WAREHOUSES)


@st.composite
def updates(draw: st.DrawFn) -> tuple[int, StockUpdate]:
    available = draw(st.integers(0, 9))
    named = {channel: draw(st.integers(0, 12)) for channel in draw(figures)}
    buffer = draw(st.sampled_from([0, 0, available // 2, available]))
    return draw(houses), StockUpdate("sku1", "a", available, buffer, draw(st.booleans()), named, draw(moments))


class Stock(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.shelf = Shelf()
        self.version = 0
        self.unsettled: set[int] = set()
        self.calls: dict[int, int] = {}

    def _next(self) -> int:
        self.version += 1
        return self.version

    @initialize(stores=st.lists(places, min_size=1, max_size=3), linked=st.sets(places))
    def some_listings(self, stores: list[int], linked: set[int]) -> None:
        for store in stores:
            self.import_listing(store)
        for store in linked:
            self.model.links[store][1] = None

    @rule(group=st.lists(updates(), min_size=1, max_size=4))
    def accept(self, group: list[tuple[int, StockUpdate]]) -> None:
        variant = self.shelf.load(self.model.links)
        for warehouse, update in group:
            version = self._next()
            if variant.is_stale(update, warehouse):
                variant.refuse_stale(update, warehouse, version=version, at=NOON)
            else:
                variant.apply(update, warehouse, version=version, at=NOON, code=f"code {version}")
            self.model.update(warehouse, update, version)
        self.shelf.write(variant)

    @rule(store=places)
    def import_listing(self, store: int) -> None:
        version = self._next()
        listing = version
        self.shelf.listings[listing] = Row(store)
        self.model.listings[listing] = store
        variant = self.shelf.load(self.model.links)
        variant.recompute(variant.listings[listing], version=version)
        self.shelf.write(variant)
        self.model.settle(listing, version)

    @precondition(lambda self: self.model.listings)
    @rule(data=st.data())
    def remove_listing(self, data: st.DataObject) -> None:
        listing = data.draw(st.sampled_from(sorted(self.model.listings)))
        variant = self.shelf.load(self.model.links)
        variant.remove(variant.listings[listing], "Gone", version=self._next())
        self.shelf.write(variant)
        del self.shelf.listings[listing]
        self.calls.pop(listing, None)
        self.model.remove(listing, "Gone")

    @rule(
        store=places,
        warehouse=houses,
        location=st.sampled_from([None, "J", "S"]),
        settled=st.booleans(),
    )
    def link(self, store: int, warehouse: int, location: str | None, settled: bool) -> None:
        self.model.links[store][warehouse] = location
        self.unsettled.add(store)
        if settled:
            self.settle(store)

    @rule(store=places, warehouse=houses, settled=st.booleans())
    def unlink(self, store: int, warehouse: int, settled: bool) -> None:
        self.model.links[store].pop(warehouse, None)
        self.unsettled.add(store)
        if settled:
            self.settle(store)

    @rule(store=places)
    def settle(self, store: int) -> None:
        variant = self.shelf.load(self.model.links)
        version = self._next()
        for listing in variant.listings.values():
            if listing.store_id == store:
                variant.recompute(listing, version=version)
                self.model.settle(listing.id, version)
        self.shelf.write(variant)
        self.unsettled.discard(store)

    @rule(data=st.data())
    def start_a_call(self, data: st.DataObject) -> None:
        due = {listing: row.due[0] for listing, row in self.shelf.listings.items() if row.due}
        if due:
            listing = data.draw(st.sampled_from(sorted(due)))
            self.calls[listing] = due[listing]

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def a_call_is_answered(self, data: st.DataObject) -> None:
        self.answer(data.draw(st.sampled_from(sorted(self.calls))))

    def answer(self, listing: int) -> None:
        version = self.calls.pop(listing)
        self.shelf.deliver(listing, version)
        self.model.delivered(listing, version)

    def everything_holds(self) -> None:
        self.every_listing_is_due_to_show_what_the_contract_says()
        self.every_item_says_and_ends_as_the_contract_says()
        self.every_open_item_is_the_only_one_of_its_place_and_is_pointed_to()

    @invariant()
    def every_listing_is_due_to_show_what_the_contract_says(self) -> None:
        for listing, row in self.shelf.listings.items():
            if row.store not in self.unsettled:
                assert (row.due[1] if row.due else None) == self.model.quantity(listing)
            assert (row.due[0] if row.due else None) == self.model.due.get(listing)

    @invariant()
    def every_item_says_and_ends_as_the_contract_says(self) -> None:
        def key(item: Item) -> tuple[int, int, int]:
            return item.update, item.listing, item.warehouse

        assert sorted(self.shelf.items.values(), key=key) == sorted(self.model.items, key=key)

    @invariant()
    def every_open_item_is_the_only_one_of_its_place_and_is_pointed_to(self) -> None:
        opened = {number: item for number, item in self.shelf.items.items() if item.ended is None}
        pointed = {
            (listing, warehouse): held.item.id
            for listing, row in self.shelf.listings.items()
            for warehouse, held in row.contributions.items()
            if isinstance(held.item, StoredItem) and held.version > row.version_settled
        }
        assert {(item.listing, item.warehouse): number for number, item in opened.items()} == pointed
        assert len(opened) == len(pointed)
        for item in opened.values():
            due = self.shelf.listings[item.listing].due
            assert due is not None
            assert due[0] >= item.update


TestStock = Stock.TestCase
TestStock.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)


@settings(max_examples=200, deadline=None)
@given(groups=st.lists(st.lists(updates(), min_size=1, max_size=3), min_size=2, max_size=8))
def test_any_updates_in_any_groups_have_every_listing_show_what_the_contract_says(
    groups: list[list[tuple[int, StockUpdate]]],
) -> None:
    stock = Stock()
    stock.some_listings([1, 2, 3], {2, 3})
    for group in groups:
        stock.accept(group)
        stock.everything_holds()


changes = st.one_of(
    st.tuples(st.just("link"), houses, st.sampled_from([None, "J"])),
    st.tuples(st.just("unlink"), houses, st.none()),
    st.tuples(st.just("settle"), houses, st.none()),
    st.tuples(st.just("call"), houses, st.none()),
)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(updates().map(lambda update: ("accept", *update)) | changes, min_size=4, max_size=14))
def test_any_links_between_any_updates_end_in_the_right_sum(
    steps: list[tuple[str, int, StockUpdate | str | None]],
) -> None:
    stock = Stock()
    stock.some_listings([1], {1})
    for verb, warehouse, more in steps:
        if isinstance(more, StockUpdate):
            stock.accept([(warehouse, more)])
        elif verb == "link":
            stock.link(1, warehouse, more, settled=False)
        elif verb == "unlink":
            stock.unlink(1, warehouse, settled=False)
        elif verb == "settle":
            stock.settle(1)
        elif 1 in stock.calls:
            stock.answer(1)
        elif due := stock.shelf.listings[1].due:
            stock.calls[1] = due[0]
        stock.everything_holds()
    stock.settle(1)
    stock.everything_holds()


def test_a_link_undone_and_made_again_before_it_was_settled_leaves_the_right_sum() -> None:
    stock = Stock()
    stock.import_listing(1)
    stock.link(1, 1, None, settled=True)
    stock.accept([(0, StockUpdate("sku1", "a", 10, 0, True, {})), (1, StockUpdate("sku1", "b", 20, 0, True, {}))])
    stock.unlink(1, 0, settled=False)
    stock.accept([(1, StockUpdate("sku1", "b", 21, 0, True, {}))])
    stock.link(1, 0, None, settled=True)
    assert stock.shelf.listings[1].due is not None
    assert stock.shelf.listings[1].due[1] == 31


def test_the_last_warehouse_unlinked_clears_what_was_due_and_ends_its_item() -> None:
    stock = Stock()
    stock.import_listing(1)
    stock.accept([(0, StockUpdate("sku1", "a", 10, 0, False, {"blib": 4}))])
    stock.unlink(1, 0, settled=True)
    assert stock.shelf.listings[1].due is None
    assert [item.ended for item in stock.shelf.items.values()] == [UNLINKED]
