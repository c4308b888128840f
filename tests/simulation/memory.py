"""The storage of the delivery half, in memory: each method takes effect at one moment of virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

from lumbung.db.budget import Grant
from lumbung.db.delivery import Due, Work
from lumbung.db.lease import NO_DOUBTS, ChannelTimes, LeaseRow, StoredTokens
from lumbung.db.wake import Hints
from lumbung.dispatch.report import Lease, Report
from lumbung.dispatch.storage import Recorded, Renewal
from lumbung.errors import LockBusy, LumbungError, Unavailable
from lumbung.settings import Settings
from tests.simulation import leases, listings, recording
from tests.simulation.loop import VirtualLoop
from tests.simulation.tables import Tables

T = TypeVar("T")


class Link(Protocol):
    """The way to the database. `safe`: an answer that is lost is looked up, as a COMMIT's is."""

    async def run(self, effect: Callable[[], T], *, locks: bool = False, safe: bool = False) -> T: ...


class DirectLink:
    """No time passes, nothing fails."""

    async def run(self, effect: Callable[[], T], *, locks: bool = False, safe: bool = False) -> T:
        return effect()


@dataclass(slots=True)
class Faults:
    """Of the way to the database: probabilities, and whether it is away altogether."""

    refused: float = 0.0
    answer_lost: float = 0.0
    slow: float = 0.0
    lock_busy: float = 0.0
    away: bool = False


class SimulatedLink:
    """Takes seeded virtual time and fails by the dice. What was asked takes effect also when who asked is gone."""

    def __init__(self, loop: VirtualLoop, dice: Random, faults: Faults):
        self._loop = loop
        self._dice = dice
        self._faults = faults

    async def run(self, effect: Callable[[], T], *, locks: bool = False, safe: bool = False) -> T:
        answer: asyncio.Future[T] = self._loop.create_future()
        self._loop.later(self._latency(), self._arrive, effect, answer, locks, safe)
        return await answer

    def _latency(self) -> float:
        return 0.0003 + 0.004 * self._dice.random() ** 3

    def _arrive(self, effect: Callable[[], T], answer: asyncio.Future[T], locks: bool, safe: bool) -> None:
        roll, faults = self._dice.random(), self._faults
        if faults.away or roll < faults.refused:
            self._fail(answer, Unavailable("The database is away"))
        elif locks and roll < faults.refused + faults.lock_busy:
            self._fail(answer, LockBusy("A row is locked"))
        else:
            self._take_effect(effect, answer, safe=safe)

    def _take_effect(self, effect: Callable[[], T], answer: asyncio.Future[T], *, safe: bool) -> None:
        try:
            given = effect()
        except BaseException as error:  # noqa: BLE001
            self._loop.fail(error)  # a bug of the simulation, or a broken invariant: nobody may swallow it
            return
        roll, faults = self._dice.random(), self._faults
        if roll < faults.answer_lost and not safe:
            self._loop.later(3 * self._dice.random(), self._fail_now, answer, Unavailable("The answer was lost"))
        elif roll < faults.answer_lost + faults.slow:
            self._loop.later(3 * self._dice.random(), _give, answer, given)
        else:
            self._loop.later(self._latency(), _give, answer, given)

    def _fail(self, answer: asyncio.Future[T], error: LumbungError) -> None:
        self._loop.later(self._latency(), self._fail_now, answer, error)

    def _fail_now(self, answer: asyncio.Future[T], error: LumbungError) -> None:
        if not answer.done():
            answer.set_exception(error)


def _give(answer: asyncio.Future[T], given: T) -> None:
    if not answer.done():
        answer.set_result(given)


class MemoryStorage:
    """`lumbung.dispatch.storage.Storage`. `watch` looks at every report that counted, after it was written."""

    def __init__(
        self,
        tables: Tables,
        link: Link,
        settings: Settings,
        channels: Mapping[str, ChannelTimes],
        watch: Callable[[Sequence[Report], Recorded], None] = lambda reports, recorded: None,
    ):
        self._tables = tables
        self._link = link
        self._settings = settings
        self._channels = channels
        self._watch = watch
        self._wait_seconds_max = wait_seconds_max(settings, channels)

    async def register(self, name: str, lifetime_seconds: float) -> int:
        return await self._link.run(lambda: leases.register(self._tables, name, lifetime_seconds))

    async def renew(self, worker_id: int) -> Renewal | None:
        return await self._link.run(lambda: leases.renew(self._tables, worker_id))

    async def stop(self, worker_id: int) -> None:
        await self._link.run(lambda: leases.stop(self._tables, worker_id))

    async def look(self, working: Iterable[int]) -> list[Work]:
        return await self._link.run(lambda: listings.look(self._tables, working, self._wait_seconds_max))

    async def claim(self, worker_id: int, store_ids: Iterable[int], limit: int) -> list[LeaseRow]:
        wanted = list(store_ids)
        return await self._link.run(lambda: leases.claim(self._tables, worker_id, wanted, limit, self._channels))

    async def give_back(
        self, worker_id: int, store_ids: Iterable[int], doubts: Mapping[int, float] = NO_DOUBTS
    ) -> None:
        stores = list(store_ids)
        await self._link.run(lambda: leases.give_back(self._tables, worker_id, stores, doubts))

    async def note_quiesce(self, lease: Lease, seconds: float) -> None:
        await self._link.run(lambda: leases.note_quiesce(self._tables, lease.store_id, lease.epoch, seconds))

    async def note_trouble(self, lease: Lease, trouble: str | None) -> None:
        await self._link.run(lambda: leases.note_trouble(self._tables, lease.store_id, lease.epoch, trouble))

    async def pause(self, lease: Lease, reason: str) -> bool:
        return await self._link.run(lambda: leases.pause_held(self._tables, lease.store_id, lease.epoch, reason))

    async def release_waits(self, store_ids: Iterable[int]) -> Hints:
        stores = list(store_ids)
        return await self._link.run(lambda: listings.release_waits(self._tables, stores, self._wait_seconds_max))

    async def due_window(
        self, lease: Lease, *, cursors: Mapping[int, int], busy: Iterable[int], limit: int, with_locations: bool
    ) -> list[Due]:
        asked, taken = dict(cursors), list(busy)
        return await self._link.run(
            lambda: listings.due_window(
                self._tables, lease, cursors=asked, busy=taken, limit=limit, with_locations=with_locations
            )
        )

    async def due_now(self, lease: Lease, listing_ids: Sequence[int], *, with_locations: bool) -> list[Due]:
        asked = list(listing_ids)
        return await self._link.run(lambda: listings.due_now(self._tables, lease, asked, with_locations=with_locations))

    async def record(self, reports: Sequence[Report]) -> Recorded:
        return await self._link.run(lambda: self._record(reports), locks=True, safe=True)

    def _record(self, reports: Sequence[Report]) -> Recorded:
        settings = self._settings
        recorded = recording.record(self._tables, reports, settings.park_retry_seconds, settings.doubt_seconds_max)
        self._watch(reports, recorded)
        return recorded

    async def reserve(self, channel_app_id: int, calls: int) -> Grant:
        seconds_max = self._settings.throttle_seconds_max
        return await self._link.run(lambda: leases.reserve(self._tables, channel_app_id, calls, seconds_max))

    async def block(self, channel_app_id: int, seconds: float) -> None:
        seconds_max = self._settings.throttle_seconds_max
        await self._link.run(lambda: leases.block(self._tables, channel_app_id, seconds, seconds_max))

    async def swap_tokens(self, lease: Lease, old_digest: bytes | None, new: StoredTokens) -> bool:
        return await self._link.run(lambda: leases.swap_tokens(self._tables, lease.store_id, old_digest, new))

    async def read_tokens(self, lease: Lease) -> tuple[bytes, bytes] | None:
        return await self._link.run(lambda: leases.read_tokens(self._tables, lease.store_id))


def wait_seconds_max(settings: Settings, channels: Mapping[str, ChannelTimes]) -> float:
    """No wait is longer."""
    return max(
        settings.backoff_max_seconds,
        settings.park_retry_seconds,
        settings.defer_seconds_max,
        settings.throttle_seconds_max,
        settings.floor_retry_seconds,
        settings.submitted_check_seconds_max,
        settings.doubt_seconds_max,
        2 * max((times.quiesce_seconds for times in channels.values()), default=0.0),
    )
