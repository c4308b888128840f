"""`lumbung torture`: the whole hub under fire on this machine, and an auditor that sees whether a promise is broken."""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lumbung.cli import EXIT_WRONG, logs, machine, output
from lumbung.cli import torture_world as making
from lumbung.cli.compose import installation
from lumbung.cli.roles import free_port, run_unless_signalled
from lumbung.db.database import recreate
from lumbung.db.embedded import PORT, EmbeddedPostgres
from lumbung.errors import ConfigurationError
from lumbung.settings import Settings, load
from lumbung.torture import arena, bouncer, fake_time, figures, nemesis, report
from lumbung.torture.arena import Lengths
from lumbung.torture.fleet import HOST, PROGRAM, FleetPlan, running
from lumbung.torture.journal import Journal
from lumbung.torture.judgement import Judgement, Times, judge
from lumbung.torture.market import Market
from lumbung.torture.proxy import Upstream
from lumbung.torture.targets import Targets
from lumbung.torture.workload import Pace, Workload

DATABASE = "lumbung_torture"
REST_SECONDS = 120.0
CALM_SHARE, CALM_SECONDS_MAX = 0.2, 20.0
OUTAGE_SHARE, OUTAGE_SECONDS_MAX = 0.1, 60.0
TIMES = Times(lifetime=2.0, timeout=0.8, quiesce=making.QUIESCE_SECONDS)

# In the proportions of the defaults, where a lease lives 15 s, but for waits that a run has no time for.
ENV: Mapping[str, str] = {
    "LUMBUNG_LEASE_SECONDS": f"{TIMES.lifetime:g}",
    "LUMBUNG_CALL_TIMEOUT_SECONDS_MAX": f"{TIMES.timeout:g}",
    "LUMBUNG_POLL_SECONDS": "0.13",
    "LUMBUNG_LOOK_REST_SECONDS_MAX": "0.67",
    "LUMBUNG_BACKOFF_FIRST_SECONDS": "0.1",
    "LUMBUNG_BACKOFF_MAX_SECONDS": "3",
    "LUMBUNG_THROTTLE_DEFAULT_SECONDS": "1",
    "LUMBUNG_THROTTLE_SECONDS_MIN": "0.2",
    # What is further ahead than the longest of these was written before the clock went back: an hour must be.
    "LUMBUNG_THROTTLE_SECONDS_MAX": "10",
    "LUMBUNG_PARK_RETRY_SECONDS": "10",
    "LUMBUNG_DEFER_DEFAULT_SECONDS": "2",
    "LUMBUNG_DEFER_SECONDS_MAX": "5",
    "LUMBUNG_FLOOR_RETRY_SECONDS": "2",
    "LUMBUNG_SUBMITTED_CHECK_SECONDS_MAX": "5",
    "LUMBUNG_SUBMITTED_SECONDS_MAX": "10",
    "LUMBUNG_QUIESCE_SECONDS_MAX": "10",
    "LUMBUNG_BREAKER_PROBE_SECONDS": "0.3",
    "LUMBUNG_BREAKER_PROBE_SECONDS_MAX": "2",
    "LUMBUNG_CONNECT_TIMEOUT_SECONDS": "0.8",
    "LUMBUNG_DATABASE_CONNECT_TIMEOUT_SECONDS": "1",
    "LUMBUNG_DATABASE_COMMAND_TIMEOUT_SECONDS": "2",
    "LUMBUNG_DATABASE_IDLE_TRANSACTION_TIMEOUT_SECONDS": "4",
    "LUMBUNG_ACCEPT_TIMEOUT_SECONDS": "3",
    "LUMBUNG_UPDATE_LOCK_TIMEOUT_MS": "2000",
    "LUMBUNG_TOKEN_REFRESH_SECONDS_MIN": "0.5",
    "LUMBUNG_DEADLINE_SWEEP_SECONDS": "1",
    "LUMBUNG_METRICS_INTERVAL_SECONDS": "5",
    "LUMBUNG_PARTNER_CACHE_SECONDS": "2",
    "LUMBUNG_KEY_FILE": "",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `program`: the command line of a hub process; `env`: added to its environment; `quiesce_seconds`: of
    every store; `rest_seconds`: how long is waited at most until nothing happens any more."""

    seconds: float
    seed: int
    names: tuple[str, ...]
    tenants: int = 3
    skus: int = 20
    apis: int = 2
    workers: int = 3
    calls_per_second: float = 50.0
    updates_per_second: float = 150.0
    writers: int = 12
    env: Mapping[str, str] = field(default_factory=lambda: ENV)
    program: Sequence[str] = PROGRAM
    quiesce_seconds: float = TIMES.quiesce
    rest_seconds: float = REST_SECONDS

    @property
    def times(self) -> Times:
        return replace(TIMES, quiesce=self.quiesce_seconds)

    @property
    def lengths(self) -> Lengths:
        calm = min(CALM_SHARE * self.seconds, CALM_SECONDS_MAX) if self.names else self.seconds
        return Lengths(calm, self.seconds - calm, self.rest_seconds)

    @property
    def outage_seconds(self) -> float:
        return min(OUTAGE_SHARE * self.seconds, OUTAGE_SECONDS_MAX)


@dataclass(slots=True)
class Result:
    journal: Journal
    judgement: Judgement
    restless: str

    @property
    def broken(self) -> bool:
        never = figures.missed(self.journal.deeds)
        return bool(self.judgement.audit.findings) or bool(self.restless) or bool(never)


def torture(
    seconds: Annotated[float, typer.Option(min=5, max=86400, help="How long updates are sent.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Chooses what is done when; processes go on as they like.")] = 1,
    nemesis_names: Annotated[
        str, typer.Option("--nemesis", help=f"all, none, or some of: {', '.join(nemesis.KNOWN)}.")
    ] = "all",
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Write the report (Markdown) to this file too.")
    ] = None,
    tenants: Annotated[int, typer.Option(min=1, max=50, help="Merchants, with four stores each.")] = 3,
    skus: Annotated[int, typer.Option(min=4, max=900, help="SKUs of a merchant, each shown in all its stores.")] = 20,
    workers: Annotated[int, typer.Option(min=1, max=50, help="Worker processes.")] = 3,
    apis: Annotated[int, typer.Option(min=1, max=50, help="API processes.")] = 2,
    updates_per_second: Annotated[float, typer.Option(min=0, help="Of all merchants; 0: as fast as it goes.")] = 150.0,
    calls_per_second: Annotated[float, typer.Option(min=1, max=10_000, help="What a store allows.")] = 50.0,
    writers: Annotated[int, typer.Option(min=2, max=500, help="Partners' connections that send at once.")] = 12,
    keep: Annotated[Path | None, typer.Option(help="Keep logs and database in this new directory.")] = None,
) -> None:
    """Kill, freeze and cut off the hub's processes while marketplaces misbehave, and see whether a promise is broken.

    Starts a PostgreSQL, API and worker processes and fake marketplaces of its own, on 127.0.0.1 only, and ends with a
    report; exit status 1 when a promise was broken.
    """
    logs.configure(load(log_level="error"))
    plan = Plan(
        seconds,
        seed,
        nemesis.chosen(nemesis_names),
        tenants,
        skus,
        apis,
        workers,
        calls_per_second,
        updates_per_second,
        writers,
    )
    with directory_for(keep) as directory:
        result = run(plan, directory)
        words = report.text(_about(result, plan), result.journal, result.judgement, TIMES)
        output.say(words)
        if report_file is not None:
            report_file.write_text(words)
        if result.broken:
            output.note(f"A promise is broken. Logs: {directory}" if keep else "A promise is broken; --keep keeps logs")
            raise typer.Exit(EXIT_WRONG)


def run(plan: Plan, directory: Path) -> Result:
    """One run in an empty directory. Blocks; Ctrl-C ends it."""
    if not sys.platform.startswith("linux"):
        raise ConfigurationError("lumbung torture needs Linux: each worker calls from a loopback address of its own")
    directory = directory.resolve()
    settings = load(data_dir=directory, database_url="", key_file="", host=HOST)
    output.note("starting PostgreSQL")
    clock_file, env = _clock(plan, directory)
    with EmbeddedPostgres.start(directory, env=env) as server:
        asyncio.run(recreate(server.url("postgres"), DATABASE))
        return run_unless_signalled(partial(_run, plan, settings, server, clock_file))


async def _run(plan: Plan, settings: Settings, server: EmbeddedPostgres, clock_file: Path | None) -> Result:
    directory = settings.data_dir
    ports = [free_port(HOST) for _ in range(plan.apis + plan.workers + 2)]
    async with installation(settings, server.url(DATABASE)) as hub, AsyncExitStack() as stack:
        upstream, env = await _way_to_the_database(stack, plan, directory, ports.pop())
        fleet_plan = FleetPlan(
            directory, plan.apis, plan.workers, upstream, DATABASE, ports[0], ports[1:], env, plan.program
        )
        output.note("starting the hub and the marketplaces")
        async with running(fleet_plan) as fleet:
            market = Market(fleet.sandbox_url)
            limits = {
                "quiesce_seconds": f"{plan.quiesce_seconds:g}",
                "calls_per_second": f"{plan.calls_per_second:g}",
            }
            size = making.Size(plan.tenants, plan.skus, plan.calls_per_second)
            made = await making.make(hub, f"http://{HOST}:{fleet.market.port}", size, plan.names, limits)
            targets = Targets(
                fleet,
                made.world,
                market,
                Journal(),
                hub.pool,
                server,
                plan.seed,
                plan.times.lifetime,
                plan.times.quiesce,
                plan.times.timeout,
                plan.outage_seconds,
                partial(making.agree_again, hub, made, market),
                clock_file,
            )
            await arena.sandbox_answers(targets)
            await asyncio.to_thread(making.put, made, market)
            await arena.started(targets, fleet.sandbox)
            return await _fight(plan, targets, directory)


async def _way_to_the_database(
    stack: AsyncExitStack, plan: Plan, directory: Path, port: int
) -> tuple[Upstream, Mapping[str, str]]:
    """Where the proxies before the database lead, and the environment of who goes there."""
    socket = directory / "postgres" / f".s.PGSQL.{PORT}"
    if "pgbouncer" not in plan.names:
        return socket, plan.env
    await stack.enter_async_context(bouncer.pooling(directory, database=DATABASE, socket=socket, port=port))
    return (HOST, port), {**plan.env, **bouncer.ENV}


async def _fight(plan: Plan, targets: Targets, directory: Path) -> Result:
    urls = [api.url for api in targets.fleet.apis]
    pace = Pace(plan.writers, plan.updates_per_second)
    workload = Workload(targets.world, urls, targets.journal, pace, plan.seed)
    restless = await arena.fight(targets, workload, plan.names, plan.lengths, output.note)
    output.note("auditing")
    targets.journal.write(directory / "journal.log")
    at_rest = await arena.at_rest(targets)
    histories = await arena.histories(targets)
    await asyncio.gather(*(member.process.stop() for member in targets.fleet.members))
    await targets.fleet.sandbox.stop()
    judgement = await asyncio.to_thread(
        judge,
        directory,
        targets.world,
        targets.journal,
        targets.fleet.members,
        histories,
        at_rest,
        plan.times,
    )
    return Result(targets.journal, judgement, restless)


@contextmanager
def directory_for(keep: Path | None) -> Iterator[Path]:
    """A directory for one run, gone afterwards unless it is to be kept."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="lumbung-torture-", ignore_cleanup_errors=True) as directory:
            yield Path(directory)
        return
    if keep.exists() and any(keep.iterdir()):
        raise ConfigurationError(f"{keep} is not empty: name a new directory for --keep")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()


def _clock(plan: Plan, directory: Path) -> tuple[Path | None, Mapping[str, str]]:
    """The file that sets the database's clock, and what the server needs to go by it; None where that cannot be."""
    if "clock" not in plan.names:
        return None, {}
    preloaded = fake_time.library()
    if preloaded is None:
        output.note("the clock is left alone: libfaketime is not installed")
        return None, {}
    clock_file = directory / "clock"
    fake_time.set_clock(clock_file, 0)
    return clock_file, fake_time.environment(preloaded, clock_file)


def _about(result: Result, plan: Plan) -> report.About:
    command = shlex.join(["lumbung", *sys.argv[1:]])
    names = tuple(name for name in plan.names if name not in nemesis.STANDING)
    return report.About(command, machine.description(), f"{datetime.now(UTC):%Y-%m-%d}", result.restless, names)
