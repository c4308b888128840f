"""The catalogue: variants and their listings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from lumbung.db.query import Connection, Queries
from lumbung.errors import LockBusy

_queries = Queries(__file__)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ListingRow:
    id: int
    variant_id: int
    store_id: int
    remote_variant: str


async def put_variants(connection: Connection, tenant_id: int, rows: Sequence[tuple[str, str]]) -> int:
    """Make or rename variants from (sku, name), no SKU twice; returns how many are new."""
    found = await _queries["put_variants"].all(
        connection, tenant_id=tenant_id, skus=[sku for sku, _ in rows], names=[name for _, name in rows]
    )
    return sum(row["made"] for row in found)


async def variants_by_sku(connection: Connection, tenant_id: int, skus: Sequence[str]) -> dict[str, int]:
    rows = await _queries["variants_by_sku"].all(connection, tenant_id=tenant_id, skus=list(skus))
    return {row["sku"]: row["id"] for row in rows}


async def live_listings(
    connection: Connection, tenant_id: int, places: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], ListingRow]:
    """The live listings at (store_id, remote_variant)."""
    rows = await _queries["live_listings"].all(
        connection,
        tenant_id=tenant_id,
        store_ids=[store for store, _ in places],
        remote_variants=[remote for _, remote in places],
    )
    return {(row["store_id"], row["remote_variant"]): _listing(row) for row in rows}


async def listings_by_id(connection: Connection, tenant_id: int, ids: Sequence[int]) -> list[ListingRow]:
    """The live ones among these."""
    rows = await _queries["listings_by_id"].all(connection, tenant_id=tenant_id, ids=list(ids))
    return [_listing(row) for row in rows]


async def retire_listings(connection: Connection, tenant_id: int, ids: Sequence[int]) -> None:
    await _queries["retire_listings"].run(connection, tenant_id=tenant_id, ids=list(ids))


async def add_listings(
    connection: Connection, tenant_id: int, rows: Sequence[tuple[int, int, str]]
) -> list[ListingRow]:
    """Add listings from (variant_id, store_id, remote_variant). LockBusy when another import has just taken a place."""
    try:
        added = await _queries["add_listings"].all(
            connection,
            tenant_id=tenant_id,
            variant_ids=[row[0] for row in rows],
            store_ids=[row[1] for row in rows],
            remote_variants=[row[2] for row in rows],
        )
    except asyncpg.UniqueViolationError as error:
        raise LockBusy(
            "Another import maps the same listings at this moment; try again", retry_after_seconds=1
        ) from error
    return [_listing(row) for row in added]


async def listings_of_store(
    connection: Connection, *, tenant_id: int, store_id: int, after: str, limit: int
) -> list[ListingRow]:
    rows = await _queries["listings_of_store"].all(
        connection, tenant_id=tenant_id, store_id=store_id, after=after, limit=limit
    )
    return [ListingRow(row["id"], row["variant_id"], store_id, row["remote_variant"]) for row in rows]


async def calling_states(
    connection: Connection, tenant_id: int, ids: Sequence[int], *, seconds: float, submitted_seconds: float
) -> dict[int, float]:
    """The listings among these for which a call may be under way or may still take effect, and for how many seconds, at
    least `seconds`. `submitted_seconds`: how long the marketplace may take to apply what was submitted."""
    rows = await _queries["calling_states"].all(
        connection, tenant_id=tenant_id, ids=list(ids), seconds=seconds, submitted_seconds=submitted_seconds
    )
    return {row["listing_id"]: row["seconds"] for row in rows}


async def doubted_places(
    connection: Connection, tenant_id: int, places: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], float]:
    """The (store, remote variant) among these where a call of a listing that was removed may still take effect, and for
    how many seconds."""
    rows = await _queries["doubted_places"].all(
        connection,
        tenant_id=tenant_id,
        store_ids=[store_id for store_id, _ in places],
        remote_variants=[remote_variant for _, remote_variant in places],
    )
    return {(row["store_id"], row["remote_variant"]): row["seconds"] for row in rows}


async def doubt_states(connection: Connection, tenant_id: int, seconds: Mapping[int, float]) -> None:
    """Have what is delivered to these confirmed: for so many seconds an unknown call may still take effect."""
    await _queries["doubt_states"].run(
        connection, tenant_id=tenant_id, ids=list(seconds), seconds=list(seconds.values())
    )


async def list_listings(
    connection: Connection, *, tenant_id: int, store_id: int | None, sku: str | None, limit: int
) -> list[Row]:
    rows = await _queries["list_listings"].all(connection, tenant_id=tenant_id, store_id=store_id, sku=sku, limit=limit)
    return [dict(row) for row in rows]


async def stock_of_sku(connection: Connection, *, tenant_id: int, sku: str) -> list[Row]:
    rows = [dict(row) for row in await _queries["stock_of_sku"].all(connection, tenant_id=tenant_id, sku=sku)]
    return [{**row, "figures": json.loads(row["figures"])} for row in rows]


async def contributions_of_sku(connection: Connection, *, tenant_id: int, sku: str) -> list[Row]:
    return [dict(row) for row in await _queries["contributions_of_sku"].all(connection, tenant_id=tenant_id, sku=sku)]


def _listing(row: Any) -> ListingRow:
    return ListingRow(row["id"], row["variant_id"], row["store_id"], row["remote_variant"])
