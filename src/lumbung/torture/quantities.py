"""Quantities that tell which update they are from: the version is the quantity, so that order can be seen.

A warehouse's nth update of a SKU says `quantity_of(n)`. What a listing shows is read back as the n of each warehouse:

    rising   n, beginning again after PERIOD updates
    falling  every fifth is 0; the others jump up and down through all numbers from 1 to PERIOD

A number that comes again after PERIOD updates is taken for the newest that says it: nobody is that far behind. A second
warehouse counts in steps of RADIX, so that a sum of both still tells both; Shopee takes no more than 10,000,000.
"""

from __future__ import annotations

from enum import StrEnum

RADIX = 3_150
PRIME = 3_137
PERIOD = PRIME - 1
STEP = 1_319  # coprime to PRIME: multiples of it visit every number once
ZERO_EVERY = 5
_STEP_BACK = pow(STEP, -1, PRIME)


class Shape(StrEnum):
    RISING = "rising"
    FALLING = "falling"


def quantity_of(n: int, shape: Shape, place: int) -> int:
    """What the nth update (from 1; before it is 0) of the warehouse at `place` (0 or 1) says is available."""
    return _digit_of(n, shape) * (RADIX if place else 1)


def _digit_of(n: int, shape: Shape) -> int:
    if n == 0 or (shape is Shape.FALLING and n % ZERO_EVERY == 0):
        return 0
    place = (n - 1) % PERIOD + 1
    return place if shape is Shape.RISING else place * STEP % PRIME


def digits_of(quantity: int, places: int) -> tuple[int, ...] | None:
    """What each of so many warehouses adds; None when no sum of theirs can be this."""
    digits = []
    for _ in range(places):
        quantity, digit = divmod(quantity, RADIX)
        digits.append(digit)
    return tuple(digits) if quantity == 0 else None


def n_of(digit: int, shape: Shape, *, newest: int, at_most: int) -> int | None:
    """Which update up to `at_most` a digit is from; None when none says this.

    A zero of falling ones may be from several: the oldest of those that are not older than `newest`, or, when there is
    none, the last one before it.
    """
    if shape is Shape.FALLING and digit == 0:
        n = -(-newest // ZERO_EVERY) * ZERO_EVERY
        return n if n <= at_most else latest_zero(at_most)
    first = digit if shape is Shape.RISING else digit * _STEP_BACK % PRIME
    n = first + (at_most - first) // PERIOD * PERIOD
    while n >= 0 and _digit_of(n, shape) != digit:
        n -= PERIOD
    return n if n >= 0 else None


def latest_zero(at_most: int) -> int:
    """The newest update up to `at_most` that says 0, or 0 when it is what was before the first."""
    return at_most // ZERO_EVERY * ZERO_EVERY


def is_ambiguous(digit: int, shape: Shape) -> bool:
    """Whether several updates say this."""
    return shape is Shape.FALLING and digit == 0
