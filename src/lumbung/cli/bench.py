"""`lumbung bench`: how fast this hub is on this machine, beside what the same machine can do at best."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lumbung import garbage
from lumbung.bench import accept, both, history, latency, plot, push, report, scale, wrk
from lumbung.bench.figure import Figure
from lumbung.bench.rig import HOST, Rig
from lumbung.bench.world import BenchWorld
from lumbung.cli import bench_world, logs, machine, output
from lumbung.cli.compose import Installation, installation
from lumbung.cli.roles import free_port, run_unless_signalled
from lumbung.clock import SystemClock
from lumbung.db import bench as db
from lumbung.db.embedded import EmbeddedPostgres, bin_dir
from lumbung.settings import Settings, load

DATABASE = "lumbung_bench"
SECONDS, ROUNDS = 10.0, 3
QUICK_SECONDS, QUICK_ROUNDS = 2.0, 1
RECORDS, RECORDS_QUICK = 10_000_000, 100_000
SKUS, SKUS_QUICK = 20_000, 2_000
MERCHANTS = 5
STORES = 20
IMPORT_STORES = 10
LISTINGS, LISTINGS_QUICK = 1_000_000, 10_000


class What(StrEnum):
    ACCEPT = "accept"
    PUSH = "push"
    BOTH = "both"
    HISTORY = "history"
    LATENCY = "latency"
    SCALE = "scale"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds`: of each load; `rounds`: of each figure; `records`: of the history."""

    parts: Sequence[What]
    seconds: float
    rounds: int
    records: int
    quick: bool

    @property
    def skus(self) -> int:
        return SKUS_QUICK if self.quick else SKUS

    @property
    def listings(self) -> int:
        """Of what is measured with many."""
        return LISTINGS_QUICK if self.quick else LISTINGS


@dataclass(frozen=True, slots=True)
class Bench:
    """`stub_port`: where every store of the benchmark finds its marketplace."""

    hub: Installation
    rig: Rig
    plan: Plan
    stub_port: int

    async def world(self, name: str, merchants: int, skus: int, *channels: str) -> BenchWorld:
        self.rig.note(f"making {name}: {merchants * skus * len(channels):,} listings")
        return await bench_world.make(
            self.hub, f"http://{HOST}:{self.stub_port}", name, merchants=merchants, skus=skus, channels=channels
        )

    async def accept(self) -> list[Figure]:
        world = await self.world("accept", MERCHANTS, self.plan.skus, "blib", "shpe")
        return await accept.measure(self.rig, world)

    async def push(self) -> list[Figure]:
        single = await self.world("single", 1, self.plan.skus // 10, *["blib"] * STORES)
        batched = await self.world("batched", 1, self.plan.skus // 2, *["shpe"] * STORES)
        async with self.rig.stub(self.stub_port) as stub:
            return [
                *await push.measure_single(self.rig, single, stub),
                *await push.measure_batched(self.rig, batched),
            ]

    async def both(self) -> list[Figure]:
        world = await self.world("both", MERCHANTS, self.plan.skus, "blib", "blib")
        async with self.rig.stub(self.stub_port):
            return await both.measure(self.rig, world)

    async def latency(self) -> list[Figure]:
        world = await self.world("latency", 1, 1000, "blib")
        return await latency.measure(self.rig, world, self.stub_port)

    async def history(self) -> list[Figure]:
        others = await self.world("beside", MERCHANTS, self.plan.skus, "blib", "shpe")
        figures = []
        for shape in history.SHAPES:
            world = await self.world(f"history {shape}", 1, 100, "blib")
            records = await history.fill(self.rig, world.tenants[0], shape, self.plan.records)
            figures += await history.measure(self.rig, records, others)
        return figures

    async def scale(self) -> list[Figure]:
        many = await self.world("workers", 4, 250 if self.plan.quick else 500, *["blib"] * 10)
        due = await self.world("due", 1, self.plan.listings, "blib")
        importer = await self.world("import", 1, self.plan.listings // IMPORT_STORES)
        async with self.rig.stub(self.stub_port) as stub:
            backlog = await scale.measure_backlog(self.rig, due, stub)
            await bench_world.settle(self.hub)
        workers = await scale.measure_workers(self.rig, many, self.stub_port)
        stores = await bench_world.add_stores(self.hub, importer.tenants[0], "blib", IMPORT_STORES)
        imported = await scale.measure_import(self.rig, "import 1", stores, self.plan.listings)
        return [*workers, *backlog, *imported]


PARTS: Mapping[What, Callable[[Bench], Awaitable[list[Figure]]]] = {
    What.ACCEPT: Bench.accept,
    What.PUSH: Bench.push,
    What.BOTH: Bench.both,
    What.LATENCY: Bench.latency,
    What.HISTORY: Bench.history,
    What.SCALE: Bench.scale,
}


def bench(
    what: Annotated[What, typer.Argument(help="What is measured.")] = What.ALL,
    seconds: Annotated[float | None, typer.Option(min=0.5, help="Of each load; 10, or 2 with --quick.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Of each figure; 3, or 1 with --quick.")] = None,
    records: Annotated[int | None, typer.Option(min=1000, help="Of the history; 10,000,000, or 100,000.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw the figures into this SVG file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small and short: less exact.")] = False,
) -> None:
    """Measure how fast this hub is on this machine, beside what the same machine can do at best.

    Starts a PostgreSQL with fsync, API and worker processes and a marketplace that takes everything, of its own, on
    127.0.0.1 only. The exit status says nothing of how fast it was.
    """
    logs.configure(load(log_level="error"))
    plan = Plan(
        tuple(PARTS) if what is What.ALL else (what,),
        seconds or (QUICK_SECONDS if quick else SECONDS),
        rounds or (QUICK_ROUNDS if quick else ROUNDS),
        records or (RECORDS_QUICK if quick else RECORDS),
        quick,
    )
    about, found = run(plan)
    output.say(report.markdown(about, found))
    if json_file is not None:
        json_file.write_text(json.dumps(report.document(about, found), indent=2) + "\n")
    if plot_file is not None:
        plot_file.write_text(plot.svg([figure for figures in found.values() for figure in figures]))


def run(plan: Plan) -> tuple[report.About, dict[str, list[Figure]]]:
    """Everything in a directory that is gone afterwards. Blocks; Ctrl-C ends it."""
    with tempfile.TemporaryDirectory(prefix="lumbung-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name).resolve()
        settings = load(data_dir=directory, database_url="", key_file="", host=HOST)
        output.note("starting PostgreSQL")
        with EmbeddedPostgres.start(directory) as server:
            server.ensure_database(DATABASE)
            return run_unless_signalled(partial(_run, plan, settings, server.url(DATABASE)))


async def _run(plan: Plan, settings: Settings, url: str) -> tuple[report.About, dict[str, list[Figure]]]:
    garbage.collect_seldom()  # as the workers do, whose HTTP client is measured here
    async with installation(settings, url) as hub:
        rig = Rig(
            settings.data_dir,
            url,
            hub.pool,
            SystemClock(),
            plan.seconds,
            plan.rounds,
            plan.quick,
            bin_dir() / "pgbench",
            output.note,
            partial(free_port, HOST),
        )
        measuring = Bench(hub, rig, plan, free_port(HOST))
        figures = {part.value: await PARTS[part](measuring) for part in plan.parts}
        async with hub.pool.connection() as connection:
            server = await db.settings(connection)
    return _about(plan, server), figures


def _about(plan: Plan, server: Mapping[str, str]) -> report.About:
    command = shlex.join(["lumbung", *sys.argv[1:]])
    generator = "wrk" if wrk.program() else "our own generator"
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    return report.About(command, machine.description(), day, generator, plan.seconds, plan.rounds, server)
