"""GET history: the seed's shape to the letter, pages, filters, and who sees what."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.api.raw import check_error
from tests.flow.hub import Client, Hub
from tests.world import World, stock_update

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The seed's example, its whitespace apart.
SEED = r"""
{
   "data": [
        {
           "id": 233,
           "tenant_id": 123,
           "user_id": 0,
           "transaction_code": "2a4048b2-bdaf-4d31-922c-58472691f217",
           "action_name": "partner_update_stocks",
           "upload_file_url": "",
           "total_sku": 1,
           "created_at": "2021-02-09T03:18:40.424625Z",
           "updated_at": "2021-02-09T03:19:20.240855Z",
           "finished_at": "2021-02-09T03:19:20Z",
           "update_stock_history_item": [
               {
                   "id": 11701,
                   "update_stock_history_id": 1234,
                   "store_id": 123,
                   "store_name": "Test Toko",
                   "warehouse_id": 0,
                   "warehouse_name": "default",
                   "variant_id": 334621,
                   "sku": "asdfg",
                   "remote_variant": "{\"item_id\": 12346, \"variation_id\": 0}",
                   "row_number": 0,
                   "channel": "shpe",
                   "qty": 10,
                   "retrier_count": 1,
                   "progress": false,
                   "client_reponse": "{\"item\":{\"item_id\":12345,\"modified_time\":1612840732}}",
                   "message": "Successfully Updated",
                   "success": true,
                   "created_at": "2021-02-09T03:18:40.529807Z",
                   "updated_at": "2021-02-09T03:18:52.879618Z",
                   "finished_at": "2021-02-09T03:18:52Z"
               }
           ]
       }
   ],
   "total_record": 120,
   "offset": 0,
   "limit": 1,
   "message": "",
   "reference": "591d4ab5-841e-499a-bfa2-99a4fb879e44"
}
"""
MICROS = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")
SECONDS = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
UUIDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
BAD_MOMENT = "must be an RFC 3339 timestamp with offset, such as 2021-02-05T15:04:05Z"
BAD_LIMIT = "must be a whole number from 1 to 1000"
BAD_OFFSET = "must be a whole number from 0 to 9007199254740991"


def shape(value: object) -> object:
    """Keys in order and JSON types, recursively; texts by their format."""
    match value:
        case list() if value and isinstance(value[0], tuple):
            return [(key, shape(inner)) for key, inner in value]
        case list():
            return ["array", *(shape(inner) for inner in value)]
        case str() if MICROS.fullmatch(value):
            return "microseconds"
        case str() if SECONDS.fullmatch(value):
            return "seconds"
        case str() if UUIDS.fullmatch(value):
            return "uuid"
        case _:
            return type(value).__name__


def shape_of(text: str) -> object:
    return shape(json.loads(text, object_pairs_hook=lambda pairs: pairs))


async def page(client: Client, query: str = "?limit=100&offset=0") -> dict[str, Any]:
    answer = await client.history(query)
    assert answer.status == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


async def bad(client: Client, query: str) -> list[tuple[str, str]]:
    return check_error(await client.history(query), 400)


# The seed's shape: this module's hub has one live Blibli store with sku1 in it


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listed(api: Hub) -> AsyncIterator[Hub]:
    await api.store()
    yield api


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def paged(api: Hub) -> AsyncIterator[tuple[World, Client]]:
    """A tenant with 12 records a second apart, the newest first in its history."""
    world = World(api.world.pool, api.world.keyring)
    await world.tenant("Paged")
    await world.partner("paged", "its secret")
    await world.variants("sku1")
    await world.accept(*(stock_update(available=n) for n in range(12)))
    moment = "$1::timestamptz + stock_update.id * interval '1 second'"
    await world.execute(
        f"UPDATE stock_update SET updated_at = {moment} WHERE tenant_id = $2",  # noqa: S608
        datetime(2021, 2, 5, 15, 4, 5, 250000, UTC) - timedelta(seconds=(await world.history())[-1].id),
        world.tenant_id,
    )
    yield world, replace(api.client, partner_id="paged", secret="its secret")


async def test_an_answer_has_the_seeds_keys_in_the_seeds_order_with_the_seeds_types(listed: Hub) -> None:
    code = await listed.update(blib=10)
    await listed.world.execute(
        "UPDATE item SET success = true, message = 'Successfully Updated', client_response = '{\"item\":{}}',"
        " finished_at = now() WHERE tenant_id = $1 AND finished_at IS NULL",
        listed.world.tenant_id,
    )
    await listed.world.execute(
        "UPDATE stock_update SET items_open = 0, finished_at = now() WHERE tenant_id = $1 AND items_open > 0",
        listed.world.tenant_id,
    )
    answer = await listed.client.history("?limit=1&offset=0")
    assert answer.json["data"][0]["transaction_code"] == code
    assert shape_of(answer.text) == shape_of(SEED)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["reference"] == answer.headers["x-request-id"]


async def test_an_open_item_is_in_progress_and_says_nothing_yet(listed: Hub) -> None:
    code = await listed.update(blib=20)
    record = (await listed.records())[code]
    [item] = record["update_stock_history_item"]
    assert record["finished_at"] is None
    assert record["created_at"] == record["updated_at"] == item["created_at"] == item["updated_at"]
    assert item == {
        "id": item["id"],
        "update_stock_history_id": record["id"],
        "store_id": listed.world.stores["Toko Padi"].id,
        "store_name": "Toko Padi",
        "warehouse_id": 0,
        "warehouse_name": "default",
        "variant_id": item["variant_id"],
        "sku": "sku1",
        "remote_variant": '{"blibli_sku": "TOQ-1-00001-00001"}',
        "row_number": 0,
        "channel": "blib",
        "qty": 20,
        "retrier_count": 0,
        "progress": True,
        "client_reponse": "",
        "message": "",
        "success": False,
        "created_at": record["created_at"],
        "updated_at": record["created_at"],
        "finished_at": None,
    }
    assert json.loads(item["remote_variant"]) == {"blibli_sku": "TOQ-1-00001-00001"}


async def test_a_channel_that_cannot_be_reached_is_an_item_that_has_ended(listed: Hub) -> None:
    code = await listed.update(tkpd=30)
    record = (await listed.records())[code]
    [item] = record["update_stock_history_item"]
    assert (item["store_id"], item["store_name"], item["remote_variant"]) == (0, "", "")
    assert (item["progress"], item["success"], item["qty"]) == (False, False, 30)
    assert item["message"] == "No connector: Lumbung cannot deliver to Tokopedia (tkpd)"
    assert record["finished_at"] == item["finished_at"] == f"{record['created_at'][:19]}Z"


async def test_an_overtaken_item_names_the_update_that_overtook_it(listed: Hub) -> None:
    older = await listed.update(blib=1)
    newer = await listed.update(blib=2)
    record = (await listed.records())[older]
    [item] = record["update_stock_history_item"]
    assert (item["success"], item["progress"], item["qty"]) == (True, False, 1)
    assert item["message"] == f"Superseded by {newer}"
    assert item["finished_at"] == record["finished_at"] == f"{record['updated_at'][:19]}Z"
    assert record["updated_at"] > record["created_at"]


async def test_a_record_without_items_has_an_empty_list_and_is_finished(paged: tuple[World, Client]) -> None:
    record = (await page(paged[1], "?limit=1"))["data"][0]
    assert record["update_stock_history_item"] == []
    assert record["finished_at"] == f"{record['created_at'][:19]}Z"
    assert (record["user_id"], record["action_name"], record["total_sku"]) == (0, "partner_update_stocks", 1)
    assert (record["upload_file_url"], record["tenant_id"]) == ("", paged[0].tenant_id)


# Pages


async def test_records_come_newest_first(paged: tuple[World, Client]) -> None:
    records = (await page(paged[1]))["data"]
    keys = [(record["created_at"], record["id"]) for record in records]
    assert len(keys) == 12
    assert keys == sorted(keys, reverse=True)


async def test_records_of_one_moment_come_by_their_ids(api: Hub) -> None:
    world = World(api.world.pool, api.world.keyring)
    await world.tenant("Same moment")
    await world.partner("same moment", "its secret")
    await world.variants("sku1")
    for _ in range(3):
        await world.accepted(stock_update())
    await world.execute(
        "UPDATE stock_update SET created_at = date_trunc('second', now()) WHERE tenant_id = $1", world.tenant_id
    )
    data = (await page(replace(api.client, partner_id="same moment", secret="its secret")))["data"]
    ids = [record["id"] for record in data]
    assert ids == sorted(ids, reverse=True)
    assert [record["created_at"][19:] for record in data] == [".000000Z"] * 3


async def test_limit_and_offset_cut_a_page_and_are_echoed(paged: tuple[World, Client]) -> None:
    client = paged[1]
    ids = [record["id"] for record in (await page(client))["data"]]
    for limit, offset in [(1, 0), (5, 0), (5, 5), (5, 10), (1000, 11), (3, 12), (3, 2**53 - 1)]:
        answer = await page(client, f"?limit={limit}&offset={offset}")
        assert [record["id"] for record in answer["data"]] == ids[offset : offset + limit]
        assert (answer["total_record"], answer["limit"], answer["offset"]) == (12, limit, offset)


async def test_limit_and_offset_have_defaults(paged: tuple[World, Client]) -> None:
    for query in ("", "?", "?other=1"):
        answer = await page(paged[1], query)
        assert (len(answer["data"]), answer["limit"], answer["offset"]) == (12, 100, 0)


async def test_a_tenant_without_records_has_an_empty_page(api: Hub) -> None:
    world = World(api.world.pool, api.world.keyring)
    await world.tenant("Empty")
    await world.partner("empty", "its secret")
    answer = await page(replace(api.client, partner_id="empty", secret="its secret"), "?limit=7&offset=3")
    reference = answer.pop("reference")
    assert UUIDS.fullmatch(reference)
    assert answer == {"data": [], "total_record": 0, "offset": 3, "limit": 7, "message": ""}


async def test_a_record_embeds_no_more_items_than_the_limit_says(api: Hub) -> None:
    world = World(api.world.pool, api.world.keyring)
    await world.tenant("Many items")
    await world.partner("many items", "its secret")
    await world.variants("sku1")
    await world.accepted(stock_update(blib=1))
    await world.execute(
        "INSERT INTO item (tenant_id, created_at, update_id, id, store_id, warehouse_id, variant_id, channel, quantity,"
        " row_number) SELECT tenant_id, created_at, update_id, id + n, 0, 0, variant_id, 'blib', n, n"
        " FROM item, generate_series(1, 1000) n WHERE tenant_id = $1",
        world.tenant_id,
    )
    [record] = (await page(replace(api.client, partner_id="many items", secret="its secret")))["data"]
    assert [item["row_number"] for item in record["update_stock_history_item"]] == list(range(1000))


# Filters: the 12 records were updated at 15:04:05.25 and each second after


@pytest.mark.parametrize(
    ("moment", "total"),
    [
        ("2021-02-05T15:04:05Z", 12),
        ("2021-02-05T15:04:05.25Z", 12),
        ("2021-02-05T15:04:05.250001Z", 11),
        ("2021-02-05T15:04:06Z", 11),
        ("2021-02-05T15:04:06.2Z", 11),
        ("2021-02-05T15:04:06.3Z", 10),
        ("2021-02-05T15:04:06.25000Z", 11),
        ("2021-02-05T15:04:06.250000Z", 11),
        ("2021-02-05T15:04:06.2500000Z", 11),
        ("2021-02-05T15:04:06.250000000Z", 11),
        ("2021-02-05T15:04:06.251000000Z", 10),
        ("2021-02-05T15:04:16.25Z", 1),
        ("2021-02-05T15:04:16.26Z", 0),
        ("2021-02-05t15:04:06z", 11),
        ("2021-02-05T22:04:06+07:00", 11),
        ("2021-02-05T22:04:06.25%2B07:00", 11),
        ("2021-02-05T22:04:06 07:00", 11),
        ("2021-02-05T22:04:06%2007:00", 11),
        ("2021-02-05T08:34:06-06:30", 11),
        ("2021-02-05T15:04:06-00:00", 11),
        ("0001-01-01T00:00:00Z", 12),
        ("9999-12-31T23:59:59Z", 0),
    ],
)
async def test_updated_at_is_inclusive_and_takes_every_way_to_write_it(
    paged: tuple[World, Client], moment: str, total: int
) -> None:
    answer = await page(paged[1], f"?updated_at={moment.replace(' ', '+')}&limit=1000")
    assert (len(answer["data"]), answer["total_record"]) == (total, total)


async def test_the_filter_and_the_page_work_together(paged: tuple[World, Client]) -> None:
    answer = await page(paged[1], "?updated_at=2021-02-05T15:04:08Z&limit=4&offset=6")
    ids = [record["id"] for record in (await page(paged[1]))["data"]]
    assert [record["id"] for record in answer["data"]] == ids[6:9]
    assert answer["total_record"] == 9


@pytest.mark.parametrize(
    "moment",
    [
        "",
        "now",
        "1612537445",
        "2021-02-05",
        "2021-02-05T15:04:05",
        "2021-02-05T15:04Z",
        "2021-02-05T15:04:05.Z",
        "2021-02-05T15:04:05,5Z",
        "2021-02-05T15:04:05+0700",
        "2021-02-05T15:04:05+07",
        "2021-02-05T15:04:05%2B24:00",
        "2021-02-05T15:04:05%2B07:60",
        "2021-02-30T15:04:05Z",
        "2021-13-05T15:04:05Z",
        "2021-02-05T24:00:00Z",
        "2021-02-05T15:60:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00%2B01:00",
        "9999-12-31T23:59:59-01:00",
        "12021-02-05T15:04:05Z",
        " 2021-02-05T15:04:05Z",
        "2021-02-05T15:04:05Z%0A",
        quote("٢٠٢١-02-05T15:04:05Z"),
        "2021-02-05T15:04:05Z%00",
    ],
)
async def test_a_bad_updated_at_is_named(paged: tuple[World, Client], moment: str) -> None:
    assert await bad(paged[1], f"?updated_at={moment.replace(' ', '%20')}") == [("updated_at", BAD_MOMENT)]


@pytest.mark.parametrize(
    ("query", "problems"),
    [
        *(
            (f"?limit={text}", [("limit", BAD_LIMIT)])
            for text in ("0", "1001", "-1", "", "ten", "1.0", "%2B1", "1e2", "%D9%A1")
        ),
        *(
            (f"?offset={text}", [("offset", BAD_OFFSET)])
            for text in ("-1", "", "x", "0x1", "9007199254740992", "9" * 400)
        ),
        ("?limit=1&limit=2", [("limit", "must be given once")]),
        ("?offset=1&offset=1", [("offset", "must be given once")]),
        ("?limit=%FF", [("query", "must be URL-encoded UTF-8, with at most 100 parameters")]),
        ("?" + "&".join(["a=1"] * 101), [("query", "must be URL-encoded UTF-8, with at most 100 parameters")]),
        (
            "?offset=-1&limit=0&updated_at=x",
            [("updated_at", BAD_MOMENT), ("limit", BAD_LIMIT), ("offset", BAD_OFFSET)],
        ),
    ],
)
async def test_each_bad_parameter_is_named(
    paged: tuple[World, Client], query: str, problems: list[tuple[str, str]]
) -> None:
    assert await bad(paged[1], query) == problems


# Who sees what


async def test_a_tenant_sees_only_its_own_and_all_of_its_own(api: Hub) -> None:
    worlds = [World(api.world.pool, api.world.keyring) for _ in range(2)]
    for n, world in enumerate(worlds):
        await world.tenant(f"Separate {n}")
        await world.partner(f"first {n}", "its secret")
        await world.partner(f"second {n}", "its secret")
        await world.variants("sku1")
    mine = str(await worlds[0].accepted(stock_update()))
    theirs = str(await worlds[1].accepted(stock_update()))
    for partner, code in (("first 0", mine), ("second 0", mine), ("first 1", theirs), ("second 1", theirs)):
        answer = await page(replace(api.client, partner_id=partner, secret="its secret"))
        assert [record["transaction_code"] for record in answer["data"]] == [code]
        assert answer["total_record"] == 1


async def test_naming_another_tenant_changes_nothing(paged: tuple[World, Client], api: Hub) -> None:
    mine = await page(paged[1], "?limit=1000")
    other = await page(paged[1], f"?limit=1000&tenant_id={api.world.tenant_id}")
    assert other["data"] == mine["data"]


async def test_filters_that_are_not_built_are_refused_instead_of_ignored(api: Hub) -> None:
    answer = await api.client.history("?sku=padi&limit=1&cursor=x")
    assert answer.status == 400
    message = "is not supported yet: without it the answer would hold records that it leaves out"
    assert answer.json["errors"] == [{"field": "cursor", "message": message}, {"field": "sku", "message": message}]
