"""Stores that an operator has changed: which leases are given back, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lumbung.clock import ManualClock
from lumbung.db.lease import NO_DOUBTS
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.opening import Opener
from lumbung.dispatch.storage import Storage
from lumbung.dispatch.worker import WakeUps, Worker
from lumbung.settings import Settings

STORE = 7


class GivingBack:
    """Writes down what is given back."""

    def __init__(self) -> None:
        self.given_back: list[tuple[int, list[int]]] = []

    async def give_back(
        self, worker_id: int, store_ids: Iterable[int], doubts: Mapping[int, float] = NO_DOUBTS
    ) -> None:
        self.given_back.append((worker_id, list(store_ids)))


class Sender:
    """A sender whose token pair is being traded until `traded` is set."""

    def __init__(self, epoch: int) -> None:
        self.lease = SimpleNamespace(store_id=STORE, epoch=epoch)
        self.traded = asyncio.Event()
        self.abandoned = False
        self.doubt_seconds = 0.0

    @property
    def is_trading(self) -> bool:
        return not self.traded.is_set()

    async def trades_settled(self) -> None:
        await self.traded.wait()

    def abandon(self) -> None:
        self.abandoned = True


class Holding:
    """A worker that holds one store."""

    def __init__(self, epoch: int) -> None:
        self.storage = GivingBack()
        self.worker = Worker(
            cast(Storage, self.storage),
            cast(WakeUps, None),
            Settings(),
            name="test",
            lifetime_seconds=15.0,
            opener=cast(Opener, SimpleNamespace(channels={})),
            clock=ManualClock(),
            metrics=WorkerMetrics(),
            dice=lambda: 0.5,
        )
        self.worker._worker_id = 1
        self.sender = self.hold(epoch)

    def hold(self, epoch: int) -> Sender:
        sender = Sender(epoch)
        running: Any = asyncio.create_task(asyncio.Event().wait())
        self.worker._senders[STORE] = cast(Any, sender), running
        return sender

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def holding() -> Holding:
    return Holding(epoch=3)


async def test_a_store_that_trades_is_given_back_when_it_has_traded(holding: Holding) -> None:
    await holding.worker._open_anew({STORE: 3})
    await holding.settle()
    assert (holding.sender.abandoned, holding.storage.given_back) == (True, [])
    holding.sender.traded.set()
    await holding.settle()
    assert holding.storage.given_back == [(1, [STORE])]


async def test_a_sender_that_was_begun_anew_meanwhile_keeps_its_lease(holding: Holding) -> None:
    """What is known to have changed is the epoch before: somebody has seen to it already."""
    await holding.worker._open_anew({STORE: 2})
    holding.sender.traded.set()
    await holding.settle()
    assert (holding.sender.abandoned, holding.storage.given_back) == (False, [])


async def test_a_process_that_was_registered_anew_meanwhile_gives_back_nothing_of_its_new_leases(
    holding: Holding,
) -> None:
    await holding.worker._open_anew({STORE: 3})
    holding.worker._worker_id = 2
    again = holding.hold(epoch=5)
    holding.sender.traded.set()
    await holding.settle()
    assert (again.abandoned, holding.storage.given_back) == (False, [])
