"""Reading and writing what an update touches: rows in, rows out. Decisions are made in inventory/."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from lumbung.db.query import Connection, Queries
from lumbung.model import StockLimit, Tenant, UnknownSku

_queries = Queries(__file__)

Pair = tuple[int, int]


async def find_tenants(connection: Connection, ids: Iterable[int]) -> dict[int, Tenant]:
    rows = await _queries["find_tenants"].all(connection, ids=sorted(set(ids)))
    return {
        row["id"]: Tenant(
            row["id"], row["name"], UnknownSku(row["unknown_sku"]), StockLimit(row["channel_stock_limit"])
        )
        for row in rows
    }


async def find_warehouses(connection: Connection, names: Iterable[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """Warehouse ids by (tenant_id, name); unknown and retired ones are absent."""
    tenant_ids, texts = _columns(sorted(set(names)), 2)
    rows = await _queries["find_warehouses"].all(connection, tenant_ids=tenant_ids, names=texts)
    return {(row["tenant_id"], row["name"]): row["id"] for row in rows}


async def create_variants(connection: Connection, skus: Iterable[tuple[int, str]]) -> None:
    tenant_ids, texts = _columns(sorted(set(skus)), 2)
    await _queries["create_variants"].run(connection, tenant_ids=tenant_ids, skus=texts)


async def lock_variants(connection: Connection, skus: Iterable[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """Lock variants by (tenant_id, sku); returns the ids of those that exist."""
    tenant_ids, texts = _columns(sorted(set(skus)), 2)
    rows = await _queries["lock_variants"].all(connection, tenant_ids=tenant_ids, skus=texts)
    return {(row["tenant_id"], row["sku"]): row["id"] for row in rows}


async def lock_variants_by_id(connection: Connection, tenant_id: int, ids: Iterable[int]) -> dict[int, str]:
    """Lock variants of one tenant; returns their SKUs by id."""
    rows = await _queries["lock_variants_by_id"].all(connection, tenant_id=tenant_id, ids=sorted(set(ids)))
    return {row["id"]: row["sku"] for row in rows}


async def count_unknown_skus(connection: Connection, skus: Sequence[tuple[int, str]]) -> None:
    tenant_ids, texts = _columns(skus, 2)
    await _queries["count_unknown_skus"].run(connection, tenant_ids=tenant_ids, skus=texts)


async def claim_idempotency_keys(
    connection: Connection, claims: Sequence[tuple[int, str, str, bytes, UUID]], *, seconds: int
) -> dict[tuple[int, str, str], tuple[bytes, UUID]]:
    """Remember (tenant_id, partner_id, key, body_hash, code); returns what each key now stands for."""
    tenant_ids, partner_ids, keys, body_hashes, codes = _columns(claims, 5)
    rows = await _queries["claim_idempotency_keys"].all(
        connection,
        tenant_ids=tenant_ids,
        partner_ids=partner_ids,
        keys=keys,
        body_hashes=body_hashes,
        codes=codes,
        seconds=seconds,
    )
    return {
        (row["tenant_id"], row["partner_id"], row["key"]): (row["body_hash"], row["transaction_code"]) for row in rows
    }


async def forget_idempotency_keys(connection: Connection, *, seconds: int) -> None:
    await _queries["forget_idempotency_keys"].run(connection, seconds=seconds)


async def read(connection: Connection, name: str, variants: Sequence[Pair]) -> list[Any]:
    """One of read_levels, read_figures, read_listings, read_contributions, for (tenant_id, variant_id) pairs."""
    tenant_ids, variant_ids = _columns(variants, 2)
    return await _queries[name].all(connection, tenant_ids=tenant_ids, variant_ids=variant_ids)


async def read_reach(
    connection: Connection, wanted: Iterable[tuple[int, str, int]]
) -> dict[tuple[int, str, int], tuple[bool, bool]]:
    """For (tenant_id, channel, warehouse_id): whether the tenant has a store there, and the warehouse serves one."""
    tenant_ids, channels, warehouse_ids = _columns(sorted(set(wanted)), 3)
    rows = await _queries["read_reach"].all(
        connection, tenant_ids=tenant_ids, channels=channels, warehouse_ids=warehouse_ids
    )
    return {
        (row["tenant_id"], row["channel"], row["warehouse_id"]): (row["has_store"], row["serves_store"]) for row in rows
    }


async def lock_states(connection: Connection, listings: Iterable[Pair]) -> None:
    """Lock the states of (tenant_id, listing_id), in the order in which everybody locks them."""
    tenant_ids, listing_ids = _columns(sorted(set(listings)), 2)
    await _queries["lock_states"].all(connection, tenant_ids=tenant_ids, listing_ids=listing_ids)


async def take_versions(connection: Connection, count: int) -> list[tuple[int, datetime]]:
    """`count` new versions, ascending, each with the time at which it was taken."""
    rows = await _queries["take_versions"].all(connection, count=count)
    return [(row["version"], row["at"]) for row in rows]


async def take_item_ids(connection: Connection, count: int) -> list[int]:
    return [row["id"] for row in await _queries["take_item_ids"].all(connection, count=count)]


async def write(connection: Connection, name: str, rows: Sequence[tuple[Any, ...]], **more: Any) -> None:
    """Run one of the write_ or end_ statements with rows turned into arrays; nothing to write is no statement."""
    if not rows:
        return
    query = _queries[name]
    names = [parameter for parameter in query.parameters if parameter not in more]
    columns = dict(zip(names, _columns(rows, len(names)), strict=True))
    await query.run(connection, **columns, **more)


async def committed(connection: Connection, *, tenant_id: int, created_at: datetime, update_id: int) -> bool:
    return bool(await _queries["committed"].value(connection, tenant_id=tenant_id, created_at=created_at, id=update_id))


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows to the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
