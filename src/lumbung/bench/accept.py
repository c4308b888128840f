"""How many updates are accepted a second, and how long one takes at half of that.

100,000 SKUs of 5 tenants, each listed twice; every update names a SKU anywhere among them. No worker runs: what is due
is settled between the rounds, so that no round ends items of the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lumbung.bench.baselines import commits_per_second, rows_per_second
from lumbung.bench.figure import TOLD, Figure, Target, at_best, ratio
from lumbung.bench.generator import Generator
from lumbung.bench.load import Load
from lumbung.bench.requests import updates
from lumbung.bench.rig import Process, Rig
from lumbung.bench.world import BenchWorld
from lumbung.bench.wrk import Wrk
from lumbung.db import bench as db
from lumbung.db.bench import Bare
from lumbung.errors import LumbungError

CONNECTIONS = 128
WARM_SHARE = 0.3
OF_ECHO = Target(0.30, 0.50)


@dataclass(slots=True)
class Measured:
    """One value a round."""

    echo: list[float] = field(default_factory=list)
    rows: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    commits_of_many: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


async def measure(rig: Rig, world: BenchWorld) -> list[Figure]:
    requests = updates(world.tenants, seed=1)
    listings = len(world.tenants[0].store_ids)
    bare = Bare(rig.pool, keys=world.listings)
    await bare.prepare()
    found = Measured()
    first = world.tenants[0]
    of_first = [request for request in requests if first.partner_id.encode() in request]
    async with rig.echo(first.secret) as echo, rig.api() as api:
        echoing = rig.generator(echo.url, of_first)
        accepting = rig.generator(api.url, requests)
        steadily = Generator(api.url, requests)
        await echoing.ceaselessly(WARM_SHARE * rig.seconds, CONNECTIONS)
        await settled(rig, await accepting.ceaselessly(WARM_SHARE * rig.seconds, CONNECTIONS))
        for number in range(rig.rounds):
            rig.note(f"accept: round {number + 1} of {rig.rounds}")
            found.echo.append(checked(await echoing.ceaselessly(rig.seconds, CONNECTIONS)).per_second)
            found.rows.append(await rows_per_second(rig, bare, rig.seconds, listings))
            found.commits.append(await commits_per_second(rig, 1, rig.seconds))
            found.commits_of_many.append(await commits_per_second(rig, 64, rig.seconds))
            await _accept(rig, accepting, steadily, found, api)
    return _figures(found, listings)


async def _accept(rig: Rig, accepting: Generator | Wrk, steadily: Generator, found: Measured, api: Process) -> None:
    load = checked(await accepting.ceaselessly(rig.seconds, CONNECTIONS))
    found.accepted.append(load.per_second)
    found.memory_mb.append(api.memory_mb())
    await settled(rig, load)
    load = checked(await steadily.steadily(load.per_second / 2, rig.seconds, CONNECTIONS))
    found.p50_ms.append(load.percentile_ms(50))
    found.p99_ms.append(load.percentile_ms(99))
    await settled(rig, load)


def checked(load: Load) -> Load:
    if load.failed:
        raise LumbungError(f"{load.failed} of {load.answered + load.failed} requests were not answered with 200")
    return load


async def settled(rig: Rig, load: Load) -> None:
    """What a load has left is as if delivered. Raises LumbungError when some of it was refused."""
    checked(load)
    async with rig.pool.connection() as connection:
        await db.settle_all(connection)
        await db.tidy(connection)


def _figures(found: Measured, listings: int) -> list[Figure]:
    e = Figure("E: echo, no database", "requests/s", tuple(found.echo), TOLD)
    r = Figure(f"R: 500-row upserts, as of updates with {listings} listings", "rows/s", tuple(found.rows), TOLD)
    one = Figure("C: single-row commits, 1 client", "commits/s", tuple(found.commits), TOLD)
    many = Figure("C: single-row commits, 64 clients", "commits/s", tuple(found.commits_of_many), TOLD)
    a = Figure("A: updates accepted, client included", "updates/s", tuple(found.accepted), Target(None, 6000.0))
    best = at_best([(1, e), (4 + 3 * listings, r)])
    return [
        e,
        r,
        one,
        many,
        a,
        ratio("A/E", a, e, OF_ECHO),
        ratio("A/A*", a, best, Target(0.60, 0.80)),
        Figure("accept at half that rate, p50", "ms", tuple(found.p50_ms), Target(10, 5, at_most=True)),
        Figure("accept at half that rate, p99", "ms", tuple(found.p99_ms), Target(80, 25, at_most=True)),
        Figure("memory of the API process under load", "MB", tuple(found.memory_mb), Target(200, 120, at_most=True)),
    ]
