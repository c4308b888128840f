"""Which of a store's due listings go next, and which of them share a call.

Lanes: 1 zero or falling, 2 rising, 3 refresh. Each place is given by smooth weighted round robin: every lane that has
something due gains its weight, the one that has gained most gets the place and pays what all of them gained. So over
any run of places the lanes get their shares to within about one, also one place at a time; what a lane does not use
goes to the others; and one that has nothing due saves nothing up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

WEIGHTS: Mapping[int, int] = {1: 7, 2: 2, 3: 1}

T = TypeVar("T")


class HasListing(Protocol):
    @property
    def listing_id(self) -> int: ...


C = TypeVar("C", bound=HasListing)


class LaneShares:
    """Divides places among the lanes of one store, and remembers what each is owed from one time to the next."""

    def __init__(self) -> None:
        self._gained = dict.fromkeys(WEIGHTS, 0)

    def take(self, counts: Mapping[int, int], n: int) -> dict[int, int]:
        """How many of `n` places each lane gets, at most its count of due listings: {1: 7, 2: 2, 3: 1} of 10."""
        left = {lane: counts.get(lane, 0) for lane in WEIGHTS}
        given = dict.fromkeys(WEIGHTS, 0)
        for lane in WEIGHTS:
            if left[lane] == 0:
                self._gained[lane] = 0
        for _ in range(min(n, sum(left.values()))):
            lane = self._next([lane for lane in WEIGHTS if left[lane] > 0])
            left[lane] -= 1
            given[lane] += 1
        return given

    def _next(self, lanes: Sequence[int]) -> int:
        for lane in lanes:
            self._gained[lane] += WEIGHTS[lane]
        chosen = max(lanes, key=lambda lane: self._gained[lane])  # the lowest lane of equals
        self._gained[chosen] -= sum(WEIGHTS[lane] for lane in lanes)
        return chosen


def share_lanes(due: Mapping[int, Sequence[T]], n: int, shares: LaneShares | None = None) -> list[T]:
    """The first of each lane, `n` in all or fewer: those of lane 1 first, then 2, then 3, each in its order.

    `shares` carries what lanes are owed to the next time; without it a small `n` would always go to lane 1.
    """
    given = (shares or LaneShares()).take({lane: len(listings) for lane, listings in due.items()}, n)
    return [listing for lane in WEIGHTS for listing in due.get(lane, ())[: given[lane]]]


def group(candidates: Sequence[C], key: Callable[[C], str], batch_max: int) -> list[list[C]]:
    """Candidates of one key together, at most `batch_max` a group, in the order of first appearance.

    Of a listing that is there twice only the first is taken: at most one call is in flight for it, and the other still
    stands in the database as due.
    """
    groups: list[list[C]] = []
    filling: dict[str, list[C]] = {}
    seen: set[int] = set()
    for candidate in candidates:
        if candidate.listing_id in seen:
            continue
        seen.add(candidate.listing_id)
        name = key(candidate)
        batch = filling.get(name)
        if batch is None or len(batch) >= batch_max:
            batch = filling[name] = []
            groups.append(batch)
        batch.append(candidate)
    return groups
