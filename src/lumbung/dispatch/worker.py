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


class Worker:
    def __init__(
        self,
        pool: Pool,
        settings: Settings,
        *,
        channels: Mapping[str, Channel],
        http: HttpClient,
        keyring: Keyring,
        clock: Clock,
        dice: Callable[[], float],
    ):
        self._pool = pool
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
            calls=asyncio.Semaphore(settings.calls_in_flight_max),
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
        self._elsewhere: set[int] = set()  # stores that were another worker's at the last poll
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
            await self._stop_senders(list(self._senders))
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
        return self._clock.monotonic() + seconds < self._valid_until

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
        known = set(self._senders)  # a store that is claimed while we ask is not lost
        async with self._pool.connection() as connection:
            if self._worker_id and asked_at < self._valid_until and await lease.renew(connection, self._worker_id):
                held = await lease.held(connection, self._worker_id)
                await self._give_back_orphans(connection, held)
            else:
                await self._register(connection)
                held = {}
        self._valid_until = asked_at + self.lifetime_seconds
        lost = {
            store_id
            for store_id, (sender, _) in self._senders.items()
            if store_id in known and held.get(store_id) != sender.lease.epoch
        }
        if lost:
            log.warning("leases were lost", stores=sorted(lost))
            self._drop_senders(lost)
        self._wake(None)

    async def _give_back_orphans(self, connection: Connection, held: Mapping[int, int]) -> None:
        """A lease that had no sender twice in a row was claimed by a look that failed half-way."""
        without = held.keys() - self._senders.keys()
        stuck = without & self._orphans
        if stuck:
            await lease.give_back(connection, worker_id=self._worker_id, store_ids=stuck)
        self._orphans = set(without - stuck)

    async def _register(self, connection: Connection) -> None:
        name = f"{socket.gethostname()}:{os.getpid()}"
        self._worker_id = await lease.register(connection, name=name, lifetime_seconds=self.lifetime_seconds)

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
                self._look.set()

    def _look_after(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds + 0.001, self._look.set)

    async def _keep_looking(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.poll_seconds):
                    await self._look.wait()
            except TimeoutError:
                self._elsewhere.clear()
            self._look.clear()
            if not self._may_start(0):
                continue
            try:
                await self._look_for_work()
            except LumbungError as error:
                self._tell(away=True, error=str(error))
                await asyncio.sleep(self._settings.poll_seconds)

    async def _look_for_work(self) -> None:
        longest = max(self._settings.backoff_max_seconds, self._settings.park_retry_seconds, 86_400.0)
        async with self._pool.connection() as connection:
            await self._reap(connection)
            if self._senders:
                for store_id in await delivery.release_waits(
                    connection,
                    store_ids=list(self._senders),
                    wait_seconds_max=longest,
                    limit=self._settings.chunk_rows_max,
                ):
                    self._senders[store_id][0].wake()
            with_work = await delivery.stores_with_work(connection, wait_seconds_max=longest)
            wanted = [store_id for store_id in with_work if store_id not in self._senders]
            for store_id in set(with_work) & set(self._senders):
                self._senders[store_id][0].wake()
            if not wanted:
                return
            claimed = await lease.claim(
                connection,
                worker_id=self._worker_id,
                store_ids=wanted,
                quiesce_seconds={code: c.manifest.quiesce_seconds for code, c in self._channels.items()},
                limit=self._settings.claim_stores_max,
            )
        self._elsewhere = set(wanted) - {row.store_id for row in claimed}
        for row in claimed:
            await self._begin(row)

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
        except LumbungError as error:
            await self._pause_store(row, str(error))
            return
        limits, pacer = store_limits(channel.manifest, credentials, now)
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
                del self._senders[store_id]

    def _drop_senders(self, store_ids: Iterable[int]) -> None:
        """The lease is gone: nothing may be started, and what is in flight cannot be recorded under it."""
        for store_id in list(store_ids):
            sender, task = self._senders.pop(store_id)
            sender.abandon()
            task.cancel()

    async def _stop_senders(self, store_ids: Iterable[int]) -> None:
        senders = [self._senders[store_id][0] for store_id in store_ids]
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
