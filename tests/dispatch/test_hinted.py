"""Listings that were named as due."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lumbung.dispatch.batching import LANES
from lumbung.dispatch.hinted import Hinted


def test_each_is_taken_once_falling_first_with_the_lane_that_was_hinted() -> None:
    hinted = Hinted(10)
    hinted.add({5: 2, 3: 1, 4: 2})
    assert list(hinted.take(10, busy=()).items()) == [(3, 1), (5, 2), (4, 2)]
    assert (hinted.take(10, busy=()), len(hinted)) == ({}, 0)


def test_one_that_is_busy_stays_until_it_is_free() -> None:
    hinted = Hinted(10)
    hinted.add({1: 1, 2: 1})
    assert hinted.take(10, busy={1}) == {2: 1}
    assert hinted.take(10, busy={1}) == {}
    assert hinted.take(10, busy=()) == {1: 1}


def test_one_that_is_hinted_again_keeps_its_place_unless_its_lane_is_another() -> None:
    hinted = Hinted(10)
    hinted.add({1: 1, 2: 1, 3: 2})
    hinted.add({1: 1})
    assert list(hinted) == [1, 2, 3]
    hinted.add({1: 2})
    assert list(hinted.take(10, busy=())) == [2, 3, 1]


def test_what_does_not_fit_into_its_lane_is_forgotten_and_said_so() -> None:
    hinted = Hinted(2)
    assert hinted.add({1: 2, 2: 2, 3: 1})
    assert not hinted.add({4: 2, 5: 1})
    assert sorted(hinted) == [1, 2, 3, 5]
    assert hinted.add({1: 2})


def test_one_whose_new_lane_is_full_is_forgotten_where_it_was() -> None:
    hinted = Hinted(1)
    hinted.add({1: 2, 2: 1})
    assert not hinted.add({1: 1})
    assert (list(hinted), 1 in hinted) == ([2], False)


def test_a_lane_that_nobody_knows_is_not_kept() -> None:
    hinted = Hinted(10)
    assert not hinted.add({1: 9})
    assert list(hinted) == []


def test_lanes_share_the_places_one_at_a_time_too() -> None:
    hinted = Hinted(1000)
    for lane in LANES:
        hinted.add({1000 * lane + n: lane for n in range(1000)})
    taken = Counter(lane for _ in range(500) for lane in hinted.take(1, busy=()).values())
    assert taken == {1: 280, 2: 80, 3: 40, 4: 70, 5: 20, 6: 10}


@given(
    added=st.lists(st.dictionaries(st.integers(1, 30), st.sampled_from(LANES)), max_size=8),
    listings_max=st.integers(1, 8),
    n=st.integers(1, 10),
    busy=st.sets(st.integers(1, 30)),
)
def test_every_listing_is_taken_or_was_said_not_to_fit(
    added: list[dict[int, int]], listings_max: int, n: int, busy: set[int]
) -> None:
    hinted = Hinted(listings_max)
    fits = [hinted.add(listings) for listings in added]
    last = {listing: lane for listings in added for listing, lane in listings.items()}
    known = set(hinted)
    taken: dict[int, int] = {}
    while some := hinted.take(n, busy=busy):
        assert len(some) <= n
        assert taken.keys().isdisjoint(some)
        taken |= some
    assert set(taken) == known - busy
    assert all(last[listing] == lane for listing, lane in taken.items())
    assert set(hinted) == known & busy
    if all(fits):
        assert known == set(last)
