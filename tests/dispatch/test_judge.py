"""From what a call gave to what is written down: bisection, the storm rule, doubt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.channels.base import (
    Accepted,
    Attempt,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Observed,
    Outcome,
    Reading,
    ReadRow,
    Rejected,
    Row,
    Scope,
    Submitted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.db import delivery
from lumbung.db.delivery import Due
from lumbung.dispatch.batching import Bisection, Locks
from lumbung.dispatch.judge import DOUBTS_KEPT, Answered, Exchanged, Judge, Moment, Told, Verdict, sent_quantity
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Defer,
    Deliver,
    Fine,
    ListingDecision,
    Park,
    Pause,
    Refresh,
    Retry,
    Settle,
    SlowDown,
    Stay,
    Submit,
    Trouble,
)
from lumbung.dispatch.report import Lease, Result
from lumbung.dispatch.window import Batch, Task
from lumbung.model import DueFor
from tests.dispatch.test_policy import DELAYS

LEASE = Lease(store_id=1, tenant_id=1, epoch=1, channel="blib", store_name="Toko")
MOMENT = Moment(started=100.0, now=101.0)


def judge_of(
    lease: Lease = LEASE, *, bisection: Bisection | None = None, locks: Locks | None = None, storm: int = 50
) -> Judge:
    return Judge(
        lease,
        DELAYS,
        quiesce_seconds=20.0,
        doubt_seconds_max=60.0,
        storm_rejections=storm,
        thing_of=lambda listing: listing.listing_id,
        bisection=Bisection() if bisection is None else bisection,
        locks=Locks() if locks is None else locks,
        dice=lambda: 0.5,
    )


def due(listing_id: int, quantity: int = 7) -> Due:
    return Due(listing_id, lane=1, version=40, quantity=quantity, attempts=0, remote_variant="{}")


def batch(*listings: Due | int, task: Task = Task.PUSH, read_at: float = 99.0) -> Batch:
    return Batch(task, tuple(due(item) if isinstance(item, int) else item for item in listings), read_at)


def push(
    judge: Judge, *answers: tuple[Due | int, Outcome], as_a_whole: bool = False, moment: Moment = MOMENT
) -> Verdict:
    rows = tuple(
        Row(listing if isinstance(listing, int) else listing.listing_id, outcome) for listing, outcome in answers
    )
    attempt = Attempt(rows, (), as_a_whole)
    return judge.judge(batch(*(listing for listing, _ in answers)), Exchanged.of(attempt), moment)


def decisions(verdict: Verdict) -> dict[int, ListingDecision]:
    assert len({result.listing_id for result in verdict.results}) == len(verdict.results)
    return {result.listing_id: result.decision for result in verdict.results}


# --- a batch ---


def test_every_listing_of_a_call_gets_the_decision_of_its_own_row() -> None:
    verdict = push(judge_of(), (1, Accepted()), (2, Unavailable("away")), (3, Throttled(9.0)))
    assert decisions(verdict) == {1: Deliver(), 2: Retry(0.25), 3: Stay()}
    assert verdict.store == (
        Told(Fine(), "Successfully Updated"),
        Told(Trouble(), "away"),
        Told(SlowDown(9.0), "The marketplace asks to slow down"),
    )


def test_what_is_written_down_names_the_version_and_quantity_that_were_sent() -> None:
    exchanged = Exchanged({1: Answered(Accepted(), '{"ok":true}')}, ())
    [result] = judge_of().judge(batch(replace(due(1), attempts=2)), exchanged, MOMENT).results
    assert result == Result(
        1, 40, 7, "Accepted", Deliver(), "Successfully Updated", '{"ok":true}', due_for=DueFor.PUSH, attempt=3
    )


def test_below_a_floor_the_floor_is_what_was_sent() -> None:
    floored = replace(due(1, quantity=2), floor=5)
    assert sent_quantity(floored) == 5
    [result] = push(judge_of(), (floored, Accepted())).results
    assert (result.quantity, result.decision) == (5, AwaitFloor(45.0, sent=True))


def test_a_floor_that_is_below_the_quantity_by_now_is_no_matter() -> None:
    risen = replace(due(1, quantity=8), floor=5)
    assert sent_quantity(risen) == 8
    [result] = push(judge_of(), (risen, Accepted())).results
    assert (result.quantity, result.decision) == (8, Deliver())


def test_a_minimum_that_is_no_more_than_what_was_sent_is_not_sent_over_and_over() -> None:
    [result] = push(judge_of(), (due(1, quantity=7), Floor(7, "reserved"))).results
    assert result.decision == Retry(0.25)


def test_an_answer_without_a_row_for_each_listing_is_an_error_that_changes_nothing() -> None:
    bisection = Bisection()
    judge = judge_of(bisection=bisection, storm=2)
    push(judge, (9, Rejected("gone")))
    bisection.failed([1, 2])
    one = Exchanged.of(Attempt((Row(1, Rejected("gone")),), (), as_a_whole=True))
    with pytest.raises(KeyError):
        judge.judge(batch(1, 2), one, MOMENT)
    assert (bisection.size(1, 50), bisection.size(2, 50), judge.holds(1), judge.holds(9)) == (1, 1, False, True)


def test_a_push_that_is_answered_with_a_quantity_is_in_doubt() -> None:
    verdict = judge_of().judge(batch(1), Exchanged({1: Answered(Observed(7))}, ()), MOMENT)
    assert decisions(verdict) == {1: Again(doubt_seconds=20.0)}
    assert verdict.results[0].message == "The connector answered a push with a quantity"


def test_all_alike_answers_for_every_listing() -> None:
    verdict = judge_of().judge(batch(1, 2), Exchanged.all_alike(batch(1, 2), Unavailable("away")), MOMENT)
    assert decisions(verdict) == {1: Retry(0.25), 2: Retry(0.25)}


def test_a_dead_token_asks_for_a_refresh_and_leaves_all_as_they_are() -> None:
    verdict = push(judge_of(), (1, Unauthorized("expired", refreshable=True)))
    assert (decisions(verdict), verdict.store) == ({1: Stay()}, (Told(Refresh("expired"), "expired"),))


# --- a call that fails as a whole ---


@pytest.mark.parametrize("outcome", [Rejected("bad"), Misconfigured("bad")], ids=str)
def test_a_call_refused_as_a_whole_parks_none_and_is_cut_in_halves(outcome: Outcome) -> None:
    bisection = Bisection()
    judge = judge_of(bisection=bisection)
    verdict = push(judge, *((listing, outcome) for listing in range(4)), as_a_whole=True)
    assert decisions(verdict) == dict.fromkeys(range(4), Stay())
    assert {result.message for result in verdict.results} == {
        "bad (the call was refused as a whole: it is cut in halves)"
    }
    assert [bisection.size(listing, 50) for listing in range(4)] == [2] * 4
    assert not any(judge.holds(listing) for listing in range(4))


def test_an_unclear_call_is_cut_in_halves_too_and_its_doubt_is_kept() -> None:
    bisection = Bisection()
    verdict = push(judge_of(bisection=bisection), (1, InDoubt("500")), (2, InDoubt("500")), as_a_whole=True)
    assert decisions(verdict) == dict.fromkeys((1, 2), Again(doubt_seconds=20.0))
    assert bisection.size(1, 50) == 1


def test_a_misconfigured_store_pauses_it_also_when_the_call_was_refused_as_a_whole() -> None:
    outcome = Misconfigured("no scope", Scope.STORE)
    verdict = push(judge_of(), (1, outcome), (2, outcome), as_a_whole=True)
    assert decisions(verdict) == {1: Stay(), 2: Stay()}
    assert verdict.store == (Told(Pause("no scope"), "no scope"),) * 2


def test_an_answer_for_one_alone_is_its_own() -> None:
    bisection = Bisection()
    judge = judge_of(bisection=bisection)
    push(judge, (1, Rejected("bad")), (2, Rejected("bad")), as_a_whole=True)
    push(judge, (1, Rejected("bad")), as_a_whole=True)
    assert (judge.holds(1), bisection.size(1, 50), bisection.size(2, 50)) == (True, 50, 1)


# --- the storm rule ---


def test_a_rejection_is_held_its_call_counted_at_once_and_its_meaning_later() -> None:
    judge = judge_of()
    verdict = push(judge, (1, Rejected("gone")))
    [now] = verdict.results
    assert (now.decision, now.calls, now.outcome, judge.holds(1)) == (Stay(), 1, "Rejected", True)
    verdict = push(judge, (2, Accepted()))
    assert decisions(verdict) == {2: Deliver(), 1: Park("gone")}
    assert (verdict.released, verdict.results[1].calls, judge.holds(1)) == ((1,), 0, False)


def test_a_rejection_in_the_same_call_as_a_success_parks_at_once() -> None:
    verdict = push(judge_of(), (1, Rejected("gone")), (2, Accepted()))
    assert (decisions(verdict), verdict.released) == ({1: Park("gone"), 2: Deliver()}, ())
    assert [result.calls for result in verdict.results] == [1, 1]


def test_a_held_listing_that_has_a_newer_answer_is_held_no_more() -> None:
    judge = judge_of()
    push(judge, (1, Rejected("gone")))
    assert decisions(push(judge, (1, Unavailable("away")))) == {1: Retry(0.25)}
    assert (judge.holds(1), judge.nothing_else()) == (False, Verdict(()))


def test_when_nothing_else_is_due_what_is_held_parks() -> None:
    judge = judge_of()
    push(judge, (1, Rejected("gone")))
    verdict = judge.nothing_else()
    assert (decisions(verdict), verdict.released, verdict.results[0].calls) == ({1: Park("gone")}, (1,), 0)
    assert judge.nothing_else() == Verdict(())


def test_a_storm_pauses_the_store_and_parks_none() -> None:
    judge = judge_of(storm=3)
    push(judge, (1, Rejected("no")))
    push(judge, (2, Rejected("no")))
    verdict = push(judge, (3, Rejected("no such shop")))
    reason = (
        "3 different listings in a row were refused: the store seems to be set up wrongly. "
        "The last answer: no such shop"
    )
    assert decisions(verdict) == {3: Stay()}
    assert verdict.store == (Told(Fine(), "no such shop"), Told(Pause(reason), reason))
    assert (set(verdict.released), verdict.unpark) == ({1, 2}, (1, 2))
    assert not any(judge.holds(listing) for listing in (1, 2, 3))


def test_misconfigured_listings_count_as_rejected_ones() -> None:
    """A location that the whole shop may not use would otherwise park every listing, one by one."""
    judge = judge_of(storm=3)
    push(judge, (1, Misconfigured("wrong location", Scope.LISTING)))
    push(judge, (2, Rejected("no")))
    verdict = push(judge, (3, Misconfigured("wrong location", Scope.LISTING)))
    assert decisions(verdict) == {3: Stay()}
    assert [type(told.decision) for told in verdict.store] == [Fine, Pause]


def test_a_call_that_is_locked_as_a_whole_is_cut_in_halves_and_nobody_waits() -> None:
    """One of them may be in a campaign: the others must not wait for hours."""
    bisection = Bisection()
    judge = judge_of(bisection=bisection)
    rows = tuple(Row(listing, Deferred(None, "in promotion")) for listing in (1, 2))
    whole = judge.judge(batch(1, 2), Exchanged.of(Attempt(rows, (), as_a_whole=True)), MOMENT)
    assert decisions(whole) == {1: Stay(), 2: Stay()}
    assert (bisection.size(1, 50), bisection.size(2, 50)) == (1, 1)
    alone = judge.judge(batch(1), Exchanged.of(Attempt(rows[:1], (), as_a_whole=True)), MOMENT)
    assert [type(result.decision) for result in alone.results] == [Defer]


def calls_until_all_wait(judge: Judge, bisection: Bisection, locks: Locks, listings: list[int]) -> int:
    """How many calls it takes when the marketplace locks every call as a whole."""
    calls, due_now = 0, list(listings)
    while due_now:
        calls += 1
        size = bisection.size(due_now[0], 50)
        sent = [i for i in due_now if bisection.size(i, 50) == size and (i in locks) == (due_now[0] in locks)][:size]
        rows = tuple(Row(listing, Deferred(None, "in promotion")) for listing in sent)
        verdict = judge.judge(batch(*sent), Exchanged.of(Attempt(rows, (), as_a_whole=True)), MOMENT)
        waiting = {result.listing_id for result in verdict.results if isinstance(result.decision, Defer)}
        due_now = [i for i in due_now if i not in waiting and i not in sent] + [i for i in sent if i not in waiting]
    return calls


def test_an_item_that_is_locked_with_all_its_variations_costs_one_call_after_the_first_look() -> None:
    bisection, locks = Bisection(), Locks()
    judge = judge_of(bisection=bisection, locks=locks)
    rounds = [calls_until_all_wait(judge, bisection, locks, list(range(50))) for _ in range(9)]
    assert rounds[0] > 50
    assert rounds[1:7] == [1] * 6
    assert sum(calls > 1 for calls in rounds[1:]) == 1  # the closer look: one may be free again beside another


def test_what_is_answered_otherwise_is_locked_no_more() -> None:
    locks = Locks()
    judge = judge_of(locks=locks)
    push(judge, (1, Deferred(None, "in promotion")))
    assert 1 in locks
    push(judge, (1, Accepted()))
    assert 1 not in locks


def test_a_storm_brings_back_those_that_were_parked_while_they_were_counted() -> None:
    judge = judge_of(storm=3)
    push(judge, (1, Rejected("no")))
    judge.nothing_else()
    push(judge, (2, Rejected("no")))
    verdict = push(judge, (3, Rejected("no")))
    assert (verdict.unpark, verdict.released) == ((1, 2), (2,))


@pytest.mark.parametrize("success", [Accepted(), Submitted("feed-1", 5.0)], ids=str)
def test_what_the_store_takes_ends_the_row(success: Outcome) -> None:
    judge = judge_of(storm=2)
    push(judge, (1, Rejected("no")))
    push(judge, (2, success))
    push(judge, (3, Rejected("no")))
    assert judge.holds(3)


@pytest.mark.parametrize("outcome", [Throttled(1.0), Unavailable("away"), InDoubt("500")], ids=str)
def test_what_is_no_success_does_not_end_the_row(outcome: Outcome) -> None:
    judge = judge_of(storm=2)
    push(judge, (1, Rejected("no")))
    push(judge, (2, outcome))
    verdict = push(judge, (3, Rejected("no")))
    assert isinstance(verdict.store[-1].decision, Pause)


class HoldingMachine(RuleBasedStateMachine):
    """The sender's side of the storm rule: a listing stays busy from its call until it is told to be free again. The
    model is a list of the results of each listing; the last one is where it stands."""

    @initialize(storm=st.integers(1, 6))
    def make(self, storm: int) -> None:
        self.judge = judge_of(storm=storm)
        self.storm = storm
        self.busy: set[int] = set()
        self.written: dict[int, list[Result]] = {listing: [] for listing in range(8)}
        self.rejected_in_a_row: set[int] = set()
        self.paused = 0

    @rule(
        data=st.data(),
        outcomes=st.lists(
            st.sampled_from([Rejected("no"), Rejected("no"), Rejected("no"), Accepted(), Unavailable("x")]),
            min_size=1,
            max_size=3,
        ),
    )
    def a_call(self, data: st.DataObject, outcomes: list[Outcome]) -> None:
        free = sorted(self.written.keys() - self.busy)
        if not free:
            return
        ids = data.draw(st.permutations(free))[: len(outcomes)]
        self.busy |= set(ids)
        answers = list(zip(ids, outcomes, strict=False))
        verdict = push(self.judge, *answers)
        self.write(verdict)
        self.busy -= {listing for listing in ids if not self.judge.holds(listing)}
        rejected = {listing for listing, outcome in answers if isinstance(outcome, Rejected)}
        if any(isinstance(outcome, Accepted) for _, outcome in answers):
            self.rejected_in_a_row = set()
            assert all(isinstance(self.written[listing][-1].decision, Park) for listing in rejected)
        elif any(isinstance(told.decision, Pause) for told in verdict.store):
            assert not any(isinstance(result.decision, Park) for result in verdict.results)
            assert self.parked() <= set(verdict.unpark), "all that were parked in the row are brought back"
            self.rejected_in_a_row = set()
            self.paused += 1
        else:
            self.rejected_in_a_row |= rejected

    @precondition(lambda self: self.busy)
    @rule()
    def nothing_else_is_due(self) -> None:
        self.write(self.judge.nothing_else())
        assert self.busy == set(), "none is left behind"

    def write(self, verdict: Verdict) -> None:
        decisions(verdict)
        for result in verdict.results:
            self.written[result.listing_id].append(result)
        self.busy -= set(verdict.released)

    def parked(self) -> set[int]:
        """Those of the row that were parked for want of anything else to try."""
        return {listing for listing in self.rejected_in_a_row if isinstance(self.written[listing][-1].decision, Park)}

    @invariant()
    def just_the_held_ones_are_busy(self) -> None:
        assert self.busy == {listing for listing in self.written if self.judge.holds(listing)}

    @invariant()
    def each_call_is_counted_once(self) -> None:
        for results in self.written.values():
            for before, result in zip([None, *results], results, strict=False):
                assert result.calls == 1 or (before is not None and before.outcome == "Rejected" and before.calls == 1)

    @invariant()
    def nothing_is_parked_by_a_row_as_long_as_a_storm(self) -> None:
        assert len(self.busy) < self.storm


TestHoldingMachine = HoldingMachine.TestCase
TestHoldingMachine.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


# --- doubt ---


def test_a_delivery_after_a_takeover_is_confirmed_when_the_lost_calls_are_over() -> None:
    judge = judge_of(replace(LEASE, doubt_until=112.5))
    [result] = push(judge, (1, Accepted())).results
    assert (result.decision, result.doubt_unknown) == (Deliver(confirm_after_seconds=11.5), True)


def test_doubt_that_ended_during_the_call_still_counts_and_is_confirmed_soon() -> None:
    judge = judge_of(replace(LEASE, doubt_until=100.5))
    [result] = push(judge, (1, Accepted())).results
    assert (result.decision, result.doubt_unknown) == (Deliver(confirm_after_seconds=0.001), True)


def test_doubt_that_ended_before_the_call_is_over() -> None:
    judge = judge_of(replace(LEASE, doubt_until=100.0))
    [result] = push(judge, (1, Accepted())).results
    assert (result.decision, result.doubt_unknown) == (Deliver(), False)


def test_a_call_of_our_own_in_doubt_is_confirmed_and_its_quantity_is_known() -> None:
    listing = replace(due(1), doubtful=3, doubt_left_seconds=10.0)  # read at 99
    [result] = push(judge_of(), (listing, Accepted())).results
    assert (result.decision, result.doubt_unknown) == (Deliver(confirm_after_seconds=8.0), False)


def test_a_doubt_about_nobody_knows_what_is_a_lost_holders() -> None:
    listing = replace(due(1), doubtful=None, doubt_left_seconds=10.0)
    [result] = push(judge_of(), (listing, Accepted())).results
    assert result.doubt_unknown


def test_a_doubt_further_ahead_than_any_can_be_was_written_before_the_clock_jumped_back() -> None:
    listing = replace(due(1), doubtful=3, doubt_left_seconds=1e9)
    [result] = push(judge_of(), (listing, Accepted())).results
    assert result.decision == Deliver(confirm_after_seconds=58.0)  # 99 + 60 - 101


def test_a_doubt_that_is_past_is_over() -> None:
    listing = replace(due(1), doubtful=3, doubt_left_seconds=-5.0)
    [result] = push(judge_of(), (listing, Accepted())).results
    assert (result.decision, result.doubt_unknown) == (Deliver(), False)


def test_two_unclear_calls_that_said_different_numbers_are_remembered_though_the_databases_clock_jumped() -> None:
    judge, forgotten = judge_of(), replace(due(1), doubtful=None, doubt_left_seconds=None)
    first, second, third = (
        push(judge, (replace(forgotten, quantity=quantity), InDoubt("timeout")), moment=Moment(at, at + 1)).results[0]
        for quantity, at in ((3, 100.0), (4, 110.0), (4, 300.0))
    )
    assert (first.doubt_unknown, second.doubt_unknown) == (False, True)
    assert not third.doubt_unknown  # the others are over by our own clock too


def test_an_unclear_call_that_may_still_take_effect_is_remembered_however_many_there_are() -> None:
    judge = judge_of()
    first = push(judge, *((due(listing, quantity=3), InDoubt("timeout")) for listing in range(DOUBTS_KEPT + 1)))
    assert not any(result.doubt_unknown for result in first.results)
    soon = Moment(MOMENT.now + 1.0, MOMENT.now + 2.0)
    for listing in (0, DOUBTS_KEPT):
        [another] = push(judge, (due(listing, quantity=4), InDoubt("timeout")), moment=soon).results
        assert another.doubt_unknown


def test_doubts_that_are_over_are_forgotten_when_they_have_doubled() -> None:
    judge = judge_of()
    for first, count, at in ((0, DOUBTS_KEPT + 1, 100.0), (10_000, DOUBTS_KEPT + 2, 10_000.0)):
        answers = ((due(first + n), InDoubt("timeout")) for n in range(count))
        push(judge, *answers, moment=Moment(at, at + 1))
    assert len(judge._doubts) == DOUBTS_KEPT + 2


# --- asking and reading ---


def submitted(age_seconds: float = 5.0) -> Due:
    return replace(due(1, quantity=9), due_for=DueFor.ASK, submitted=delivery.Submitted("feed-1", 38, 4, age_seconds))


@pytest.mark.parametrize(
    ("outcome", "decision"),
    [
        (Accepted(), Deliver()),
        (Submitted("feed-1", 30.0), Submit("feed-1", 30.0)),
        (Unavailable("away"), Retry(0.25)),
        (InDoubt("unknown handle"), Again(doubt_seconds=20.0)),
    ],
    ids=str,
)
def test_the_answer_to_a_question_is_about_what_was_submitted(outcome: Outcome, decision: ListingDecision) -> None:
    exchanged = Exchanged({1: Answered(outcome)}, ())
    [result] = judge_of().judge(batch(submitted(), task=Task.ASK), exchanged, MOMENT).results
    assert (result.version, result.quantity, result.handle) == (38, 4, "feed-1")
    assert (result.decision, result.due_for) == (decision, DueFor.ASK)


def test_what_was_submitted_too_long_ago_is_in_doubt() -> None:
    exchanged = Exchanged({1: Answered(Submitted("feed-1", 30.0))}, ())
    [result] = judge_of().judge(batch(submitted(3001.0), task=Task.ASK), exchanged, MOMENT).results
    assert result.decision == Again(doubt_seconds=20.0)


@pytest.mark.parametrize(("age_seconds", "confirmed"), [(250.0, True), (100.0, False), (0.0, True)])
def test_what_was_submitted_while_a_doubt_may_have_been_later_is_confirmed_also_when_the_clock_jumped_back(
    age_seconds: float, confirmed: bool
) -> None:
    judge = judge_of()
    push(judge, (replace(due(1), quantity=3), InDoubt("timeout")))  # in doubt until 121
    asked = batch(submitted(age_seconds), task=Task.ASK, read_at=300.0)
    [result] = judge.judge(asked, Exchanged({1: Answered(Accepted())}, ()), Moment(300.0, 301.0)).results
    assert result.decision == Deliver(0.001 if confirmed else None)


def test_a_floor_for_what_was_submitted_is_compared_with_that_and_not_with_the_newest() -> None:
    exchanged = Exchanged({1: Answered(Floor(6, "reserved"))}, ())  # 4 was submitted, 9 is wanted by now
    [result] = judge_of().judge(batch(submitted(), task=Task.ASK), exchanged, MOMENT).results
    assert result.decision == Again(floor=6)


@pytest.mark.parametrize(
    ("seen", "due_for", "doubtful", "decision"),
    [
        (Observed(7), DueFor.CONFIRM, 3, Settle(7)),
        (Observed(3), DueFor.CONFIRM, 3, Correct(3)),
        (Observed(5), DueFor.CONFIRM, 3, Settle(5)),
        (Observed(8), DueFor.RECONCILE, None, Correct(8)),
        (Observed(8), DueFor.OBSERVE, None, Settle(8)),
        (Rejected("gone"), DueFor.CONFIRM, 3, Correct(None)),
        (Rejected("gone"), DueFor.RECONCILE, None, Settle(None)),
    ],
    ids=str,
)
def test_what_was_read_back_is_compared_with_what_is_wanted(
    seen: Observed | Outcome, due_for: DueFor, doubtful: int | None, decision: ListingDecision
) -> None:
    listing = replace(due(1), due_for=due_for, doubtful=doubtful, floor=9)
    judge = judge_of()
    exchanged = Exchanged.of(Reading((ReadRow(1, seen),), ()))
    [result] = judge.judge(batch(listing, task=Task.READ), exchanged, MOMENT).results
    assert (result.decision, result.quantity, judge.holds(1)) == (decision, 7, False)


def test_for_how_long_calls_are_in_doubt_is_the_longest_of_ours_and_those_of_a_lost_holder() -> None:
    judge = judge_of()
    assert judge.doubt_seconds(100.0) == 0.0
    push(judge, (1, Accepted()))
    assert judge.doubt_seconds(MOMENT.now) == 0.0
    push(judge, (1, InDoubt("no answer")), (2, Accepted()))
    assert judge.doubt_seconds(MOMENT.now) == pytest.approx(20.0)
    assert judge.doubt_seconds(MOMENT.now + 21.0) == 0.0
    assert judge_of(replace(LEASE, doubt_until=130.0)).doubt_seconds(100.0) == 30.0
