"""Reading the history of updates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from lumbung.db.query import Connection, Queries
from lumbung.model import HistoryItem, HistoryRecord

_queries = Queries(__file__)


async def page(
    connection: Connection, *, tenant_id: int, updated_at: datetime | None, limit: int, offset: int, items_max: int
) -> tuple[list[HistoryRecord], int]:
    """Records newest first, each with its first `items_max` items, and how many records match in all."""
    rows = await _queries["page"].all(
        connection, tenant_id=tenant_id, updated_at=updated_at, limit=limit, offset=offset, items_max=items_max
    )
    grouped: dict[int, list[Any]] = {}
    for row in rows:
        if row["id"] is not None:
            grouped.setdefault(row["id"], []).append(row)
    return [_record(tenant_id, group) for group in grouped.values()], rows[0]["total"]


def _record(tenant_id: int, rows: list[Any]) -> HistoryRecord:
    first = rows[0]
    return HistoryRecord(
        id=first["id"],
        tenant_id=tenant_id,
        user_id=first["user_id"],
        transaction_code=first["transaction_code"],
        action_name=first["action_name"],
        upload_file_url=first["upload_file_url"],
        total_sku=first["total_sku"],
        created_at=first["created_at"],
        updated_at=first["updated_at"],
        finished_at=first["finished_at"],
        items=tuple(_item(row) for row in rows if row["item_id"] is not None),
    )


def _item(row: Any) -> HistoryItem:
    return HistoryItem(
        id=row["item_id"],
        update_id=row["id"],
        store_id=row["store_id"],
        store_name=row["store_name"],
        warehouse_id=row["warehouse_id"],
        warehouse_name=row["warehouse_name"],
        variant_id=row["variant_id"],
        sku=row["sku"],
        remote_variant=row["remote_variant"],
        row_number=row["row_number"],
        channel=row["channel"],
        quantity=row["quantity"],
        retries=row["retries"] or 0,
        client_response=row["client_response"] or "",
        message=row["message"] or "",
        success=bool(row["success"]),
        created_at=row["created_at"],
        updated_at=row["item_finished_at"] or row["created_at"],
        finished_at=row["item_finished_at"],
    )
