"""Finding what an operator names. Each raises one line that says what there is instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lumbung.db import applications, stores, tenants
from lumbung.db.applications import ApplicationRow
from lumbung.db.query import Connection
from lumbung.db.stores import StoreRow
from lumbung.db.tenants import PartnerRow
from lumbung.errors import NotFound, UsageError
from lumbung.model import Tenant

NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A warehouse, and its location in a store on channels that know locations."""

    warehouse_id: int
    warehouse: str
    location: str | None


async def tenant(connection: Connection, reference: str | None) -> Tenant:
    """By name or id; the only one when there is no reference."""
    if reference is None:
        reference = await _only_tenant(connection)
    found = await tenants.find_tenant(connection, reference)
    if found is None:
        raise NotFound(f"There is no tenant {reference!r}; `lumbung tenant list` shows them")
    return found


async def _only_tenant(connection: Connection) -> str:
    every = await tenants.list_tenants(connection)
    if not every:
        raise UsageError("There is no tenant yet: make one with `lumbung tenant add NAME`")
    if len(every) > 1:
        raise UsageError(f"There are {len(every)} tenants; say which with --tenant: {some(t['name'] for t in every)}")
    return str(every[0]["name"])


async def tenant_words(connection: Connection, tenant_id: int) -> str:
    """What a command that people are told to run needs to say of its tenant: nothing when there is only one."""
    every = await tenants.list_tenants(connection)
    return "" if len(every) < 2 else f" --tenant {tenant_id}"


async def tenant_id_or_all(connection: Connection, reference: str | None) -> int | None:
    """For lists: None, which means all tenants, when there is no reference."""
    return None if reference is None else (await tenant(connection, reference)).id


async def partner(connection: Connection, partner_id: str) -> PartnerRow:
    found = await tenants.find_partner(connection, partner_id)
    if found is None:
        raise NotFound(f"There is no partner {partner_id!r}; `lumbung partner list` shows them")
    return found


async def store(connection: Connection, tenant_id: int, reference: str) -> StoreRow:
    """By name or id; not one that was removed."""
    found = await stores.find_store(connection, tenant_id, reference)
    if found is None:
        raise NotFound(f"There is no store {reference!r}; `lumbung store list` shows them")
    return found


async def store_again(connection: Connection, before: StoreRow) -> StoreRow:
    """The same store as it is now, whatever others are called. Raises NotFound when it was removed meanwhile."""
    found = await stores.find_store(connection, before.tenant_id, str(before.id))
    if found is None or found.id != before.id:
        raise NotFound(f"Store {before.name!r} was removed meanwhile")
    return found


async def application(connection: Connection, tenant: str | None, reference: str) -> ApplicationRow:
    """By name or id, of those that a tenant's stores may use; of all when no tenant is named."""
    every = await applications.usable(connection, await tenant_id_or_all(connection, tenant))
    return _the_one(every, reference)


async def application_of_store(
    connection: Connection, tenant_id: int, channel: str, reference: str | None
) -> ApplicationRow:
    """The one that a store of this channel is to use; the only one when there is no reference."""
    every = await applications.usable(connection, tenant_id, channel)
    if reference is not None:
        others = await applications.usable(connection, tenant_id)
        if not any(reference in {row.name, str(row.id)} for row in every) and (
            other := next((row for row in others if reference in {row.name, str(row.id)}), None)
        ):
            raise UsageError(f"Application {other.name!r} is one of {other.channel}, not of {channel}")
        return _the_one(every, reference)
    if not every:
        raise UsageError(
            f"There is no application of {channel} yet: make one with `lumbung app add --channel {channel}`"
        )
    if len(every) > 1:
        raise UsageError(f"There are {len(every)} applications of {channel}; say which with --app: {_named(every)}")
    return every[0]


def _the_one(every: list[ApplicationRow], reference: str) -> ApplicationRow:
    found = [row for row in every if reference in {row.name, str(row.id)}]
    by_name = [row for row in found if row.name == reference]
    if not found:
        there = f"there are {_named(every)}" if every else "there are none: make one with `lumbung app add`"
        raise NotFound(f"There is no application {reference!r}; {there}")
    if len(by_name) > 1:
        raise UsageError(f"There are {len(by_name)} applications {reference!r}; say which by its id: {_named(by_name)}")
    return (by_name or found)[0]


def _named(every: list[ApplicationRow]) -> str:
    return some(f"{row.name} ({row.channel}, id {row.id})" for row in every)


async def places(connection: Connection, tenant_id: int, texts: list[str]) -> list[Place]:
    """From `NAME` or `NAME=LOCATION`. A warehouse whose own name has a `=` is found by its whole name."""
    rows = await tenants.list_warehouses(connection, tenant_id)
    ids = {row["name"]: row["id"] for row in rows if row["retired_at"] is None}
    found = [_place(ids, text) for text in texts]
    for place in found:
        if sum(other.warehouse_id == place.warehouse_id for other in found) > 1:
            raise UsageError(f"Warehouse {place.warehouse!r} is named twice")
    return found


def _place(ids: dict[str, int], text: str) -> Place:
    if text in ids:
        return Place(ids[text], text, None)
    name, equals, location = text.rpartition("=")
    if not equals or name not in ids:
        raise NotFound(f"There is no warehouse {name if equals else text!r}; there are {some(ids)}")
    if not location.strip():
        raise UsageError(f"--warehouse {text}: no location after the =")
    return Place(ids[name], name, location.strip())


def some(names: Iterable[str]) -> str:
    """The first of them, and how many more."""
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - NAMED_MAX} more" if len(listed) > NAMED_MAX else ""
    return ", ".join(listed[:NAMED_MAX]) + more
