"""The tables of the database, as rows in memory, with the CHECKs of the schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from lumbung.model import Figure, StockLevel

Key = tuple[int, int]
"""tenant_id, listing_id"""

LANE_MAX = 6


@dataclass(slots=True)
class Store:
    id: int
    tenant_id: int
    channel: str
    name: str
    credentials: bytes = b""
    mode: str = "live"
    pause_reason: str | None = None
    tokens: bytes | None = None
    tokens_digest: bytes | None = None
    channel_app_id: int | None = None
    serving: dict[int, str | None] = field(default_factory=lambda: {0: None})


@dataclass(slots=True)
class Listing:
    tenant_id: int
    id: int
    variant_id: int
    store_id: int
    remote_variant: str


@dataclass(slots=True)
class State:
    """listing_state. Times are seconds of the database's clock."""

    tenant_id: int
    listing_id: int
    store_id: int
    lane: int
    version_due: int
    quantity_due: int
    due_since: float | None
    state: str = "due"
    due_for: str = "push"
    version_delivered: int = 0
    version_settled: int = 0
    quantity_delivered: int | None = None
    delivered_at: float | None = None
    quantity_observed: int | None = None
    observed_at: float | None = None
    quantity_doubtful: int | None = None
    doubtful_until: float | None = None
    quantity_floor: int | None = None
    calls: int = 0
    attempts: int = 0
    failing_since: float | None = None
    last_outcome: str | None = None
    last_message: str | None = None
    park_reason: str | None = None
    parked_at: float | None = None
    park_retry_at: float | None = None
    handle: str | None = None
    handle_version: int | None = None
    handle_quantity: int | None = None
    handle_at: float | None = None

    def check(self) -> None:
        assert (self.state == "due") == (self.lane > 0), self
        assert 0 <= self.lane <= LANE_MAX, self
        assert (self.state == "parked") == (self.park_reason is not None), self
        assert self.version_delivered <= self.version_settled <= self.version_due, self
        assert self.due_for != "ask" or self.handle is not None, self


@dataclass(slots=True)
class Wait:
    store_id: int
    reason: str
    due_at: float


@dataclass(slots=True)
class Contribution:
    quantity: int
    location: str | None
    version: int
    item_id: int | None
    item_created_at: datetime | None
    calls_before: int


@dataclass(slots=True)
class Item:
    id: int
    update_id: int
    tenant_id: int
    listing_id: int | None
    store_id: int
    quantity: int
    created_at: datetime
    success: bool | None = None
    message: str | None = None
    retries: int = 0


@dataclass(slots=True)
class Update:
    id: int
    tenant_id: int
    code: str
    created_at: datetime
    items: int
    items_open: int


@dataclass(slots=True)
class Worker:
    id: int
    name: str
    renewed_at: float
    expires_at: float
    lifetime_seconds: float
    stopping: bool = False


@dataclass(slots=True)
class Lease:
    store_id: int
    tenant_id: int
    worker_id: int | None = None
    epoch: int = 0
    doubt_until: float | None = None
    lifetime_seconds: float = 15.0
    quiesce_seconds: float | None = None
    trouble: str | None = None


@dataclass(slots=True)
class Budget:
    calls_per_second: float
    burst: int
    refilled_at: float
    calls_reserved: float = 0.0
    blocked_until: float | None = None


@dataclass(slots=True)
class Tables:
    """`clock`: the database's, in seconds since 1970. `former`: by listing, locations where it was shown; there it is
    to show nothing any more (of a listing, not of a place as in PostgreSQL: nothing is remapped here)."""

    clock: Callable[[], float]
    former: dict[Key, set[str]] = field(default_factory=dict)
    stores: dict[int, Store] = field(default_factory=dict)
    variants: dict[tuple[int, str], int] = field(default_factory=dict)
    listings: dict[Key, Listing] = field(default_factory=dict)
    levels: dict[Key, dict[int, StockLevel]] = field(default_factory=dict)
    figures: dict[Key, dict[int, dict[str, Figure]]] = field(default_factory=dict)
    contributions: dict[Key, dict[int, Contribution]] = field(default_factory=dict)
    states: dict[Key, State] = field(default_factory=dict)
    waits: dict[Key, Wait] = field(default_factory=dict)
    updates: dict[int, Update] = field(default_factory=dict)
    items: dict[int, Item] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    budgets: dict[int, list[Budget]] = field(default_factory=dict)
    version: int = 0
    item: int = 0

    def now(self) -> float:
        return self.clock()

    def is_live(self, store_id: int) -> bool:
        return self.stores[store_id].mode == "live"
