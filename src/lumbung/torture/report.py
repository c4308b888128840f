"""What a run tells people, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lumbung.torture import figures
from lumbung.torture.figures import Spread
from lumbung.torture.findings import INVARIANTS, Audit
from lumbung.torture.journal import Journal
from lumbung.torture.judgement import Judgement, Times

FINDINGS_MAX = 10


@dataclass(frozen=True, slots=True)
class About:
    """The command, the machine and the day; `restless`: what was still to happen at the end; `names`: of the deeds
    that were to be done."""

    command: str
    machine: str
    day: str
    restless: str
    names: tuple[str, ...] = ()


def text(about: About, journal: Journal, judgement: Judgement, times: Times) -> str:
    return "\n".join(_lines(about, journal, judgement, times)) + "\n"


def _lines(about: About, journal: Journal, judgement: Judgement, times: Times) -> Iterator[str]:
    yield "# Under fire"
    yield ""
    yield f"`{about.command}`, {about.day}, {about.machine}."
    yield f"A lease lives {times.lifetime:g} s, a call {times.timeout:g} s, a lost call {times.quiesce:g} s."
    yield ""
    yield from _table(("invariant", "looked at", "excused", "broken"), _invariants(judgement.audit))
    yield ""
    yield from _table(("measured", ""), _measured(journal, judgement, times))
    yield ""
    yield from _table(("what was done", "times", "hit its moment"), _deeds(about, journal))
    if about.restless:
        yield ""
        yield f"**It does not come to rest**: {about.restless}"
    if never := figures.missed(journal.deeds):
        yield ""
        yield f"**Never met the moment that it aimed at**: {', '.join(never)}"
    for number, finding in enumerate(judgement.audit.findings[:FINDINGS_MAX], 1):
        yield ""
        yield f"## {number}. Invariant {finding.invariant}: {finding.message}"
        yield ""
        yield from (f"- `{line}`" for line in finding.evidence)
    if (left := len(judgement.audit.findings) - FINDINGS_MAX) > 0:
        yield ""
        yield f"... and {left} more findings."


def _invariants(audit: Audit) -> Iterator[Sequence[object]]:
    for number, sentence in INVARIANTS.items():
        broken = sum(finding.invariant == number for finding in audit.findings)
        looked_at = audit.looked_at.get(number, 0)
        excused = audit.excused.get(number, 0)
        yield f"{number}. {sentence}", looked_at, excused, broken or ("no" if looked_at else "not judged")


def _measured(journal: Journal, judgement: Judgement, times: Times) -> Iterator[Sequence[object]]:
    seconds = journal.fire_until - journal.calm_until
    yield "updates acknowledged", len(journal.acknowledged)
    yield "numbers that marketplaces applied", judgement.writes
    yield "calls, of these with an outcome that nobody could know", f"{judgement.calls}, {judgement.unclear}"
    yield "seconds of fire", f"{seconds:.0f}"
    yield "kill and stop cycles; acknowledged updates lost", f"{figures.cycles(journal)}; {judgement.lost}"
    yield "a killed worker's stores are served again, lifetimes", _spread(judgement.takeovers)
    if (slowest := judgement.slowest) is not None:
        died = datetime.fromtimestamp(slowest.deed.began_at, UTC)
        yield "the slowest of them", f"{' '.join(slowest.store)}, whose worker died at {died:%H:%M:%S.%f}"
    yield (
        "SIGTERM to exit, seconds; workers that left something behind",
        (f"{_spread(judgement.exits)}; {judgement.exits_bad}"),
    )
    yield "stores that had to be authorised again", len(journal.mended)
    yield (
        f"older numbers after newer ones, seconds of peace until healed (promised: {times.healing:g})",
        _spread(judgement.healed),
    )
    for who, used in (("a store's", judgement.used), ("an application's", judgement.used_by_applications)):
        if used is not None:
            yield f"most of {who} limit that was used in {used.seconds:g} s", f"{100 * used.share:.1f}% ({used.whose})"


def _deeds(about: About, journal: Journal) -> Iterator[Sequence[object]]:
    for name, (done, hit) in sorted(figures.tally(about.names, journal.deeds).items()):
        yield name, done, hit


def _spread(spread: Spread) -> str:
    return f"median {spread.median:.2f}, most {spread.most:.2f} (of {spread.count})" if spread.count else "none"


def _table(headings: Sequence[str], rows: Iterator[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield "| " + " | ".join(str(value) for value in row) + " |"
