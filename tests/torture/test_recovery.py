"""An outage is told once down and once up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lumbung
from lumbung.hub_process import Life
from lumbung.torture import recovery
from lumbung.torture.clearness import Lost
from lumbung.torture.figures import Takeover
from lumbung.torture.findings import Audit
from lumbung.torture.fleet import events
from lumbung.torture.journal import Deed
from tests.torture.scene import LIFETIME, WORKER, clearness, journal

PRODUCT = Path(lumbung.__file__).parent


class Member:
    """As much of a worker as the auditor asks of it."""

    name, source = "worker-1", "127.0.1.1"


def logged(event: str, at: float, **more: Any) -> dict[str, Any]:
    return {"event": event, "timestamp": datetime.fromtimestamp(at, UTC).isoformat(), **more}


def outage(**figures: float) -> Deed:
    return Deed("outage", 100.0, 110.0, figures={"told": 1.0, "back": 1.0} | figures)


def audited(deed: Deed, *lines: dict[str, Any]) -> list[int]:
    audit = Audit()
    worker: Any = Member
    recovery.check_outages(audit, journal(deeds=(deed,)), {"worker-1": lines}, [worker], lifetime=LIFETIME)
    assert audit.looked_at == {10: 1}
    return [finding.invariant for finding in audit.findings]


def test_an_outage_that_is_told_once_down_and_once_up_breaks_nothing() -> None:
    assert audited(outage(), logged(recovery.AWAY, 101.0), logged(recovery.BACK, 112.0)) == []


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [logged(recovery.AWAY, 101.0)],
        [logged(recovery.AWAY, 101.0), logged(recovery.AWAY, 102.0), logged(recovery.BACK, 112.0)],
        [logged(recovery.AWAY, 101.0), logged(recovery.BACK, 150.0)],
    ],
    ids=["silent", "never back", "twice", "too late"],
)
def test_one_that_is_told_otherwise_does(lines: list[dict[str, Any]]) -> None:
    assert audited(outage(), *lines) == [10]


def test_readiness_and_metrics_must_tell_too() -> None:
    lines = logged(recovery.AWAY, 101.0), logged(recovery.BACK, 111.0)
    assert audited(outage(told=0.0), *lines) == [10]
    assert audited(outage(back=0.0), *lines) == [10]


def test_leases_that_were_lost_are_found_in_the_log() -> None:
    worker: Any = Member
    [lost] = recovery.lost_leases([worker], {"worker-1": [logged(recovery.LEASE_LOST, 105.0), logged("other", 106.0)]})
    assert (lost.source, lost.at) == ("127.0.1.1", 105.0)


def test_who_loses_its_leases_must_have_been_cut_off_or_have_stood_still() -> None:
    frozen = Deed("freeze", 100.0, 104.0, workers=frozenset({WORKER}))
    audit = Audit()
    lost = [Lost(WORKER, 104.1), Lost(WORKER, 120.0)]
    recovery.check_lost_leases(audit, lost, clearness(frozen), lifetime=LIFETIME)
    assert audit.looked_at == {4: 2}
    assert [(finding.invariant, "at=120.0" in finding.evidence[0]) for finding in audit.findings] == [(4, True)]


def test_an_error_with_a_traceback_is_told_and_one_that_a_person_must_mend_is_not() -> None:
    audit = Audit()
    bug = logged("a sender failed", 2.0, level="error", exception=[{"exc_type": "KeyError"}])
    sealed = logged(recovery.NOT_OPENED, 1.0, level="error", exception=[{"exc_type": "ConfigurationError"}])
    paused = logged("the store is paused", 1.0, level="error")
    recovery.check_logs(audit, {"api-1": [logged("ready", 1.0)], "worker-1": [bug, sealed, paused]})
    assert [finding.message for finding in audit.findings] == ["worker-1 logged 1 failures of its own"]


@pytest.mark.parametrize("event", [recovery.AWAY, recovery.BACK, recovery.LEASE_LOST, recovery.NOT_OPENED])
def test_what_is_looked_for_in_the_logs_is_what_the_hub_writes(event: str) -> None:
    written = [
        path for path in PRODUCT.rglob("*.py") if path.parent.name != "torture" and f'"{event}"' in path.read_text()
    ]
    assert written


def test_a_line_that_is_no_json_is_a_failure_of_the_hubs_own(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text(json.dumps(logged("ready", 1.0)) + "\nTraceback (most recent call last):\n")
    found = events(log)
    assert [event.get("level") for event in found] == [None, "unreadable"]
    assert events(tmp_path / "none.log") == []


def test_a_takeover_that_takes_too_long_is_told() -> None:
    killed = Deed("kill", 100.0, 105.0)
    audit = Audit()
    recovery.check_takeovers(audit, [Takeover(killed, ("blib", "TOA-1"), lifetimes) for lifetimes in (1.2, 3.1)])
    assert audit.looked_at == {6: 2}
    assert [finding.message for finding in audit.findings] == [
        "blib TOA-1 of a killed worker was served again after 3.1 lifetimes"
    ]


def test_an_exit_that_failed_or_left_something_behind_is_told() -> None:
    audit = Audit()
    recovery.check_exits(audit, 3, [Deed("restart", 1.0, 2.0)])
    assert ([finding.invariant for finding in audit.findings], audit.looked_at) == ([6], {6: 3})


@pytest.mark.parametrize(
    ("lives", "broken"),
    [
        ([Life(1, 1.0, 2.0, 2.1, -9), Life(2, 3.0, 9.0, 9.5, 0)], []),
        ([Life(1, 1.0, 2.0, 2.1, 1, unasked=True), Life(2, 3.0, 9.0, 9.5, 0)], ["worker-1 ended by itself, with 1"]),
        ([Life(1, 1.0, 9.0, 39.0, -9)], ["worker-1 was asked to end and ended with -9"]),
    ],
    ids=["killed before", "by itself", "not in time"],
)
def test_nobody_ends_unasked_and_everybody_ends_in_good_order(lives: list[Life], broken: list[str]) -> None:
    member: Any = SimpleNamespace(name="worker-1", process=SimpleNamespace(lives=lives))
    audit = Audit()
    recovery.check_lives(audit, [member])
    assert [finding.message for finding in audit.findings] == broken
