"""Limits, leases and waits, as the marketplaces see them."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from lumbung.torture import limits, order
from lumbung.torture.evidence import Call
from lumbung.torture.findings import Audit
from lumbung.torture.journal import Deed
from lumbung.torture.world import ApplicationPlan, World
from tests.torture.scene import (
    BOTH,
    LIFETIME,
    OTHER,
    STORE,
    TENANT,
    WORKER,
    WORLD,
    acknowledged,
    call,
    clearness,
    journal,
    write,
)


def invariants(audit: Audit) -> list[int]:
    return [finding.invariant for finding in audit.findings]


def test_a_call_too_many_is_told() -> None:
    audit = Audit()
    limits.check_limits(audit, [call(1), call(2, status=429, fault="store_limit")], clearness(), lifetime=LIFETIME)
    assert (invariants(audit), audit.looked_at[5]) == ([5], 2)


def test_a_call_too_many_for_its_application_is_told() -> None:
    audit = Audit()
    limits.check_limits(audit, [call(1, status=429, fault="application_limit")], clearness(), lifetime=LIFETIME)
    assert [finding.message for finding in audit.findings] == [
        "blib TOA-1: more calls than the limit of its application allows"
    ]


def test_what_the_stores_of_an_application_use_of_its_limit_is_added_up() -> None:
    shared = ApplicationPlan("blib", "key", 20.0, 10)
    stores = tuple(replace(store, application=shared) for store in (STORE, BOTH))
    world = World((replace(TENANT, stores=stores),))
    calls = [call(n, n / 10) for n in range(50)] + [replace_store(call(100 + n, n / 5), "TOB-1") for n in range(25)]
    calls.append(call(200, 4.9, fault="application_limit"))
    used = limits.used_by_applications(calls, world, seconds=5.0)
    assert used is not None
    assert (used.whose, used.share) == ("blib key", 75 / 100)
    assert world.applications == (shared,)
    assert world.longest_wait(stores[0], 2.0) == 2 * 3 / 10.0 + 6.0
    assert world.longest_wait(STORE, 2.0) == 2 * 3 / 10.0 + 6.0
    assert limits.used_by_applications(calls, WORLD, seconds=5.0) is None


def replace_store(one: Call, store: str) -> Call:
    return msgspec.structs.replace(one, store=store)


def test_a_call_too_many_right_after_calls_were_held_up_is_not() -> None:
    held = Deed("cut-marketplaces", 40.0, 47.0, workers=frozenset({WORKER}))
    audit = Audit()
    limits.check_limits(audit, [call(1, 49.5, fault="store_limit")], clearness(held), lifetime=LIFETIME)
    assert invariants(audit) == []


def test_a_worker_that_calls_long_after_it_was_cut_off_from_the_database_is_told() -> None:
    cut = Deed("cut-database", 40.0, 45.0, workers=frozenset({WORKER}))
    calls = [call(1, 41.9), call(2, 44.0, caller=OTHER), call(3, 44.5), call(4, 46.0)]
    audit = Audit()
    limits.check_lease_ends(audit, calls, [cut], lifetime=LIFETIME)
    assert invariants(audit) == [4]
    assert "received=3" in audit.findings[0].evidence[0]


def test_a_worker_whose_way_to_the_database_is_only_slow_may_go_on() -> None:
    cut = Deed("cut-database", 40.0, 45.0, workers=frozenset({WORKER}), note="drip")
    audit = Audit()
    limits.check_lease_ends(audit, [call(3, 44.5)], [cut], lifetime=LIFETIME)
    assert (audit.findings, audit.looked_at) == ([], {})


def test_a_machine_that_stood_still_lets_many_calls_come_at_once() -> None:
    calls = [call(1, 49.0), call(2, 49.5), call(3, 49.51, status=429, fault="store_limit")]
    audit = Audit()
    limits.check_limits(audit, calls, clearness(), lifetime=LIFETIME)
    assert invariants(audit) == []


def waits(shown_at: float | None) -> Audit:
    """Update 1 is acknowledged at 1.1 s; ten calls a second for three listings allow 0.6 s, three lifetimes 1 s."""
    told = journal(acknowledged(1), calm_until=20.0)
    lines = order.timelines(WORLD, told)
    writes = [] if shown_at is None else [write(1, 1, at=shown_at), write(2, 1, at=1.2, store="TOB-1")]
    order.check_order(Audit(), writes, {}, lines, clearness())
    audit = Audit()
    limits.check_waits(audit, WORLD, told, lines, lifetime=1 / 3)
    return audit


def test_an_update_that_is_shown_in_time_has_not_waited_too_long() -> None:
    assert (invariants(waits(2.6)), waits(2.6).looked_at) == ([], {8: 2})


def test_an_update_that_is_shown_late_or_never_has() -> None:
    assert invariants(waits(2.8)) == [8]
    assert invariants(waits(None)) == [8, 8]


def test_what_is_acknowledged_when_the_fire_is_about_to_begin_is_not_judged() -> None:
    told = journal(acknowledged(1), calm_until=2.0)
    audit = Audit()
    limits.check_waits(audit, WORLD, told, order.timelines(WORLD, told), lifetime=1 / 3)
    assert (audit.findings, audit.looked_at) == ([], {})


def test_the_use_of_a_limit_is_that_of_the_busiest_window() -> None:
    calls: list[Call] = [call(n, 10.0 + n / 5) for n in range(50)]  # 5 a second of 10
    calls += [call(100 + n, 30.0 + n / 10, fault="store_limit" if n % 2 else "") for n in range(20)]
    used = limits.used(calls, WORLD, seconds=5.0)
    assert used is not None
    assert (used.whose, used.share) == ("blib TOA-1", 26 / 50)
