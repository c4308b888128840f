"""The stub marketplace is understood by the channels as a marketplace that takes everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import msgspec
import pytest

from lumbung.bench.stub import Connection, Market
from lumbung.channels.base import Accepted, Channel, Push, RotatesTokens, Tokens
from lumbung.channels.http import HttpClient
from lumbung.channels.registry import CHANNELS
from lumbung.clock import SystemClock


@asynccontextmanager
async def standing(market: Market) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(market.answer), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _blibli(url: str) -> Mapping[str, str]:
    login = {"api_client_id": "id", "api_client_key": "key", "api_seller_key": "seller", "signature_key": "signature"}
    return {**login, "username": "a@example.test", "store_code": "TOB-1", "base_url": f"{url}/blib/v2"}


def _shopee(url: str) -> Mapping[str, str]:
    return {
        "partner_id": "1",
        "partner_key": "key",
        "base_url": f"{url}/shpe",
        "shop_id": "7",
    }


@pytest.mark.parametrize(
    ("code", "credentials", "remote_variants"),
    [
        ("blib", _blibli, ['{"blibli_sku": "TOB-1-00001-00001"}']),
        ("shpe", _shopee, [f'{{"item_id": 5, "variation_id": {n}}}' for n in range(1, 51)]),
    ],
)
async def test_every_listing_of_a_call_is_taken(
    code: str, credentials: Callable[[str], Mapping[str, str]], remote_variants: list[str]
) -> None:
    market = Market(0.0, receipts=True)
    channel: Channel = CHANNELS[code]
    async with standing(market) as url, HttpClient(SystemClock()) as http:
        session = channel.open(credentials(url), http, SystemClock())
        if isinstance(session, RotatesTokens):
            now = SystemClock().now()
            session.use(Tokens("access", "refresh", now, now + timedelta(hours=4)))
        pushes = [Push(n, remote, 100 + n, {}, None) for n, remote in enumerate(remote_variants)]
        attempt = await session.push(pushes)
    assert [row.outcome for row in attempt.rows] == [Accepted()] * len(pushes)
    assert (market.counts.calls, market.counts.listings) == (1, len(pushes))
    receipts = msgspec.json.decode(market.answer(b"/receipts", b"")[0], type=list[tuple[float, int]])
    assert [quantity for _, quantity in receipts] == [100 + n for n in range(len(pushes))]
    assert msgspec.json.decode(market.answer(b"/receipts", b"")[0]) == []
