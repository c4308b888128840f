"""What is due and what waits: the first half of db/delivery.sql, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from lumbung.db.delivery import Due, Submitted, Work
from lumbung.dispatch.report import Lease
from lumbung.model import DueFor
from tests.simulation.tables import Key, State, Tables, Wait
from tests.simulation.tables import Lease as HeldLease


def is_over(wait: Wait, now: float, wait_seconds_max: float) -> bool:
    return wait.due_at <= now or wait.due_at > now + wait_seconds_max


def look(tables: Tables, working: Iterable[int], wait_seconds_max: float) -> list[Work]:
    now = tables.now()
    due = {state.store_id for state in tables.states.values() if state.lane > 0}.union(working)
    ready = {wait.store_id for wait in tables.waits.values() if is_over(wait, now, wait_seconds_max)}
    return [
        Work(
            lease.store_id,
            lease.store_id in due,
            lease.store_id in ready,
            lease.worker_id,
            lease.epoch,
            _held_seconds(tables, lease),
        )
        for lease in tables.leases.values()
        if (lease.store_id in due or lease.store_id in ready) and tables.is_live(lease.store_id)
    ]


def _held_seconds(tables: Tables, lease: HeldLease) -> float | None:
    holder = tables.workers[lease.worker_id] if lease.worker_id is not None else None
    if holder is None or holder.stopping:
        return None
    left = holder.renewed_at + lease.lifetime_seconds - tables.now()
    return 0.0 if left > 2 * lease.lifetime_seconds else max(0.0, left)


def release_waits(tables: Tables, store_ids: Iterable[int], wait_seconds_max: float) -> dict[int, dict[int, int]]:
    mine, now = set(store_ids), tables.now()
    over = [
        (key, wait)
        for key, wait in tables.waits.items()
        if wait.store_id in mine and is_over(wait, now, wait_seconds_max)
    ]
    due: dict[int, dict[int, int]] = {}
    for key, wait in over:
        state = tables.states[key]
        del tables.waits[key]
        again = _again(state, wait)
        if again:
            _bring_back(state, wait, now)
        if again or wait.reason == "parked":
            state.park_retry_at = None
            state.check()
            if state.lane > 0:
                due.setdefault(state.store_id, {})[state.listing_id] = state.lane
    return due


def _again(state: State, wait: Wait) -> bool:
    if wait.reason == "confirmation":
        return (
            state.state == "idle" and state.version_delivered == state.version_due and state.doubtful_until is not None
        )
    if wait.reason == "parked":
        return state.state == "parked" and state.version_due > state.version_settled
    return state.state == "waiting"


def _bring_back(state: State, wait: Wait, now: float) -> None:
    if wait.reason in {"confirmation", "parked"} or state.quantity_due == state.quantity_delivered:
        lane = 3
    elif state.quantity_due == 0 or (
        state.quantity_delivered is not None and state.quantity_due < state.quantity_delivered
    ):
        lane = 1
    else:
        lane = 2
    state.state, state.lane = "due", lane + (3 if state.attempts > 0 else 0)
    if state.handle is not None:
        state.due_for = "ask"
    elif wait.reason == "confirmation":
        state.due_for = "confirm"
    elif wait.reason == "parked":
        state.due_for = "push"
    state.due_since = now if state.due_since is None else state.due_since
    state.park_reason = None


def due_window(
    tables: Tables,
    lease: Lease,
    *,
    cursors: Mapping[int, int],
    busy: Iterable[int],
    limit: int,
    with_locations: bool,
) -> list[Due]:
    if not _is_holder(tables, lease):
        return []
    taken = set(busy)
    due = sorted(_due_states(tables, lease), key=lambda state: state.listing_id)
    found = []
    for lane, cursor in cursors.items():
        of_lane = [s for s in due if s.lane == lane and s.listing_id > cursor and s.listing_id not in taken]
        found += [due_of(tables, state, with_locations=with_locations) for state in of_lane[:limit]]
    return found


def due_now(tables: Tables, lease: Lease, listing_ids: Sequence[int], *, with_locations: bool) -> list[Due]:
    if not _is_holder(tables, lease):
        return []
    due = {state.listing_id: state for state in _due_states(tables, lease)}
    return [due_of(tables, due[listing], with_locations=with_locations) for listing in listing_ids if listing in due]


def _is_holder(tables: Tables, lease: Lease) -> bool:
    return tables.is_live(lease.store_id) and tables.leases[lease.store_id].epoch == lease.epoch


def _due_states(tables: Tables, lease: Lease) -> Iterator[State]:
    return (s for s in tables.states.values() if s.lane > 0 and s.store_id == lease.store_id)


def due_of(tables: Tables, state: State, *, with_locations: bool) -> Due:
    """A row of the view due_listing."""
    key, now = (state.tenant_id, state.listing_id), tables.now()
    submitted = None
    if state.handle is not None:
        assert state.handle_version is not None
        assert state.handle_quantity is not None
        assert state.handle_at is not None
        age = max(0.0, now - state.handle_at)
        submitted = Submitted(state.handle, state.handle_version, state.handle_quantity, age)
    observed_later = state.delivered_at is None or (
        state.observed_at is not None and state.observed_at > state.delivered_at
    )
    return Due(
        state.listing_id,
        state.lane,
        state.version_due,
        state.quantity_due,
        state.attempts,
        tables.listings[key].remote_variant,
        DueFor(state.due_for),
        state.quantity_delivered,
        state.quantity_observed if observed_later else state.quantity_delivered,
        state.quantity_floor,
        state.quantity_doubtful,
        None if state.doubtful_until is None else state.doubtful_until - now,
        submitted,
        _locations(tables, key) if with_locations else {},
    )


def _locations(tables: Tables, key: Key) -> dict[str, int]:
    """Nothing for a listing whose warehouses all have no location."""
    held = list(tables.contributions.get(key, {}).values())
    if all(one.location is None for one in held):
        return {}
    sums = dict.fromkeys(tables.former.get(key, ()), 0)
    for one in held:
        sums[one.location or ""] = sums.get(one.location or "", 0) + one.quantity
    return sums
