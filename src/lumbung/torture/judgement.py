"""Everything that was found and measured, from everything that was written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lumbung.torture import evidence, figures, limits, order, recovery, settled
from lumbung.torture.clearness import Clearness, Spans
from lumbung.torture.evidence import Call, Write
from lumbung.torture.figures import Spread, Takeover
from lumbung.torture.findings import Audit
from lumbung.torture.fleet import Member
from lumbung.torture.journal import Journal
from lumbung.torture.limits import Used
from lumbung.torture.settled import AtRest
from lumbung.torture.world import World

HEALING_LIFETIMES, HEALING_SLACK_LIFETIMES = 2.0, 1.0
USED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: of a lease, of a call, and how long a lost one may still take effect."""

    lifetime: float
    timeout: float
    quiesce: float

    @property
    def healing(self) -> float:
        """How long an older number may stand when nothing else goes wrong."""
        return self.quiesce + HEALING_LIFETIMES * self.lifetime


@dataclass(frozen=True, slots=True)
class Judgement:
    audit: Audit
    writes: int
    calls: int
    unclear: int
    lost: int
    healed: Spread
    takeovers: Spread
    slowest: Takeover | None
    exits: Spread
    exits_bad: int
    used: Used | None
    used_by_applications: Used | None


def judge(
    directory: Path,
    world: World,
    journal: Journal,
    members: Sequence[Member],
    histories: Mapping[str, tuple[int, set[str]]],
    at_rest: AtRest,
    times: Times,
) -> Judgement:
    """`histories`: by tenant, the total and the codes that its partner read."""
    audit = Audit()
    logs = recovery.logs_of(members)
    workers = [member for member in members if member.source]
    lost_leases = recovery.lost_leases(workers, logs)
    clearness = Clearness(
        journal.deeds,
        lost_leases,
        [worker.source for worker in workers],
        lifetime=times.lifetime,
        timeout=times.timeout,
    )
    calls = list(evidence.read(directory / "calls.jsonl", Call))
    by_number = {call.received: call for call in calls}
    lines = order.timelines(world, journal)
    order.check_order(audit, evidence.read(directory / "writes.jsonl", Write), by_number, lines, clearness)
    order.check_end(audit, world, lines, journal.newest(), at_rest.paused.keys())
    order.check_in_flight(audit, calls, clearness)
    limits.check_limits(audit, calls, clearness, lifetime=times.lifetime)
    limits.check_lease_ends(audit, calls, journal.deeds, lifetime=times.lifetime)
    limits.check_waits(audit, world, journal, lines, lifetime=times.lifetime)
    lost = _check_what_the_hub_says(audit, world, journal, histories, at_rest)
    settled.check_mended(audit, journal, calls, clearness)
    recovery.check_outages(audit, journal, logs, workers, lifetime=times.lifetime)
    recovery.check_lost_leases(audit, lost_leases, clearness, lifetime=times.lifetime)
    recovery.check_logs(audit, logs)
    recovery.check_lives(audit, members)
    healings = order.healed(lines, _deeds_by_channel(world, journal))
    most_seconds = times.healing + HEALING_SLACK_LIFETIMES * times.lifetime
    order.check_healed(audit, healings, journal.mended, most_seconds=most_seconds)
    takeovers = list(figures.takeovers(journal, world, calls, times.lifetime))
    recovery.check_takeovers(audit, takeovers)
    exits, exits_bad = figures.exits(journal)
    recovery.check_exits(audit, exits.count, exits_bad)
    return Judgement(
        audit,
        audit.looked_at.get(2, 0),
        len(calls),
        sum(not clearness.is_clear(call) for call in calls),
        lost,
        Spread.of(seconds for _, _, seconds in healings),
        Spread.of(took.lifetimes for took in takeovers),
        max(takeovers, key=lambda took: took.lifetimes, default=None),
        exits,
        len(exits_bad),
        limits.used(calls, world, seconds=USED_SECONDS),
        limits.used_by_applications(calls, world, seconds=USED_SECONDS),
    )


def _check_what_the_hub_says(
    audit: Audit, world: World, journal: Journal, histories: Mapping[str, tuple[int, set[str]]], at_rest: AtRest
) -> int:
    """To its partners and in its tables. Returns how many acknowledged updates are lost."""
    lost = sum(settled.check_history(audit, journal, tenant, *histories[tenant.name]) for tenant in world.tenants)
    if not journal.acknowledged:
        audit.broken(1, "nothing was acknowledged: nothing has been shown")
    for refused in journal.refused[:5]:
        audit.broken(1, f"a good update was refused ({len(journal.refused)} were)", refused)
    settled.check_effects(audit, journal, at_rest)
    settled.check_settled(audit, world, at_rest)
    settled.check_calm(audit, world, at_rest)
    settled.check_poison(audit, world, at_rest)
    return lost


def _deeds_by_channel(world: World, journal: Journal) -> dict[str, Spans]:
    return {
        channel: Spans((deed.began_at, deed.ended_at) for deed in journal.deeds if figures.concerns(deed, channel))
        for channel in {store.channel for store in world.stores}
    }
