from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.dispatch.batching import WEIGHTS, LaneShares, group, share_lanes

PLENTY = {1: 10**6, 2: 10**6, 3: 10**6}
counts_of_lanes = st.fixed_dictionaries({lane: st.integers(0, 30) for lane in WEIGHTS})


@dataclass(frozen=True, slots=True)
class Candidate:
    listing_id: int
    item: str


def items(candidate: Candidate) -> str:
    return candidate.item


def totals(shares: LaneShares, counts: Mapping[int, int], n: int, times: int) -> dict[int, int]:
    total = Counter[int]()
    for _ in range(times):
        total.update(shares.take(counts, n))
    return dict(total)


def test_ten_places_are_shared_seven_two_one() -> None:
    assert LaneShares().take(PLENTY, 10) == {1: 7, 2: 2, 3: 1}
    assert LaneShares().take(PLENTY, 200) == {1: 140, 2: 40, 3: 20}


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 33])
def test_the_shares_hold_in_the_long_run_however_few_places_there_are_at_a_time(n: int) -> None:
    assert totals(LaneShares(), PLENTY, n, 1000) == {1: 700 * n, 2: 200 * n, 3: 100 * n}


def test_one_place_at_a_time_never_leaves_the_shares_by_more_than_one() -> None:
    shares, total = LaneShares(), Counter[int]()
    for n in range(1, 1001):
        total.update(shares.take(PLENTY, 1))
        for lane, weight in WEIGHTS.items():
            assert abs(total[lane] - n * weight / 10) <= 1


def test_the_first_place_goes_to_lane_1() -> None:
    assert LaneShares().take(PLENTY, 1) == {1: 1, 2: 0, 3: 0}


def test_what_a_lane_does_not_use_goes_to_the_others() -> None:
    assert LaneShares().take({1: 0, 2: 100, 3: 100}, 9) == {1: 0, 2: 6, 3: 3}
    assert LaneShares().take({1: 2, 2: 100, 3: 100}, 20) == {1: 2, 2: 12, 3: 6}
    assert LaneShares().take({3: 100}, 9) == {1: 0, 2: 0, 3: 9}
    assert LaneShares().take({}, 9) == {1: 0, 2: 0, 3: 0}


def test_a_lane_that_had_nothing_due_saves_nothing_up() -> None:
    shares = LaneShares()
    assert totals(shares, {2: 1, 3: 1}, 1, 300) == {1: 0, 2: 200, 3: 100}
    assert totals(shares, PLENTY, 1, 10) == {1: 7, 2: 2, 3: 1}


@given(st.lists(st.tuples(counts_of_lanes, st.integers(0, 40)), max_size=40))
def test_every_place_is_given_and_no_lane_gets_more_than_it_has(times: list[tuple[dict[int, int], int]]) -> None:
    shares = LaneShares()
    for counts, n in times:
        given_ = shares.take(counts, n)
        assert sum(given_.values()) == min(n, sum(counts.values()))
        assert all(0 <= given_[lane] <= counts[lane] for lane in WEIGHTS)


@given(
    lane=st.sampled_from([1, 2, 3]), others=st.lists(counts_of_lanes, min_size=100, max_size=200), n=st.integers(1, 3)
)
def test_a_lane_with_work_never_starves_whatever_comes_and_goes_in_the_others(
    lane: int, others: list[dict[int, int]], n: int
) -> None:
    shares, waited = LaneShares(), 0
    for counts in others:
        waited = 0 if shares.take(counts | {lane: 1000}, n)[lane] else waited + n
        assert waited <= 4 * sum(WEIGHTS.values()) // WEIGHTS[lane]


@given(st.lists(st.integers(0, 100), max_size=3), st.integers(0, 150))
def test_sharing_keeps_the_order_of_each_lane_and_lane_1_goes_first(sizes: list[int], n: int) -> None:
    due: dict[int, Sequence[tuple[int, int]]] = {
        lane: [(lane, place) for place in range(size)] for lane, size in enumerate(sizes, start=1)
    }
    shared = share_lanes(due, n)
    assert shared == sorted(set(shared))
    assert len(shared) == min(n, sum(sizes))
    for lane in due:
        mine = [listing for listing in shared if listing[0] == lane]
        assert mine == list(due[lane][: len(mine)])


def test_sharing_one_at_a_time_reaches_every_lane() -> None:
    shares, due = LaneShares(), {1: "a", 2: "b", 3: "c"}
    assert Counter(share_lanes(due, 1, shares)[0] for _ in range(10)) == {"a": 7, "b": 2, "c": 1}


def test_groups_stand_in_the_order_of_first_appearance() -> None:
    candidates = [Candidate(1, "x"), Candidate(2, "y"), Candidate(3, "x"), Candidate(4, "x"), Candidate(5, "y")]
    assert [[c.listing_id for c in batch] for batch in group(candidates, items, 2)] == [[1, 3], [2, 5], [4]]
    assert [[c.listing_id for c in batch] for batch in group(candidates, items, 1)] == [[1], [2], [3], [4], [5]]
    assert group([], items, 5) == []


def test_the_second_of_a_listing_waits() -> None:
    twice = [Candidate(1, "x"), Candidate(2, "x"), Candidate(1, "y")]
    assert group(twice, items, 5) == [[Candidate(1, "x"), Candidate(2, "x")]]


@given(
    st.lists(st.builds(Candidate, listing_id=st.integers(0, 40), item=st.sampled_from("xyz")), max_size=80),
    st.integers(1, 10),
)
def test_grouping_loses_nothing_and_repeats_nothing(candidates: list[Candidate], batch_max: int) -> None:
    groups = group(candidates, items, batch_max)
    grouped = [candidate for batch in groups for candidate in batch]
    first_of_each = list({c.listing_id: c for c in reversed(candidates)}.values())
    assert Counter(grouped) == Counter(first_of_each)
    assert all(1 <= len(batch) <= batch_max and len({c.item for c in batch}) == 1 for batch in groups)
    places = [candidates.index(batch[0]) for batch in groups]
    assert places == sorted(places)
    # As few groups as can be.
    per_item = Counter(c.item for c in first_of_each)
    assert len(groups) == sum(-(-count // batch_max) for count in per_item.values())
