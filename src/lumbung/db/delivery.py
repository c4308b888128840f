"""What is due, and recording what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lumbung.db.query import Connection, Queries
from lumbung.model import DueFor, Lane

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What was submitted and is not known to be applied yet."""

    handle: str
    version: int
    quantity: int
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Due:
    """A listing that is to show `quantity` as of `version`.

    `attempts`: failures in a row so far. `delivered`: what the marketplace last took; `expected`: what it is believed
    to show. `doubt_left_seconds`: for so long a call that ended unclear may still take effect, which said `doubtful`
    (None: not known). `floor`: the least that the marketplace takes.
    """

    listing_id: int
    lane: int
    version: int
    quantity: int
    attempts: int
    remote_variant: str
    due_for: DueFor = DueFor.PUSH
    delivered: int | None = None
    expected: int | None = None
    floor: int | None = None
    doubtful: int | None = None
    doubt_left_seconds: float | None = None
    submitted: Submitted | None = None
    locations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """A store that has something `due`, or waits that are `ready`, or neither and tokens to renew; who holds it, under
    which epoch, and for how many seconds yet if the lease is not renewed (0: it is over; None: nobody holds it)."""

    store_id: int
    due: bool
    ready: bool
    worker_id: int | None
    epoch: int
    held_seconds: float | None = field(default=None, compare=False)

    @property
    def is_orphan(self) -> bool:
        """Whoever held it has gone without giving it back."""
        return self.held_seconds is not None and self.held_seconds <= 0


@dataclass(frozen=True, slots=True)
class Named:
    """Listings of a store that are asked about by name, by who holds it under this epoch."""

    tenant_id: int
    store_id: int
    epoch: int
    listing_ids: Sequence[int]
    with_locations: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """An item that has just ended. `latency_seconds`: since its update was accepted."""

    tenant_id: int
    store_id: int
    listing_id: int
    transaction_code: str
    success: bool
    message: str
    retries: int
    latency_seconds: float


async def stores_with_work(
    connection: Connection, *, working: Iterable[int], wait_seconds_max: float, renew_ahead_seconds: float
) -> list[Work]:
    """`working`: stores that have something due, as the caller knows: they are not looked for."""
    rows = await _queries["stores_with_work"].all(
        connection,
        working=list(working),
        wait_seconds_max=wait_seconds_max,
        renew_ahead_seconds=renew_ahead_seconds,
    )
    return [
        Work(row["store_id"], row["due"], row["ready"], row["worker_id"], row["epoch"], row["held_seconds"])
        for row in rows
    ]


async def release_waits(
    connection: Connection, *, store_ids: Iterable[int], wait_seconds_max: float, limit: int
) -> dict[int, dict[int, int]]:
    """Bring back listings whose wait is over; returns by store those that are due, with their lanes."""
    rows = await _queries["release_waits"].all(
        connection, store_ids=list(store_ids), wait_seconds_max=wait_seconds_max, limit=limit
    )
    due: dict[int, dict[int, int]] = {}
    for row in rows:
        if row["lane"] != Lane.NONE:
            due.setdefault(row["store_id"], {})[row["listing_id"]] = row["lane"]
    return due


async def due_window(
    connection: Connection,
    *,
    tenant_id: int,
    store_id: int,
    epoch: int,
    cursors: Mapping[int, int],
    busy: Iterable[int],
    limit: int,
    with_locations: bool,
) -> list[Due]:
    """Up to `limit` due listings of each lane, after the lane's cursor, without those that are busy."""
    rows = await _queries["due_window"].all(
        connection,
        tenant_id=tenant_id,
        store_id=store_id,
        epoch=epoch,
        lanes=list(cursors),
        cursors=list(cursors.values()),
        busy=list(busy),
        limit=limit,
        with_locations=with_locations,
    )
    return [_due(row) for row in rows]


async def due_now(connection: Connection, asked: Sequence[Named]) -> list[list[Due]]:
    """For each, those of its listings that are due, in its order; none when the store is not held under that epoch."""
    names = [
        (of_one.tenant_id, of_one.store_id, of_one.epoch, listing_id, of_one.with_locations)
        for of_one in asked
        for listing_id in of_one.listing_ids
    ]
    whose = [number for number, of_one in enumerate(asked) for _ in of_one.listing_ids]
    tenant_ids, store_ids, epochs, listing_ids, with_locations = _columns(names, 5)
    due: list[list[Due]] = [[] for _ in asked]
    for row in await _queries["due_now"].all(
        connection,
        tenant_ids=tenant_ids,
        store_ids=store_ids,
        epochs=epochs,
        listing_ids=listing_ids,
        with_locations=with_locations,
    ):
        due[whose[row["place"] - 1]].append(_due(row))
    return due


async def lock_results(
    connection: Connection, results: Iterable[tuple[int, int, int, int]]
) -> dict[tuple[int, int, int], int]:
    """Lock the states of (tenant_id, listing_id, store_id, epoch); returns version_settled of those whose lease still
    has the epoch, by (tenant_id, listing_id, epoch)."""
    tenant_ids, listing_ids, store_ids, epochs = _columns(sorted(results), 4)
    rows = await _queries["lock_results"].all(
        connection, tenant_ids=tenant_ids, listing_ids=listing_ids, store_ids=store_ids, epochs=epochs
    )
    return {(row["tenant_id"], row["listing_id"], row["epoch"]): row["version_settled"] for row in rows}


async def take_call_ids(connection: Connection, count: int) -> list[int]:
    return [row["id"] for row in await _queries["take_call_ids"].all(connection, count=count)]


async def record_states(
    connection: Connection, rows: Sequence[tuple[Any, ...]], *, park_retry_seconds: float, doubt_seconds_max: float
) -> None:
    await _write(
        connection,
        "record_states",
        rows,
        park_retry_seconds=park_retry_seconds,
        doubt_seconds_max=doubt_seconds_max,
    )


async def settle_items(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> list[Ended]:
    """End open items: (tenant_id, listing_id, version, settled_before, success, message, answer, call_id)."""
    if not rows:
        return []
    query = _queries["settle_items"]
    columns = dict(zip(query.parameters, _columns(rows, len(query.parameters)), strict=True))
    return [
        Ended(
            row["tenant_id"],
            row["store_id"],
            row["listing_id"],
            str(row["transaction_code"]),
            row["success"],
            row["message"],
            row["retries"],
            row["latency_seconds"],
        )
        for row in await query.all(connection, **columns)
    ]


async def open_transactions(
    connection: Connection, listings: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], list[str]]:
    """The codes of transactions that wait for each (tenant_id, listing_id)."""
    tenant_ids, listing_ids = _columns(sorted(set(listings)), 2)
    rows = await _queries["open_transactions"].all(connection, tenant_ids=tenant_ids, listing_ids=listing_ids)
    return {(row["tenant_id"], row["listing_id"]): [str(code) for code in row["codes"]] for row in rows}


async def write_waits(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """(tenant_id, listing_id, store_id, reason, seconds)"""
    await _write(connection, "write_waits", rows)


async def write_calls(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    await _write(connection, "write_calls", rows)


async def transaction_id(connection: Connection) -> str:
    """The transaction's own name, to ask after it when its COMMIT is not answered."""
    return str(await _queries["transaction_id"].value(connection))


async def transaction_status(connection: Connection, transaction: str) -> str | None:
    status: str | None = await _queries["transaction_status"].value(connection, transaction_id=transaction)
    return status


async def unpark(connection: Connection, *, tenant_id: int, epoch: int, listing_ids: Iterable[int]) -> None:
    await _queries["unpark"].run(connection, tenant_id=tenant_id, epoch=epoch, listing_ids=list(listing_ids))


async def _write(connection: Connection, name: str, rows: Sequence[tuple[Any, ...]], **more: Any) -> None:
    """Run a statement with rows turned into arrays; nothing to write is no statement."""
    if not rows:
        return
    query = _queries[name]
    names = [parameter for parameter in query.parameters if parameter not in more]
    await query.run(connection, **dict(zip(names, _columns(rows, len(names)), strict=True)), **more)


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _due(row: Any) -> Due:
    submitted = None
    if row["handle"] is not None:
        submitted = Submitted(
            row["handle"], row["handle_version"], row["handle_quantity"], max(0.0, row["handle_age_seconds"])
        )
    return Due(
        row["listing_id"],
        row["lane"],
        row["version_due"],
        row["quantity_due"],
        row["attempts"],
        row["remote_variant"],
        DueFor(row["due_for"]),
        row["quantity_delivered"],
        row["quantity_expected"],
        row["quantity_floor"],
        row["quantity_doubtful"],
        row["doubt_left_seconds"],
        submitted,
        json.loads(row["locations"]) if row["locations"] else {},
    )
