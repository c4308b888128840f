"""Numbers that tell which update they are from."""

from __future__ import annotations

from itertools import pairwise

import pytest

from lumbung.torture.quantities import PRIME, RADIX, ZERO_EVERY, Shape, digits_of, n_of, quantity_of

EVERY = range(1, PRIME)
SHOPEE_MAX = 10_000_000


def test_rising_numbers_are_the_updates_themselves() -> None:
    assert [quantity_of(n, Shape.RISING, 0) for n in (0, 1, 2, PRIME - 1)] == [0, 1, 2, PRIME - 1]
    assert quantity_of(3, Shape.RISING, 1) == 3 * RADIX


def test_falling_numbers_are_all_different_but_for_the_zeros() -> None:
    numbers = [quantity_of(n, Shape.FALLING, 0) for n in EVERY]
    others = [number for number in numbers if number]
    assert len(set(others)) == len(others) == len(EVERY) - (PRIME - 1) // ZERO_EVERY
    assert max(others) < PRIME < RADIX


def test_falling_numbers_fall_at_least_every_fourth_time() -> None:
    numbers = [quantity_of(n, Shape.FALLING, 0) for n in EVERY]
    falls = sum(later < earlier for earlier, later in pairwise(numbers))
    assert falls > len(numbers) / 4


def test_the_most_that_two_warehouses_add_up_to_is_what_every_marketplace_takes() -> None:
    assert quantity_of(PRIME - 1, Shape.RISING, 0) + quantity_of(PRIME - 1, Shape.RISING, 1) < SHOPEE_MAX


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize("n", [*range(60), PRIME - 1, PRIME, PRIME + 1, 7 * PRIME + 3, 100_000, 100_001])
def test_each_number_tells_its_update(shape: Shape, n: int) -> None:
    [digit] = digits_of(quantity_of(n, shape, 0), 1) or [-1]
    assert n_of(digit, shape, newest=n, at_most=n) == n
    assert n_of(digit, shape, newest=n, at_most=n + 4) == n


def test_a_sum_of_two_warehouses_tells_the_update_of_each() -> None:
    both = quantity_of(17, Shape.RISING, 0) + quantity_of(23, Shape.FALLING, 1)
    digits = digits_of(both, 2)
    assert digits is not None
    assert n_of(digits[0], Shape.RISING, newest=0, at_most=100) == 17
    assert n_of(digits[1], Shape.FALLING, newest=0, at_most=100) == 23


def test_a_number_that_is_no_sum_of_so_many_warehouses_is_none() -> None:
    assert digits_of(RADIX, 1) is None
    assert digits_of(RADIX**2, 2) is None


@pytest.mark.parametrize("shape", list(Shape))
def test_a_number_of_an_update_that_was_not_sent_yet_is_nobodys(shape: Shape) -> None:
    [digit] = digits_of(quantity_of(8, shape, 0), 1) or [-1]
    assert n_of(digit, shape, newest=0, at_most=7) is None


def test_a_zero_is_of_the_oldest_update_that_is_not_older_than_what_is_shown() -> None:
    assert n_of(0, Shape.FALLING, newest=6, at_most=17) == 10


def test_a_zero_is_an_old_one_when_none_was_sent_since() -> None:
    assert n_of(0, Shape.FALLING, newest=11, at_most=14) == 10
