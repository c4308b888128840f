"""What one warehouse adds, the sum, the figures that are kept and left, and the lanes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.inventory.sellable import contribution, desired, figures_after, lane_of, sellable
from lumbung.model import QUANTITY_MAX, Figure, Lane, StockLevel

units = st.integers(0, QUANTITY_MAX)


def level(available: int, buffer: int = 0, *, sync: bool = False, reserved: int = 0) -> StockLevel:
    return StockLevel(available, buffer, sync, reserved)


@given(available=units, buffer=units, reserved=units)
def test_sellable_is_never_below_zero(available: int, buffer: int, reserved: int) -> None:
    left = sellable(level(available, buffer, reserved=reserved))
    assert left == (available - buffer - reserved if available > buffer + reserved else 0)


def test_what_is_reserved_for_orders_is_not_for_sale() -> None:
    assert sellable(level(10, 3, reserved=2)) == 5
    assert sellable(level(10, 3, reserved=8)) == 0


@pytest.mark.parametrize(
    ("stock", "figure", "adds"),
    [
        (None, None, None),
        (None, Figure(5, named=True), None),
        (level(10, 3, sync=True), None, 7),
        (level(10, 3, sync=True), Figure(99, named=True), 7),
        (level(10, 3), None, None),
        (level(10, 3), Figure(99, named=True), 99),
        (level(10, 3), Figure(0, named=True), 0),
        (level(10, 3), Figure(99, named=False), 7),
        (level(10, 3), Figure(5, named=False), 5),
    ],
)
def test_what_a_warehouse_adds(stock: StockLevel | None, figure: Figure | None, adds: int | None) -> None:
    assert contribution(stock, figure) == adds


@pytest.mark.parametrize(
    ("parts", "total"),
    [([], None), ([None, None], None), ([0], 0), ([None, 4], 4), ([QUANTITY_MAX, QUANTITY_MAX], 2 * QUANTITY_MAX)],
)
def test_a_listing_shows_the_sum_of_what_is_known(parts: list[int | None], total: int | None) -> None:
    assert desired(parts) == total


@pytest.mark.parametrize(
    ("quantity", "delivered", "lane"),
    [
        (0, None, Lane.FALLING),
        (0, 4, Lane.FALLING),
        (3, 4, Lane.FALLING),
        (5, 4, Lane.RISING),
        (5, None, Lane.RISING),
        (4, 4, Lane.REFRESH),
        (0, 0, Lane.REFRESH),
    ],
)
def test_zeros_and_falling_quantities_have_a_lane_of_their_own(
    quantity: int, delivered: int | None, lane: Lane
) -> None:
    assert lane_of(quantity, delivered) is lane


NAMED, LEFT = Figure(9, named=True), Figure(9, named=False)


def test_a_named_figure_is_kept_through_updates_that_do_not_name_its_channel() -> None:
    assert figures_after(level(5), level(1), {"blib": NAMED}, {}, ["blib"]) == {"blib": NAMED}
    assert figures_after(level(5), level(1, sync=True), {"blib": NAMED}, {}, ["blib"]) == {"blib": NAMED}
    assert figures_after(level(5, sync=True), level(1), {"blib": NAMED}, {}, ["blib"]) == {"blib": NAMED}


def test_a_new_figure_replaces_a_kept_and_a_left_one() -> None:
    assert figures_after(level(5), level(1), {"blib": NAMED, "shpe": LEFT}, {"blib": 2, "shpe": 3}, []) == {
        "blib": Figure(2, named=True),
        "shpe": Figure(3, named=True),
    }


def test_switching_sync_off_leaves_what_was_shown_where_something_is_listed_and_nothing_was_named() -> None:
    after = figures_after(level(20, 8, sync=True), level(50), {"shpe": NAMED}, {"tkpd": 1}, ["blib", "shpe", "tkpd"])
    assert after == {"blib": Figure(12, named=False), "shpe": NAMED, "tkpd": Figure(1, named=True)}


def test_a_left_figure_is_lowered_with_sellable_never_raised_and_left_anew_by_the_next_switch() -> None:
    assert figures_after(level(9), level(8, 2), {"blib": LEFT}, {}, ["blib"]) == {"blib": Figure(6, named=False)}
    assert figures_after(level(9), level(80), {"blib": LEFT}, {}, ["blib"]) == {"blib": LEFT}
    assert figures_after(level(70, sync=True), level(80), {"blib": LEFT}, {}, []) == {"blib": Figure(70, named=False)}


def test_without_a_switch_nothing_is_left() -> None:
    assert figures_after(None, level(5), {}, {}, ["blib"]) == {}
    assert figures_after(level(5), level(5), {}, {}, ["blib"]) == {}
    assert figures_after(level(5), level(5, sync=True), {}, {}, ["blib"]) == {}
