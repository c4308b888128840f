"""What each outcome means, exactly."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
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
    Decision,
    Defer,
    Delays,
    Deliver,
    Fine,
    NoDecisionError,
    Park,
    Pause,
    Retry,
    Situation,
    SlowDown,
    Stay,
    Trouble,
    Unclear,
    decide,
)

DELAYS = Delays(
    backoff_first_seconds=0.5,
    backoff_max_seconds=900.0,
    throttle_default_seconds=60.0,
    throttle_seconds_max=600.0,
    defer_default_seconds=1800.0,
    defer_seconds_max=3600.0,
)
THIRD_FAILURE = Situation(attempts=2, dice=0.25, doubt_seconds=0.0)  # 0.25 x 0.5 x 2 ** 2

DECIDED: list[tuple[Outcome, Decision]] = [
    (Accepted(), Decision(Deliver(None), Fine(), "Successfully Updated")),
    (Throttled(7.5, Scope.STORE, "slowly"), Decision(Stay(), SlowDown(7.5), "slowly")),
    (Throttled(0.0, Scope.LISTING, "slowly"), Decision(Stay(), SlowDown(0.0), "slowly")),
    (Throttled(None), Decision(Stay(), SlowDown(60.0), "The marketplace asks to slow down")),
    (Unavailable("refused"), Decision(Retry(0.5, doubtful=False), Trouble(), "refused")),
    (InDoubt("reset"), Decision(Retry(0.5, doubtful=True), Unclear(), "reset")),
    (Unauthorized("dead token", refreshable=False), Decision(Stay(), Pause("dead token"), "dead token")),
    (Misconfigured("no scope", Scope.STORE), Decision(Stay(), Pause("no scope"), "no scope")),
    (Misconfigured("no warehouse", Scope.LISTING), Decision(Park("no warehouse"), Fine(), "no warehouse")),
    (Rejected("banned"), Decision(Park("banned"), Fine(), "banned")),
    (Throttled(1e9), Decision(Stay(), SlowDown(600.0), "The marketplace asks to slow down")),
    (Deferred(None, "campaign"), Decision(Defer(1800.0), Fine(), "campaign")),
    (Deferred(60.0, "campaign"), Decision(Defer(60.0), Fine(), "campaign")),
    (Deferred(1e9, "campaign"), Decision(Defer(3600.0), Fine(), "campaign")),
]
UNDECIDED: list[Outcome] = [
    Submitted("feed-1", 30.0),
    Floor(3, "reserved"),
    Conflict(4),
    Unauthorized("expired", refreshable=True),
    Throttled(1.0, Scope.APPLICATION),
]


@pytest.mark.parametrize(("outcome", "decision"), DECIDED, ids=str)
def test_an_outcome_means_exactly_one_decision(outcome: Outcome, decision: Decision) -> None:
    assert decide(outcome, THIRD_FAILURE, DELAYS) == decision


@pytest.mark.parametrize("outcome", UNDECIDED, ids=str)
def test_an_outcome_without_a_decision_is_refused_loudly(outcome: Outcome) -> None:
    with pytest.raises(NoDecisionError, match=f"No decision is built for {type(outcome).__name__}"):
        decide(outcome, THIRD_FAILURE, DELAYS)


def test_every_member_of_the_union_is_tested_here() -> None:
    tested = {type(outcome) for outcome, _ in DECIDED} | {type(outcome) for outcome in UNDECIDED}
    assert tested == set(get_args(Outcome))


def test_while_an_older_call_may_still_take_effect_a_delivery_is_confirmed_after_it() -> None:
    doubtful = Situation(attempts=0, dice=0.0, doubt_seconds=12.5)
    assert decide(Accepted(), doubtful, DELAYS).listing == Deliver(confirm_after_seconds=12.5)


@given(
    attempts=st.integers(0, 5000),
    dice=st.floats(0, 1, exclude_max=True),
    outcome=st.sampled_from([Unavailable("away"), InDoubt("unclear")]),
)
def test_no_number_of_failures_makes_the_wait_longer_than_the_limit_or_gives_up(
    attempts: int, dice: float, outcome: Outcome
) -> None:
    decision = decide(outcome, Situation(attempts, dice, 0.0), DELAYS)
    assert isinstance(decision.listing, Retry)
    assert 0 <= decision.listing.after_seconds <= min(900.0, 0.5 * 2.0 ** min(attempts, 20))
    assert decision.listing.doubtful is isinstance(outcome, InDoubt)
