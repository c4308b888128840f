"""What became of a push, on its way from the sender to the recorder."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from lumbung.channels.base import CallRecord
from lumbung.dispatch.policy import ListingDecision
from lumbung.model import DueFor

Key = tuple[int, int, int]
"""tenant_id, listing_id, epoch: after a lease was lost and taken again, a listing may have a result of each."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send for a store. `doubt_until`: on this process's monotonic clock, calls of a lost holder may take
    effect until then. `lifetime_seconds`: after its last renewal. `in_trouble`: it is said so in the database."""

    store_id: int
    tenant_id: int
    epoch: int
    channel: str
    store_name: str
    doubt_until: float = 0.0
    lifetime_seconds: float = 15.0
    channel_app_id: int | None = None
    in_trouble: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one listing of a call.

    `version`, `quantity`: what it was about. `due_for`: what it was due for. `handle`: what it was asked about with.
    `doubt_unknown`: the calls that are in doubt did not all say the same, or nobody knows what they said. `calls`: 0
    when this only says later what an earlier result left open. `attempt`: which one of those since the last success.
    """

    listing_id: int
    version: int
    quantity: int
    outcome: str
    decision: ListingDecision
    message: str
    answer: str
    due_for: DueFor = DueFor.PUSH
    handle: str | None = None
    doubt_unknown: bool = False
    calls: int = 1
    attempt: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """One push of a store: its results, the HTTP calls that were made, a reason to pause the store, if any, and the
    listings that were parked though it was the store's fault."""

    tenant_id: int
    store_id: int
    epoch: int
    channel: str
    results: tuple[Result, ...]
    calls: tuple[CallRecord, ...]
    pause: str | None
    recorded: asyncio.Future[bool] = field(repr=False)
    unpark: tuple[int, ...] = ()
