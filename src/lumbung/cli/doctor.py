"""`lumbung doctor`: what is wrong with an installation, and what to do about it. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

import typer

from lumbung.channels import registry
from lumbung.channels.base import (
    Accepted,
    Channel,
    Conflict,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    RotatesTokens,
    Submitted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.http import HttpClient
from lumbung.cli import EXIT_WRONG, credentials, output, session
from lumbung.clock import SystemClock
from lumbung.db import doctor as db
from lumbung.db import schema, stores, tenants
from lumbung.db.pool import Pool
from lumbung.db.stores import StoreRow
from lumbung.dispatch.opening import application_values, times_of
from lumbung.dispatch.tokens import unseal
from lumbung.errors import ConfigurationError, LumbungError
from lumbung.keyring import Keyring
from lumbung.model import StoreMode, purpose_of_partner
from lumbung.settings import Settings

CLOCK_SECONDS_MAX = 5.0
PARTITIONS_DAYS_MIN = 7
STORES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `advice` says what to do; empty when nothing is wrong."""

    check: str
    message: str
    advice: str = ""

    @property
    def ok(self) -> bool:
        return not self.advice


def doctor(context: typer.Context, as_json: session.JsonOption = False) -> None:
    """Look for what is wrong with this installation; exit 1 when something is."""
    findings = _examine(context)
    if as_json:
        output.document([{"check": f.check, "ok": f.ok, "message": f.message, "advice": f.advice} for f in findings])
    else:
        for finding in findings:
            output.say(f"{'ok   ' if finding.ok else 'WRONG'} {finding.check}: {finding.message}")
            if not finding.ok:
                output.say(f"      -> {finding.advice}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(EXIT_WRONG)


def _examine(context: typer.Context) -> list[Finding]:
    from lumbung.cli import compose

    try:
        settings = session.settings_of(context)
    except ConfigurationError as error:
        return [Finding("settings", str(error), "mend this environment variable")]
    findings = [check_settings(settings)]
    try:
        with compose.database(settings) as url:
            findings += asyncio.run(_all_of(settings, url))
    except LumbungError as error:  # the embedded database does not start
        findings.append(_database_away(error))
    return findings


async def _all_of(settings: Settings, url: str) -> list[Finding]:
    async with Pool(url, settings) as pool:
        return [finding async for finding in examine(settings, pool)]


async def examine(settings: Settings, pool: Pool) -> AsyncIterator[Finding]:  # noqa: RUF100
    """Every check that the ones before leave possible."""
    keyring = _keyring(settings)
    yield _check_key_file(settings, keyring)
    try:
        async with pool.connection() as connection:
            before = datetime.now(UTC)
            server = await db.server(connection)
            after = datetime.now(UTC)
            version = await schema.schema_version(connection)
    except LumbungError as error:
        yield _database_away(error)
        return
    yield Finding("database", f"PostgreSQL {server.version}")
    yield check_clock(before, server.now, after)
    checked = check_schema(version, schema.newest_version())
    yield checked
    if not checked.ok:
        return
    async with pool.connection() as connection:
        missing = await db.missing_partitions(connection, now=server.now, ahead_days=PARTITIONS_DAYS_MIN)
        unsettled = await stores.unsettled(connection)
        partners = await tenants.partner_secrets(connection)
        every = await stores.unretired_stores(connection)
        several = len(await tenants.list_tenants(connection)) > 1
        delivering = await db.delivering(connection)
    yield check_partitions(missing)
    yield check_workers(delivering)
    for _, store_id, name in unsettled:
        yield Finding(
            f"store {name} ({store_id})",
            "a change of its warehouses was not finished",
            "run the last `lumbung store link` or `lumbung store unlink` of this store again",
        )
    if isinstance(keyring, Keyring):
        for finding in _check_partners(keyring, partners):
            yield finding
        for finding in await _check_stores(settings, keyring, every, several=several):
            yield finding


def check_workers(now: db.Delivering) -> Finding:
    """Live stores without a worker get nothing."""
    message = f"{now.workers} running, {now.due} listings due, {now.waiting} waiting"
    advice = "" if now.workers or not now.live_stores else "nothing is delivered: start `lumbung serve`"
    return Finding("workers", message, advice)


def check_settings(settings: Settings) -> Finding:
    lifetime = min(times.lifetime_seconds for times in times_of(registry.CHANNELS, settings).values())
    if settings.lease_renew_seconds >= lifetime / 2:
        message = f"leases of {lifetime:g} s are renewed every {settings.lease_renew_seconds:g} s"
        advice = f"set LUMBUNG_LEASE_RENEW_SECONDS to less than {lifetime / 2:g}"
        return Finding("settings", message, advice)
    return Finding("settings", f"data in {settings.data_dir}")


def _keyring(settings: Settings) -> Keyring | ConfigurationError:
    try:
        return Keyring.load(settings.key_path, create=False)
    except ConfigurationError as error:
        return error


def _check_key_file(settings: Settings, keyring: Keyring | ConfigurationError) -> Finding:
    if isinstance(keyring, Keyring):
        return Finding("key file", str(settings.key_path))
    advice = (
        "put the installation's key file back; if it is lost, `lumbung key new` makes another; on a new installation "
        "any other command makes one"
    )
    return Finding("key file", str(keyring), advice)


def _database_away(error: LumbungError) -> Finding:
    return Finding("database", str(error), "start PostgreSQL, or correct LUMBUNG_DATABASE_URL or LUMBUNG_DATA_DIR")


def check_clock(before: datetime, server: datetime, after: datetime) -> Finding:
    """The database read its clock at some moment between the two."""
    middle = before + (after - before) / 2
    seconds = (server - middle).total_seconds()
    message = f"{abs(seconds):.1f} s {'behind' if seconds > 0 else 'ahead of'} the database's"
    if abs(seconds) > CLOCK_SECONDS_MAX:
        return Finding("clock", message, "synchronise the clocks of both machines (NTP)")
    return Finding("clock", message)


def check_schema(version: int, newest: int) -> Finding:
    message = f"version {version}, this Lumbung has {newest}"
    if version < newest:
        return Finding("schema", message, "start `lumbung serve`, or run any other command: each brings it up to date")
    if version > newest:
        return Finding("schema", message, "install the version of Lumbung that made it, or a newer one")
    return Finding("schema", message)


def check_partitions(missing: list[str]) -> Finding:
    if missing:
        advice = "start `lumbung serve`, or run any other command: each makes them"
        return Finding("partitions", f"missing for the next {PARTITIONS_DAYS_MIN} days: {', '.join(missing)}", advice)
    return Finding("partitions", f"there for the next {PARTITIONS_DAYS_MIN} days")


def _check_partners(keyring: Keyring, partners: list[tuple[str, bytes]]) -> Iterator[Finding]:
    for partner_id, sealed in partners:
        try:
            keyring.decrypt(sealed, purpose_of_partner(partner_id))
        except ConfigurationError as error:
            advice = f"put the key back into the key file, or run `lumbung partner rotate {partner_id}`"
            yield Finding(f"partner {partner_id}", str(error), advice)


async def _check_stores(settings: Settings, keyring: Keyring, every: list[StoreRow], *, several: bool) -> list[Finding]:
    """`several`: there is more than one tenant, so that commands must say which."""
    gate = asyncio.Semaphore(STORES_AT_ONCE)
    async with session.http_client(settings) as http:
        return list(await asyncio.gather(*(_check_store(gate, http, keyring, store, several) for store in every)))


async def _check_store(
    gate: asyncio.Semaphore, http: HttpClient, keyring: Keyring, store: StoreRow, several: bool
) -> Finding:
    name = f"store {store.name} ({store.id})"
    named = f"{store.id} --tenant {store.tenant_id}" if several else f"{store.id}"
    channel = registry.find(store.channel)
    if channel is None:
        message = f"channel {store.channel} has no connector in this version"
        return Finding(name, message, f"install a version that has one, or `lumbung store remove {named}`")
    try:
        opened = channel.open(credentials.opened(keyring, store), http, SystemClock())
        if isinstance(opened, RotatesTokens) and store.tokens is not None:
            opened.use(unseal(keyring, store.id, store.tokens))
    except ConfigurationError as error:
        advice = f"put the key back into the key file, or use {_replaces(keyring, store, named)}"
        return Finding(name, str(error), advice)
    async with gate:
        outcome = await opened.check()
    message, advice = _judge_store(channel, store, outcome, named)
    if store.mode is StoreMode.PAUSED:
        message = f"{message}; it was paused: {store.pause_reason}"
        advice = f"{advice}, then `lumbung store resume {named}`" if advice else f"`lumbung store resume {named}`"
    return Finding(name, f"{store.mode}, {message}", advice)


def _replaces(keyring: Keyring, store: StoreRow, named: str) -> str:
    """The command that brings back what the keyring cannot open. `named`: the store as commands name it."""
    try:
        application_values(keyring, store.channel_app_id, store.application_credentials)
    except ConfigurationError:
        return f"`lumbung app credentials {store.channel_app_id}`"
    try:
        credentials.opened(keyring, store)
    except ConfigurationError:
        return f"`lumbung store credentials {named}`"
    return f"`lumbung store authorize {named} --redirect URL`"


def _judge_store(channel: Channel, store: StoreRow, outcome: Outcome, named: str) -> tuple[str, str]:
    """As `judge`, with what is known of the store's application and authorisation."""
    message, advice = judge(outcome)
    if not channel.manifest.authorizes:
        return message, advice
    agree = f"have the merchant agree: `lumbung store authorize {named} --redirect URL`"
    if store.tokens is None:
        return "not authorised yet", agree
    if isinstance(outcome, Unauthorized):
        ended = store.refresh_expires_at
        if ended is not None and ended <= datetime.now(UTC):
            return f"its authorisation has ended ({ended:%Y-%m-%d %H:%M}Z)", agree
        if not outcome.refreshable or store.mode is StoreMode.PAUSED:
            return f"not let in: {outcome.message}", agree
    if isinstance(outcome, Misconfigured) and store.channel_app_id is not None:
        key = f"`lumbung app credentials {store.channel_app_id}`"
        return message, f"{advice}; if it is the app's key: {key}"
    return message, advice


def judge(outcome: Outcome) -> tuple[str, str]:
    """What the answer to a check means, and what to do about it."""
    match outcome:
        case Accepted():
            return "reachable", ""
        case Unauthorized(refreshable=True):
            return "reachable, its access token has expired: it is renewed before the next push", ""
        case Throttled(message=message):
            return f"reachable, busy: {message}", ""
        case Unavailable(message) | InDoubt(message):
            return f"no answer: {message}", "look whether this machine reaches the marketplace, and try again later"
        case Unauthorized(message=message):
            return (
                f"not let in: {message}",
                "get new credentials from the marketplace, then `lumbung store credentials`",
            )
        case Misconfigured(message=message) | Rejected(message) | Deferred(message=message) | Floor(message=message):
            return (
                f"refused: {message}",
                "mend it in the marketplace's seller centre, or use `lumbung store credentials`",
            )
        case Submitted() | Conflict():
            return "an answer that makes no sense", "report this as a bug of the connector"
        case _:
            assert_never(outcome)
