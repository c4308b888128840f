"""A merchant to measure with: stores on the sandbox that all list the same SKUs, and who sends updates of them."""

from __future__ import annotations

import asyncio
import http.client
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle

from lumbung.client import PartnerClient
from tests.measure.control import Control
from tests.measure.hub import Hub
from tests.world import World


@dataclass(frozen=True, slots=True)
class Merchant:
    """`stores`: the codes of its accounts; a SKU's remote variant is `remote_of` it."""

    world: World
    partner_id: str
    secret: str
    stores: tuple[str, ...]
    skus: tuple[str, ...]


def remote_of(store: str, sku: str) -> str:
    return f"{store}-{sku}"


async def open_merchant(hub: Hub, sandbox: Control, number: int, *, stores: int, skus: int) -> Merchant:
    """`stores` live ones, each with a listing of every one of `skus` SKUs."""
    world = World(hub.pool, hub.keyring)
    await world.tenant(f"Toko {number}")
    merchant = Merchant(
        world,
        f"PARTNER{number}",
        secrets.token_urlsafe(24),
        tuple(f"TOP-{number:03}{place:02}" for place in range(1, stores + 1)),
        tuple(f"sku{n}" for n in range(1, skus + 1)),
    )
    await world.partner(merchant.partner_id, merchant.secret)
    await world.variants(*merchant.skus)
    for store in merchant.stores:
        await asyncio.to_thread(sandbox.put_store, store, [remote_of(store, sku) for sku in merchant.skus])
        await world.store(store, credentials=sandbox.credentials(store))
        await world.listings([(sku, store, remote_of(store, sku)) for sku in merchant.skus])
    return merchant


@dataclass(frozen=True, slots=True)
class Sent:
    """An update that the hub has taken. `at`: when it was its turn to be sent, unix seconds."""

    merchant: Merchant
    sku: str
    quantity: int
    at: float


class Sender:
    """Sends updates for its SKUs in turn over one connection, each with one unit more than the one before, so that a
    write shows which updates have arrived. Two senders share no SKU. Blocks: it belongs in a thread of its own."""

    def __init__(self, api_url: str, merchant: Merchant, skus: Sequence[str]):
        self.accepted = 0
        self.refused = 0
        self._merchant = merchant
        self._skus = cycle(skus)
        self._quantity = 0
        self._client = PartnerClient(api_url, merchant.partner_id, merchant.secret)

    def send(self) -> tuple[str, int] | None:
        """The SKU and its quantity; None when the hub has not taken it."""
        sku = next(self._skus)
        self._quantity += 1
        try:
            answer = self._client.update_stocks(_update(sku, self._quantity))
            taken = answer.status == 200
        except (OSError, http.client.HTTPException):
            taken = False
        self.accepted += taken
        self.refused += not taken
        return (sku, self._quantity) if taken else None

    def send_steadily(self, per_second: float, seconds: float) -> list[Sent]:
        """At even times, whatever the answers take: one that is late because the last one was slow counts as late."""
        self._client.close()  # the hub closes a connection that has rested, and that is no refusal
        began, sent = time.time(), []
        for turn in range(int(per_second * seconds)):
            at = began + turn / per_second
            time.sleep(max(0.0, at - time.time()))
            if found := self.send():
                sent.append(Sent(self._merchant, *found, at))
        return sent

    def send_ceaselessly(self, stop: threading.Event) -> None:
        """The next as soon as the last is answered."""
        self._client.close()
        while not stop.is_set():
            if self.send() is None:
                stop.wait(0.1)


def shares(skus: Sequence[str], senders: int) -> Iterable[Sequence[str]]:
    """The SKUs of each sender."""
    return (skus[place::senders] for place in range(senders))


def _update(sku: str, quantity: int) -> dict[str, object]:
    return {
        "sku": sku,
        "sync_stock": True,
        "warehouse": "default",
        "available_stock": quantity,
        "buffer_stock": 0,
        "channel_stock": [],
    }
