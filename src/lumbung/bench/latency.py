"""How long one update takes through an idle hub: from its POST to the marketplace's receipt, and until it is recorded.

One at a time, with a pause of random length between, so that nothing keeps step with a poll.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import time

import msgspec

from lumbung.bench.figure import Figure, Target
from lumbung.bench.load import percentile
from lumbung.bench.requests import update_body
from lumbung.bench.rig import Process, Rig
from lumbung.bench.world import BenchTenant, BenchWorld
from lumbung.client.partner import PartnerClient
from lumbung.db import bench as db
from lumbung.errors import LumbungError

SLOW_MS = 120.0
PAUSE_SECONDS = (0.02, 0.06)
RECORDED_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.001
UPDATES_A_SECOND = 8  # about: how many make up a round


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, of each update."""

    received: list[float]
    recorded: list[float]


async def measure(rig: Rig, world: BenchWorld, port: int) -> list[Figure]:
    """`world`: one tenant with one store; `port`: where its marketplace is reached."""
    figures = []
    for wait_ms in (0.0, SLOW_MS):
        rounds = []
        async with rig.stub(port, wait_ms=wait_ms, receipts=True) as stub, rig.api() as api, rig.worker():
            sender = _Sender(rig, world.tenants[0], api, stub)
            await sender.some(UPDATES_A_SECOND)  # leases, connections and plans are there then
            for number in range(rig.rounds):
                rig.note(f"latency, marketplace takes {wait_ms:g} ms: round {number + 1} of {rig.rounds}")
                rounds.append(await sender.some(max(3, int(rig.seconds * UPDATES_A_SECOND))))
        figures += _slow(rounds) if wait_ms else _idle(rounds)
    return figures


def _idle(rounds: list[Times]) -> list[Figure]:
    return [
        _percentiles("idle hub, POST to the marketplace's receipt, p50", 50, rounds, 20, 6),
        _percentiles("idle hub, POST to the marketplace's receipt, p99", 99, rounds, 100, 30),
    ]


def _slow(rounds: list[Times]) -> list[Figure]:
    values = tuple(percentile(times.recorded, 50) * 1000 for times in rounds)
    name = f"a marketplace that takes {SLOW_MS:g} ms, POST until recorded, p50"
    return [Figure(name, "ms", values, Target(200, 150, at_most=True))]


def _percentiles(name: str, percent: float, rounds: list[Times], passed: float, aim: float) -> Figure:
    values = tuple(percentile(times.received, percent) * 1000 for times in rounds)
    return Figure(name, "ms", values, Target(passed, aim, at_most=True))


class _Sender:
    """Each update says a number that no other says: the stub's receipts are told apart by it."""

    def __init__(self, rig: Rig, tenant: BenchTenant, api: Process, stub: Process):
        self._rig = rig
        self._tenant = tenant
        self._client = PartnerClient(api.url, tenant.partner_id, tenant.secret)
        self._stub = stub
        self._number = 0
        self._dice = random.Random(1)  # noqa: S311 (a load, no secret)

    async def some(self, count: int) -> Times:
        times = Times([], [])
        for _ in range(count):
            await asyncio.sleep(self._dice.uniform(*PAUSE_SECONDS))
            await self._one(times)
        return times

    async def _one(self, times: Times) -> None:
        self._number += 1
        sku = self._tenant.skus[self._number % len(self._tenant.skus)]
        body = msgspec.json.decode(update_body(sku, self._number, self._tenant.channels))
        sent_at = time()
        answer = self._client.update_stocks(body)
        if answer.status != 200:
            raise LumbungError(f"An update was answered {answer.status}: {answer.body.decode(errors='replace')}")
        await self._until_recorded(answer.json["transaction_code"])
        times.recorded.append(time() - sent_at)
        receipts = msgspec.json.decode(await self._stub.get("/receipts"), type=list[tuple[float, int]])
        [received_at] = [at for at, quantity in receipts if quantity == self._number]
        times.received.append(received_at - sent_at)

    async def _until_recorded(self, code: str) -> None:
        async with self._rig.pool.connection() as connection:
            ends = time() + RECORDED_SECONDS_MAX
            while not await db.is_finished(connection, tenant_id=self._tenant.id, transaction_code=code):
                if time() > ends:
                    raise LumbungError(f"Transaction {code} was not recorded within {RECORDED_SECONDS_MAX:g} s")
                await asyncio.sleep(LOOK_SECONDS)
