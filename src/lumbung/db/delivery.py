"""What is due, and recording what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class Due:
    """A listing that is to show `quantity` as of `version`.

    `attempts`: failures in a row so far. `doubtful_age_seconds`: how long ago a call for it ended unclear, if one did.
    """

    listing_id: int
    lane: int
    version: int
    quantity: int
    attempts: int
    remote_variant: str
    doubtful_age_seconds: float | None
    locations: Mapping[str, int] = field(default_factory=dict)


async def stores_with_work(connection: Connection, *, wait_seconds_max: float) -> list[int]:
    rows = await _queries["stores_with_work"].all(connection, wait_seconds_max=wait_seconds_max)
    return [row["store_id"] for row in rows]


async def release_waits(
    connection: Connection, *, store_ids: Iterable[int], wait_seconds_max: float, limit: int
) -> set[int]:
    """Bring back listings whose wait is over; returns their stores."""
    rows = await _queries["release_waits"].all(
        connection, store_ids=list(store_ids), wait_seconds_max=wait_seconds_max, limit=limit
    )
    return {row["store_id"] for row in rows}


async def due_window(
    connection: Connection,
    *,
    tenant_id: int,
    store_id: int,
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
        lanes=list(cursors),
        cursors=list(cursors.values()),
        busy=list(busy),
        limit=limit,
        with_locations=with_locations,
    )
    return [_due(row) for row in rows]


async def due_now(
    connection: Connection, *, tenant_id: int, store_id: int, listing_ids: Sequence[int], with_locations: bool
) -> list[Due]:
    rows = await _queries["due_now"].all(
        connection,
        tenant_id=tenant_id,
        store_id=store_id,
        listing_ids=list(listing_ids),
        with_locations=with_locations,
    )
    return [_due(row) for row in rows]


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


async def call_was_written(connection: Connection, *, tenant_id: int, call_id: int) -> bool:
    return bool(await _queries["call_was_written"].value(connection, tenant_id=tenant_id, id=call_id))


async def write(connection: Connection, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Run record_states, settle_items, write_waits or write_calls with rows turned into arrays."""
    if rows:
        query = _queries[name]
        await query.run(connection, **dict(zip(query.parameters, _columns(rows, len(query.parameters)), strict=True)))


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _due(row: Any) -> Due:
    return Due(
        row["listing_id"],
        row["lane"],
        row["version_due"],
        row["quantity_due"],
        row["attempts"],
        row["remote_variant"],
        row["doubtful_age_seconds"],
        json.loads(row["locations"]) if row["locations"] else {},
    )
