"""What of a round's values counts, and what they are compared with."""

from __future__ import annotations

import pytest

from lumbung.bench.figure import Figure, Target, at_best, ratio
from lumbung.bench.load import Load, percentile
from lumbung.bench.report import number

ECHO = Figure("E", "requests/s", (1000.0, 2000.0, 4000.0))
ROWS = Figure("R", "rows/s", (10_000.0, 10_000.0, 20_000.0))
ACCEPTED = Figure("A", "updates/s", (250.0, 1000.0, 1000.0))


def test_the_median_counts_and_the_extremes_are_told() -> None:
    assert (ACCEPTED.low, ACCEPTED.middle, ACCEPTED.high) == (250.0, 1000.0, 1000.0)


def test_a_ratio_is_of_values_of_the_same_round() -> None:
    assert ratio("A/E", ACCEPTED, ECHO).values == (0.25, 0.5, 0.25)


def test_what_a_machine_could_do_at_best_adds_the_times_of_all_that_is_needed() -> None:
    best = at_best([(1, ECHO), (10, ROWS)])  # 1 ms and 1 ms; 0.5 ms and 1 ms; 0.25 ms and 0.5 ms
    assert [best(n) for n in range(3)] == pytest.approx([500.0, 1 / 0.0015, 1 / 0.00075])
    assert ratio("A/A*", ACCEPTED, best).values == pytest.approx((0.5, 1.5, 0.75))


@pytest.mark.parametrize(
    ("value", "target", "verdict"),
    [
        (0.5, Target(0.3, 0.5), "aim"),
        (0.49, Target(0.3, 0.5), "pass"),
        (0.29, Target(0.3, 0.5), "FAIL"),
        (25.0, Target(80, 25, at_most=True), "aim"),
        (80.0, Target(80, 25, at_most=True), "pass"),
        (80.1, Target(80, 25, at_most=True), "FAIL"),
        (1.0, Target(None, 6000), ""),
    ],
)
def test_the_verdict_is_of_the_median(value: float, target: Target, verdict: str) -> None:
    assert Figure("x", "", (value, value * 1.5, value * 0.5), target).verdict == verdict


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 99, 100, 0)] == [50.0, 99.0, 100.0, 1.0]
    assert percentile([7.0], 99) == 7.0
    assert Load(2, 0, 1.0, [0.001, 0.003]).percentile_ms(99) == 3.0


def test_numbers_have_three_digits_that_tell_something() -> None:
    assert [number(value) for value in (12_345.6, 123.4, 12.34, 1.234)] == ["12,346", "123", "12.3", "1.23"]
