"""Invariant 10 (an outage is told once down and once up, by each worker's log, /readyz and the metrics), and what else
processes say of themselves: leases that they lost, failures of their own, how they end and are replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from lumbung.torture.clearness import Clearness, Lost
from lumbung.torture.figures import Takeover
from lumbung.torture.findings import Audit
from lumbung.torture.fleet import Member, events
from lumbung.torture.journal import Deed, Journal

AWAY = "the database is away: nothing new is sent"
BACK = "the database is back"
LEASE_LOST = "a lease was lost"
NOT_OPENED = "a store cannot be opened"  # poison; a store that is paused for nothing is found by its pause
TAKEOVER_LIFETIMES_MAX = 3.0
SETTLING_LIFETIMES = 2.0

Events = Mapping[str, Sequence[Mapping[str, Any]]]


def logs_of(members: Iterable[Member]) -> dict[str, list[dict[str, Any]]]:
    """What each process has logged, by its name."""
    return {member.name: events(member.process.log_path) for member in members}


def lost_leases(members: Iterable[Member], logs: Events) -> list[Lost]:
    return [
        Lost(member.source, _at(event))
        for member in members
        if member.source
        for event in logs[member.name]
        if event.get("event") == LEASE_LOST and _at(event)
    ]


def check_outages(audit: Audit, journal: Journal, logs: Events, workers: Iterable[Member], *, lifetime: float) -> None:
    names = [worker.name for worker in workers]
    for deed in journal.deeds:
        if deed.name != "outage":
            continue
        audit.look(10)
        if not deed.figures.get("told"):
            audit.broken(10, "/readyz or the metrics do not tell that the database is away", str(deed))
        if not deed.figures.get("back"):
            audit.broken(10, "not everything goes on after the database is back", str(deed))
        ends = _next_after(journal, deed, deed.ended_at + SETTLING_LIFETIMES * lifetime)
        for name in names:
            told = Counter(event.get("event") for event in logs[name] if deed.began_at <= _at(event) <= ends)
            if (told[AWAY], told[BACK]) != (1, 1):
                audit.broken(
                    10, f"{name} logs the outage {told[AWAY]} times, and its end {told[BACK]} times", str(deed)
                )


def check_lost_leases(audit: Audit, lost: Iterable[Lost], clearness: Clearness, *, lifetime: float) -> None:
    """Who loses its leases was cut off or stood still."""
    for one in lost:
        audit.look(4)
        if not clearness.explains(one, lifetime):
            audit.broken(4, f"{one.source} lost its leases though nothing was done to it", str(one))


def _is_bug(event: Mapping[str, Any]) -> bool:
    return event.get("level") == "error" and bool(event.get("exception")) and event.get("event") != NOT_OPENED


def _next_after(journal: Journal, deed: Deed, at: float) -> float:
    """When the next thing was done to the hub, at the latest `at`."""
    return min([one.began_at for one in journal.deeds if one.began_at > deed.ended_at and not one.clear] + [at])


def check_logs(audit: Audit, logs: Events) -> None:
    """Nothing of what is done can make the hub fail: an error with a traceback is a bug's, an unreadable line too."""
    for name, found in logs.items():
        bad = [event for event in found if event.get("level") == "unreadable" or _is_bug(event)]
        audit.look(6, len(found))
        if bad:
            audit.broken(6, f"{name} logged {len(bad)} failures of its own", *(str(event)[:2000] for event in bad[:2]))


def check_lives(audit: Audit, members: Iterable[Member]) -> None:
    """Nobody ends who was not asked to, and who is asked at the end of the run ends in good order."""
    for member in members:
        for life in member.process.lives:
            audit.look(6)
            if life.unasked:
                audit.broken(6, f"{member.name} ended by itself, with {life.code}", str(life))
        if (last := member.process.lives[-1]).code and not last.unasked:
            audit.broken(6, f"{member.name} was asked to end and ended with {last.code}", str(last))


def check_takeovers(audit: Audit, takeovers: Iterable[Takeover]) -> None:
    for took in takeovers:
        audit.look(6)
        if took.lifetimes > TAKEOVER_LIFETIMES_MAX:
            what = f"{' '.join(took.store)} of a killed worker was served again after {took.lifetimes:.1f} lifetimes"
            audit.broken(6, what, str(took.deed))


def check_exits(audit: Audit, count: int, bad: Iterable[Deed]) -> None:
    audit.look(6, count)
    for deed in bad:
        audit.broken(6, "who was told to stop failed, or left something behind", str(deed))


def _at(event: Mapping[str, Any]) -> float:
    """Unix seconds; 0 when it does not say."""
    try:
        return datetime.fromisoformat(str(event["timestamp"])).timestamp()
    except (KeyError, ValueError):
        return 0.0
