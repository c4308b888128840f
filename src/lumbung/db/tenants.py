"""Tenants, their partners and warehouses, and the audit of what operators do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lumbung.db.query import Connection, Queries
from lumbung.model import StockLimit, Tenant, UnknownSku

_queries = Queries(__file__)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PartnerRow:
    """A partner with its secrets as ciphertexts. `traced`: an operator has the bytes of failed signatures logged."""

    id: str
    tenant_id: int
    secret: bytes
    old_secret: bytes | None
    strict: bool
    disabled: bool
    traced: bool


async def add_tenant(
    connection: Connection, *, name: str, unknown_sku: UnknownSku, channel_stock_limit: StockLimit
) -> int | None:
    """The new tenant's id, its default warehouse made; None when the name is taken."""
    tenant_id: int | None = await _queries["add_tenant"].value(
        connection, name=name, unknown_sku=unknown_sku, channel_stock_limit=channel_stock_limit
    )
    if tenant_id is not None:
        await _queries["add_default_warehouse"].run(connection, tenant_id=tenant_id)
    return tenant_id


async def find_tenant(connection: Connection, reference: str) -> Tenant | None:
    row = await _queries["find_tenant"].one(connection, reference=reference)
    if row is None:
        return None
    return Tenant(row["id"], row["name"], UnknownSku(row["unknown_sku"]), StockLimit(row["channel_stock_limit"]))


async def set_item_deadline(connection: Connection, tenant_id: int, *, seconds: int) -> int:
    """How long a tenant's items may take; returns what it was."""
    return int(await _queries["set_item_deadline"].value(connection, id=tenant_id, seconds=seconds))


async def list_tenants(connection: Connection) -> list[Row]:
    return [dict(row) for row in await _queries["list_tenants"].all(connection)]


async def add_partner(
    connection: Connection, *, partner_id: str, tenant_id: int, name: str, secret: bytes, strict: bool
) -> bool:
    """False when the id is taken."""
    made = await _queries["add_partner"].value(
        connection, id=partner_id, tenant_id=tenant_id, name=name, secret=secret, strict=strict
    )
    return made is not None


async def find_partner(connection: Connection, partner_id: str) -> PartnerRow | None:
    row = await _queries["find_partner"].one(connection, id=partner_id)
    if row is None:
        return None
    return PartnerRow(
        row["id"],
        row["tenant_id"],
        row["secret"],
        row["old_secret"],
        row["strict"],
        row["disabled"],
        row["traced"],
    )


async def list_partners(connection: Connection) -> list[Row]:
    return [dict(row) for row in await _queries["list_partners"].all(connection)]


async def rotate_partner(
    connection: Connection, *, partner_id: str, secret: bytes, old_expires_seconds: float
) -> datetime | None:
    """When the old secret expires; None, and nothing changed, while an older one is still live."""
    expires_at: datetime | None = await _queries["rotate_partner"].value(
        connection, id=partner_id, secret=secret, old_expires_seconds=old_expires_seconds
    )
    return expires_at


async def finish_rotation(connection: Connection, partner_id: str) -> bool:
    """False when there is no old secret to finish."""
    return await _queries["finish_rotation"].run(connection, id=partner_id) == "UPDATE 1"


async def partner_secrets(connection: Connection) -> list[tuple[str, bytes]]:
    """(partner_id, ciphertext) of every partner."""
    return [(row["id"], row["secret"]) for row in await _queries["partner_secrets"].all(connection)]


async def set_partner_disabled(connection: Connection, partner_id: str, *, disabled: bool) -> None:
    await _queries["set_partner_disabled"].run(connection, id=partner_id, disabled=disabled)


async def trace_partner(connection: Connection, partner_id: str, *, seconds: float) -> None:
    await _queries["trace_partner"].run(connection, id=partner_id, seconds=seconds)


async def remember_signature(connection: Connection, *, tenant_id: int, partner_id: str, signature: bytes) -> bool:
    """False when the same signature was seen before."""
    row = await _queries["remember_signature"].one(
        connection, tenant_id=tenant_id, partner_id=partner_id, signature=signature
    )
    return row is not None


async def forget_signatures(connection: Connection, *, seconds: float) -> None:
    await _queries["forget_signatures"].run(connection, seconds=seconds)


async def add_warehouse(connection: Connection, *, tenant_id: int, name: str) -> int | None:
    """The new warehouse's id; None when the name is taken."""
    warehouse_id: int | None = await _queries["add_warehouse"].value(connection, tenant_id=tenant_id, name=name)
    return warehouse_id


async def list_warehouses(connection: Connection, tenant_id: int | None) -> list[Row]:
    return [dict(row) for row in await _queries["list_warehouses"].all(connection, tenant_id=tenant_id)]


async def unknown_skus(connection: Connection, *, tenant_id: int, limit: int) -> list[Row]:
    return [dict(row) for row in await _queries["unknown_skus"].all(connection, tenant_id=tenant_id, limit=limit)]


async def add_audit(
    connection: Connection, *, tenant_id: int, actor: str, action: str, subject: str, detail: Mapping[str, object]
) -> None:
    """`detail` must hold no secret."""
    await _queries["add_audit"].run(
        connection, tenant_id=tenant_id, actor=actor, action=action, subject=subject, detail=json.dumps(dict(detail))
    )
