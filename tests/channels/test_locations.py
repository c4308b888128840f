"""What a push says per location."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.base import Push
from lumbung.channels.locations import is_unplaced, spread

LOCATIONS = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 1000), min_size=1, max_size=5)


def test_a_push_without_locations_has_none() -> None:
    assert spread(Push(1, "{}", 7)) == {}


@given(LOCATIONS)
def test_what_adds_up_stays_as_it_is(locations: dict[str, int]) -> None:
    assert spread(Push(1, "{}", sum(locations.values()), locations)) == locations


@given(LOCATIONS, st.integers(0, 1000))
def test_a_raised_quantity_is_shown_in_full_and_takes_from_no_location(locations: dict[str, int], more: int) -> None:
    given = spread(Push(1, "{}", sum(locations.values()) + more, locations))
    assert sum(given.values()) == sum(locations.values()) + more
    assert all(given[name] >= units for name, units in locations.items())
    assert sum(given[name] != units for name, units in locations.items()) <= 1


def test_units_of_a_warehouse_without_a_location_beside_others_are_seen() -> None:
    assert is_unplaced(Push(1, "{}", 9, {"IDA": 1, "": 8}))
    assert not is_unplaced(Push(1, "{}", 9, {"IDA": 9}))
    assert not is_unplaced(Push(1, "{}", 9))


def test_what_is_more_goes_to_the_location_with_the_most() -> None:
    assert spread(Push(1, "{}", 9, {"IDA": 1, "IDC": 3, "IDB": 3})) == {"IDA": 1, "IDB": 5, "IDC": 3}


def test_locations_with_more_than_the_quantity_are_a_bug() -> None:
    with pytest.raises(ValueError, match="2 more than its quantity"):
        spread(Push(1, "{}", 3, {"IDA": 5}))
