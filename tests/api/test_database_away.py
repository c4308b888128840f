"""A database that refuses, in each of its ways: what is answered, what is logged, and that nothing is half done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs

from lumbung.api import reference
from lumbung.db.pool import Pool
from lumbung.db.schema import newest_version
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.api.raw import UPDATE, check_error
from tests.conftest import in_database
from tests.flow.hub import Client, running_api
from tests.world import World

BODY = {"sku": "sku1", "warehouse": "default", "available_stock": 5, "buffer_stock": 0, "channel_stock": []}


@asynccontextmanager
async def api_on(url: str, keyring: object) -> AsyncIterator[Client]:
    assert isinstance(keyring, Keyring)
    settings = Settings()
    async with (
        Pool(url, settings) as pool,
        running_api(settings, pool, keyring) as (address, _),
        aiohttp.ClientSession() as session,
    ):
        yield Client(address, session)


async def merchant(world: World) -> None:
    await world.tenant()
    await world.partner()
    await world.variants("sku1")


async def readiness(client: Client) -> tuple[int, Any]:
    answer = await client.call("GET", "/readyz")
    return answer.status, answer.json


async def refusal(client: Client) -> str:
    """What an update is told that can be sent again."""
    answer = await client.update(BODY)
    assert check_error(answer, 503) == []
    assert answer.headers["retry-after"] == "2"
    message: str = answer.json["message"]
    return message


READY = (200, {"status": "ready", "schema_version": newest_version()})


async def check_refused_with(client: Client, reason: str) -> None:
    assert await refusal(client) == reason
    assert await readiness(client) == (503, {"status": "not ready", "reason": reason})
    assert (await client.call("GET", "/healthz")).status == 200


async def test_a_login_that_is_refused_is_told_without_saying_whose(world: World) -> None:
    url = world.pool.url.replace("postgresql://postgres", "postgresql://nobody")
    assert url != world.pool.url
    async with api_on(url, world.keyring) as client:
        await check_refused_with(client, "The database does not let this hub in")


async def test_a_database_that_does_not_exist_is_told_without_its_name(world: World) -> None:
    async with api_on(in_database(world.pool.url, "nowhere"), world.keyring) as client:
        await check_refused_with(client, "The database does not exist")


async def test_a_database_without_a_free_connection_is_told_and_serves_when_there_is_one(world: World) -> None:
    await merchant(world)
    role = f"lumbung_{uuid4().hex}"
    await world.execute(f'CREATE ROLE "{role}" LOGIN SUPERUSER CONNECTION LIMIT 0')
    await world.execute(f'ALTER ROLE "{role}" NOSUPERUSER')  # superusers are under no limit
    await world.execute(f'GRANT ALL ON ALL TABLES IN SCHEMA public TO "{role}"')
    await world.execute(f'GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO "{role}"')
    try:
        async with api_on(as_user(world.pool.url, role), world.keyring) as client:
            await check_refused_with(client, "The database has no connection left")
            await world.execute(f'ALTER ROLE "{role}" CONNECTION LIMIT -1')
            assert (await client.update(BODY)).status == 200
            assert await readiness(client) == READY
    finally:
        await world.execute(f'DROP OWNED BY "{role}"')
        await world.execute(f'DROP ROLE "{role}"')


def as_user(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{name}@{parts.netloc.rpartition('@')[2]}"))


async def test_a_database_that_can_only_be_read_is_not_ready(world: World) -> None:
    await merchant(world)
    name = urlsplit(world.pool.url).path.removeprefix("/")
    await world.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with api_on(world.pool.url, world.keyring) as client:
        await check_refused_with(client, "The database can only be read")
        await world.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await end_other_connections(world)
        assert (await client.update(BODY)).status == 200
        assert await readiness(client) == READY


async def end_other_connections(world: World) -> None:
    """And wait for each end: a connection that is only about to end can still be handed to a request."""
    ended = await world.rows(
        "SELECT pg_terminate_backend(pid, 10000) AS ended FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert all(row["ended"] for row in ended)


async def test_a_schema_that_is_older_is_not_ready_and_a_newer_one_is(world: World) -> None:
    newest = newest_version()
    async with api_on(world.pool.url, world.keyring) as client:
        await world.execute("UPDATE migration SET number = -number WHERE number = $1", newest)
        reason = f"The schema is at version {newest - 1}, this process needs {newest}"
        assert await readiness(client) == (503, {"status": "not ready", "reason": reason})
        await world.execute("UPDATE migration SET number = 1000 WHERE number = -$1::int", newest)
        assert await readiness(client) == (200, {"status": "ready", "schema_version": 1000})


@pytest.mark.parametrize("deferred", ["", "DEFERRABLE INITIALLY DEFERRED"], ids=["at an insert", "at the commit"])
async def test_a_full_disk_refuses_updates_with_nothing_half_done_until_there_is_room(
    world: World, deferred: str
) -> None:
    await merchant(world)
    await world.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
    )
    await world.execute(
        f"CREATE CONSTRAINT TRIGGER full_disk AFTER INSERT ON stock_change {deferred}"
        " FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    async with api_on(world.pool.url, world.keyring) as client:
        assert await refusal(client) == "The disk of the database is full"
        assert await kept(world) == (0, 0, 0)
        await world.execute("DROP TRIGGER full_disk ON stock_change")
        assert (await client.update(BODY)).status == 200
        assert await kept(world) == (1, 1, 1)


async def kept(world: World) -> tuple[int, ...]:
    [row] = await world.rows(
        "SELECT (SELECT count(*) FROM stock_update) AS a, (SELECT count(*) FROM stock_change) AS b,"
        " (SELECT count(*) FROM stock_level WHERE available = 5) AS c"
    )
    return tuple(row.values())


async def test_an_outage_is_warned_of_once_a_route_and_its_end_is_told_once_it_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await merchant(world)
    connection = await asyncpg.connect(world.pool.url)
    try:
        async with api_on(world.pool.url, world.keyring) as client:
            with capture_logs() as logs:
                await connection.execute("ALTER TABLE partner RENAME TO gone; ALTER TABLE migration RENAME TO gone_too")
                refusals = [await refusal(client) for _ in range(3)]
                await connection.execute("ALTER TABLE gone RENAME TO partner; ALTER TABLE gone_too RENAME TO migration")
                assert (await client.update(BODY)).status == 200
                monkeypatch.setattr(reference, "AGAIN_SECONDS", 0.0)
                assert [(await client.update(BODY)).status for _ in range(2)] == [200, 200]
    finally:
        await connection.close()
    assert refusals == ["The database has no schema yet: a process that starts makes it"] * 3
    told = [line for line in logs if line["event"] != "request"]
    assert told == [
        {"event": "requests are answered 503", "route": UPDATE, "reason": refusals[0], "log_level": "warning"},
        {"event": "requests are answered again", "route": UPDATE, "log_level": "info"},
    ]
    assert [(line["log_level"], line["reason"]) for line in logs if line.get("status") == 503] == [
        ("info", refusals[0])
    ] * 3
