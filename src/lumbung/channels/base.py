"""What a channel is: a manifest, a way to read credentials and listings' ids, and one method that pushes.

A connector says **what happened** (an `Outcome` per listing); `dispatch/policy.py` says what it means.
It never retries, never sleeps, never reads a clock of its own and keeps no state between calls: pacing,
backoff, breaker and tokens belong to the worker that holds the store's lease.

    worker --Push x n--> Session.push --HTTP--> marketplace
    worker <--Attempt--- Session.push <-------- answer

Some marketplaces can do more. A session that also has `ask` (SubmitsWork), `read` (ReadsBack) or `refresh` and `use`
(RotatesTokens) is asked to; one that has not never answers Submitted, or a refreshable Unauthorized. Where a merchant
has to agree in a browser first, `authorization_url` and `authorize` (Authorizes) get the first pair of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from lumbung.channels.http import HttpClient
from lumbung.clock import Clock

# --- What the marketplace said: a closed union. Times are seconds from the answer, never wall-clock times. ---


class Scope(StrEnum):
    """How far an outcome reaches."""

    LISTING = "listing"
    STORE = "store"
    APPLICATION = "application"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The marketplace has the quantity."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """Taken, but applied later (feeds, asynchronous bulk). Ask again with `handle`."""

    handle: str
    check_after_seconds: float


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too fast, or a quota is used up; surely not applied. None: the marketplace did not say for how long."""

    retry_after_seconds: float | None
    scope: Scope = Scope.STORE
    message: str = "The marketplace asks to slow down"


@dataclass(frozen=True, slots=True)
class Unavailable:
    """**Surely not applied**: refused, DNS, TLS, no byte sent, or documented as a refusal."""

    message: str


@dataclass(frozen=True, slots=True)
class InDoubt:
    """Anything else that is unclear: it may or may not have been applied, now or later."""

    message: str


@dataclass(frozen=True, slots=True)
class Unauthorized:
    """The access token (or the login) is not accepted. `refreshable`: a refresh may mend it."""

    message: str
    refreshable: bool


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """Warehouse, scope or permission is wrong: a person must mend it."""

    message: str
    scope: Literal[Scope.LISTING, Scope.STORE] = Scope.LISTING


@dataclass(frozen=True, slots=True)
class Rejected:
    """Unknown item, banned, malformed: the same push would be rejected again."""

    message: str


@dataclass(frozen=True, slots=True)
class Floor:
    """Below what the marketplace has reserved; `minimum` units are the least it takes."""

    minimum: int
    message: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """Locked by a campaign, promotion or holiday. None: the marketplace did not say until when."""

    retry_after_seconds: float | None
    message: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """A compare-and-set found another quantity than was expected."""

    observed: int | None


Outcome = (
    Accepted
    | Submitted
    | Throttled
    | Unavailable
    | InDoubt
    | Unauthorized
    | Misconfigured
    | Rejected
    | Floor
    | Deferred
    | Conflict
)


# --- What is asked of a channel ---


@dataclass(frozen=True, slots=True)
class Push:
    """One listing to show `quantity` units (>= 0).

    `remote_variant`: the JSON text of the listing's ids. `locations`: units per location for channels
    that know locations (`Manifest.location_aware`), empty for all others and where no warehouse has one; "" stands for
    warehouses that have none beside others that have one (refuse it). locations.py makes the two agree. `expected`:
    what the marketplace is believed to show now, for channels that compare and set; None when that is not known.
    """

    listing_id: int
    remote_variant: str
    quantity: int
    locations: Mapping[str, int] = field(default_factory=dict)
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one listing of a call; `answer` is its part of the marketplace's answer, JSON text or ""."""

    listing_id: int
    outcome: Outcome
    answer: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One HTTP call as it is kept for people to read. No secret is in it. `status` 0: no answer came."""

    method: str
    url: str
    request: str
    status: int
    response: str
    started_at: datetime
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """Exactly one row for every listing that was pushed, and the calls that were made for them.

    `as_a_whole`: the marketplace answered for the call, not for its listings, so that one of them may be to blame for
    all: a call of several is then cut in halves until the one is found.
    """

    rows: tuple[Row, ...]
    calls: tuple[CallRecord, ...]
    as_a_whole: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What the marketplace shows for a listing."""

    quantity: int


@dataclass(frozen=True, slots=True)
class ReadRow:
    """What reading one listing back gave: its quantity, or why it could not be read."""

    listing_id: int
    seen: Observed | Outcome


@dataclass(frozen=True, slots=True)
class Reading:
    """Exactly one row for every listing that was to be read, and the calls that were made for them."""

    rows: tuple[ReadRow, ...]
    calls: tuple[CallRecord, ...]


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair of tokens. `more`: what else the channel needs to keep with it. Times are UTC."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None = None
    more: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The new pair, or why there is none: Unauthorized: the refresh token is dead; InDoubt: it may be used up."""

    result: Tokens | Throttled | Unavailable | InDoubt | Unauthorized
    calls: tuple[CallRecord, ...]


# --- What a channel says of itself ---


@dataclass(frozen=True, slots=True)
class CredentialField:
    """One entry of a credentials file. `secret` ones are never shown or logged. `application`: it stands in the file of
    the application (app key) that many stores share, and not in a store's own; `identifies`: it says which one that is,
    so that what merchants have agreed to is good for no other."""

    name: str
    help: str
    secret: bool = False
    required: bool = True
    application: bool = False
    identifies: bool = False


@dataclass(frozen=True, slots=True)
class Pacing:
    """The marketplace's published limit, or a careful guess where none is published (a setting per store)."""

    calls_per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`batch_max` listings a call, grouped by `Channel.batch_key` (`batch_of` says it in words); `in_flight_max` calls
    of a store at once; `read_max` listings of one `Channel.read_key` that one call reads back, where the channel can
    (`reads_back`: its sessions are ReadsBack).

    `application_pacing`: the limit of all stores of an application together, on channels that have applications (some
    of the `credentials` are the application's). `authorizes`: a merchant must agree before a store can be written to,
    and its tokens rotate (sessions are Authorizes and RotatesTokens).

    `quantity_means`: `sellable` where the marketplace subtracts its own open orders before it shows a number,
    `on_hand` where it wants what is on the shelf. `quiesce_seconds`: after this long an unanswered call can
    no longer take effect (an assumption, documented per channel).
    """

    code: str
    name: str
    hosts: tuple[str, ...]
    batch_max: int
    in_flight_max: int
    pacing: Pacing
    credentials: tuple[CredentialField, ...]
    call_timeout_seconds: float
    quiesce_seconds: float
    read_max: int = 1
    reads_back: bool = False
    quantity_means: Literal["sellable", "on_hand"] = "sellable"
    location_aware: bool = False
    closed: bool = False
    batch_of: str = "one listing"
    application_pacing: Pacing | None = None
    authorizes: bool = False

    @property
    def has_applications(self) -> bool:
        return any(entry.application for entry in self.credentials)


class Session(Protocol):
    """A channel bound to one store's credentials."""

    async def push(self, pushes: Sequence[Push]) -> Attempt:
        """Make each listing show its quantity, with at most `batch_max` listings of one `batch_key`.

        Never raises for anything that the marketplace or the network does.
        """
        ...

    async def check(self) -> Outcome:
        """One harmless call that tells whether the store can be reached with these credentials."""
        ...


@runtime_checkable
class SubmitsWork(Protocol):
    """A session of a marketplace that takes work and applies it later."""

    async def ask(self, handle: str, pushes: Sequence[Push]) -> Attempt:
        """What became of the listings that were submitted under `handle`, with the quantities that were submitted.

        Submitted again: not ready yet. Unavailable: could not be asked now. InDoubt: the marketplace no longer knows
        the handle, or cannot tell. Anything else is what became of the listing.
        """
        ...


@runtime_checkable
class ReadsBack(Protocol):
    """A session of a marketplace that tells what it shows."""

    async def read(self, pushes: Sequence[Push]) -> Reading:
        """The quantity shown for each of at most `read_max` listings. Unavailable where it could not be read now,
        Rejected where it cannot be read at all. Never raises for anything that the marketplace or the network does."""
        ...


@runtime_checkable
class RotatesTokens(Protocol):
    """A session whose access token expires and is renewed with a refresh token, which may work only once."""

    def use(self, tokens: Tokens) -> None:
        """Make every later call with this pair."""
        ...

    async def refresh(self, tokens: Tokens) -> Refreshed:
        """Trade the pair for a new one. Never raises for anything that the marketplace or the network does."""
        ...


@runtime_checkable
class Authorizes(Protocol):
    """A session of a marketplace whose merchants agree in a browser, and are then sent back with a code."""

    def authorization_url(self, redirect: str) -> str:
        """Where the merchant agrees. `redirect` is where the marketplace sends the browser afterwards."""
        ...

    async def authorize(self, redirected: str) -> Refreshed:
        """Trade the code for the first pair of tokens. `redirected`: the whole address that the browser was sent to, or
        the code alone. Raises BadRequest, saying what is wrong, when it holds no code or is another store's. Never
        raises for anything that the marketplace or the network does."""
        ...


class Channel(Protocol):
    manifest: Manifest

    def open(self, credentials: Mapping[str, str], http: HttpClient, clock: Clock) -> Session:
        """Bind to a store, with its own credentials and its application's in one mapping. Raises ConfigurationError,
        naming the field, when they cannot be right."""
        ...

    def account(self, credentials: Mapping[str, str]) -> str:
        """The marketplace's own name of the store that valid credentials are for."""
        ...

    def remote_variant(self, text: str) -> str:
        """The canonical JSON text of a listing's ids, from JSON text or from the plain id that people paste.

        Raises BadRequest with what is expected.
        """
        ...

    def batch_key(self, remote_variant: str) -> str:
        """Listings with the same key may share a call. For Shopee the item, which they are the variations of; "" where
        any may. When a marketplace rejects many things in a row it is the store's fault: those of one key are one."""
        ...

    def read_key(self, remote_variant: str) -> str:
        """Listings with the same key may be read back by one call."""
        ...
