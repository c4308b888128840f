"""Channels and sandbox against the fact sheet's own examples, read from the page itself."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lumbung.channels.base import (
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.blibli import signing as blibli_signing
from lumbung.channels.call import Answered
from lumbung.channels.catalogue import CATALOGUE
from lumbung.channels.shopee import errors, signing, wire
from lumbung.sandbox import blibli as fake_blibli
from lumbung.sandbox.server import Sandbox
from lumbung.sandbox.shopee.wire import sign as fake_sign
from tests.sandbox.shopee_seller import STORE, UPDATE_STOCK, App

SHEET = (Path(__file__).parent.parent / "docs/reference/marketplaces.md").read_text(encoding="utf-8")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CLASSES: dict[str, tuple[type[Outcome], ...]] = {
    "RATE": (Throttled,),
    "QUOTA": (Throttled,),
    "TRANSIENT": (InDoubt, Unavailable),
    "TOKEN": (Unauthorized,),
    "REAUTH": (Unauthorized, Misconfigured),
    "FLOOR": (Floor, Deferred),  # without a number there is nothing to raise it to
    "DEFER": (Deferred,),
    "CONFIG": (Misconfigured,),
    "ITEM_GONE": (Rejected,),
    "VALUE": (Rejected,),
}


def section(number: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    level = "#" * (2 + number.count("."))
    start = next(match.start() for match in re.finditer(rf"\n{level} {re.escape(number)}[ .]", SHEET))
    after = re.search(rf"\n#{{2,{len(level)}}} ", SHEET[start + 1 :])
    return SHEET[start : start + 1 + (after.start() if after else len(SHEET))]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table, headings and rules left out."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) > 1 and not set("".join(cells)) <= set("-: "):
            yield cells


def vector(scheme: str) -> tuple[str, str, str]:
    """(key, text that is signed, result) of a golden vector."""
    [found] = [cells for cells in rows(section("0.4")) if cells[0] == scheme]
    key, text, result = (re.sub(r"\A`|`\Z", "", cell) for cell in found[1:4])
    return key, text, result


def test_a_shops_call_is_signed_as_the_golden_vector_by_both_sides() -> None:
    key, text, result = vector("Shopee v2 shop API")
    parts = re.fullmatch(r"(\d{7})(/api/v2/product/update_stock)(\d{10})(tok_abc)(\d{7})", text)
    assert parts is not None
    partner, path, timestamp, token, shop = parts.groups()
    ours = signing.sign_shop(
        key, partner_id=int(partner), path=path, timestamp=int(timestamp), access_token=token, shop_id=int(shop)
    )
    assert ours == fake_sign(key, partner, path, timestamp, token, shop) == result


def test_a_public_call_is_signed_as_the_golden_vector_by_both_sides() -> None:
    key, text, result = vector("Shopee v2 public API")
    parts = re.fullmatch(r"(\d{7})(/api/v2/[a-z_/]+)(\d{10})", text)
    assert parts is not None
    partner, path, timestamp = parts.groups()
    ours = signing.sign_public(key, partner_id=int(partner), path=path, timestamp=int(timestamp))
    assert ours == fake_sign(key, partner, path, timestamp) == result


def test_blibli_is_signed_as_the_golden_vector_by_both_sides() -> None:
    [cells] = [cells for cells in rows(section("0.4")) if cells[0] == "Blibli (base64)"]
    method, body, date, path = "PUT", b'{"availableStock":5}', "Tue Nov 14 22:13:20 WIB 2023", None
    assert date in cells[2]
    assert body.decode() in cells[2]
    path = re.findall(r"`(/seller/v1/[^`]+)`", cells[2])[-1]
    key, result = cells[1].strip("`"), cells[3].partition(" ")[0].strip("`")
    at = datetime(2023, 11, 14, 15, 13, 20, tzinfo=UTC)
    ours = blibli_signing.signature_headers(key, method=method, path=f"/proxy{path}", body=body, now=at)["Signature"]
    assert ours == fake_blibli.signature(key.encode(), method, body, date, path) == result
    assert len(base64.b64decode(result)) == 32


def documented_errors() -> list[tuple[str, str, tuple[type[Outcome], ...]]]:
    """(code, message, what it may come to) of the error table of update_stock; a row may hold several codes."""
    found = []
    for codes, meaning, classes in (cells for cells in rows(section("1.4")) if len(cells) == 3):
        kinds = tuple(kind for name, of in CLASSES.items() if re.search(rf"\b{name}\b", classes) for kind in of)
        if kinds:
            # Messages stand in quotes, behind their code or among the meanings; else the meaning is all there is.
            said = re.findall(r'"([^"]+)"', meaning) or [meaning]
            for code, message in re.findall(r'`([a-z_.]+)`(?: \(?"([^"]+)")?', codes):
                found += [(code, words, kinds) for words in ([message] if message else said)]
    return found


def test_the_whole_error_table_is_read() -> None:
    assert len(documented_errors()) > 34
    assert {"invalid_acceess_token", "error_wms_shop_block_upate_stock"} <= {code for code, *_ in documented_errors()}


@pytest.mark.parametrize(("code", "message", "kinds"), documented_errors(), ids=lambda value: str(value)[:40])
def test_a_documented_error_means_what_the_table_says(
    code: str, message: str, kinds: tuple[type[Outcome], ...]
) -> None:
    body = json.dumps({"error": code, "message": message.replace("`", ""), "request_id": "r1"}).encode()
    meant = errors.meaning(Answered(200, body.decode(), None, NOW), wire.envelope(body))
    assert isinstance(meant.outcome, kinds)


def json_blocks(text: str) -> list[Any]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


async def test_the_sheets_own_request_gets_an_answer_of_the_sheets_own_shape() -> None:
    request, example = json_blocks(section("1.4"))[:2]
    listed = [{"remote_variant": str(request["item_id"]), "sku": "sku1", "quantity": 0}]
    async with Sandbox.start() as sandbox, aiohttp.ClientSession() as session:
        sandbox.put_store("shpe", "2000002", {**STORE, "listings": listed})
        app = App(session, sandbox.url, sandbox.ledger.clock)
        status, answer = await app.post(UPDATE_STOCK, request)
        written = [(write.remote_variant, write.quantity) for write in sandbox.ledger.writes.after(0)]
    assert status == 200
    assert answer.keys() | {"request_id"} == example.keys()
    assert answer["response"]["success_list"] == example["response"]["success_list"]
    assert written == [(str(request["item_id"]), 7)]


def test_the_catalogue_has_every_code_of_the_sheet() -> None:
    codes = [cells[0].strip("`") for cells in rows(section("13")) if cells[0].startswith("`")]
    assert list(CATALOGUE) == codes
