"""POST updatestocks: the seed's example, each row of the contract's field table, and what a refusal leaves behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from lumbung.channels.catalogue import CATALOGUE
from lumbung.cli.roles import free_port
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.model import StockLimit, UnknownSku
from lumbung.settings import Settings
from tests.api.raw import UPDATE, check_error, exchange, signed, traces
from tests.flow.hub import FAST, Client, Hub, running_api
from tests.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEED = b"""\
 {
   "sku": "sku1",
   "sync_stock": false,
   "warehouse": "default",
   "available_stock": 100,
   "buffer_stock": 0,
   "channel_stock": [
     {
       "code": "bklp",
       "qty": 30
     },
     {
       "code": "blib",
       "qty": 20
     }
   ]
 }
"""
CODES = ", ".join(sorted(CATALOGUE))
MAX = 2_147_483_647


def body_of(**fields: Any) -> dict[str, Any]:
    body = {"sku": "sku1", "warehouse": "default", "available_stock": 100, "buffer_stock": 0, "channel_stock": []}
    return {**body, **fields}


def text_of(**fields: str) -> bytes:
    """A good body with some values given as JSON text."""
    good = {name: json.dumps(value) for name, value in body_of().items()}
    return ("{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in {**good, **fields}.items()) + "}").encode()


async def accepted(api: Hub, body: object, **more: Any) -> str:
    answer = await api.client.update(body, **more)
    assert answer.status == 200, answer.text
    code: str = answer.json["transaction_code"]
    return code


async def refused(
    api: Hub, body: object, status: int = 400, *, client: Client | None = None, **more: Any
) -> list[tuple[str, str]]:
    """The problems of a refused update, which has changed nothing."""
    before = await traces(api)
    problems = check_error(await (client or api.client).update(body, **more), status)
    assert await traces(api) == before
    return problems


async def level(api: Hub, sku: str = "sku1") -> tuple[int, int, bool]:
    [row] = await api.world.rows(
        "SELECT l.available, l.buffer, l.sync FROM stock_level l JOIN variant v ON v.tenant_id = l.tenant_id"
        " AND v.id = l.variant_id WHERE v.tenant_id = $1 AND v.sku = $2 AND l.warehouse_id = 0",
        api.world.tenant_id,
        sku,
    )
    return row["available"], row["buffer"], row["sync"]


async def figures(api: Hub, sku: str = "sku1") -> dict[str, int]:
    rows = await api.world.rows(
        "SELECT c.channel, c.figure FROM channel_stock c JOIN variant v ON v.tenant_id = c.tenant_id"
        " AND v.id = c.variant_id WHERE v.tenant_id = $1 AND v.sku = $2",
        api.world.tenant_id,
        sku,
    )
    return {row["channel"]: row["figure"] for row in rows}


@asynccontextmanager
async def tenant(
    api: Hub, name: str, *, limit: StockLimit = StockLimit.NONE, unknown: UnknownSku = UnknownSku.REJECT
) -> AsyncIterator[tuple[World, Client]]:
    """Another tenant with one variant, and its partner's client."""
    world = World(api.world.pool, api.world.keyring)
    await world.tenant(name, channel_stock_limit=limit, unknown_sku=unknown)
    await world.partner(f"partner of {name}", "its secret")
    await world.variants("sku1")
    yield world, replace(api.client, partner_id=f"partner of {name}", secret="its secret")


@asynccontextmanager
async def another_api(api: Hub, settings: Settings, url: str = "") -> AsyncIterator[Client]:
    keyring = api.world.keyring
    assert isinstance(keyring, Keyring)
    async with (
        Pool(url or api.world.pool.url, settings) as pool,
        running_api(settings, pool, keyring) as (address, _),
        aiohttp.ClientSession() as session,
    ):
        yield Client(address, session)


# The seed's example


async def test_the_seeds_example_is_answered_with_its_transaction_code_and_nothing_else(api: Hub) -> None:
    answer = await api.client.update(SEED)
    assert answer.status == 200
    code = answer.json["transaction_code"]
    assert answer.text == f'{{"transaction_code":"{code}"}}'
    assert str(UUID(code)) == code
    assert answer.headers["content-type"] == "application/json"
    assert str(UUID(answer.headers["x-request-id"])) != code
    assert await level(api) == (100, 0, False)
    assert {"bklp": 30, "blib": 20}.items() <= (await figures(api)).items()
    [record] = (await api.client.history("?limit=1&offset=0")).json["data"]
    assert record["transaction_code"] == code


# Fields, good


@pytest.mark.parametrize(
    "sku", ["s", "x" * 255, "Ä-日本-😀", " spaced ", "a/b?c=d&e", "'; DROP TABLE variant; --", "SKU1"]
)
async def test_a_sku_is_matched_exactly(api: Hub, sku: str) -> None:
    await api.world.variants(sku)
    await accepted(api, body_of(sku=sku, available_stock=41))
    assert await level(api, sku) == (41, 0, False)


@pytest.mark.parametrize(
    ("text", "sync"),
    [
        ("true", True),
        ("false", False),
        ("null", False),
        ('"true"', True),
        ('"false"', False),
        ('"TRUE"', True),
        ('"False"', False),
        ('"tRuE"', True),
    ],
)
async def test_sync_stock_is_a_boolean_or_its_word_in_any_case(api: Hub, text: str, sync: bool) -> None:
    await accepted(api, text_of(sync_stock=text))
    assert await level(api) == (100, 0, sync)


async def test_sync_stock_is_false_when_absent(api: Hub) -> None:
    await accepted(api, body_of(sync_stock=True))
    await accepted(api, body_of())
    assert await level(api) == (100, 0, False)


@pytest.mark.parametrize(("available", "buffer"), [(0, 0), (MAX, 0), (MAX, MAX), (5, 5), (5, 4)])
async def test_stock_is_accepted_up_to_its_edges(api: Hub, available: int, buffer: int) -> None:
    await accepted(api, body_of(available_stock=available, buffer_stock=buffer))
    assert await level(api) == (available, buffer, False)


async def test_a_channels_quantity_is_accepted_up_to_its_edges(api: Hub) -> None:
    await accepted(api, body_of(channel_stock=[{"code": "shpe", "qty": 0}, {"code": "lzda", "qty": MAX}]))
    assert {"shpe": 0, "lzda": MAX}.items() <= (await figures(api)).items()


async def test_every_code_of_the_catalogue_is_taken_whether_or_not_there_is_a_connector(api: Hub) -> None:
    await api.world.variants("all codes")
    entries = [{"code": code, "qty": n} for n, code in enumerate(CATALOGUE)]
    await accepted(api, body_of(sku="all codes", channel_stock=entries))
    assert await figures(api, "all codes") == {code: n for n, code in enumerate(CATALOGUE)}


async def test_another_warehouse_of_the_tenant_is_taken(api: Hub) -> None:
    name = "G" * 255
    warehouse_id = await api.world.warehouse(name)
    code = await accepted(api, body_of(warehouse=name, channel_stock=[{"code": "blib", "qty": 1}]))
    record = (await api.records())[code]
    [item] = record["update_stock_history_item"]
    assert (item["warehouse_id"], item["warehouse_name"]) == (warehouse_id, name)


async def test_unknown_fields_are_ignored_and_of_duplicate_keys_the_last_wins(api: Hub) -> None:
    entry = '[{"code":"blib","code":"zlra","qty":"x","qty":9,"more":[[]]}]'
    body = text_of(channel_stock=entry, user_id="7", unknown='{"deep":[1.5,null,"\\u0000"]}')
    body = body[:-1] + b',"available_stock":3,"available_stock":33}'
    await accepted(api, body)
    assert await level(api) == (33, 0, False)
    assert (await figures(api))["zlra"] == 9


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "?"])
async def test_any_content_type_is_read_as_json(api: Hub, kind: str) -> None:
    headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE, text_of()).items()]
    headers += [(b"content-type", kind.encode()), (b"content-length", str(len(text_of())).encode())]
    answer = await exchange(api.client.url, "POST", UPDATE, headers, text_of())
    assert answer.status == 200


async def test_a_request_without_content_type_is_read_as_json(api: Hub) -> None:
    answer = await api.client.update(body_of(), drop=("content-type",))
    assert answer.status == 200


# Fields, bad

REQUIRED = "is required"
CONTROL = "must not hold control characters"
LENGTH = "must have 1 to 255 characters"
QUANTITY = f"must be from 0 to {MAX}"
BAD_TEXT = [
    ("null", "must be a string, not null"),
    ("1", "must be a string, not an integer"),
    ("true", "must be a string, not a boolean"),
    ('["sku1"]', "must be a string, not an array"),
    ('{"a":1}', "must be a string, not an object"),
    ('""', LENGTH),
    (f'"{"x" * 256}"', LENGTH),
    (r'"a\u0000"', CONTROL),
    (r'"a\n"', CONTROL),
    (r'"\u007f"', CONTROL),
    (r'"\u0085"', CONTROL),
]
BAD_QUANTITY = [
    ("null", "must be an integer, not null"),
    ("true", "must be an integer, not a boolean"),
    ("false", "must be an integer, not a boolean"),
    ("1.0", "must be an integer, not a number with a fraction or exponent"),
    ("1e2", "must be an integer, not a number with a fraction or exponent"),
    ('"100"', "must be an integer, not a string"),
    ("[100]", "must be an integer, not an array"),
    ("{}", "must be an integer, not an object"),
    ("-1", QUANTITY),
    ("2147483648", QUANTITY),
    ("18446744073709551616", QUANTITY),
    ("9" * 100, QUANTITY),
]


@pytest.mark.parametrize("field", ["sku", "warehouse"])
@pytest.mark.parametrize(("text", "message"), BAD_TEXT)
async def test_a_bad_text_is_named(api: Hub, field: str, text: str, message: str) -> None:
    assert await refused(api, text_of(**{field: text})) == [(field, message)]


@pytest.mark.parametrize("field", ["available_stock", "buffer_stock"])
@pytest.mark.parametrize(("text", "message"), BAD_QUANTITY)
async def test_a_bad_quantity_is_named(api: Hub, field: str, text: str, message: str) -> None:
    assert await refused(api, text_of(**{field: text})) == [(field, message)]


@pytest.mark.parametrize(("text", "message"), BAD_QUANTITY)
async def test_a_bad_quantity_of_a_channel_is_named_with_its_place(api: Hub, text: str, message: str) -> None:
    entries = f'[{{"code":"blib","qty":1}},{{"code":"shpe","qty":{text}}}]'
    assert await refused(api, text_of(channel_stock=entries)) == [("channel_stock[1].qty", message)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "must be a string, not null"),
        ("1", "must be a string, not an integer"),
        ('""', f"must be one of {CODES}"),
        ('"BLIB"', f"must be one of {CODES}"),
        ('"shpee"', f"must be one of {CODES}"),
        ('"blib "', f"must be one of {CODES}"),
        (r'"blib\u0000"', f"must be one of {CODES}"),
    ],
)
async def test_a_bad_code_is_named_with_its_place(api: Hub, text: str, message: str) -> None:
    entries = f'[{{"code":{text},"qty":1}}]'
    assert await refused(api, text_of(channel_stock=entries)) == [("channel_stock[0].code", message)]


@pytest.mark.parametrize("text", ["1", "0", '"yes"', '""', "[]", "{}", '"1"', '" true"', "1.0"])
async def test_a_bad_sync_stock_is_named(api: Hub, text: str) -> None:
    expected = [("sync_stock", 'must be true, false, "true" or "false"')]
    assert await refused(api, text_of(sync_stock=text)) == expected


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("null", [("channel_stock", "must be an array, not null")]),
        ("{}", [("channel_stock", "must be an array, not an object")]),
        ('"[]"', [("channel_stock", "must be an array, not a string")]),
        ("[null]", [("channel_stock[0]", "must be an object, not null")]),
        ('["blib"]', [("channel_stock[0]", "must be an object, not a string")]),
        ("[[]]", [("channel_stock[0]", "must be an object, not an array")]),
        ("[{}]", [("channel_stock[0].code", REQUIRED), ("channel_stock[0].qty", REQUIRED)]),
        ("[" + ",".join(["{}"] * 101) + "]", [("channel_stock", "must have at most 100 entries")]),
        (
            '[{"code":"blib","qty":1},{"code":"blib","qty":1}]',
            [("channel_stock[1].code", "blib is named twice")],
        ),
    ],
)
async def test_a_bad_channel_stock_is_named(api: Hub, text: str, problems: list[tuple[str, str]]) -> None:
    assert await refused(api, text_of(channel_stock=text)) == problems


async def test_a_hundred_entries_are_read_each(api: Hub) -> None:
    problems = await refused(api, text_of(channel_stock="[" + ",".join(["0"] * 100) + "]"))
    assert [field for field, _ in problems] == [f"channel_stock[{n}]" for n in range(100)]


async def test_a_buffer_is_not_more_than_what_is_available(api: Hub) -> None:
    expected = [("buffer_stock", "must not be more than available_stock (4)")]
    assert await refused(api, body_of(available_stock=4, buffer_stock=5)) == expected


async def test_every_missing_field_is_named_in_order(api: Hub) -> None:
    answer = await api.client.update(b"{}")
    missing = ["sku", "warehouse", "available_stock", "buffer_stock"]
    expected = [*((field, REQUIRED) for field in missing), ("channel_stock", "is required (it may be an empty array)")]
    assert check_error(answer, 400) == expected
    assert answer.json["message"] == (
        "sku: is required; warehouse: is required; available_stock: is required; and 2 more"
    )


async def test_all_problems_of_a_body_are_reported_at_once_in_the_contracts_order(api: Hub) -> None:
    problems = await refused(
        api,
        {
            "as_of": "yesterday",
            "channel_stock": [
                {"code": "nope", "qty": -1},
                3,
                {"code": "blib", "qty": 1},
                {"code": "blib", "qty": None},
            ],
            "buffer_stock": "0",
            "available_stock": -1,
            "warehouse": "",
            "sync_stock": "maybe",
            "sku": 7,
        },
    )
    assert [field for field, _ in problems] == [
        "sku",
        "sync_stock",
        "warehouse",
        "available_stock",
        "buffer_stock",
        "channel_stock[0].code",
        "channel_stock[0].qty",
        "channel_stock[1]",
        "channel_stock[3].code",
        "channel_stock[3].qty",
        "as_of",
    ]


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{} x",
        b"{'sku':1}",
        b"[]",
        b"null",
        b'"text"',
        b"1",
        text_of(available_stock="NaN"),
        text_of(available_stock="Infinity"),
        text_of(available_stock="-Infinity"),
        text_of(unknown="1e400"),
        text_of(unknown="9" * 5000),
        text_of(available_stock="0100"),
        text_of(available_stock="+1"),
        text_of(unknown='"\\ud800"'),
        b"\xef\xbb\xbf" + text_of(),
        text_of(unknown='"?"').replace(b"?", b"\xed\xa0\x80"),
        text_of(unknown='"?"').replace(b"?", b"\xc0\xaf"),
        text_of().decode().encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        text_of(unknown="[" * 32 + "]" * 32),
        text_of(unknown='{"a":' * 32 + "1" + "}" * 32),
        text_of(channel_stock='[{"code":"blib","qty":1,"x":' + "[" * 30 + "]" * 30 + "}]"),
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_a_body_that_is_not_one_json_object_is_named_as_a_whole(api: Hub, body: bytes) -> None:
    [(field, message)] = await refused(api, body)
    assert field == "body"
    assert message.startswith("must ")


async def test_a_body_may_be_nested_32_deep(api: Hub) -> None:
    await accepted(api, text_of(unknown="[" * 31 + "]" * 31, available_stock="32"))
    assert await level(api) == (32, 0, False)
    [(_, message)] = await refused(api, text_of(unknown="[" * 32 + "]" * 32))
    assert message == "must not be nested deeper than 32"


async def test_a_body_of_exactly_the_limit_is_read(api: Hub) -> None:
    limit = Settings().body_bytes_max
    await accepted(api, text_of().ljust(limit))
    longer = text_of().ljust(limit + 1)
    headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE, longer).items()]
    headers.append((b"content-length", str(len(longer)).encode()))
    answer = await exchange(api.client.url, "POST", UPDATE, headers, longer)
    assert answer.status == 413
    assert answer.json["message"] == "The body must not be longer than 1048576 bytes"


async def test_a_body_that_says_it_is_too_long_is_refused_unread(api: Hub) -> None:
    before = await traces(api)
    headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE).items()]
    answer = await exchange(api.client.url, "POST", UPDATE, [*headers, (b"content-length", b"1048577")])
    assert answer.status == 413
    assert answer.json["reference"] == answer.headers["x-request-id"]
    assert await traces(api) == before


async def test_a_body_that_does_not_say_its_length_is_refused_when_it_passes_the_limit(api: Hub) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE).items()]
    chunked = [*headers, (b"transfer-encoding", b"chunked")]
    answer = await exchange(api.client.url, "POST", UPDATE, chunked, chunk * 17)
    assert answer.status == 413


async def test_a_chunked_body_is_put_together(api: Hub) -> None:
    body = text_of(available_stock="77")
    headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE, body).items()]
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\n\r\n"
    answer = await exchange(api.client.url, "POST", UPDATE, [*headers, (b"transfer-encoding", b"chunked")], chunks)
    assert answer.status == 200
    assert await level(api) == (77, 0, False)


async def test_a_body_that_does_not_arrive_in_time_is_given_up(api: Hub) -> None:
    async with another_api(api, replace(FAST, body_read_timeout_seconds=0.05)) as client:
        headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE).items()]
        answer = await exchange(client.url, "POST", UPDATE, [*headers, (b"content-length", b"10")], b"{")
    assert (answer.status, answer.json["message"]) == (400, "The body did not arrive within 0.05 seconds")


# Unknown SKU and warehouse


async def unknown_skus(world: World) -> dict[str, int]:
    rows = await world.rows("SELECT sku, times FROM unknown_sku WHERE tenant_id = $1", world.tenant_id)
    return {row["sku"]: row["times"] for row in rows}


async def test_an_unknown_sku_is_not_found_and_counted(api: Hub) -> None:
    expected = [("sku", "SKU 'nowhere' is not in the catalogue")]
    assert await refused(api, body_of(sku="nowhere"), 404) == expected
    assert (await unknown_skus(api.world))["nowhere"] == 1
    await asyncio.gather(*(refused(api, body_of(sku="nowhere"), 404) for _ in range(3)))
    assert (await unknown_skus(api.world))["nowhere"] == 4


async def test_an_unknown_warehouse_is_not_found(api: Hub) -> None:
    expected = [("warehouse", "Warehouse 'Default' does not exist")]
    assert await refused(api, body_of(warehouse="Default"), 404) == expected


async def test_sku_and_warehouse_are_both_named_when_both_are_unknown(api: Hub) -> None:
    problems = await refused(api, body_of(sku="no such", warehouse="no such"), 404)
    assert [field for field, _ in problems] == ["sku", "warehouse"]


async def test_a_bad_field_comes_before_an_unknown_sku(api: Hub) -> None:
    assert await refused(api, body_of(sku="not counted", buffer_stock=-1)) == [("buffer_stock", QUANTITY)]
    assert "not counted" not in await unknown_skus(api.world)


async def test_skus_and_warehouses_of_another_tenant_are_unknown(api: Hub) -> None:
    async with tenant(api, "neighbour") as (world, _):
        await world.variants("only theirs")
        await world.warehouse("theirs")
    problems = await refused(api, body_of(sku="only theirs", warehouse="theirs"), 404)
    assert [field for field, _ in problems] == ["sku", "warehouse"]


async def test_a_tenant_may_have_unknown_skus_made(api: Hub) -> None:
    async with tenant(api, "creating", unknown=UnknownSku.CREATE) as (world, client):
        answer = await client.update(body_of(sku="fresh", channel_stock=[{"code": "blib", "qty": 4}]))
        assert answer.status == 200
        assert await world.value("SELECT count(*) FROM variant WHERE tenant_id = $1", world.tenant_id) == 2
        [record] = await world.history()
        assert [(item.sku, item.quantity) for item in record.items] == [("fresh", 4)]
        assert await unknown_skus(world) == {}
        await refused(api, body_of(sku="other", warehouse="nowhere"), 404, client=client)
        await refused(api, body_of(sku="other", available_stock=-1), client=client)


# Additions


async def test_as_of_is_kept_and_an_older_one_is_recorded_but_not_applied(api: Hub) -> None:
    await api.world.variants("timed")
    figure = [{"code": "blib", "qty": 1}]
    await accepted(api, body_of(sku="timed", available_stock=10, as_of="2026-01-01T12:00:00+07:00"))
    old = await accepted(
        api, body_of(sku="timed", available_stock=11, as_of="2026-01-01T04:59:59.999Z", channel_stock=figure)
    )
    assert await level(api, "timed") == (10, 0, False)
    record = (await api.records())[old]
    assert record["finished_at"] is not None
    [item] = record["update_stock_history_item"]
    assert item["success"] is False
    await accepted(api, body_of(sku="timed", available_stock=12, as_of="2026-01-01T05:00:00Z"))
    assert await level(api, "timed") == (12, 0, False)
    await accepted(api, body_of(sku="timed", available_stock=13))
    assert await level(api, "timed") == (13, 0, False)
    await accepted(api, body_of(sku="timed", available_stock=14, as_of="2026-01-01T04:00:00Z"))
    assert await level(api, "timed") == (13, 0, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1767225600", "must be a string, not an integer"),
        ('"2026-01-01"', "must be an RFC 3339 timestamp with offset, such as 2021-02-05T15:04:05Z"),
        ('"2026-01-01T00:00:00"', "must be an RFC 3339 timestamp with offset, such as 2021-02-05T15:04:05Z"),
        ('"2026-02-30T00:00:00Z"', "must be an RFC 3339 timestamp with offset, such as 2021-02-05T15:04:05Z"),
        ('""', "must be an RFC 3339 timestamp with offset, such as 2021-02-05T15:04:05Z"),
        ('"9999-12-31T00:00:00Z"', "must not be in the future"),
    ],
)
async def test_a_bad_as_of_is_named(api: Hub, text: str, message: str) -> None:
    assert await refused(api, text_of(as_of=text)) == [("as_of", message)]


async def test_as_of_may_be_up_to_five_minutes_ahead(api: Hub) -> None:
    await api.world.variants("ahead")
    near, far = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (290, 310))
    await accepted(api, body_of(sku="ahead", as_of=near.isoformat()))
    assert await refused(api, body_of(sku="ahead", as_of=far.isoformat())) == [("as_of", "must not be in the future")]


async def test_a_null_as_of_is_an_absent_one(api: Hub) -> None:
    await accepted(api, text_of(as_of="null"))


async def test_an_idempotency_key_takes_effect_once(api: Hub) -> None:
    body = json.dumps(body_of(available_stock=501)).encode()
    code = await accepted(api, body, headers={"idempotency-key": "once"})
    await accepted(api, body_of(available_stock=502))
    before = await traces(api)
    assert await accepted(api, body, headers={"idempotency-key": "once"}) == code
    assert await traces(api) == before
    assert await level(api) == (502, 0, False)


async def test_requests_at_the_same_moment_with_one_key_take_effect_once(api: Hub) -> None:
    before = await traces(api)
    codes = await asyncio.gather(
        *(accepted(api, body_of(available_stock=5), headers={"idempotency-key": "burst"}) for _ in range(20))
    )
    assert len(set(codes)) == 1
    after = await traces(api)
    assert (after["updates"] - before["updates"], after["keys"] - before["keys"]) == (1, 1)


async def test_a_key_with_another_body_is_a_conflict(api: Hub) -> None:
    await accepted(api, body_of(available_stock=1), headers={"idempotency-key": "conflict"})
    problems = await refused(api, body_of(available_stock=2), 409, headers={"idempotency-key": "conflict"})
    assert problems == [("Idempotency-Key", "was used with another body")]
    assert await level(api) == (1, 0, False)


async def test_a_key_is_forgotten_after_a_day(api: Hub) -> None:
    first = await accepted(api, body_of(available_stock=1), headers={"idempotency-key": "daily"})
    aged = "UPDATE idempotency_key SET created_at = now() - $1 * interval '1 second' WHERE key = 'daily'"
    await api.world.execute(aged, 86_390)
    assert await accepted(api, body_of(available_stock=1), headers={"idempotency-key": "daily"}) == first
    await api.world.execute(aged, 86_401)
    second = await accepted(api, body_of(available_stock=2), headers={"idempotency-key": "daily"})
    assert second != first
    assert await accepted(api, body_of(available_stock=2), headers={"idempotency-key": "daily"}) == second


async def test_a_refused_request_leaves_its_key_free(api: Hub) -> None:
    headers = {"idempotency-key": "free"}
    await refused(api, body_of(sku="not there"), 404, headers=headers)
    await refused(api, body_of(available_stock=-1), headers=headers)
    await accepted(api, body_of(), headers=headers)


async def test_two_partners_of_a_tenant_have_keys_of_their_own(api: Hub) -> None:
    await api.world.partner("colleague", "its secret")
    colleague = replace(api.client, partner_id="colleague", secret="its secret")
    code = await accepted(api, body_of(available_stock=1), headers={"idempotency-key": "shared"})
    answer = await colleague.update(body_of(available_stock=2), headers={"idempotency-key": "shared"})
    assert answer.status == 200
    assert answer.json["transaction_code"] != code


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x85b"])
async def test_a_bad_key_is_named(api: Hub, key: str) -> None:
    before = await traces(api)
    headers = [(name.encode(), value.encode()) for name, value in signed(UPDATE, text_of()).items()]
    headers += [(b"idempotency-key", key.encode("latin-1")), (b"content-length", str(len(text_of())).encode())]
    answer = await exchange(api.client.url, "POST", UPDATE, headers, text_of())
    assert answer.status == 400
    message = "must be 1 to 255 characters without control characters"
    assert answer.json["errors"] == [{"field": "Idempotency-Key", "message": message}]
    assert await traces(api) == before


async def test_a_key_of_255_characters_is_good(api: Hub) -> None:
    await accepted(api, body_of(), headers={"idempotency-key": "k" * 255})


@pytest.mark.parametrize(
    ("limit", "quantities", "problems"),
    [
        (StockLimit.NONE, (101, 200), []),
        (StockLimit.EACH, (90, 90), []),
        (
            StockLimit.EACH,
            (91, 90, 100),
            [
                ("channel_stock[0].qty", "91 is more than the 90 that can be sold"),
                ("channel_stock[2].qty", "100 is more than the 90 that can be sold"),
            ],
        ),
        (StockLimit.TOTAL, (40, 50), []),
        (StockLimit.TOTAL, (41, 50), [("channel_stock", "The sum 91 is more than the 90 that can be sold")]),
    ],
)
async def test_a_tenant_may_limit_the_figures_to_what_can_be_sold(
    api: Hub, limit: StockLimit, quantities: tuple[int, ...], problems: list[tuple[str, str]]
) -> None:
    entries = [{"code": code, "qty": qty} for code, qty in zip(("blib", "shpe", "lzda"), quantities, strict=False)]
    body = body_of(available_stock=100, buffer_stock=10, channel_stock=entries)
    async with tenant(api, f"limit {limit} {quantities}", limit=limit) as (_, client):
        if problems:
            assert await refused(api, body, client=client) == problems
        else:
            assert (await client.update(body)).status == 200


# Methods, paths, trouble


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "BREW"])
async def test_another_method_is_answered_405_in_the_envelope(api: Hub, method: str) -> None:
    answer = await api.client.call(method, UPDATE)
    assert check_error(answer, 405) == []
    assert answer.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/partner/inventory/updatestock", "/V1/partner/inventory/updatestocks"]
)
async def test_another_path_is_answered_404_in_the_envelope(api: Hub, path: str) -> None:
    assert check_error(await api.client.call("POST", path, b"{}"), 404) == []


def closed_url() -> str:
    return f"postgresql://lumbung@127.0.0.1:{free_port('127.0.0.1')}/lumbung"


async def test_while_the_database_is_away_the_answer_is_503_with_retry_after(api: Hub) -> None:
    async with another_api(api, FAST, closed_url()) as client:
        for answer in (await client.update(body_of()), await client.history()):
            assert check_error(answer, 503) == []
            assert answer.headers["retry-after"] == "2"


async def test_a_503_shows_nothing_of_where_the_database_is(api: Hub) -> None:
    async with another_api(api, FAST, closed_url()) as client:
        answer = await client.update(body_of())
    assert answer.json["message"] == "The database cannot be reached"


async def test_a_database_that_goes_away_between_the_check_and_the_commit_takes_nothing_half(api: Hub) -> None:
    settings = replace(FAST, partner_cache_seconds=3600.0)
    keyring = api.world.keyring
    assert isinstance(keyring, Keyring)
    async with (
        Leaving(api.world.pool.url, settings) as pool,
        running_api(settings, pool, keyring) as (address, _),
        aiohttp.ClientSession() as session,
    ):
        client = Client(address, session)
        assert (await client.update(body_of(available_stock=1))).status == 200
        pool.gone = True
        before = await traces(api)
        answer = await client.update(body_of(available_stock=2))
        assert check_error(answer, 503) == []
        assert answer.headers["retry-after"] == "2"
        assert await traces(api) == before
        pool.gone = False
        assert (await client.update(body_of(available_stock=3))).status == 200
        assert await level(api) == (3, 0, False)


class Leaving(Pool):
    """A pool whose server closes the connection, once everything but the COMMIT has been done, while `gone`."""

    gone = False

    @asynccontextmanager
    async def transaction(self, *, lock_timeout_ms: int | None = None, may_idle: bool = False) -> AsyncIterator[Any]:
        async with super().transaction(lock_timeout_ms=lock_timeout_ms) as connection:
            yield connection
            if self.gone:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def test_a_full_queue_is_answered_503_at_once(api: Hub) -> None:
    before = await traces(api)
    async with another_api(api, replace(FAST, accept_queue_max=0)) as client:
        answer = await client.update(body_of())
    assert check_error(answer, 503) == []
    assert answer.headers["retry-after"] == "1"
    assert await traces(api) == before
