"""What a run tells people."""

from __future__ import annotations

from lumbung.torture import report
from lumbung.torture.figures import Spread, Takeover
from lumbung.torture.findings import Audit
from lumbung.torture.journal import Deed
from lumbung.torture.judgement import Judgement, Times
from lumbung.torture.limits import Used
from lumbung.torture.report import About
from tests.torture.scene import acknowledged, journal

TIMES = Times(lifetime=2.0, timeout=0.8, quiesce=2.5)
NONE = Spread.of([])
SLOWEST = Takeover(Deed("kill", 3.5, 4.0), ("blib", "TOA-1"), 1.2)


def told(audit: Audit, restless: str = "", tries: int = 1) -> str:
    used = Used("blib TOA-1", 60.0, 0.987), Used("shpe 1000000", 60.0, 0.5)
    judgement = Judgement(audit, 10, 12, 3, 0, NONE, Spread.of([1.0, 1.2]), SLOWEST, NONE, 0, *used)
    done = journal(
        acknowledged(1), deeds=(*[Deed("kill-in-answer", 1.0, 2.0, hit=False)] * tries, Deed("kill", 3.0, 4.0))
    )
    return report.text(About("lumbung torture", "2 cores", "2026-11-23", restless, ("freeze",)), done, judgement, TIMES)


def test_a_run_that_found_nothing_says_what_was_looked_at_and_measured() -> None:
    audit = Audit()
    audit.look(2, 10)
    audit.excuse(2)
    words = told(audit)
    for line in (
        "`lumbung torture`, 2026-11-23, 2 cores.",
        "| 2. never an older number after a newer one, while outcomes are known | 10 | 1 | no |",
        "| 8. no listing waits longer than twice (due listings / rate) | 0 | 0 | not judged |",
        "| updates acknowledged | 1 |",
        "| kill and stop cycles; acknowledged updates lost | 2; 0 |",
        "| a killed worker's stores are served again, lifetimes | median 1.10, most 1.20 (of 2) |",
        "| the slowest of them | blib TOA-1, whose worker died at 00:00:03.500000 |",
        "| older numbers after newer ones, seconds of peace until healed (promised: 6.5) | none |",
        "| most of a store's limit that was used in 60 s | 98.7% (blib TOA-1) |",
        "| most of an application's limit that was used in 60 s | 50.0% (shpe 1000000) |",
        "| kill-in-answer | 1 | 0 |",
        "| freeze | 0 | 0 |",
    ):
        assert line in words.splitlines()
    assert "##" not in words


def test_what_is_broken_stands_with_its_evidence_and_not_all_of_it() -> None:
    audit = Audit()
    for number in range(12):
        audit.broken(3, f"sku{number} shows 1 instead of 2", "write 7", "write 8")
    words = told(audit)
    assert "## 1. Invariant 3: sku0 shows 1 instead of 2\n\n- `write 7`\n- `write 8`\n" in words
    assert words.count("## ") == report.FINDINGS_MAX
    assert words.endswith("... and 2 more findings.\n")


def test_what_was_tried_often_and_never_met_its_moment_is_told() -> None:
    assert "**Never met" not in told(Audit(), tries=4)
    assert "\n**Never met the moment that it aimed at**: kill-in-answer\n" in told(Audit(), tries=5)


def test_what_does_not_come_to_rest_is_told() -> None:
    assert "**It does not come to rest**: 3 items" in told(Audit(), "3 items")
