"""The load generator counts what is answered, and times what is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lumbung.bench import wrk
from lumbung.bench.generator import Generator
from lumbung.bench.wrk import Wrk

REQUESTS = [b"GET /%d HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % n for n in range(3)]
RIGHT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
WRONG = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"

Answer = Callable[[bytes], list[bytes]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server, and the targets that it was asked for. An answer comes in as many pieces as there are."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                asked.append(head.split(b" ")[1])
                for piece in answer(asked[-1]):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_requests_go_round_in_their_order() -> None:
    async with answering(lambda _: [RIGHT]) as (url, asked):
        generator = Generator(url, REQUESTS)
        first, second = await generator.one_by_one(2), await generator.one_by_one(5)
    assert asked == [b"/0", b"/1", b"/2", b"/0", b"/1", b"/2", b"/0"]
    assert [(load.answered, load.failed, len(load.latencies)) for load in (first, second)] == [(2, 0, 2), (5, 0, 5)]


async def test_an_answer_may_come_in_pieces() -> None:
    async with answering(lambda _: [RIGHT[:10], RIGHT[10:-1], RIGHT[-1:]]) as (url, _):
        load = await Generator(url, REQUESTS).one_by_one(3)
    assert (load.answered, load.failed) == (3, 0)


async def test_what_is_not_answered_with_200_has_failed() -> None:
    async with answering(lambda target: [WRONG if target == b"/1" else RIGHT]) as (url, _):
        load = await Generator(url, REQUESTS).one_by_one(6)
    assert (load.answered, load.failed) == (4, 2)


async def test_every_request_of_a_steady_load_is_sent_and_counted_once() -> None:
    async with answering(lambda target: [WRONG if target == b"/1" else RIGHT]) as (url, asked):
        load = await Generator(url, REQUESTS).steadily(300, 0.2, connections=2)
    assert len(asked) == 60
    assert (load.answered, load.failed, len(load.latencies)) == (40, 20, 40)


async def test_a_request_that_finds_no_free_connection_waits_and_its_time_counts_from_when_it_was_due() -> None:
    """The first is held until the last was due: then all the others have waited for it."""
    held = asyncio.Event()
    arrived = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            arrived.set()
            await held.wait()
            writer.write(RIGHT)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        loading = asyncio.create_task(Generator(url, REQUESTS).steadily(100, 0.1, connections=1))
        await arrived.wait()
        asyncio.get_running_loop().call_later(0.12, held.set)
        load = await loading
    assert load.answered == 10
    assert sorted(load.latencies, reverse=True) == list(
        load.latencies
    )  # the earlier it was due, the longer it has waited


async def test_a_ceaseless_load_counts_what_the_server_answered_in_time() -> None:
    async with answering(lambda _: [RIGHT]) as (url, asked):
        load = await Generator(url, REQUESTS).ceaselessly(0.2, connections=4)
    assert load.failed == 0
    assert 0 < load.answered <= len(asked) <= load.answered + 4


async def test_a_connection_that_the_server_closes_is_told_as_failed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        load = await Generator(url, REQUESTS).ceaselessly(0.1, connections=3)
    assert (load.answered, load.failed) == (0, 3)


@pytest.mark.skipif(wrk.program() is None, reason="wrk is not installed")
async def test_wrk_sends_the_same_requests_and_tells_what_failed(tmp_path: Path) -> None:
    program = wrk.program()
    assert program is not None
    async with answering(lambda target: [WRONG if target == b"/1" else RIGHT]) as (url, asked):
        load = await Wrk(program, url, REQUESTS, tmp_path / "load").ceaselessly(1, connections=1)
    assert set(asked) == {b"/0", b"/1", b"/2"}
    assert load.answered + load.failed <= len(asked) <= load.answered + load.failed + 1
    assert abs(load.answered - 2 * load.failed) <= 2
