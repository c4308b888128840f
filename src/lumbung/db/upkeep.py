"""What operators do about listings: what fails and trying it again, telling everything again, reading back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lumbung.db.query import Connection, Queries
from lumbung.model import DueFor, Lane

_queries = Queries(__file__)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Marked:
    """A listing that was made due, when, and the version that it is to show."""

    listing_id: int
    store_id: int
    version: int
    at: datetime


async def failing_listings(
    connection: Connection, *, tenant_id: int, store_id: int | None, attempts_min: int, limit: int
) -> list[Row]:
    """Parked listings, those with so many failed attempts in a row, and those that wait for a lock or a floor."""
    rows = await _queries["failing_listings"].all(
        connection, tenant_id=tenant_id, store_id=store_id, attempts_min=attempts_min, limit=limit
    )
    return [dict(row) for row in rows]


async def retry_chunk(
    connection: Connection,
    *,
    tenant_id: int,
    store_id: int | None,
    skus: Sequence[str] | None,
    after: int,
    limit: int,
) -> tuple[int | None, list[int]]:
    """Make listings due that are parked, or wait after a failure, a lock or a floor. Returns after which listing to go
    on (None: no more), and the store of each that is due now."""
    found = await _queries["lock_failed"].all(
        connection, tenant_id=tenant_id, store_id=store_id, skus=skus, after=after, limit=limit
    )
    ids = [row["listing_id"] for row in found]
    if not ids:
        return None, []
    rows = await _queries["retry_failed"].all(
        connection, tenant_id=tenant_id, listing_ids=ids, lane=int(Lane.RETRY_REFRESH)
    )
    return ids[-1], [row["store_id"] for row in rows]


async def count_due(
    connection: Connection, *, tenant_id: int, store_id: int | None, skus: Sequence[str] | None
) -> dict[int, tuple[int, int]]:
    """By store, how many listings are due now, and how many of them have failed before."""
    rows = await _queries["count_due"].all(connection, tenant_id=tenant_id, store_id=store_id, skus=skus)
    return {row["store_id"]: (row["due"], row["failing"]) for row in rows}


async def count_idle(
    connection: Connection, *, tenant_id: int, store_ids: Sequence[int], skus: Sequence[str] | None
) -> dict[int, int]:
    """By store, how many listings `mark_idle` would make due."""
    rows = await _queries["count_idle"].all(connection, tenant_id=tenant_id, store_ids=store_ids, skus=skus)
    return {row["store_id"]: row["listings"] for row in rows}


async def mark_idle(
    connection: Connection,
    *,
    tenant_id: int,
    store_ids: Sequence[int],
    skus: Sequence[str] | None,
    due_for: DueFor,
    after: int,
    limit: int,
) -> list[Marked]:
    """Make a chunk of idle listings that have a figure due, in order of their ids; empty: there are no more.

    To be read: those that are due for that already are among them.
    """
    rows = await _queries["mark_idle"].all(
        connection,
        tenant_id=tenant_id,
        store_ids=store_ids,
        skus=skus,
        due_for=due_for,
        lane=int(Lane.REFRESH),
        after=after,
        limit=limit,
    )
    marked = [Marked(row["listing_id"], row["store_id"], row["version_due"], row["marked_at"]) for row in rows]
    return sorted(marked, key=lambda listing: listing.listing_id)


async def count_others(connection: Connection, *, tenant_id: int, store_ids: Sequence[int]) -> dict[str, int]:
    """Listings that cannot be read back now: `busy`, `parked`, `without` (a figure)."""
    row = await _queries["count_others"].all(connection, tenant_id=tenant_id, store_ids=store_ids)
    return dict(row[0])


async def still_unread(connection: Connection, *, tenant_id: int, listing_ids: Sequence[int]) -> set[int]:
    rows = await _queries["still_unread"].all(connection, tenant_id=tenant_id, listing_ids=listing_ids)
    return {row["listing_id"] for row in rows}


async def read_observed(connection: Connection, *, tenant_id: int, marked: Sequence[Marked]) -> list[Row]:
    rows = await _queries["read_observed"].all(
        connection,
        tenant_id=tenant_id,
        listing_ids=[listing.listing_id for listing in marked],
        versions=[listing.version for listing in marked],
        marked_ats=[listing.at for listing in marked],
    )
    return [dict(row) for row in rows]


async def correct_down(connection: Connection, *, tenant_id: int, marked: Sequence[Marked]) -> list[int]:
    """Make listings due that show less than they should; returns the store of each."""
    rows = await _queries["correct_down"].all(
        connection,
        tenant_id=tenant_id,
        listing_ids=[listing.listing_id for listing in marked],
        versions=[listing.version for listing in marked],
        lane=int(Lane.REFRESH),
    )
    return [row["store_id"] for row in rows]


async def workers_live(connection: Connection) -> int:
    return int(await _queries["workers_live"].value(connection))


async def store_troubles(connection: Connection, *, tenant_id: int, store_ids: Sequence[int]) -> list[tuple[str, str]]:
    """(name, why) of stores whose marketplace cannot be reached."""
    rows = await _queries["store_troubles"].all(connection, tenant_id=tenant_id, store_ids=store_ids)
    return [(row["name"], row["trouble"]) for row in rows]
