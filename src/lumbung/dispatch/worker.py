"""The worker: leases stores that have work, and runs a sender for each.

    register --> look --> claim --> senders --> recorder
                  ^ wake-up, poll, a wait that is over
    renew: one row for the whole process, at once what it holds and how many others there are

Each process aims at its share, stores with work / live workers, and gives back what is above it, a part at each
renewal. It stops starting calls when its lease could end during one. On a stop it finishes what is in flight, records
it and gives the leases back. After a crash it ends at once: what is in flight cannot be recorded, its leases expire.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from lumbung.clock import Clock
from lumbung.db.delivery import Work
from lumbung.db.lease import LeaseRow
from lumbung.db.wake import Hints, OnWake
from lumbung.dispatch.budgets import Budgets
from lumbung.dispatch.engine import Engine
from lumbung.dispatch.lease_clock import LeaseClock
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.opening import Opener
from lumbung.dispatch.permits import Permits
from lumbung.dispatch.recorder import Recorder
from lumbung.dispatch.report import Lease
from lumbung.dispatch.rest import Rest
from lumbung.dispatch.sender import StoreSender
from lumbung.dispatch.share import excess, room
from lumbung.dispatch.storage import Storage
from lumbung.errors import LumbungError
from lumbung.settings import Settings

log = structlog.get_logger()

TICK_SECONDS = 0.05
EXPIRY_MARGIN_SECONDS = 0.005  # a look on the very moment would find the lease still held


class WakeUps(Protocol):
    """Where wake-ups come from; they may be lost."""

    async def run(self, on_wake: OnWake) -> None: ...

    async def tell(self, store_ids: Iterable[int]) -> None:
        """Other workers may look at these stores."""
        ...


class Worker:
    """`name`: for people; `lifetime_seconds`: after so long without renewal others count this process as gone."""

    def __init__(
        self,
        storage: Storage,
        wake_ups: WakeUps,
        settings: Settings,
        *,
        name: str,
        lifetime_seconds: float,
        opener: Opener,
        clock: Clock,
        metrics: WorkerMetrics,
        dice: Callable[[], float],
    ):
        self._storage = storage
        self._wake_ups = wake_ups
        self._settings = settings
        self._name = name
        self._lifetime_seconds = lifetime_seconds
        self._opener = opener
        self._clock = clock
        self._metrics = metrics
        self._recorder = Recorder(storage, settings, metrics)
        self._lease_clock = LeaseClock()
        self._engine = Engine(
            storage=storage,
            settings=settings,
            clock=clock,
            recorder=self._recorder,
            lease_clock=self._lease_clock,
            permits={code: Permits(settings.calls_in_flight_max) for code in opener.channels},
            budgets=Budgets(storage, clock, recheck_seconds=settings.lease_seconds),
            metrics=metrics,
            dice=dice,
            rest=Rest(settings.scan_rest, settings.scan_rest_seconds_max),
            look_after=self._look_after,
            keep=self._keep,
        )
        self._worker_id = 0
        self._live = 1  # processes, this one among them
        self._with_work: set[int] = set()  # stores of the whole installation, since the last renewal
        self._senders: dict[int, tuple[StoreSender, asyncio.Task[None]]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}  # stores that are being handed over
        self._kept: set[asyncio.Future[None]] = set()
        self._trading: dict[int, int] = {}  # stores without a sender until a token pair is written, by worker id
        self._look = asyncio.Event()
        self._look_now = asyncio.Event()  # without the rest after the last one
        self._rest_seconds = settings.look_interval_ms / 1000  # before the next look
        self._last_look_took = 0.0
        self._elsewhere: set[int] = set()  # stores that are not ours to serve, until the next poll
        self._ticks: set[int] = set()
        self._first_expiry: asyncio.TimerHandle | None = None  # of the stores with work that others hold
        self._beginning: set[int] = set()  # claimed, and about to get a sender
        self._orphans: set[int] = set()  # leases without a sender at the last renewal
        self._away = False
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set; then end in good order. A crash ends it too, and is raised."""
        tasks = [
            asyncio.create_task(coroutine)
            for coroutine in (
                self._recorder.run(),
                self._keep_renewing(),
                self._wake_ups.run(self._wake),
                self._keep_looking(),
            )
        ]
        stopped = asyncio.create_task(stop.wait())
        time, ends_at = asyncio.get_running_loop().time, math.inf
        try:
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            self._stopping = True
            ends_at = time() + self._settings.stop_seconds
            if not any(task.done() for task in tasks):
                await self._end_in_good_order(tasks)
        finally:
            self._stopping = True
            if self._first_expiry is not None:
                self._first_expiry.cancel()
            for task in (stopped, *tasks):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave(min(max(0.0, ends_at - time()), self._settings.stop_seconds))
        for result in results:
            if isinstance(result, Exception):
                raise result
        log.info("the worker stopped")

    # --- the lease of this process ---

    async def _keep_renewing(self) -> None:
        while True:
            try:
                await self._renew()
                self._tell(away=False)
            except LumbungError as error:
                self._tell(away=True, error=str(error))
            await asyncio.sleep(min(self._settings.lease_renew_seconds, self._lifetime_seconds / 3))

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        known = {store_id: sender.lease.epoch for store_id, (sender, _) in self._senders.items()}
        held: Mapping[int, int] = {}
        renewal = await self._storage.renew(self._worker_id) if self._worker_id else None
        if renewal is None:
            self._lease_clock.lost()
            asked_at = self._clock.monotonic()
            self._worker_id = await self._storage.register(self._name, self._lifetime_seconds)
            self._look.set()
        else:
            held = renewal.held
            if renewal.live < self._live:
                self._look_for_lost()
            self._live = max(1, renewal.live)
        self._lease_clock.renewed(asked_at)
        self._drop_senders({store: epoch for store, epoch in known.items() if store not in held})
        changed = {store: epoch for store, epoch in known.items() if held.get(store, epoch) != epoch}
        await self._open_anew(changed)
        await self._give_back_orphans(held)
        for sender, _ in self._senders.values():
            if sender.waits_for_lease:
                sender.wake()
        self._give_back_excess()

    async def _give_back_orphans(self, held: Mapping[int, int]) -> None:
        """A lease that had no sender twice in a row was claimed by a look that failed half-way."""
        without = held.keys() - self._senders.keys() - self._beginning - self._trading.keys()
        stuck = without & self._orphans
        if stuck:
            await self._storage.give_back(self._worker_id, sorted(stuck))
        self._orphans = without - stuck

    async def _leave(self, seconds: float) -> None:
        """Nothing is recorded any more, so no call is waited for: only what must end whatever becomes of who began it,
        and for so many seconds at most, because the database may be away for days."""
        for sender, _ in self._senders.values():
            sender.abandon()
        for handing_over in self._leaving.values():
            handing_over.cancel()
        if self._kept:
            _, unfinished = await asyncio.wait(set(self._kept), timeout=seconds)
            if unfinished:
                log.error("new token pairs could not be written in time and may be lost", tasks=len(unfinished))
        if not self._worker_id:
            return
        clean = [store_id for store_id, (sender, _) in self._senders.items() if not sender.busy]
        doubts = _doubts_of(sender for sender, _ in self._senders.values())
        try:
            await self._storage.give_back(self._worker_id, clean, doubts)
            if len(clean) == len(self._senders):
                clean += await self._give_back_claimed_in_vain()
                await self._storage.stop(self._worker_id)
            # Otherwise the leases of the others expire, and who takes them over knows that calls are in doubt.
            await self._wake_ups.tell(clean)
        except LumbungError as error:
            log.warning("leases could not be given back: they expire by themselves", error=str(error))

    async def _give_back_claimed_in_vain(self) -> list[int]:
        """Stores that a look has claimed, and that got no sender because the stop came first: nobody was called. Only
        right before this worker is written down as stopped: to ask what it holds is to renew its leases."""
        renewal = await self._storage.renew(self._worker_id)
        held = sorted(renewal.held.keys() - self._senders.keys() - self._trading.keys()) if renewal else []
        await self._storage.give_back(self._worker_id, held)
        return held

    # --- looking for work ---

    def _wake(self, hints: Hints | None) -> None:
        """These may be due (None: anything)."""
        if hints is None:
            self._look_everywhere()
            for sender, _ in self._senders.values():
                sender.wake()
            return
        for store_id, listings in hints.items():
            if store_id in self._senders and listings:
                self._senders[store_id][0].hint(listings)
            elif store_id in self._senders:
                self._senders[store_id][0].wake()
            elif not listings:  # it was handed over, say
                self._elsewhere.discard(store_id)
                self._look.set()
            elif store_id not in self._elsewhere:
                self._look.set()

    def _look_everywhere(self) -> None:
        """At stores that were found to be others', too."""
        self._elsewhere.clear()
        self._look.set()

    def _look_for_lost(self) -> None:
        """A worker is gone, or may be: its stores have waited for long enough. Seldom, so that this need not rest."""
        self._look_everywhere()
        self._look_now.set()

    def _look_at_first_expiry(self, work: Iterable[Work]) -> None:
        """The moment at which a store with work would be free if its holder were gone: it must not wait for a poll, nor
        for a rest. A holder that is there has renewed its lease by then, and each look finds the next moment."""
        if self._first_expiry is not None:
            self._first_expiry.cancel()
        left = [found.held_seconds for found in work if found.held_seconds and found.worker_id != self._worker_id]
        self._first_expiry = None
        if left:
            loop = asyncio.get_running_loop()
            self._first_expiry = loop.call_later(min(left) + EXPIRY_MARGIN_SECONDS, self._look_for_lost)

    def _look_after(self, seconds: float) -> None:
        """Look for waits that are over in so many seconds; one timer a tick, however many listings wait."""
        loop = asyncio.get_running_loop()
        tick = math.ceil((loop.time() + seconds) / TICK_SECONDS)
        if tick not in self._ticks:
            self._ticks.add(tick)
            loop.call_at(tick * TICK_SECONDS, self._tick, tick)

    def _tick(self, tick: int) -> None:
        self._ticks.discard(tick)
        self._look.set()

    def _keep(self, work: Awaitable[None]) -> None:
        """Let it end, whatever becomes of who began it."""
        task = asyncio.ensure_future(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def _keep_looking(self) -> None:
        next_poll = self._clock.monotonic()
        while True:
            await self._wait_for_look(next_poll)
            if self._clock.monotonic() >= next_poll:
                next_poll = self._clock.monotonic() + self._settings.poll_seconds
                self._elsewhere.clear()
            if not self._lease_clock.valid(self._clock.monotonic(), self._lifetime_seconds):
                continue
            try:
                await self._look_for_work()
            except LumbungError as error:
                self._tell(away=True, error=str(error))
                await asyncio.sleep(self._settings.poll_seconds)
            await self._rest_from_looking()

    async def _rest_from_looking(self) -> None:
        try:
            async with asyncio.timeout(self._rest_seconds):
                await self._look_now.wait()
        except TimeoutError:
            return

    async def _wait_for_look(self, next_poll: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, next_poll - self._clock.monotonic())):
                await self._look.wait()
        except TimeoutError:
            pass
        self._look.clear()
        self._look_now.clear()

    async def _look_for_work(self) -> None:
        await self._reap()
        work = {found.store_id: found for found in await self._looked()}
        self._with_work |= work.keys()
        self._look_at_first_expiry(work.values())
        await self._drop_revoked(work)
        await self._release_waits(found.store_id for found in work.values() if found.ready)
        for store_id in work.keys() & self._senders.keys():
            self._senders[store_id][0].wake()
        wanted = [store_id for store_id, found in sorted(work.items()) if store_id not in self._senders]
        claimed, worker_id = await self._claim(wanted, work), self._worker_id
        self._beginning = {row.store_id for row in claimed}
        try:
            for row in claimed:
                if worker_id != self._worker_id:
                    break  # registered anew meanwhile: what the expired id has taken is free for anybody
                self._tell_takeover(row, work[row.store_id])
                await self._begin(row)
                self._beginning.discard(row.store_id)
        finally:
            self._beginning = set()
        self._elsewhere |= set(wanted) - self._senders.keys()
        self._count()

    async def _looked(self) -> list[Work]:
        """The stores with work. While a snapshot is held open this takes ever longer: the next waits accordingly. One
        that alone took long was the first of its connection, say."""
        began = self._clock.monotonic()
        self._rest_seconds = self._settings.look_interval_ms / 1000
        working = [store_id for store_id, (sender, _) in self._senders.items() if sender.has_work]
        work = await self._storage.look(working)
        took = self._clock.monotonic() - began
        rest = self._engine.rest.seconds(min(took, self._last_look_took))
        self._last_look_took = took
        self._rest_seconds = max(self._rest_seconds, min(rest, self._settings.look_rest_seconds_max))
        return work

    def _tell_takeover(self, row: LeaseRow, found: Work) -> None:
        if found.worker_id in {None, self._worker_id} or row.doubt_seconds <= 0:
            return  # it was given back
        log.info(
            "a store is taken over from a worker that was lost",
            store=row.store_id,
            lost_worker=found.worker_id,
            doubt_seconds=row.doubt_seconds,
        )

    async def _release_waits(self, ready: Iterable[int]) -> None:
        """Only in stores that are ours: their senders hear of it here. Others do it when they have claimed a store."""
        mine = [store_id for store_id in ready if store_id in self._senders]
        if not mine:
            return
        self._wake(await self._storage.release_waits(mine))

    async def _drop_revoked(self, work: Mapping[int, Work]) -> None:
        """An operator has changed how a store is reached: it is opened anew."""
        revoked = {
            store_id: sender.lease.epoch
            for store_id, (sender, _) in self._senders.items()
            if store_id in work
            and work[store_id].worker_id == self._worker_id
            and work[store_id].epoch != sender.lease.epoch
        }
        await self._open_anew(revoked)

    async def _open_anew(self, changed: Mapping[int, int]) -> None:
        """Give back stores whose epoch an operator has raised, so that they are claimed and opened again; one that is
        trading its token pair when that is written."""
        worker_id = self._worker_id
        trading = [
            self._senders[store_id][0]
            for store_id, epoch in changed.items()
            if store_id in self._senders and self._is_trading(store_id, epoch)
        ]
        doubts = _doubts_of(self._senders[store_id][0] for store_id in changed if store_id in self._senders)
        self._drop_senders(changed, by_operator=True)
        for sender in trading:
            self._trading[sender.lease.store_id] = worker_id
            self._keep(self._give_back_when_traded(worker_id, sender))
        free = sorted(changed.keys() - self._trading.keys() - self._senders.keys())
        if free:
            await self._storage.give_back(worker_id, free, doubts)
            self._look.set()

    def _is_trading(self, store_id: int, epoch: int) -> bool:
        """Whether the sender of this epoch is; one that was begun since is not concerned."""
        sender, _ = self._senders[store_id]
        return sender.lease.epoch == epoch and sender.is_trading

    async def _give_back_when_traded(self, worker_id: int, sender: StoreSender) -> None:
        """Registered anew meanwhile, the lease is nobody's already, or ours again with a sender."""
        store_id = sender.lease.store_id
        try:
            await sender.trades_settled()
        finally:
            self._trading.pop(store_id, None)  # should what follows fail, it is found without a sender
        if worker_id == self._worker_id and store_id not in self._senders:
            with suppress(LumbungError):
                await self._storage.give_back(worker_id, [store_id], _doubts_of([sender]))
                self._look.set()

    async def _claim(self, wanted: Sequence[int], work: Mapping[int, Work]) -> Sequence[LeaseRow]:
        self._with_work |= work.keys()  # a renewal since the look has begun anew
        orphans = [found for store_id in wanted if (found := work[store_id]).is_orphan]
        most = room(
            held=len(self._senders),
            with_work=len(self._with_work),
            active=len(self._active()),
            live=self._live,
            held_max=self._settings.stores_held_max,
            orphans=len(orphans),
            lost=len({found.worker_id for found in orphans}),
        )
        most = min(most, self._settings.claim_stores_max)
        if self._stopping or not wanted or most < 1:
            return ()
        worker_id = self._worker_id
        claimed = await self._storage.claim(worker_id, wanted, most)
        if claimed:
            self._metrics.lease_changes.labels("claimed").inc(len(claimed))
        if len(claimed) == most:
            self._look.set()  # there may be more
        # Registered anew meanwhile: what the expired id has just taken is free for anybody.
        return claimed if worker_id == self._worker_id else ()

    def _active(self) -> list[int]:
        """Stores that are ours and had something to do since the last renewal."""
        return [store_id for store_id in self._senders if store_id in self._with_work]

    def _tell(self, *, away: bool, error: str = "") -> None:
        """Log once down, once up."""
        if away and not self._away:
            log.warning("the database is away: nothing new is sent", error=error)
        elif self._away and not away:
            log.info("the database is back")
        self._away = away
        self._metrics.database_away.set(away)

    def _count(self) -> None:
        self._metrics.stores_held.set(len(self._senders))
        self._metrics.breakers_open.set(sum(sender.breaker_is_open for sender, _ in self._senders.values()))

    # --- senders ---

    async def _begin(self, row: LeaseRow) -> None:
        if self._stopping:
            return  # leaving frees the lease
        held = Lease(
            row.store_id,
            row.tenant_id,
            row.epoch,
            row.channel,
            row.store_name,
            self._clock.monotonic() + row.doubt_seconds if row.doubt_seconds > 0 else 0.0,
            row.lifetime_seconds,
            row.channel_app_id,
            row.in_trouble,
        )
        try:
            sender = self._opener.open(row, held, self._engine)
        except Exception as error:
            reason = str(error) if isinstance(error, LumbungError) else "The credentials cannot be used: see the log"
            log.error("a store cannot be opened", store=row.store_id, exc_info=error)
            await self._pause_store(held, reason)
            return
        self._senders[row.store_id] = (sender, asyncio.create_task(sender.run()))
        await self._storage.note_quiesce(held, sender.quiesce_seconds)

    async def _pause_store(self, held: Lease, reason: str) -> None:
        if await self._storage.pause(held, reason):
            log.error("the store is paused", store=held.store_id, reason=reason)
        else:
            log.info("the store is not paused: its lease was lost, or it was changed", store=held.store_id)
        await self._storage.give_back(self._worker_id, [held.store_id])

    async def _reap(self) -> None:
        """Senders that ended by themselves (a paused store) leave, and give their lease back."""
        ended = [store_id for store_id, (sender, task) in self._senders.items() if task.done() and not sender.busy]
        doubts = _doubts_of(self._senders[store_id][0] for store_id in ended)
        for store_id in ended:
            _, task = self._senders.pop(store_id)  # at once: a renewal must not miss a lease that is given back
            if (error := task.exception()) is not None:
                log.error("a sender failed", store=store_id, exc_info=error)
        if ended:
            await self._storage.give_back(self._worker_id, ended, doubts)
            self._metrics.lease_changes.labels("given back").inc(len(ended))

    def _give_back_excess(self) -> None:
        """Stores above our share, and those that have been idle for long, are left in good order: what is in flight
        ends and is recorded, then the lease is free."""
        now = self._clock.monotonic()
        full = len(self._senders) >= self._settings.stores_held_max  # then idle ones make room at once
        idle = [
            store_id
            for store_id, (sender, _) in self._senders.items()
            if sender.idle_since is not None and (full or now - sender.idle_since >= self._settings.store_idle_seconds)
        ]
        active = self._active()
        count = excess(
            with_work=len(self._with_work),
            active=len(active),
            live=self._live,
            percent=self._settings.give_back_percent,
        )
        self._with_work = set()
        for store_id in sorted({*idle, *active[:count]} - self._leaving.keys()):
            self._leaving[store_id] = asyncio.create_task(self._hand_over(store_id))

    async def _hand_over(self, store_id: int) -> None:
        try:
            sender, _ = self._senders[store_id]
            await sender.stop()
            if self._senders.get(store_id, (None, None))[0] is not sender:
                return  # lost, or reaped, meanwhile
            del self._senders[store_id]
            if sender.idle_since is None:
                self._elsewhere.add(store_id)  # others first; an idle one is ours again with its next update
            await self._storage.give_back(self._worker_id, [store_id], _doubts_of([sender]))
            self._metrics.lease_changes.labels("given back").inc()
            await self._wake_ups.tell([store_id])
        except LumbungError:
            return  # without a sender it is given back at a later renewal
        finally:
            self._leaving.pop(store_id, None)

    def _drop_senders(self, lost: Mapping[int, int], *, by_operator: bool = False) -> None:
        """Leases of these epochs are gone: nothing may be started, what is in flight cannot be recorded.

        `by_operator`: the stores are still ours under another epoch, because they are to be opened anew.
        """
        for store_id, epoch in lost.items():
            sender, task = self._senders.get(store_id, (None, None))
            if sender is None or task is None or sender.lease.epoch != epoch:
                continue  # it has ended since, or was claimed anew
            if by_operator:
                log.info("a store is opened anew: an operator has changed it", store=store_id, epoch=epoch)
            else:
                log.warning("a lease was lost", store=store_id, epoch=epoch)
            self._metrics.lease_changes.labels("lost").inc()
            del self._senders[store_id]
            sender.abandon()
            task.cancel()

    async def _end_in_good_order(self, needed: Iterable[asyncio.Task[None]]) -> None:
        """Until what is in flight has ended and is recorded, for so long as a stop may take, unless one of those that
        are `needed` for it crashes."""
        stopping = asyncio.create_task(self._stop_senders())
        try:
            await asyncio.wait(
                [stopping, *needed], timeout=self._settings.stop_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not stopping.done():
                log.warning("calls were still in flight at the end of the stop", stores=len(self._senders))
        finally:
            stopping.cancel()

    async def _stop_senders(self) -> None:
        await asyncio.gather(*(sender.stop() for sender, _ in self._senders.values()))
        # Not gathered: to end this wait must not end them.
        if others := {*self._leaving.values(), *self._kept}:
            await asyncio.wait(others)


def _doubts_of(senders: Iterable[StoreSender]) -> dict[int, float]:
    """By store, of those that have any."""
    return {sender.lease.store_id: seconds for sender in senders if (seconds := sender.doubt_seconds) > 0}
