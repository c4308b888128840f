"""How many listings are told their quantity a second, one a call and 50 a call, with everything written down.

A backlog is made (a record, an item, a contribution and a state for each listing) and a worker is let at it; what is
timed is from a tenth of it to nine tenths. Pushes are counted when they are recorded, not when they are sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from prometheus_client.parser import text_string_to_metric_families

from lumbung.bench.baselines import calls_per_second, rows_per_second
from lumbung.bench.figure import Figure, Target, at_best, ratio
from lumbung.bench.rig import Process, Rig, until
from lumbung.bench.world import BenchWorld
from lumbung.db import bench as db
from lumbung.db import wake
from lumbung.db.bench import Bare
from lumbung.errors import LumbungError

ROWS = 3  # of each listing: its item, its state, its record
BODY = b'{"availableStock":100}'
FROM_SHARE, TO_SHARE = 0.1, 0.9
LOOK_SECONDS = 0.25  # each look takes time of the worker that is looked at
DRAIN_SECONDS_MAX = 600.0


@dataclass(slots=True)
class Measured:
    """One value a round."""

    calls: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    pushed: list[float] = field(default_factory=list)


async def measure_single(rig: Rig, world: BenchWorld, stub: Process) -> list[Figure]:
    """`world`: of stores that take one listing a call."""
    bare = Bare(rig.pool, keys=world.listings)
    await bare.prepare()
    found = Measured()
    async with rig.worker() as worker:
        await backlog(rig, world, worker)  # a warm one
        for number in range(rig.rounds):
            rig.note(f"push, one listing a call: round {number + 1} of {rig.rounds}")
            found.calls.append(await calls_per_second(rig, f"{stub.url}/blib/baseline", BODY, rig.seconds))
            found.rows.append(await rows_per_second(rig, bare, rig.seconds, 1))
            found.pushed.append(await backlog(rig, world, worker))
    h = Figure("H: HTTP client to the stub marketplace", "calls/s", tuple(found.calls))
    r = Figure("R: 500-row upserts, as of updates with 1 listing", "rows/s", tuple(found.rows))
    p = Figure("P: pushes recorded, one listing a call", "listings/s", tuple(found.pushed))
    best = at_best([(1, h), (ROWS + 1, r)])
    return [h, r, p, ratio("P/H", p, h, Target(0.50, 0.70)), ratio("P/P*", p, best, Target(0.70, 0.85))]


async def measure_batched(rig: Rig, world: BenchWorld) -> list[Figure]:
    """`world`: of stores that take 50 listings a call."""
    pushed = []
    async with rig.worker() as worker:
        await backlog(rig, world, worker)
        for number in range(rig.rounds):
            rig.note(f"push, 50 listings a call: round {number + 1} of {rig.rounds}")
            pushed.append(await backlog(rig, world, worker))
    return [Figure("push, 50 listings a call", "listings/s", tuple(pushed), Target(20_000, 35_000))]


async def backlog(rig: Rig, world: BenchWorld, *workers: Process) -> float:
    """Make everything due and have it delivered; listings a second."""
    before = await recorded(*workers)
    async with rig.pool.connection() as connection:
        await db.tidy(connection)
        await db.make_due(connection, world.store_ids)
    await wake.notify(rig.pool, world.store_ids)
    total = world.listings
    first = await _when(workers, before + FROM_SHARE * total)
    last = await _when(workers, before + TO_SHARE * total)
    await until(lambda: _reached(workers, before + total), DRAIN_SECONDS_MAX, "everything to be recorded")
    return (last[1] - first[1]) / (last[0] - first[0])


async def _when(workers: Sequence[Process], count: float) -> tuple[float, float]:
    """The time and the count when so many were first seen to be recorded."""
    ends = perf_counter() + DRAIN_SECONDS_MAX
    while (found := await recorded(*workers)) < count:
        if perf_counter() > ends:
            raise LumbungError(f"Waited {DRAIN_SECONDS_MAX:g} s for {count:.0f} recorded pushes; there are {found:.0f}")
        await asyncio.sleep(LOOK_SECONDS)
    return perf_counter(), found


async def _reached(workers: Sequence[Process], count: float) -> bool:
    return await recorded(*workers) >= count


async def recorded(*workers: Process) -> float:
    """Listings whose new quantity was taken, and written down as taken."""
    texts = await asyncio.gather(*(worker.get("/metrics") for worker in workers))
    return sum(
        sample.value
        for text in texts
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == "lumbung_attempts_total" and sample.labels["outcome"] == "Accepted"
    )
