"""What the delivery half asks of the database: each method is one transaction.

`PostgresStorage` (postgres.py) is the one that there is. The simulation of the tests has another, in memory, which is
compared with this one operation by operation (tests/simulation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lumbung.db.budget import Grant
from lumbung.db.delivery import Due, Ended, Work
from lumbung.db.lease import NO_DOUBTS, LeaseRow, StoredTokens
from lumbung.db.wake import Hints
from lumbung.dispatch.report import Key, Lease, Report


@dataclass(frozen=True, slots=True)
class Renewal:
    """The stores that a worker holds, with their epochs, and how many workers are live, this one among them."""

    held: Mapping[int, int]
    live: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """The results that counted, the items that ended by them, and the transactions that wait for the others, by
    (tenant_id, listing_id)."""

    written: frozenset[Key] | set[Key]
    ended: Sequence[Ended] = ()
    waiting: Mapping[tuple[int, int], Sequence[str]] = field(default_factory=dict)


class Storage(Protocol):
    """Every method raises Unavailable while the database is away; LockBusy when somebody holds the lock of a row."""

    # --- this process ---

    async def register(self, name: str, lifetime_seconds: float) -> int: ...

    async def renew(self, worker_id: int) -> Renewal | None:
        """None: the worker is not registered (any more)."""
        ...

    async def stop(self, worker_id: int) -> None: ...

    # --- stores ---

    async def look(self, working: Iterable[int]) -> list[Work]:
        """Live stores with something due or a wait that is over, and those of `working`, which have something due as
        far as the caller knows."""
        ...

    async def claim(self, worker_id: int, store_ids: Iterable[int], limit: int) -> list[LeaseRow]: ...

    async def give_back(
        self, worker_id: int, store_ids: Iterable[int], doubts: Mapping[int, float] = NO_DOUBTS
    ) -> None:
        """`doubts`: by store, for how many seconds calls of ours may still take effect that ended unclear."""
        ...

    async def note_quiesce(self, lease: Lease, seconds: float) -> None: ...

    async def note_trouble(self, lease: Lease, trouble: str | None) -> None: ...

    async def pause(self, lease: Lease, reason: str) -> bool:
        """False when the lease has another epoch by now: whoever changed it knows better."""
        ...

    # --- listings ---

    async def release_waits(self, store_ids: Iterable[int]) -> Hints:
        """Make due what has waited long enough in these stores; returns what is due by it."""
        ...

    async def due_window(
        self, lease: Lease, *, cursors: Mapping[int, int], busy: Iterable[int], limit: int, with_locations: bool
    ) -> list[Due]: ...

    async def due_now(self, lease: Lease, listing_ids: Sequence[int], *, with_locations: bool) -> list[Due]: ...

    async def record(self, reports: Sequence[Report]) -> Recorded:
        """Write results under the epochs in which they were made, once, also when a COMMIT is not answered."""
        ...

    # --- what stores share, and their tokens ---

    async def reserve(self, channel_app_id: int, calls: int) -> Grant: ...

    async def block(self, channel_app_id: int, seconds: float) -> None: ...

    async def swap_tokens(self, lease: Lease, old_digest: bytes | None, new: StoredTokens) -> bool: ...

    async def read_tokens(self, lease: Lease) -> tuple[bytes, bytes] | None: ...
