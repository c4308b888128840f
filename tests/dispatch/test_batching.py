from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.dispatch.batching import (
    BISECTED_MAX,
    LANES,
    SENT_IN,
    WEIGHTS,
    Bisection,
    LaneShares,
    RoundRobin,
    group,
    share_lanes,
)

PLENTY = {1: 10**6, 2: 10**6, 3: 10**6}
ALL_PLENTY = dict.fromkeys(LANES, 10**6)
# What each lane gets when all have something due: four places in five are for fresh listings, each five divided 7:2:1.
SHARES = {1: Fraction(28, 50), 2: Fraction(8, 50), 3: Fraction(4, 50)}
SHARES |= {4: Fraction(7, 50), 5: Fraction(2, 50), 6: Fraction(1, 50)}

counts_of_lanes = st.fixed_dictionaries({lane: st.integers(0, 30) for lane in LANES})


def given_to(**places: int) -> dict[int, int]:
    """Places by lane, such as lane1=7; none for the others."""
    return dict.fromkeys(LANES, 0) | {int(name.removeprefix("lane")): n for name, n in places.items()}


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
    assert LaneShares().take(PLENTY, 10) == given_to(lane1=7, lane2=2, lane3=1)
    assert LaneShares().take(PLENTY, 200) == given_to(lane1=140, lane2=40, lane3=20)


def test_retries_get_one_place_in_five_and_divide_theirs_alike() -> None:
    assert LaneShares().take(ALL_PLENTY, 5) == given_to(lane1=3, lane2=1, lane4=1)
    assert LaneShares().take(ALL_PLENTY, 50) == given_to(lane1=28, lane2=8, lane3=4, lane4=7, lane5=2, lane6=1)


def test_retries_get_all_places_while_nothing_else_is_due() -> None:
    assert LaneShares().take({4: 100, 5: 100, 6: 100}, 10) == given_to(lane4=7, lane5=2, lane6=1)
    assert LaneShares().take({4: 100, 3: 2}, 10) == given_to(lane3=2, lane4=8)


def test_fresh_listings_get_all_places_while_no_retry_is_due() -> None:
    assert LaneShares().take({1: 100, 6: 1}, 10) == given_to(lane1=9, lane6=1)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 33])
def test_the_shares_hold_in_the_long_run_however_few_places_there_are_at_a_time(n: int) -> None:
    assert totals(LaneShares(), PLENTY, n, 1000) == given_to(lane1=700 * n, lane2=200 * n, lane3=100 * n)
    expected = {lane: int(share * 1000 * n) for lane, share in SHARES.items()}
    assert totals(LaneShares(), ALL_PLENTY, n, 1000) == expected


@given(due=st.sets(st.sampled_from(LANES), min_size=1))
@settings(max_examples=20, deadline=None)
def test_one_place_at_a_time_never_leaves_the_shares_by_one_nor_does_any_run_by_two(due: set[int]) -> None:
    shares, total = LaneShares(), Counter[int]()
    expected = {lane: share_among(due, lane) for lane in due}
    ahead: dict[int, list[Fraction]] = {lane: [Fraction(0)] for lane in due}
    for n in range(1, 201):
        total.update(shares.take(dict.fromkeys(due, 10**6), 1))
        for lane in due:
            ahead[lane].append(total[lane] - n * expected[lane])
    for lane in due:
        assert max(map(abs, ahead[lane])) < 1
        assert max(ahead[lane]) - min(ahead[lane]) < 2  # of a run from any place to any other


def share_among(due: set[int], lane: int) -> Fraction:
    """The part of all places that a lane is to have while just these lanes have something due."""
    fresh, retries = [n for n in due if n <= 3], [n for n in due if n > 3]
    mine = fresh if lane in fresh else retries
    of_class = Fraction(1) if not (fresh and retries) else Fraction(4 if lane in fresh else 1, 5)
    weight = {1: 7, 2: 2, 3: 1, 4: 7, 5: 2, 6: 1}
    return of_class * weight[lane] / sum(weight[other] for other in mine)


def test_the_first_place_goes_to_lane_1() -> None:
    assert LaneShares().take(ALL_PLENTY, 1) == given_to(lane1=1)


def test_what_a_lane_does_not_use_goes_to_the_others() -> None:
    assert LaneShares().take({1: 0, 2: 100, 3: 100}, 9) == given_to(lane2=6, lane3=3)
    assert LaneShares().take({1: 2, 2: 100, 3: 100}, 20) == given_to(lane1=2, lane2=12, lane3=6)
    assert LaneShares().take({3: 100}, 9) == given_to(lane3=9)
    assert LaneShares().take({}, 9) == given_to()


def test_a_lane_that_had_nothing_due_saves_nothing_up() -> None:
    shares = LaneShares()
    assert totals(shares, {2: 1, 3: 1}, 1, 300) == given_to(lane2=200, lane3=100)
    assert totals(shares, PLENTY, 1, 10) == given_to(lane1=7, lane2=2, lane3=1)


def test_a_lane_that_ran_out_before_its_turn_has_no_claim_left_when_something_is_due_again() -> None:
    shares = LaneShares()
    assert totals(shares, {1: 100, 3: 100}, 1, 4) == given_to(lane1=4)  # the next but one would be lane 3's
    assert shares.take({2: 100}, 1) == given_to(lane2=1)
    assert shares.take({2: 100, 3: 100}, 3) == given_to(lane2=2, lane3=1)


def test_retries_save_nothing_up_while_none_is_due() -> None:
    shares = LaneShares()
    assert totals(shares, PLENTY, 1, 300) == given_to(lane1=210, lane2=60, lane3=30)
    assert totals(shares, {1: 100, 4: 100}, 1, 10) == given_to(lane1=8, lane4=2)


@given(st.lists(st.tuples(counts_of_lanes, st.integers(0, 40)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_every_place_is_given_and_no_lane_gets_more_than_it_has(times: list[tuple[dict[int, int], int]]) -> None:
    shares = LaneShares()
    for counts, n in times:
        given_ = shares.take(counts, n)
        assert sum(given_.values()) == min(n, sum(counts.values()))
        assert all(0 <= given_[lane] <= counts[lane] for lane in LANES)


class LanesMachine(RuleBasedStateMachine):
    """What comes and goes in the lanes, against a list of who got each place while a lane had something due."""

    @initialize(always=st.sampled_from(LANES))
    def one_lane_always_has_something(self, always: int) -> None:
        self.always = always
        self.shares = LaneShares()
        self.due = dict.fromkeys(LANES, 0) | {always: 10**6}
        self.places: list[int] = []
        self.contested: list[int] = []  # places since fresh listings and retries have both been due, without a break

    @rule(lane=st.sampled_from(LANES), listings=st.integers(1, 40))
    def some_come(self, lane: int, listings: int) -> None:
        self.due[lane] += listings

    @rule(lane=st.sampled_from(LANES))
    def a_lane_empties(self, lane: int) -> None:
        if lane != self.always:
            self.due[lane] = 0

    @rule(n=st.integers(1, 12))
    def take(self, n: int) -> None:
        before = dict(self.due)
        for lane, places in self.shares.take(self.due, n).items():
            self.due[lane] -= places
            self.places += [lane] * places
            self.contested += [lane] * places
        for _, lanes in self.classes():
            if all(self.due[lane] == 0 or before[lane] == 0 for lane in lanes):
                self.contested = []

    @rule(times=st.integers(20, 120))
    def take_one_by_one(self, times: int) -> None:
        for _ in range(times):
            self.take(1)

    def classes(self) -> list[tuple[str, list[int]]]:
        return [("fresh", [1, 2, 3]), ("retries", [4, 5, 6])]

    @invariant()
    def a_lane_with_something_due_never_starves(self) -> None:
        longest = waited = 0
        for lane in self.places:
            waited = 0 if lane == self.always else waited + 1
            longest = max(longest, waited)
        assert longest <= 2 / SHARES[self.always] + 12  # a window of 12 counts as one place after the other

    @invariant()
    def retries_have_one_place_in_five_while_others_are_due_and_no_more(self) -> None:
        for first in range(0, len(self.contested), 7):
            run = self.contested[first:]
            retries = sum(lane > 3 for lane in run)
            assert abs(retries - Fraction(len(run), 5)) <= 3


TestLanesMachine = LanesMachine.TestCase
TestLanesMachine.settings = settings(max_examples=80, stateful_step_count=20, deadline=None)


def test_what_a_key_was_owed_is_forgotten_when_it_has_nothing_due() -> None:
    owed, rested = RoundRobin({1: 7, 2: 2}), RoundRobin({1: 7, 2: 2})
    assert [owed.next([1, 2]), owed.next([1, 2]), owed.next([1, 2])] == [1, 1, 2]
    assert [rested.next([1, 2]), rested.next([1, 2])] == [1, 1]
    rested.rest([2])
    assert rested.next([1, 2]) == 1


@given(
    weights=st.dictionaries(st.integers(1, 6), st.integers(1, 9), min_size=1),
    times=st.integers(1, 120),
)
@settings(max_examples=60, deadline=None)
def test_a_round_of_turns_gives_each_key_exactly_its_weight(weights: dict[int, int], times: int) -> None:
    turns = RoundRobin(weights)
    chosen = [turns.next(list(weights)) for _ in range(times)]
    whole = sum(weights.values())
    for first in range(0, times - whole + 1, whole):
        assert Counter(chosen[first : first + whole]) == weights


@given(st.lists(st.integers(0, 60), max_size=6), st.integers(0, 150))
@settings(max_examples=60, deadline=None)
def test_sharing_keeps_the_order_of_each_lane_and_what_is_gone_goes_first(sizes: list[int], n: int) -> None:
    due: dict[int, Sequence[tuple[int, int]]] = {
        lane: [(lane, place) for place in range(size)] for lane, size in enumerate(sizes, start=1)
    }
    shared = share_lanes(due, n)
    assert shared == sorted(set(shared), key=lambda listing: ([1, 4, 2, 5, 3, 6].index(listing[0]), listing[1]))
    assert len(shared) == min(n, sum(sizes))
    for lane in due:
        mine = [listing for listing in shared if listing[0] == lane]
        assert mine == list(due[lane][: len(mine)])


def test_all_lanes_are_sent() -> None:
    assert sorted(SENT_IN) == sorted(LANES) == [1, 2, 3, 4, 5, 6]
    assert WEIGHTS == {1: 7, 2: 2, 3: 1}


def test_sharing_one_at_a_time_reaches_every_lane() -> None:
    shares, due = LaneShares(), {1: "a", 2: "b", 3: "c", 4: "d", 5: "e", 6: "f"}
    reached = Counter(share_lanes(due, 1, shares)[0] for _ in range(50))
    assert reached == {"a": 28, "b": 8, "c": 4, "d": 7, "e": 2, "f": 1}


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
@settings(max_examples=60, deadline=None)
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


# --- one listing that makes whole calls fail ---


def test_a_call_that_fails_as_a_whole_is_cut_in_halves_until_one_listing_is_alone() -> None:
    bisection = Bisection()
    sizes = []
    for n in (50, 25, 12, 6, 3):
        bisection.failed(range(n))
        sizes.append(bisection.size(0, 50))
    assert sizes == [25, 12, 6, 3, 1]
    assert bisection.size(49, 50) == 25


def test_what_was_answered_for_itself_shares_whole_calls_again() -> None:
    bisection = Bisection()
    bisection.failed([1, 2, 3, 4])
    bisection.settled([1, 3])
    assert [bisection.size(listing, 50) for listing in (1, 2, 3, 4)] == [50, 2, 50, 2]
    assert len(bisection) == 2
    bisection.settled([2, 4, 99])
    assert len(bisection) == 0


def test_after_an_outage_calls_are_whole_again() -> None:
    bisection = Bisection()
    bisection.failed(range(50))
    for listing in (1, 2, 3):  # alone they fail as well: it is the marketplace
        bisection.failed([listing])
    assert bisection.size(0, 50) == 25
    bisection.answered(1)
    assert (len(bisection), bisection.size(0, 50)) == (0, 50)


def test_one_listing_that_always_fails_is_no_outage() -> None:
    bisection = Bisection()
    bisection.failed(range(50))
    for _ in range(10):
        bisection.failed([1])
    bisection.answered(1)
    assert bisection.size(0, 50) == 25


def test_an_answer_between_those_that_fail_alone_says_that_there_is_no_outage() -> None:
    bisection = Bisection()
    bisection.failed(range(50))
    for listing in (1, 2, 3, 4):
        bisection.failed([listing])
        if listing == 2:
            bisection.answered(1)
    bisection.answered(1)
    assert bisection.size(0, 50) == 25


def test_when_more_are_cut_than_can_be_remembered_all_are_until_calls_succeed() -> None:
    bisection = Bisection()
    for first in range(0, BISECTED_MAX + 50, 50):
        bisection.failed(range(first, first + 50))
    assert (len(bisection), bisection.size(0, 50), bisection.size(BISECTED_MAX * 2, 50)) == (0, 25, 25)
    bisection.answered(24)  # a smaller one says nothing about larger ones
    assert bisection.size(0, 50) == 25
    bisection.answered(25)
    assert bisection.size(0, 50) == 50


@pytest.mark.parametrize("count", [BISECTED_MAX - 100, BISECTED_MAX + 2000])
def test_calls_that_are_always_refused_as_a_whole_come_to_listings_that_are_alone(count: int) -> None:
    bisection, cursor, calls, alone = Bisection(), 0, 0, 0
    while alone < 50:  # then the storm rule pauses the store
        window = [Candidate(1 + (cursor + n) % count, "") for n in range(200)]
        cursor = (cursor + 200) % count
        for batch in group(window, lambda _: "", 50, bisection.size):
            bisection.failed([candidate.listing_id for candidate in batch])
            calls, alone = calls + 1, alone + (len(batch) == 1)
    assert calls < 3 * count


def test_a_smaller_batch_of_the_channel_is_respected() -> None:
    bisection = Bisection()
    bisection.failed(range(50))
    assert (bisection.size(0, 10), bisection.size(99, 10)) == (10, 10)


class BisectionMachine(RuleBasedStateMachine):
    """A marketplace that refuses every call with a poison listing in it, as a whole. The model of what is to come of
    it: a count of the whole calls that each listing was in."""

    @initialize(batch_max=st.integers(1, 50))
    def make(self, batch_max: int) -> None:
        self.batch_max = batch_max
        self.bisection = Bisection()
        self.items: dict[int, str] = {}
        self.poison: set[int] = set()
        self.due: list[int] = []
        self.failures: Counter[int] = Counter()
        self.succeeded: set[int] = set()
        self.found: set[int] = set()

    @rule(item=st.sampled_from("xyz"), good=st.integers(1, 40), poison=st.integers(0, 3), dice=st.randoms())
    def listings_become_due(self, item: str, good: int, poison: int, dice: Random) -> None:
        new = list(range(len(self.items), len(self.items) + good + poison))
        self.items |= dict.fromkeys(new, item)
        self.poison |= set(new[:poison])
        dice.shuffle(new)
        self.due += new

    @precondition(lambda self: self.due)
    @rule()
    def send_one_call(self) -> None:
        candidates = [Candidate(listing, self.items[listing]) for listing in self.due]
        [batch, *_] = group(candidates, items, self.batch_max, self.bisection.size)
        ids = [candidate.listing_id for candidate in batch]
        assert len({self.items[listing] for listing in ids}) == 1, "batch keys are kept apart"
        assert len(ids) <= self.batch_max
        if len(ids) > 1 and self.poison & set(ids):
            self.failures.update(ids)
            self.bisection.failed(ids)
            self.due = self.due[1:] + self.due[:1]  # where the cursor stands makes no difference
            return
        self.bisection.settled(ids)
        self.succeeded |= set(ids) - self.poison
        self.found |= set(ids) & self.poison
        self.due = [listing for listing in self.due if listing not in ids]

    @invariant()
    def none_is_in_more_failures_than_there_are_halves(self) -> None:
        if self.failures:
            assert max(self.failures.values()) <= math.ceil(math.log2(self.batch_max)) + 1

    def teardown(self) -> None:
        if not hasattr(self, "due"):
            return
        calls = 0
        while self.due:
            self.send_one_call()
            calls += 1
        self.none_is_in_more_failures_than_there_are_halves()
        assert self.found == self.poison
        assert self.succeeded == self.items.keys() - self.poison
        assert len(self.bisection) == 0, "nothing is remembered of what has an answer"


TestBisectionMachine = BisectionMachine.TestCase
TestBisectionMachine.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
