"""`lumbung partner`: API clients and their secrets."""

from __future__ import annotations

import base64
import re
import secrets
import string
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lumbung.cli import audit, find, names, output, session
from lumbung.db import tenants
from lumbung.errors import UsageError
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_partner

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

app = typer.Typer(help="API clients of a tenant.", no_args_is_help=True)

COLUMNS = {
    "id": "ID",
    "tenant": "TENANT",
    "name": "NAME",
    "strict": "STRICT",
    "disabled_at": "DISABLED",
    "old_secret_expires_at": "OLD SECRET WORKS UNTIL",
    "created_at": "CREATED",
}
ID_CHARACTERS = string.ascii_uppercase + string.digits
ID_LENGTH = 7
ID_ATTEMPTS = 10
SECRET_BYTES = 32
DURATION_DAYS_MAX = 365
TRACE_MINUTES_MAX = 1440

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_DURATION = re.compile(r"([1-9][0-9]{0,7})([dhms])", re.ASCII)
_UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@app.command("add")
def add(
    context: typer.Context,
    tenant: session.TenantOption = None,
    partner_id: Annotated[
        str | None, typer.Option("--id", help="Its id; one like B98KL87 is made when absent.")
    ] = None,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="It must sign a timestamp.")] = False,
) -> None:
    """Add an API client. Its secret is shown once, now."""
    if partner_id is not None and not _ID.fullmatch(partner_id):
        raise UsageError(
            "--id must have 1 to 64 letters, digits, dots, hyphens or underscores, a letter or digit first"
        )
    if name:
        names.checked("--name", name)
    made_id, secret = session.run(context, partial(_add, tenant, partner_id, name, strict))
    _show(made_id, secret)


async def _add(
    tenant: str | None, partner_id: str | None, name: str, strict: bool, hub: Installation
) -> tuple[str, str]:
    async with hub.pool.transaction() as connection:
        owner = await find.tenant(connection, tenant)
        for made_id in [partner_id] if partner_id is not None else [new_id() for _ in range(ID_ATTEMPTS)]:
            secret, sealed = new_secret(hub.keyring, made_id)
            if await tenants.add_partner(
                connection, partner_id=made_id, tenant_id=owner.id, name=name, secret=sealed, strict=strict
            ):
                break
        else:
            raise UsageError(f"There is a partner {partner_id!r} already")
        await audit.write(connection, owner.id, "partner.add", f"partner:{made_id}", name=name, strict=strict)
    return made_id, secret


@app.command("rotate")
def rotate(
    context: typer.Context,
    partner_id: Annotated[str, typer.Argument(metavar="ID")],
    old_expires: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long the old secret still works: 7d, 12h, 30m. Default: a week."),
    ] = None,
    finish: Annotated[bool, typer.Option("--finish", help="End the old secret now; make no new one.")] = False,
) -> None:
    """Make a new secret, shown once; the old one works for a while longer."""
    if finish and old_expires is not None:
        raise UsageError("--finish ends the old secret now: leave out --old-expires")
    seconds = None if old_expires is None else duration_seconds(old_expires)
    if finish:
        session.run(context, partial(_finish, partner_id))
        output.say(f"The old secret of {partner_id} no longer works")
        return
    secret, expires_at = session.run(context, partial(_rotate, partner_id, seconds))
    _show(partner_id, secret)
    output.note(
        f"The old secret works until {output.cell(expires_at)}; `lumbung partner rotate {partner_id} --finish` ends it"
    )


async def _rotate(partner_id: str, seconds: int | None, hub: Installation) -> tuple[str, object]:
    seconds = hub.settings.secret_overlap_seconds if seconds is None else seconds
    async with hub.pool.transaction() as connection:
        partner = await find.partner(connection, partner_id)
        secret, sealed = new_secret(hub.keyring, partner_id)
        expires_at = await tenants.rotate_partner(
            connection, partner_id=partner_id, secret=sealed, old_expires_seconds=seconds
        )
        if expires_at is None:
            raise UsageError(
                f"The old secret of {partner_id} still works. When the partner uses the new one, "
                f"end the old one with `lumbung partner rotate {partner_id} --finish`, then rotate again"
            )
        subject = f"partner:{partner_id}"
        await audit.write(connection, partner.tenant_id, "partner.rotate", subject, old_expires_seconds=seconds)
    return secret, expires_at


async def _finish(partner_id: str, hub: Installation) -> None:
    async with hub.pool.transaction() as connection:
        partner = await find.partner(connection, partner_id)
        if not await tenants.finish_rotation(connection, partner_id):
            raise UsageError(f"Partner {partner_id} has no old secret to end")
        await audit.write(connection, partner.tenant_id, "partner.rotate.finish", f"partner:{partner_id}")


@app.command("disable")
def disable(context: typer.Context, partner_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Refuse its requests from now on. Delivery goes on."""
    session.run(context, partial(_set_disabled, partner_id, True))
    output.say(f"Partner {partner_id} is disabled")


@app.command("enable")
def enable(context: typer.Context, partner_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Accept its requests again."""
    session.run(context, partial(_set_disabled, partner_id, False))
    output.say(f"Partner {partner_id} is enabled")


async def _set_disabled(partner_id: str, disabled: bool, hub: Installation) -> None:
    async with hub.pool.transaction() as connection:
        partner = await find.partner(connection, partner_id)
        await tenants.set_partner_disabled(connection, partner_id, disabled=disabled)
        action = "partner.disable" if disabled else "partner.enable"
        await audit.write(connection, partner.tenant_id, action, f"partner:{partner_id}")


@app.command("trace")
def trace(
    context: typer.Context,
    partner_id: Annotated[str, typer.Argument(metavar="ID")],
    minutes: Annotated[int, typer.Option(min=0, max=TRACE_MINUTES_MAX, help="For how long; 0 ends it.")] = 10,
) -> None:
    """Log the exact bytes that were hashed when its signature does not match."""
    session.run(context, partial(_trace, partner_id, minutes))
    output.say(f"Failed signatures of {partner_id} are logged for {minutes} minutes")


async def _trace(partner_id: str, minutes: int, hub: Installation) -> None:
    async with hub.pool.transaction() as connection:
        partner = await find.partner(connection, partner_id)
        await tenants.trace_partner(connection, partner_id, seconds=minutes * 60)
        await audit.write(connection, partner.tenant_id, "partner.trace", f"partner:{partner_id}", minutes=minutes)


@app.command("list")
def list_(context: typer.Context, as_json: session.JsonOption = False) -> None:
    """Show the partners of all tenants."""
    output.listing(session.run(context, _list), COLUMNS, as_json=as_json)


async def _list(hub: Installation) -> list[Any]:
    async with hub.pool.connection() as connection:
        return await tenants.list_partners(connection)


def new_id() -> str:
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))


def new_secret(keyring: Keyring, partner_id: str) -> tuple[str, bytes]:
    """A secret and its ciphertext, which opens only for this partner."""
    secret = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
    return secret, keyring.encrypt(secret.encode(), purpose_of_partner(partner_id))


def duration_seconds(text: str) -> int:
    """From `7d`, `12h`, `30m` or `45s`. Raises UsageError."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= DURATION_DAYS_MAX * 86400:
        raise UsageError(
            f"A duration is a number and a unit, such as 7d, 12h or 30m, up to {DURATION_DAYS_MAX}d; not {text!r}"
        )
    return seconds


def _show(partner_id: str, secret: str) -> None:
    output.say(f"partner-id: {partner_id}")
    output.say(f"secret: {secret}")
    output.note("The secret is shown only now: give it to the partner over a channel that you trust")
