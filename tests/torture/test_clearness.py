"""Whose outcome could be known."""

from __future__ import annotations

from lumbung.torture.clearness import Clearness, Lost, Spans
from lumbung.torture.evidence import Call
from lumbung.torture.journal import Deed

FIRST, SECOND = "127.0.1.1", "127.0.1.2"


def call(at: float = 100.0, *, caller: str = FIRST, status: int = 200, ms: float = 10.0, fault: str = "") -> Call:
    return Call(at, "blib", "TOA-1", caller, 1, ("x",), "/stock", status, ms, fault)


def clearness(*deeds: Deed, lost: tuple[Lost, ...] = ()) -> Clearness:
    return Clearness(deeds, lost, [FIRST, SECOND], lifetime=2.0, timeout=0.8)


def test_a_call_that_was_answered_in_peace_is_clear() -> None:
    assert clearness().is_clear(call())


def test_a_call_without_an_answer_a_late_one_or_a_strange_one_is_not() -> None:
    unclear = [call(status=0), call(ms=700), call(fault="garbage_rate"), call(fault="apply_then_5xx_rate")]
    assert [clearness().is_clear(one) for one in unclear] == [False] * 4


def test_a_call_that_was_plainly_refused_is_clear() -> None:
    assert clearness().is_clear(call(status=429, fault="throttle_rate"))


def test_what_is_done_to_a_worker_makes_its_calls_unclear_from_a_lifetime_before_to_one_after() -> None:
    found = clearness(Deed("freeze", 103.0, 105.0, workers=frozenset({FIRST})))
    assert [found.is_clear(call(at)) for at in (100.5, 101.5, 104.0, 106.5, 107.5)] == [True, False, False, False, True]
    assert found.is_clear(call(104.0, caller=SECOND))


def test_what_is_done_to_everybody_concerns_everybody() -> None:
    found = clearness(Deed("stop-database", 100.0, 101.0))
    assert not found.is_clear(call(caller=SECOND))


def test_what_is_done_to_no_worker_concerns_no_call() -> None:
    assert clearness(Deed("kill-api", 100.0, 101.0, workers=frozenset())).is_clear(call())


def test_what_marketplaces_do_is_told_by_each_calls_own_line() -> None:
    assert clearness(Deed("late", 99.0, 101.0, clear=True)).is_clear(call())


def test_a_worker_that_has_lost_its_leases_may_have_called_without_them() -> None:
    found = clearness(lost=(Lost(FIRST, 102.0),))
    assert not found.is_clear(call())
    assert found.is_clear(call(caller=SECOND))


def test_the_longest_time_outside_of_all_spans_is_found() -> None:
    spans = Spans([(1.0, 2.0), (4.0, 6.0)])
    sought = ((0.0, 1.0), (0.0, 5.0), (1.5, 4.5), (4.5, 5.0), (0.0, 9.0))
    assert [spans.longest_free(begins, ends) for begins, ends in sought] == [1.0, 2.0, 2.0, 0.0, 3.0]


def test_a_lease_that_was_lost_is_explained_by_what_was_done_to_its_worker_shortly_before() -> None:
    found = clearness(Deed("freeze", 100.0, 101.0, workers=frozenset({FIRST})))
    assert found.explains(Lost(FIRST, 102.0), 2.0)
    assert not found.explains(Lost(SECOND, 102.0), 2.0)
    assert not found.explains(Lost(FIRST, 110.0), 2.0)


def test_spans_that_touch_are_one() -> None:
    spans = Spans([(1.0, 2.0), (2.0, 3.0), (5.0, 6.0)])
    assert [spans.touches(begins, ends) for begins, ends in ((0.0, 0.9), (2.5, 2.6), (3.1, 4.9), (4.0, 5.0))] == [
        False,
        True,
        False,
        True,
    ]
