"""The shared vocabulary: what the words of the glossary are made of. No I/O, no decisions.

    partner --StockUpdate--> variant x warehouse --> StockLevel, Figure per channel
                                  |
                             listing x warehouse --> Contribution; their sum is what the listing is to show

Ids are integers below 2**53; quantities are whole units; times are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from uuid import UUID

DEFAULT_WAREHOUSE = "default"
QUANTITY_MAX = 2_147_483_647


# Upper limits of the buckets in which times from acceptance to delivery are counted; one more holds the rest.
LATENCY_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Lane(IntEnum):
    """The order in which due listings go. NONE: not due. The RETRY_ ones: they have waited after a
    failed attempt."""

    NONE = 0
    FALLING = 1
    RISING = 2
    REFRESH = 3
    RETRY_FALLING = 4
    RETRY_RISING = 5
    RETRY_REFRESH = 6


class DueFor(StrEnum):
    """`listing_state.due_for`: what a due listing is due for.

    PUSH: to be told its quantity. ASK: what became of what was submitted. CONFIRM: to be read back (or sent again)
    because a call was unclear. RECONCILE: to be read back, and corrected if it oversells. OBSERVE: to be read back.
    """

    PUSH = "push"
    ASK = "ask"
    CONFIRM = "confirm"
    RECONCILE = "reconcile"
    OBSERVE = "observe"


class ListingStatus(StrEnum):
    """`listing_state.state`; the same words stand in the schema's CHECK and in docs/explanation/delivery.md."""

    IDLE = "idle"
    DUE = "due"
    WAITING = "waiting"
    PARKED = "parked"


class WaitReason(StrEnum):
    """`listing_wait.reason`: why a listing waits for a time."""

    BACKOFF = "backoff"
    DEFERRED = "deferred"
    PARKED = "parked"
    SUBMITTED = "submitted"
    CONFIRMATION = "confirmation"
    FLOOR = "floor"


class StoreMode(StrEnum):
    """OBSERVE: nothing is written to the marketplace. PAUSED: waits for a person, the work is kept."""

    OBSERVE = "observe"
    LIVE = "live"
    PAUSED = "paused"


class UnknownSku(StrEnum):
    """What a tenant wants done with a SKU that its catalogue does not have."""

    REJECT = "reject"
    CREATE = "create"


class StockLimit(StrEnum):
    """How a tenant wants channel_stock compared with sellable: not at all, each qty, or their sum."""

    NONE = "none"
    EACH = "each"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class StockUpdate:
    """One valid request of a partner: absolute values for one SKU in one warehouse.

    `figures`: units per channel code, in the order of the request. `as_of`: when this was true at the merchant.
    """

    sku: str
    warehouse: str
    available: int
    buffer: int
    sync: bool
    figures: Mapping[str, int]
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A partner's Idempotency-Key with the SHA-256 of the body it came with."""

    key: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Submission:
    """A stock update with who sent it and the code that answers it."""

    tenant_id: int
    partner_id: str
    transaction_code: UUID
    update: StockUpdate
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True)
class StockLevel:
    """One variant in one warehouse, as the merchant last said it. `reserved`: units held for orders."""

    available: int
    buffer: int
    sync: bool
    reserved: int = 0
    newest_as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A number for one channel. `named`: by the merchant; otherwise switching sync off left it."""

    quantity: int
    named: bool


@dataclass(frozen=True, slots=True)
class Tenant:
    """A merchant and how it wants doubtful requests treated."""

    id: int
    name: str
    unknown_sku: UnknownSku = UnknownSku.REJECT
    channel_stock_limit: StockLimit = StockLimit.NONE


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One listing that an update concerned, with the names of the seed's answer."""

    id: int
    update_id: int
    store_id: int
    store_name: str
    warehouse_id: int
    warehouse_name: str
    variant_id: int
    sku: str
    remote_variant: str
    row_number: int
    channel: str
    quantity: int
    retries: int
    client_response: str
    message: str
    success: bool
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """One accepted request and what became of it."""

    id: int
    tenant_id: int
    user_id: int
    transaction_code: UUID
    action_name: str
    upload_file_url: str
    total_sku: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    items: tuple[HistoryItem, ...] = field(default=())


def purpose_of_store(store_id: int) -> str:
    """What a store's credentials are encrypted for: a ciphertext moved to another row does not open."""
    return f"store:{store_id}"


def purpose_of_application(application_id: int) -> str:
    """What the credentials of a channel's application are encrypted for."""
    return f"application:{application_id}"


def purpose_of_tokens(store_id: int) -> str:
    """What a store's token pair is encrypted for."""
    return f"tokens:{store_id}"


def purpose_of_partner(partner_id: str) -> str:
    """What a partner's secrets are encrypted for."""
    return f"partner:{partner_id}"
