"""Telling a store that is set up wrongly from items that are: the storm rule. Pure.

When one listing after another is rejected and none succeeds, it is not the listings. So a rejection is held until
something tells which it is:

    a success                                   the held ones were the items' own fault: they are parked
    `rejections_max` things in a row            a storm: the store pauses, none is parked
    nothing else to try                         nothing more can be learnt now: they are parked, and still counted

A listing that was parked while it was still counted is named again when the storm comes, to be brought back. Things are
counted, not listings: an item that was deleted takes all its variations with it, and is one thing. But a shop of few
items with many variations each may be set up wrongly too: so many listings are a storm of whatever they are a part.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

LISTINGS_PER_THING = 10


class Storm:
    """The rejections in a row of one store."""

    def __init__(self, rejections_max: int):
        if rejections_max < 1:
            raise ValueError(f"a storm needs 1 rejection or more, not {rejections_max}")
        self._max = rejections_max
        self._held: dict[int, Hashable] = {}  # what each listing is a part of
        self._parked: dict[int, Hashable] = {}

    @property
    def held(self) -> tuple[int, ...]:
        """The listings whose rejection waits for a verdict, oldest first."""
        return tuple(self._held)

    @property
    def counted(self) -> tuple[int, ...]:
        """All listings of the row: parked ones first."""
        return (*self._parked, *self._held)

    def rejected(self, listing_id: int, thing: Hashable) -> bool:
        """Count and hold a rejection, also of one that was parked and tried again. `thing`: what the listing is a part
        of. True: it is a storm."""
        self._parked.pop(listing_id, None)
        self._held[listing_id] = thing
        things = len({*self._parked.values(), *self._held.values()})
        return things >= self._max or len(self._parked) + len(self._held) >= LISTINGS_PER_THING * self._max

    def succeeded(self) -> tuple[int, ...]:
        """The store takes something: returns the held listings, to be parked; the row begins anew."""
        released = self.held
        self._held.clear()
        self._parked.clear()
        return released

    def nothing_else(self) -> tuple[int, ...]:
        """Nothing else can be tried: returns the held listings, to be parked; they are still counted."""
        released = self.held
        self._parked.update(self._held)
        self._held.clear()
        return released

    def forget(self, listing_ids: Iterable[int]) -> None:
        """These are not held any more (a newer answer came)."""
        for listing_id in listing_ids:
            self._held.pop(listing_id, None)
