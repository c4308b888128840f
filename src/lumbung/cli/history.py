"""`lumbung history`: what was accepted and what became of it."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lumbung.cli import find, output, session
from lumbung.db import history as db
from lumbung.errors import UsageError
from lumbung.model import HistoryItem, HistoryRecord

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

HEADINGS = ("AT", "TRANSACTION", "SKU", "WAREHOUSE", "STORE", "QTY", "RETRIES", "STATE", "MESSAGE")

Page = tuple[list[HistoryRecord], int]


def history(
    context: typer.Context,
    tenant: session.TenantOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Records.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Records to pass over.")] = 0,
    updated_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what changed since: 2026-01-31T13:00:00+07:00.")
    ] = None,
    as_json: session.JsonOption = False,
) -> None:
    """Show updates, newest first, and what became of each of their listings."""
    since = None if updated_at is None else _time(updated_at)
    records, total = session.run(context, partial(_page, tenant, since, limit, offset))
    if as_json:
        output.document({"total_record": total, "limit": limit, "offset": offset, "records": records})
        return
    output.table(HEADINGS, [line for record in records for line in _lines(record)])
    output.note(f"{len(records)} of {total} records")


async def _page(tenant: str | None, since: datetime | None, limit: int, offset: int, hub: Installation) -> Page:
    if limit > hub.settings.history_limit_max:
        raise UsageError(f"--limit may be up to {hub.settings.history_limit_max}")
    async with hub.pool.connection() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        return await db.page(
            connection,
            tenant_id=tenant_id,
            updated_at=since,
            limit=limit,
            offset=offset,
            items_max=hub.settings.history_items_max,
        )


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UsageError("--updated-at must be a time with its offset, such as 2026-01-31T13:00:00+07:00")
    return time


def _lines(record: HistoryRecord) -> list[list[object]]:
    head: list[object] = [record.created_at, record.transaction_code]
    if not record.items:
        return [[*head, "-", "-", "-", None, None, "no listing", ""]]
    return [
        [
            *head,
            item.sku,
            item.warehouse_name,
            item.store_name or item.channel,
            item.quantity,
            item.retries,
            _state(item),
            item.message,
        ]
        for item in record.items
    ]


def _state(item: HistoryItem) -> str:
    if item.finished_at is None:
        return "in progress"
    return "done" if item.success else "failed"
