from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lumbung.dispatch.backoff import backoff_seconds


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    longest = [backoff_seconds(n, dice=1.0, first_seconds=0.5, max_seconds=900.0) for n in range(1, 14)]
    assert longest == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 900.0, 900.0]


def test_the_jitter_is_full() -> None:
    waits = [backoff_seconds(5, dice=dice, first_seconds=0.5, max_seconds=900.0) for dice in (0.0, 0.25, 0.5, 0.75)]
    assert waits == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize("attempts", [1_100, 10**6, 10**400])
def test_any_number_of_attempts_stays_at_the_cap(attempts: int) -> None:
    assert backoff_seconds(attempts, dice=0.5, first_seconds=0.5, max_seconds=900.0) == 450.0


def test_a_first_wait_above_the_cap_is_capped() -> None:
    assert backoff_seconds(1, dice=1.0, first_seconds=10.0, max_seconds=3.0) == 3.0


def test_waits_of_nothing_stay_nothing() -> None:
    assert backoff_seconds(9, dice=0.9, first_seconds=0.0, max_seconds=900.0) == 0.0
    assert backoff_seconds(9, dice=0.9, first_seconds=0.5, max_seconds=0.0) == 0.0


def test_before_a_first_attempt_there_is_no_backoff() -> None:
    with pytest.raises(ValueError, match="attempts must be at least 1, not 0"):
        backoff_seconds(0, dice=0.5, first_seconds=0.5, max_seconds=900.0)


@given(
    attempts=st.integers(1, 5000),
    dice=st.floats(0, 1, exclude_max=True),
    first=st.floats(0, 1e300),
    most=st.floats(0, 1e300),
)
@settings(max_examples=200, deadline=None)
def test_a_wait_is_never_negative_above_the_cap_or_shorter_after_more_failures(
    attempts: int, dice: float, first: float, most: float
) -> None:
    wait = backoff_seconds(attempts, dice=dice, first_seconds=first, max_seconds=most)
    more = backoff_seconds(attempts + 1, dice=dice, first_seconds=first, max_seconds=most)
    assert 0 <= wait <= more <= most


@pytest.mark.parametrize("attempts", [1, 4, 12])
def test_evenly_thrown_dice_spread_the_waits_evenly_over_all_of_the_longest(attempts: int) -> None:
    longest = min(900.0, 0.5 * 2 ** (attempts - 1))
    waits = [backoff_seconds(attempts, dice=n / 1000, first_seconds=0.5, max_seconds=900.0) for n in range(1000)]
    for tenth in range(10):
        assert sum(tenth <= 10 * wait / longest < tenth + 1 for wait in waits) == 100


class BackoffMachine(RuleBasedStateMachine):
    """A listing that fails and succeeds; the model is the list of its longest waits since the last success, each twice
    the one before it."""

    @initialize(first=st.integers(1, 100), most=st.integers(1, 10**6))
    def make(self, first: int, most: int) -> None:
        self.first, self.most = float(first), float(most)
        self.longest: list[float] = []

    @rule(times=st.integers(1, 1100))
    def it_fails(self, times: int) -> None:
        for _ in range(times):
            self.longest.append(min(self.most, 2 * self.longest[-1] if self.longest else self.first))

    @rule()
    def it_succeeds(self) -> None:
        self.longest = []

    @rule(dice=st.integers(0, 7))
    def it_waits(self, dice: int) -> None:
        if self.longest:
            wait = backoff_seconds(len(self.longest), dice=dice / 8, first_seconds=self.first, max_seconds=self.most)
            assert wait == self.longest[-1] * dice / 8

    @invariant()
    def the_waits_never_shrink_and_the_cap_is_reached_and_kept(self) -> None:
        waits = [
            backoff_seconds(attempts, dice=1.0, first_seconds=self.first, max_seconds=self.most)
            for attempts in range(1, min(40, len(self.longest)) + 1)
        ]
        assert waits == self.longest[:40]


TestBackoffMachine = BackoffMachine.TestCase
TestBackoffMachine.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
