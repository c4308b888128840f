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
Rows = Sequence[tuple[Any, ...]]


async def resolve(
    connection: Connection, names: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], tuple[Tenant, int | None]]:
    """Tenants and warehouse ids by (tenant_id, warehouse's name); None for a warehouse that is unknown or retired."""
    tenant_ids, warehouses = _columns(sorted(set(names)), 2)
    tenants: dict[int, Tenant] = {}
    found = {}
    for row in await _queries["resolve"].all(connection, tenant_ids=tenant_ids, warehouses=warehouses):
        tenant_id, warehouse, name, unknown_sku, limit, warehouse_id = row
        if tenant_id not in tenants:
            tenants[tenant_id] = Tenant(tenant_id, name, UnknownSku(unknown_sku), StockLimit(limit))
        found[tenant_id, warehouse] = tenants[tenant_id], warehouse_id
    return found


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
    """One of read_stock and read_listings, for (tenant_id, variant_id) pairs."""
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


async def take_ids(
    connection: Connection, *, versions: int, items: int = 0
) -> tuple[list[tuple[int, datetime]], list[int]]:
    """New versions, ascending, each with the time at which it was taken; and new ids of items."""
    rows = await _queries["take_ids"].all(connection, versions=versions, items=items)
    return [(version, at) for version, at, _ in rows[:versions]], [item_id for _, _, item_id in rows[:items]]


async def write(connection: Connection, name: str, rows: Rows, **more: Any) -> None:
    """Run one of the statements that take rows as arrays; nothing to write is no statement."""
    if not rows:
        return
    query = _queries[name]
    names = [parameter for parameter in query.parameters if parameter not in more]
    columns = dict(zip(names, _columns(rows, len(names)), strict=True))
    await query.run(connection, **columns, **more)


async def write_stock(connection: Connection, *, contributions: Rows, levels: Rows, figures: Rows) -> None:
    await _write_together(connection, "write_stock", (contributions, 9), (levels, 8), (figures, 6))


async def write_history(connection: Connection, *, updates: Rows, items: Rows, changes: Rows) -> None:
    await _write_together(connection, "write_history", (updates, 7), (items, 12), (changes, 13))


async def _write_together(connection: Connection, name: str, *tables: tuple[Rows, int]) -> None:
    """Rows of several tables in one statement, which takes their columns in the same order. One round trip."""
    if any(rows for rows, _ in tables):
        query = _queries[name]
        columns = [column for rows, width in tables for column in _columns(rows, width)]
        await query.run(connection, **dict(zip(query.parameters, columns, strict=True)))


async def committed(connection: Connection, *, tenant_id: int, created_at: datetime, update_id: int) -> bool:
    return bool(await _queries["committed"].value(connection, tenant_id=tenant_id, created_at=created_at, id=update_id))


def _columns(rows: Rows, width: int) -> list[list[Any]]:
    """Rows to the arrays that `unnest` takes."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
