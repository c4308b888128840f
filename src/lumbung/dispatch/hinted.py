"""Listings of one store that were named as due, and are still to be read by their keys. Pure.

They are named by wake-ups, and by the sender itself where it knows that a listing may still be due. Being named proves
nothing: what is read then says whether a listing is due, and in which lane it really is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

from lumbung.dispatch.batching import LANES, LaneShares, share_lanes


class Hinted:
    """In each lane in the order in which they were first named; at most `listings_max` of a lane."""

    def __init__(self, listings_max: int) -> None:
        self._listings_max = listings_max
        self._lanes: dict[int, dict[int, None]] = {lane: {} for lane in LANES}
        self._lane_of: dict[int, int] = {}
        self._shares = LaneShares()  # of its own: what is owed to a lane that is only scanned is kept elsewhere

    def __len__(self) -> int:
        return len(self._lane_of)

    def __iter__(self) -> Iterator[int]:
        return iter(self._lane_of)

    def __contains__(self, listing_id: int) -> bool:
        return listing_id in self._lane_of

    def add(self, listings: Mapping[int, int]) -> bool:
        """By listing its lane; a listing that changes its lane is the last one there. False when there is no room for
        one: it is forgotten."""
        fits = True
        for listing_id, lane in listings.items():
            if self._lane_of.get(listing_id) == lane:
                continue
            self.discard([listing_id])
            of_lane = self._lanes.get(lane)
            if of_lane is None or len(of_lane) >= self._listings_max:
                fits = False
                continue
            of_lane[listing_id] = None
            self._lane_of[listing_id] = lane
        return fits

    def discard(self, listing_ids: Iterable[int]) -> None:
        for listing_id in listing_ids:
            lane = self._lane_of.pop(listing_id, None)
            if lane is not None:
                del self._lanes[lane][listing_id]

    def take(self, n: int, *, busy: Collection[int]) -> dict[int, int]:
        """Up to `n` that are not busy, by the lanes' shares, with their lanes; they are forgotten."""
        free = {
            lane: list(islice((listing_id for listing_id in hinted if listing_id not in busy), n))
            for lane, hinted in self._lanes.items()
        }
        taken = {listing_id: self._lane_of[listing_id] for listing_id in share_lanes(free, n, self._shares)}
        self.discard(taken)
        return taken
