"""The least that a marketplace takes, read from its words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.reservation import RESERVED, least_units


@pytest.mark.parametrize(
    ("words", "least"),
    [
        ("stock cannot be less than 3", 3),
        ("Stock Below 12 is not allowed", 12),
        ("at least 1", 1),
        ("minimum 4", 4),
        ("minimum of 4", 4),
        ("minimal: 4", 4),
        ("stok tidak boleh kurang dari 5", 5),
        ("6 reserved", 6),
        ("6 units are already booked", 6),
        ("6 dipesan", 6),
        ("reserved stock is 7", 7),
        ("reserved: 7", 7),
        ("less than 3, for 3 units are reserved", 3),
        ("less than 3, for 4 units are reserved", None),
        ("at least 0", None),
        ("at least 1.5 kg weight", None),
        ("price of at least 1000", None),
        ("at least three", None),
        ("at least 3.", 3),
        ("at least 1.500 units", None),
        ("1,500 units are reserved", None),
        ("sku TOQ-1-1-3 reserved", None),
        ("below 3rd", None),
        ("error 3", None),
        ("at least 12345678901", None),
        ("", None),
    ],
)
def test_only_a_number_that_alone_can_be_meant_is_the_least(words: str, least: int | None) -> None:
    assert least_units(words) == least


@pytest.mark.parametrize(
    ("words", "about"),
    [
        ("STOCK_BELOW_RESERVED", True),
        ("the reserved quantity", True),
        ("stok sudah dipesan", True),
        ("stock is too low", False),
        ("this name is reserved", False),
    ],
)
def test_words_are_about_a_reservation_when_they_name_stock_too(words: str, about: bool) -> None:
    assert (RESERVED.search(words) is not None) is about


@given(st.text())
def test_any_words_name_at_least_one_unit_or_none(words: str) -> None:
    least = least_units(words)
    assert least is None or least >= 1
