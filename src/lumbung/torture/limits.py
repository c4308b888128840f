"""Invariants 4 (the lease's end), 5 and 8 from what the marketplaces wrote down, and how much of a limit was used."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lumbung.torture.clearness import Clearness
from lumbung.torture.evidence import Call
from lumbung.torture.fault import Mode
from lumbung.torture.findings import Audit
from lumbung.torture.journal import Deed, Journal
from lumbung.torture.timeline import Timeline
from lumbung.torture.world import Place, World

STORE_LIMIT, APPLICATION_LIMIT = "store_limit", "application_limit"  # what the sandbox calls one call too many
CUT_OFF = "cut-database"
SLOW = frozenset({Mode.DELAY, Mode.DRIP})
SLACK_LIFETIMES = 0.5
STILL_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Used:
    """Of a limit, in its busiest window: calls that were let through, as a share of rate times seconds. `whose`: a
    store's or an application's."""

    whose: str
    seconds: float
    share: float


def check_limits(audit: Audit, calls: Iterable[Call], clearness: Clearness, *, lifetime: float) -> None:
    """A call too many is excused only when somebody held calls up, or a worker, shortly before (a lost worker's may
    come among its successor's); be it that the machine stood still, so that what was sent over a while came at once.
    For an application's limit any worker may be the one that stood still."""
    last: dict[str, float] = {}
    stood_still: dict[str, float] = {}
    for call in sorted(calls, key=lambda call: call.at):
        audit.look(5)
        if call.at - last.get(call.caller, call.at) > STILL_SECONDS:
            stood_still[call.caller] = call.at
        last[call.caller] = call.at
        if call.fault not in {STORE_LIMIT, APPLICATION_LIMIT}:
            continue
        since = call.at - lifetime
        concerned = stood_still if call.fault == APPLICATION_LIMIT else {call.caller}
        still = any(stood_still.get(caller, 0.0) > since for caller in concerned)
        if still or clearness.anybody_disturbed(since, call.at):
            audit.excuse(5)
        else:
            whose = "its limit" if call.fault == STORE_LIMIT else "the limit of its application"
            audit.broken(5, f"{call.channel} {call.store}: more calls than {whose} allows", str(call))


def check_lease_ends(audit: Audit, calls: Sequence[Call], deeds: Iterable[Deed], *, lifetime: float) -> None:
    """Who cannot reach the database cannot renew, and starts nothing when its leases have ended."""
    ordered = sorted(calls, key=lambda call: call.at)
    times = [call.at for call in ordered]
    for deed in deeds:
        if deed.name != CUT_OFF or deed.workers is None or deed.note in SLOW:
            continue  # who is only slow may renew in time
        begins = deed.began_at + (1 + SLACK_LIFETIMES) * lifetime
        for call in ordered[bisect_left(times, begins) : bisect_right(times, deed.ended_at)]:
            if call.caller in deed.workers:
                audit.broken(4, f"{call.caller} calls though its leases have ended", str(call), str(deed))
        audit.look(4)


def check_waits(
    audit: Audit, world: World, journal: Journal, lines: Mapping[Place, Timeline], *, lifetime: float
) -> None:
    """In the calm before the fire: from each acknowledgement to the number, or a newer one."""
    for store in world.stores:
        if store.poison:
            continue
        tenant = world.tenant_of(store)
        most = world.longest_wait(store, lifetime)
        for one in journal.acknowledged:
            tenant_name, sku, warehouse = one.key
            place = (store.channel, store.code, sku)
            if tenant_name != tenant.name or warehouse not in store.warehouses or place in world.poisoned:
                continue
            if one.acknowledged_at + most > journal.calm_until:
                continue
            audit.look(8)
            shown_at = lines[place].shown_at(warehouse, one.n)
            if shown_at is None or shown_at - one.acknowledged_at > most:
                took = "never came" if shown_at is None else f"took {shown_at - one.acknowledged_at:.2f} s"
                audit.broken(8, f"{sku} in {store.channel} {store.code}: {took}, not {most:.2f} s", str(one))


def used(calls: Iterable[Call], world: World, *, seconds: float) -> Used | None:
    """Of the store that used most of its limit within so many seconds: limits go by time, so that a burst at the
    beginning of the window counts as what it is."""
    rates = {(store.channel, store.code): store.calls_per_second for store in world.stores}
    places = {place: f"{place[0]} {place[1]}" for place in rates}
    return _busiest(calls, places, {places[place]: rate for place, rate in rates.items()}, seconds)


def used_by_applications(calls: Iterable[Call], world: World, *, seconds: float) -> Used | None:
    """The same of applications, each by the calls of all its stores."""
    whose = {(s.channel, s.code): f"{s.channel} {s.application.name}" for s in world.stores if s.application}
    rates = {f"{one.channel} {one.name}": one.calls_per_second for one in world.applications}
    return _busiest(calls, whose, rates, seconds)


def _busiest(
    calls: Iterable[Call], whose: Mapping[tuple[str, str], str], rates: Mapping[str, float], seconds: float
) -> Used | None:
    """`whose`: by channel and store; `rates`: calls a second."""
    windows: dict[str, deque[float]] = {}
    best: Used | None = None
    for call in sorted(calls, key=lambda call: call.at):
        name = whose.get((call.channel, call.store))
        if name is None or call.fault in {STORE_LIMIT, APPLICATION_LIMIT}:
            continue
        window = windows.setdefault(name, deque())
        window.append(call.at)
        while window[0] < call.at - seconds:
            window.popleft()
        share = len(window) / (rates[name] * seconds)
        if best is None or share > best.share:
            best = Used(name, seconds, share)
    return best
