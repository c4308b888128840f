"""What a worker does with wake-ups, and how long it rests after a look for work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lumbung.clock import ManualClock
from lumbung.db.delivery import Work
from lumbung.db.wake import Hints
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.opening import Opener
from lumbung.dispatch.storage import Storage
from lumbung.dispatch.worker import WakeUps, Worker
from lumbung.settings import Settings

HELD, OTHER = 7, 8


class Looked:
    """A look takes so long and finds nothing; a wait that is over makes a listing due."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self._clock = clock
        self.seconds = seconds
        self.working: list[list[int]] = []

    async def look(self, working: Iterable[int]) -> list[Work]:
        self.working.append(list(working))
        self._clock.advance(self.seconds)
        return []

    async def release_waits(self, store_ids: list[int]) -> Hints:
        return {store_id: {100: 4} for store_id in store_ids}


class Told:
    """A sender that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Mapping[int, int] | None] = []
        self.has_work = True

    def wake(self) -> None:
        self.told.append(None)

    def hint(self, listings: Mapping[int, int]) -> None:
        self.told.append(listings)


def worker_of(look_seconds: float = 0.0) -> tuple[Worker, Told]:
    """A worker that serves one store."""
    clock, sender = ManualClock(), Told()
    worker = Worker(
        cast(Storage, Looked(clock, look_seconds)),
        cast(WakeUps, None),
        Settings(),
        name="test",
        lifetime_seconds=15.0,
        opener=cast(Opener, SimpleNamespace(channels={})),
        clock=clock,
        metrics=WorkerMetrics(),
        dice=lambda: 0.5,
    )
    worker._senders[HELD] = cast(Any, (sender, None))
    return worker, sender


@pytest.mark.parametrize(("took", "rests"), [(0.0, 0.02), (0.0003, 0.02), (0.03125, 1.5625), (1.0, 5.0)])
async def test_looks_for_work_rest_many_times_what_they_take(took: float, rests: float) -> None:
    worker, _ = worker_of(took)
    await worker._looked()
    await worker._looked()
    assert worker._rest_seconds == pytest.approx(rests)


async def test_one_look_that_alone_took_long_is_rested_from_like_the_others() -> None:
    worker, _ = worker_of()
    looked = cast(Looked, worker._storage)
    for took, rests in ((1.0, 0.02), (0.01, 0.5), (1.0, 0.5), (0.0, 0.02), (1.0, 0.02)):
        looked.seconds = took
        await worker._looked()
        assert worker._rest_seconds == pytest.approx(rests)


async def test_stores_with_work_in_hand_are_not_looked_for() -> None:
    worker, sender = worker_of()
    await worker._looked()
    sender.has_work = False
    await worker._looked()
    assert cast(Looked, worker._storage).working == [[HELD], []]


def test_the_sender_of_a_store_hears_which_listings_are_due_or_that_it_is_to_look() -> None:
    worker, sender = worker_of()
    worker._wake({HELD: {100: 1, 101: 2}})
    worker._wake({HELD: {}})
    worker._wake(None)
    assert sender.told == [{100: 1, 101: 2}, None, None]


def test_hints_about_a_store_of_somebody_else_are_dropped_and_looked_for_once() -> None:
    worker, sender = worker_of()
    worker._wake({OTHER: {100: 1}})
    assert (sender.told, worker._look.is_set()) == ([], True)
    worker._look.clear()
    worker._elsewhere.add(OTHER)
    worker._wake({OTHER: {100: 1}})
    assert (sender.told, worker._look.is_set()) == ([], False)


async def test_listings_whose_wait_is_over_are_hinted_to_the_senders_of_their_stores() -> None:
    worker, sender = worker_of()
    await worker._release_waits([HELD, OTHER])
    assert sender.told == [{100: 4}]
