"""`lumbung app`: app keys that many stores share, on channels that have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.channels.base import Channel, Pacing
from lumbung.cli import audit, credentials, find, names, output, session
from lumbung.db import applications, stores, tenants, wake
from lumbung.db.applications import ApplicationRow
from lumbung.db.query import Connection
from lumbung.db.stores import StoreRow
from lumbung.errors import UsageError
from lumbung.model import StoreMode, purpose_of_application

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

RATE_MAX = 100_000
BURST_MAX = 1_000_000

app = typer.Typer(help="App keys that many stores share.", no_args_is_help=True)

COLUMNS = {
    "id": "ID",
    "tenant": "TENANT",
    "channel": "CHANNEL",
    "name": "NAME",
    "calls_per_second": "CALLS/S",
    "burst": "BURST",
    "stores": "STORES",
}

ApplicationArgument = Annotated[str, typer.Argument(metavar="APP", help="The application's name or id.")]
CredentialsOption = Annotated[
    Path, typer.Option("--credentials", metavar="FILE", help="JSON, or TOML when it ends in .toml.")
]
SharedOption = Annotated[
    bool, typer.Option("--shared", help="Of the installation: the stores of every tenant may use it.")
]
RateOption = Annotated[
    float | None,
    typer.Option(
        min=0.001, max=RATE_MAX, help="What all its stores may send together. Default: what the channel is known for."
    ),
]
BurstOption = Annotated[
    int | None, typer.Option(min=1, max=BURST_MAX, help="Calls at once after a rest. Default: a second's worth.")
]


@app.command("add")
def add(
    context: typer.Context,
    channel: Annotated[str, typer.Option(help="The code of the channel, such as shpe.")],
    name: Annotated[str, typer.Option(help="What people call the application.")],
    credentials_file: CredentialsOption,
    tenant: session.TenantOption = None,
    shared: SharedOption = False,
    calls_per_second: RateOption = None,
    burst: BurstOption = None,
) -> None:
    """Add an app key; `lumbung channel show CODE` lists the fields of its file."""
    names.checked_reference("--name", name)
    connector = credentials.connector(channel)
    if not connector.manifest.has_applications:
        raise UsageError(f"{connector.manifest.name} has no applications: its stores bring all their credentials")
    if shared and tenant is not None:
        raise UsageError("Say either --shared or --tenant")
    values = credentials.read(credentials_file)
    limit = _limit(connector, calls_per_second, burst)
    application_id = session.run(context, partial(_add, tenant, shared, connector, name, values, limit))
    output.say(
        f"Application {name!r} added (id {application_id}, {connector.manifest.name}, "
        f"{limit.calls_per_second:g} calls/s for all its stores)"
    )


async def _add(
    tenant: str | None,
    shared: bool,
    channel: Channel,
    name: str,
    values: dict[str, str],
    limit: Pacing,
    hub: Installation,
) -> int:
    await credentials.check_application(channel, values, hub.settings)
    async with hub.pool.transaction() as connection:
        tenant_id = None if shared else (await find.tenant(connection, tenant)).id
        code = channel.manifest.code
        identity = _identity(channel, values)
        await _refuse_second(connection, channel, identity)
        application_id = await applications.add(
            connection, tenant_id=tenant_id, channel=code, name=name, identity=identity
        )
        if application_id is None:
            raise UsageError(f"There is an application {name!r} of {channel.manifest.name} already")
        await _seal(connection, hub, application_id, values)
        await _set_limit(connection, application_id, limit)
        detail = {"name": name, "channel": code, "calls_per_second": limit.calls_per_second, "burst": limit.burst}
        await _audit(connection, tenant_id, "app.add", application_id, **detail)
    return application_id


@app.command("credentials")
def replace_credentials(
    context: typer.Context,
    application: ApplicationArgument,
    credentials_file: CredentialsOption,
    tenant: session.TenantOption = None,
) -> None:
    """Replace an app key; workers that run take it up by themselves for all its stores."""
    values = credentials.read(credentials_file)
    found, using, words = session.run(context, partial(_replace_credentials, tenant, application, values))
    output.say(f"Application {found.name!r} has new credentials; {_count(len(using), 'store')} of it will use them")
    for store, more in zip(using, words, strict=True):
        if store.mode is StoreMode.PAUSED:
            output.note(
                f"Store {store.name!r} is still paused ({store.pause_reason}): `lumbung store resume {store.id}{more}`"
            )


async def _replace_credentials(
    tenant: str | None, reference: str, values: dict[str, str], hub: Installation
) -> tuple[ApplicationRow, list[StoreRow], list[str]]:
    async with hub.pool.connection() as connection:
        found = await find.application(connection, tenant, reference)
    channel = credentials.connector(found.channel)
    await credentials.check_application(channel, values, hub.settings)
    _refuse_another_app(channel, found, values)
    async with hub.pool.transaction() as connection:
        await _still_there(connection, found)
        await _seal(connection, hub, found.id, values)
        using = await applications.stores_of(connection, found.id)
        for store in using:
            await stores.revoke_lease(connection, store_id=store.id, quiesce_seconds=channel.manifest.quiesce_seconds)
        await _audit(connection, found.tenant_id, "app.credentials", found.id)
        words = [await find.tenant_words(connection, store.tenant_id) for store in using]
    await wake.try_notify(hub.pool, [store.id for store in using])
    return found, using, words


async def _refuse_second(connection: Connection, channel: Channel, identity: str) -> None:
    """The same app twice would have its limit twice, and the marketplace counts once."""
    found = await applications.of_identity(connection, channel=channel.manifest.code, identity=identity)
    if found is not None:
        application_id, name, tenant = found
        whose = "of the installation" if tenant is None else f"of tenant {tenant!r}"
        raise UsageError(
            f"Application {name!r} (id {application_id}, {whose}) is the same app: use it, or remove it and add it "
            "with --shared for every tenant"
        )


def _identity(channel: Channel, values: Mapping[str, str]) -> str:
    return " ".join(values.get(entry.name, "").strip() for entry in channel.manifest.credentials if entry.identifies)


def _refuse_another_app(channel: Channel, found: ApplicationRow, values: Mapping[str, str]) -> None:
    """What merchants have agreed to is good for one app; a key of another would have every store of it refused."""
    identity = _identity(channel, values)
    if found.identity not in {None, identity}:
        raise UsageError(
            f"Application {found.name!r} is {found.identity}, this file is of {identity}: what merchants agreed to is "
            "good for one app; add the other with `lumbung app add`"
        )


@app.command("limit")
def limit(
    context: typer.Context,
    application: ApplicationArgument,
    calls_per_second: Annotated[float, typer.Option(min=0.001, max=RATE_MAX, help="For all its stores together.")],
    burst: BurstOption = None,
    tenant: session.TenantOption = None,
) -> None:
    """Change what all stores of an application may send together."""
    found, after = session.run(context, partial(_change_limit, tenant, application, calls_per_second, burst))
    output.say(
        f"The stores of application {found.name!r} send {after.calls_per_second:g} calls/s together, "
        f"{after.burst} at once"
    )


async def _change_limit(
    tenant: str | None, reference: str, calls_per_second: float, burst: int | None, hub: Installation
) -> tuple[ApplicationRow, Pacing]:
    async with hub.pool.transaction() as connection:
        found = await find.application(connection, tenant, reference)
        await _still_there(connection, found)
        after = _limit(credentials.connector(found.channel), calls_per_second, burst)
        await _set_limit(connection, found.id, after)
        before = {"calls_per_second": found.calls_per_second, "burst": found.burst}
        detail = {"calls_per_second": after.calls_per_second, "burst": after.burst, "before": before}
        await _audit(connection, found.tenant_id, "app.limit", found.id, **detail)
    return found, after


@app.command("remove")
def remove(context: typer.Context, application: ApplicationArgument, tenant: session.TenantOption = None) -> None:
    """Remove an application that no store uses any more."""
    found = session.run(context, partial(_remove, tenant, application))
    output.say(f"Application {found.name!r} was removed")


async def _remove(tenant: str | None, reference: str, hub: Installation) -> ApplicationRow:
    async with hub.pool.transaction() as connection:
        found = await find.application(connection, tenant, reference)
        await _still_there(connection, found)
        using = await applications.stores_of(connection, found.id)
        if using:
            some = find.some(store.name for store in using)
            raise UsageError(f"Application {found.name!r} is used by {_count(len(using), 'store')}: {some}")
        await applications.retire(connection, found.id)
        await _audit(connection, found.tenant_id, "app.remove", found.id, name=found.name)
    return found


@app.command("list")
def list_(context: typer.Context, tenant: session.TenantOption = None, as_json: session.JsonOption = False) -> None:
    """Show the applications of all tenants, or those that the stores of one may use."""
    output.listing(session.run(context, partial(_list, tenant)), COLUMNS, as_json=as_json)


async def _list(tenant: str | None, hub: Installation) -> list[Any]:
    async with hub.pool.connection() as connection:
        tenant_id = await find.tenant_id_or_all(connection, tenant)
        return [_shown(row) for row in await applications.usable(connection, tenant_id)]


def _shown(row: ApplicationRow) -> dict[str, Any]:
    """Never its credentials."""
    return {
        "id": row.id,
        "tenant_id": row.tenant_id,
        "tenant": row.tenant or "(all)",
        "channel": row.channel,
        "name": row.name,
        "calls_per_second": row.calls_per_second,
        "burst": row.burst,
        "blocked_until": row.blocked_until,
        "stores": row.stores,
        "created_at": row.created_at,
    }


def _limit(channel: Channel, calls_per_second: float | None, burst: int | None) -> Pacing:
    known = channel.manifest.application_pacing or channel.manifest.pacing
    if calls_per_second is None:
        return Pacing(known.calls_per_second, burst or known.burst)
    return Pacing(calls_per_second, burst or max(1, int(calls_per_second)))


async def _set_limit(connection: Connection, application_id: int, pacing: Pacing) -> None:
    await applications.set_limit(
        connection,
        application_id=application_id,
        calls_per_second=pacing.calls_per_second,
        burst=pacing.burst,
    )


async def _seal(connection: Connection, hub: Installation, application_id: int, values: dict[str, str]) -> None:
    sealed = hub.keyring.encrypt(json.dumps(values).encode(), purpose_of_application(application_id))
    await applications.set_credentials(connection, application_id=application_id, credentials=sealed)


async def _still_there(connection: Connection, found: ApplicationRow) -> None:
    if not await applications.lock(connection, found.id):
        raise UsageError(f"Application {found.name!r} was removed just now")


async def _audit(
    connection: Connection, tenant_id: int | None, action: str, application_id: int, **detail: object
) -> None:
    """One of the installation concerns every tenant."""
    concerned = (
        [tenant_id] if tenant_id is not None else [int(row["id"]) for row in await tenants.list_tenants(connection)]
    )
    for one in concerned:
        await audit.write(connection, one, action, f"app:{application_id}", **detail)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
