"""Who is next: tenants take turns, then their stores. Pure.

A process makes a limited number of calls to a channel at once. Those who wait for a place stand in one queue a tenant;
whenever a place is free the next tenant is served, and of that tenant the store that has waited longest. So a tenant
with a thousand stores waits for its own stores, not the others for it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Those who wait, in the order in which they are to be served. `T` names who waits (a future, a store)."""

    def __init__(self) -> None:
        self._queues: OrderedDict[int, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def join(self, tenant_id: int, who: T) -> None:
        """Stand at the end of a tenant's queue; a tenant that had none comes after the others."""
        self._queues.setdefault(tenant_id, deque()).append(who)
        self._count += 1

    def leave(self, tenant_id: int, who: T) -> None:
        """Wait no longer. Nothing happens when it does not wait."""
        queue = self._queues.get(tenant_id)
        if queue is None or who not in queue:
            return
        queue.remove(who)
        self._count -= 1
        if not queue:
            del self._queues[tenant_id]

    def next(self) -> T | None:
        """Whose turn it is; None when nobody waits."""
        if not self._queues:
            return None
        tenant_id, queue = self._queues.popitem(last=False)
        who = queue.popleft()
        self._count -= 1
        if queue:
            self._queues[tenant_id] = queue
        return who
