"""Makes merchants' partners and sandbox stores in the hub's database, as their commands would."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta

from lumbung.channels.base import Tokens
from lumbung.cli.sandbox_stores import CALLS_PER_SECOND, Application, SandboxStore, TokenPair
from lumbung.clock import SystemClock
from lumbung.db import applications, stores, tenants
from lumbung.db.lease import StoredTokens
from lumbung.db.query import Connection
from lumbung.dispatch.tokens import digest, seal
from lumbung.keyring import Keyring
from lumbung.model import StoreMode, purpose_of_application, purpose_of_partner, purpose_of_store


async def add_partner(connection: Connection, keyring: Keyring, tenant_id: int, partner_id: str) -> str:
    """Returns the new partner's secret."""
    secret = b64encode(secrets.token_bytes(32)).decode()
    blob = keyring.encrypt(secret.encode(), purpose_of_partner(partner_id))
    await tenants.add_partner(
        connection, partner_id=partner_id, tenant_id=tenant_id, name="Demonstration", secret=blob, strict=False
    )
    return secret


async def add_store(
    connection: Connection,
    keyring: Keyring,
    tenant_id: int,
    store: SandboxStore,
    warehouses: Mapping[str, int],
    sandbox_url: str,
    *,
    application_id: int | None = None,
) -> int:
    """A live store, with its application and tokens where it has some; returns its id. `warehouses`: ids by name.
    `application_id`: of one that is there already, in place of its own."""
    application = store.application(sandbox_url)
    if application is not None and application_id is None:
        application_id = await add_application(connection, keyring, tenant_id, application)
    store_id = await stores.add_store(
        connection,
        tenant_id=tenant_id,
        channel=store.channel,
        name=store.name,
        mode=StoreMode.LIVE,
        account=store.code,
        channel_app_id=application_id,
    )
    assert store_id is not None
    blob = keyring.encrypt(json.dumps(store.credentials(sandbox_url)).encode(), purpose_of_store(store_id))
    await stores.set_credentials(connection, tenant_id=tenant_id, store_id=store_id, credentials=blob)
    await put_tokens(connection, keyring, tenant_id, store_id, store.tokens())
    for name, location in store.warehouses.items():
        await stores.link(
            connection, tenant_id=tenant_id, store_id=store_id, warehouse_id=warehouses[name], location=location
        )
    return store_id


async def add_application(
    connection: Connection,
    keyring: Keyring,
    tenant_id: int | None,
    application: Application,
    *,
    calls_per_second: float = float(CALLS_PER_SECOND),
    burst: int = 100,
) -> int:
    """Returns its id. `tenant_id` None: the stores of all tenants may use it."""
    application_id = await applications.add(
        connection, tenant_id=tenant_id, channel=application.channel, name=application.name
    )
    assert application_id is not None
    blob = keyring.encrypt(json.dumps(application.credentials).encode(), purpose_of_application(application_id))
    await applications.set_credentials(connection, application_id=application_id, credentials=blob)
    await applications.set_limit(
        connection, application_id=application_id, calls_per_second=calls_per_second, burst=burst
    )
    return application_id


async def put_tokens(
    connection: Connection, keyring: Keyring, tenant_id: int, store_id: int, pair: TokenPair | None
) -> None:
    """What the merchant has just got by agreeing, if it got something."""
    if pair is None:
        return
    now = SystemClock().now()
    lasts = None if pair.refresh_seconds is None else now + timedelta(seconds=pair.refresh_seconds)
    tokens = Tokens(pair.access, pair.refresh, now, now + timedelta(seconds=pair.access_seconds), lasts)
    blob = seal(keyring, store_id, tokens)
    new = StoredTokens(blob, digest(tokens), tokens.access_expires_at, lasts)
    await stores.put_tokens(connection, tenant_id=tenant_id, store_id=store_id, new=new)
