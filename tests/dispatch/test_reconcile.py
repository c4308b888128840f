"""What reading a listing back means: units that were sold are never shown again."""

from __future__ import annotations

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
    Observed,
    Outcome,
    Rejected,
    Scope,
    Submitted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.dispatch.policy import (
    Correct,
    Decision,
    Defer,
    Fine,
    Pause,
    Refresh,
    Retry,
    Settle,
    Situation,
    SlowDown,
    Stay,
    Trouble,
)
from lumbung.dispatch.reconcile import Wanted, decide_reading
from lumbung.model import DueFor
from tests.dispatch.test_policy import DELAYS, outcomes

SITUATION = Situation(attempts=2, dice=0.25, quiesce_seconds=20.0)
READS = [DueFor.CONFIRM, DueFor.RECONCILE, DueFor.OBSERVE]


def read(seen: Observed | Outcome, due_for: DueFor, desired: int = 10, in_doubt: int | None = None) -> Decision:
    return decide_reading(seen, Wanted(due_for, desired, in_doubt), SITUATION, DELAYS)


@pytest.mark.parametrize("due_for", READS)
@pytest.mark.parametrize("in_doubt", [None, 10, 3])
def test_a_listing_that_shows_what_it_should_is_left_alone(due_for: DueFor, in_doubt: int | None) -> None:
    assert read(Observed(10), due_for, in_doubt=in_doubt) == Decision(Settle(10), Fine(), "It shows what it should")


@pytest.mark.parametrize("due_for", [DueFor.CONFIRM, DueFor.RECONCILE])
@pytest.mark.parametrize("in_doubt", [None, 10, 3])
def test_a_listing_that_shows_more_is_told_again(due_for: DueFor, in_doubt: int | None) -> None:
    message = "It shows 11 instead of 10: told again"
    assert read(Observed(11), due_for, in_doubt=in_doubt) == Decision(Correct(11), Fine(), message)


def test_a_listing_that_is_only_observed_is_never_told_again() -> None:
    assert read(Observed(11), DueFor.OBSERVE) == Decision(Settle(11), Fine(), "It shows 11 instead of 10")
    assert read(Observed(9), DueFor.OBSERVE, in_doubt=9) == Decision(Settle(9), Fine(), "It shows 9 instead of 10")


@pytest.mark.parametrize("in_doubt", [None, 9, 3])
def test_units_that_were_sold_are_not_shown_again_by_reconciling(in_doubt: int | None) -> None:
    assert read(Observed(9), DueFor.RECONCILE, in_doubt=in_doubt).listing == Settle(9)


def test_what_an_unclear_call_may_have_put_there_is_told_again() -> None:
    assert read(Observed(9), DueFor.CONFIRM, in_doubt=9).listing == Correct(9)


def test_what_a_lost_holder_may_have_put_there_is_told_again() -> None:
    assert read(Observed(9), DueFor.CONFIRM, in_doubt=None).listing == Correct(9)


def test_what_no_unclear_call_has_said_was_sold() -> None:
    assert read(Observed(9), DueFor.CONFIRM, in_doubt=8).listing == Settle(9)


@pytest.mark.parametrize(
    ("seen", "decision"),
    [
        (Throttled(7.0, Scope.STORE, "slowly"), Decision(Stay(), SlowDown(7.0), "slowly")),
        (Throttled(7.0, Scope.LISTING, "slowly"), Decision(Defer(7.0), Fine(), "slowly")),
        (Unavailable("away"), Decision(Retry(0.5), Trouble(), "away")),
        (InDoubt("unreadable"), Decision(Retry(0.5), Trouble(), "unreadable")),
        (Unauthorized("expired", refreshable=True), Decision(Stay(), Refresh("expired"), "expired")),
        (Unauthorized("dead", refreshable=False), Decision(Stay(), Pause("dead"), "dead")),
        (Misconfigured("no scope", Scope.STORE), Decision(Stay(), Pause("no scope"), "no scope")),
    ],
    ids=str,
)
@pytest.mark.parametrize("due_for", READS)
def test_what_could_not_be_read_now_is_read_later(seen: Outcome, decision: Decision, due_for: DueFor) -> None:
    assert read(seen, due_for) == decision


UNREADABLE: list[tuple[Outcome, str]] = [
    (Rejected("no such item"), "no such item"),
    (Misconfigured("no such warehouse"), "no such warehouse"),
    (Deferred(None, "campaign"), "campaign"),
    (Floor(3, "reserved"), "reserved"),
    (Accepted(), "It cannot be read back"),
    (Submitted("feed-1", 3.0), "It cannot be read back"),
    (Conflict(3), "It cannot be read back"),
]


@pytest.mark.parametrize(("seen", "message"), UNREADABLE, ids=str)
def test_doubt_that_reading_cannot_remove_is_removed_by_telling_it_again(seen: Outcome, message: str) -> None:
    assert read(seen, DueFor.CONFIRM) == Decision(Correct(None), Fine(), f"{message}: told again")


@pytest.mark.parametrize(("seen", "message"), UNREADABLE, ids=str)
@pytest.mark.parametrize("due_for", [DueFor.RECONCILE, DueFor.OBSERVE])
def test_what_cannot_be_read_back_is_left_as_it_is(seen: Outcome, message: str, due_for: DueFor) -> None:
    assert read(seen, due_for) == Decision(Settle(None), Fine(), message)


@given(
    told=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    in_doubt=st.none() | st.integers(0, 12),
    sold=st.integers(0, 12),
    applied_late=st.booleans(),
    due_for=st.sampled_from(READS),
)
@settings(max_examples=400, deadline=None)
def test_no_sale_is_ever_undone_unless_an_unclear_call_explains_what_is_shown(
    told: list[int], in_doubt: int | None, sold: int, applied_late: bool, due_for: DueFor
) -> None:
    """The marketplace played: it took what it was told, perhaps an unclear call afterwards, and then sold some."""
    desired = told[-1]
    shown = in_doubt if applied_late and in_doubt is not None else desired
    shown = max(0, shown - sold)
    decision = read(Observed(shown), due_for, desired, in_doubt)
    if shown > desired:
        assert isinstance(decision.listing, Correct) == (due_for is not DueFor.OBSERVE)
    elif isinstance(decision.listing, Correct):
        assert due_for is DueFor.CONFIRM
        assert in_doubt in {None, shown}
        assert shown < desired
    else:
        assert decision.listing == Settle(shown)


@given(
    seen=st.builds(Observed, st.integers(0, 9)) | outcomes, due_for=st.sampled_from(READS), desired=st.integers(0, 9)
)
@settings(max_examples=300, deadline=None)
def test_reading_never_parks_nor_delivers_nor_leaves_a_doubt(
    seen: Observed | Outcome, due_for: DueFor, desired: int
) -> None:
    listing = read(seen, due_for, desired).listing
    assert isinstance(listing, Settle | Correct | Retry | Defer | Stay)
    if isinstance(listing, Retry):
        assert listing == Retry(0.5)
    if due_for is DueFor.OBSERVE:
        assert not isinstance(listing, Correct)
