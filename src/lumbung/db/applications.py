"""Applications of channels: an app key that many stores share, its secret encrypted once, and its limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from lumbung.db import budget, stores
from lumbung.db.query import Connection, Queries
from lumbung.db.stores import StoreRow

BUDGET = "calls"
"""The one budget that commands set; an application may have more."""

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class ApplicationRow:
    """`tenant_id` None: of the installation, for the stores of every tenant. `identity`: the marketplace's own name of
    it. `credentials` is a ciphertext; `stores` counts those that use it; the limits are None when it has none."""

    id: int
    tenant_id: int | None
    tenant: str | None
    channel: str
    name: str
    identity: str | None
    credentials: bytes = field(repr=False)
    stores: int
    calls_per_second: float | None
    burst: int | None
    blocked_until: datetime | None
    created_at: datetime


async def add(
    connection: Connection, *, tenant_id: int | None, channel: str, name: str, identity: str | None = None
) -> int | None:
    """The new application's id, still without credentials; None when there is one of this name for the tenant, or of
    this identity (the marketplace's own name of it) for anybody."""
    added = await _queries["add_application"].value(
        connection, tenant_id=tenant_id, channel=channel, name=name, identity=identity
    )
    return None if added is None else int(added)


async def of_identity(connection: Connection, *, channel: str, identity: str) -> tuple[int, str, str | None] | None:
    """(id, name, tenant) of the application that the marketplace knows by this; tenant None: of the installation."""
    row = await _queries["application_of_identity"].one(connection, channel=channel, identity=identity)
    return None if row is None else (row["id"], row["name"], row["tenant"])


async def set_credentials(connection: Connection, *, application_id: int, credentials: bytes) -> None:
    await _queries["set_application_credentials"].run(connection, id=application_id, credentials=credentials)


async def set_limit(connection: Connection, *, application_id: int, calls_per_second: float, burst: int) -> None:
    """What all its stores together may send. Running workers learn of a first limit within a lease's lifetime, of a
    change at once."""
    await budget.put_budget(
        connection, channel_app_id=application_id, name=BUDGET, calls_per_second=calls_per_second, burst=burst
    )


async def usable(connection: Connection, tenant_id: int | None, channel: str | None = None) -> list[ApplicationRow]:
    """What the stores of a tenant may use, its own first; without a tenant those of all."""
    rows = await _queries["applications_for"].all(connection, tenant_id=tenant_id, channel=channel)
    return [
        ApplicationRow(
            row["id"],
            row["tenant_id"],
            row["tenant"],
            row["channel"],
            row["name"],
            row["identity"],
            row["credentials"],
            row["stores"],
            row["calls_per_second"],
            row["burst"],
            row["blocked_until"],
            row["created_at"],
        )
        for row in rows
    ]


async def lock(connection: Connection, application_id: int) -> bool:
    """False when it was removed meanwhile."""
    return bool(await _queries["lock_application"].all(connection, id=application_id))


async def stores_of(connection: Connection, application_id: int) -> list[StoreRow]:
    """The live stores that use it."""
    rows = await _queries["stores_of_application"].all(connection, id=application_id)
    return [stores.store_of(row) for row in rows]


async def retire(connection: Connection, application_id: int) -> None:
    """Its name is free again. Nobody may use it: the caller has looked, under `lock`."""
    await _queries["retire_application"].run(connection, id=application_id)
