"""The auditor complains of what is out of order, and only of that."""

from __future__ import annotations

from lumbung.torture import order
from lumbung.torture.clearness import Clearness, Spans
from lumbung.torture.evidence import Call, Write
from lumbung.torture.findings import Audit
from lumbung.torture.journal import Deed, Journal, Mended
from lumbung.torture.world import World
from tests.torture.scene import OTHER, TENANT, WORKER, WORLD, acknowledged, call, clearness, journal, write

FIVE = journal(*(acknowledged(n) for n in range(1, 6)))


def played(writes: list[Write], calls: list[Call], known: Clearness, told: Journal = FIVE) -> Audit:
    audit = Audit()
    lines = order.timelines(WORLD, told)
    order.check_order(audit, writes, {one.received: one for one in calls}, lines, known)
    order.check_end(audit, WORLD, lines, told.newest(), ())
    return audit


def invariants(audit: Audit) -> list[int]:
    return [finding.invariant for finding in audit.findings]


def both(quantity: int) -> Write:
    return write(9, quantity, store="TOB-1", at=60.0)


def test_numbers_in_order_that_end_with_the_newest_break_nothing() -> None:
    audit = played([write(1, 2), write(2, 5), both(5)], [call(1), call(2)], clearness())
    assert invariants(audit) == []
    assert (audit.looked_at[2], audit.looked_at[3]) == (3, 6)


def test_an_older_number_of_a_clear_call_breaks_the_order() -> None:
    audit = played([write(1, 4), write(2, 3), write(3, 5), both(5)], [call(1), call(2), call(3)], clearness())
    assert invariants(audit) == [2]
    assert any("write 2 of call 2" in line for line in audit.findings[0].evidence)


def test_an_older_number_of_a_call_that_nobody_could_know_of_does_not() -> None:
    frozen = Deed("freeze", 49.0, 51.0, workers=frozenset({WORKER}))
    writes = [write(1, 4), write(2, 3), write(3, 5), both(5)]
    assert invariants(played(writes, [call(1), call(2), call(3)], clearness(frozen))) == []


def test_the_frozen_workers_neighbour_has_no_excuse() -> None:
    frozen = Deed("freeze", 49.0, 51.0, workers=frozenset({OTHER}))
    writes = [write(1, 4), write(2, 3), write(3, 5), both(5)]
    assert invariants(played(writes, [call(1), call(2), call(3)], clearness(frozen))) == [2]


def test_an_older_number_at_the_end_is_never_excused() -> None:
    frozen = Deed("freeze", 49.0, 51.0, workers=frozenset({WORKER}))
    audit = played([write(1, 5), write(2, 4), both(5)], [call(1), call(2)], clearness(frozen))
    assert invariants(audit) == [3]
    assert audit.findings[0].message == "sku1 in blib TOA-1: shows update 4 of default instead of 5"


def test_a_number_that_nobody_sent_is_told() -> None:
    audit = played([write(1, 99), write(2, 5), both(5)], [call(1), call(2)], clearness())
    assert invariants(audit) == [3]


def test_a_listing_of_a_paused_store_may_show_anything() -> None:
    audit, lines = Audit(), order.timelines(WORLD, FIVE)
    order.check_end(audit, WORLD, lines, FIVE.newest(), [("blib", "TOA-1"), ("blib", "TOB-1")])
    assert (audit.findings, audit.looked_at) == ([], {})


def test_a_poisoned_listing_may_show_anything() -> None:
    world = World((TENANT,), {("blib", code, "sku1"): "failing" for code in ("TOA-1", "TOB-1")})
    audit = Audit()
    order.check_end(audit, world, order.timelines(world, FIVE), FIVE.newest(), ())
    assert (audit.findings, audit.looked_at) == ([], {3: 4})


def test_two_clear_calls_about_one_listing_may_not_overlap_whoever_makes_them() -> None:
    audit = Audit()
    order.check_in_flight(audit, [call(1, 50.0, ms=100), call(2, 50.05, caller=OTHER)], clearness())
    assert invariants(audit) == [4]


def test_calls_one_after_the_other_may_and_beside_those_that_somebody_else_has_lost() -> None:
    audit = Audit()
    calls = [call(1, 50.0), call(2, 50.02), call(3, 50.1, status=0, ms=800), call(4, 50.5, caller=OTHER)]
    order.check_in_flight(audit, calls, clearness())
    assert invariants(audit) == []


def test_a_workers_own_calls_may_not_overlap_though_nobody_knows_what_became_of_them() -> None:
    lost = call(1, 50.0, ms=400, fault="drop_response_rate", status=0)
    for second, broken in ((call(2, 50.2), [4]), (call(2, 50.5), []), (call(2, 50.2, caller=OTHER), [])):
        audit = Audit()
        order.check_in_flight(audit, [lost, second], clearness())
        assert invariants(audit) == broken


def test_unless_something_was_done_to_it() -> None:
    audit = Audit()
    cut = Deed("cut-marketplaces", 49.9, 50.3, workers=frozenset({WORKER}))
    order.check_in_flight(audit, [call(1, 50.0, ms=400, status=0), call(2, 50.2)], clearness(cut))
    assert invariants(audit) == []


def test_an_older_number_of_a_call_without_a_line_has_no_excuse() -> None:
    writes = [write(1, 4), write(2, 3), write(3, 5), both(5)]
    assert invariants(played(writes, [call(1), call(3)], clearness())) == [2]


def healed(*mended: Mended, most_seconds: float = 1.4) -> tuple[list[float], list[int]]:
    """An older number stands for two seconds, and another for four with something else going wrong meanwhile."""
    lines = order.timelines(WORLD, FIVE)
    writes = [write(1, 5, at=10.0), write(2, 4, at=11.0), write(3, 5, at=13.0)]
    writes += [write(4, 4, at=20.0), write(5, 5, at=24.0)]
    order.check_order(Audit(), writes, {}, lines, clearness())
    healings = order.healed(lines, {"blib": Spans([(21.0, 22.5), (23.5, 25.0)])})
    audit = Audit()
    order.check_healed(audit, healings, mended, most_seconds=most_seconds)
    return [seconds for _, _, seconds in healings], invariants(audit)


def test_healing_is_counted_while_nothing_else_goes_wrong() -> None:
    assert healed()[0] == [2.0, 1.0]


def test_healing_that_takes_too_long_is_told_unless_the_store_waited_for_a_person() -> None:
    assert healed()[1] == [3]
    assert healed(most_seconds=2.0)[1] == []
    assert healed(Mended(("blib", "TOA-1"), 12.0, "Invalid refresh_token"))[1] == []
    assert healed(Mended(("blib", "TOB-1"), 12.0, "Invalid refresh_token"))[1] == [3]
