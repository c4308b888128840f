"""What a store's sender reads next: a window of due listings, as batches.

    hinted     by their keys, those that somebody said are due (hinted.py)
    scanned    from the lanes, by a cursor that goes round: finds everything that is due, whoever says so

Scans are what is relied upon; hints only spare them. An index of what is due keeps an entry for everything that was due
since the oldest snapshot began, so while somebody holds one a scan reads ever more of them. One is made when it is
called for (at the start, at each poll, when a wake-up names no listings, when a hint was forgotten), and goes on until
it has been all round and found nothing. Scans rest in between (rest.py), unless nothing is hinted and there is more.

Never all that is due: about a second's worth, so that later zeros do not wait behind it. What was read is read again
before it is sent, so that the newest quantity goes out: at once where somebody has said since that it is due, or that
anything may be; after a longer time in any case, for what is said may be lost. As many as are likely to be sent before
they are too old are read again together. A listing is busy from the start of its call until the
result is recorded, so it has at most one call in flight. One that is passed over because it is busy is hinted instead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from lumbung.channels.base import Channel
from lumbung.clock import Clock
from lumbung.db.delivery import Due
from lumbung.dispatch.batching import LANES, RETRY, Bisection, LaneShares, Locks, group, share_lanes
from lumbung.dispatch.hinted import Hinted
from lumbung.dispatch.report import Lease
from lumbung.dispatch.rest import Rest
from lumbung.dispatch.storage import Storage
from lumbung.model import DueFor


class Task(Enum):
    """What is done with a batch."""

    PUSH = "push"
    ASK = "ask"
    READ = "read"


@dataclass(frozen=True, slots=True)
class Batch:
    """Listings that share a call. `read_at`: on the process's monotonic clock."""

    task: Task
    listings: tuple[Due, ...]
    read_at: float

    @property
    def handle(self) -> str:
        """What was submitted; all of a batch that asks have the same."""
        submitted = self.listings[0].submitted
        assert submitted is not None
        return submitted.handle


@dataclass(frozen=True, slots=True)
class WindowSizes:
    """`listings_max` read at once; about a second's worth at `calls_per_second`. `fresh_seconds`: what was read longer
    ago, and was said to be due since, is read again before it is sent; after `untold_seconds` also what was not.
    `hinted_max`: listings of a lane."""

    listings_max: int
    calls_per_second: float
    fresh_seconds: float
    untold_seconds: float
    hinted_max: int


class Window:
    def __init__(
        self,
        lease: Lease,
        channel: Channel,
        storage: Storage,
        clock: Clock,
        sizes: WindowSizes,
        bisection: Bisection,
        locks: Locks,
        rest: Rest,
        *,
        reads_back: bool,
    ):
        self._lease = lease
        self._channel = channel
        self._storage = storage
        self._clock = clock
        self._bisection = bisection
        self._locks = locks
        self._reads_back = reads_back
        self._fresh_seconds = sizes.fresh_seconds
        self._untold_seconds = max(sizes.fresh_seconds, sizes.untold_seconds)
        self._all_told_at = -math.inf  # anything may have become due then
        self._again_at = -math.inf  # when batches were last read again
        self._again_count = 1  # how many
        self._rest = rest
        self._shares = LaneShares()
        self._cursors = dict.fromkeys(LANES, 0)
        self._batches: deque[Batch] = deque()
        self._hinted = Hinted(sizes.hinted_max)
        self._scan_wanted = True
        self._scan_at = 0.0  # not before, while there is something else to read
        self._more = False  # the last scan left something of what it saw
        self.busy: set[int] = set()
        manifest = channel.manifest
        per_second = max(sizes.calls_per_second, manifest.in_flight_max) * manifest.batch_max
        self._size = max(1, min(sizes.listings_max, int(per_second)))

    def __bool__(self) -> bool:
        return bool(self._batches)

    @property
    def has_hints(self) -> bool:
        return len(self._hinted) > 0

    def put_back(self, batch: Batch) -> None:
        """It could not be sent after all: it is the next again."""
        self._batches.appendleft(batch)

    def look(self) -> None:
        """Anything may be due."""
        self._scan_wanted = True
        self._all_told_at = self._clock.monotonic()

    def hint(self, listings: Mapping[int, int]) -> None:
        """These may be due, in these lanes."""
        if not self._hinted.add(listings):
            self.look()

    def scan_after(self, now: float) -> float | None:
        """In how many seconds something may be found although nothing is hinted; None: it is not called for."""
        if not self._scan_wanted:
            return None
        return 0.0 if self._more else max(0.0, self._scan_at - now)

    async def next(self) -> Batch | None:
        """What to send now; None when nothing is due that may be looked for already."""
        while True:
            if not self._batches and not await self.fill():
                return None
            batch = self._batches.popleft()
            if self._is_old(batch):
                batch = await self._again(batch)
            self.hint({one.listing_id: one.lane for one in batch.listings if one.listing_id in self.busy})
            listings = tuple(listing for listing in batch.listings if listing.listing_id not in self.busy)
            if listings:
                return Batch(batch.task, listings, batch.read_at)

    async def fill(self) -> bool:
        """Read a window. A scan that has rested goes before what is hinted, which could put it off for ever; one that
        has not is made when nothing else can be read and there is more than the last one gave."""
        if self._scan_wanted and self._clock.monotonic() >= self._scan_at and await self._scan():
            return True
        if await self._read_hinted():
            return True
        return self._scan_wanted and self._more and await self._scan()

    async def _scan(self) -> bool:
        began, found = self._clock.monotonic(), True
        self._scan_wanted = False  # from here on it may be called for anew
        try:
            found = await self._go_round()
        finally:
            self._scan_wanted = self._scan_wanted or found
            now = self._clock.monotonic()
            self._scan_at = self._rests_until(now, now - began)
        return found

    def _rests_until(self, now: float, took: float) -> float:
        """A scan that gave as much as is read at once was worth its time: it puts off nobody else."""
        return now + self._rest.seconds(took) if self._more else self._rest.until(now, took)

    async def _go_round(self) -> bool:
        """Read a window of the lanes; when the cursor is at the end, go round once."""
        for _ in range(2):
            went_round = any(self._cursors.values())
            hinted, busy = list(self._hinted), set(self.busy)
            due = await self._storage.due_window(
                self._lease,
                cursors=self._cursors,
                busy=busy,
                limit=self._size,
                with_locations=self._channel.manifest.location_aware,
            )
            self.hint(dict.fromkeys(busy - set(self._hinted), LANES[0]))
            self._more = len(due) >= self._size
            if due:
                chosen = self._choose(due)
                self._hinted.discard({listing.listing_id for listing in chosen}.intersection(hinted))
                self._batches.extend(self._batched(chosen))
                return True
            self._cursors = dict.fromkeys(LANES, 0)
            if not went_round:
                break
        return False

    async def _read_hinted(self) -> bool:
        """Read what is hinted, as much as is read at once."""
        while lanes := self._hinted.take(self._size, busy=self.busy):
            try:
                due = await self._read(lanes)
            except BaseException:
                self.hint(lanes)
                raise
            # A retry takes its place among retries: as what it is it is hinted there.
            wrong = {one.listing_id: one.lane for one in due if _is_retry(one.lane) != _is_retry(lanes[one.listing_id])}
            self.hint(wrong)
            if right := [listing for listing in due if listing.listing_id not in wrong]:
                self._batches.extend(self._batched(right))
                return True
        return False

    def _choose(self, due: Sequence[Due]) -> list[Due]:
        """The lanes' shares of what was read, falling first; moves the cursors past what was chosen."""
        lanes = {lane: [listing for listing in due if listing.lane == lane] for lane in LANES}
        chosen = share_lanes(lanes, self._size, self._shares)
        for lane, listings in lanes.items():
            taken = [listing.listing_id for listing in chosen if listing.lane == lane]
            if taken:
                self._cursors[lane] = taken[-1]
            elif not listings:
                self._cursors[lane] = 0
        return chosen

    def _batched(self, listings: Sequence[Due]) -> list[Batch]:
        """Batches in the order of their first listings."""
        read_at = self._clock.monotonic()
        order = {listing.listing_id: place for place, listing in enumerate(listings)}
        by_task: dict[Task, list[Due]] = {}
        for listing in listings:
            by_task.setdefault(self._task_of(listing), []).append(listing)
        batches = [
            Batch(task, tuple(of_call), read_at)
            for task, mine in by_task.items()
            for of_call in self._grouped(task, mine)
        ]
        return sorted(batches, key=lambda batch: order[batch.listings[0].listing_id])

    def _grouped(self, task: Task, mine: Sequence[Due]) -> list[list[Due]]:
        manifest = self._channel.manifest
        match task:
            case Task.PUSH:
                return group(mine, self._batch_key, manifest.batch_max, self._bisection.size)
            case Task.ASK:
                return group(mine, _handle_of, manifest.batch_max, self._bisection.size)
            case Task.READ:
                return group(mine, self._read_key, manifest.read_max)

    def _batch_key(self, listing: Due) -> tuple[str, bool]:
        """What is locked, so far as we know, shares no call with what is not."""
        return self._channel.batch_key(listing.remote_variant), listing.listing_id in self._locks

    def _read_key(self, listing: Due) -> str:
        return self._channel.read_key(listing.remote_variant)

    def _task_of(self, listing: Due) -> Task:
        """A confirmation of what cannot be read back is another push."""
        match listing.due_for:
            case DueFor.ASK:
                return Task.ASK
            case DueFor.RECONCILE | DueFor.OBSERVE:
                return Task.READ
            case DueFor.CONFIRM if self._reads_back:
                return Task.READ
            case _:
                return Task.PUSH

    def _is_old(self, batch: Batch) -> bool:
        """Whether another quantity may be the newest by now."""
        age = self._clock.monotonic() - batch.read_at
        if age <= self._fresh_seconds:
            return False
        told = batch.read_at <= self._all_told_at or any(one.listing_id in self._hinted for one in batch.listings)
        return told or age > self._untold_seconds

    async def _again(self, batch: Batch) -> Batch:
        """The same listings as they are now, those whose task has changed meanwhile left for the next window. With them
        the batches that come next, which stay the next."""
        batches = [batch, *self._next_old(batch)]
        lanes = {listing.listing_id: listing.lane for one in batches for listing in one.listings}
        self._hinted.discard(lanes)
        try:
            found = {listing.listing_id: listing for listing in await self._read(lanes)}
        except BaseException:
            self.hint(lanes)
            raise
        self._again_at = self._clock.monotonic()
        first, *others = [self._renewed(one, found) for one in batches]
        self._batches.extendleft(reversed(others))
        return first

    def _next_old(self, first: Batch) -> list[Batch]:
        """As many as were sent of the last ones before they were too old, or twice that when all were; with the first
        no more than are read at once."""
        left = sum(one.read_at == self._again_at for one in (first, *self._batches))
        self._again_count = max(1, self._again_count - left) if left else 2 * self._again_count
        taken: list[Batch] = []
        listings = len(first.listings)
        while self._batches and len(taken) + 1 < self._again_count and self._is_old(self._batches[0]):
            listings += len(self._batches[0].listings)
            if listings > self._size:
                break
            taken.append(self._batches.popleft())
        self._again_count = len(taken) + 1
        return taken

    def _renewed(self, batch: Batch, found: Mapping[int, Due]) -> Batch:
        listings = [found[one.listing_id] for one in batch.listings if one.listing_id in found]
        handles = {_handle_of(listing) for listing in batch.listings}
        same = tuple(
            listing
            for listing in listings
            if self._task_of(listing) is batch.task and (batch.task is not Task.ASK or _handle_of(listing) in handles)
        )
        kept = {listing.listing_id for listing in same}
        self.hint({one.listing_id: one.lane for one in listings if one.listing_id not in kept})
        return Batch(batch.task, same, self._again_at)

    async def _read(self, listing_ids: Iterable[int]) -> list[Due]:
        return await self._storage.due_now(
            self._lease, list(listing_ids), with_locations=self._channel.manifest.location_aware
        )


def _handle_of(listing: Due) -> str:
    return listing.submitted.handle if listing.submitted is not None else ""


def _is_retry(lane: int) -> bool:
    return lane > RETRY
