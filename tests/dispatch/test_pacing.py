from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lumbung.dispatch.pacing import Pacer


def seconds_to(most: float) -> st.SearchStrategy[float]:
    """As clocks tell them."""
    return st.floats(0, most).map(lambda seconds: math.floor(seconds * 2**40) / 2**40)


def taken(pacer: Pacer, *times: float) -> list[bool]:
    return [pacer.take(now) for now in times]


def test_a_new_pacer_is_empty_and_its_first_call_waits_one_interval() -> None:
    pacer = Pacer(2.0, 3, now=10.0)
    assert pacer.next_at(10.0) == 10.5
    assert taken(pacer, 10.0, 10.25, 10.5, 10.5, 11.0) == [False, False, True, False, True]


def test_a_full_pacer_starts_with_its_burst() -> None:
    pacer = Pacer(2.0, 3, now=10.0, full=True)
    assert taken(pacer, 10.0, 10.0, 10.0, 10.0, 10.5, 10.5) == [True, True, True, False, True, False]


def test_an_idle_pacer_saves_up_its_burst_and_no_more() -> None:
    pacer = Pacer(2.0, 3, now=0.0)
    assert taken(pacer, *[100.0] * 4) == [True, True, True, False]
    assert pacer.next_at(100.0) == 100.5


def test_a_pacer_that_may_start_says_now() -> None:
    assert Pacer(2.0, 3, now=10.0, full=True).next_at(12.0) == 12.0


def test_after_retry_after_there_is_one_call_and_then_the_pace() -> None:
    pacer = Pacer(2.0, 3, now=0.0, full=True)
    pacer.slow_down(60.0)
    assert pacer.next_at(1.0) == 60.0
    assert taken(pacer, 59.9, 60.0, 60.0, 60.5) == [False, True, False, True]


def test_a_shorter_retry_after_does_not_shorten_a_longer_one() -> None:
    pacer = Pacer(2.0, 1, now=0.0, full=True)
    pacer.slow_down(60.0)
    pacer.slow_down(30.0)
    assert pacer.next_at(0.0) == 60.0


def test_a_clock_that_goes_back_stands_still() -> None:
    pacer = Pacer(1.0, 1, now=100.0)
    assert taken(pacer, 101.0, 0.0) == [True, False]
    assert pacer.next_at(0.0) == 102.0


def test_many_calls_on_time_are_never_early_and_hardly_late() -> None:
    pacer = Pacer(3.0, 1, now=0.0)
    now = 0.0
    for _ in range(10_000):
        now = pacer.next_at(now)
        assert pacer.take(now)
    assert 0 <= Fraction(now) - Fraction(10_000, 3) < Fraction(1, 10**7)


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (math.inf, 1), (math.nan, 1), (1.0, 0)])
def test_a_pace_that_is_none_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="a pace needs a rate above 0"):
        Pacer(rate, burst, now=0.0)


@given(rate=st.floats(1e-3, 1e4), burst=st.integers(1, 1000), now=seconds_to(1e9), full=st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_call_may_start_at_the_time_that_was_named(rate: float, burst: int, now: float, full: bool) -> None:
    pacer = Pacer(rate, burst, now=now, full=full)
    assert pacer.take(pacer.next_at(now))
    assert pacer.take(pacer.next_at(now))


class PacerMachine(RuleBasedStateMachine):
    """Against a token bucket that counts in fractions, and against the bound that the module states."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Fraction] = []
        self.closed_until = Fraction(0)

    @initialize(
        rate=st.floats(0.1, 200),
        burst=st.integers(1, 8),
        now=seconds_to(1e6),
        full=st.booleans(),
    )
    def make(self, rate: float, burst: int, now: float, full: bool) -> None:
        self.rate, self.burst, self.now = Fraction(rate), burst, now
        self.seen = Fraction(now)
        self.tokens = Fraction(burst if full else 0)
        self.pacer = Pacer(rate, burst, now=now, full=full)

    @rule(seconds=seconds_to(3))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=seconds_to(10))
    def go_back(self, seconds: float) -> None:
        self.now -= seconds

    @rule()
    def wait_as_told(self) -> None:
        self.now = self.pacer.next_at(self.now)
        self.take()
        assert self.calls[-1] == Fraction(self.now)

    @rule(tries=st.integers(1, 12))
    def hurry(self, tries: int) -> None:
        for _ in range(tries):
            self.take()

    @rule(seconds=seconds_to(5))
    def slow_down(self, seconds: float) -> None:
        until = self.now + seconds
        self.pacer.slow_down(until)
        # The model of it: at `until` there is one token at most. Nothing is refilled: it is not told the time.
        least = 1 - (Fraction(until) - self.seen) * self.rate
        self.tokens = min(self.tokens, least)
        self.closed_until = max(self.closed_until, Fraction(until))

    def refill(self) -> None:
        now = max(self.seen, Fraction(self.now))
        self.tokens = min(Fraction(self.burst), self.tokens + (now - self.seen) * self.rate)
        self.seen = now

    def take(self) -> None:
        self.refill()
        told = Fraction(self.pacer.next_at(self.now))
        allowed = self.tokens >= 1
        assert (told <= self.seen) == allowed
        assert self.pacer.take(self.now) == allowed
        if allowed:
            self.tokens -= 1
            self.calls.append(self.seen)
            assert self.seen >= self.closed_until

    @invariant()
    def no_window_has_more_than_burst_and_rate_times_its_length(self) -> None:
        if self.calls:
            last = self.calls[-1]
            for back, first in enumerate(reversed(self.calls), start=1):
                assert back <= self.burst + self.rate * (last - first)


TestPacerMachine = PacerMachine.TestCase
TestPacerMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


class ListOfCallsMachine(RuleBasedStateMachine):
    """The model is nothing but the times of all calls: one more may start when no window that ends now would have more
    than burst and rate times its length. A pacer that starts empty is one that has just made a burst."""

    @initialize(rate=st.integers(1, 40), burst=st.integers(1, 6), full=st.booleans())
    def make(self, rate: int, burst: int, full: bool) -> None:
        self.rate, self.burst = rate, burst
        self.pacer = Pacer(float(rate), burst, now=0.0, full=full)
        self.now = Fraction(0)
        self.calls = [] if full else [Fraction(0)] * burst
        self.made = 0

    # Sixty-fourths are exact as floats, too.
    @rule(ticks=st.integers(0, 64))
    def wait(self, ticks: int) -> None:
        self.now += Fraction(ticks, 64)

    def within(self, first: Fraction, last: Fraction) -> int:
        return sum(first <= call <= last for call in self.calls)

    @rule(tries=st.integers(1, 10))
    def hurry(self, tries: int) -> None:
        for _ in range(tries):
            allowed = all(
                self.within(first, self.now) + 1 <= self.burst + self.rate * (self.now - first)
                for first in set(self.calls)
            )
            assert self.pacer.take(float(self.now)) == allowed
            if allowed:
                self.calls.append(self.now)
                self.made += 1

    @rule(start=st.integers(0, 640), ticks=st.integers(0, 640))
    def any_window_keeps_the_bound(self, start: int, ticks: int) -> None:
        first, last = Fraction(start, 64), Fraction(start + ticks, 64)
        started = self.calls[len(self.calls) - self.made :]
        count = sum(first <= call <= last for call in started)
        assert count <= self.burst + self.rate * Fraction(ticks, 64)


TestListOfCallsMachine = ListOfCallsMachine.TestCase
TestListOfCallsMachine.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
