"""A sandbox that commands can call while they run: in a thread of its own, with an event loop of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

from lumbung.sandbox.server import Sandbox

PARTNER_ID = 1000001
PARTNER_KEY = "partner-key-of-the-sandbox"
SHOP_ID = "2000002"


@dataclass(frozen=True, slots=True)
class Marketplaces:
    url: str

    def control(self, method: str, path: str, sent: object = None) -> Any:
        body = None if sent is None else json.dumps(sent).encode()
        with urlopen(Request(f"{self.url}/_control{path}", body, method=method), timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    def add_shop(self, shop_id: str = SHOP_ID, **more: object) -> None:
        """A Shopee shop of one item."""
        listings = [{"remote_variant": "12346/55", "sku": "sku1", "quantity": 0}]
        shop = {"partner_id": PARTNER_ID, "partner_key": PARTNER_KEY, "listings": listings, **more}
        self.control("PUT", f"/stores/shpe/{shop_id}", shop)

    def paths(self) -> list[str]:
        """Of the calls so far."""
        return [call["path"] for call in self.control("GET", "/calls?after=0")]


@contextmanager
def marketplaces() -> Iterator[Marketplaces]:
    ready: list[Sandbox] = []
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with Sandbox.start() as sandbox:
            ready.append(sandbox)
            started.set()
            await stop.wait()

    def serve() -> None:
        try:
            loop.run_until_complete(run())
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        started.wait()
        [sandbox] = ready
        yield Marketplaces(sandbox.url)
    finally:
        if ready:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
