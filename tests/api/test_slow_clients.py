"""Clients that send slowly or never finish: each is cut off, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

from lumbung.settings import Settings
from tests.api.raw import UPDATE, RawAnswer, exchange, signed
from tests.api.test_overload import served
from tests.flow.hub import Client, until
from tests.world import World

CLIENTS = 300
PAUSE_SECONDS = 0.05  # between two bytes of a slow client: many times within the limit of a whole head or body
BODY = json.dumps(
    {"sku": "sku1", "warehouse": "default", "available_stock": 5, "buffer_stock": 0, "channel_stock": []}
).encode()
IN_TIME = "The body did not arrive within 0.5 seconds"
TOO_MANY = "Too many large bodies are on their way; send this one again"


async def merchant(world: World) -> None:
    await world.tenant()
    await world.partner()
    await world.variants("sku1")


def head(length: int, body: bytes = BODY) -> bytes:
    lines = [f"POST {UPDATE} HTTP/1.1", "host: x", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in signed(UPDATE, body).items()]
    return "\r\n".join([*lines, "", ""]).encode()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(client: Client, sent: bytes) -> AsyncIterator[Connection]:
    parts = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(sent)
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def dripping(connection: Connection, byte: bytes) -> bytes:
    """Send a byte again and again until the server ends the connection; returns what it said."""
    reader, writer = connection
    said = asyncio.create_task(reader.read())
    with suppress(OSError):
        while not said.done():
            writer.write(byte)
            await writer.drain()
            await asyncio.wait([said], timeout=PAUSE_SECONDS)
    with suppress(OSError):  # a byte was under way when the server closed: its answer may be lost
        return await said
    return b""


async def test_hundreds_that_never_finish_are_cut_off_while_others_are_served(world: World) -> None:
    await merchant(world)
    settings = Settings(header_read_timeout_seconds=0.5, body_read_timeout_seconds=0.5)
    async with served(world, settings) as client, AsyncExitStack() as held:
        heads = [await held.enter_async_context(connected(client, head(0)[:-2])) for _ in range(CLIENTS)]
        bodies = [await held.enter_async_context(connected(client, head(500) + b"{")) for _ in range(CLIENTS)]
        assert (await client.update(BODY)).status == 200
        async with asyncio.timeout(60):
            assert {await reader.read() for reader, _ in heads} == {b""}
            answers = [await reader.read() for reader, _ in bodies]
        assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 400 Bad Request"}
        assert {json.loads(answer.partition(b"\r\n\r\n")[2])["message"] for answer in answers} == {IN_TIME}
        assert (await client.update(BODY)).status == 200


async def test_bytes_that_drip_in_do_not_put_off_the_end(world: World) -> None:
    await merchant(world)
    settings = Settings(header_read_timeout_seconds=0.5, body_read_timeout_seconds=0.5)
    async with served(world, settings) as client, asyncio.timeout(60):
        async with connected(client, head(0)[:-2] + b"x: ") as in_its_head:
            assert b"200" not in await dripping(in_its_head, b"x")
        async with connected(client, head(100_000) + b"{") as in_its_body:
            assert b"200" not in await dripping(in_its_body, b" ")
        assert (await client.update(BODY)).status == 200
    assert await world.value("SELECT count(*) FROM stock_update") == 1


async def test_large_bodies_that_are_on_their_way_take_no_more_memory_than_is_allowed(world: World) -> None:
    await merchant(world)
    settings = Settings(bodies_bytes_max=300_000, body_read_timeout_seconds=3600.0)
    large = BODY[:-1] + b',"more":"' + b"x" * 200_000 + b'"}'

    async def sent(client: Client) -> RawAnswer:
        headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE, large).items()]
        headers.append((b"content-length", str(len(large)).encode()))
        return await exchange(client.url, "POST", UPDATE, headers, large)

    async with served(world, settings) as client:
        async with AsyncExitStack() as held:

            async def sent_beside_another() -> RawAnswer:
                await held.enter_async_context(connected(client, head(len(large), large) + large[:-1]))
                return await sent(client)

            refused = await until(sent_beside_another, lambda answer: answer.status == 503)
            assert refused.json["message"] == TOO_MANY
            assert refused.headers["retry-after"] == "1"
            assert (await client.update(BODY)).status == 200
        await until(lambda: sent(client), lambda answer: answer.status == 200)
