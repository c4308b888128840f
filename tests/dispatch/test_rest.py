"""How long scans rest."""

from __future__ import annotations

from lumbung.dispatch.rest import Rest


def test_a_scan_rests_a_multiple_of_what_it_took() -> None:
    assert Rest(20.0, 5.0).until(100.0, 0.125) == 102.5


def test_no_rest_is_longer_than_is_set() -> None:
    rest = Rest(20.0, 5.0)
    assert (rest.until(100.0, 0.5), rest.until(101.0, 0.5), rest.seconds(0.5)) == (105.0, 106.0, 5.0)


def test_stores_rest_one_after_the_other_so_that_all_of_them_take_a_small_part_of_the_time() -> None:
    rest = Rest(20.0, 5.0)
    assert [rest.until(100.0, 0.0625) for _ in range(3)] == [101.25, 102.5, 103.75]


def test_time_without_a_scan_is_not_saved_up() -> None:
    rest = Rest(20.0, 5.0)
    rest.until(100.0, 0.0625)
    assert rest.until(200.0, 0.0625) == 201.25


def test_what_rests_by_itself_puts_off_nobody_else() -> None:
    rest = Rest(20.0, 5.0)
    assert rest.seconds(0.125) == 2.5
    assert rest.until(100.0, 0.125) == 102.5
