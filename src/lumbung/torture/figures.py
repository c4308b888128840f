"""What was measured under fire. Times in lifetimes of a lease, so that they hold for other lifetimes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from lumbung.torture.clearness import Spans
from lumbung.torture.evidence import Call
from lumbung.torture.journal import Deed, Journal
from lumbung.torture.world import World

KILLS = ("kill", "kill-before-claim", "kill-after-claim", "kill-before-send", "kill-in-answer", "kill-before-record")
CYCLES = (*KILLS, "kill-api", "restart", "stop-database", "outage", "freeze")
FIRST_SECONDS = 0.05  # what a killed worker had sent may still arrive
SOON_LIFETIMES = 0.5
TRIED_OFTEN = 5
MENDING_LIFETIMES = 10.0  # a store whose authorisation is dead stands still until an operator comes


@dataclass(frozen=True, slots=True)
class Spread:
    """`count` of something, in the unit that its name says; all 0 when there was none."""

    count: int
    median: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        known = sorted(values)
        return cls(len(known), median(known), known[-1]) if known else cls(0, 0.0, 0.0)


def cycles(journal: Journal) -> int:
    """How often a process, or the database, was killed, frozen or stopped."""
    return sum(deed.name in CYCLES for deed in journal.deeds)


@dataclass(frozen=True, slots=True)
class Takeover:
    """A store (channel, code) of a killed worker was called for again, so many lifetimes after the worker's death."""

    deed: Deed
    store: tuple[str, str]
    lifetimes: float


def takeovers(journal: Journal, world: World, calls: Iterable[Call], lifetime: float) -> Iterator[Takeover]:
    """From a worker's death until somebody calls for a store that it held: where nothing else was about, nobody waited
    for a person, and an update of a warehouse that serves it came soon, so that there was something to call for."""
    ordered: dict[tuple[str, str], list[Call]] = {}
    for call in sorted(calls, key=lambda call: call.at):
        ordered.setdefault((call.channel, call.store), []).append(call)
    updated: dict[tuple[str, str], list[float]] = {}
    for one in journal.acknowledged:
        tenant, _, warehouse = one.key
        updated.setdefault((tenant, warehouse), []).append(one.acknowledged_at)
    for times in updated.values():
        times.sort()
    plans = {(store.channel, store.code): store for store in world.stores}
    for deed in journal.deeds:
        if deed.name != "kill":
            continue
        for store in deed.stores:
            began = deed.began_at + FIRST_SECONDS
            others = Spans(
                (one.began_at, one.ended_at) for one in journal.deeds if one is not deed and concerns(one, store[0])
            )
            first = _first_after(ordered.get(store, []), began)
            if first is None or others.touches(deed.began_at - lifetime, first.at):
                continue
            soon = began + SOON_LIFETIMES * lifetime
            concerning = [updated.get((plans[store].tenant, name), []) for name in plans[store].warehouses]
            has_work = any(bisect_right(times, soon) > bisect_right(times, began) for times in concerning)
            mended = any(
                one.account == store and abs(one.at - deed.began_at) < MENDING_LIFETIMES * lifetime
                for one in journal.mended
            )
            if has_work and not mended:
                yield Takeover(deed, store, (first.at - deed.began_at) / lifetime)


def concerns(deed: Deed, channel: str) -> bool:
    """Whether calls to this marketplace may suffer from it."""
    return not deed.clear or channel in deed.note.split(",")


def _first_after(calls: Sequence[Call], at: float) -> Call | None:
    place = bisect_right(calls, at, key=lambda call: call.at)
    return calls[place] if place < len(calls) else None


def exits(journal: Journal) -> tuple[Spread, list[Deed]]:
    """From SIGTERM to the exit, in seconds; and those after which something was left in doubt, or that failed."""
    stops = [deed for deed in journal.deeds if deed.name == "restart" and deed.hit]
    bad = [deed for deed in stops if deed.figures.get("exit_code") or not deed.figures.get("in_order", True)]
    return Spread.of(deed.figures["exit_seconds"] for deed in stops if "exit_seconds" in deed.figures), bad


def missed(deeds: Iterable[Deed]) -> list[str]:
    """What was tried often and never met the moment that it aimed at: it has shown nothing."""
    return sorted(name for name, (done, hit) in tally((), deeds).items() if done >= TRIED_OFTEN and not hit)


def tally(names: Iterable[str], deeds: Iterable[Deed]) -> Mapping[str, tuple[int, int]]:
    """By name, how often something was done, and how often it met the moment that it aimed at. `names`: of what was to
    be done, for what was never reached."""
    found: dict[str, tuple[int, int]] = dict.fromkeys(names, (0, 0))
    for deed in deeds:
        done, hit = found.get(deed.name, (0, 0))
        found[deed.name] = (done + 1, hit + deed.hit)
    return found
