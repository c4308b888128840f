"""Stores: accounts on channels, their mode, and the warehouses that serve them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lumbung.db.lease import StoredTokens
from lumbung.db.query import Connection, Queries
from lumbung.errors import UsageError
from lumbung.model import StoreMode

_queries = Queries(__file__)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoreRow:
    """A live store; `credentials`, `tokens` and its application's credentials are ciphertexts. `account`: the
    marketplace's own name of it. `refresh_expires_at`: when its tokens die, if nobody renews them."""

    id: int
    tenant_id: int
    channel: str
    name: str
    mode: StoreMode
    pause_reason: str | None
    credentials: bytes = field(repr=False)
    channel_app_id: int | None = None
    tokens: bytes | None = field(default=None, repr=False)
    application_credentials: bytes | None = field(default=None, repr=False)
    account: str | None = None
    refresh_expires_at: datetime | None = None


async def add_store(
    connection: Connection,
    *,
    tenant_id: int,
    channel: str,
    name: str,
    mode: StoreMode,
    account: str | None = None,
    channel_app_id: int | None = None,
) -> int | None:
    """The new store's id, still without credentials; None when a live store has the name.

    `account` is the marketplace's own name of it. Raises UsageError when a live store, of whatever tenant, is the same.
    """
    await _refuse_second_store(connection, tenant_id, channel, account, name)
    store_id: int | None = await _queries["add_store"].value(
        connection,
        tenant_id=tenant_id,
        channel_app_id=channel_app_id,
        channel=channel,
        name=name,
        account=account,
        mode=mode,
    )
    if store_id is not None:
        await _queries["add_lease_row"].run(connection, id=store_id, tenant_id=tenant_id)
    return store_id


async def _refuse_second_store(
    connection: Connection, tenant_id: int, channel: str, account: str | None, name: str
) -> None:
    same = await _queries["store_of_account"].one(connection, tenant_id=tenant_id, channel=channel, account=account)
    if same is None or (same["tenant_id"], same["name"]) == (tenant_id, name):
        return
    whose = "" if same["tenant_id"] == tenant_id else f" of tenant {same['tenant']!r}"
    raise UsageError(
        f"Store {same['name']!r}{whose} is the account {account} already: two stores of one account would overwrite"
        " each other"
    )


async def set_credentials(connection: Connection, *, tenant_id: int, store_id: int, credentials: bytes) -> None:
    await _queries["set_credentials"].run(connection, tenant_id=tenant_id, id=store_id, credentials=credentials)


async def put_tokens(connection: Connection, *, tenant_id: int, store_id: int, new: StoredTokens) -> None:
    """A pair that a person brought, in place of whatever is there."""
    await _queries["put_tokens"].run(
        connection,
        tenant_id=tenant_id,
        id=store_id,
        tokens=new.tokens,
        digest=new.digest,
        access_expires_at=new.access_expires_at,
        refresh_expires_at=new.refresh_expires_at,
    )


async def forget_location(connection: Connection, *, tenant_id: int, store_id: int, location: str) -> int:
    """How many of its places were still to show nothing there."""
    return int(
        await _queries["forget_location"].value(connection, tenant_id=tenant_id, store_id=store_id, location=location)
    )


async def change_account(connection: Connection, store: StoreRow, account: str | None) -> None:
    """Raises UsageError when another live store is the account."""
    await _refuse_second_store(connection, store.tenant_id, store.channel, account, store.name)
    await _queries["set_account"].run(connection, tenant_id=store.tenant_id, id=store.id, account=account)


async def revoke_lease(connection: Connection, *, store_id: int, quiesce_seconds: float) -> None:
    """Have whoever sends for the store stop, so that it is opened anew; calls in flight are in doubt for so long."""
    await _queries["revoke_lease"].run(connection, id=store_id, quiesce_seconds=quiesce_seconds)


async def find_store(connection: Connection, tenant_id: int, reference: str) -> StoreRow | None:
    row = await _queries["find_store"].one(connection, tenant_id=tenant_id, reference=reference)
    return None if row is None else store_of(row)


async def unretired_stores(connection: Connection) -> list[StoreRow]:
    """The stores of all tenants, in whatever mode, that were not removed."""
    return [store_of(row) for row in await _queries["unretired_stores"].all(connection)]


async def list_stores(connection: Connection, tenant_id: int | None) -> list[Row]:
    """With `warehouses` as a mapping of name to location (None where none is set)."""
    rows = [dict(row) for row in await _queries["list_stores"].all(connection, tenant_id=tenant_id)]
    return [{**row, "warehouses": json.loads(row["warehouses"])} for row in rows]


async def set_mode(connection: Connection, *, tenant_id: int, store_id: int, mode: StoreMode) -> None:
    """To observe or live; ends a pause."""
    await _queries["set_mode"].run(connection, tenant_id=tenant_id, id=store_id, mode=mode)


async def pause(connection: Connection, *, tenant_id: int, store_id: int, reason: str) -> None:
    await _queries["pause_store"].run(connection, tenant_id=tenant_id, id=store_id, reason=reason)


async def pause_held(connection: Connection, *, tenant_id: int, store_id: int, epoch: int, reason: str) -> bool:
    """For whoever holds the store's lease; False when it has another epoch by now, and then nothing is changed."""
    query = _queries["pause_held_store"]
    paused = await query.value(connection, tenant_id=tenant_id, id=store_id, epoch=epoch, reason=reason)
    return paused is not None


async def lock(connection: Connection, store_ids: Iterable[int]) -> None:
    """Before their leases are locked, where some of them may have to be paused."""
    await _queries["lock_stores"].all(connection, ids=sorted(store_ids))


async def lock_links(connection: Connection, *, tenant_id: int, store_id: int) -> None:
    """Before a store's warehouses are looked at in order to change them: others wait."""
    await _queries["lock_links"].all(connection, tenant_id=tenant_id, id=store_id)


async def resume(connection: Connection, *, tenant_id: int, store_id: int) -> StoreMode | None:
    """The mode that the store is in again; None when it was not paused."""
    mode = await _queries["resume_store"].value(connection, tenant_id=tenant_id, id=store_id)
    return None if mode is None else StoreMode(mode)


async def retire(connection: Connection, *, tenant_id: int, store_id: int) -> None:
    await _queries["retire_store"].run(connection, tenant_id=tenant_id, id=store_id)


async def link(
    connection: Connection, *, tenant_id: int, store_id: int, warehouse_id: int, location: str | None
) -> None:
    await lock_links(connection, tenant_id=tenant_id, store_id=store_id)
    await _queries["link_warehouse"].run(
        connection, tenant_id=tenant_id, store_id=store_id, warehouse_id=warehouse_id, location=location
    )


async def unlink(connection: Connection, *, tenant_id: int, store_id: int, warehouse_id: int) -> bool:
    """False when the warehouse did not serve the store."""
    await lock_links(connection, tenant_id=tenant_id, store_id=store_id)
    tag = await _queries["unlink_warehouse"].run(
        connection, tenant_id=tenant_id, store_id=store_id, warehouse_id=warehouse_id
    )
    return tag == "UPDATE 1"


async def newest_change(connection: Connection, *, tenant_id: int, store_id: int) -> int:
    """The newest change of a store's warehouses: what `settle_links` is told that was seen."""
    return int(await _queries["newest_change"].value(connection, tenant_id=tenant_id, store_id=store_id))


async def settle_links(connection: Connection, *, tenant_id: int, store_id: int, newest: int) -> None:
    """The store's listings are in line with every change of its warehouses up to `newest`."""
    await _queries["settle_links"].run(connection, tenant_id=tenant_id, store_id=store_id, newest=newest)


async def unsettled(connection: Connection) -> list[tuple[int, int, str]]:
    """(tenant_id, store_id, name) of stores whose last change of warehouses was not finished."""
    return [(row["tenant_id"], row["id"], row["name"]) for row in await _queries["unsettled_stores"].all(connection)]


async def has_unsettled_links(connection: Connection, *, tenant_id: int, store_id: int) -> bool:
    """Whether a change of a store's warehouses is under way, or was not finished."""
    return bool(await _queries["has_unsettled_links"].value(connection, tenant_id=tenant_id, store_id=store_id))


async def links_of(connection: Connection, *, tenant_id: int, store_id: int) -> dict[int, str | None]:
    """The warehouses that serve a store, each with its location there."""
    rows = await _queries["links_of"].all(connection, tenant_id=tenant_id, store_id=store_id)
    return {row["warehouse_id"]: row["location"] for row in rows}


def store_of(row: Any) -> StoreRow:
    return StoreRow(
        row["id"],
        row["tenant_id"],
        row["channel"],
        row["name"],
        StoreMode(row["mode"]),
        row["pause_reason"],
        row["credentials"],
        row["channel_app_id"],
        row["tokens"],
        row["application_credentials"],
        row["account"],
        row["refresh_expires_at"],
    )
