from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.dispatch.breaker import Breaker


def opened(failures: int = 3, at: float = 0.0) -> Breaker:
    """A breaker of 5 s probes, at most 60 s apart, that has just opened."""
    breaker = Breaker(failures, 5.0, 60.0)
    assert [breaker.failed(at) for _ in range(failures)] == [False] * (failures - 1) + [True]
    return breaker


def test_a_closed_breaker_lets_every_call_start() -> None:
    breaker = Breaker(3, 5.0, 60.0)
    assert [breaker.may_start(1.0), breaker.may_start(1.0), breaker.next_at(1.0)] == [True, True, 1.0]


def test_only_failures_in_a_row_open_it() -> None:
    breaker = Breaker(3, 5.0, 60.0)
    results = [breaker.failed(0.0), breaker.failed(0.0), breaker.succeeded(0.0), breaker.failed(0.0)]
    assert results == [False, False, False, False]
    assert breaker.may_start(0.0)
    assert [breaker.failed(0.0), breaker.failed(0.0)] == [False, True]
    assert not breaker.may_start(0.0)


def test_an_open_breaker_lets_one_probe_start_after_the_wait() -> None:
    breaker = opened(at=10.0)
    assert (breaker.may_start(14.9), breaker.next_at(12.0)) == (False, 15.0)
    assert (breaker.may_start(15.0), breaker.may_start(15.0), breaker.next_at(99.0)) == (True, False, None)


def test_a_probe_that_succeeds_closes_it_and_says_so_once() -> None:
    breaker = opened()
    assert breaker.may_start(5.0)
    assert [breaker.succeeded(5.5), breaker.succeeded(5.5)] == [True, False]
    assert breaker.may_start(5.5)


def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest_and_says_nothing() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(6):
        at = breaker.next_at(now)
        assert at is not None
        waits.append(at - now)
        assert breaker.may_start(at)
        assert not breaker.failed(at)
        now = at
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_the_wait_begins_anew_after_it_closed() -> None:
    breaker = opened()
    assert breaker.may_start(5.0)
    breaker.failed(5.0)
    assert breaker.may_start(15.0)
    assert breaker.succeeded(15.0)
    assert [breaker.failed(20.0) for _ in range(3)] == [False, False, True]
    assert breaker.next_at(20.0) == 25.0


def test_failures_of_calls_that_were_in_flight_when_it_opened_do_not_postpone_the_probe() -> None:
    breaker = opened()
    assert not breaker.failed(4.0)
    assert breaker.next_at(4.0) == 5.0


def test_an_abandoned_probe_is_followed_by_another_after_the_same_wait() -> None:
    breaker = opened()
    assert breaker.may_start(5.0)
    breaker.abandoned(7.0)
    assert (breaker.may_start(11.9), breaker.next_at(7.0)) == (False, 12.0)
    assert breaker.may_start(12.0)


def test_abandoning_without_a_probe_changes_nothing() -> None:
    breaker = opened()
    breaker.abandoned(3.0)
    assert breaker.next_at(3.0) == 5.0
    closed = Breaker(1, 5.0, 60.0)
    closed.abandoned(3.0)
    assert closed.may_start(3.0)


@pytest.mark.parametrize(("failures", "first", "longest"), [(0, 5.0, 60.0), (1, 0.0, 60.0), (1, 61.0, 60.0)])
def test_a_breaker_that_could_not_work_is_refused(failures: int, first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="a breaker needs 1 failure or more"):
        Breaker(failures, first, longest)


class BreakerMachine(RuleBasedStateMachine):
    """Against a model that keeps what happened since the last success: failures while closed, and failed probes."""

    @initialize(failures=st.integers(1, 4), first=st.floats(0.5, 8), times=st.floats(1, 20))
    def make(self, failures: int, first: float, times: float) -> None:
        self.failures_max, self.first, self.longest = failures, first, first * times
        self.breaker = Breaker(failures, first, self.longest)
        self.now = 0.0
        self.failures = 0
        self.failed_probes = 0
        self.probing = False
        self.held_since = -math.inf

    def is_open(self) -> bool:
        return self.failures >= self.failures_max

    def probe_at(self) -> float:
        return self.held_since + min(self.first * 2.0**self.failed_probes, self.longest)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.is_open() and not self.probing)
    @rule()
    def wait_as_told(self) -> None:
        at = self.breaker.next_at(self.now)
        assert at == max(self.now, self.probe_at())
        self.now = at
        assert self.breaker.may_start(self.now)
        self.probing = True

    @rule()
    def start(self) -> None:
        allowed = not self.is_open() or (not self.probing and self.now >= self.probe_at())
        assert self.breaker.may_start(self.now) == allowed
        self.probing = self.is_open() and (self.probing or allowed)

    @rule()
    def succeed(self) -> None:
        assert self.breaker.succeeded(self.now) == self.is_open()
        self.failures = self.failed_probes = 0
        self.probing = False

    @rule()
    def fail(self) -> None:
        was_open = self.is_open()
        if not was_open:
            self.failures += 1
        elif self.probing:
            self.failed_probes += 1
        if self.probing or (self.is_open() and not was_open):
            self.held_since = self.now
        self.probing = False
        assert self.breaker.failed(self.now) == (self.is_open() and not was_open)

    @rule()
    def abandon(self) -> None:
        self.breaker.abandoned(self.now)
        if self.probing:
            self.held_since = self.now
        self.probing = False

    @invariant()
    def it_says_when_a_call_may_start(self) -> None:
        if not self.is_open():
            expected: float | None = self.now
        else:
            expected = None if self.probing else max(self.now, self.probe_at())
        assert self.breaker.next_at(self.now) == expected

    @invariant()
    def nothing_wedges_it(self) -> None:
        """Unless a probe is out, a call may start within the longest wait."""
        if not self.probing:
            at = self.breaker.next_at(self.now)
            assert at is not None
            assert at <= self.now + self.longest


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["try", "try", "succeeded", "failed", "failed", "abandoned"]), st.floats(0, 20)),
        max_size=40,
    )
)
@settings(max_examples=150, deadline=None)
def test_while_it_is_open_each_probe_is_followed_by_a_word_of_it_before_the_next(
    events: list[tuple[str, float]],
) -> None:
    """Against the list of what happened while it was open: no two probes without a word in between."""
    breaker, now, while_open = Breaker(2, 5.0, 60.0), 0.0, list[str]()
    for event, seconds in events:
        now += seconds
        match event:
            case "try" if breaker.may_start(now) and breaker.is_open:
                while_open.append("probe")
            case "succeeded":
                breaker.succeeded(now)
            case "failed":
                breaker.failed(now)
            case "abandoned":
                breaker.abandoned(now)
            case _:
                pass
        if event != "try":
            while_open.append("word")
        if not breaker.is_open:
            while_open.clear()
    assert ("probe", "probe") not in pairwise(while_open)
