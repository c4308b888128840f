"""The client against real sockets: surely not seen, or perhaps seen."""

from __future__ import annotations

import asyncio
import base64
import gzip
import random
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.http import Answer, Exchange, HttpClient, NoAnswer, NotSent, retry_after_seconds
from lumbung.channels.redaction import redact
from lumbung.clock import ManualClock
from lumbung.errors import ConfigurationError

from .servers import Behaviour, Connection, Served, closed_port, serving
from .test_redaction import JSON

NOW = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient(ManualClock(NOW), connect_timeout_seconds=2.0, answer_bytes_max=1000) as client:
        yield client


async def put(http: HttpClient, url: str, *, timeout_seconds: float = 2.0) -> Exchange:
    return await http.request("PUT", url, headers={"X-One": "1"}, body=b"body", timeout_seconds=timeout_seconds)


# --- Surely not seen ---


async def test_a_refused_connection_was_not_sent(http: HttpClient) -> None:
    port = closed_port()
    got = await put(http, f"http://127.0.0.1:{port}/x?token=hidden")
    assert isinstance(got, NotSent)
    assert f"127.0.0.1:{port}" in got.message
    assert "hidden" not in got.message
    assert (got.started_at, got.duration_ms) == (NOW, 0.0)


async def test_a_name_that_does_not_resolve_was_not_sent(http: HttpClient) -> None:
    assert isinstance(await put(http, "http://nowhere.invalid/"), NotSent)


async def test_a_failed_tls_handshake_was_not_sent(http: HttpClient) -> None:
    async def speak_plainly(_served: Served, connection: Connection) -> None:
        await connection.reader.read(1)
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(speak_plainly) as served:
        got = await put(http, f"https://127.0.0.1:{served.port}/")
    assert isinstance(got, NotSent)
    assert got.message == f"127.0.0.1:{served.port}: the TLS handshake failed"


async def test_a_tls_handshake_that_never_ends_was_not_sent() -> None:
    async def stay_silent(_served: Served, connection: Connection) -> None:
        await connection.gone()

    async with serving(stay_silent) as served, HttpClient(ManualClock(), connect_timeout_seconds=0.05) as http:
        got = await put(http, f"https://127.0.0.1:{served.port}/")
    assert isinstance(got, NotSent)
    assert got.message == f"127.0.0.1:{served.port}: no connection in time"


@pytest.mark.parametrize(("connect", "total"), [(0.05, 2.0), (2.0, 0.05)])
async def test_a_connection_that_is_not_had_in_time_was_not_sent(connect: float, total: float) -> None:
    loop = asyncio.get_running_loop()
    queue: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        try:
            while len(queue) < 8:  # fill the queue of connections that nobody accepts
                queue.append(socket.socket())
                queue[-1].setblocking(False)
                try:
                    async with asyncio.timeout(0.05):
                        await loop.sock_connect(queue[-1], listener.getsockname())
                except TimeoutError:
                    break
            async with HttpClient(ManualClock(), connect_timeout_seconds=connect) as http:
                got = await put(http, f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_seconds=total)
        finally:
            for plug in queue:
                plug.close()
    assert isinstance(got, NotSent)


async def test_a_call_that_waits_in_vain_for_a_free_connection_was_not_sent() -> None:
    taken = asyncio.Event()

    async def hold(served: Served, connection: Connection) -> None:
        served.requests.append(await connection.request())
        taken.set()
        await connection.gone()

    async with (
        serving(hold) as served,
        HttpClient(ManualClock(), connect_timeout_seconds=0.05, connections_per_host_max=1) as http,
    ):
        first = asyncio.create_task(put(http, served.url))
        await taken.wait()
        assert isinstance(await put(http, served.url), NotSent)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert len(served.requests) == 1


# --- Perhaps seen ---


async def close_at_once(_served: Served, _connection: Connection) -> None:
    return


async def read_then_close(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())


async def read_then_reset(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.reset()


async def half_a_head(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Le")


async def half_a_body(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"success": true')


async def half_a_chunk(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")


async def not_http(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.send(b"220 mail.example.test ESMTP\r\n\r\n")


async def too_large(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.answer(b"x" * 1001)


async def endless(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001)
    await connection.gone()


async def silent(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    await connection.gone()


async def silent_within_the_body(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    await connection.gone()


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (read_then_close, "The connection was closed before an answer came"),
        (read_then_reset, "The connection was lost before a whole answer came"),
        (half_a_head, "The connection was closed before an answer came"),
        (half_a_body, "The answer broke off"),
        (half_a_chunk, "The answer broke off"),
        (not_http, "The answer is not HTTP"),
        (too_large, "The answer is larger than 1000 bytes"),
        (endless, "The answer is larger than 1000 bytes"),
    ],
)
async def test_what_goes_wrong_after_the_first_byte_leaves_doubt(
    http: HttpClient, behave: Behaviour, message: str
) -> None:
    async with serving(behave) as served:
        got = await put(http, served.url)
    assert got == NoAnswer(message, NOW, 0.0)
    assert len(served.requests) == 1


async def test_a_connection_that_is_closed_at_once_leaves_doubt(http: HttpClient) -> None:
    async with serving(close_at_once) as served:
        got = await put(http, served.url)
    assert isinstance(got, NoAnswer)
    assert len(served.connections) == 1


@pytest.mark.parametrize("behave", [silent, silent_within_the_body])
async def test_an_answer_that_does_not_come_in_time_leaves_doubt(http: HttpClient, behave: Behaviour) -> None:
    async with serving(behave) as served:
        got = await put(http, served.url, timeout_seconds=0.05)
    assert got == NoAnswer("No answer within 0.05 s", NOW, 0.0)
    assert len(served.requests) == 1


async def test_no_bytes_of_a_server_make_the_client_raise(http: HttpClient) -> None:
    dice = random.Random(7)
    pieces = (
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 99999 \xff\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: abc\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Encoding: br\r\n",
        b"Set-Cookie: \xff=\x00;;;\r\n",
        b"Location: http://[::\r\n",
        b"Retry-After: soon\r\n",
        b": nothing\r\n",
        b"\r\n",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\n",
        b"\x00\xff\r\n",
        b"A" * 9000 + b": x\r\n",
    )
    answers = [b"".join(dice.choices(pieces, k=dice.randint(1, 6))) for _ in range(300)]
    answers += [dice.randbytes(dice.randint(1, 200)) for _ in range(50)]
    unsent = iter(answers)

    async def babble(served: Served, connection: Connection) -> None:
        served.requests.append(await connection.request())
        connection.send(next(unsent))

    async with serving(babble) as served:
        for _ in answers:
            assert isinstance(await put(http, served.url), Answer | NoAnswer)
    assert len(served.requests) == len(answers)


# --- Never twice ---


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE", "POST"])
async def test_a_call_on_a_kept_connection_that_breaks_is_not_sent_again(http: HttpClient, method: str) -> None:
    async def answer_the_first_only(served: Served, connection: Connection) -> None:
        served.requests.append(await connection.request())
        connection.answer()
        served.requests.append(await connection.request())

    async with serving(answer_the_first_only) as served:
        first = await http.request(method, served.url, headers={}, body=None, timeout_seconds=2)
        second = await http.request(method, served.url, headers={}, body=None, timeout_seconds=2)
    assert isinstance(first, Answer)
    assert second == NoAnswer("The connection was closed before an answer came", NOW, 0.0)
    assert (len(served.connections), len(served.requests)) == (1, 2)


async def test_a_kept_connection_that_was_closed_while_idle_leaves_doubt_and_is_not_replaced(http: HttpClient) -> None:
    async def answer_and_keep(served: Served, connection: Connection) -> None:
        while True:
            served.requests.append(await connection.request())
            connection.answer()

    async with serving(answer_and_keep) as served:
        assert isinstance(await put(http, served.url), Answer)
        served.connections[0].reset()  # the client has not had a turn to notice
        assert isinstance(await put(http, served.url), NoAnswer)
        assert (len(served.connections), len(served.requests)) == (1, 1)
        assert isinstance(await put(http, served.url), Answer)
    assert (len(served.connections), len(served.requests)) == (2, 2)


async def test_a_cancelled_call_is_cancelled(http: HttpClient) -> None:
    arrived = asyncio.Event()

    async def hold(_served: Served, connection: Connection) -> None:
        await connection.request()
        arrived.set()
        await connection.gone()

    async with serving(hold) as served:
        call = asyncio.create_task(put(http, served.url))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


# --- As given ---


def answering(body: bytes = b"{}", *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> Behaviour:
    async def behave(served: Served, connection: Connection) -> None:
        while True:
            served.requests.append(await connection.request())
            connection.answer(body, status=status, headers=headers)

    return behave


async def test_the_request_goes_out_exactly_as_given(http: HttpClient) -> None:
    async with serving(answering(b'{"a": 1}')) as served:
        got = await put(http, f"{served.url}/a%7eb/%2f?x=%2F&y=+%20&z=~&z=1&empty=")
    assert isinstance(got, Answer)
    assert (got.status, got.body, got.started_at, got.retry_after_seconds) == (200, b'{"a": 1}', NOW, None)
    head, body = served.requests[0].split(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"PUT /a%7eb/%2f?x=%2F&y=+%20&z=~&z=1&empty= HTTP/1.1"
    assert b"X-One: 1" in head.split(b"\r\n")
    assert b"Accept-Encoding: identity" in head.split(b"\r\n")
    assert body == b"body"


async def test_a_redirect_is_an_answer_and_is_not_followed(http: HttpClient) -> None:
    async with serving(answering(status="307 Temporary Redirect", headers=("Location: /elsewhere",))) as served:
        got = await put(http, served.url)
    assert isinstance(got, Answer)
    assert (got.status, len(served.requests)) == (307, 1)


async def test_cookies_are_not_kept(http: HttpClient) -> None:
    async with serving(answering(headers=("Set-Cookie: a=b; Path=/",))) as served:
        await put(http, served.url)
        await put(http, served.url)
    assert len(served.requests) == 2
    assert b"cookie" not in served.requests[1].lower()


async def test_a_compressed_answer_is_left_as_it_came(http: HttpClient) -> None:
    packed = gzip.compress(b"0" * 100_000)
    async with serving(answering(packed, headers=("Content-Encoding: gzip",))) as served:
        got = await put(http, served.url)
    assert isinstance(got, Answer)
    assert got.body == packed


async def test_proxies_of_the_environment_are_not_used(http: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    async with serving(answering()) as served:
        assert isinstance(await put(http, served.url), Answer)


# --- Retry-After ---


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Mon, 05 Jan 2026 00:01:00 GMT", 60.0),
        ("Sun, 04 Jan 2026 23:59:00 GMT", 0.0),
        ("Mon, 05 Jan 2026 07:00:30 +0700", 30.0),
        ("Mon, 05 Jan 2026 00:00:10 -0000", 10.0),
        ("soon", None),
        ("", None),
        ("1e9", None),
        ("inf", None),
        ("9" * 5000, None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@given(st.text())
def test_no_retry_after_raises_or_is_negative(header: str) -> None:
    seconds = retry_after_seconds(header, NOW)
    assert seconds is None or seconds >= 0


async def test_the_answer_tells_when_to_come_again(http: HttpClient) -> None:
    async with serving(answering(status="429 Too Many Requests", headers=("Retry-After: 12",))) as served:
        got = await put(http, served.url)
    assert isinstance(got, Answer)
    assert (got.status, got.retry_after_seconds) == (429, 12.0)


# --- Secrets that are echoed ---


async def test_a_basic_header_that_is_echoed_in_json_is_taken_out(http: HttpClient) -> None:
    basic = base64.b64encode(b"client:k???>>>key-of-the-client").decode()
    assert {"/", "="} <= set(basic)
    said = "".join(encode(f"cannot parse the header Basic {basic}") for encode in JSON)
    async with serving(answering(said.encode(), status="400 Bad Request")) as served:
        got = await put(http, served.url)
    assert isinstance(got, Answer)
    assert redact(got.body.decode(), (basic,)) == '"cannot parse the header Basic ***"' * len(JSON)


# --- Bounds and addresses of the installation ---


@pytest.mark.parametrize(("own", "most"), [(60.0, 0.05), (0.05, 60.0)])
async def test_no_call_waits_longer_than_its_own_time_or_the_installations(own: float, most: float) -> None:
    async with serving(silent) as served, HttpClient(ManualClock(NOW), call_timeout_seconds_max=most) as http:
        got = await put(http, served.url, timeout_seconds=own)
    assert got == NoAnswer("No answer within 0.05 s", NOW, 0.0)
    assert len(served.requests) == 1


async def answer_well(served: Served, connection: Connection) -> None:
    served.requests.append(await connection.request())
    connection.answer()


def callers(served: Served) -> list[str]:
    return [connection.writer.get_extra_info("peername")[0] for connection in served.connections]


async def test_calls_leave_from_the_address_that_is_set() -> None:
    async with serving(answer_well) as served:
        for address in ("127.0.0.2", "127.0.0.3", ""):
            async with HttpClient(ManualClock(), source_address=address) as http:
                assert isinstance(await put(http, served.url), Answer)
    assert callers(served) == ["127.0.0.2", "127.0.0.3", "127.0.0.1"]


async def test_of_a_host_with_addresses_of_both_families_only_those_that_can_be_called_from_there_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    families = []

    async def look_up(
        _host: str, port: int, *, family: int = socket.AF_UNSPEC, **_more: object
    ) -> list[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]:
        families.append(family)
        v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        return [v4] if family == socket.AF_INET else [v6, v4]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    async with serving(answer_well) as served, HttpClient(ManualClock(), source_address="127.0.0.2") as http:
        assert isinstance(await put(http, f"http://shop.test:{served.port}/"), Answer)
    assert (families, callers(served)) == ([socket.AF_INET], ["127.0.0.2"])


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "203.0.113.9",
            "Calls cannot leave from 203.0.113.9 (Cannot assign requested address): set LUMBUNG_CALL_SOURCE_ADDRESS to"
            " an address of this machine, or leave it empty",
        ),
        ("eth0", "LUMBUNG_CALL_SOURCE_ADDRESS must be an IP address, not 'eth0'"),
        ("127.0.0.1:80", "LUMBUNG_CALL_SOURCE_ADDRESS must be an IP address, not '127.0.0.1:80'"),
    ],
)
async def test_an_address_that_calls_cannot_leave_from_is_told_at_once(address: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        HttpClient(ManualClock(), source_address=address)
    assert str(refused.value) == message
