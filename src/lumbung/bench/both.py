"""Accepting and pushing together, each compared with itself alone in the same round.

Every update names one SKU that is listed twice, and each of its listings is a call of its own. Alone: no worker runs;
or nobody sends updates, and the worker has a backlog.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

from lumbung.bench.accept import CONNECTIONS, WARM_SHARE, checked, settled
from lumbung.bench.figure import Figure, Target
from lumbung.bench.push import DRAIN_SECONDS_MAX, backlog, recorded
from lumbung.bench.requests import updates
from lumbung.bench.rig import Rig, until
from lumbung.bench.world import BenchWorld
from lumbung.db import bench as db


@dataclass(slots=True)
class Measured:
    accepted: list[float] = field(default_factory=list)
    pushed: list[float] = field(default_factory=list)
    accepted_beside: list[float] = field(default_factory=list)
    pushed_beside: list[float] = field(default_factory=list)


async def measure(rig: Rig, world: BenchWorld) -> list[Figure]:
    found = Measured()
    async with rig.api() as api:
        accepting = rig.generator(api.url, updates(world.tenants, seed=2))
        await settled(rig, await accepting.ceaselessly(WARM_SHARE * rig.seconds, CONNECTIONS))
        for number in range(rig.rounds):
            rig.note(f"both: round {number + 1} of {rig.rounds}")
            load = await accepting.ceaselessly(rig.seconds, CONNECTIONS)
            found.accepted.append(load.per_second)
            await settled(rig, load)
            async with rig.worker() as worker:
                found.pushed.append(await backlog(rig, world, worker))
                before, began = await recorded(worker), perf_counter()
                load = checked(await accepting.ceaselessly(rig.seconds, CONNECTIONS))
                pushed, took = await recorded(worker) - before, perf_counter() - began
                found.accepted_beside.append(load.per_second)
                found.pushed_beside.append(pushed / took)
                await until(lambda: _nothing_due(rig), DRAIN_SECONDS_MAX, "everything to be delivered")
    return _figures(found)


async def _nothing_due(rig: Rig) -> bool:
    async with rig.pool.connection() as connection:
        return not await db.anything_due(connection)


def _figures(found: Measured) -> list[Figure]:
    a, p = (Figure(f"{what} alone", "/s", tuple(v)) for what, v in (("accept", found.accepted), ("push", found.pushed)))
    a2 = Figure("accept beside push", "/s", tuple(found.accepted_beside))
    p2 = Figure("push beside accept", "/s", tuple(found.pushed_beside))
    shares = tuple(
        beside / alone + other / other_alone
        for beside, alone, other, other_alone in zip(a2.values, a.values, p2.values, p.values, strict=True)
    )
    return [a, p, a2, p2, Figure("A'/A + P'/P", "", shares, Target(0.85, 0.95))]
