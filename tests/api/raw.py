"""Requests byte for byte, for what an HTTP client would put right, and what tests of the partner API share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from lumbung.api.signature import sign
from tests.flow.hub import Answer, Hub
from tests.world import PARTNER_ID, PARTNER_SECRET

UPDATE = "/v1/partner/inventory/updatestocks"
HISTORY = "/v1/partner/inventory/history"
UNAUTHENTICATED = "The partner-id and secret headers do not authenticate this request"


@dataclass
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def signed(target: str, body: bytes = b"", *, sign_target: str | None = None, timestamp: str = "") -> dict[str, str]:
    """The headers of a request that the published partner signs."""
    over = target if sign_target is None else sign_target
    headers = {"partner-id": PARTNER_ID, "secret": sign(PARTNER_SECRET, over, body, timestamp)}
    return headers | ({"timestamp": timestamp} if timestamp else {})


async def exchange(
    url: str, method: str, target: str, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b""
) -> RawAnswer:
    """Send one request as it is and read its one answer. Nothing is added but host and connection."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [f"{method} {target} HTTP/1.1".encode(), b"host: test", b"connection: close"]
    lines += [name + b": " + value for name, value in headers]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").strip().split("\r\n")
        found = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        answered = await reader.readexactly(int(found.get("content-length", "0")))
    writer.close()
    return RawAnswer(int(first.split()[1]), found, answered)


def check_error(answer: Answer, status: int) -> list[tuple[str, str]]:
    """That an answer is the contract's envelope; returns its problems as (field, message)."""
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json) == ["message", "reference", "errors"]
    assert answer.json["message"]
    assert str(UUID(answer.json["reference"])) == answer.headers["x-request-id"]
    assert all(list(problem) == ["field", "message"] for problem in answer.json["errors"])
    return [(problem["field"], problem["message"]) for problem in answer.json["errors"]]


async def traces(hub: Hub) -> dict[str, Any]:
    """All that accepting an update leaves in the database."""
    [row] = await hub.world.rows(
        "SELECT (SELECT count(*) FROM stock_update) AS updates, (SELECT count(*) FROM item) AS items,"
        " (SELECT count(*) FROM stock_change) AS changes, (SELECT count(*) FROM variant) AS variants,"
        " (SELECT count(*) FROM idempotency_key) AS keys, (SELECT count(*) FROM listing_state) AS states,"
        " (SELECT md5(coalesce(string_agg(l::text, ',' ORDER BY l::text), '')) FROM stock_level l) AS levels,"
        " (SELECT md5(coalesce(string_agg(c::text, ',' ORDER BY c::text), '')) FROM channel_stock c) AS figures"
    )
    return row
