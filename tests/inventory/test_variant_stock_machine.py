"""Merging and versions: what a burst of updates leaves is what they leave one after another.

The model is the list of updates; its answer to what a listing shows is the sum, over the warehouses that serve it, of
the newest word of each. (test_variant_stock.py has the contract's finer points.)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.inventory.variant_stock import Contribution, ListingStock, NewItem, StoredItem, VariantStock
from lumbung.model import StockUpdate

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
WAREHOUSES = (1, 2, 3)
CHANNELS = {1: "blib", 2: "shpe", 3: "blib"}  # of listings 1 to 3; a removed one comes back as 11, 21, ...

Group = list[tuple[int, StockUpdate]]


def synced(available: int, buffer: int = 0) -> StockUpdate:
    return StockUpdate("sku1", "a", available, buffer, True, {})


def named(**figures: int) -> StockUpdate:
    return StockUpdate("sku1", "a", 100, 0, False, figures)


updates = st.builds(synced, st.integers(0, 20), st.integers(0, 5)) | st.builds(
    lambda blib, shpe: named(blib=blib, shpe=shpe), st.integers(0, 20), st.integers(0, 20)
)
groups = st.lists(st.tuples(st.sampled_from(WAREHOUSES), updates), min_size=1, max_size=6)


@dataclass
class Shelf:
    """The database, played: what transactions have left. `ends`: how often each item has ended, and why."""

    variant: VariantStock = field(default_factory=lambda: VariantStock(1, 1, "sku1"))
    due: dict[int, int] = field(default_factory=dict)
    versions: dict[int, list[int]] = field(default_factory=dict)
    items: dict[tuple[int, int, int], str | None] = field(default_factory=dict)  # update, listing, warehouse
    ends: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    ids: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def accept(self, group: Group, first_version: int) -> None:
        """One transaction."""
        for version, (warehouse, update) in enumerate(group, start=first_version):
            self.variant.apply(update, warehouse, version=version, at=NOON, code=f"{version}")
        self.write()

    def write(self) -> None:
        old, listings = self.variant, self.variant.listings
        changes = old.changes
        for item in changes.items:
            assert item.listing_id is not None
            key = (item.update_id, item.listing_id, item.warehouse_id)
            assert key not in self.items
            item.id = len(self.ids) + 1
            self.ids[item.id] = key
            self.items[key] = item.message
            self.ends[key] += item.success is not None
        for ended in changes.ended:
            self.end(self.ids[ended.item.id], ended.message)
        assert not changes.due.keys() & changes.cleared.keys()
        for listing, version in (changes.due | changes.cleared).items():
            self.versions.setdefault(listing, []).append(version)
        self.due |= changes.due
        for listing in changes.cleared:
            self.due.pop(listing, None)
        self.variant = VariantStock(1, 1, "sku1", old.levels, old.figures, listings)
        for stock in listings.values():
            stock.contributions = {place: reloaded(held) for place, held in stock.contributions.items()}

    def end(self, key: tuple[int, int, int], message: str) -> None:
        self.items[key] = message
        self.ends[key] += 1

    def deliver(self, listing: int) -> None:
        """The marketplace has taken what was due: items up to that version end."""
        stock, version = self.variant.listings[listing], self.due[listing]
        for held in stock.contributions.values():
            if isinstance(held.item, StoredItem) and stock.version_settled < held.version <= version:
                self.end(self.ids[held.item.id], "Successfully Updated")
        stock.version_settled = max(stock.version_settled, version)

    def shows(self, listing: int) -> int | None:
        return self.variant.listings[listing].desired()


def reloaded(held: Contribution) -> Contribution:
    item = held.item
    stored = StoredItem(item.update_id, item.created_at, item.id, 0) if isinstance(item, NewItem) else item
    return Contribution(held.quantity, held.location, held.version, stored, held.calls_before)


class Merging(RuleBasedStateMachine):
    """Two shelves get the same: one a transaction for each burst, the other one for each update."""

    @initialize(serving=st.lists(st.sets(st.sampled_from(WAREHOUSES), min_size=1), min_size=3, max_size=3))
    def make(self, serving: list[set[int]]) -> None:
        self.burst, self.one_by_one = Shelf(), Shelf()
        self.shelves = (self.burst, self.one_by_one)
        self.log: list[tuple[int, StockUpdate]] = []
        self.version = 0
        self.serving: dict[int, set[int]] = {}
        self.channel: dict[int, str] = {}
        for listing, warehouses in enumerate(serving, start=1):
            self.list_it(listing, CHANNELS[listing], warehouses)

    def list_it(self, listing: int, channel: str, warehouses: set[int]) -> None:
        self.serving[listing], self.channel[listing] = set(warehouses), channel
        for shelf in self.shelves:
            shelf.variant.listings[listing] = ListingStock(listing, listing, channel, dict.fromkeys(warehouses))

    def recompute(self, listing: int) -> None:
        self.version += 1
        for shelf in self.shelves:
            shelf.variant.recompute(shelf.variant.listings[listing], version=self.version)
            shelf.write()

    @rule(group=groups)
    def updates_come(self, group: Group) -> None:
        self.burst.accept(group, self.version + 1)
        for number, update in enumerate(group):
            self.one_by_one.accept([update], self.version + 1 + number)
        self.version += len(group)
        self.log += group

    @precondition(lambda self: self.serving)
    @rule(data=st.data(), warehouses=st.sets(st.sampled_from(WAREHOUSES)))
    def links_change(self, data: st.DataObject, warehouses: set[int]) -> None:
        listing = data.draw(st.sampled_from(sorted(self.serving)))
        self.serving[listing] = warehouses
        for shelf in self.shelves:
            shelf.variant.listings[listing].serving = dict.fromkeys(warehouses)
        self.recompute(listing)

    @precondition(lambda self: self.serving)
    @rule(data=st.data())
    def a_listing_is_removed_and_another_made(self, data: st.DataObject) -> None:
        listing = data.draw(st.sampled_from(sorted(self.serving)))
        self.version += 1
        for shelf in self.shelves:
            shelf.variant.remove(shelf.variant.listings[listing], "Gone", version=self.version)
            shelf.write()
            del shelf.variant.listings[listing]
        warehouses, channel = self.serving.pop(listing), self.channel.pop(listing)
        self.list_it(listing + 10, channel, warehouses)
        self.recompute(listing + 10)

    @rule(data=st.data())
    def one_is_delivered(self, data: st.DataObject) -> None:
        if self.burst.due.keys() & self.serving.keys():
            listing = data.draw(st.sampled_from(sorted(self.burst.due.keys() & self.serving.keys())))
            for shelf in self.shelves:
                shelf.deliver(listing)

    def newest(self, warehouse: int, channel: str) -> int | None:
        for place, update in reversed(self.log):
            if place == warehouse:
                return max(0, update.available - update.buffer) if update.sync else update.figures[channel]
        return None

    @invariant()
    def a_listing_shows_the_sum_of_the_newest_word_of_each_warehouse_that_serves_it(self) -> None:
        for listing, warehouses in self.serving.items():
            words = [self.newest(warehouse, self.channel[listing]) for warehouse in warehouses]
            known = [word for word in words if word is not None]
            expected = sum(known) if known else None
            assert [shelf.shows(listing) for shelf in self.shelves] == [expected, expected]
            assert (listing in self.burst.due) == (expected is not None)

    @invariant()
    def a_burst_leaves_what_one_after_another_leave(self) -> None:
        assert self.burst.due == self.one_by_one.due
        assert self.burst.items == self.one_by_one.items
        assert self.burst.variant.levels == self.one_by_one.variant.levels
        assert self.burst.variant.figures == self.one_by_one.variant.figures
        for listing in self.serving:
            held = [shelf.variant.listings[listing].contributions for shelf in self.shelves]
            assert [(place, c.quantity, c.version) for place, c in sorted(held[0].items())] == [
                (place, c.quantity, c.version) for place, c in sorted(held[1].items())
            ]

    @invariant()
    def versions_grow(self) -> None:
        for shelf in self.shelves:
            for versions in shelf.versions.values():
                assert versions == sorted(set(versions))

    @invariant()
    def every_item_ends_at_most_once_and_the_newest_of_a_place_last(self) -> None:
        for shelf in self.shelves:
            assert max(shelf.ends.values(), default=0) <= 1
            places: dict[tuple[int, int], list[str | None]] = {}
            for (_, listing, warehouse), message in sorted(shelf.items.items()):
                places.setdefault((listing, warehouse), []).append(message)
            for messages in places.values():
                assert None not in messages[:-1], "what was overtaken has ended"

    @invariant()
    def an_item_is_superseded_only_by_a_later_update_of_its_own_warehouse(self) -> None:
        for (update, listing, warehouse), message in self.burst.items.items():
            if message and message.startswith("Superseded by "):
                by = int(message.removeprefix("Superseded by "))
                assert by > update
                assert (by, listing, warehouse) in self.burst.items

    def teardown(self) -> None:
        """At rest, when all that is due has been delivered, every item has ended exactly once."""
        if not hasattr(self, "serving"):
            return
        for shelf in self.shelves:
            for listing in shelf.due.keys() & self.serving.keys():
                shelf.deliver(listing)
            assert None not in shelf.items.values()
            assert shelf.ends == dict.fromkeys(shelf.items, 1)


TestMerging = Merging.TestCase
TestMerging.settings = settings(max_examples=80, stateful_step_count=15, deadline=None)


def shelf_with(*serving: set[int]) -> Shelf:
    shelf = Shelf()
    for listing, warehouses in enumerate(serving, start=1):
        shelf.variant.listings[listing] = ListingStock(listing, 1, "blib", dict.fromkeys(warehouses))
    return shelf


def test_two_warehouses_of_one_burst_are_summed_at_the_last_version() -> None:
    shelf = shelf_with({1, 2})
    shelf.accept([(1, synced(5)), (2, synced(7)), (1, synced(6))], 101)
    assert (shelf.shows(1), shelf.due) == (13, {1: 103})
    assert shelf.items == {(101, 1, 1): "Superseded by 103", (102, 1, 2): None, (103, 1, 1): None}


def test_an_update_never_supersedes_an_item_of_another_warehouse() -> None:
    shelf = shelf_with({1, 2})
    for version, warehouse in enumerate([1, 2, 2, 2], start=101):
        shelf.accept([(warehouse, synced(version))], version)
    assert shelf.items[(101, 1, 1)] is None
    shelf.deliver(1)
    assert shelf.items == {
        (101, 1, 1): "Successfully Updated",
        (102, 1, 2): "Superseded by 103",
        (103, 1, 2): "Superseded by 104",
        (104, 1, 2): "Successfully Updated",
    }


@pytest.mark.parametrize("size", [1, 50])
def test_a_burst_of_one_sku_makes_its_listing_due_once_at_the_newest(size: int) -> None:
    shelf = shelf_with({1})
    shelf.accept([(1, synced(quantity)) for quantity in range(size)], 101)
    assert (shelf.shows(1), shelf.versions) == (size - 1, {1: [100 + size]})


@given(group=groups)
@settings(max_examples=100, deadline=None)
def test_the_order_of_updates_of_different_warehouses_makes_no_difference_to_what_is_shown(group: Group) -> None:
    by_warehouse = sorted(group, key=lambda entry: entry[0])  # stable: each warehouse keeps its own order
    shown = []
    for updates_in_order in (group, by_warehouse):
        shelf = shelf_with({1, 2}, {2, 3})
        shelf.accept(updates_in_order, 101)
        shown.append([shelf.shows(listing) for listing in (1, 2)])
    assert shown[0] == shown[1]
