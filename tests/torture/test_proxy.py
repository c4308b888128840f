"""The fault proxy, between real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import uvloop

from lumbung.torture.end import NO_LINGER
from lumbung.torture.fault import PASS, Direction, Fault, Mode
from lumbung.torture.proxy import Proxy, Upstream

A, B = "127.0.3.1", "127.0.3.2"
REQUESTS, ANSWERS = Direction.REQUESTS, Direction.ANSWERS
HOLD, DROP, HALF_OPEN = Fault(mode=Mode.HOLD), Fault(mode=Mode.DROP), Fault(mode=Mode.HALF_OPEN)
RESET, REFUSE = Fault(mode=Mode.RESET), Fault(mode=Mode.REFUSE)
HOUR = 3600.0
MUCH = 64 * 1024 * 1024
READ_BYTES_MAX = 256 * 1024  # what asyncio takes from a socket at once


@dataclass(eq=False)
class Wire:
    """One end of a connection, a client's or the server's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def address(self) -> str:
        return str(self.writer.get_extra_info("peername")[0])

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def get(self, n: int) -> bytes:
        return await self.reader.readexactly(n)

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def is_reset(self) -> bool:
        """Waits for the end of the connection: whether it was a reset."""
        try:
            await self.reader.read()
        except ConnectionResetError:
            return True
        return False

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.writer.transport.abort()


@dataclass
class Server:
    """Hands its connections to the test, in the order in which they were made."""

    address: Upstream
    wires: asyncio.Queue[Wire] = field(default_factory=asyncio.Queue)
    every: list[Wire] = field(default_factory=list)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(reader, writer)
        self.every.append(wire)
        self.wires.put_nowait(wire)


@asynccontextmanager
async def serving(path: Path | None = None) -> AsyncIterator[Server]:
    server = Server(path or ("", 0))
    if path is None:
        listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
        server.address = listening.sockets[0].getsockname()
    else:
        listening = await asyncio.start_unix_server(server.connected, path)
    try:
        yield server
    finally:
        listening.close()
        for wire in server.every:
            wire.writer.transport.abort()
        await listening.wait_closed()


@dataclass
class Scene:
    """A server, a proxy before it, and clients from addresses of their own."""

    server: Server
    proxy: Proxy
    clients: list[Wire] = field(default_factory=list)

    async def dial(self, source: str = A) -> Wire:
        """A client; whether the server hears of it is the proxy's affair."""
        client = Wire(*await asyncio.open_connection("127.0.0.1", self.proxy.port, local_addr=(source, 0)))
        self.clients.append(client)
        return client

    async def pair(self, source: str = A) -> tuple[Wire, Wire]:
        """A client and the server's end of its connection."""
        client = await self.dial(source)
        return client, await self.server.wires.get()

    async def arrive(self, client: Wire, data: bytes, source: str = A) -> None:
        """The client sends, and the bytes are at the proxy."""
        before = self.proxy.counts(source).request_bytes
        client.send(data)
        await self.proxy.moved(source, REQUESTS, after=before + len(data) - 1)

    async def answer(self, server: Wire, data: bytes, source: str = A) -> None:
        """The server sends, and the bytes are at the proxy."""
        before = self.proxy.counts(source).answer_bytes
        server.send(data)
        await self.proxy.moved(source, ANSWERS, after=before + len(data) - 1)

    async def closed(self, source: str, n: int) -> None:
        """The proxy has n connections of the source left."""
        await self.proxy.until(lambda counts: counts.open == n, source)

    async def rounds(self, other: tuple[Wire, Wire], n: int = 3) -> None:
        """Everything that was under way in this process has arrived, if it ever does: others' bytes came and went."""
        client, server = other
        for _ in range(n):
            client.send(b"there")
            assert await server.get(5) == b"there"
            server.send(b"back!")
            assert await client.get(5) == b"back!"


@asynccontextmanager
async def playing(path: Path | None = None, *, held_bytes_max: int = 1024 * 1024) -> AsyncIterator[Scene]:
    async with serving(path) as server, Proxy.start(server.address, held_bytes_max=held_bytes_max) as proxy:
        scene = Scene(server, proxy)
        try:
            yield scene
        finally:
            for client in scene.clients:
                client.writer.transport.abort()


@pytest.fixture(params=["tcp", "unix"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with playing(tmp_path / "socket" if request.param == "unix" else None) as made:
        yield made


def heard(wire: Wire) -> bytes:
    """What has come in and was not read yet."""
    return bytes(wire.reader._buffer)  # type: ignore[attr-defined]


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the event loop on, by so many seconds. In a fixture's setup no loop runs yet."""
    moved = 0.0

    def move(seconds: float) -> None:
        nonlocal moved
        loop = asyncio.get_running_loop()
        if not moved:
            real = loop.time
            monkeypatch.setattr(loop, "time", lambda: real() + moved)
        moved += seconds

    return move


# --- nothing is wrong ---


async def test_bytes_go_both_ways_and_are_counted(scene: Scene) -> None:
    client, server = await scene.pair()
    client.send(b"a question")
    assert await server.get(10) == b"a question"
    server.send(b"an answer!!")
    assert await client.get(11) == b"an answer!!"
    counts = scene.proxy.counts(A)
    assert (counts.connections, counts.open, counts.resets) == (1, 1, 0)
    assert (counts.request_bytes, counts.answer_bytes) == (10, 11)
    assert scene.proxy.counts(B).connections == 0


async def test_a_server_over_tcp_sees_the_address_that_the_client_calls_from() -> None:
    async with playing() as scene:
        _, of_b = await scene.pair(B)
        _, of_a = await scene.pair(A)
        assert (of_b.address, of_a.address) == (B, A)


async def test_a_client_that_says_no_more_still_hears_the_answer(scene: Scene) -> None:
    client, server = await scene.pair()
    client.send(b"all of it")
    client.writer.write_eof()
    assert await server.rest() == b"all of it"
    server.send(b"the answer")
    server.close()
    assert await client.rest() == b"the answer"
    await scene.closed(A, 0)


async def test_a_server_that_closes_first_is_passed_on(scene: Scene) -> None:
    client, server = await scene.pair()
    server.send(b"goodbye")
    server.close()
    assert await client.rest() == b"goodbye"
    client.close()
    await scene.closed(A, 0)


async def test_a_reset_by_the_client_reaches_the_server_and_is_not_counted_as_ours() -> None:
    async with playing() as scene:
        client, server = await scene.pair()
        client.reset()
        assert await server.is_reset()
        await scene.closed(A, 0)
        assert scene.proxy.counts().resets == 0


async def test_a_reset_by_the_server_reaches_the_client() -> None:
    async with playing() as scene:
        client, server = await scene.pair()
        server.reset()
        assert await client.is_reset()
        await scene.closed(A, 0)
        assert scene.proxy.counts().resets == 0


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_client_is_reset_when_the_server_is_away_and_served_when_it_is_back(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "socket" if kind == "unix" else None
    async with serving(path) as gone:
        address = gone.address
    if path is not None:
        path.unlink(missing_ok=True)
    async with Proxy.start(address) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await Wire(reader, writer).is_reset()
        await proxy.until(lambda counts: counts.open == 0)
        assert proxy.counts("127.0.0.1").resets == 1


async def test_a_client_hears_that_the_server_is_away_when_answers_come_through_again() -> None:
    async with serving() as gone:
        address = gone.address
    async with Proxy.start(address) as proxy:
        proxy.set(Fault(mode=Mode.HOLD, direction=ANSWERS))
        client = Wire(*await asyncio.open_connection("127.0.0.1", proxy.port))
        client.send(b"anybody there")
        assert await proxy.moved("127.0.0.1", REQUESTS, after=12) == 13
        proxy.clear()
        assert await client.is_reset()


async def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    async with playing() as scene:
        client, server = await scene.pair()
        other = await scene.pair(B)
        server.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sending = asyncio.create_task(_send_much(client))
        before = -1
        while before != (now := scene.proxy.counts(A).request_bytes):
            before = now
            await scene.rounds(other, 50)
        assert now < MUCH
        assert not sending.done()
        server.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await server.rest()) == MUCH
        await sending


async def _send_much(client: Wire) -> None:
    client.send(bytes(MUCH))
    await client.writer.drain()
    client.writer.write_eof()


async def test_many_connections_at_once_each_get_their_own_bytes(scene: Scene) -> None:
    async def converse(n: int) -> bytes:
        client = await scene.dial(f"127.0.3.{n % 50 + 1}")
        client.send(b"%06d" % n)
        return await client.get(6)

    async def echo() -> None:
        for _ in range(300):
            server = await scene.server.wires.get()
            server.send(await server.get(6))

    echoing = asyncio.create_task(echo())
    assert await asyncio.gather(*(converse(n) for n in range(300))) == [b"%06d" % n for n in range(300)]
    await echoing
    assert scene.proxy.counts().connections == 300
    assert scene.proxy.counts(A).connections == 6


# --- delay and drip ---


async def test_delayed_bytes_come_when_their_time_has_come_in_order_with_the_close_behind(
    scene: Scene, advance: Callable[[float], None]
) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(Fault(mode=Mode.DELAY, delay_seconds=HOUR), A)
    await scene.arrive(client, b"one")
    advance(HOUR / 2)
    await scene.arrive(client, b"two")
    client.writer.write_eof()
    await scene.rounds(other)
    assert heard(server) == b""
    advance(HOUR / 2)
    assert await server.get(3) == b"one"
    await scene.rounds(other)
    assert heard(server) == b""
    advance(HOUR)
    assert await server.rest() == b"two"


async def test_what_was_delayed_comes_at_once_when_the_delay_ends(scene: Scene) -> None:
    client, server = await scene.pair()
    scene.proxy.set(Fault(mode=Mode.DELAY, delay_seconds=HOUR, direction=ANSWERS))
    client.send(b"ask")
    assert await server.get(3) == b"ask"
    await scene.answer(server, b"first ")
    await scene.answer(server, b"second ")
    assert heard(client) == b""
    scene.proxy.clear()
    server.send(b"third")
    assert await client.get(18) == b"first second third"


async def test_a_drip_brings_so_many_bytes_a_tick_and_the_rest_when_it_ends(
    scene: Scene, advance: Callable[[float], None]
) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(Fault(mode=Mode.DRIP, tick_bytes=4, tick_seconds=HOUR), A)
    await scene.arrive(client, b"0123456789abcdef")
    assert await server.get(4) == b"0123"
    await scene.rounds(other)
    assert heard(server) == b""
    advance(HOUR)
    assert await server.get(4) == b"4567"
    await scene.rounds(other)
    assert heard(server) == b""
    client.send(b"ghi")
    client.writer.write_eof()
    scene.proxy.clear(A)
    assert await server.rest() == b"89abcdefghi"


async def test_a_drip_stops_the_writer_and_loses_nothing(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(Fault(mode=Mode.DRIP, tick_bytes=1, tick_seconds=HOUR), A)
    sending = asyncio.create_task(_send_much(client))
    await scene.proxy.moved(A, REQUESTS, after=65_536)
    await scene.rounds(other, 50)
    assert scene.proxy.counts(A).request_bytes <= 65_536 + READ_BYTES_MAX
    scene.proxy.clear(A)
    assert len(await server.rest()) == MUCH
    await sending


# --- hold ---


async def test_held_requests_arrive_late_and_in_order(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(Fault(mode=Mode.HOLD, direction=REQUESTS), A)
    await scene.arrive(client, b"older ")
    await scene.arrive(client, b"newer ")
    await scene.answer(server, b"unasked")
    assert await client.get(7) == b"unasked"
    await scene.rounds(other)
    assert heard(server) == b""
    scene.proxy.clear(A)
    client.send(b"newest")
    assert await server.get(18) == b"older newer newest"


async def test_held_answers_arrive_late_and_requests_go_on(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(Fault(mode=Mode.HOLD, direction=ANSWERS), A)
    client.send(b"ask")
    assert await server.get(3) == b"ask"
    await scene.answer(server, b"told ")
    await scene.rounds(other)
    assert heard(client) == b""
    scene.proxy.clear(A)
    server.send(b"again")
    assert await client.get(10) == b"told again"


async def test_a_connection_made_while_everything_is_held_is_served_when_the_hold_ends(scene: Scene) -> None:
    scene.proxy.set(HOLD)
    client, server = await scene.pair()
    await scene.arrive(client, b"hello")
    assert heard(server) == b""
    scene.proxy.clear()
    assert await server.get(5) == b"hello"
    server.send(b"welcome")
    assert await client.get(7) == b"welcome"


@pytest.mark.parametrize("leave", [Wire.close, Wire.reset])
async def test_a_request_of_a_client_that_is_gone_arrives_late(scene: Scene, leave: Callable[[Wire], None]) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(HOLD, A)
    await scene.arrive(client, b"last words")
    leave(client)
    await scene.rounds(other)
    assert (heard(server), server.reader.at_eof()) == (b"", False)
    scene.proxy.clear(A)
    assert await server.rest() == b"last words"
    server.close()
    await scene.closed(A, 0)


async def test_an_answer_of_a_server_that_is_gone_arrives_late(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(HOLD, A)
    await scene.answer(server, b"last words")
    server.close()
    await scene.rounds(other)
    assert (heard(client), client.reader.at_eof()) == (b"", False)
    scene.proxy.clear(A)
    assert await client.rest() == b"last words"


async def test_a_hold_that_is_full_stops_the_writer_and_loses_nothing(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(HOLD, A)
    sending = asyncio.create_task(_send_much(client))
    await scene.proxy.moved(A, REQUESTS, after=1024 * 1024 - 1)
    await scene.rounds(other, 50)
    assert scene.proxy.counts(A).request_bytes < 1024 * 1024 + READ_BYTES_MAX
    assert not sending.done()
    scene.proxy.clear(A)
    assert len(await server.rest()) == MUCH
    await sending


# --- drop ---


async def test_a_black_hole_swallows_both_directions_and_closes_nothing(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(DROP, A)
    await scene.arrive(client, b"lost")
    await scene.answer(server, b"lost too")
    await scene.rounds(other)
    assert (heard(server), server.reader.at_eof()) == (b"", False)
    assert (heard(client), client.reader.at_eof()) == (b"", False)
    assert scene.proxy.counts().resets == 0


async def test_when_a_black_hole_ends_who_lost_something_is_reset_and_who_was_idle_lives_on() -> None:
    async with playing() as scene:
        loser, at_loser = await scene.pair()
        idle, at_idle = await scene.pair()
        scene.proxy.set(DROP, A)
        await scene.arrive(loser, b"lost")
        scene.proxy.clear(A)
        assert await loser.is_reset()
        assert await at_loser.is_reset()
        idle.send(b"still here")
        assert await at_idle.get(10) == b"still here"
        assert scene.proxy.counts(A).resets == 1


async def test_new_connections_into_a_black_hole_are_accepted_go_nowhere_and_are_reset_at_its_end(
    scene: Scene,
) -> None:
    other = await scene.pair(B)
    scene.proxy.set(DROP, A)
    client = await scene.dial(A)
    await scene.arrive(client, b"hello?")
    await scene.rounds(other)
    assert len(scene.server.every) == 1
    assert not client.reader.at_eof()
    scene.proxy.clear(A)
    assert await client.is_reset()
    client, server = await scene.pair(A)
    client.send(b"hello!")
    assert await server.get(6) == b"hello!"


async def test_a_black_hole_takes_in_whatever_is_written(scene: Scene) -> None:
    client, server = await scene.pair()
    scene.proxy.set(DROP, A)
    await _send_much(client)
    await scene.proxy.moved(A, REQUESTS, after=MUCH - 1)
    assert heard(server) == b""


async def test_a_black_hole_swallows_what_was_held(scene: Scene) -> None:
    client, server = await scene.pair()
    scene.proxy.set(HOLD, A)
    await scene.arrive(client, b"held")
    scene.proxy.set(DROP, A)
    scene.proxy.clear(A)
    assert await client.is_reset()
    with suppress(ConnectionResetError):
        assert await server.rest() == b""


async def test_a_server_does_not_hear_of_a_client_that_left_in_a_black_hole_until_it_ends(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(DROP, A)
    client.reset()
    await scene.rounds(other)
    assert not server.reader.at_eof()
    assert scene.proxy.counts(A).open == 1
    scene.proxy.clear(A)
    with suppress(ConnectionResetError):
        assert await server.rest() == b""
    await scene.closed(A, 0)


async def test_dropped_answers_let_requests_of_new_connections_through(scene: Scene) -> None:
    scene.proxy.set(Fault(mode=Mode.DROP, direction=ANSWERS))
    client, server = await scene.pair()
    client.send(b"apply it")
    assert await server.get(8) == b"apply it"
    await scene.answer(server, b"done")
    assert heard(client) == b""
    scene.proxy.clear()
    assert await client.is_reset()


# --- half open, reset, refuse ---


async def test_half_open_tells_the_server_of_an_end_and_the_client_of_nothing(scene: Scene) -> None:
    client, server = await scene.pair()
    other = await scene.pair(B)
    scene.proxy.set(HALF_OPEN, A)
    assert await server.rest() == b""
    await scene.arrive(client, b"nobody hears this")
    new = await scene.dial(A)
    await scene.arrive(new, b"nor this")
    await scene.rounds(other)
    assert len(scene.server.every) == 2
    assert not client.reader.at_eof()
    assert not new.reader.at_eof()
    scene.proxy.clear(A)
    assert await client.is_reset()
    assert await new.is_reset()
    await scene.pair(A)


async def test_a_reset_strikes_both_ends_at_once_and_new_connections_as_long_as_it_stands() -> None:
    async with playing() as scene:
        client, server = await scene.pair()
        other = await scene.pair(B)
        scene.proxy.set(RESET, A)
        assert await client.is_reset()
        assert await server.is_reset()
        assert await (await scene.dial(A)).is_reset()
        await scene.closed(A, 0)
        counts = scene.proxy.counts(A)
        assert (counts.connections, counts.resets) == (2, 2)
        await scene.rounds(other)
        assert len(scene.server.every) == 2
        scene.proxy.clear(A)
        await scene.pair(A)


async def test_a_reset_ends_the_connection_to_a_unix_socket_too(tmp_path: Path) -> None:
    async with playing(tmp_path / "socket") as scene:
        client, server = await scene.pair()
        scene.proxy.set(RESET)
        assert await client.is_reset()
        assert await server.rest() == b""


async def test_a_refusal_resets_new_connections_and_leaves_those_that_are_there_alone(scene: Scene) -> None:
    client, server = await scene.pair()
    scene.proxy.set(REFUSE)
    assert await (await scene.dial()).is_reset()
    client.send(b"still here")
    assert await server.get(10) == b"still here"
    assert len(scene.server.every) == 1
    scene.proxy.clear()
    await scene.pair()


# --- whom a fault concerns, and when ---


async def test_the_fault_of_a_source_wins_over_the_one_for_all() -> None:
    async with playing() as scene:
        spared, at_spared = await scene.pair(A)
        struck, _ = await scene.pair(B)
        scene.proxy.set(PASS, A)
        scene.proxy.set(RESET)
        assert await struck.is_reset()
        spared.send(b"spared")
        assert await at_spared.get(6) == b"spared"
        scene.proxy.clear(A)
        assert await spared.is_reset()


async def test_the_end_of_the_fault_for_all_leaves_a_sources_own_and_heal_ends_both(scene: Scene) -> None:
    client, server = await scene.pair(A)
    scene.proxy.set(HOLD)
    scene.proxy.set(Fault(mode=Mode.HOLD, direction=REQUESTS), A)
    await scene.arrive(client, b"held")
    scene.proxy.clear()
    await scene.rounds(await scene.pair(B))
    assert heard(server) == b""
    scene.proxy.heal()
    assert await server.get(4) == b"held"


async def test_a_fault_that_awaits_a_word_begins_with_the_request_that_has_it(scene: Scene) -> None:
    scene.proxy.set_when_asked(b"COMMIT;", Fault(mode=Mode.HOLD, direction=ANSWERS))
    client, server = await scene.pair()
    other = await scene.pair(B)
    client.send(b"BEGIN;")
    assert await server.get(6) == b"BEGIN;"
    server.send(b"begun")
    assert await client.get(5) == b"begun"
    triggered = [scene.proxy.triggered]
    client.send(b"xCOMMIT;x")
    assert await server.get(9) == b"xCOMMIT;x"
    triggered.append(scene.proxy.triggered)
    assert triggered == [False, True]
    await scene.answer(server, b"done")
    other[0].send(b"ask")
    assert await other[1].get(3) == b"ask"
    await scene.answer(other[1], b"told", B)
    assert (heard(client), heard(other[0])) == (b"", b"")
    scene.proxy.clear()
    assert await client.get(4) == b"done"
    assert await other[0].get(4) == b"told"


async def test_an_awaited_request_is_itself_caught_by_a_fault_of_requests(scene: Scene) -> None:
    scene.proxy.set_when_asked(b"COMMIT;", Fault(mode=Mode.HOLD, direction=REQUESTS))
    client, server = await scene.pair()
    await scene.arrive(client, b"COMMIT;")
    assert heard(server) == b""
    scene.proxy.clear()
    assert await server.get(7) == b"COMMIT;"


async def test_a_fault_whose_request_never_came_does_not_begin_after_it_was_cleared(scene: Scene) -> None:
    scene.proxy.set_when_asked(b"COMMIT;", HOLD)
    scene.proxy.clear()
    client, server = await scene.pair()
    client.send(b"COMMIT;")
    assert await server.get(7) == b"COMMIT;"
    assert not scene.proxy.triggered


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": Mode.DELAY},
        {"mode": Mode.DELAY, "delay_seconds": -1},
        {"mode": Mode.HOLD, "delay_seconds": 1},
        {"mode": Mode.DRIP, "tick_bytes": 1},
        {"mode": Mode.DRIP, "tick_seconds": 1},
        {"mode": Mode.PASS, "tick_bytes": 1},
        {"mode": Mode.RESET, "direction": REQUESTS},
    ],
)
def test_a_fault_with_figures_of_another_mode_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"belong|direction"):
        Fault(**wrong)  # type: ignore[arg-type]


# --- waiting, and the end ---


async def test_waiting_for_bytes_ends_when_they_are_held_and_returns_how_many_came(scene: Scene) -> None:
    client, _ = await scene.pair()
    scene.proxy.set(HOLD, A)
    waiting = asyncio.create_task(scene.proxy.moved(A, REQUESTS))
    await scene.rounds(await scene.pair(B))
    client.send(b"12345")
    assert await waiting == 5
    assert await scene.proxy.moved(A, REQUESTS, after=4) == 5


async def test_who_waits_when_the_proxy_is_closed_is_told(scene: Scene) -> None:
    waiting = asyncio.create_task(scene.proxy.moved(A, ANSWERS))
    await scene.rounds(await scene.pair(B))
    await scene.proxy.close()
    with pytest.raises(ConnectionAbortedError):
        await waiting
    with pytest.raises(ConnectionAbortedError):
        await scene.proxy.moved(A, REQUESTS)


@pytest.mark.parametrize("fault", [PASS, HOLD, DROP, HALF_OPEN, Fault(mode=Mode.DELAY, delay_seconds=HOUR)])
async def test_nothing_is_left_after_the_end_whatever_fault_stands(fault: Fault) -> None:
    tasks, files = len(asyncio.all_tasks()), _open_files()
    async with serving() as server:
        async with Proxy.start(server.address) as proxy:
            scene = Scene(server, proxy)
            clients = [(await scene.pair())[0] for _ in range(5)]
            proxy.set(fault)
            clients += [await scene.dial() for _ in range(5)]
            await proxy.until(lambda counts: counts.connections == 10)
            for client in clients:
                await scene.arrive(client, b"a word")
        assert proxy.counts().open == 0
        for client in clients:
            with suppress(ConnectionResetError):
                await client.rest()
            client.close()
            with suppress(ConnectionResetError):
                await client.writer.wait_closed()
        for at in server.every:
            with suppress(ConnectionResetError):
                await at.rest()
            at.close()
            with suppress(ConnectionResetError):
                await at.writer.wait_closed()
    assert len(asyncio.all_tasks()) == tasks
    assert _open_files() == files


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    "story",
    [
        test_a_client_that_says_no_more_still_hears_the_answer,
        test_held_requests_arrive_late_and_in_order,
        test_a_request_of_a_client_that_is_gone_arrives_late,
        test_a_server_does_not_hear_of_a_client_that_left_in_a_black_hole_until_it_ends,
        test_half_open_tells_the_server_of_an_end_and_the_client_of_nothing,
        test_a_refusal_resets_new_connections_and_leaves_those_that_are_there_alone,
    ],
)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_it_is_the_same_on_uvloop_which_the_command_uses(
    story: Callable[..., Awaitable[None]], kind: str, tmp_path: Path
) -> None:
    more = (Wire.reset,) if story is test_a_request_of_a_client_that_is_gone_arrives_late else ()

    async def play() -> None:
        async with playing(tmp_path / "socket" if kind == "unix" else None) as scene:
            await story(scene, *more)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


async def test_postgresql_is_reached_through_its_unix_socket_and_a_commit_is_caught_before_its_answer(
    database_url: str,
) -> None:
    url = urlsplit(database_url)
    query = parse_qs(url.query)
    if "host" not in query:
        pytest.skip("the server of this run is not on a unix socket")
    path = Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
    async with Proxy.start(path) as proxy:
        database = f"postgresql://{url.username}@127.0.0.1:{proxy.port}{url.path}"
        direct = await asyncpg.connect(database_url)
        through = await asyncpg.connect(database, ssl=False)
        await direct.execute("CREATE TABLE fire (n int)")
        proxy.set_when_asked(b"COMMIT;", Fault(mode=Mode.HOLD, direction=ANSWERS))
        writing = asyncio.create_task(_insert(through))
        await proxy.until(lambda _: proxy.triggered)
        answered = proxy.counts().answer_bytes
        await proxy.moved(None, ANSWERS, after=answered)
        assert await direct.fetchval("SELECT n FROM fire") == 7
        assert not writing.done()
        proxy.set(RESET)
        with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
            await writing
        await direct.close()


async def _insert(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO fire VALUES (7)")
