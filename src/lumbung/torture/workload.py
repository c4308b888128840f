"""Merchants at work: signed updates over several API processes, each key in order, each until it is acknowledged.

A writer is a thread with keys of its own (tenant, SKU, warehouse). What is not answered is sent again with the same
Idempotency-Key, to the next API process, for as long as it takes: so the newest number of each key is certain.
Some acknowledged ones are sent again: they must get the same code and change nothing.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lumbung.client import Answer, PartnerClient
from lumbung.torture.journal import Acknowledged, Journal, Key
from lumbung.torture.quantities import quantity_of
from lumbung.torture.world import WAREHOUSES, TenantPlan, World, shape_of

REQUEST_SECONDS = 4.0
RETRY_SECONDS = 0.1
HOT_SHARE = 0.5  # of all updates go to the first key of each writer
BURST_SHARE = 0.02
BURST_UPDATES = 30
AGAIN_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class Pace:
    """`updates_per_second` of all writers together; 0: as fast as they are answered."""

    writers: int
    updates_per_second: float


class Workload:
    """Runs from `start` to `finish`. Threads, because the partner's client is a plain blocking one."""

    def __init__(self, world: World, api_urls: Sequence[str], journal: Journal, pace: Pace, seed: int):
        self._stop = threading.Event()
        self._give_up = threading.Event()
        pieces = _dealt(world, pace.writers)
        each = pace.updates_per_second / max(1, len(pieces))
        self._writers = [
            _Writer(keys, api_urls, journal, each, random.Random(f"{seed} {n}"), self._stop, self._give_up)  # noqa: S311
            for n, keys in enumerate(pieces)
        ]
        self._threads = [threading.Thread(target=writer.run, daemon=True) for writer in self._writers]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self, seconds: float) -> bool:
        """Send nothing new; whether all that was sent is acknowledged within so long. Blocks."""
        self._stop.set()
        ends = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        done = not any(thread.is_alive() for thread in self._threads)
        self._give_up.set()
        for thread in self._threads:
            thread.join(REQUEST_SECONDS + 1)
        return done


def _dealt(world: World, writers: int) -> list[list[tuple[TenantPlan, Key]]]:
    """Two warehouses of a SKU are with different writers: they are updated at the same moment."""
    pieces: list[list[tuple[TenantPlan, Key]]] = [[] for _ in range(writers)]
    for place, warehouse in enumerate(WAREHOUSES):
        keys = [(tenant, (tenant.name, sku, warehouse)) for tenant in world.tenants for sku in tenant.skus]
        for n, one in enumerate(keys):
            pieces[(n + place) % writers].append(one)
    return [piece for piece in pieces if piece]


class _Writer:
    def __init__(
        self,
        keys: Sequence[tuple[TenantPlan, Key]],
        api_urls: Sequence[str],
        journal: Journal,
        updates_per_second: float,
        dice: random.Random,
        stop: threading.Event,
        give_up: threading.Event,
    ):
        self._keys = list(keys)
        self._journal = journal
        self._interval = 1 / updates_per_second if updates_per_second else 0.0
        self._dice = dice
        self._stop = stop
        self._give_up = give_up
        self._sent: dict[Key, int] = {}
        tenants = {tenant.partner_id: tenant for tenant, _ in keys}
        self._clients = {
            partner_id: [
                PartnerClient(url, partner_id, tenant.secret, timeout_seconds=REQUEST_SECONDS) for url in api_urls
            ]
            for partner_id, tenant in tenants.items()
        }
        self._turn = dice.randrange(len(api_urls))

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - an answer that is none must be told, whatever it is
            self._journal.refused.append(f"an answer that cannot be read: {error!r}")
        finally:
            for clients in self._clients.values():
                for client in clients:
                    client.close()

    def _work(self) -> None:
        next_at = time.monotonic()
        while not self._stop.is_set():
            tenant, key = self._keys[0] if self._dice.random() < HOT_SHARE else self._dice.choice(self._keys)
            for _ in range(BURST_UPDATES if self._dice.random() < BURST_SHARE else 1):
                self._update(tenant, key)
                next_at += self._interval
            next_at = max(next_at, time.monotonic() - 1)  # what an outage held up is not made up for
            self._stop.wait(max(0.0, next_at - time.monotonic()))

    def _update(self, tenant: TenantPlan, key: Key) -> None:
        n = self._sent.get(key, 0) + 1
        if self._stop.is_set():
            return
        self._sent[key] = n
        _, sku, warehouse = key
        body: dict[str, object] = {
            "sku": sku,
            "sync_stock": True,
            "warehouse": warehouse,
            "available_stock": quantity_of(n, shape_of(sku), WAREHOUSES.index(warehouse)),
            "buffer_stock": 0,
            "channel_stock": [],
        }
        idempotency_key = f"{sku}-{warehouse}-{n}"
        sent_at, tries = time.time(), 0
        while (code := self._try(tenant, body, idempotency_key)) is None:
            tries += 1
            if self._give_up.wait(RETRY_SECONDS):
                return
        acknowledged_at = time.time()
        again = self._try(tenant, body, idempotency_key) if self._dice.random() < AGAIN_SHARE else None
        self._journal.acknowledged.append(Acknowledged(key, n, code, sent_at, acknowledged_at, tries + 1, again))

    def _try(self, tenant: TenantPlan, body: dict[str, object], idempotency_key: str) -> str | None:
        """The code; None when there was no answer, or one that asks to send again."""
        clients = self._clients[tenant.partner_id]
        client = clients[self._turn % len(clients)]
        try:
            answer = client.update_stocks(body, idempotency_key=idempotency_key)
        except (OSError, http.client.HTTPException):
            self._turn += 1
            client.close()
            return None
        if answer.status == 200:
            return str(answer.json["transaction_code"])
        self._turn += 1
        self._refused(answer, body)
        return None

    def _refused(self, answer: Answer, body: dict[str, object]) -> None:
        """Only 429 and 503 may come of a good update."""
        if answer.status not in {429, 503}:
            self._journal.refused.append(f"{answer.status} {answer.body[:200]!r} to {body}")
