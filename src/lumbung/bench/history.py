"""How long a partner's page of the history takes, over a year of records and within one hour, with an exact total.

The records are one tenant's. A page is asked for as partners do, over HTTP, and timed until its last byte is read,
alone and while updates of other tenants are accepted at half of what the API can accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote

from lumbung.bench.accept import CONNECTIONS, checked
from lumbung.bench.figure import Figure, Target
from lumbung.bench.generator import Generator
from lumbung.bench.load import percentile
from lumbung.bench.requests import HISTORY, signed, updates
from lumbung.bench.rig import Process, Rig
from lumbung.bench.world import BenchTenant, BenchWorld
from lumbung.client.partner import PartnerClient
from lumbung.db import bench as db
from lumbung.db import history as counters
from lumbung.errors import LumbungError

LIMIT = 100
WEEKS = 52
SHAPES: Mapping[str, timedelta] = {"a year": timedelta(weeks=WEEKS), "one hour": timedelta(hours=1)}
PAGES = ("first", "middle", "last")
FILTERS = {"none": None, "half": 0.5, "the last minute": 60.0}
CHUNK_RECORDS = 250_000
ROLL_UP_EVERYTHING = -60.0
PAGES_A_ROUND = 100
PAGES_A_ROUND_QUICK = 20


@dataclass(frozen=True, slots=True)
class Records:
    """Of one tenant, over `length`, the newest at `newest`."""

    shape: str
    tenant: BenchTenant
    count: int
    length: timedelta
    newest: datetime

    def since(self, share: float | None) -> datetime | None:
        """A filter: none; a share of the whole time; or so many seconds, above 1."""
        if share is None:
            return None
        return self.newest - (timedelta(seconds=share) if share > 1 else self.length * share)


@dataclass(slots=True)
class Measured:
    """Milliseconds of the slowest kind of page, one value a round; the worst p99 of each kind."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    kinds_alone: dict[str, float] = field(default_factory=dict)
    kinds_beside: dict[str, float] = field(default_factory=dict)


async def fill(rig: Rig, tenant: BenchTenant, shape: str, count: int) -> Records:
    """`count` records with an item each, all of them ended: nine in ten within 5 s, the others within an hour."""
    length = SHAPES[shape]
    async with rig.pool.connection() as connection:
        newest = await db.an_hour_ago(connection)
        oldest = newest - length
        await db.make_weeks(connection, oldest, newest)
        apart = length.total_seconds() / count
        for first in range(1, count + 1, CHUNK_RECORDS):
            last = min(first + CHUNK_RECORDS - 1, count)
            rig.note(f"history over {shape}: {last:,} of {count:,} records")
            await db.put_records(connection, tenant.id, first, last, oldest=oldest, apart_seconds=apart)
            await counters.roll_up(rig.pool, settled_seconds=ROLL_UP_EVERYTHING)
        await counters.fold(rig.pool)
        await db.tidy(connection)
    return Records(shape, tenant, count, length, newest)


async def measure(rig: Rig, records: Records, others: BenchWorld) -> list[Figure]:
    """`others`: whose updates are accepted meanwhile."""
    found = Measured()
    requests = updates(others.tenants, seed=3)
    async with rig.api() as api:
        pages = await _pages(rig, records, api)
        accepting = rig.generator(api.url, requests)
        rate = checked(await accepting.ceaselessly(rig.seconds, CONNECTIONS)).per_second / 2
        for number in range(rig.rounds):
            rig.note(f"history over {records.shape}: round {number + 1} of {rig.rounds}")
            found.alone.append(await _slowest(rig, pages, api, found.kinds_alone))
            async with rig.steadily(api.url, requests, rate, CONNECTIONS):
                found.beside.append(await _slowest(rig, pages, api, found.kinds_beside))
    return _figures(records, found, rate)


def _figures(records: Records, found: Measured, rate: float) -> list[Figure]:
    what = f"history, {records.count:,} records over {records.shape}, slowest kind of page, p99"
    return [
        Figure(what, "ms", tuple(found.alone), Target(50, 15, at_most=True), _worst(found.kinds_alone)),
        Figure(
            f"the same beside {rate:.0f} updates/s",
            "ms",
            tuple(found.beside),
            Target(100, 40, at_most=True),
            _worst(found.kinds_beside),
        ),
    ]


def _worst(kinds: Mapping[str, float]) -> str:
    kind, ms = max(kinds.items(), key=lambda pair: pair[1])
    return f"{kind}: {ms:.1f} ms"


async def _pages(rig: Rig, records: Records, api: Process) -> dict[str, bytes]:
    """Requests by their kind. Raises LumbungError when a total is not what counting says."""
    client = PartnerClient(api.url, records.tenant.partner_id, records.tenant.secret)
    pages = {}
    for name, share in FILTERS.items():
        since = records.since(share)
        text = None if since is None else since.isoformat().replace("+00:00", "Z")
        told = client.history(limit=1, updated_at=text).json["total_record"]
        async with rig.pool.connection() as connection:
            counted = await db.count_updates(connection, tenant_id=records.tenant.id, since=since)
        if told != counted:
            raise LumbungError(f"The history says {told} records match, and there are {counted}")
        for page, offset in zip(PAGES, (0, told // 2, max(0, told - LIMIT)), strict=True):
            query = f"limit={LIMIT}&offset={offset}" + (f"&updated_at={quote(text)}" if text else "")
            pages[f"{page} page, updated_at {name}"] = signed("GET", f"{HISTORY}?{query}", records.tenant)
    client.close()
    return pages


async def _slowest(rig: Rig, pages: Mapping[str, bytes], api: Process, kinds: dict[str, float]) -> float:
    """p99 of the kind whose p99 is the highest, ms."""
    count = PAGES_A_ROUND_QUICK if rig.quick else PAGES_A_ROUND
    slowest = 0.0
    for kind, request in pages.items():
        load = checked(await Generator(api.url, [request]).one_by_one(count))
        ms = percentile(load.latencies, 99) * 1000
        kinds[kind] = max(ms, kinds.get(kind, 0.0))
        slowest = max(slowest, ms)
    return slowest
