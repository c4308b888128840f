"""Throughput while a snapshot is held open: `python -m tests.measure.snapshot --seconds 600`.

Two hubs that are alike are loaded in turns, as fast as one API process takes updates and one worker delivers; a turn
ends when nothing more is recorded. In one of them somebody reads in a REPEATABLE READ transaction and leaves it open
(a backup, a report, a forgotten session): from then on no version of a row that it may still see can be cleaned away.
What it is compared with is the other hub's turn beside it, for the pace of a machine changes within minutes.
`--seconds` are of load: the snapshot is held for more than twice as long. A hub that rests still vacuums and looks for
work; what that takes of the machine's CPU time is told, and its share left out of the other's turn.

Few listings (`--listings 300`) get long chains of versions, as do hot ones among many (`--hot 5`). A line for each pair
of turns, of the hub with the snapshot and of the other:

    accepted/s   updates that the API has answered with 200
    recorded/s   results that the worker has written down
    CPU ms       of all processes of the hub for each result
    dead         versions of rows that nobody cleans away, as the statistics have it
    HOT          share of the row updates that needed no new entry in an index
"""

from __future__ import annotations

import argparse
import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

import asyncpg
import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from lumbung.cli.roles import free_port
from lumbung.db.pool import Pool
from tests.measure.control import request
from tests.measure.cpu import cpu_seconds
from tests.measure.hub import HOST, Hub, open_hub, until
from tests.measure.merchant import Merchant, Sender, open_merchant, shares

SENDERS = 4  # of each merchant
DRAIN_SECONDS = 120.0
QUIET_SECONDS = 1.0  # without a result: then everything is delivered
CORES = psutil.cpu_count() or 1
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
    """What was done a second of what the other hub, at rest, left of the machine, and for how long. `cost`: ms of CPU
    time for each result."""

    seconds: float
    accepted: float
    recorded: float
    cost: float

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> Pace:
        seconds = sum(turn.seconds for turn in turns)
        accepted = sum(turn.last.accepted - turn.first.accepted for turn in turns)
        recorded = sum(turn.last.recorded - turn.first.recorded for turn in turns)
        cpu = sum(turn.last.cpu - turn.first.cpu for turn in turns)
        return cls(seconds, accepted / seconds, recorded / seconds, 1000 * cpu / max(1, recorded))

    def ratio(self, other: Pace) -> float:
        """The worse one of the two."""
        return min(self.accepted / other.accepted, self.recorded / other.recorded)


@dataclass(frozen=True, slots=True)
class Turn:
    """`resting`: seconds of CPU time that the other hub took meanwhile."""

    first: Reading
    last: Reading
    resting: float

    @property
    def seconds(self) -> float:
        """Of the whole machine."""
        return self.last.at - self.first.at - self.resting / CORES


@dataclass(frozen=True, slots=True)
class Pair:
    """A turn of the hub whose snapshot is held, and one of the other beside it."""

    held: Turn
    free: Turn


class Load:
    """Threads that send without a pause, in turns."""

    def __init__(self, api_url: str, merchants: Sequence[Merchant], hot: int):
        self._senders = [
            Sender(api_url, merchant, with_hot(skus, hot))
            for merchant in merchants
            for skus in shares(merchant.skus, SENDERS)
        ]

    @property
    def accepted(self) -> int:
        return sum(sender.accepted for sender in self._senders)

    @property
    def refused(self) -> int:
        return sum(sender.refused for sender in self._senders)

    def run(self, seconds: float) -> None:
        """Blocks for so long."""
        stop = threading.Event()
        threads = [threading.Thread(target=sender.send_ceaselessly, args=(stop,)) for sender in self._senders]
        for thread in threads:
            thread.start()
        stop.wait(seconds)
        stop.set()
        for thread in threads:
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

    @property
    def refused(self) -> int:
        return self._load.refused

    async def read(self) -> Reading:
        at, accepted = perf_counter(), self._load.accepted
        recorded = await asyncio.to_thread(recorded_at, self._metrics_url)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(STATISTICS)
        tables = {row["name"]: Rows(row["dead"], row["updates"], row["hot"], row["bytes"]) for row in rows}
        return Reading(at, self.cpu, accepted, recorded, tables)

    @property
    def cpu(self) -> float:
        return cpu_seconds(self._roots)

    async def turn(self, seconds: float, other: Meter) -> Turn:
        """Load it for so long and until everything is delivered."""
        first, resting = await self.read(), other.cpu
        await asyncio.to_thread(self._load.run, seconds)
        await until(self._quiet, DRAIN_SECONDS, "everything to be delivered")
        return Turn(first, await self.read(), other.cpu - resting)

    async def _quiet(self) -> bool:
        before = await asyncio.to_thread(recorded_at, self._metrics_url)
        await asyncio.sleep(QUIET_SECONDS)
        return await asyncio.to_thread(recorded_at, self._metrics_url) == before


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
    """A line as soon as it is known: the whole takes half an hour."""

    def __init__(self, console: Console):
        self._console = console
        self._began = perf_counter()

    def headings(self) -> None:
        pace = f"{'accepted/s':>11}{'recorded/s':>11}{'CPU ms':>8}"
        names = "".join(f"{name + ': dead, MB, HOT':>30}" for name in SHOWN)
        self._console.print(f"{'s':>5}  {'':8}{pace}  |{pace}{names}", soft_wrap=True, highlight=False)

    def pair(self, phase: str, pair: Pair) -> None:
        paces = "  |".join(_pace(Pace.of([turn])) for turn in (pair.held, pair.free))
        cells = "".join(f"{_cell(pair.held.first.tables[name], pair.held.last.tables[name]):>30}" for name in SHOWN)
        line = f"{perf_counter() - self._began:5.0f}  {phase:8}{paces}{cells}"
        self._console.print(line, soft_wrap=True, highlight=False)


def _pace(pace: Pace) -> str:
    return f"{pace.accepted:11.0f}{pace.recorded:11.0f}{pace.cost:8.1f}"


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
    show = Show(console)
    async with open_hub() as held, open_hub() as free:
        stores = arguments.merchants * arguments.stores
        skus = max(SENDERS, arguments.listings // stores)
        console.print(f"{skus * stores} listings in {stores} stores")
        meters = [await _loaded(hub, arguments, skus) for hub in (held, free)]
        show.headings()
        for meter, other in (meters, meters[::-1]):
            await meter.turn(arguments.warm, other)
        before = await _pairs(meters, "before", arguments.before, show, arguments)
        async with held_snapshot(held.url):
            pairs = await _pairs(meters, "held", arguments.seconds, show, arguments)
        console.print(table_of(pairs[0].held.first, pairs[-1].held.last))
        console.print(f"{sum(meter.refused for meter in meters):,} updates were refused")
        console.print(verdict(before, pairs))


async def _loaded(hub: Hub, arguments: argparse.Namespace, skus: int) -> Meter:
    sandbox = await hub.start_sandbox()
    merchants = [
        await open_merchant(hub, sandbox, n + 1, stores=arguments.stores, skus=skus) for n in range(arguments.merchants)
    ]
    port = free_port(HOST)
    load = Load(await hub.start_api(), merchants, arguments.hot)
    worker = await hub.start_worker(METRICS_PORT=str(port))
    metrics_url = f"http://{HOST}:{port}"
    await hub.until_answering(worker, f"{metrics_url}/metrics")
    return Meter(hub.pool, load, metrics_url, hub.roots)


async def _pairs(
    meters: Sequence[Meter], phase: str, seconds: float, show: Show, arguments: argparse.Namespace
) -> list[Pair]:
    """Until the first hub has been loaded for so long. Each comes first as often as the other."""
    pairs: list[Pair] = []
    while len(pairs) * arguments.turn < seconds or len(pairs) % 2:
        order = meters if len(pairs) % 2 else meters[::-1]
        turns = {meter: await meter.turn(arguments.turn, other) for meter, other in (order, order[::-1])}
        pairs.append(Pair(turns[meters[0]], turns[meters[1]]))
        show.pair(phase, pairs[-1])
    return pairs


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


def verdict(before: Sequence[Pair], held: Sequence[Pair]) -> str:
    late = held[-_turns_in(LAST_SECONDS, held) :]
    ratio = Pace.of([pair.held for pair in late]).ratio(Pace.of([pair.free for pair in late]))
    worst = min(Pace.of([pair.held]).ratio(Pace.of([pair.free])) for pair in held)
    seconds = Pace.of([pair.held for pair in held]).seconds
    return "\n".join(
        (
            f"before: {_compared(before)}",
            f"with the snapshot, at the end: {_compared(late)}; worst turn {worst:.2f}",
            f"throughput with a snapshot held open for {seconds:.0f} s of load: {ratio:.2f} of that of a hub without;"
            f" {'passed' if ratio >= RATIO_MIN else 'FAILED'} ({RATIO_MIN}),"
            f" aim of {RATIO_AIM} {'reached' if ratio >= RATIO_AIM else 'missed'}",
        )
    )


def _turns_in(seconds: float, pairs: Sequence[Pair]) -> int:
    """How many of the last turns make up so much time, at most the second half of all; of each order as many."""
    a_turn = Pace.of([pair.held for pair in pairs]).seconds / len(pairs)
    return max(2, 2 * round(min(seconds / a_turn, len(pairs) / 2) / 2))


def _compared(pairs: Sequence[Pair]) -> str:
    held, free = Pace.of([pair.held for pair in pairs]), Pace.of([pair.free for pair in pairs])
    return (
        f"{held.accepted:.0f} accepted/s ({held.accepted / free.accepted:.2f}),"
        f" {held.recorded:.0f} recorded/s ({held.recorded / free.recorded:.2f}),"
        f" {held.cost:.1f} ms of CPU time for each ({held.cost / free.cost:.2f});"
        f" the other hub, at rest, took {_at_rest(pair.held for pair in pairs):.0f} ms a second of it,"
        f" and this one {_at_rest(pair.free for pair in pairs):.0f} of the other's"
    )


def _at_rest(turns: Iterable[Turn]) -> float:
    """ms of CPU time a second."""
    turns = list(turns)
    return 1000 * sum(turn.resting for turn in turns) / sum(turn.last.at - turn.first.at for turn in turns)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--listings", type=int, default=20_000)
    made.add_argument("--merchants", type=int, default=3)
    made.add_argument("--stores", type=int, default=2, help="of each merchant")
    made.add_argument("--hot", type=int, default=0, help="SKUs of each sender that get every other update")
    made.add_argument("--seconds", type=float, default=600.0, help="of load while the snapshot is held")
    made.add_argument("--before", type=float, default=120.0)
    made.add_argument("--warm", type=float, default=30.0)
    made.add_argument(
        "--turn", type=float, default=15.0, help="seconds that a hub is loaded before it is the other's turn"
    )
    return made


if __name__ == "__main__":
    asyncio.run(measure(parser().parse_args()))
