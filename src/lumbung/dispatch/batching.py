"""Which of a store's due listings go next, and which of them share a call.

Lanes: 1 zero or falling, 2 rising, 3 refresh; 4 to 6 are the same for listings that have waited after a failed attempt.
Each place is given by smooth weighted round robin: everyone who has something due gains its weight, the one that has
gained most gets the place and pays what all of them gained. So over any run of places each gets its share to within
about one, also one place at a time; what one does not use goes to the others; and one that has nothing due saves
nothing up. It is done twice: first between fresh listings and retries, then between the three lanes of the one that
won.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

WEIGHTS: Mapping[int, int] = {1: 7, 2: 2, 3: 1}
RETRY = 3
"""What a lane's number is raised by when the last attempt failed."""
CLASS_WEIGHTS: Mapping[int, int] = {0: 4, RETRY: 1}
LANES = tuple(lane + raised for raised in CLASS_WEIGHTS for lane in WEIGHTS)
SENT_IN = (1, 4, 2, 5, 3, 6)
"""The order within a window: what is gone comes before what is there, tried before or not."""
OUTAGE_CALLS = 3
"""So many listings in a row that fail alone: it is not the listings."""
LOOKED_CLOSELY_EVERY = 8
"""Times that a call of locked listings is locked as a whole, of which one is cut in halves."""
BISECTED_MAX = 10_000
"""Listings whose halves are remembered, for one store."""

T = TypeVar("T")


class HasListing(Protocol):
    @property
    def listing_id(self) -> int: ...


C = TypeVar("C", bound=HasListing)


class RoundRobin:
    """Smooth weighted round robin between keys; remembers what each is owed from one time to the next."""

    def __init__(self, weights: Mapping[int, int]) -> None:
        self._weights = weights
        self._gained = dict.fromkeys(weights, 0)

    def rest(self, keys: Iterable[int]) -> None:
        """These have nothing due: they save nothing up."""
        for key in keys:
            self._gained[key] = 0

    def next(self, keys: Sequence[int]) -> int:
        """Whose turn it is of those that have something due; the first of equals."""
        for key in keys:
            self._gained[key] += self._weights[key]
        chosen = max(keys, key=lambda key: self._gained[key])
        self._gained[chosen] -= sum(self._weights[key] for key in keys)
        return chosen


class LaneShares:
    """Divides places among the lanes of one store: {1: 7, 2: 2, 3: 1} of 10 fresh ones, and one place in five for
    retries, which divide theirs alike."""

    def __init__(self) -> None:
        self._classes = RoundRobin(CLASS_WEIGHTS)
        self._lanes = {raised: RoundRobin(WEIGHTS) for raised in CLASS_WEIGHTS}

    def take(self, counts: Mapping[int, int], n: int) -> dict[int, int]:
        """How many of `n` places each lane gets, at most its count of due listings."""
        left = {lane: counts.get(lane, 0) for lane in LANES}
        given = dict.fromkeys(LANES, 0)
        for raised, lanes in self._lanes.items():
            lanes.rest(lane for lane in WEIGHTS if left[lane + raised] == 0)
        self._classes.rest(raised for raised in CLASS_WEIGHTS if not _due(left, raised))
        if len(with_due := [lane for lane in LANES if left[lane]]) == 1:  # it gets them all and owes nobody
            given[with_due[0]] = min(n, left[with_due[0]])
            return given
        for _ in range(min(n, sum(left.values()))):
            raised = self._classes.next([raised for raised in CLASS_WEIGHTS if _due(left, raised)])
            lane = self._lanes[raised].next(_due(left, raised)) + raised
            left[lane] -= 1
            given[lane] += 1
        return given


def _due(left: Mapping[int, int], raised: int) -> list[int]:
    """The lanes, 1 to 3, of fresh listings or of retries that have something due."""
    return [lane for lane in WEIGHTS if left[lane + raised] > 0]


def share_lanes(due: Mapping[int, Sequence[T]], n: int, shares: LaneShares | None = None) -> list[T]:
    """The first of each lane, `n` in all or fewer: those of lane 1 first, then 2, then 3, each in its order.

    `shares` carries what lanes are owed to the next time; without it a small `n` would always go to lane 1.
    """
    given = (shares or LaneShares()).take({lane: len(listings) for lane, listings in due.items()}, n)
    return [listing for lane in SENT_IN for listing in due.get(lane, ())[: given[lane]]]


class Bisection:
    """Finds the listing for which calls of several fail as a whole.

    Each time that a call of n listings fails as a whole, every one of them may from then on share a call with at most
    half as many: 50, 25, 12, 6, 3, 1. Halves without the one to blame succeed and are forgotten; it ends up alone, and
    an answer for it alone is its own. Nothing is written down: a process that takes over begins again.

    When calls of one listing each fail one after the other, no listing is to blame but the marketplace: with the next
    answer calls are whole again. When more listings are cut than can be remembered, all are, until calls succeed.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._most: int | None = None  # for every listing
        self._alone: set[int] = set()  # that failed although they were alone, since the last answer

    def __len__(self) -> int:
        return len(self._sizes)

    def failed(self, listing_ids: Sequence[int]) -> None:
        """A call with these failed as a whole."""
        if len(listing_ids) == 1:
            self.settled(listing_ids)
            if len(self._alone) < OUTAGE_CALLS:
                self._alone.update(listing_ids)
            return
        half = max(1, len(listing_ids) // 2)
        self._sizes.update(dict.fromkeys(listing_ids, half))
        if len(self._sizes) > BISECTED_MAX:
            self._sizes.clear()
            self._most = half

    def settled(self, listing_ids: Iterable[int]) -> None:
        """These got an answer of their own, if only that alone they fail too."""
        for listing_id in listing_ids:
            self._sizes.pop(listing_id, None)

    def answered(self, count: int) -> None:
        """A call of so many listings was answered for each of them."""
        if len(self._alone) >= OUTAGE_CALLS:
            self._sizes.clear()
            self._most = None
        self._alone.clear()
        if self._most is not None and count >= self._most:
            self._most = 2 * self._most if self._most <= BISECTED_MAX else None

    def size(self, listing_id: int, batch_max: int) -> int:
        """How many listings a call with this one may have."""
        most = batch_max if self._most is None else min(batch_max, self._most)
        return min(most, self._sizes.get(listing_id, most))


class Locks:
    """The listings that a marketplace has locked, so far as this process has heard.

    A call that is locked as a whole is cut in halves, because one of its listings may hold up the others. That is dear
    for an item that is locked with all its variations, and would be so after each wait. So those that were locked share
    calls with each other only, and a call of nothing else that is locked as a whole is believed: one call then, not a
    hundred. Every eighth time it is cut all the same, for those that are free again beside one that is not.
    """

    def __init__(self) -> None:
        self._times: dict[int, int] = {}

    def __contains__(self, listing_id: int) -> bool:
        return listing_id in self._times

    def believes(self, listing_ids: Sequence[int]) -> bool:
        """Whether a call of these that was locked as a whole needs no closer look."""
        return all(self._times.get(listing_id, 0) % LOOKED_CLOSELY_EVERY for listing_id in listing_ids)

    def locked(self, listing_id: int) -> None:
        """It was answered so. Forgotten when there are too many to remember: they are found out again."""
        if len(self._times) >= BISECTED_MAX and listing_id not in self._times:
            self._times.clear()
        self._times[listing_id] = self._times.get(listing_id, 0) + 1

    def free(self, listing_id: int) -> None:
        """It was answered in another way."""
        self._times.pop(listing_id, None)


def group(
    candidates: Sequence[C],
    key: Callable[[C], Hashable],
    batch_max: int,
    size: Callable[[int, int], int] = lambda _, batch_max: batch_max,
) -> list[list[C]]:
    """Candidates of one key together, at most `batch_max` a group, in the order of first appearance.

    `size(listing_id, batch_max)`: how large the group of a listing may be; those of equal size share groups. Of a
    listing that is there twice only the first is taken: at most one call is in flight for it, and the other still
    stands in the database as due.
    """
    groups: list[list[C]] = []
    filling: dict[tuple[Hashable, int], list[C]] = {}
    seen: set[int] = set()
    for candidate in candidates:
        if candidate.listing_id in seen:
            continue
        seen.add(candidate.listing_id)
        most = size(candidate.listing_id, batch_max)
        name = (key(candidate), most)
        batch = filling.get(name)
        if batch is None or len(batch) >= most:
            batch = filling[name] = []
            groups.append(batch)
        batch.append(candidate)
    return groups
