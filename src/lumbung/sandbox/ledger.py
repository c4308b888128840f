"""The truth: which stores there are, what their listings show, and everything that happened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal

import msgspec

from lumbung.sandbox.call import Change
from lumbung.sandbox.clock import Clock
from lumbung.sandbox.entries import CallEntry, Sale, Write
from lumbung.sandbox.errors import RefusedError, UnknownError
from lumbung.sandbox.json_lines import JsonLines
from lumbung.sandbox.log import Log

QUANTITY_MAX = 2**31 - 1
LISTINGS_MAX = 1_000_000

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Quantity = Annotated[int, msgspec.Meta(ge=0, le=QUANTITY_MAX)]
Condition = Literal["", "unknown", "banned", "locked", "failing"]
"""What is the matter with a listing: nothing, not there (any more), banned, locked by a promotion, or every call that
names it is answered 500."""


class NewListing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A listing as the control API takes it; `remote_variant` is the marketplace's id as a string."""

    remote_variant: Name
    sku: Name
    quantity: Quantity = 0


class Listing(msgspec.Struct):
    """`stock`: units by location ("" where the marketplace was told none); `quantity` is all of them. Of these,
    `reserved_by_orders` and `reserved_by_promotions` are spoken for: what that means for a write and for what is read
    is the marketplace's own affair. `applied_at` is when the last write took effect, in unix seconds; None when there
    was none."""

    remote_variant: str
    sku: str
    quantity_at_first: int
    stock: dict[str, int]
    reserved_by_orders: int = 0
    reserved_by_promotions: int = 0
    condition: Condition = ""
    applied_at: float | None = None

    @property
    def quantity(self) -> int:
        return sum(self.stock.values())

    def start_again(self) -> None:
        self.stock = {"": self.quantity_at_first}
        self.reserved_by_orders = self.reserved_by_promotions = 0
        self.condition = ""
        self.applied_at = None


class Store(msgspec.Struct):
    """`credentials` is what the marketplace of `channel` made of its settings; nobody else looks inside. `holiday`: the
    seller is away. `check` raises RefusedError when listings of these names are none of the marketplace's, or cannot
    stand side by side; `start_again` brings back what the store had at first beside its listings, such as tokens."""

    channel: str
    name: str
    credentials: object
    listings: dict[str, Listing]
    holiday: bool = False
    check: Callable[[Iterable[str]], None] | None = None
    start_again: Callable[[], None] | None = None


class Ledger:
    """`kept_max` is how many entries of each log stay in memory; the write log keeps all writes, the call log all calls
    that have ended."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        kept_max: int = 100_000,
        write_log: JsonLines | None = None,
        call_log: JsonLines | None = None,
    ):
        self.clock = clock or Clock()
        self.writes: Log[Write] = Log(kept_max)
        self.calls: Log[CallEntry] = Log(kept_max)
        self.sales: Log[Sale] = Log(kept_max)
        self.era = 0
        self.received = 0
        self._stores: dict[tuple[str, str], Store] = {}
        self._write_log = write_log
        self._call_log = call_log

    def put_store(self, store: Store) -> None:
        """Replaces the store of that name, with its listings."""
        self._stores[store.channel, store.name] = store

    def find_store(self, channel: str, name: str) -> Store | None:
        return self._stores.get((channel, name))

    def store(self, channel: str, name: str) -> Store:
        store = self.find_store(channel, name)
        if store is None:
            raise UnknownError(
                f"there is no store {name!r} of {channel!r}; PUT /_control/stores/{channel}/{name} makes it"
            )
        return store

    def stores(self, channel: str | None = None) -> Iterator[Store]:
        return (store for store in self._stores.values() if channel in (None, store.channel))

    def listing(self, channel: str, store: str, remote_variant: str) -> Listing:
        listing = self.store(channel, store).listings.get(remote_variant)
        if listing is None:
            raise UnknownError(f"store {store!r} has no listing {remote_variant!r}; POST it to its /listings first")
        return listing

    def add_listings(self, channel: str, store: str, new: Iterable[NewListing]) -> int:
        """All or none; a remote variant that is there already is refused. Returns how many the store has now."""
        found = self.store(channel, store)
        known, added = found.listings, listings_by_id(new)
        if twice := known.keys() & added.keys():
            raise RefusedError(f"store {store!r} has {min(twice)!r} already; PUT the store to replace all its listings")
        if found.check is not None:
            found.check((*known, *added))
        known.update(added)
        return len(known)

    def receive(self) -> int:
        """The number of a call that is received now; the first one since the start or the last reset has 1."""
        self.received += 1
        return self.received

    def end(self, call: CallEntry) -> None:
        """The call, numbered with `calls.last + 1`, has ended."""
        if self._call_log is not None:
            self._call_log.append(call.line())
        self.calls.append(call)

    def apply(self, change: Change, call: int) -> None:
        """The change takes effect now; `call` is the number under which its call was received. Does nothing when the
        listing is gone since the call was judged."""
        store = self.find_store(change.channel, change.store)
        listing = store.listings.get(change.remote_variant) if store is not None else None
        if listing is None:
            return
        write = Write(
            n=self.writes.last + 1,
            at=self.clock.now(),
            channel=change.channel,
            store=change.store,
            remote_variant=change.remote_variant,
            location=change.location,
            sku=listing.sku,
            quantity=change.quantity,
            call=call,
        )
        if change.location == "":
            listing.stock = {"": change.quantity}
        else:
            listing.stock.pop("", None)
            listing.stock[change.location] = change.quantity
        listing.applied_at = write.at
        if self._write_log is not None:
            self._write_log.append(write)
        self.writes.append(write)

    def sell(self, channel: str, store: str, remote_variant: str, quantity: int) -> Sale:
        """A customer buys. Not a write of ours: it stands in `sales`, never in `writes`."""
        listing = self.listing(channel, store, remote_variant)
        if quantity > listing.quantity:
            raise RefusedError(f"only {listing.quantity} of {remote_variant!r} are left; nobody can buy {quantity}")
        left = quantity
        for location, units in listing.stock.items():
            taken = min(units, left)
            listing.stock[location] = units - taken
            left -= taken
        sale = Sale(
            n=self.sales.last + 1,
            at=self.clock.now(),
            channel=channel,
            store=store,
            remote_variant=remote_variant,
            sku=listing.sku,
            quantity=quantity,
            left=listing.quantity,
        )
        self.sales.append(sale)
        return sale

    async def wait_for_writes(self, n: int) -> None:
        """Returns once n writes took effect since the start or the last reset."""
        await self.writes.wait_for(n)

    async def wait_for_calls(self, n: int) -> None:
        """Returns once n calls ended since the start or the last reset."""
        await self.calls.wait_for(n)

    def reset(self, *, keep_stores: bool = False) -> None:
        """As at the start; with `keep_stores` the stores stay and their listings show what they showed at first."""
        self.era += 1
        self.received = 0
        for log in (self.writes, self.calls, self.sales):
            log.clear()
        if not keep_stores:
            self._stores.clear()
        for store in self._stores.values():
            for listing in store.listings.values():
                listing.start_again()
            store.holiday = False
            if store.start_again is not None:
                store.start_again()

    def let_go(self) -> None:
        """Whoever waits for an entry need not wait any more: the sandbox stops."""
        for log in (self.writes, self.calls, self.sales):
            log.close()


def listings_by_id(new: Iterable[NewListing]) -> dict[str, Listing]:
    """Fresh listings by remote variant; one that is named twice is refused."""
    listings: dict[str, Listing] = {}
    for one in new:
        if one.remote_variant in listings:
            raise RefusedError(f"the remote_variant {one.remote_variant!r} is there twice; name each listing once")
        listings[one.remote_variant] = Listing(one.remote_variant, one.sku, one.quantity, {"": one.quantity})
    return listings
