"""What each outcome means, exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbung.channels.base import (
    Accepted,
    Conflict,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    Scope,
    Submitted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Decision,
    Defer,
    Delays,
    Deliver,
    Fine,
    ListingDecision,
    Park,
    Pause,
    Refresh,
    Retry,
    Settle,
    Situation,
    SlowDown,
    Stay,
    Submit,
    Trouble,
    Unclear,
    decide,
)

DELAYS = Delays(
    backoff_first_seconds=0.5,
    backoff_max_seconds=900.0,
    throttle_default_seconds=60.0,
    throttle_seconds_min=1.0,
    throttle_seconds_max=600.0,
    defer_default_seconds=1800.0,
    defer_seconds_max=3600.0,
    floor_retry_seconds=45.0,
    submitted_check_seconds_max=300.0,
    submitted_seconds_max=3000.0,
)
FIRST = Situation(attempts=0, dice=0.25, quiesce_seconds=20.0)
THIRD_FAILURE = Situation(attempts=2, dice=0.25, quiesce_seconds=20.0)  # 0.25 x 0.5 x 2 ** 2 = 0.5
CONFLICT = "The marketplace shows another quantity"
TAKEN = "The marketplace has taken it and applies it later"

DECIDED: list[tuple[Outcome, Decision]] = [
    (Accepted(), Decision(Deliver(None), Fine(), "Successfully Updated")),
    (Submitted("feed-1", 30.0), Decision(Submit("feed-1", 30.0), Fine(), TAKEN)),
    (Submitted("feed-1", 1e9), Decision(Submit("feed-1", 300.0), Fine(), TAKEN)),
    (Throttled(7.5, Scope.STORE, "slowly"), Decision(Stay(), SlowDown(7.5), "slowly")),
    (Throttled(7.5, Scope.LISTING, "slowly"), Decision(Defer(7.5), Fine(), "slowly")),
    (Throttled(7.5, Scope.APPLICATION, "slowly"), Decision(Stay(), SlowDown(7.5, application=True), "slowly")),
    (Throttled(None), Decision(Stay(), SlowDown(60.0), "The marketplace asks to slow down")),
    (Throttled(None, Scope.LISTING, "slowly"), Decision(Defer(60.0), Fine(), "slowly")),
    (Throttled(1e9), Decision(Stay(), SlowDown(600.0), "The marketplace asks to slow down")),
    (Throttled(-3.0), Decision(Stay(), SlowDown(1.0), "The marketplace asks to slow down")),
    (Unavailable("refused"), Decision(Retry(0.5), Trouble(), "refused")),
    (InDoubt("reset"), Decision(Retry(0.5, doubt_seconds=20.0), Unclear(), "reset")),
    (Unauthorized("dead token", refreshable=False), Decision(Stay(), Pause("dead token"), "dead token")),
    (Unauthorized("expired", refreshable=True), Decision(Stay(), Refresh("expired"), "expired")),
    (Misconfigured("no scope", Scope.STORE), Decision(Stay(), Pause("no scope"), "no scope")),
    (Misconfigured("no warehouse", Scope.LISTING), Decision(Park("no warehouse"), Fine(), "no warehouse")),
    (Rejected("banned"), Decision(Park("banned"), Fine(), "banned")),
    (Floor(3, "reserved"), Decision(Again(floor=3), Fine(), "reserved")),
    (Deferred(None, "campaign"), Decision(Defer(1800.0), Fine(), "campaign")),
    (Deferred(60.0, "campaign"), Decision(Defer(60.0), Fine(), "campaign")),
    (Deferred(1e9, "campaign"), Decision(Defer(3600.0), Fine(), "campaign")),
    (Deferred(-1.0, "campaign"), Decision(Defer(0.0), Fine(), "campaign")),
    (Conflict(4), Decision(Retry(0.5, observed=4), Fine(), CONFLICT)),
    (Conflict(None), Decision(Retry(0.5), Fine(), CONFLICT)),
]


@pytest.mark.parametrize(("outcome", "decision"), DECIDED, ids=str)
def test_an_outcome_means_exactly_one_decision(outcome: Outcome, decision: Decision) -> None:
    assert decide(outcome, THIRD_FAILURE, DELAYS) == decision


def test_every_member_of_the_union_is_tested_here() -> None:
    assert {type(outcome) for outcome, _ in DECIDED} == set(get_args(Outcome))


@pytest.mark.parametrize(
    ("outcome", "decision"),
    [
        (InDoubt("reset"), Again(doubt_seconds=20.0)),
        (Conflict(4), Again(observed=4)),
        (Conflict(None), Again(observed=None)),
        (Unavailable("refused"), Retry(0.125)),
    ],
    ids=str,
)
def test_after_a_first_unclear_answer_the_newest_is_sent_at_once(outcome: Outcome, decision: ListingDecision) -> None:
    assert decide(outcome, FIRST, DELAYS).listing == decision


# --- an older call may still take effect ---


def test_while_an_older_call_may_still_take_effect_a_delivery_is_confirmed_after_it() -> None:
    doubtful = Situation(attempts=0, dice=0.0, doubt_seconds=12.5)
    assert decide(Accepted(), doubtful, DELAYS).listing == Deliver(confirm_after_seconds=12.5)


# --- floors ---


@pytest.mark.parametrize("shown", [None, 4, 100])
def test_below_a_floor_the_minimum_is_sent_at_once_unless_it_is_shown_already(shown: int | None) -> None:
    situation = Situation(attempts=9, dice=0.5, shown=shown)
    assert decide(Floor(3, "reserved"), situation, DELAYS).listing == Again(floor=3)


@pytest.mark.parametrize("shown", [3, 2, 0])
def test_a_listing_that_shows_the_minimum_or_less_waits_for_the_rest(shown: int) -> None:
    situation = Situation(attempts=0, dice=0.5, shown=shown)
    assert decide(Floor(3, "reserved"), situation, DELAYS).listing == AwaitFloor(45.0, sent=False)


def test_while_a_call_is_in_doubt_nobody_knows_that_the_minimum_is_shown() -> None:
    for doubt in ({"doubt_seconds": 0.1}, {"in_doubt": True}):
        situation = replace(Situation(attempts=0, dice=0.5, shown=3), **doubt)
        assert decide(Floor(3, "reserved"), situation, DELAYS).listing == Again(floor=3)


def test_a_minimum_that_was_taken_waits_for_the_rest() -> None:
    situation = Situation(attempts=1, dice=0.5, floored=True)
    assert decide(Accepted(), situation, DELAYS).listing == AwaitFloor(45.0, sent=True)


@pytest.mark.parametrize(("doubt", "wait"), [(12.5, 12.5), (100.0, 45.0)])
def test_a_minimum_that_was_taken_while_a_call_is_in_doubt_is_looked_at_again_when_that_is_over(
    doubt: float, wait: float
) -> None:
    situation = Situation(attempts=1, dice=0.5, floored=True, doubt_seconds=doubt)
    assert decide(Accepted(), situation, DELAYS).listing == AwaitFloor(wait, sent=True, doubt_seconds=doubt)


def test_a_marketplace_that_does_not_take_its_own_minimum_is_given_time() -> None:
    situation = Situation(attempts=1, dice=0.5, floored=True, sent=3)
    assert decide(Floor(4, "reserved"), situation, DELAYS).listing == Retry(0.5)


def test_a_minimum_below_what_was_sent_makes_no_sense_and_is_not_sent_over_and_over() -> None:
    situation = Situation(attempts=0, dice=0.5, shown=9, sent=5)
    assert decide(Floor(5, "reserved"), situation, DELAYS).listing == Retry(0.25)
    assert decide(Floor(6, "reserved"), situation, DELAYS).listing == Again(floor=6)


# --- what was submitted ---


def asked(after_seconds: float, attempts: int = 0) -> Situation:
    return Situation(attempts=attempts, dice=0.5, quiesce_seconds=20.0, asked_after_seconds=after_seconds)


def test_what_is_not_ready_yet_is_asked_about_again() -> None:
    assert decide(Submitted("feed-2", 30.0), asked(3000.0), DELAYS) == Decision(Submit("feed-2", 30.0), Fine(), TAKEN)


def test_what_is_not_ready_after_a_long_time_is_in_doubt() -> None:
    message = "The marketplace has not applied in 3001 s what it took"
    assert decide(Submitted("feed-2", 30.0), asked(3001.0), DELAYS) == Decision(Again(20.0), Unclear(), message)
    again = decide(Submitted("feed-2", 30.0), asked(3001.0, attempts=1), DELAYS)
    assert again == Decision(Retry(0.5, 20.0), Unclear(), message)


# --- any outcome in any situation ---

seconds = st.floats(-10, 1e12)
maybe_seconds = st.none() | seconds
words = st.text(max_size=5)
quantities = st.integers(0, 20)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Accepted()),
    st.builds(Submitted, words, seconds),
    st.builds(Throttled, maybe_seconds, st.sampled_from(Scope), words),
    st.builds(Unavailable, words),
    st.builds(InDoubt, words),
    st.builds(Unauthorized, words, st.booleans()),
    st.builds(Misconfigured, words, st.sampled_from([Scope.LISTING, Scope.STORE])),
    st.builds(Rejected, words),
    st.builds(Floor, quantities, words),
    st.builds(Deferred, maybe_seconds, words),
    st.builds(Conflict, st.none() | quantities),
)
situations = st.builds(
    Situation,
    attempts=st.integers(0, 5000),
    dice=st.floats(0, 1, exclude_max=True),
    doubt_seconds=st.floats(0, 3600),
    quiesce_seconds=st.floats(0, 3600),
    in_doubt=st.booleans(),
    shown=st.none() | quantities,
    floored=st.booleans(),
    asked_after_seconds=st.none() | st.floats(0, 1e6),
    sent=st.none() | quantities,
)


def ends_in(decision: Decision) -> str:
    """Where a listing is after it: the words of the delivery state machine."""
    match decision.listing:
        case Deliver():
            return "delivered"
        case Retry() | Defer() | Submit() | AwaitFloor():
            return "waiting"
        case Park():
            return "parked"
        case Again() | Correct():
            return "due"
        case Settle():
            return "settled"
        case Stay():
            return "paused" if isinstance(decision.store, Pause) else "due"
        case listing:
            assert_never(listing)


def wait_and_most(decision: Decision, attempts: int) -> tuple[float, float]:
    """How long it has something wait, and the longest time that it may."""
    match decision:
        case Decision(listing=Retry(after_seconds=wait)):
            return wait, min(900.0, 0.5 * 2.0 ** min(attempts, 20))
        case Decision(listing=Defer(after_seconds=wait)):
            return wait, 3600.0
        case Decision(listing=AwaitFloor(after_seconds=wait)):
            return wait, 45.0
        case Decision(listing=Submit(after_seconds=wait)):
            return wait, 300.0
        case Decision(store=SlowDown(seconds=wait)):
            return wait, 600.0
        case _:
            return 0.0, 0.0


@given(outcome=outcomes, situation=situations)
@settings(max_examples=400, deadline=None)
def test_a_listing_ends_where_something_happens_next_after_a_wait_that_is_bounded(
    outcome: Outcome, situation: Situation
) -> None:
    decision = decide(outcome, situation, DELAYS)
    assert ends_in(decision) in {"delivered", "waiting", "parked", "paused", "due"}
    wait, most = wait_and_most(decision, situation.attempts)
    assert 0 <= wait <= most


@given(outcome=outcomes, situation=situations)
@settings(max_examples=400, deadline=None)
def test_only_what_may_have_been_applied_leaves_a_doubt(outcome: Outcome, situation: Situation) -> None:
    decision = decide(outcome, situation, DELAYS)
    late = isinstance(outcome, Submitted) and (situation.asked_after_seconds or 0.0) > 3000.0
    doubt = decision.listing.doubt_seconds if isinstance(decision.listing, Again | Retry) else None
    assert doubt == (situation.quiesce_seconds if isinstance(outcome, InDoubt) or late else None)
    assert isinstance(decision.store, Unclear) == (doubt is not None)


@given(outcome=outcomes, situation=situations)
@settings(max_examples=400, deadline=None)
def test_only_a_failure_of_the_listing_counts_as_an_attempt(outcome: Outcome, situation: Situation) -> None:
    decision = decide(outcome, situation, DELAYS)
    costs = isinstance(decision.listing, Again | Retry)
    free = Accepted | Throttled | Deferred | Unauthorized | Misconfigured | Rejected
    assert not (costs and isinstance(outcome, free))
    if isinstance(outcome, Unavailable | InDoubt | Conflict):
        assert costs


@given(outcome=outcomes, situation=situations)
@settings(max_examples=400, deadline=None)
def test_what_is_sent_at_once_is_never_the_same_call_again(outcome: Outcome, situation: Situation) -> None:
    """After an unclear answer or a conflict only once; after a floor only with another quantity."""
    decision = decide(outcome, situation, DELAYS)
    if isinstance(decision.listing, Again):
        if decision.listing.floor is None:
            assert situation.attempts == 0
        else:
            assert not situation.floored
            assert situation.sent is None or decision.listing.floor > situation.sent


@given(outcome=outcomes, situation=situations)
@settings(max_examples=200, deadline=None)
def test_only_an_unreachable_store_counts_against_its_breaker(outcome: Outcome, situation: Situation) -> None:
    assert isinstance(decide(outcome, situation, DELAYS).store, Trouble) == isinstance(outcome, Unavailable)
