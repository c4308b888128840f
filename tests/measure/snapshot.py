"""Throughput while a snapshot is held open: `python -m tests.measure.snapshot --seconds 600`.

Listings are updated again and again, as fast as one API process takes updates and one worker delivers them. Few of
them get long chains of versions; many, with some hot ones among them, are nearer to what there is:
`--listings 20000 --stores 4 --hot 5`. Then somebody reads in a REPEATABLE READ transaction and leaves it open (a
backup, a report, a forgotten session): from now on no version of a row that is still visible to it can be cleaned away.
A line for each half minute:

    accepted/s   updates that the API has answered with 200
    recorded/s   results that the worker has written down
    CPU ms       of all processes for each result, which tells what it costs also on a machine that is busy with others
    dead         versions of rows that nobody cleans away, as the statistics have it
    HOT          share of the row updates that needed no new entry in an index
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import asyncpg
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from lumbung.cli.roles import free_port
from lumbung.db.pool import Pool
from tests.measure.control import request
from tests.measure.cpu import cpu_seconds
from tests.measure.hub import HOST, Hub, open_hub
from tests.measure.merchant import Merchant, Sender, open_merchant, shares

SENDERS = 4  # of each merchant
RATIO_MIN, RATIO_AIM = 0.85, 0.95
LAST_SECONDS = 120.0

# Partitions count as the table that they are of.
STATISTICS = """
    SELECT coalesce(parent.relname, s.relname) AS name, sum(s.n_dead_tup)::bigint AS dead,
           sum(s.n_tup_upd)::bigint AS updates, sum(s.n_tup_hot_upd)::bigint AS hot,
           sum(pg_relation_size(s.relid))::bigint AS bytes
    FROM pg_stat_user_tables s
    LEFT JOIN pg_inherits i ON i.inhrelid = s.relid
    LEFT JOIN pg_class parent ON parent.oid = i.inhparent
    GROUP BY 1 ORDER BY 1
"""
SHOWN = ("listing_state", "contribution", "stock_level", "stock_update")


@dataclass(frozen=True, slots=True)
class Rows:
    """A table's: `dead` versions now, `updates` and `hot` ones since it was made, `size` of its heap in bytes."""

    dead: int
    updates: int
    hot: int
    size: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts since the start. `at`: seconds. `cpu`: seconds of CPU time."""

    at: float
    cpu: float
    accepted: int
    recorded: int
    tables: dict[str, Rows]


@dataclass(frozen=True, slots=True)
class Pace:
    """What was done a second, and for how long. `cost`: ms of CPU time for each result."""

    seconds: float
    accepted: float
    recorded: float
    cost: float

    @classmethod
    def between(cls, first: Reading, last: Reading) -> Pace:
        seconds = last.at - first.at
        accepted, recorded = last.accepted - first.accepted, last.recorded - first.recorded
        return cls(seconds, accepted / seconds, recorded / seconds, 1000 * (last.cpu - first.cpu) / max(1, recorded))

    def ratio(self, before: Pace) -> float:
        """The worse one of the two."""
        return min(self.accepted / before.accepted, self.recorded / before.recorded)


class Load:
    """Threads that send without a pause."""

    def __init__(self, api_url: str, merchants: Sequence[Merchant], hot: int):
        self._stop = threading.Event()
        self._senders = [
            Sender(api_url, merchant, with_hot(skus, hot))
            for merchant in merchants
            for skus in shares(merchant.skus, SENDERS)
        ]
        self._threads = [
            threading.Thread(target=sender.send_ceaselessly, args=(self._stop,)) for sender in self._senders
        ]

    @property
    def accepted(self) -> int:
        return sum(sender.accepted for sender in self._senders)

    @property
    def refused(self) -> int:
        return sum(sender.refused for sender in self._senders)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def with_hot(skus: Sequence[str], hot: int) -> Sequence[str]:
    """In turn; every other one is the next of the first `hot`."""
    if not hot:
        return skus
    return [each for place, sku in enumerate(skus) for each in (sku, skus[place % hot])]


class Meter:
    """Reads counts, from where reading them costs nearly nothing: never from a table that is being measured."""

    def __init__(self, pool: Pool, load: Load, metrics_url: str, roots: Sequence[int]):
        self._pool = pool
        self._roots = roots
        self._load = load
        self._metrics_url = metrics_url

    async def read(self) -> Reading:
        at, accepted = perf_counter(), self._load.accepted
        recorded = await asyncio.to_thread(recorded_at, self._metrics_url)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(STATISTICS)
        tables = {row["name"]: Rows(row["dead"], row["updates"], row["hot"], row["bytes"]) for row in rows}
        return Reading(at, cpu_seconds(self._roots), accepted, recorded, tables)

    async def watch(self, seconds: float, window_seconds: float, first: Reading, show: Show) -> list[Reading]:
        """A reading each window, the first one before it among them."""
        readings = [first]
        while (left := seconds - (perf_counter() - first.at)) > window_seconds / 10:
            await asyncio.sleep(min(window_seconds, left))
            readings.append(await self.read())
            show.window(readings[-2], readings[-1])
        return readings


def recorded_at(metrics_url: str) -> int:
    """Results that a worker has written down."""
    status, body = request(metrics_url, "GET", "/metrics")
    assert status == 200, status
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
            if sample.name == "lumbung_attempts_total"
        )
    )


class Show:
    """A line as soon as it is known: the whole takes a quarter of an hour."""

    def __init__(self, console: Console):
        self._console = console
        self._began = perf_counter()
        self.phase = ""

    def headings(self) -> None:
        names = "".join(f"{name + ': dead, MB, HOT':>30}" for name in SHOWN)
        self._console.print(f"{'s':>5}  {'':8}{'accepted/s':>11}{'recorded/s':>11}{'CPU ms':>8}{names}")

    def window(self, first: Reading, last: Reading) -> None:
        pace = Pace.between(first, last)
        cells = "".join(f"{_cell(first.tables[name], last.tables[name]):>30}" for name in SHOWN)
        figures = f"{pace.accepted:11.0f}{pace.recorded:11.0f}{pace.cost:8.1f}"
        line = f"{last.at - self._began:5.0f}  {self.phase:8}{figures}{cells}"
        self._console.print(line, soft_wrap=True, highlight=False)


def _cell(first: Rows, last: Rows) -> str:
    updates = last.updates - first.updates
    share = f"{100 * (last.hot - first.hot) / updates:.0f}%" if updates else "-"
    return f"{last.dead:,}  {last.size / 2**20:.0f}  {share}"


@asynccontextmanager
async def held_snapshot(url: str) -> AsyncIterator[None]:
    """As pg_dump holds one."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT count(*) FROM listing_state")
            yield
    finally:
        await connection.close()


async def measure(arguments: argparse.Namespace) -> None:
    console = Console(soft_wrap=True)
    async with open_hub() as hub:
        sandbox = await hub.start_sandbox()
        stores = arguments.merchants * arguments.stores
        skus = max(SENDERS, arguments.listings // stores)
        merchants = [
            await open_merchant(hub, sandbox, n + 1, stores=arguments.stores, skus=skus)
            for n in range(arguments.merchants)
        ]
        port = free_port(HOST)
        load = Load(await hub.start_api(), merchants, arguments.hot)
        worker = await hub.start_worker(METRICS_PORT=str(port))
        metrics_url = f"http://{HOST}:{port}"
        await hub.until_answering(worker, f"{metrics_url}/metrics")
        console.print(f"{skus * stores} listings in {stores} stores")
        load.start()
        try:
            readings = await _run(hub, Meter(hub.pool, load, metrics_url, hub.roots), Show(console), arguments)
        finally:
            await asyncio.to_thread(load.stop)
        console.print(table_of(readings[0][0], readings[1][-1]))
        console.print(f"{load.refused:,} updates were refused")
        console.print(verdict(*readings))


async def _run(
    hub: Hub, meter: Meter, show: Show, arguments: argparse.Namespace
) -> tuple[list[Reading], list[Reading], list[Reading]]:
    """The readings before, with the snapshot, and after it."""
    window = arguments.window
    show.headings()
    show.phase = "warm"
    warm = await meter.watch(arguments.warm, window, await meter.read(), show)
    show.phase = "before"
    before = await meter.watch(arguments.before, window, warm[-1], show)
    show.phase = "held"
    async with held_snapshot(hub.url):
        held = await meter.watch(arguments.seconds, window, before[-1], show)
    show.phase = "after"
    after = await meter.watch(arguments.after, window, held[-1], show)
    return before, held, after


def table_of(first: Reading, last: Reading) -> Table:
    table = Table(title="Tables with dead rows when the snapshot was let go; HOT since the measured time began")
    for column in ("table", "dead rows", "heap MB", "updates", "HOT"):
        table.add_column(column, justify="left" if column == "table" else "right")
    for name, rows in last.tables.items():
        old = first.tables.get(name, Rows(0, 0, 0, 0))
        updates = rows.updates - old.updates
        if rows.dead:
            share = f"{100 * (rows.hot - old.hot) / updates:.1f}%" if updates else "-"
            table.add_row(name, f"{rows.dead:,}", f"{rows.size / 2**20:.1f}", f"{updates:,}", share)
    return table


def verdict(before: Sequence[Reading], held: Sequence[Reading], after: Sequence[Reading]) -> str:
    was = Pace.between(before[0], before[-1])
    last = Pace.between(_last_seconds(held), held[-1])
    worst = min(Pace.between(first, then).ratio(was) for first, then in pairwise(held))
    ratio = last.ratio(was)
    lines = [
        f"before: {was.accepted:.0f} accepted/s, {was.recorded:.0f} recorded/s, {was.cost:.1f} ms of CPU time for each",
        f"the last {last.seconds:.0f} s with the snapshot: {_compared(last, was)}; worst window {worst:.2f} of before",
    ]
    if len(after) > 1:
        lines.append(f"after it: {_compared(Pace.between(after[0], after[-1]), was)}")
    lines.append(
        f"throughput with a snapshot held open for {held[-1].at - held[0].at:.0f} s: {ratio:.2f} of before;"
        f" {'passed' if ratio >= RATIO_MIN else 'FAILED'} ({RATIO_MIN}),"
        f" aim of {RATIO_AIM} {'reached' if ratio >= RATIO_AIM else 'missed'}"
    )
    return "\n".join(lines)


def _last_seconds(held: Sequence[Reading]) -> Reading:
    """Where the last LAST_SECONDS begin; the first half is left out of a shorter time."""
    began = held[-1].at - min(LAST_SECONDS, (held[-1].at - held[0].at) / 2)
    return min(held[:-1], key=lambda reading: abs(reading.at - began))


def _compared(pace: Pace, was: Pace) -> str:
    return (
        f"{pace.accepted:.0f} accepted/s ({pace.accepted / was.accepted:.2f}),"
        f" {pace.recorded:.0f} recorded/s ({pace.recorded / was.recorded:.2f}),"
        f" {pace.cost:.1f} ms of CPU time for each ({pace.cost / was.cost:.2f})"
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--listings", type=int, default=300)
    made.add_argument("--merchants", type=int, default=3)
    made.add_argument("--stores", type=int, default=2, help="of each merchant")
    made.add_argument("--hot", type=int, default=0, help="SKUs of each sender that get every other update")
    made.add_argument("--seconds", type=float, default=600.0, help="that the snapshot is held")
    made.add_argument("--before", type=float, default=120.0)
    made.add_argument("--after", type=float, default=60.0, help="that the load goes on when it is let go")
    made.add_argument("--warm", type=float, default=30.0)
    made.add_argument("--window", type=float, default=30.0, help="seconds of a line")
    return made


if __name__ == "__main__":
    asyncio.run(measure(parser().parse_args()))
