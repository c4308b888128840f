"""What a developer and an operator find beside the partner routes: documentation, health, readiness, metrics."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lumbung.api.wire import ErrorAnswer, HistoryAnswer, ItemAnswer, RecordAnswer, TransactionAnswer
from lumbung.channels.catalogue import CATALOGUE
from lumbung.cli.roles import free_port
from lumbung.db.pool import Pool
from lumbung.db.schema import newest_version
from lumbung.keyring import Keyring
from tests.api.raw import HISTORY, UPDATE
from tests.flow.hub import FAST, Answer, Client, Hub, running_api

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The seed's tables of parameters.
SEED_HEADERS = {"partner-id": True, "secret": True}
SEED_BODY = {
    "sku": ("string", True),
    "sync_stock": ("string", False),
    "warehouse": ("string", True),
    "available_stock": ("integer", True),
    "buffer_stock": ("integer", True),
    "channel_stock": ("array", True),
}
SEED_QUERY = {"updated_at": "string", "limit": "integer", "offset": "integer"}


async def get(url: str) -> Answer:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return Answer(response.status, response.headers, await response.text())


async def document(api: Hub) -> dict[str, Any]:
    answer = await get(f"{api.client.url}/docs/openapi.json")
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


def inside(value: object) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from inside(inner)


def answer_schema(operation: dict[str, Any], code: str) -> dict[str, Any]:
    schema: dict[str, Any] = operation["responses"][code]["content"]["application/json"]["schema"]
    return schema


def check_fields(schema: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    """That a schema has the fields of an answer, in its order."""
    fields = [field.encode_name for field in msgspec.structs.fields(struct)]
    assert list(schema["properties"]) == schema["required"] == fields


def types_of(schema: dict[str, Any]) -> list[str]:
    found = schema["type"]
    return list(found) if isinstance(found, list) else [found]


# /docs


async def test_the_page_loads_nothing_from_elsewhere_and_all_that_it_loads_is_there(api: Hub) -> None:
    page = await get(f"{api.client.url}/docs")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assets = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert {asset for asset in assets if not asset.startswith("data:")} == {
        "/docs/static/swagger-ui.css",
        "/docs/static/swagger-ui-bundle.js",
        "/docs/static/swagger-ui-standalone-preset.js",
    }
    for asset in assets:
        if not asset.startswith("data:"):
            found = await get(urljoin(api.client.url, asset))
            assert (found.status, len(found.text) > 1000) == (200, True), asset
    outside = page.text.replace(json.dumps(await document(api)), "")
    assert re.findall(r"https?://[^\s\"'<)]+", outside) == []


async def test_the_document_is_openapi_and_holds_together(api: Hub) -> None:
    found = await document(api)
    assert found["openapi"].startswith("3.1")
    assert (found["info"]["title"], bool(found["info"]["version"])) == ("Lumbung partner API", True)
    for part in inside(found):
        if "$ref" in part:
            target: Any = found
            for step in part["$ref"].removeprefix("#/").split("/"):
                target = target[step]
        if part.get("type") == "object":
            assert set(part.get("required", [])) <= set(part["properties"])
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert all(answer["description"] for answer in operation["responses"].values())
        assert all({"name", "in", "schema"} <= set(parameter) for parameter in operation["parameters"])


async def test_only_the_partner_routes_are_documented(api: Hub) -> None:
    paths = (await document(api))["paths"]
    assert {path: list(methods) for path, methods in paths.items() if path in (UPDATE, HISTORY)} == {
        UPDATE: ["post"],
        HISTORY: ["get"],
    }
    assert all(path.startswith("/v1/partner/") for path in paths)


async def test_update_stocks_is_documented_with_the_seeds_fields(api: Hub) -> None:
    operation = (await document(api))["paths"][UPDATE]["post"]
    required = {p["name"]: p["required"] for p in operation["parameters"] if p["in"] == "header"}
    assert SEED_HEADERS.items() <= required.items()
    body = operation["requestBody"]["content"]["application/json"]
    for name, (kind, needed) in SEED_BODY.items():
        assert kind in types_of(body["schema"]["properties"][name]), name
        assert (name in body["schema"]["required"]) is needed, name
    assert list(body["schema"]["properties"])[:6] == list(SEED_BODY)
    entry = body["schema"]["properties"]["channel_stock"]["items"]
    assert entry["required"] == ["code", "qty"]
    assert entry["properties"]["code"]["enum"] == sorted(CATALOGUE)
    assert types_of(entry["properties"]["qty"]) == ["integer"]
    check_fields(answer_schema(operation, "200"), TransactionAnswer)
    for code in ("400", "401", "403", "404", "409", "413", "503"):
        check_fields(answer_schema(operation, code), ErrorAnswer)


async def test_the_documented_example_is_accepted(api: Hub) -> None:
    operation = (await document(api))["paths"][UPDATE]["post"]
    [example] = operation["requestBody"]["content"]["application/json"]["examples"].values()
    assert (await api.client.update(example["value"])).status == 200


async def test_history_is_documented_with_the_seeds_fields(api: Hub) -> None:
    operation = (await document(api))["paths"][HISTORY]["get"]
    query = {p["name"]: p for p in operation["parameters"] if p["in"] == "query"}
    for name, kind in SEED_QUERY.items():
        assert types_of(query[name]["schema"]) == [kind]
        assert query[name]["required"] is False
    assert (query["limit"]["schema"]["default"], query["offset"]["schema"]["default"]) == (100, 0)
    schema = answer_schema(operation, "200")
    check_fields(schema, HistoryAnswer)
    check_fields(schema["properties"]["data"]["items"], RecordAnswer)
    check_fields(schema["properties"]["data"]["items"]["properties"]["update_stock_history_item"]["items"], ItemAnswer)


# Health


@asynccontextmanager
async def api_over(url: str, keyring: Keyring) -> AsyncIterator[Client]:
    async with (
        Pool(url, FAST) as pool,
        running_api(FAST, pool, keyring) as (address, _),
        aiohttp.ClientSession() as session,
    ):
        yield Client(address, session)


async def test_a_process_with_its_database_is_healthy_and_ready(api: Hub) -> None:
    healthz, readyz = [await get(f"{api.client.url}/{name}") for name in ("healthz", "readyz")]
    assert (healthz.status, healthz.json) == (200, {"status": "ok"})
    assert (readyz.status, readyz.json) == (200, {"status": "ready", "schema_version": newest_version()})


async def test_a_process_without_its_database_is_healthy_but_not_ready(keyring: Keyring) -> None:
    async with api_over(f"postgresql://lumbung@127.0.0.1:{free_port('127.0.0.1')}/lumbung", keyring) as client:
        healthz, readyz = [await get(f"{client.url}/{name}") for name in ("healthz", "readyz")]
    assert (healthz.status, healthz.json) == (200, {"status": "ok"})
    assert (readyz.status, readyz.json["status"]) == (503, "not ready")
    assert readyz.json["reason"].startswith("The database cannot be reached")


@pytest.mark.asyncio(loop_scope="function")
async def test_a_database_without_the_schema_is_not_ready(empty_database_url: str, keyring: Keyring) -> None:
    async with api_over(empty_database_url, keyring) as client:
        readyz = await get(f"{client.url}/readyz")
        answer = await client.history()
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    reason = f"The schema is at version 0, this process needs {newest_version()}"
    assert (readyz.status, readyz.json) == (503, {"status": "not ready", "reason": reason})


# Metrics


async def samples(api: Hub) -> dict[tuple[str, ...], float]:
    answer = await get(f"{api.client.url}/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_route_and_status(api: Hub) -> None:
    def counter(route: str, status: int) -> tuple[str, ...]:
        return ("lumbung_api_requests_total", f"route={route}", f"status={status}")

    before = await samples(api)
    body = {"sku": "sku1", "warehouse": "default", "available_stock": 1, "buffer_stock": 0, "channel_stock": []}
    await api.client.update(body)
    await api.client.update(body)
    await api.client.update({})
    await api.client.history()
    await api.client.history(headers={"secret": "wrong"})
    await api.client.call("GET", "/first/unknown/path")
    await api.client.call("GET", "/second/unknown/path")
    await api.client.call("GET", UPDATE)
    after = await samples(api)
    changed = {key: after[key] - before.get(key, 0) for key in after if key[0] == "lumbung_api_requests_total"}
    changed = {key: value for key, value in changed.items() if value and "/metrics" not in key[1]}
    assert {key: value for key, value in changed.items() if key[2] != "status=405"} == {
        counter(UPDATE, 200): 2,
        counter(UPDATE, 400): 1,
        counter(HISTORY, 200): 1,
        counter(HISTORY, 401): 1,
        counter("other", 404): 2,
    }
    assert [value for key, value in changed.items() if key[2] == "status=405"] == [1]
    seconds = ("lumbung_api_request_seconds_count", f"route={UPDATE}")
    assert after[seconds] - before.get(seconds, 0) == 3
    for name, value in (("group_updates_count", 2), ("group_updates_sum", 2), ("commit_seconds_count", 2)):
        key = (f"lumbung_accept_{name}",)
        assert after[key] - before[key] == value
    assert (after[("lumbung_accept_queued",)], after[("lumbung_accept_splits_total",)]) == (0, 0)
