"""The answers' shapes: the seed's keys, in the seed's order, with the seed's types (`client_reponse` included)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from lumbung.errors import LumbungError
from lumbung.model import HistoryItem, HistoryRecord


class TransactionAnswer(msgspec.Struct):
    transaction_code: str


class ProblemAnswer(msgspec.Struct):
    field: str
    message: str


class ErrorAnswer(msgspec.Struct):
    message: str
    reference: str
    errors: list[ProblemAnswer]


class ItemAnswer(msgspec.Struct):
    id: int
    update_stock_history_id: int
    store_id: int
    store_name: str
    warehouse_id: int
    warehouse_name: str
    variant_id: int
    sku: str
    remote_variant: str
    row_number: int
    channel: str
    qty: int
    retrier_count: int
    progress: bool
    client_reponse: str
    message: str
    success: bool
    created_at: str
    updated_at: str
    finished_at: str | None


class RecordAnswer(msgspec.Struct):
    id: int
    tenant_id: int
    user_id: int
    transaction_code: str
    action_name: str
    upload_file_url: str
    total_sku: int
    created_at: str
    updated_at: str
    finished_at: str | None
    update_stock_history_item: list[ItemAnswer]


class HistoryAnswer(msgspec.Struct):
    data: list[RecordAnswer]
    total_record: int
    offset: int
    limit: int
    message: str
    reference: str


def history_answer(
    records: Sequence[HistoryRecord], total: int, *, offset: int, limit: int, reference: str
) -> HistoryAnswer:
    return HistoryAnswer([_record(record) for record in records], total, offset, limit, "", reference)


def error_answer(error: LumbungError, reference: str) -> ErrorAnswer:
    return ErrorAnswer(error.public, reference, [ProblemAnswer(p.field, p.message) for p in error.problems])


def _record(record: HistoryRecord) -> RecordAnswer:
    return RecordAnswer(
        id=record.id,
        tenant_id=record.tenant_id,
        user_id=record.user_id,
        transaction_code=str(record.transaction_code),
        action_name=record.action_name,
        upload_file_url=record.upload_file_url,
        total_sku=record.total_sku,
        created_at=_micros(record.created_at),
        updated_at=_micros(record.updated_at),
        finished_at=_seconds(record.finished_at),
        update_stock_history_item=[_item(item) for item in record.items],
    )


def _item(item: HistoryItem) -> ItemAnswer:
    return ItemAnswer(
        id=item.id,
        update_stock_history_id=item.update_id,
        store_id=item.store_id,
        store_name=item.store_name,
        warehouse_id=item.warehouse_id,
        warehouse_name=item.warehouse_name,
        variant_id=item.variant_id,
        sku=item.sku,
        remote_variant=item.remote_variant,
        row_number=item.row_number,
        channel=item.channel,
        qty=item.quantity,
        retrier_count=item.retries,
        progress=item.finished_at is None,
        client_reponse=item.client_response,
        message=item.message,
        success=item.success,
        created_at=_micros(item.created_at),
        updated_at=_micros(item.updated_at),
        finished_at=_seconds(item.finished_at),
    )


def _micros(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _seconds(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S}Z"
