"""The worker: leases stores that have work, and runs a sender for each.

    register --> look --> claim --> senders --> recorder
                  ^ wake-up, poll, a wait that is over
    renew: one row for the whole process; a worker that was too late starts anew under another id

It stops starting calls when its lease could end during one. On a stop it finishes what is in flight, records it and
gives the leases back.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
from collections.abc import Callable, Iterable, Mapping

import structlog

from lumbung.channels.base import Channel, Manifest
from lumbung.channels.http import HttpClient
from lumbung.clock import Clock
from lumbung.db import delivery, lease, stores
from lumbung.db.lease import LeaseRow
from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.db.wake import Listener
from lumbung.dispatch.pacing import Pacer
from lumbung.dispatch.recorder import Recorder
from lumbung.dispatch.sender import Engine, Lease, StoreLimits, StoreSender
from lumbung.errors import LumbungError, Unavailable
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_store
from lumbung.settings import Settings

log = structlog.get_logger()

CALL_TIMEOUTS_A_LIFETIME = 2.2
TICK_SECONDS = 0.05


class Worker:
    """`lease_pool` has a connection of its own, so that renewing never queues behind reading and recording."""

    def __init__(
        self,
        pool: Pool,
        lease_pool: Pool,
        settings: Settings,
        *,
        channels: Mapping[str, Channel],
        http: HttpClient,
        keyring: Keyring,
        clock: Clock,
        dice: Callable[[], float],
    ):
        self._pool = pool
        self._lease_pool = lease_pool
        self._settings = settings
        self._channels = channels
        self._http = http
        self._keyring = keyring
        self._clock = clock
        self._recorder = Recorder(pool, settings)
        self._engine = Engine(
            pool=pool,
            settings=settings,
            clock=clock,
            recorder=self._recorder,
            permits={code: asyncio.Semaphore(settings.calls_in_flight_max) for code in channels},
            dice=dice,
            may_start=self._may_start,
            look_after=self._look_after,
        )
        longest = max((c.manifest.call_timeout_seconds for c in channels.values()), default=0.0)
        self.lifetime_seconds = max(settings.lease_seconds, CALL_TIMEOUTS_A_LIFETIME * longest)
        self._worker_id = 0
        self._valid_until = 0.0
        self._senders: dict[int, tuple[StoreSender, asyncio.Task[None]]] = {}
        self._look = asyncio.Event()
        self._named: set[int] = set()  # stores of wake-ups since the last look
        self._elsewhere: set[int] = set()  # stores that are not ours to serve, until the next poll
        self._ticks: set[int] = set()
        self._orphans: set[int] = set()  # leases without a sender at the last renewal
        self._away = False
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set; then end in good order."""
        tasks = [
            asyncio.create_task(coroutine)
            for coroutine in (self._recorder.run(), self._keep_renewing(), self._keep_listening(), self._keep_looking())
        ]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
            self._stopping = True
            if not any(task.done() for task in tasks):  # after a crash nothing would be recorded: do not wait for it
                await self._stop_senders()
        finally:
            for task in (stopped, *tasks):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave()
        for result in results:
            if isinstance(result, Exception):
                raise result

    # --- the lease of this process ---

    def _may_start(self, seconds: float) -> bool:
        return self._clock.monotonic() + seconds < self._valid_until and not self._recorder.is_behind

    async def _keep_renewing(self) -> None:
        while True:
            try:
                await self._renew()
                self._tell(away=False)
            except LumbungError as error:
                self._tell(away=True, error=str(error))
            await asyncio.sleep(min(self._settings.lease_renew_seconds, self.lifetime_seconds / 3))

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        known = {store_id: sender.lease.epoch for store_id, (sender, _) in self._senders.items()}
        async with self._lease_pool.connection() as connection:
            if self._worker_id and asked_at < self._valid_until and await lease.renew(connection, self._worker_id):
                held = await lease.held(connection, self._worker_id)
                await self._give_back_orphans(connection, held)
            else:
                await self._register(connection)
                held = {}
        self._valid_until = asked_at + self.lifetime_seconds
        self._drop_senders({store: epoch for store, epoch in known.items() if held.get(store) != epoch})
        for sender, _ in self._senders.values():
            if sender.waits_for_lease:
                sender.wake()

    async def _give_back_orphans(self, connection: Connection, held: Mapping[int, int]) -> None:
        """A lease that had no sender twice in a row was claimed by a look that failed half-way."""
        without = held.keys() - self._senders.keys()
        stuck = without & self._orphans
        if stuck:
            await lease.give_back(connection, worker_id=self._worker_id, store_ids=stuck)
        self._orphans = without - stuck

    async def _register(self, connection: Connection) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._worker_id = await lease.register(connection, name=name, lifetime_seconds=self.lifetime_seconds)
        self._look.set()

    async def _leave(self) -> None:
        if not self._worker_id:
            return
        clean = [store_id for store_id, (sender, _) in self._senders.items() if not sender.busy]
        try:
            async with self._pool.connection() as connection:
                await lease.give_back(connection, worker_id=self._worker_id, store_ids=clean)
                if len(clean) == len(self._senders):
                    await lease.stop(connection, self._worker_id)
                # Otherwise the leases of the others expire, and who takes them over knows that calls are in doubt.
        except LumbungError as error:
            log.warning("leases could not be given back: they expire by themselves", error=str(error))

    # --- looking for work ---

    async def _keep_listening(self) -> None:
        listener = Listener(self._pool.url, self._settings, self._wake)
        while True:
            try:
                await listener.run()
            except Unavailable:
                await asyncio.sleep(self._settings.poll_seconds)

    def _wake(self, store_ids: frozenset[int] | None) -> None:
        """Something may be due in these stores (None: anywhere)."""
        if store_ids is None:
            self._look.set()
            for sender, _ in self._senders.values():
                sender.wake()
            return
        for store_id in store_ids:
            if store_id in self._senders:
                self._senders[store_id][0].wake()
            elif store_id not in self._elsewhere:
                self._named.add(store_id)
                self._look.set()

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

    async def _keep_looking(self) -> None:
        next_poll = self._clock.monotonic()
        while True:
            await self._wait_for_look(next_poll)
            if self._clock.monotonic() >= next_poll:
                next_poll = self._clock.monotonic() + self._settings.poll_seconds
                self._elsewhere.clear()
            if not self._may_start(0):
                continue
            try:
                await self._look_for_work()
            except LumbungError as error:
                self._tell(away=True, error=str(error))
                await asyncio.sleep(self._settings.poll_seconds)
            await asyncio.sleep(self._settings.look_interval_ms / 1000)

    async def _wait_for_look(self, next_poll: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, next_poll - self._clock.monotonic())):
                await self._look.wait()
        except TimeoutError:
            pass
        self._look.clear()

    async def _look_for_work(self) -> None:
        named, self._named = self._named, set()
        async with self._pool.connection() as connection:
            await self._reap(connection)
            await self._release_waits(connection)
            with_work = set(await delivery.stores_with_work(connection, wait_seconds_max=self._wait_seconds_max()))
            for store_id in with_work & self._senders.keys():
                self._senders[store_id][0].wake()
            wanted = with_work - self._senders.keys()
            claimed = await self._claim(connection, wanted) if wanted else []
        for row in claimed:
            await self._begin(row)
        self._elsewhere |= (wanted | named) - self._senders.keys()

    async def _release_waits(self, connection: Connection) -> None:
        if not self._senders:
            return
        released = await delivery.release_waits(
            connection,
            store_ids=list(self._senders),
            wait_seconds_max=self._wait_seconds_max(),
            limit=self._settings.chunk_rows_max,
        )
        for store_id in released & self._senders.keys():
            self._senders[store_id][0].wake()

    def _wait_seconds_max(self) -> float:
        """No wait is longer; one that is further ahead was written before the clock jumped back."""
        settings = self._settings
        quiesce = max((c.manifest.quiesce_seconds for c in self._channels.values()), default=0.0)
        return max(settings.backoff_max_seconds, settings.park_retry_seconds, settings.defer_seconds_max, 2 * quiesce)

    async def _claim(self, connection: Connection, wanted: Iterable[int]) -> list[LeaseRow]:
        worker_id = self._worker_id
        claimed = await lease.claim(
            connection,
            worker_id=worker_id,
            store_ids=wanted,
            quiesce_seconds={code: c.manifest.quiesce_seconds for code, c in self._channels.items()},
            limit=self._settings.claim_stores_max,
        )
        # Registered anew meanwhile: what the expired id has just taken is free for anybody.
        return claimed if worker_id == self._worker_id else []

    def _tell(self, *, away: bool, error: str = "") -> None:
        """Log once down, once up."""
        if away and not self._away:
            log.warning("the database is away: nothing new is sent", error=error)
        elif self._away and not away:
            log.info("the database is back")
        self._away = away

    # --- senders ---

    async def _begin(self, row: LeaseRow) -> None:
        if self._stopping:
            return  # leaving frees the lease
        channel = self._channels[row.channel]
        now = self._clock.monotonic()
        try:
            credentials = json.loads(self._keyring.decrypt(row.credentials, purpose_of_store(row.store_id)))
            session = channel.open(credentials, self._http, self._clock)
            limits, pacer = store_limits(channel.manifest, credentials, now)
        except Exception as error:
            reason = str(error) if isinstance(error, LumbungError) else "The credentials cannot be used: see the log"
            log.error("a store cannot be opened", store=row.store_id, exc_info=error)
            await self._pause_store(row, reason)
            return
        held = Lease(row.store_id, row.tenant_id, row.epoch, row.channel, row.store_name, now + row.doubt_seconds)
        sender = StoreSender(held, channel, session, pacer, limits, self._engine)
        self._senders[row.store_id] = (sender, asyncio.create_task(sender.run()))

    async def _pause_store(self, row: LeaseRow, reason: str) -> None:
        log.error("the store is paused", store=row.store_id, reason=reason)
        async with self._pool.connection() as connection:
            await stores.pause(connection, tenant_id=row.tenant_id, store_id=row.store_id, reason=reason)
            await lease.give_back(connection, worker_id=self._worker_id, store_ids=[row.store_id])

    async def _reap(self, connection: Connection) -> None:
        """Senders that ended by themselves (a paused store) leave, and give their lease back."""
        ended = [store_id for store_id, (sender, task) in self._senders.items() if task.done() and not sender.busy]
        for store_id in ended:
            _, task = self._senders[store_id]
            if (error := task.exception()) is not None:
                log.error("a sender failed", store=store_id, exc_info=error)
        if ended:
            await lease.give_back(connection, worker_id=self._worker_id, store_ids=ended)
            for store_id in ended:
                self._senders.pop(store_id, None)

    def _drop_senders(self, lost: Mapping[int, int]) -> None:
        """Leases of these epochs are gone: nothing may be started, what is in flight cannot be recorded."""
        for store_id, epoch in lost.items():
            sender, task = self._senders.get(store_id, (None, None))
            if sender is None or task is None or sender.lease.epoch != epoch:
                continue  # it has ended since, or was claimed anew
            log.warning("a lease was lost", store=store_id, epoch=epoch)
            del self._senders[store_id]
            sender.abandon()
            task.cancel()

    async def _stop_senders(self) -> None:
        senders = [sender for sender, _ in self._senders.values()]
        try:
            async with asyncio.timeout(self._settings.stop_seconds):
                await asyncio.gather(*(sender.stop() for sender in senders))
        except TimeoutError:
            log.warning("calls were still in flight at the end of the stop", stores=len(senders))


def store_limits(manifest: Manifest, credentials: Mapping[str, str], now: float) -> tuple[StoreLimits, Pacer]:
    """The channel's limits, or those that the store's own credentials file sets."""
    rate = float(credentials.get("calls_per_second") or manifest.pacing.calls_per_second)
    burst = manifest.pacing.burst if "calls_per_second" not in credentials else max(1, int(rate))
    limits = StoreLimits(
        calls_per_second=rate,
        call_timeout_seconds=float(credentials.get("call_timeout_seconds") or manifest.call_timeout_seconds),
        quiesce_seconds=float(credentials.get("quiesce_seconds") or manifest.quiesce_seconds),
    )
    return limits, Pacer(rate, burst, now=now)
