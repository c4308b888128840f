from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lumbung.sandbox.server import Sandbox

from . import shopee_seller
from .seller import OTHER_STORE, STORE, Seller
from .shopee_seller import App


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox.start() as sandbox:
        sandbox.put_store("blib", "TOQ-1", STORE)
        sandbox.put_store("blib", "TOQ-2", OTHER_STORE)
        yield sandbox


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        session._retry_connection = False  # or it sends a PUT that was dropped a second time, unasked
        yield session


@pytest.fixture
def seller(sandbox: Sandbox, session: aiohttp.ClientSession) -> Seller:
    return Seller(session, sandbox.url)


@pytest.fixture
def app(sandbox: Sandbox, session: aiohttp.ClientSession) -> App:
    """Two shops of one application are set up."""
    sandbox.put_store("shpe", str(shopee_seller.SHOP), shopee_seller.STORE)
    sandbox.put_store("shpe", str(shopee_seller.OTHER_SHOP), shopee_seller.OTHER_STORE)
    return App(session, sandbox.url, sandbox.ledger.clock)


class Controller:
    """The control API over HTTP: `await control("GET", "/writes")` is (status, JSON)."""

    def __init__(self, session: aiohttp.ClientSession, url: str):
        self._session = session
        self._url = url

    async def __call__(
        self, method: str, path: str, json: object = None, *, body: bytes | None = None
    ) -> tuple[int, Any]:
        sent: dict[str, Any] = {"data": body} if body is not None else {} if json is None else {"json": json}
        async with self._session.request(method, f"{self._url}/_control{path}", **sent) as answer:
            return answer.status, await answer.json()


@pytest.fixture
def control(sandbox: Sandbox, session: aiohttp.ClientSession) -> Controller:
    return Controller(session, sandbox.url)
