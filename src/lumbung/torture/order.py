"""Invariants 2, 3 (healing too) and 4 from what the marketplaces wrote down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lumbung.torture.clearness import Clearness, Spans
from lumbung.torture.evidence import Call, Write
from lumbung.torture.findings import Audit
from lumbung.torture.journal import Journal, Key, Mended
from lumbung.torture.timeline import Healed, Timeline
from lumbung.torture.world import Place, StorePlan, World, shape_of

EVIDENCE_STEPS = 4
OVERLAP_SECONDS = 0.002  # two answers of one moment are read in any order


def timelines(world: World, journal: Journal) -> dict[Place, Timeline]:
    """One for each listing that can be told something."""
    sent: dict[Key, list[tuple[int, float]]] = {}
    for one in journal.acknowledged:
        sent.setdefault(one.key, []).append((one.n, one.sent_at))
    sent_at = {key: [at for _, at in sorted(found)] for key, found in sent.items()}
    made: dict[Place, Timeline] = {}
    for tenant in world.tenants:
        for store in tenant.stores:
            for sku in tenant.skus:
                of_warehouses = {name: sent_at.get((tenant.name, sku, name), []) for name in store.warehouses}
                made[store.channel, store.code, sku] = Timeline(shape_of(sku), store.warehouses, of_warehouses)
    return made


def check_order(
    audit: Audit,
    writes: Iterable[Write],
    calls: Mapping[int, Call],
    lines: Mapping[Place, Timeline],
    clearness: Clearness,
) -> None:
    """Plays the writes in the order in which they took effect."""
    for write in writes:
        place = (write.channel, write.store, write.sku)
        step = lines[place].apply(write)
        call = calls.get(write.call)
        if step.ns is None:
            audit.broken(3, f"{_named(place)}: {write.quantity} was never accepted", *_steps(lines[place]))
        elif step.backwards and call is not None and not clearness.is_clear(call):
            audit.excuse(2)
        elif step.backwards:
            audit.broken(
                2, f"{_named(place)}: an older number came after a newer one", *_steps(lines[place]), str(call)
            )
        audit.look(2)


def check_end(
    audit: Audit,
    world: World,
    lines: Mapping[Place, Timeline],
    newest: Mapping[Key, int],
    paused: Iterable[tuple[str, str]],
) -> None:
    """`paused`: stores (channel, code) that wait for a person."""
    away = {*paused}
    for tenant in world.tenants:
        for store in tenant.stores:
            if store.poison or (store.channel, store.code) in away:
                continue
            for sku in tenant.skus:
                _check_shown(audit, world, lines, newest, (tenant.name, store, sku))


def _check_shown(
    audit: Audit,
    world: World,
    lines: Mapping[Place, Timeline],
    newest: Mapping[Key, int],
    of: tuple[str, StorePlan, str],
) -> None:
    tenant, store, sku = of
    place = (store.channel, store.code, sku)
    if place in world.poisoned:
        return
    audit.look(3)
    accepted = {name: newest.get((tenant, sku, name), 0) for name in store.warehouses}
    for warehouse, (shown, wanted) in lines[place].wrong_at_the_end(accepted).items():
        audit.broken(
            3, f"{_named(place)}: shows update {shown} of {warehouse} instead of {wanted}", *_steps(lines[place])
        )


def check_in_flight(audit: Audit, calls: Iterable[Call], clearness: Clearness) -> None:
    """Of two calls about one listing that overlap, at least one's end was not known to who made the other. A worker
    that nothing was done to knows when its own calls end, whatever became of them."""
    last: dict[tuple[str, str, str, str], Call] = {}
    for call in sorted(calls, key=lambda call: call.at):
        clear = clearness.is_clear(call)
        if not call.remote_variants or (not clear and clearness.disturbed(call.caller, call.at, call.ended_at)):
            continue
        for remote in call.remote_variants:
            place = (call.channel, call.store, remote)
            audit.look(4)
            keys = [(*place, who) for who in (("", call.caller) if clear else (call.caller,))]
            before = [last[key] for key in keys if key in last and call.at < last[key].ended_at - OVERLAP_SECONDS]
            if before:
                audit.broken(4, f"{_named(place)}: two calls in flight at once", str(before[0]), str(call))
            last |= {key: max(call, last.get(key, call), key=lambda one: one.ended_at) for key in keys}


def healed(lines: Mapping[Place, Timeline], deeds: Mapping[str, Spans]) -> list[tuple[Place, Healed, float]]:
    """Older numbers that were replaced: of each, the longest time in seconds for which it stood while nothing else went
    wrong with its marketplace. `deeds`: what went wrong, by channel. What stands at the end is invariant 3's."""
    return [
        (place, healing, deeds[place[0]].longest_free(healing.write.at, healing.healed_at))
        for place, line in lines.items()
        for healing in line.healed
    ]


def check_healed(
    audit: Audit, healings: Iterable[tuple[Place, Healed, float]], mended: Iterable[Mended], *, most_seconds: float
) -> None:
    """Not of a store that waited for a person meanwhile."""
    waited = [(one.account, one.at) for one in mended]
    for place, healing, seconds in healings:
        audit.look(3)
        if seconds <= most_seconds:
            continue
        if any(account == place[:2] and healing.write.at < at < healing.healed_at for account, at in waited):
            audit.excuse(3)
        else:
            told = f"{seconds:.1f} s of peace, not {most_seconds:.1f} s"
            audit.broken(3, f"{_named(place)}: an older number stood for {told}", str(healing))


def _steps(line: Timeline) -> tuple[str, ...]:
    return tuple(str(step) for step in line.steps[-EVIDENCE_STEPS:])


def _named(place: Place) -> str:
    channel, store, sku = place
    return f"{sku} in {channel} {store}"
