"""Input that no client means: what names its field, what is refused as a whole, and what the next client gets."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from lumbung.api.validation import parse_timestamp
from lumbung.model import QUANTITY_MAX
from tests.api.raw import HISTORY, UNAUTHENTICATED, UPDATE, exchange, signed, traces
from tests.api.test_updatestocks import accepted, another_api, body_of, level, refused, text_of
from tests.flow.hub import FAST, Hub

pytestmark = pytest.mark.asyncio(loop_scope="module")

RANGE = f"must be from 0 to {QUANTITY_MAX}"
FRACTION = "must be an integer, not a number with a fraction or exponent"
BROKEN = "must be text in UTF-8, without half of a surrogate pair"
CONTROL = "must not hold control characters"
BAD_KEY = "must be 1 to 255 characters without control characters"
BAD_CHUNKS = "The body ended before it was complete, or its chunks are malformed"
HUGE = "9" * 5000


def one_figure(**fields: str) -> bytes:
    entry = {"code": '"blib"', "qty": "1", **fields}
    return text_of(channel_stock="[{" + ",".join(f'"{name}":{text}' for name, text in entry.items()) + "}]")


# Values that the fast reader refuses


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        (text_of(available_stock=HUGE), [("available_stock", RANGE)]),
        (text_of(available_stock="-" + HUGE), [("available_stock", RANGE)]),
        (text_of(buffer_stock="1e400"), [("buffer_stock", FRACTION)]),
        (one_figure(qty=HUGE), [("channel_stock[0].qty", RANGE)]),
        (text_of(sku='"\\ud800"'), [("sku", BROKEN)]),
        (text_of(sku='"\\udc00x"'), [("sku", BROKEN)]),
        (text_of(warehouse='"?"').replace(b"?", b"\xff\xfe"), [("warehouse", BROKEN)]),
        (text_of(warehouse='"?"').replace(b"?", b"\xed\xa0\x80"), [("warehouse", BROKEN)]),
        (text_of(sku='"a\tb"'), [("sku", CONTROL)]),
        (text_of(sku='"a\0b"'), [("sku", CONTROL)]),
        (
            text_of(sku='"\\ud800"', available_stock=HUGE, buffer_stock="-1"),
            [("sku", BROKEN), ("available_stock", RANGE), ("buffer_stock", RANGE)],
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_value_that_cannot_be_read_names_its_field(
    api: Hub, body: bytes, problems: list[tuple[str, str]]
) -> None:
    assert await refused(api, body) == problems


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "must be a JSON object, and is empty"),
        (b"\xef\xbb\xbf" + text_of(), "must not begin with a byte order mark"),
        (text_of().decode().encode("utf-16"), "must be in UTF-8, and looks like UTF-16"),
        (text_of().decode().encode("utf-16-le"), "must be in UTF-8, and looks like UTF-16"),
        (gzip.compress(text_of(), mtime=0), "must not be compressed"),
        (text_of(unknown='"?"').replace(b"?", b"\xff"), "must be in UTF-8, and its byte 105 (0xff) is not"),
        (text_of(unknown=HUGE), "must be a JSON document in UTF-8 (Integer value out of range)"),
        (
            text_of(available_stock=HUGE) + b" " * 65_536,
            "must be a JSON document in UTF-8 (Integer value out of range)",
        ),
        (text_of(available_stock="NaN"), "must be a JSON document in UTF-8 (JSON is malformed: invalid character"),
        (b"[" * 100_000, "must not be nested deeper than 32"),
        (b'{"a":1,"b":' + b"[" * 100_000, "must not be nested deeper than 32"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_body_that_no_field_is_to_blame_for_says_what_it_must_be(api: Hub, body: bytes, message: str) -> None:
    [(field, said)] = await refused(api, body)
    assert field == "body"
    assert said.startswith(message)


# Headers


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        (text_of(available_stock="-1"), [("Idempotency-Key", BAD_KEY), ("available_stock", RANGE)]),
        (b"[]", [("Idempotency-Key", BAD_KEY), ("body", "must be a JSON object")]),
        (text_of(sku='"\\ud800"'), [("Idempotency-Key", BAD_KEY), ("sku", BROKEN)]),
    ],
)
async def test_a_bad_key_and_a_bad_body_are_told_together(
    api: Hub, body: bytes, problems: list[tuple[str, str]]
) -> None:
    assert await refused(api, body, headers={"idempotency-key": "k" * 256}) == problems


async def post(
    api: Hub, headers: Sequence[tuple[bytes, bytes]], body: bytes, *, before: bool = False
) -> tuple[int, str]:
    """The status and the message of an update with these headers after (or before) those that sign it."""
    right = [(name.encode(), value.encode()) for name, value in signed(UPDATE, body).items()]
    right.append((b"content-length", str(len(body)).encode()))
    every = [*headers, *right] if before else [*right, *headers]
    answer = await exchange(api.client.url, "POST", UPDATE, every, body)
    return answer.status, answer.json.get("message", "")


async def test_an_idempotency_key_that_is_there_twice_is_refused(api: Hub) -> None:
    keys = [(b"idempotency-key", b"one"), (b"Idempotency-Key", b"two")]
    before = await traces(api)
    assert await post(api, keys, text_of()) == (400, "Idempotency-Key: must be given once")
    assert await traces(api) == before


@pytest.mark.parametrize("name", [b"partner-id", b"secret"])
async def test_of_a_header_that_is_there_twice_the_first_counts(api: Hub, name: bytes) -> None:
    wrong = [(name, b"nobody's")]
    assert await post(api, wrong, text_of()) == (200, "")
    assert await post(api, wrong, text_of(), before=True) == (401, UNAUTHENTICATED)


# Leap seconds


async def test_a_leap_second_is_the_second_after_it(api: Hub) -> None:
    await accepted(api, body_of(as_of="2016-12-31T23:59:60Z"))
    [row] = await api.world.rows(
        "SELECT to_char(max(newest_as_of) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS newest FROM stock_level"
    )
    assert row["newest"] == "2017-01-01 00:00:00"
    assert parse_timestamp("2017-01-01T06:59:60.25+07:00") == parse_timestamp("2017-01-01T00:00:00.25Z")
    assert parse_timestamp("2017-01-01T06:58:60Z") is None
    assert parse_timestamp("9999-12-31T23:59:60Z") is None
    assert (await api.client.history("?updated_at=2016-12-31T23:59:60Z")).status == 200


# Bytes that are not quite HTTP

GOOD = text_of(available_stock="41")
LENGTH = f"content-length: {len(GOOD)}"
CHUNKED = "transfer-encoding: chunked"


def request(*lines: str, method: str = "POST", target: str = UPDATE, version: str = "HTTP/1.1") -> bytes:
    """The head of a request that GOOD is the body of."""
    right = [f"{name}: {value}" for name, value in signed(UPDATE, GOOD).items()]
    return "\r\n".join(
        [f"{method} {target} {version}", "host: x", "connection: close", *right, *lines, "", ""]
    ).encode()


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


async def first_line_and_rest(api: Hub, sent: bytes) -> tuple[str, bytes]:
    """What the server answers to bytes until it closes the connection."""
    parts = urlsplit(api.client.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(sent)
    async with asyncio.timeout(20):
        answered = await reader.read()
    writer.close()
    first, _, rest = answered.partition(b"\r\n")
    return first.decode(), rest


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(LENGTH, version="HTTP/1.0") + GOOD, "HTTP/1.0 200 OK"),
        (request(LENGTH, LENGTH) + GOOD, "HTTP/1.1 200 OK"),
        (request(LENGTH, "expect: 100-continue") + GOOD, "HTTP/1.1 100 Continue"),
        (request(CHUNKED) + chunks(GOOD), "HTTP/1.1 200 OK"),
        (request(LENGTH, target="http://elsewhere" + UPDATE) + GOOD, "HTTP/1.1 200 OK"),
    ],
    ids=["HTTP/1.0", "length twice", "expect", "chunks", "absolute target"],
)
async def test_unusual_requests_that_are_right_are_taken(api: Hub, sent: bytes, status: str) -> None:
    await accepted(api, body_of(available_stock=1))
    first, rest = await first_line_and_rest(api, sent)
    assert first == status
    assert b'{"transaction_code":"' in rest
    assert await level(api) == (41, 0, False)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /healthz\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\xfc\r\n\r\n", 400),
        (request(LENGTH, version="HTTP/2.0") + GOOD, 400),
        (request("content-length: -1") + GOOD, 400),
        (request(f"content-length: +{len(GOOD)}") + GOOD, 400),
        (request("content-length: " + HUGE) + GOOD, 400),
        (request("content-length: \u00b2") + GOOD, 400),
        (request(LENGTH, "content-length: 3") + GOOD, 400),
        (request("content-length: 10") + GOOD, 401),
        (request(CHUNKED) + b"zz\r\n" + GOOD, 400),
        (request(CHUNKED) + b"ffffffffffffffff1\r\n" + GOOD, 400),
        (request(CHUNKED) + b"%x;" % len(GOOD) + b"e" * 100_000 + b"\r\n" + GOOD, 400),
        (request(LENGTH, *(f"x-{n}: 1" for n in range(200))) + GOOD, 431),
        (request(LENGTH, target="/" + "a" * 70_000) + GOOD, 414),
        (request(LENGTH, target=f"{UPDATE}%00") + GOOD, 404),
        (request(LENGTH, target=f"/%ff{UPDATE}") + GOOD, 404),
        (request(LENGTH, target="*", method="OPTIONS") + GOOD, 404),
        (request(LENGTH, method="post") + GOOD, 405),
        (request(LENGTH, method="BREW") + GOOD, 405),
    ],
    ids=[
        "HTTP/0.9", "TLS", "HTTP/2", "negative length", "length with sign", "huge length", "length not ASCII",
        "two lengths", "length too short", "bad chunk size", "huge chunk size", "huge chunk extension", "200 headers",
        "long target", "NUL in the path", "path not UTF-8", "no path", "method in small letters", "unknown method",
    ],
)  # fmt: skip
async def test_requests_that_are_wrong_are_refused_and_disturb_nobody(api: Hub, sent: bytes, status: int) -> None:
    before = await traces(api)
    first, _ = await first_line_and_rest(api, sent)
    assert first.split()[1] == str(status)
    assert await traces(api) == before
    assert (await api.client.history("?limit=1")).status == 200


async def test_chunks_that_are_malformed_are_told_in_the_envelope(api: Hub) -> None:
    _, rest = await first_line_and_rest(api, request(CHUNKED) + b"zz\r\n" + GOOD)
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["message"] == BAD_CHUNKS


async def test_a_query_that_is_not_ascii_is_named(api: Hub) -> None:
    headers = [(name.encode(), value.encode()) for name, value in signed(f"{HISTORY}?limit=1&q=\u00e9").items()]
    answer = await exchange(api.client.url, "GET", f"{HISTORY}?limit=1&q=\u00e9", headers)
    assert (answer.status, [problem["field"] for problem in answer.json["errors"]]) == (400, ["query"])


# Large bodies


async def test_the_longest_body_is_what_the_setting_says(api: Hub) -> None:
    large = text_of(unknown=json.dumps("x" * 11_000_000))
    headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE, large).items()]
    headers.append((b"content-length", str(len(large)).encode()))
    async with another_api(api, replace(FAST, body_bytes_max=12_000_000)) as client:
        assert (await exchange(client.url, "POST", UPDATE, headers, large)).status == 200
    before = await traces(api)
    async with another_api(api, replace(FAST, body_bytes_max=11_000_000)) as client:
        answer = await exchange(client.url, "POST", UPDATE, [*headers[:-1], (b"content-length", b"11000001")])
    assert (answer.status, answer.json["message"]) == (413, "The body must not be longer than 11000000 bytes")
    assert await traces(api) == before
