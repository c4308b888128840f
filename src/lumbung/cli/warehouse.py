"""`lumbung warehouse`: places that hold stock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from lumbung.cli import audit, find, names, output, session
from lumbung.db import tenants
from lumbung.errors import UsageError

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="Places that hold stock.", no_args_is_help=True)

COLUMNS = {"tenant": "TENANT", "id": "ID", "name": "NAME", "created_at": "CREATED", "retired_at": "RETIRED"}


@app.command("add")
def add(context: typer.Context, name: str, tenant: session.TenantOption = None) -> None:
    """Add a warehouse. It serves a store once it is linked: `lumbung store link`."""
    warehouse_id = session.run(context, partial(_add, names.checked("The warehouse's name", name), tenant))
    output.say(f"Warehouse {name!r} added (id {warehouse_id})")


async def _add(name: str, tenant: str | None, hub: Installation) -> int:
    async with hub.pool.transaction() as connection:
        owner = await find.tenant(connection, tenant)
        warehouse_id = await tenants.add_warehouse(connection, tenant_id=owner.id, name=name)
        if warehouse_id is None:
            raise UsageError(f"There is a warehouse {name!r} already")
        await audit.write(connection, owner.id, "warehouse.add", f"warehouse:{warehouse_id}", name=name)
    return warehouse_id


@app.command("list")
def list_(context: typer.Context, tenant: session.TenantOption = None, as_json: session.JsonOption = False) -> None:
    """Show the warehouses of all tenants, or of one."""
    output.listing(session.run(context, partial(_list, tenant)), COLUMNS, as_json=as_json)


async def _list(tenant: str | None, hub: Installation) -> list[Any]:
    async with hub.pool.connection() as connection:
        return await tenants.list_warehouses(connection, await find.tenant_id_or_all(connection, tenant))
