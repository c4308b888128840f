"""`lumbung store`: accounts on marketplaces, their mode, and the warehouses that serve them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.channels.base import Channel
from lumbung.cli import audit, credentials, find, names, output, session
from lumbung.cli.find import Place
from lumbung.db import stores, wake
from lumbung.db.query import Connection
from lumbung.db.stores import StoreRow
from lumbung.errors import NotFound, UsageError
from lumbung.inventory import stores as inventory
from lumbung.model import DEFAULT_WAREHOUSE, StoreMode, purpose_of_store

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="Accounts on marketplaces.", no_args_is_help=True)

COLUMNS = {
    "id": "ID",
    "tenant": "TENANT",
    "channel": "CHANNEL",
    "name": "NAME",
    "mode": "MODE",
    "pause_reason": "PAUSED BECAUSE",
    "warehouses": "WAREHOUSES",
    "listings": "LISTINGS",
}
PAUSED = "Paused by an operator"

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The store's name or id.")]
CredentialsOption = Annotated[
    Path, typer.Option("--credentials", metavar="FILE", help="JSON, or TOML when it ends in .toml.")
]
WarehouseOption = Annotated[str, typer.Option("--warehouse", metavar="NAME[=LOCATION]")]


@app.command("add")
def add(
    context: typer.Context,
    channel: Annotated[str, typer.Option(help="The code of the channel, such as blib.")],
    name: Annotated[str, typer.Option(help="What people call the store.")],
    credentials_file: CredentialsOption,
    tenant: session.TenantOption = None,
    warehouses: Annotated[
        list[str] | None,
        typer.Option(
            "--warehouse", metavar="NAME[=LOCATION]", help='Who serves it; may be repeated. Default: "default".'
        ),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Write to the marketplace from the start.")] = False,
) -> None:
    """Add an account. Nothing is written to the marketplace until it is live."""
    names.checked("--name", name)
    connector = credentials.connector(channel)
    values = credentials.read(credentials_file)
    mode = StoreMode.LIVE if live else StoreMode.OBSERVE
    places = warehouses or [DEFAULT_WAREHOUSE]
    store_id, served = session.run(context, partial(_add, tenant, connector, name, values, places, mode))
    output.say(f"Store {name!r} added (id {store_id}, {mode}, served by {', '.join(served)})")
    if mode is StoreMode.OBSERVE:
        output.note(f"Nothing is written to the marketplace until `lumbung store live {store_id}`")


async def _add(
    tenant: str | None,
    channel: Channel,
    name: str,
    values: dict[str, str],
    warehouses: list[str],
    mode: StoreMode,
    hub: Installation,
) -> tuple[int, list[str]]:
    await credentials.check(channel, values, hub.settings)
    async with hub.pool.transaction() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        places = await find.places(connection, tenant_id, warehouses)
        _check_locations(channel, places)
        code = channel.manifest.code
        store_id = await stores.add_store(
            connection, tenant_id=tenant_id, channel=code, name=name, mode=mode, account=channel.account(values)
        )
        if store_id is None:
            raise UsageError(f"There is a store {name!r} already")
        await _seal(connection, hub, tenant_id, store_id, values)
        for place in places:
            await _link(connection, tenant_id, store_id, place)
        newest = await stores.newest_change(connection, tenant_id=tenant_id, store_id=store_id)
        await stores.settle_links(connection, tenant_id=tenant_id, store_id=store_id, newest=newest)
        served = {place.warehouse: place.location for place in places}
        detail = {"name": name, "channel": code, "mode": mode, "warehouses": served}
        await audit.write(connection, tenant_id, "store.add", f"store:{store_id}", **detail)
    return store_id, list(served)


async def _seal(
    connection: Connection, hub: Installation, tenant_id: int, store_id: int, values: dict[str, str]
) -> None:
    sealed = hub.keyring.encrypt(json.dumps(values).encode(), purpose_of_store(store_id))
    await stores.set_credentials(connection, tenant_id=tenant_id, store_id=store_id, credentials=sealed)


@app.command("credentials")
def replace_credentials(
    context: typer.Context,
    store: StoreArgument,
    credentials_file: CredentialsOption,
    tenant: session.TenantOption = None,
) -> None:
    """Replace a store's credentials; a worker that runs takes them up by itself."""
    values = credentials.read(credentials_file)
    found = session.run(context, partial(_replace_credentials, tenant, store, values))
    output.say(f"Store {found.name!r} has new credentials")
    if found.mode is StoreMode.PAUSED:
        output.note(f"It is still paused ({found.pause_reason}): `lumbung store resume {found.id}`")


async def _replace_credentials(
    tenant: str | None, reference: str, values: dict[str, str], hub: Installation
) -> StoreRow:
    async with hub.pool.connection() as connection:
        store = await find.store(connection, (await find.tenant(connection, tenant)).id, reference)
    channel = credentials.connector(store.channel)
    await credentials.check(channel, values, hub.settings)
    async with hub.pool.transaction() as connection:
        store = await find.store(connection, store.tenant_id, store.name)
        await stores.change_account(connection, store, channel.account(values))
        await _seal(connection, hub, store.tenant_id, store.id, values)
        await stores.revoke_lease(connection, store_id=store.id, quiesce_seconds=channel.manifest.quiesce_seconds)
        await audit.write(connection, store.tenant_id, "store.credentials", f"store:{store.id}")
    await wake.notify(hub.pool, [store.id])
    return store


@app.command("link")
def link(
    context: typer.Context, store: StoreArgument, warehouse: WarehouseOption, tenant: session.TenantOption = None
) -> None:
    """Have a warehouse serve a store."""
    found, place = session.run(context, partial(_change_link, tenant, store, warehouse, True))
    output.say(f"Warehouse {place.warehouse!r} serves store {found.name!r}")


@app.command("unlink")
def unlink(
    context: typer.Context, store: StoreArgument, warehouse: WarehouseOption, tenant: session.TenantOption = None
) -> None:
    """Have a warehouse serve a store no longer."""
    found, place = session.run(context, partial(_change_link, tenant, store, warehouse, False))
    output.say(f"Warehouse {place.warehouse!r} serves store {found.name!r} no longer")


async def _change_link(
    tenant: str | None, reference: str, warehouse: str, linked: bool, hub: Installation
) -> tuple[StoreRow, Place]:
    """The change and its audit row first, then the listings in chunks. Run again, it finishes what a crash left."""
    async with hub.pool.transaction() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        store = await find.store(connection, tenant_id, reference)
        [place] = await find.places(connection, tenant_id, [warehouse])
        change = _serve if linked else _serve_no_longer
        await change(connection, store, place)
    await _with_progress(
        "Recomputing", hub, store, lambda advance: inventory.settle(hub.pool, hub.settings, store, advance)
    )
    return store, place


async def _serve(connection: Connection, store: StoreRow, place: Place) -> None:
    _check_locations(credentials.connector(store.channel), [place])
    await _link(connection, store.tenant_id, store.id, place)
    detail = {"warehouse": place.warehouse, "location": place.location}
    await audit.write(connection, store.tenant_id, "store.link", f"store:{store.id}", **detail)


async def _serve_no_longer(connection: Connection, store: StoreRow, place: Place) -> None:
    served = await stores.links_of(connection, tenant_id=store.tenant_id, store_id=store.id)
    if place.location is not None and served.get(place.warehouse_id) != place.location:
        raise NotFound(f"Warehouse {place.warehouse!r} does not serve store {store.name!r} at {place.location!r}")
    if await stores.unlink(connection, tenant_id=store.tenant_id, store_id=store.id, warehouse_id=place.warehouse_id):
        subject = f"store:{store.id}"
        await audit.write(connection, store.tenant_id, "store.unlink", subject, warehouse=place.warehouse)
    elif not await stores.has_unsettled_links(connection, tenant_id=store.tenant_id, store_id=store.id):
        raise NotFound(f"Warehouse {place.warehouse!r} does not serve store {store.name!r}")


@app.command("live")
def live(context: typer.Context, store: StoreArgument, tenant: session.TenantOption = None) -> None:
    """Write to the marketplace what is due, now and from now on."""
    before, after = session.run(context, partial(_change_mode, tenant, store, partial(_set_mode, StoreMode.LIVE)))
    output.say(f"Store {after.name!r} is live{_had_been_paused(before)}")


@app.command("observe")
def observe(context: typer.Context, store: StoreArgument, tenant: session.TenantOption = None) -> None:
    """Write nothing to the marketplace; what is due is kept."""
    _, after = session.run(context, partial(_change_mode, tenant, store, partial(_set_mode, StoreMode.OBSERVE)))
    output.say(f"Store {after.name!r} is observed: nothing is written to the marketplace")


@app.command("pause")
def pause(
    context: typer.Context,
    store: StoreArgument,
    reason: Annotated[str, typer.Option(help="What people are told.")] = PAUSED,
    tenant: session.TenantOption = None,
) -> None:
    """Stop writing to the marketplace for a while; what is due is kept."""
    names.checked("--reason", reason)
    _, after = session.run(context, partial(_change_mode, tenant, store, partial(_pause, reason)))
    output.say(f"Store {after.name!r} is paused")


@app.command("resume")
def resume(context: typer.Context, store: StoreArgument, tenant: session.TenantOption = None) -> None:
    """End a pause: the store is again in the mode that it was in before."""
    _, after = session.run(context, partial(_change_mode, tenant, store, _resume))
    output.say(f"Store {after.name!r} is {'live' if after.mode is StoreMode.LIVE else 'observed'} again")


def _had_been_paused(before: StoreRow) -> str:
    return f"; it was paused: {before.pause_reason}" if before.mode is StoreMode.PAUSED else ""


async def _change_mode(tenant: str | None, reference: str, change: Any, hub: Installation) -> tuple[StoreRow, StoreRow]:
    """The store before and after."""
    async with hub.pool.transaction() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        store = await find.store(connection, tenant_id, reference)
        await change(connection, store)
        after = await find.store(connection, tenant_id, reference)
    if after.mode is StoreMode.LIVE:
        await wake.notify(hub.pool, [store.id])
    return store, after


async def _set_mode(mode: StoreMode, connection: Connection, store: StoreRow) -> None:
    await stores.set_mode(connection, tenant_id=store.tenant_id, store_id=store.id, mode=mode)
    await audit.write(connection, store.tenant_id, f"store.{mode}", f"store:{store.id}", before=store.mode)


async def _pause(reason: str, connection: Connection, store: StoreRow) -> None:
    await stores.pause(connection, tenant_id=store.tenant_id, store_id=store.id, reason=reason)
    detail = {"before": store.mode, "reason": reason}
    await audit.write(connection, store.tenant_id, "store.pause", f"store:{store.id}", **detail)


async def _resume(connection: Connection, store: StoreRow) -> None:
    mode = await stores.resume(connection, tenant_id=store.tenant_id, store_id=store.id)
    if mode is None:
        raise UsageError(f"Store {store.name!r} is not paused")
    await audit.write(connection, store.tenant_id, "store.resume", f"store:{store.id}", after=mode)


@app.command("remove")
def remove(
    context: typer.Context,
    store: StoreArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    tenant: session.TenantOption = None,
) -> None:
    """Remove a store and its listings for good; history keeps them."""
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("Removing a store cannot be undone: say --yes")
        typer.confirm(f"Remove store {store!r} and all its listings for good?", abort=True, err=True)
    found = session.run(context, partial(_remove, tenant, store))
    output.say(f"Store {found.name!r} was removed")


async def _remove(tenant: str | None, reference: str, hub: Installation) -> StoreRow:
    async with hub.pool.transaction() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        store = await find.store(connection, tenant_id, reference)
        await audit.write(connection, tenant_id, "store.remove", f"store:{store.id}", name=store.name)
    await _with_progress(
        "Removing listings", hub, store, lambda advance: inventory.remove(hub.pool, hub.settings, store, advance)
    )
    return store


@app.command("list")
def list_(context: typer.Context, tenant: session.TenantOption = None, as_json: session.JsonOption = False) -> None:
    """Show the stores of all tenants, or of one."""
    output.listing(session.run(context, partial(_list, tenant)), COLUMNS, as_json=as_json)


async def _list(tenant: str | None, hub: Installation) -> list[Any]:
    async with hub.pool.connection() as connection:
        return await stores.list_stores(connection, await find.tenant_id_or_all(connection, tenant))


async def _link(connection: Connection, tenant_id: int, store_id: int, place: Place) -> None:
    await stores.link(
        connection,
        tenant_id=tenant_id,
        store_id=store_id,
        warehouse_id=place.warehouse_id,
        location=place.location,
    )


def _check_locations(channel: Channel, places: list[Place]) -> None:
    for place in places:
        if place.location is not None and not channel.manifest.location_aware:
            raise UsageError(f"{channel.manifest.name} knows no locations: write --warehouse {place.warehouse} alone")


async def _with_progress(
    label: str, hub: Installation, store: StoreRow, work: Callable[[inventory.Progress], Any]
) -> None:
    """Chunks of a store's listings; begun anew when a lock was not had, which finds what is done already as it is."""

    async def attempt() -> None:
        with output.progress(f"{label} of {store.name}", None) as advance:
            await work(advance)

    await session.retried(attempt)
