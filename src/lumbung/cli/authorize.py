"""`lumbung store authorize` and `lumbung store tokens`: how a store that a merchant must agree to gets its tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, assert_never
from urllib.parse import urlsplit

import stamina
import typer

from lumbung.channels.base import (
    Authorizes,
    InDoubt,
    Refreshed,
    RotatesTokens,
    Session,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.cli import audit, credentials, find, output, session
from lumbung.clock import SystemClock
from lumbung.db import stores, wake
from lumbung.db.lease import StoredTokens
from lumbung.db.stores import StoreRow
from lumbung.dispatch.tokens import digest, seal
from lumbung.errors import LumbungError, UsageError
from lumbung.errors import Unavailable as DatabaseAway
from lumbung.model import StoreMode

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

T = TypeVar("T")

TOKEN_FIELDS = ("access_token", "refresh_token", "expires_in", "refresh_expires_in")
WRITE_SECONDS_MAX = 120.0  # a pair that was traded waits so long for the database
WAIT_SECONDS_MAX = 2.0

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The store's name or id.")]


def authorize(
    context: typer.Context,
    store: StoreArgument,
    redirect: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Where the marketplace sends the merchant's browser; registered with the app."
        ),
    ] = None,
    redirected: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The whole address that the browser was sent to, or the code in it."),
    ] = None,
    tenant: session.TenantOption = None,
) -> None:
    """Have the merchant agree: first with --redirect for the link, then with --redirected for the tokens."""
    match redirect, redirected:
        case str(), None:
            found, more, link = session.run(context, partial(_link, tenant, store, _checked_redirect(redirect)))
            output.say(link)
            output.note(
                "Open this as the merchant and agree, soon: the link and the code do not last. Then run\n"
                f"lumbung store authorize {found.id}{more} --redirected 'THE ADDRESS THAT THE BROWSER SHOWS THEN'"
            )
        case None, str():
            found, more, pair = session.run(context, partial(_trade, tenant, store, redirected))
            output.say(f"Store {found.name!r} is authorised{_until(pair)}")
            _say_mode(found, more)
        case _:
            raise UsageError(
                "Say --redirect URL to get the link, or --redirected with the address that it led to in the end"
            )


def tokens(
    context: typer.Context,
    store: StoreArgument,
    tokens_file: Annotated[
        Path, typer.Argument(metavar="FILE", help="JSON or TOML with refresh_token; the other fields are not used.")
    ],
    tenant: session.TenantOption = None,
) -> None:
    """Take over a store's tokens from another system, which must not use them any more: they are renewed at once."""
    refresh = _refresh_token(tokens_file, credentials.read(tokens_file))
    found, more, pair = session.run(context, partial(_take_over, tenant, store, refresh))
    output.say(f"Store {found.name!r} has new tokens{_until(pair)}")
    _say_mode(found, more)


def _say_mode(store: StoreRow, more: str) -> None:
    match store.mode:
        case StoreMode.PAUSED:
            output.note(f"It is still paused ({store.pause_reason}): `lumbung store resume {store.id}{more}`")
        case StoreMode.OBSERVE:
            output.note(f"Nothing is written to the marketplace until `lumbung store live {store.id}{more}`")
        case StoreMode.LIVE:
            pass


def _until(pair: Tokens) -> str:
    if pair.refresh_expires_at is None:
        return ""
    return f" until {output.cell(pair.refresh_expires_at)}; while it is live its tokens renew themselves"


def _checked_redirect(redirect: str) -> str:
    """Raises UsageError."""
    try:
        parts = urlsplit(redirect)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not redirect.isprintable() or " " in redirect:
        raise UsageError(f"--redirect {redirect}: must be a whole address, such as https://example.com/done")
    return redirect


async def _link(tenant: str | None, reference: str, redirect: str, hub: Installation) -> tuple[StoreRow, str, str]:
    async def work(store: StoreRow, more: str, opened_session: Authorizes) -> tuple[StoreRow, str, str]:
        return store, more, opened_session.authorization_url(redirect)

    return await _with_session(tenant, reference, hub, work)


async def _trade(
    tenant: str | None, reference: str, redirected: str, hub: Installation
) -> tuple[StoreRow, str, Tokens]:
    async def work(store: StoreRow, more: str, opened_session: Authorizes) -> tuple[StoreRow, str, Tokens]:
        pair = _pair(await opened_session.authorize(redirected))
        return await _write(hub, store, pair, "store.authorize"), more, pair

    return await _with_session(tenant, reference, hub, work)


async def _take_over(
    tenant: str | None, reference: str, refresh: str, hub: Installation
) -> tuple[StoreRow, str, Tokens]:
    """Traded before it is kept: the refresh token of an old file is dead, and would take the place of a good one."""

    async def work(store: StoreRow, more: str, opened_session: Authorizes) -> tuple[StoreRow, str, Tokens]:
        assert isinstance(opened_session, RotatesTokens)
        now = SystemClock().now()
        pair = _pair(await opened_session.refresh(Tokens("", refresh, now, now)))
        return await _write(hub, store, pair, "store.tokens"), more, pair

    return await _with_session(tenant, reference, hub, work)


async def _with_session(
    tenant: str | None, reference: str, hub: Installation, work: Callable[[StoreRow, str, Authorizes], Awaitable[T]]
) -> T:
    async with hub.pool.connection() as connection:
        store = await find.store(connection, (await find.tenant(connection, tenant)).id, reference)
        more = await find.tenant_words(connection, store.tenant_id)
    channel = credentials.connector(store.channel)
    values = credentials.opened(hub.keyring, store)
    async with session.http_client(hub.settings) as http:
        made: Session = channel.open(values, http, SystemClock())
        if not isinstance(made, Authorizes):
            raise UsageError(f"{channel.manifest.name} needs no authorisation: its credentials file is all it takes")
        return await work(store, more, made)


def _pair(traded: Refreshed) -> Tokens:
    """Raises LumbungError with what to do."""
    agree = "have the merchant agree with `lumbung store authorize`, from --redirect on"
    match traded.result:
        case Tokens() as pair:
            return pair
        case Unauthorized(message=message):
            raise LumbungError(f"{message}. Nothing was changed; {agree}")
        case InDoubt(message):
            raise LumbungError(f"{message}. It may be used up: {agree}")
        case Throttled(message=message) | Unavailable(message):
            raise LumbungError(f"{message}. Run this again in a moment: it is still good, a code for a few minutes")
        case _:
            assert_never(traded.result)


async def _write(hub: Installation, store: StoreRow, pair: Tokens, action: str) -> StoreRow:
    """Returns the store as it is now. A worker that holds it opens it anew. What was traded for the pair is used up, so
    that a database that is away for a moment is waited for."""
    stored = StoredTokens(
        seal(hub.keyring, store.id, pair), digest(pair), pair.access_expires_at, pair.refresh_expires_at
    )
    async for attempt in stamina.retry_context(
        on=DatabaseAway, attempts=None, timeout=WRITE_SECONDS_MAX, wait_max=WAIT_SECONDS_MAX
    ):
        with attempt:
            now = await _written(hub, store, stored, action)
    await wake.try_notify(hub.pool, [now.id])
    return now


async def _written(hub: Installation, store: StoreRow, stored: StoredTokens, action: str) -> StoreRow:
    quiesce_seconds = credentials.connector(store.channel).manifest.quiesce_seconds
    async with hub.pool.transaction() as connection:
        now = await find.store_again(connection, store)
        await stores.put_tokens(connection, tenant_id=now.tenant_id, store_id=now.id, new=stored)
        await stores.revoke_lease(connection, store_id=now.id, quiesce_seconds=quiesce_seconds)
        await audit.write(connection, now.tenant_id, action, f"store:{now.id}")
    return now


def _refresh_token(path: Path, values: Mapping[str, str]) -> str:
    """Raises UsageError that names the field, never what stands there."""
    unknown = sorted(values.keys() - set(TOKEN_FIELDS))
    if unknown:
        raise UsageError(f"{path}: {', '.join(unknown)} is not known here; the fields are {', '.join(TOKEN_FIELDS)}")
    refresh = values.get("refresh_token", "").strip()
    if not refresh:
        raise UsageError(f"{path}: refresh_token is missing")
    return refresh
