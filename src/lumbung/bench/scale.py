"""What more machines, more listings and a long backlog do to a hub.

workers   1 and 4 of them, many stores, one database, a marketplace that takes 50 ms. Each may have so few calls under
          way that it is the marketplace that is waited for: on two cores nothing else could tell them apart
backlog   a worker that is started where a million listings are due: its first push, and what memory it takes
import    `lumbung listing import` of a file of a million listings
"""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import msgspec

from lumbung.bench.figure import Figure, Target, ratio
from lumbung.bench.push import backlog
from lumbung.bench.rig import Process, Rig, until
from lumbung.bench.world import BenchWorld
from lumbung.db import bench as db

WORKERS = (1, 4)
WAIT_MS = 50.0
CALLS_IN_FLIGHT = "16"
FIRST_PUSH_SECONDS_MAX = 120.0
SAMPLE_SECONDS = 0.25


async def measure_workers(rig: Rig, world: BenchWorld, port: int) -> list[Figure]:
    paces: dict[int, list[float]] = {count: [] for count in WORKERS}
    async with rig.stub(port, wait_ms=WAIT_MS):
        for number in range(rig.rounds):
            rig.note(f"workers: round {number + 1} of {rig.rounds}")
            for count in WORKERS:
                async with _workers(rig, count) as workers:
                    paces[count].append(await backlog(rig, world, *workers))
    few, many = (Figure(f"{n} workers", "listings/s", tuple(paces[n])) for n in WORKERS)
    about = f"a marketplace that takes {WAIT_MS:g} ms, {CALLS_IN_FLIGHT} calls a worker at once"
    return [few, many, ratio(f"{WORKERS[1]} workers / {WORKERS[0]}", many, few, Target(3.4, 3.8), about)]


@asynccontextmanager
async def _workers(rig: Rig, count: int) -> AsyncIterator[Sequence[Process]]:
    async with AsyncExitStack() as stack:
        starting = (
            stack.enter_async_context(rig.worker(f"worker-{n}", CALLS_IN_FLIGHT_MAX=CALLS_IN_FLIGHT))
            for n in range(count)
        )
        yield await asyncio.gather(*starting)


async def measure_backlog(rig: Rig, world: BenchWorld, stub: Process) -> list[Figure]:
    """`world`: as many listings as are to be due."""
    firsts, memories = [], []
    for number in range(rig.rounds):
        rig.note(f"backlog: round {number + 1} of {rig.rounds}")
        async with rig.pool.connection() as connection:
            await db.make_due(connection, world.store_ids)
            await db.tidy(connection)
        before = await _calls(stub)
        began = perf_counter()
        async with rig.worker() as worker:
            # The process has answered by now: its start is a part of the time.
            await until(partial(_called, stub, before), FIRST_PUSH_SECONDS_MAX, "the first push")
            firsts.append(perf_counter() - began)
            memories.append(await _most_memory(worker, rig.seconds))
    due = f"{world.listings:,} due"
    return [
        Figure(f"{due}: start of a worker to its first push", "s", tuple(firsts), Target(2, 1, at_most=True)),
        Figure(f"{due}: memory of a worker", "MB", tuple(memories), Target(200, 120, at_most=True)),
    ]


async def _calls(stub: Process) -> int:
    counts = msgspec.json.decode(await stub.get("/counts"))
    return int(counts["calls"])


async def _called(stub: Process, before: int) -> bool:
    return await _calls(stub) > before


async def _most_memory(worker: Process, seconds: float) -> float:
    most, ends = 0.0, perf_counter() + seconds
    while perf_counter() < ends:
        most = max(most, worker.memory_mb())
        await asyncio.sleep(SAMPLE_SECONDS)
    return most


async def measure_import(rig: Rig, tenant_name: str, stores: Sequence[str], listings: int) -> list[Figure]:
    """Into a tenant whose SKUs sku1, sku2, ... are there, and none of whose stores has a listing."""
    file = rig.directory / "listings.csv"
    await asyncio.to_thread(_write, file, stores, listings)
    rig.note(f"import: {listings:,} listings")
    began = perf_counter()
    await rig.command("listing", "import", str(file), "--tenant", tenant_name)
    took = perf_counter() - began
    return [Figure(f"import of {listings:,} listings", "s", (took,), Target(60, 40, at_most=True))]


def _write(file: Path, stores: Sequence[str], listings: int) -> None:
    with file.open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(("sku", "store", "remote_variant"))
        for number in range(listings):
            sku, place = divmod(number, len(stores))
            rows.writerow((f"sku{sku + 1}", stores[place], f"TOB-{place + 1:05}-{sku + 1:07}"))
