"""db/lease.sql, db/budget.sql and the store's tokens, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lumbung.db.budget import Grant
from lumbung.db.lease import ChannelTimes, LeaseRow, StoredTokens
from lumbung.dispatch.storage import Renewal
from tests.simulation.tables import Lease, Tables, Worker


def register(tables: Tables, name: str, lifetime_seconds: float) -> int:
    worker_id, now = len(tables.workers) + 1, tables.now()
    tables.workers[worker_id] = Worker(worker_id, name, now, now + lifetime_seconds, lifetime_seconds)
    return worker_id


def renew(tables: Tables, worker_id: int) -> Renewal | None:
    now = tables.now()
    worker = tables.workers[worker_id]
    if worker.stopping:
        return None
    worker.renewed_at, worker.expires_at = now, now + worker.lifetime_seconds
    live = sum(
        (not w.stopping and now < w.expires_at <= now + w.lifetime_seconds) or w is worker
        for w in tables.workers.values()
    )
    held = {lease.store_id: lease.epoch for lease in tables.leases.values() if lease.worker_id == worker_id}
    return Renewal(held, live)


def stop(tables: Tables, worker_id: int) -> None:
    worker = tables.workers[worker_id]
    worker.stopping, worker.expires_at = True, tables.now()


def claim(
    tables: Tables, worker_id: int, store_ids: Iterable[int], limit: int, channels: Mapping[str, ChannelTimes]
) -> list[LeaseRow]:
    wanted = set(store_ids)
    free = [
        (lease, channels[store.channel])
        for lease in sorted(tables.leases.values(), key=lambda lease: lease.store_id)
        if lease.store_id in wanted
        and (store := tables.stores[lease.store_id]).mode == "live"
        and store.channel in channels
        and _is_free(tables, lease)
    ]
    return [_take(tables, lease, worker_id, times) for lease, times in free[:limit]]


def _is_free(tables: Tables, lease: Lease) -> bool:
    if lease.worker_id is None:
        return True
    worker, now = tables.workers[lease.worker_id], tables.now()
    return (
        worker.stopping
        or worker.renewed_at + lease.lifetime_seconds < now
        or worker.renewed_at > now + lease.lifetime_seconds
    )


def _take(tables: Tables, lease: Lease, worker_id: int, times: ChannelTimes) -> LeaseRow:
    now = tables.now()
    quiesce = times.quiesce_seconds if lease.quiesce_seconds is None else lease.quiesce_seconds
    lease.doubt_until = doubt_until(tables, lease, now, quiesce)
    lease.worker_id, lease.epoch, lease.lifetime_seconds = worker_id, lease.epoch + 1, times.lifetime_seconds
    store = tables.stores[lease.store_id]
    return LeaseRow(
        store.id,
        store.tenant_id,
        lease.epoch,
        store.channel,
        store.name,
        store.credentials,
        max(0.0, (lease.doubt_until or now) - now),
        lease.lifetime_seconds,
        store.channel_app_id,
        store.tokens,
        lease.trouble is not None,
    )


def doubt_until(tables: Tables, lease: Lease, now: float, quiesce: float) -> float | None:
    """Until when calls of whoever held the lease before may take effect."""
    holder = tables.workers[lease.worker_id] if lease.worker_id is not None else None
    in_order = holder is None or holder.stopping
    known = None if lease.doubt_until is None else min(lease.doubt_until, now + quiesce + lease.lifetime_seconds)
    if in_order:
        return known
    return now + quiesce if known is None else max(known, now + quiesce)


def give_back(tables: Tables, worker_id: int, store_ids: Iterable[int], doubts: Mapping[int, float]) -> None:
    for store_id in store_ids:
        lease, seconds = tables.leases[store_id], doubts.get(store_id, 0.0)
        if lease.worker_id == worker_id:
            lease.worker_id = None
            if seconds > 0:
                lease.doubt_until = max(lease.doubt_until or 0.0, tables.now() + seconds)


def revoke(tables: Tables, store_id: int, quiesce_seconds: float) -> None:
    lease = tables.leases[store_id]
    lease.epoch += 1
    if lease.worker_id is not None:
        quiesce = max(quiesce_seconds, lease.quiesce_seconds or 0.0)
        until = tables.workers[lease.worker_id].renewed_at + lease.lifetime_seconds + quiesce
        lease.doubt_until = until if lease.doubt_until is None else max(until, lease.doubt_until)


def note_quiesce(tables: Tables, store_id: int, epoch: int, seconds: float) -> None:
    lease = tables.leases[store_id]
    if lease.epoch == epoch:
        lease.quiesce_seconds = seconds


def note_trouble(tables: Tables, store_id: int, epoch: int, trouble: str | None) -> None:
    lease = tables.leases[store_id]
    if lease.epoch == epoch:
        lease.trouble = trouble


def pause(tables: Tables, store_id: int, reason: str) -> None:
    store = tables.stores[store_id]
    store.mode, store.pause_reason = "paused", reason


def pause_held(tables: Tables, store_id: int, epoch: int, reason: str) -> bool:
    if tables.leases[store_id].epoch != epoch:
        return False
    pause(tables, store_id, reason)
    return True


def resume(tables: Tables, store_id: int) -> None:
    store = tables.stores[store_id]
    store.mode, store.pause_reason = "live", None


def reserve(tables: Tables, channel_app_id: int, calls: int, block_seconds_max: float) -> Grant:
    budgets, now = tables.budgets.get(channel_app_id, []), tables.now()
    if not budgets:
        return Grant(0, 0.0, limited=False)
    used = [max(0.0, b.calls_reserved - b.calls_per_second * max(0.0, now - b.refilled_at)) for b in budgets]
    blocked = max(
        b.blocked_until - now
        if b.blocked_until is not None and now < b.blocked_until <= now + block_seconds_max
        else 0.0
        for b in budgets
    )
    room = int(min(b.burst - u for b, u in zip(budgets, used, strict=True)) // 1)
    granted = 0 if blocked > 0 else max(0, min(calls, room))
    wait = max((u + 1 - b.burst) / b.calls_per_second for b, u in zip(budgets, used, strict=True))
    for budget, level in zip(budgets, used, strict=True):
        budget.calls_reserved, budget.refilled_at = level + granted, now
    return Grant(granted, max(blocked, wait, 0.0), limited=True)


def block(tables: Tables, channel_app_id: int, seconds: float, block_seconds_max: float) -> None:
    now = tables.now()
    for budget in tables.budgets.get(channel_app_id, []):
        before = budget.blocked_until or 0.0
        budget.blocked_until = max(now + seconds, before if before <= now + block_seconds_max else 0.0)


def swap_tokens(tables: Tables, store_id: int, old_digest: bytes | None, new: StoredTokens) -> bool:
    store = tables.stores[store_id]
    if store.tokens_digest != old_digest:
        return False
    store.tokens, store.tokens_digest = new.tokens, new.digest
    return True


def read_tokens(tables: Tables, store_id: int) -> tuple[bytes, bytes] | None:
    store = tables.stores[store_id]
    return None if store.tokens is None or store.tokens_digest is None else (store.tokens, store.tokens_digest)
