from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_a_wait_is_never_negative_above_the_cap_or_shorter_after_more_failures(
    attempts: int, dice: float, first: float, most: float
) -> None:
    wait = backoff_seconds(attempts, dice=dice, first_seconds=first, max_seconds=most)
    more = backoff_seconds(attempts + 1, dice=dice, first_seconds=first, max_seconds=most)
    assert 0 <= wait <= more <= most
