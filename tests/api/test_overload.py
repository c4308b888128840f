"""Clients that want too much, or never read: everybody else still gets an answer."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import aiohttp
import pytest

from lumbung.api.server import make_server
from lumbung.cli.compose import build_api
from lumbung.cli.roles import free_port
from lumbung.clock import Clock
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.flow.hub import Client, until
from tests.world import World

BODY = {"sku": "sku1", "warehouse": "default", "available_stock": 5, "buffer_stock": 0, "channel_stock": []}
BIG = "/docs/static/swagger-ui-bundle.js"
SMALL = "/docs/openapi.json"


@asynccontextmanager
async def served(world: World, settings: Settings, clock: Clock | None = None) -> AsyncIterator[Client]:
    """The API on the server that `lumbung serve` runs it on."""
    keyring = world.keyring
    assert isinstance(keyring, Keyring)
    settings = replace(settings, port=free_port(settings.host))
    app, _ = build_api(settings, world.pool, keyring, clock=clock)
    server = make_server(app, settings)
    running = asyncio.create_task(server.serve())
    url = f"http://{settings.host}:{settings.port}"

    async def answers() -> bool:
        try:
            async with aiohttp.request("GET", url + "/healthz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until(answers, bool)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Client(url, session)
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await running


@contextmanager
def asking_without_reading(url: str, path: str, *, requests: int, clients: int) -> Iterator[None]:
    """So many connections that each send requests for a path one after another and read nothing of what comes."""
    to = urlsplit(url)
    with ExitStack() as held:
        for _ in range(clients):
            client = held.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((to.hostname, to.port))
            client.setblocking(False)
            client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * requests)
        yield


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux cuts off a client that does not read")
@pytest.mark.parametrize(("path", "requests"), [(BIG, 1), (BIG, 20), (SMALL, 500)])
async def test_clients_that_never_read_their_answers_do_not_keep_others_out(
    world: World, path: str, requests: int
) -> None:
    settings = Settings(connections_max=8, answer_write_timeout_seconds=0.5, header_read_timeout_seconds=3600.0)
    async with served(world, settings) as client:
        with asking_without_reading(client.url, path, requests=requests, clients=settings.connections_max):
            async with asyncio.timeout(30):
                answer = await client.call("GET", "/healthz")
    assert answer.status == 200


async def test_a_full_queue_is_told_at_once_while_a_connection_is_free(world: World) -> None:
    await world.tenant()
    await world.partner()
    await world.variants("sku1")
    settings = Settings(
        connections_max=2, accept_queue_max=1, accept_timeout_seconds=3600.0, update_lock_timeout_ms=3_600_000
    )
    async with served(world, settings) as client:
        async with world.pool.transaction() as connection:
            await connection.execute("SELECT FROM variant FOR UPDATE")
            waiting = asyncio.create_task(client.update(BODY))
            await until(lambda: waits_for_a_lock(world), bool)
            async with asyncio.timeout(30):
                refused = await client.update(BODY)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert not waiting.done()
        assert (await waiting).status == 200
        assert (await client.update(BODY)).status == 200


async def waits_for_a_lock(world: World) -> bool:
    found: bool = await world.value(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
    )
    return found


async def test_a_server_that_has_stopped_no_longer_listens(world: World) -> None:
    async with served(world, Settings()) as client:
        pass
    with pytest.raises(aiohttp.ClientConnectorError):
        async with aiohttp.request("GET", client.url + "/healthz"):
            pass
