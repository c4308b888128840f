"""What a listing showed, read as updates."""

from __future__ import annotations

from lumbung.torture.evidence import Write
from lumbung.torture.quantities import Shape, quantity_of
from lumbung.torture.timeline import Timeline

SENT = {"default": [float(n) for n in range(1, 31)], "surabaya": [float(n) for n in range(1, 31)]}


def timeline(shape: Shape = Shape.RISING, **warehouses: str | None) -> Timeline:
    return Timeline(shape, warehouses or {"default": None}, SENT)


def write(n: int, quantity: int, *, at: float = 100.0, location: str = "") -> Write:
    return Write(n, at, "blib", "TOA-1", location, "sku1", quantity, n)


def test_newer_numbers_go_forwards() -> None:
    line = timeline()
    steps = [line.apply(write(n, n)) for n in (1, 2, 5)]
    assert [step.backwards for step in steps] == [False, False, False]
    assert line.wrong_at_the_end({"default": 5}) == {}


def test_an_older_number_goes_backwards() -> None:
    line = timeline()
    line.apply(write(1, 5))
    assert line.apply(write(2, 4)).backwards
    assert line.wrong_at_the_end({"default": 5}) == {"default": (4, 5)}


def test_the_same_number_again_is_not_backwards() -> None:
    line = timeline()
    line.apply(write(1, 5))
    assert not line.apply(write(2, 5)).backwards


def test_an_old_number_after_an_old_number_is_still_backwards() -> None:
    line = timeline()
    for n, quantity in enumerate((7, 3, 5), 1):
        step = line.apply(write(n, quantity))
    assert step.backwards


def test_a_number_that_was_not_sent_yet_is_nobodys() -> None:
    step = timeline().apply(write(1, 9, at=8.5))
    assert step.ns is None


def test_healing_lasts_from_the_old_number_to_the_newest() -> None:
    line = timeline()
    for n, (quantity, at) in enumerate(((7, 50.0), (3, 60.0), (5, 61.0), (7, 64.0)), 1):
        line.apply(write(n, quantity, at=at))
    [healed] = line.healed
    assert (healed.write.at, healed.healed_at) == (60.0, 64.0)


def test_an_old_number_that_stays_is_not_healed() -> None:
    line = timeline()
    line.apply(write(1, 7))
    line.apply(write(2, 3))
    assert line.healed == []


def test_each_warehouse_of_a_sum_has_an_order_of_its_own() -> None:
    line = timeline(default=None, surabaya=None)

    def both(default: int, surabaya: int) -> int:
        return quantity_of(default, Shape.RISING, 0) + quantity_of(surabaya, Shape.RISING, 1)

    assert not line.apply(write(1, both(3, 4))).backwards
    assert not line.apply(write(2, both(4, 4))).backwards
    assert line.apply(write(3, both(5, 3))).backwards
    assert line.wrong_at_the_end({"default": 5, "surabaya": 4}) == {"surabaya": (3, 4)}


def test_each_location_has_an_order_of_its_own() -> None:
    line = timeline(default="IDJ", surabaya="IDS")
    line.apply(write(1, 9, location="IDJ"))
    assert not line.apply(write(2, quantity_of(4, Shape.RISING, 1), location="IDS")).backwards
    assert line.apply(write(3, 8, location="IDJ")).backwards


def test_a_warehouses_number_at_anothers_location_is_nobodys() -> None:
    line = timeline(default="IDJ", surabaya="IDS")
    assert line.apply(write(1, quantity_of(4, Shape.RISING, 1), location="IDJ")).ns is None
    assert line.apply(write(2, 4, location="IDX")).ns is None


def test_a_zero_that_may_be_new_proves_nothing_about_what_comes_next() -> None:
    line = timeline(Shape.FALLING)
    line.apply(write(1, quantity_of(7, Shape.FALLING, 0)))
    assert not line.apply(write(2, 0)).backwards
    assert not line.apply(write(3, quantity_of(8, Shape.FALLING, 0))).backwards


def test_a_zero_that_can_only_be_old_goes_backwards() -> None:
    line = timeline(Shape.FALLING)
    line.apply(write(1, quantity_of(7, Shape.FALLING, 0), at=7.5))
    assert line.apply(write(2, 0, at=9.5)).backwards


def test_two_updates_that_say_the_same_are_the_same_at_the_end() -> None:
    line = timeline(Shape.FALLING)
    line.apply(write(1, 0))
    assert line.wrong_at_the_end({"default": 30}) == {}


def test_an_update_is_shown_when_it_or_a_newer_one_is() -> None:
    line = timeline()
    for call, (quantity, at) in enumerate([(2, 10.0), (5, 11.0), (3, 12.0), (6, 13.0)]):
        line.apply(write(call, quantity, at=at))
    assert [line.shown_at("default", n) for n in (1, 2, 3, 5, 6, 7)] == [10.0, 10.0, 11.0, 11.0, 13.0, None]
    assert line.shown_at("surabaya", 1) is None


def test_a_first_zero_may_be_any_of_the_zeros_that_were_sent_by_then() -> None:
    """Also where nothing was shown before it but the zero from before the first update."""
    line = timeline(Shape.FALLING)
    line.apply(write(1, 0, at=12.5))
    assert [line.shown_at("default", n) for n in (1, 5, 10, 11)] == [12.5, 12.5, 12.5, None]
