"""`lumbung store`: accounts on marketplaces, their mode, and the warehouses that serve them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.channels.base import Channel
from lumbung.cli import audit, authorize, credentials, find, links, names, output, session
from lumbung.db import applications, stores, wake
from lumbung.db.applications import ApplicationRow
from lumbung.db.query import Connection
from lumbung.db.stores import StoreRow
from lumbung.dispatch.opening import application_values
from lumbung.errors import UsageError
from lumbung.inventory import stores as inventory
from lumbung.model import DEFAULT_WAREHOUSE, StoreMode, purpose_of_store

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="Accounts on marketplaces.", no_args_is_help=True)

COLUMNS = {
    "id": "ID",
    "tenant": "TENANT",
    "channel": "CHANNEL",
    "application": "APP",
    "name": "NAME",
    "mode": "MODE",
    "pause_reason": "PAUSED BECAUSE",
    "warehouses": "WAREHOUSES",
    "listings": "LISTINGS",
    "authorised_until": "AUTHORISED UNTIL",
}
PAUSED = "Paused by an operator"

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The store's name or id.")]
CredentialsOption = Annotated[
    Path, typer.Option("--credentials", metavar="FILE", help="JSON, or TOML when it ends in .toml.")
]


@app.command("add")
def add(
    context: typer.Context,
    channel: Annotated[str, typer.Option(help="The code of the channel, such as blib.")],
    name: Annotated[str, typer.Option(help="What people call the store.")],
    credentials_file: CredentialsOption,
    tenant: session.TenantOption = None,
    application: Annotated[
        str | None,
        typer.Option(
            "--app",
            help="The application (app key) that it uses, where its channel has them; the only one if left out.",
        ),
    ] = None,
    warehouses: Annotated[
        list[str] | None,
        typer.Option(
            "--warehouse", metavar="NAME[=LOCATION]", help='Who serves it; may be repeated. Default: "default".'
        ),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Write to the marketplace from the start.")] = False,
) -> None:
    """Add an account. Nothing is written to the marketplace until it is live."""
    names.checked_reference("--name", name)
    connector = credentials.connector(channel)
    values = credentials.read(credentials_file)
    mode = StoreMode.LIVE if live else StoreMode.OBSERVE
    if live and connector.manifest.authorizes:
        raise UsageError(
            f"{connector.manifest.name} asks the merchant first: add the store without --live, then authorise it"
        )
    if application is not None and not connector.manifest.has_applications:
        raise UsageError(f"{connector.manifest.name} has no applications: leave --app out")
    new = NewStore(connector, name, values, application, warehouses or [DEFAULT_WAREHOUSE], mode)
    store_id, served, more = session.run(context, partial(_add, tenant, new))
    output.say(f"Store {name!r} added (id {store_id}, {mode}, served by {', '.join(served)})")
    if connector.manifest.closed:
        output.note(f"{connector.manifest.name} has closed: nothing answers at its own address any more")
    if connector.manifest.authorizes:
        output.note(f"The merchant must agree first: `lumbung store authorize {store_id}{more} --redirect URL`")
    if mode is StoreMode.OBSERVE:
        output.note(f"Nothing is written to the marketplace until `lumbung store live {store_id}{more}`")


@dataclass(frozen=True, slots=True)
class NewStore:
    """A store as it was asked for. `application` and `warehouses` are as they were written."""

    channel: Channel
    name: str
    values: dict[str, str] = field(repr=False)
    application: str | None
    warehouses: list[str]
    mode: StoreMode


async def _add(tenant: str | None, new: NewStore, hub: Installation) -> tuple[int, list[str], str]:
    channel, code = new.channel, new.channel.manifest.code
    async with hub.pool.transaction() as connection:
        tenant_id = (await find.tenant(connection, tenant)).id
        application = await _application(connection, tenant_id, new)
        shared = {} if application is None else application_values(hub.keyring, application.id, application.credentials)
        await credentials.check_store(channel, new.values, shared, hub.settings)
        places = await find.places(connection, tenant_id, new.warehouses)
        links.check_locations(channel, places, {})
        store_id = await stores.add_store(
            connection,
            tenant_id=tenant_id,
            channel=code,
            name=new.name,
            mode=new.mode,
            account=channel.account(shared | new.values),
            channel_app_id=application.id if application is not None else None,
        )
        if store_id is None:
            raise UsageError(f"There is a store {new.name!r} already")
        await _seal(connection, hub, tenant_id, store_id, new.values)
        for place in places:
            await links.put(connection, tenant_id, store_id, place)
        newest = await stores.newest_change(connection, tenant_id=tenant_id, store_id=store_id)
        await stores.settle_links(connection, tenant_id=tenant_id, store_id=store_id, newest=newest)
        served = {place.warehouse: place.location for place in places}
        detail = {"name": new.name, "channel": code, "mode": new.mode, "warehouses": served}
        app_detail = {} if application is None else {"app": application.id}
        await audit.write(connection, tenant_id, "store.add", f"store:{store_id}", **detail, **app_detail)
        more = await find.tenant_words(connection, tenant_id)
    return store_id, list(served), more


async def _application(connection: Connection, tenant_id: int, new: NewStore) -> ApplicationRow | None:
    """The one that the store is to use, kept from being removed meanwhile."""
    manifest = new.channel.manifest
    if not manifest.has_applications:
        return None
    found = await find.application_of_store(connection, tenant_id, manifest.code, new.application)
    if not await applications.lock(connection, found.id):
        raise UsageError(f"Application {found.name!r} was removed just now")
    return found


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
    found, more = session.run(context, partial(_replace_credentials, tenant, store, values))
    output.say(f"Store {found.name!r} has new credentials")
    if found.mode is StoreMode.PAUSED:
        output.note(f"It is still paused ({found.pause_reason}): `lumbung store resume {found.id}{more}`")


def _refuse_another_account(channel: Channel, store: StoreRow, account: str) -> None:
    """What a merchant has agreed to for one account is of no use for another."""
    if channel.manifest.authorizes and store.account not in {None, account}:
        raise UsageError(
            f"Store {store.name!r} is account {store.account}: add a store of its own for account {account}"
        )


async def _replace_credentials(
    tenant: str | None, reference: str, values: dict[str, str], hub: Installation
) -> tuple[StoreRow, str]:
    async with hub.pool.connection() as connection:
        store = await find.store(connection, (await find.tenant(connection, tenant)).id, reference)
    channel = credentials.connector(store.channel)
    shared = application_values(hub.keyring, store.channel_app_id, store.application_credentials)
    await credentials.check_store(channel, values, shared, hub.settings)
    async with hub.pool.transaction() as connection:
        store = await find.store(connection, store.tenant_id, store.name)
        account = channel.account(shared | values)
        _refuse_another_account(channel, store, account)
        await stores.change_account(connection, store, account)
        await _seal(connection, hub, store.tenant_id, store.id, values)
        await stores.revoke_lease(connection, store_id=store.id, quiesce_seconds=channel.manifest.quiesce_seconds)
        await audit.write(connection, store.tenant_id, "store.credentials", f"store:{store.id}")
        more = await find.tenant_words(connection, store.tenant_id)
    await wake.try_notify(hub.pool, [store.id])
    return store, more


app.command("link")(links.link)
app.command("unlink")(links.unlink)
app.command("forget-location")(links.forget_location)
app.command("authorize")(authorize.authorize)
app.command("tokens")(authorize.tokens)


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
        await wake.try_notify(hub.pool, [store.id])
    return store, after


async def _set_mode(mode: StoreMode, connection: Connection, store: StoreRow) -> None:
    if mode is StoreMode.LIVE and store.tokens is None and credentials.connector(store.channel).manifest.authorizes:
        more = await find.tenant_words(connection, store.tenant_id)
        raise UsageError(
            f"Store {store.name!r} is not authorised yet: `lumbung store authorize {store.id}{more} --redirect URL`"
        )
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
    await links.with_progress(
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
