"""A Shopee that answers what a test tells it to, and a session that talks to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from lumbung.channels.base import Push, Tokens
from lumbung.channels.http import Answer, Exchange
from lumbung.channels.shopee.channel import read_credentials
from lumbung.channels.shopee.session import ShopeeSession
from lumbung.clock import ManualClock

NOW = datetime.fromtimestamp(1_700_000_000, UTC)
APPLICATION = {"partner_id": "1000001", "partner_key": "test_partner_key"}
STORE = {"shop_id": "2000002"}
TOKENS = Tokens(
    access="tok_abc",
    refresh="refresh_abc",
    issued_at=NOW,
    access_expires_at=NOW + timedelta(hours=4),
    refresh_expires_at=NOW + timedelta(days=30),
)


class FakeTransport:
    """Answers every request with the same exchange and keeps the requests."""

    def __init__(self, exchange: Exchange):
        self._exchange = exchange
        self.requests: list[tuple[str, str, Mapping[str, str], bytes | None, float]] = []

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Exchange:
        self.requests.append((method, url, headers, body, timeout_seconds))
        return self._exchange

    @property
    def sent(self) -> object:
        """The body of the only request."""
        ((_, _, _, body, _),) = self.requests
        return None if body is None else json.loads(body)

    @property
    def query(self) -> dict[str, str]:
        """The query of the only request."""
        ((_, url, _, _, _),) = self.requests
        return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


def answer(status: int, body: bytes, retry_after_seconds: float | None = None) -> Answer:
    return Answer(status, body, {}, NOW, 12.5, retry_after_seconds)


def envelope(response: object = None, *, error: str = "", message: str = "") -> bytes:
    return json.dumps(
        {"error": error, "message": message, "warning": "", "request_id": "r1", "response": response}
    ).encode()


def updated(*taken: Mapping[str, object], failed: object = (), error: str = "", message: str = "") -> bytes:
    """An answer to a stock update."""
    return envelope({"success_list": list(taken), "failure_list": failed}, error=error, message=message)


def session(
    exchange: Exchange, *, tokens: Tokens | None = TOKENS, **changes: str
) -> tuple[ShopeeSession, FakeTransport]:
    transport = FakeTransport(exchange)
    store = ShopeeSession(read_credentials({**APPLICATION, **STORE, **changes}), transport, ManualClock(NOW))
    if tokens is not None:
        store.use(tokens)
    return store, transport


def variant(model_id: int, item_id: int = 12346) -> str:
    return json.dumps({"item_id": item_id, "variation_id": model_id})


def push(listing_id: int, model_id: int, quantity: int = 5, **locations: int) -> Push:
    return Push(listing_id, variant(model_id), quantity, locations)
