"""`lumbung tenant`: merchants."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.cli import audit, find, names, output, session
from lumbung.db import tenants
from lumbung.errors import UsageError
from lumbung.model import StockLimit, Tenant, UnknownSku

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

SECONDS_MAX = 2_147_483_647

app = typer.Typer(help="Merchants.", no_args_is_help=True)

COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "unknown_sku": "UNKNOWN SKU",
    "channel_stock_limit": "CHANNEL STOCK LIMIT",
    "item_deadline_seconds": "ITEM DEADLINE (S)",
    "partners": "PARTNERS",
    "stores": "STORES",
    "variants": "VARIANTS",
    "disabled_at": "DISABLED",
}


@app.command("add")
def add(
    context: typer.Context,
    name: str,
    unknown_sku: Annotated[
        UnknownSku, typer.Option(help="What to do with an update of a SKU that the catalogue does not have.")
    ] = UnknownSku.REJECT,
    channel_stock_limit: Annotated[
        StockLimit,
        typer.Option(help="Refuse an update when a channel's figure (each) or their sum (total) is too high."),
    ] = StockLimit.NONE,
) -> None:
    """Add a merchant; its warehouse "default" is made with it."""
    tenant_id = session.run(
        context, partial(_add, names.checked_reference("The tenant's name", name), unknown_sku, channel_stock_limit)
    )
    output.say(f"Tenant {name!r} added (id {tenant_id})")


async def _add(name: str, unknown_sku: UnknownSku, channel_stock_limit: StockLimit, hub: Installation) -> int:
    async with hub.pool.transaction() as connection:
        tenant_id = await tenants.add_tenant(
            connection, name=name, unknown_sku=unknown_sku, channel_stock_limit=channel_stock_limit
        )
        if tenant_id is None:
            raise UsageError(f"There is a tenant {name!r} already")
        detail = {"name": name, "unknown_sku": unknown_sku, "channel_stock_limit": channel_stock_limit}
        await audit.write(connection, tenant_id, "tenant.add", f"tenant:{tenant_id}", **detail)
    return tenant_id


@app.command("set")
def set_(
    context: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name or id.")],
    item_deadline: Annotated[
        int, typer.Option(min=1, max=SECONDS_MAX, metavar="SECONDS", help="Items not delivered by then end as failed.")
    ],
) -> None:
    """Change how long the items of a merchant's updates may take; their listings stay due in any case."""
    found = session.run(context, partial(_set, tenant, item_deadline))
    output.say(f"Items of tenant {found.name!r} end as failed when they are not delivered within {item_deadline} s")


async def _set(reference: str, seconds: int, hub: Installation) -> Tenant:
    async with hub.pool.transaction() as connection:
        tenant = await find.tenant(connection, reference)
        before = await tenants.set_item_deadline(connection, tenant.id, seconds=seconds)
        detail = {"item_deadline_seconds": seconds, "before": before}
        await audit.write(connection, tenant.id, "tenant.set", f"tenant:{tenant.id}", **detail)
    return tenant


@app.command("list")
def list_(context: typer.Context, as_json: session.JsonOption = False) -> None:
    """Show all merchants."""
    output.listing(session.run(context, _list), COLUMNS, as_json=as_json)


async def _list(hub: Installation) -> list[Any]:
    async with hub.pool.connection() as connection:
        return await tenants.list_tenants(connection)
