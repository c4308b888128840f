"""What a group of updates costs: each statement by its name, and the Python between them.

`python -m tests.measure.groups [--skus 100000 --group 64 --groups 200]`: groups are accepted one after the other, by
one process, of SKUs anywhere among those of 5 merchants, each listed twice. Times of a group in ms; `python` is this
process's own, encoding and decoding included.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from uuid import uuid4

from rich.console import Console

from lumbung import garbage
from lumbung.bench.world import BenchWorld
from lumbung.cli import bench_world
from lumbung.cli.compose import installation
from lumbung.db.embedded import EmbeddedPostgres
from lumbung.db.pool import Pool
from lumbung.db.query import Query
from lumbung.inventory.stock import Rules, accept
from lumbung.model import StockUpdate, Submission
from lumbung.settings import Settings, load

RULES = Rules(frozenset({"blib", "shpe"}), 86_400)
WARM_GROUPS = 20


class Timed:
    """What each named statement has taken, in seconds."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        for name in ("all", "one", "value", "run"):
            setattr(Query, name, self._timed(getattr(Query, name)))

    def _timed(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(query: Query, *given: Any, **named: Any) -> Any:
            began = perf_counter()
            try:
                return await ask(query, *given, **named)
            finally:
                self.seconds[query.name] += perf_counter() - began

        return timed


def submissions(world: BenchWorld, dice: random.Random) -> Iterator[Submission]:
    keys = [(tenant, sku) for tenant in world.tenants for sku in tenant.skus]
    dice.shuffle(keys)
    for tenant, sku in keys:
        figures = {"blib": dice.randint(1, 99), "shpe": 5}
        update = StockUpdate(sku, "default", dice.randint(100, 1000), 0, False, figures)
        yield Submission(tenant.id, tenant.partner_id, uuid4(), update)


async def accepted(pool: Pool, group: list[Submission]) -> None:
    async with pool.transaction(lock_timeout_ms=50) as connection:
        await accept(connection, group, RULES)


async def measure(url: str, settings: Settings, asked: argparse.Namespace) -> None:
    async with installation(settings, url) as hub, Pool(url, settings, plan_once=True) as pool:
        world = await bench_world.make(
            hub, "http://127.0.0.1:9", "groups", merchants=5, skus=asked.skus, channels=("blib", "shpe")
        )
        source = submissions(world, random.Random(1))
        timed = Timed()
        for _ in range(WARM_GROUPS):
            await accepted(pool, list(islice(source, asked.group)))
        timed.seconds.clear()
        began, cpu = perf_counter(), process_time()
        for _ in range(asked.groups):
            await accepted(pool, list(islice(source, asked.group)))
        took, cpu = perf_counter() - began, process_time() - cpu
    each = 1000 / asked.groups
    pace = (
        f"{asked.group * asked.groups / took:.0f} updates/s, {took * each:.2f} ms a group, python {cpu * each:.2f} ms"
    )
    rest = took - sum(timed.seconds.values())
    rows = sorted(timed.seconds.items(), key=lambda one: -one[1])
    tell = Console(highlight=False).print
    tell(pace)
    for name, seconds in [*rows, ("the rest", rest)]:
        tell(f"{name:20} {seconds * each:7.2f}")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--skus", type=int, default=100_000)
    made.add_argument("--group", type=int, default=64)
    made.add_argument("--groups", type=int, default=200)
    asked = made.parse_args()
    garbage.collect_seldom()
    with tempfile.TemporaryDirectory(prefix="lumbung-groups-") as name:
        directory = Path(name)
        settings = load(data_dir=directory, database_url="", key_file="", log_level="error")
        with EmbeddedPostgres.start(directory) as server:
            server.ensure_database("groups")
            asyncio.run(measure(server.url("groups"), settings, asked))


if __name__ == "__main__":
    main()
