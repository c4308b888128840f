"""One store's sender, run by the process that holds the store's lease.

It takes batches from its window and starts a call whenever pacing, the application's budget, the breaker, the lease and
the limits on calls in flight allow. What is sent is the newest quantity at that moment. What a call gave is judged
(judge.py), written down (recorder.py), and done to pacing, breaker and token pair here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from lumbung.channels.base import (
    CallRecord,
    Channel,
    InDoubt,
    Push,
    ReadsBack,
    Rejected,
    Session,
    SubmitsWork,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.db.delivery import Due
from lumbung.dispatch.backoff import backoff_seconds
from lumbung.dispatch.batching import Bisection, Locks
from lumbung.dispatch.breaker import Breaker
from lumbung.dispatch.engine import Engine, StoreLimits, delays_of
from lumbung.dispatch.judge import Exchanged, Judge, Moment, Told, Verdict, sent_quantity
from lumbung.dispatch.pacing import Pacer
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Defer,
    Fine,
    Pause,
    Refresh,
    Retry,
    Settle,
    SlowDown,
    Stay,
    Submit,
    Trouble,
    Unclear,
)
from lumbung.dispatch.report import Lease, Report, Result
from lumbung.dispatch.tokens import Refusal, TokenKeeper
from lumbung.dispatch.window import Batch, Task, Window, WindowSizes
from lumbung.errors import LumbungError
from lumbung.model import Lane

log = structlog.get_logger()

STAYS_DUE = Stay | Again | Correct | Settle
"""What may leave a listing due with nobody to say so. A newer version is hinted by who accepted it."""

T = TypeVar("T")


class StoreSender:
    def __init__(
        self,
        lease: Lease,
        channel: Channel,
        session: Session,
        limits: StoreLimits,
        engine: Engine,
        tokens: TokenKeeper | None = None,
    ):
        self.lease = lease
        self._channel = channel
        self._session = session
        self._limits = limits
        self._engine = engine
        self._tokens = tokens
        settings = engine.settings
        self._pacer = Pacer(limits.calls_per_second, limits.burst, now=engine.clock.monotonic())
        self._breaker = Breaker(
            settings.breaker_failures, settings.breaker_probe_seconds, settings.breaker_probe_seconds_max
        )
        bisection, locks = Bisection(), Locks()
        self._window = Window(
            lease,
            channel,
            engine.storage,
            engine.clock,
            WindowSizes(
                settings.window_listings_max,
                limits.calls_per_second,
                settings.window_fresh_ms / 1000,
                settings.window_untold_ms / 1000,
                settings.hinted_listings_max,
            ),
            bisection,
            locks,
            engine.rest,
            reads_back=isinstance(session, ReadsBack),
        )
        self._judge = Judge(
            lease,
            delays_of(settings),
            quiesce_seconds=limits.quiesce_seconds,
            doubt_seconds_max=settings.doubt_seconds_max,
            storm_rejections=settings.storm_rejections,
            bisection=bisection,
            locks=locks,
            dice=engine.dice,
            thing_of=lambda listing: channel.batch_key(listing.remote_variant) or listing.listing_id,
        )
        self._held: set[int] = set()  # busy until a later verdict tells what their rejection means
        self._calls: dict[asyncio.Task[Any], None] = {}  # a dict: tasks in the order in which they began
        self._in_flight = 0
        self._in_trouble = lease.in_trouble
        self._budget_at = 0.0  # the application has no call left before
        self._woken = asyncio.Event()
        self._stopping = False
        self.waits_for_lease = False
        self.idle_since: float | None = None
        self._log = log.bind(tenant=lease.tenant_id, store=lease.store_id, channel=lease.channel)

    def wake(self) -> None:
        """Look again: something may be due."""
        self._window.look()
        self._woken.set()

    def hint(self, listings: Mapping[int, int]) -> None:
        """These may be due, in these lanes."""
        self._window.hint(listings)
        self._woken.set()

    @property
    def busy(self) -> bool:
        """Whether a call is in flight or its result not yet recorded."""
        return bool(self._calls)

    @property
    def has_work(self) -> bool:
        """Whether something is due, so far as is known without asking the database: called for, read or named."""
        return bool(self._calls) or bool(self._window) or self._window.has_hints

    @property
    def quiesce_seconds(self) -> float:
        return self._limits.quiesce_seconds

    @property
    def doubt_seconds(self) -> float:
        """For how long calls that ended unclear may still take effect: whoever is next must know."""
        return self._judge.doubt_seconds(self._engine.clock.monotonic())

    @property
    def breaker_is_open(self) -> bool:
        return self._breaker.is_open

    @property
    def is_trading(self) -> bool:
        """Whether a token pair is being traded at this moment."""
        return self._tokens is not None and self._tokens.is_trading

    async def trades_settled(self) -> None:
        """Returns once no token pair is being traded. Only then may somebody else open the store: it would trade the
        same refresh token a second time, and be told that it is dead."""
        if self._tokens is not None:
            await self._tokens.settled()

    def abandon(self) -> None:
        """The lease is lost: start nothing more and wait for nothing."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Send until stopped. Errors of the database are left to the next wake-up or poll; after a bug it tries again
        ever more rarely: a sender that ended would be begun anew at once."""
        bugs = 0
        while not self._stopping:
            self._woken.clear()
            try:
                wait_seconds = await self._step()
                bugs = 0
            except LumbungError as error:
                self._log.debug("due listings cannot be read", error=str(error))  # the worker tells once
                wait_seconds = self._engine.settings.poll_seconds
            except Exception:  # noqa: BLE001
                self._log.exception("a sender failed")
                bugs += 1
                await self._until(self._after_bugs(bugs))
                continue
            if wait_seconds is None or wait_seconds > 0:
                await self._pause(wait_seconds)

    def _after_bugs(self, bugs: int) -> float:
        settings = self._engine.settings
        return backoff_seconds(
            bugs,
            dice=1.0,
            first_seconds=settings.breaker_probe_seconds,
            max_seconds=settings.breaker_probe_seconds_max,
        )

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
        if not self._window and not await self._window.fill():
            if (seconds := self._window.scan_after(self._engine.clock.monotonic())) is not None:
                return seconds
            self._nothing_due(now)
            if self._tokens is not None and self._tokens.would_die and await self._may_call_now():
                await asyncio.shield(self._start_task(self._keep_alive(self._tokens)))
            return None  # that needs no permit
        self.idle_since = None
        permits = self._engine.permits[self.lease.channel]
        await permits.acquire(self.lease.tenant_id)
        started = False
        try:
            started = await self._start_next()
        finally:
            if not started:
                permits.release()
        later = self._engine.clock.monotonic()
        if started or self._ready_at(later) > later:
            return 0
        return None if self._window else self._window.scan_after(later)

    def _nothing_due(self, now: float) -> None:
        """Rejections that were held for a verdict get theirs; a store without work may be given back one day."""
        if self._calls:
            return
        verdict = self._judge.nothing_else()
        if verdict.results:
            self._start_task(self._tell(verdict))
        elif self.idle_since is None:
            self.idle_since = now

    async def _may_call_now(self) -> bool:
        """Within the application's limit: stores that were authorised on one day grow old on one day. Never the probe
        of an open breaker: that is for a push, whose answer closes it."""
        now = self._engine.clock.monotonic()
        if self._stopping or self._breaker.is_open or self._pacer.next_at(now) > now:
            return False  # the next look comes in time: there are days
        if await self._engine.budgets.take(self.lease.channel_app_id) > 0:
            return False
        self._pacer.take(now)
        return True

    async def _keep_alive(self, tokens: TokenKeeper) -> None:
        """A store that sells nothing for a month must not lose its authorisation. Ends whatever becomes of the sender,
        as each refresh does."""
        refusal = await tokens.before_call()
        if isinstance(refusal, Unavailable):
            self._log.warning("the token pair of an idle store cannot be renewed now", reason=refusal.message)
        await self._record(Verdict(()), tokens.take_calls(), None)
        if isinstance(refusal, Unauthorized):
            self._log.error("the store is paused", reason=refusal.message)
            self._stopping = True
            await self._engine.storage.pause(self.lease, refusal.message)

    def _lease_lasts(self) -> bool:
        """Whether the lease outlasts a call; if not, its renewal wakes us."""
        engine = self._engine
        lasts = engine.lease_clock.may_start(
            engine.clock.monotonic(), self._limits.call_timeout_seconds, self.lease.lifetime_seconds
        )
        self.waits_for_lease = not lasts or engine.recorder.is_behind(self.lease.store_id)
        return not self.waits_for_lease

    async def _start_next(self) -> bool:
        """Start a call with a permit in hand. Waiting for it may have taken long, so everything is looked at again."""
        if self._stopping or not self._lease_lasts():
            return False
        refusal = await self._fresh_tokens()
        batch = await self._window.next()
        if batch is None:
            return False
        # Last: what is reserved of a budget is good for a moment only.
        wait_seconds = await self._engine.budgets.take(self.lease.channel_app_id)
        now = self._engine.clock.monotonic()
        self._budget_at = now + wait_seconds
        if wait_seconds > 0 or not self._lease_lasts() or not self._may_go(now):
            self._window.put_back(batch)
            return False
        self._pacer.take(now)
        self._window.busy.update(listing.listing_id for listing in batch.listings)
        self._in_flight += 1
        self._start_task(self._call(batch, now, refusal))
        return True

    async def _fresh_tokens(self) -> Refusal | None:
        """Before the lease and pacing are looked at, because a refresh may take as long as a call. Like a call it ends,
        and is waited for, whatever becomes of the sender: a new pair that is dropped loses the store."""
        if self._tokens is None or not self._tokens.wants_refresh:
            return None
        return await asyncio.shield(self._start_task(self._tokens.before_call()))

    def _ready_at(self, now: float) -> float:
        return max(self._pacer.next_at(now), self._breaker.next_at(now) or now, self._budget_at)

    async def _until(self, seconds: float) -> None:
        """Waiting for pacing is not shortened by wake-ups, only by a stop."""
        deadline = self._engine.clock.monotonic() + seconds
        while not self._stopping and (left := deadline - self._engine.clock.monotonic()) > 0:
            self._woken.clear()
            await self._pause(left)
        self._woken.set()

    def _may_go(self, now: float) -> bool:
        return not self._stopping and self._pacer.next_at(now) <= now and self._breaker.may_start(now)

    def _start_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._calls[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.pop(task, None)
        if not self._calls:
            self._woken.set()  # nothing in flight any more: it may be idle

    # --- a call ---

    async def _call(self, batch: Batch, started: float, refusal: Refusal | None) -> None:
        """`refusal`: answers the call in its stead."""
        ids = {listing.listing_id for listing in batch.listings}
        held: set[int] = set()
        settled: set[int] = set()
        try:
            exchanged, used = await self._exchange(batch, refusal)
            try:
                verdict = self._judged(batch, exchanged, started)
                # Now: a later verdict may release them before this one is recorded, and frees them when it is itself.
                held = {listing_id for listing_id in ids if self._judge.holds(listing_id)}
                self._held |= held
                pause = await self._heed(verdict, used)
            except Exception:  # noqa: BLE001
                # A bug of ours. The call was made all the same: it is written down, and its listings wait.
                self._log.exception("a sender failed")
                verdict, held, pause = self._undecided(batch), set(), None
                self._breaker.abandoned(self._engine.clock.monotonic())
            calls = (*exchanged.calls, *(self._tokens.take_calls() if self._tokens else ()))
            await self._record(verdict, calls, pause)
            settled = {result.listing_id for result in verdict.results if not isinstance(result.decision, STAYS_DUE)}
        finally:
            self._window.busy.difference_update(ids - held)
            open_still = ids - held - settled
            self.hint({one.listing_id: one.lane for one in batch.listings if one.listing_id in open_still})

    async def _tell(self, verdict: Verdict) -> None:
        """Write what is decided without a call."""
        await self._record(verdict, (), None)

    async def _record(self, verdict: Verdict, calls: tuple[CallRecord, ...], pause: str | None) -> None:
        recorded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        lease = self.lease
        report = Report(
            lease.tenant_id,
            lease.store_id,
            lease.epoch,
            lease.channel,
            verdict.results,
            calls,
            pause,
            recorded,
            verdict.unpark,
        )
        for result in verdict.results:
            if isinstance(result.decision, Retry | Defer | Submit | AwaitFloor):
                self._engine.look_after(result.decision.after_seconds)
        self._engine.recorder.put(report)
        ours = await recorded
        self._window.busy.difference_update(verdict.released)
        self._held.difference_update(verdict.released)
        self.hint(dict.fromkeys((*verdict.released, *verdict.unpark), int(Lane.REFRESH)))
        if not ours:
            self._log.info("results were dropped: another process sends for this store")

    async def _exchange(self, batch: Batch, refusal: Refusal | None) -> tuple[Exchanged, Tokens | None]:
        """What the call gave, and the token pair that it was made with."""
        used = self._tokens.tokens if self._tokens else None
        in_flight = self._engine.metrics.in_flight.labels(self.lease.channel)
        in_flight.inc()
        try:
            if refusal is not None:
                return Exchanged.all_alike(batch, refusal), used
            return await self._ask_marketplace(batch), used
        except Exception:  # noqa: BLE001
            # A bug in a connector must not stop the store for ever: it is loud, and the listings back off.
            self._log.exception("the connector failed")
            return Exchanged.all_alike(batch, _BROKEN, as_a_whole=True), used
        finally:
            in_flight.dec()
            self._engine.permits[self.lease.channel].release()
            self._in_flight -= 1
            self._woken.set()

    async def _ask_marketplace(self, batch: Batch) -> Exchanged:
        pushes = [_push_of(batch.task, listing) for listing in batch.listings]
        match batch.task:
            case Task.PUSH:
                return Exchanged.of(await self._session.push(pushes))
            case Task.ASK if isinstance(self._session, SubmitsWork):
                return Exchanged.of(await self._session.ask(batch.handle, pushes))
            case Task.READ if isinstance(self._session, ReadsBack):
                return Exchanged.of(await self._session.read(pushes))
            case Task.READ:
                return Exchanged.all_alike(batch, Rejected("This marketplace cannot be read back"))
            case _:
                return Exchanged.all_alike(batch, InDoubt("The marketplace does not say what became of it"))

    def _judged(self, batch: Batch, exchanged: Exchanged, started: float) -> Verdict:
        moment = Moment(started, self._engine.clock.monotonic())
        try:
            return self._judge.judge(batch, exchanged, moment)
        except Exception:  # noqa: BLE001
            # An answer without a row for each listing, or one that makes no sense: likewise a bug.
            self._log.exception("the connector's answer cannot be decided upon")
            return self._judge.judge(batch, Exchanged.all_alike(batch, _BROKEN, exchanged.calls), moment)

    def _undecided(self, batch: Batch) -> Verdict:
        """When not even the judge can be asked: each waits, ever longer, and what was sent is in doubt. What was held
        for a later verdict is free again, because nobody knows whether there will be one."""
        results = tuple(
            _undecided(
                batch.task,
                listing,
                after_seconds=backoff_seconds(
                    listing.attempts + 1,
                    dice=1.0,  # in full: a short one would repeat the bug at once
                    first_seconds=self._engine.settings.backoff_first_seconds,
                    max_seconds=self._engine.settings.backoff_max_seconds,
                ),
                quiesce_seconds=self._limits.quiesce_seconds,
            )
            for listing in batch.listings
        )
        return Verdict(results, released=tuple(self._held))

    # --- what it means for the store ---

    async def _heed(self, verdict: Verdict, used: Tokens | None) -> str | None:
        """Do what a verdict asks of the store; returns a reason to pause it."""
        pause: str | None = None
        refresh = False
        for told in verdict.store:
            refresh = refresh or isinstance(told.decision, Refresh)
            pause = await self._do(told) or pause
        if refresh:
            pause = await self._refresh(used) or pause
        if pause is not None:
            self._log.error("the store is paused", reason=pause)
            self._stopping = True
        return pause

    async def _do(self, told: Told) -> str | None:
        now = self._engine.clock.monotonic()
        match told.decision:
            case Fine():
                await self._can_be_reached(now)
            case Trouble():
                if self._breaker.failed(now):
                    self._log.warning("the marketplace cannot be reached", reason=told.message)
                    await self._note_trouble(told.message)
            case Unclear():
                self._breaker.abandoned(now)
            case SlowDown(seconds=seconds, application=application):
                await self._can_be_reached(now)
                self._log.info("the marketplace asks to slow down", seconds=round(seconds, 3), reason=told.message)
                self._pacer.slow_down(now + seconds)
                if application and self.lease.channel_app_id is not None:
                    await self._slow_application(self.lease.channel_app_id, seconds)
            case Pause(reason=reason):
                return reason
            case Refresh():
                await self._answers(now)
        return None

    async def _can_be_reached(self, now: float) -> None:
        if self._tokens:
            self._tokens.accepted()
        await self._answers(now)

    async def _answers(self, now: float) -> None:
        if self._breaker.succeeded(now):
            self._log.info("the marketplace can be reached again")
        if self._in_trouble:
            await self._note_trouble(None)

    async def _slow_application(self, channel_app_id: int, seconds: float) -> None:
        try:
            await self._engine.budgets.block(channel_app_id, seconds)
        except LumbungError as error:
            self._log.warning("other processes could not be told to slow down", error=str(error))

    async def _note_trouble(self, trouble: str | None) -> None:
        """For people and for the reasons of items; nothing else depends on it. An end that could not be noted is noted
        with the next answer."""
        self._in_trouble = True
        try:
            await self._engine.storage.note_trouble(self.lease, trouble)
            self._in_trouble = trouble is not None
        except LumbungError as error:
            self._log.debug("the store's trouble could not be noted", error=str(error))

    async def _refresh(self, used: Tokens | None) -> str | None:
        """One refresh; returns a reason to pause the store when that does not help."""
        if self._tokens is None or used is None:
            return "The marketplace asks for a new access token, which this connector cannot get"
        refusal = await self._tokens.refused(used)
        match refusal:
            case None:
                return None
            case Unauthorized(message=message):
                return message
            case Unavailable(message=message):
                now = self._engine.clock.monotonic()
                self._pacer.slow_down(now + self._engine.settings.breaker_probe_seconds)
                await self._do(Told(Trouble(), message))
                return None


_BROKEN = InDoubt("The connector failed: see the log")
UNDECIDED_MESSAGE = "What the marketplace answered could not be decided upon: see the log"


def _undecided(task: Task, listing: Due, *, after_seconds: float, quiesce_seconds: float) -> Result:
    """Made without the judge and the policy: one of them has failed."""
    version, quantity, handle = listing.version, listing.quantity, None
    if task is Task.PUSH:
        decision, outcome, quantity = Retry(after_seconds, quiesce_seconds), "InDoubt", sent_quantity(listing)
    else:  # a question changes nothing: it is asked again
        decision, outcome = Retry(after_seconds), "Unavailable"
    if task is Task.ASK and listing.submitted is not None:
        version, quantity, handle = listing.submitted.version, listing.submitted.quantity, listing.submitted.handle
    return Result(
        listing.listing_id,
        version,
        quantity,
        outcome,
        decision,
        UNDECIDED_MESSAGE,
        answer="",
        due_for=listing.due_for,
        handle=handle,
        doubt_unknown=task is Task.PUSH,
        attempt=listing.attempts + 1,
    )


def _push_of(task: Task, listing: Due) -> Push:
    quantity = sent_quantity(listing)
    if task is Task.ASK and listing.submitted is not None:
        quantity = listing.submitted.quantity
    return Push(listing.listing_id, listing.remote_variant, quantity, listing.locations, listing.expected)
