"""The storm rule, against a list of all answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lumbung.dispatch.storm import Storm


def rejected(storm: Storm, *listing_ids: int) -> list[bool]:
    return [storm.rejected(listing_id, listing_id) for listing_id in listing_ids]


def test_rejections_are_held_until_something_succeeds() -> None:
    storm = Storm(50)
    assert rejected(storm, 3, 1, 2) == [False, False, False]
    assert storm.held == (3, 1, 2)
    assert storm.succeeded() == (3, 1, 2)
    assert storm.held == storm.counted == ()


def test_a_storm_comes_with_the_last_distinct_rejection_in_a_row() -> None:
    storm = Storm(3)
    assert rejected(storm, 1, 1, 2, 2, 1, 3) == [False, False, False, False, False, True]
    assert storm.counted == (1, 2, 3)


def test_listings_of_one_thing_count_once() -> None:
    storm = Storm(3)
    assert [storm.rejected(n, "deleted item") for n in range(20)] == [False] * 20
    assert storm.rejected(20, "second") is False
    storm.nothing_else()
    assert storm.rejected(21, "deleted item") is False
    assert storm.rejected(22, "third") is True
    assert len(storm.counted) == 23


def test_a_shop_of_few_items_with_many_variations_can_be_set_up_wrongly_too() -> None:
    storm = Storm(3)
    stormy = [storm.rejected(n, n % 2) for n in range(30)]
    assert stormy == [False] * 29 + [True]


def test_a_success_begins_the_row_anew() -> None:
    storm = Storm(3)
    rejected(storm, 1, 2)
    storm.succeeded()
    assert rejected(storm, 1, 2) == [False, False]


def test_when_nothing_else_is_due_the_held_ones_are_released_but_still_counted() -> None:
    storm = Storm(3)
    rejected(storm, 1, 2)
    assert storm.nothing_else() == (1, 2)
    assert storm.nothing_else() == ()
    assert (storm.held, storm.counted) == ((), (1, 2))
    assert rejected(storm, 3) == [True]
    assert (storm.held, storm.counted) == ((3,), (1, 2, 3))


def test_one_that_was_parked_and_is_rejected_again_is_held_again_and_counted_once() -> None:
    storm = Storm(3)
    rejected(storm, 1, 2)
    storm.nothing_else()
    assert rejected(storm, 1) == [False]
    assert (storm.held, storm.counted) == ((1,), (2, 1))
    assert storm.nothing_else() == (1,)


def test_a_held_one_with_a_newer_answer_counts_no_more() -> None:
    storm = Storm(2)
    rejected(storm, 1)
    storm.forget([1, 99])
    assert storm.held == ()
    assert rejected(storm, 2, 3) == [False, True]


def test_also_one_that_was_parked_before_and_tried_again() -> None:
    storm = Storm(2)
    rejected(storm, 1)
    storm.nothing_else()
    rejected(storm, 1)
    storm.forget([1])
    assert storm.counted == ()


def test_a_storm_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="a storm needs 1 rejection or more, not 0"):
        Storm(0)


@given(before=st.lists(st.integers(0, 140), max_size=49))
@settings(max_examples=50, deadline=None)
def test_fifty_distinct_rejections_in_a_row_park_none(before: list[int]) -> None:
    storm = Storm(50)
    rejected(storm, *before)
    storm.succeeded()
    assert rejected(storm, *range(50)) == [False] * 49 + [True]
    assert storm.held == tuple(range(50))


class StormMachine(RuleBasedStateMachine):
    """The model is the list of all that happened since the last success; a listing's last rejection in it is

    counted   unless it was forgotten before the next time that nothing else was due
    held      unless it was forgotten, or nothing else was due, since
    """

    listings = st.integers(0, 9)

    @initialize(most=st.integers(1, 8))
    def make(self, most: int) -> None:
        self.most = most
        self.storm = Storm(most)
        self.row: list[tuple[str, int]] = []

    def what_follows(self, place: int) -> list[str]:
        listing = self.row[place][1]
        return [
            what for what, whose in self.row[place + 1 :] if what == "nothing" or (what, whose) == ("forget", listing)
        ]

    def ids(self, *, held: bool) -> set[int]:
        last = {whose: place for place, (what, whose) in enumerate(self.row) if what == "rejected"}
        places = last.values()
        if held:
            return {self.row[place][1] for place in places if not self.what_follows(place)}
        return {self.row[place][1] for place in places if self.what_follows(place)[:1] != ["forget"]}

    @rule(listing=listings)
    def a_listing_is_rejected(self, listing: int) -> None:
        self.row.append(("rejected", listing))
        stormy = self.storm.rejected(listing, listing)
        assert stormy == (len(self.ids(held=False)) >= self.most)
        if stormy:
            assert set(self.storm.counted) == self.ids(held=False)
            self.storm.succeeded()  # the store pauses; a person mends it, and the row begins anew
            self.row = []

    @rule()
    def a_listing_is_taken(self) -> None:
        held = self.ids(held=True)
        parked = self.storm.succeeded()
        assert (set(parked), len(parked)) == (held, len(held))
        self.row = []

    @rule()
    def nothing_else_is_due(self) -> None:
        held = self.ids(held=True)
        parked = self.storm.nothing_else()
        assert (set(parked), len(parked)) == (held, len(held))
        self.row.append(("nothing", -1))

    @rule(listing=listings)
    def a_listing_gets_another_answer(self, listing: int) -> None:
        self.storm.forget([listing])
        self.row.append(("forget", listing))

    @invariant()
    def it_holds_and_counts_what_the_list_says(self) -> None:
        assert set(self.storm.held) == self.ids(held=True)
        assert set(self.storm.counted) == self.ids(held=False)
        assert len(self.storm.counted) == len(set(self.storm.counted)) < self.most or self.most == 1


TestStormMachine = StormMachine.TestCase
TestStormMachine.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
