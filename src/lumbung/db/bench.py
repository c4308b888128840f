"""What a benchmark fills a database with, and the bare upserts that it compares itself with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lumbung.db import partitions
from lumbung.db.pool import Pool
from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)

FILL_SECONDS_MAX = 3600.0
DURABILITY = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
BARE_OF_UPDATE = ("bare_updates", "bare_changes", "bare_levels", "bare_figures")
BARE_OF_LISTING = ("bare_items", "bare_contributions", "bare_states")
BARE_KNOWN = ("bare_levels", "bare_figures", "bare_contributions", "bare_states")


@dataclass(frozen=True, slots=True)
class Assortment:
    """SKUs sku`first` to sku`last` of a tenant, each listed in the stores: in one of Blibli under its code, in one of
    Shopee as a variation, `variations` of an item."""

    tenant_id: int
    first: int
    last: int
    store_ids: Sequence[int]
    variations: int = 50


async def put_assortment(connection: Connection, goods: Assortment) -> None:
    """As after an update of each SKU that was delivered, with default's stock level, figures and contributions. Not in
    a transaction: what one statement has made is analyzed before the next joins it."""
    own = {"tenant_id": goods.tenant_id, "first": goods.first, "last": goods.last}
    stores = {"store_ids": list(goods.store_ids)}
    for name, more in (
        ("put_variants", {}),
        ("put_levels", {}),
        ("put_figures", stores),
        ("put_listings", {**stores, "variations": goods.variations}),
        ("put_contributions", {}),
        ("put_states", {}),
    ):
        await _fill(connection, name, **own, **more)
        await _fill(connection, "analyze")


async def settle_all(connection: Connection) -> None:
    """As if everything had just been delivered."""
    await _fill(connection, "settle_states")
    await _fill(connection, "settle_all_items")
    await _fill(connection, "settle_updates")


async def make_due(connection: Connection, store_ids: Sequence[int]) -> None:
    """One more update of each SKU of these stores that concerns one listing each: everything is due."""
    at: datetime = await _queries["now"].value(connection)
    for name in ("due_records", "due_contributions", "due_states"):
        await _fill(connection, name, store_ids=list(store_ids), at=at)


async def tidy(connection: Connection) -> None:
    """Statistics, visibility and a checkpoint, so that no round pays for the one before."""
    await _fill(connection, "vacuum")
    await _fill(connection, "checkpoint")


async def count_updates(connection: Connection, *, tenant_id: int, since: datetime | None) -> int:
    """By counting them: what the history's counters must say."""
    query = _queries["count_updates"].within(FILL_SECONDS_MAX)
    return int(await query.value(connection, tenant_id=tenant_id, since=since))


async def an_hour_ago(connection: Connection) -> datetime:
    found: datetime = await _queries["an_hour_ago"].value(connection)
    return found


async def make_weeks(connection: Connection, oldest: datetime, newest: datetime) -> None:
    """Partitions for records that are older than the installation."""
    for start in partitions.weeks(oldest, newest):
        await partitions.ensure_week(connection, start)


async def put_records(
    connection: Connection, tenant_id: int, first: int, last: int, *, oldest: datetime, apart_seconds: float
) -> None:
    """Records number `first` to `last` of a tenant that has listings, with an item each."""
    await _fill(
        connection,
        "put_records",
        tenant_id=tenant_id,
        first=first,
        last=last,
        oldest=oldest,
        apart_seconds=apart_seconds,
    )


async def anything_due(connection: Connection) -> bool:
    return bool(await _queries["anything_due"].value(connection))


async def is_finished(connection: Connection, *, tenant_id: int, transaction_code: str) -> bool:
    """Whether the last item of an update of this minute has ended."""
    query = _queries["is_finished"]
    return bool(await query.value(connection, tenant_id=tenant_id, transaction_code=transaction_code))


async def settings(connection: Connection) -> dict[str, str]:
    """Those of the server that speed depends on."""
    rows = await _queries["server_settings"].all(connection, names=list(DURABILITY))
    return {row["name"]: row["setting"] for row in rows}


class Bare:
    """Baseline R: 500-row upserts from arrays into tables with the same columns and indexes, each its own transaction.

    For each update of k listings that is 4 rows (record, change, level, figure) and 3k (item, contribution, state).
    Keys are picked as partners' updates do, anywhere among `keys`, and sorted.
    """

    def __init__(self, pool: Pool, keys: int, *, rows: int = 500, seed: int = 1):
        self._pool = pool
        self._keys = range(1, keys + 1)
        self._rows = rows
        self._dice = random.Random(seed)  # noqa: S311 (a load, no secret)

    async def prepare(self) -> None:
        async with self._pool.connection() as connection:
            for name in ("bare_tables", "bare_keys", "bare_commits"):
                await _fill(connection, name)
            for name in BARE_KNOWN:
                await _fill(connection, name, keys=list(self._keys))
            await tidy(connection)

    async def once(self, connection: Connection, listings: int) -> int:
        """The rows of `rows` updates of so many listings; returns how many."""
        names = BARE_OF_UPDATE + BARE_OF_LISTING * listings
        for name in names:
            keys = sorted(self._dice.sample(self._keys, self._rows))
            await _queries[name].run(connection, keys=keys)
        return self._rows * len(names)


async def _fill(connection: Connection, name: str, **values: object) -> None:
    await _queries[name].within(FILL_SECONDS_MAX).run(connection, **values)
