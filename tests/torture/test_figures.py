"""What is measured under fire."""

from __future__ import annotations

from dataclasses import replace

from lumbung.torture import figures
from lumbung.torture.evidence import Call
from lumbung.torture.figures import Spread
from lumbung.torture.journal import Deed, Mended
from lumbung.torture.world import WAREHOUSES
from tests.torture.scene import OTHER, WORKER, WORLD, acknowledged, call, journal

HELD = frozenset({("blib", "TOA-1")})


def killed(at: float = 100.0) -> Deed:
    return Deed("kill", at, at + 5, workers=frozenset({WORKER}), stores=HELD)


def taken_over(
    calls: list[Call],
    *deeds: Deed,
    updated_at: float = 100.5,
    warehouse: str = "default",
    mended: Mended | None = None,
) -> list[float]:
    update = replace(acknowledged(1, warehouse=warehouse), acknowledged_at=updated_at)
    told = journal(update, deeds=deeds)
    told.mended += [mended] if mended else []
    return [round(took.lifetimes, 3) for took in figures.takeovers(told, WORLD, calls, 2.0)]


def test_a_takeover_lasts_from_the_death_to_the_next_call_for_the_store() -> None:
    calls = [call(1, 99.9), call(2, 100.01), call(3, 102.2, caller=OTHER), call(4, 103.0, caller=OTHER)]
    assert taken_over(calls, killed()) == [1.1]


def test_a_takeover_while_something_else_went_wrong_is_not_counted() -> None:
    calls = [call(3, 102.2, caller=OTHER)]
    for deed in (Deed("throttle", 101.0, 101.5, clear=True, note="bklp,blib"), Deed("freeze", 95.0, 98.5)):
        assert taken_over(calls, killed(), deed) == []


def test_what_another_marketplace_does_meanwhile_does_not_matter() -> None:
    elsewhere = Deed("throttle", 101.0, 101.5, clear=True, note="shpe")
    assert taken_over([call(3, 102.2, caller=OTHER)], killed(), elsewhere) == [1.1]


def test_a_store_that_nobody_calls_again_is_not_counted() -> None:
    assert taken_over([call(1, 99.0)], killed()) == []


def test_a_store_that_nothing_was_to_be_told_is_not_counted() -> None:
    assert taken_over([call(3, 102.2, caller=OTHER)], killed(), updated_at=102.0) == []


def test_an_update_of_a_warehouse_that_does_not_serve_the_store_is_nothing_to_tell_it() -> None:
    calls = [call(3, 102.2, caller=OTHER)]
    assert [taken_over(calls, killed(), warehouse=name) for name in WAREHOUSES] == [[1.1], []]


def test_a_store_that_waited_for_a_person_is_not_counted() -> None:
    person = Mended(("blib", "TOA-1"), 101.0, "Invalid refresh_token")
    assert taken_over([call(3, 102.2, caller=OTHER)], killed(), mended=person) == []
    other = Mended(("blib", "TOB-1"), 101.0, "Invalid refresh_token")
    assert taken_over([call(3, 102.2, caller=OTHER)], killed(), mended=other) == [1.1]


def test_exits_tell_who_left_something_behind() -> None:
    def stop(seconds: float, code: float = 0, *, in_order: bool = True) -> Deed:
        return Deed("restart", 1.0, 2.0, figures={"exit_seconds": seconds, "exit_code": code, "in_order": in_order})

    just_begun = Deed("restart", 1.0, 2.0, hit=False, figures={"exit_seconds": 0.1, "exit_code": -15})
    told = journal(deeds=(stop(0.5), stop(1.5), stop(1.0, -9), stop(2.0, in_order=False), just_begun))
    assert figures.exits(told) == (Spread(4, 1.25, 2.0), told.deeds[2:4])


def test_deeds_are_counted_by_name_and_by_whether_they_met_their_moment() -> None:
    deeds = [Deed("kill-in-answer", 1.0), Deed("kill-in-answer", 2.0, hit=False), Deed("late", 3.0, clear=True)]
    assert figures.tally(["freeze", "late"], deeds) == {"freeze": (0, 0), "kill-in-answer": (2, 1), "late": (1, 1)}
    assert figures.cycles(journal(deeds=tuple(deeds))) == 2
