"""One store's sender, run by the process that holds the store's lease.

It reads a window of due listings (the three lanes by their shares, from a cursor that goes round), groups them as the
channel's batch wants, and starts a call whenever pacing, breaker, the lease and the limits on calls in flight allow.
What is sent is the newest quantity at that moment: what was read too long ago is read again. A listing is busy from the
start of its call until the result is recorded, so it has at most one call in flight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from lumbung.channels.base import Attempt, CallRecord, Channel, InDoubt, Push, Row, Session
from lumbung.clock import Clock
from lumbung.db import delivery as db
from lumbung.db.delivery import Due
from lumbung.db.pool import Pool
from lumbung.dispatch.batching import WEIGHTS, LaneShares, group, share_lanes
from lumbung.dispatch.breaker import Breaker
from lumbung.dispatch.pacing import Pacer
from lumbung.dispatch.policy import (
    Decision,
    Defer,
    Delays,
    Fine,
    Pause,
    Retry,
    Situation,
    SlowDown,
    Trouble,
    Unclear,
    decide,
)
from lumbung.dispatch.recorder import Recorder, Report, Result
from lumbung.errors import LumbungError
from lumbung.settings import Settings

log = structlog.get_logger()

CONFIRM_SECONDS_MIN = 0.001


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send for a store. `doubt_until`: on this process's monotonic clock."""

    store_id: int
    tenant_id: int
    epoch: int
    channel: str
    store_name: str
    doubt_until: float


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What the store's channel, or its own settings, allow. Seconds."""

    calls_per_second: float
    call_timeout_seconds: float
    quiesce_seconds: float


@dataclass(frozen=True, slots=True)
class Engine:
    """What all senders of a process share. `permits`: calls at once, by channel code. `may_start(seconds)`: no lease
    can end during a call of that length; `look_after(seconds)`: have the worker look for waits that are over."""

    pool: Pool
    settings: Settings
    clock: Clock
    recorder: Recorder
    permits: Mapping[str, asyncio.Semaphore]
    dice: Callable[[], float]
    may_start: Callable[[float], bool]
    look_after: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class _Batch:
    listings: tuple[Due, ...]
    read_at: float


class StoreSender:
    def __init__(
        self, lease: Lease, channel: Channel, session: Session, pacer: Pacer, limits: StoreLimits, engine: Engine
    ):
        self.lease = lease
        self._channel = channel
        self._session = session
        self._pacer = pacer
        self._limits = limits
        self._engine = engine
        settings = engine.settings
        self._breaker = Breaker(
            settings.breaker_failures, settings.breaker_probe_seconds, settings.breaker_probe_seconds_max
        )
        self._shares = LaneShares()
        self._cursors = dict.fromkeys(WEIGHTS, 0)
        self._window: deque[_Batch] = deque()
        self._busy: set[int] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._woken = asyncio.Event()
        self._stopping = False
        self.waits_for_lease = False
        self._log = log.bind(tenant=lease.tenant_id, store=lease.store_id, channel=lease.channel)

    def wake(self) -> None:
        """Look again: something may be due."""
        self._woken.set()

    @property
    def busy(self) -> bool:
        """Whether a call is in flight or its result not yet recorded."""
        return bool(self._calls)

    def abandon(self) -> None:
        """The lease is lost: start nothing more and wait for nothing."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Send until stopped. Errors of the database are left to the next wake-up or poll."""
        while not self._stopping:
            self._woken.clear()
            try:
                wait_seconds = await self._step()
            except LumbungError as error:
                self._log.debug("due listings cannot be read", error=str(error))  # the worker tells once
                wait_seconds = self._engine.settings.poll_seconds
            if wait_seconds is None or wait_seconds > 0:
                await self._pause(wait_seconds)

    async def stop(self) -> None:
        """Start nothing more; wait until what is in flight has ended and is recorded."""
        self._stopping = True
        self._woken.set()
        while self._calls:
            await asyncio.wait(self._calls)

    async def _pause(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _step(self) -> float | None:
        """Start one call, or say how long there is nothing to do (None: until woken)."""
        now = self._engine.clock.monotonic()
        if self._in_flight >= self._channel.manifest.in_flight_max or not self._lease_lasts():
            return None
        ready_at = self._ready_at(now)
        if ready_at > now:
            await self._until(ready_at - now)
            return 0
        if not self._window and not await self._fill(now):
            return None  # nothing is due: that needs no permit
        permits = self._engine.permits[self.lease.channel]
        await permits.acquire()
        started = False
        try:
            started = await self._start_next()
        finally:
            if not started:
                permits.release()
        later = self._engine.clock.monotonic()
        return 0 if started or self._ready_at(later) > later else None

    def _lease_lasts(self) -> bool:
        """Whether the lease outlasts a call; if not, its renewal wakes us."""
        self.waits_for_lease = not self._engine.may_start(self._limits.call_timeout_seconds)
        return not self.waits_for_lease

    async def _start_next(self) -> bool:
        """Start a call with a permit in hand. Waiting for it may have taken long, so everything is looked at again."""
        if self._stopping or not self._lease_lasts():
            return False
        batch = await self._next_batch(self._engine.clock.monotonic())
        now = self._engine.clock.monotonic()
        if batch is None:
            return False
        if not self._may_go(now):
            self._window.appendleft(batch)
            return False
        self._pacer.take(now)
        self._start(batch, now)
        return True

    def _ready_at(self, now: float) -> float:
        return max(self._pacer.next_at(now), self._breaker.next_at(now) or now)

    async def _until(self, seconds: float) -> None:
        """Waiting for pacing is not shortened by wake-ups, only by a stop."""
        deadline = self._engine.clock.monotonic() + seconds
        while not self._stopping and (left := deadline - self._engine.clock.monotonic()) > 0:
            self._woken.clear()
            await self._pause(left)
        self._woken.set()

    async def _next_batch(self, now: float) -> _Batch | None:
        while True:
            if not self._window and not await self._fill(now):
                return None
            batch = self._window.popleft()
            if now - batch.read_at > self._engine.settings.window_fresh_ms / 1000:
                batch = await self._again(batch)
            if batch.listings:
                return batch

    async def _fill(self, now: float) -> bool:
        """Read a window; when the cursor is at the end, go round once."""
        for _ in range(2):
            went_round = any(self._cursors.values())
            due = await self._read_window()
            if due:
                listings = self._choose(due)
                batches = group(
                    listings,
                    key=lambda listing: self._channel.batch_key(listing.remote_variant),
                    batch_max=self._channel.manifest.batch_max,
                )
                self._window.extend(_Batch(tuple(batch), now) for batch in batches)
                return True
            self._cursors = dict.fromkeys(WEIGHTS, 0)
            if not went_round:
                break
        return False

    async def _read_window(self) -> list[Due]:
        async with self._engine.pool.connection() as connection:
            return await db.due_window(
                connection,
                tenant_id=self.lease.tenant_id,
                store_id=self.lease.store_id,
                cursors=self._cursors,
                busy=self._busy,
                limit=self._window_size(),
                with_locations=self._channel.manifest.location_aware,
            )

    def _window_size(self) -> int:
        """About one second's worth: a longer window would keep later zeros waiting behind it."""
        manifest = self._channel.manifest
        per_second = max(self._limits.calls_per_second, manifest.in_flight_max) * manifest.batch_max
        return max(1, min(self._engine.settings.window_listings_max, int(per_second)))

    def _choose(self, due: Sequence[Due]) -> list[Due]:
        """The lanes' shares of what was read, falling first; moves the cursors past what was chosen."""
        lanes = {lane: [listing for listing in due if listing.lane == lane] for lane in WEIGHTS}
        chosen = share_lanes(lanes, self._window_size(), self._shares)
        for lane, listings in lanes.items():
            taken = [listing.listing_id for listing in chosen if listing.lane == lane]
            if taken:
                self._cursors[lane] = taken[-1]
            elif not listings:
                self._cursors[lane] = 0
        return chosen

    async def _again(self, batch: _Batch) -> _Batch:
        async with self._engine.pool.connection() as connection:
            listings = await db.due_now(
                connection,
                tenant_id=self.lease.tenant_id,
                store_id=self.lease.store_id,
                listing_ids=[listing.listing_id for listing in batch.listings],
                with_locations=self._channel.manifest.location_aware,
            )
        return _Batch(tuple(listings), self._engine.clock.monotonic())

    def _may_go(self, now: float) -> bool:
        return not self._stopping and self._pacer.next_at(now) <= now and self._breaker.may_start(now)

    def _start(self, batch: _Batch, now: float) -> None:
        self._busy.update(listing.listing_id for listing in batch.listings)
        self._in_flight += 1
        task = asyncio.create_task(self._call(batch, now))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, batch: _Batch, started: float) -> None:
        try:
            attempt = await self._push(batch)
            report = self._judge(batch, attempt, started)
            self._engine.recorder.put(report)
            if not await report.recorded:
                self._log.info("results were dropped: another process sends for this store")
        finally:
            self._busy.difference_update(listing.listing_id for listing in batch.listings)
            self._woken.set()

    async def _push(self, batch: _Batch) -> Attempt:
        pushes = [
            Push(listing.listing_id, listing.remote_variant, listing.quantity, listing.locations)
            for listing in batch.listings
        ]
        try:
            return await self._session.push(pushes)
        except Exception:  # noqa: BLE001
            # A bug in a connector must not stop the store for ever: it is loud, and the listings back off.
            self._log.exception("the connector failed")
            return _unclear(batch, ())
        finally:
            self._engine.permits[self.lease.channel].release()
            self._in_flight -= 1
            self._woken.set()

    def _judge(self, batch: _Batch, attempt: Attempt, started: float) -> Report:
        try:
            return self._decide(batch, attempt, started)
        except Exception:  # noqa: BLE001
            # An answer that nothing is decided for, or one without a row for each listing: likewise a bug.
            self._log.exception("the connector's answer cannot be decided upon")
            return self._decide(batch, _unclear(batch, attempt.calls), started)

    def _decide(self, batch: _Batch, attempt: Attempt, started: float) -> Report:
        rows = {row.listing_id: row for row in attempt.rows}
        results: list[Result] = []
        pause: str | None = None
        for listing in batch.listings:
            row = rows[listing.listing_id]
            decision = decide(row.outcome, self._situation(listing, started), self._delays())
            pause = self._heed(decision) or pause
            results.append(
                Result(
                    listing.listing_id,
                    listing.version,
                    listing.quantity,
                    type(row.outcome).__name__,
                    decision.listing,
                    decision.message,
                    row.answer,
                )
            )
        recorded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lease = self.lease
        return Report(lease.tenant_id, lease.store_id, lease.epoch, tuple(results), attempt.calls, pause, recorded)

    def _heed(self, decision: Decision) -> str | None:
        """Do what a decision asks of the store; returns a reason to pause it."""
        now = self._engine.clock.monotonic()
        if isinstance(decision.listing, Retry | Defer):
            self._engine.look_after(decision.listing.after_seconds)
        match decision.store:
            case Fine():
                if self._breaker.succeeded(now):
                    self._log.info("the marketplace can be reached again")
            case Trouble():
                if self._breaker.failed(now):
                    self._log.warning("the marketplace cannot be reached", reason=decision.message)
            case Unclear():
                self._breaker.abandoned(now)
            case SlowDown(seconds=seconds):
                self._breaker.succeeded(now)
                self._pacer.slow_down(now + seconds)
            case Pause(reason=reason):
                self._log.error("the store is paused", reason=reason)
                self._stopping = True
                return reason
        return None

    def _situation(self, listing: Due, started: float) -> Situation:
        """Doubt counts from the start of the call: a lost call may have been applied while ours was under way."""
        doubt_until = self.lease.doubt_until
        if listing.doubtful_age_seconds is not None:
            age = max(0.0, listing.doubtful_age_seconds)
            doubt_until = max(doubt_until, started + self._limits.quiesce_seconds - age)
        left = max(doubt_until - self._engine.clock.monotonic(), CONFIRM_SECONDS_MIN)
        return Situation(listing.attempts, self._engine.dice(), left if doubt_until > started else 0.0)

    def _delays(self) -> Delays:
        settings = self._engine.settings
        return Delays(
            backoff_first_seconds=settings.backoff_first_seconds,
            backoff_max_seconds=settings.backoff_max_seconds,
            throttle_default_seconds=settings.throttle_default_seconds,
            throttle_seconds_max=settings.throttle_seconds_max,
            defer_default_seconds=settings.defer_default_seconds,
            defer_seconds_max=settings.defer_seconds_max,
        )


def _unclear(batch: _Batch, calls: tuple[CallRecord, ...]) -> Attempt:
    outcome = InDoubt("The connector failed: see the log")
    return Attempt(tuple(Row(listing.listing_id, outcome) for listing in batch.listings), calls)
