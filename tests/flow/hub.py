"""The whole hub in one process: sandbox, API and worker over real HTTP and real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from yarl import URL

from lumbung.api.context import ApiContext
from lumbung.api.signature import sign
from lumbung.cli.compose import build_api, built_worker
from lumbung.cli.roles import free_port
from lumbung.clock import SystemClock
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.model import StoreMode
from lumbung.sandbox.server import Sandbox
from lumbung.settings import Settings
from tests.world import PARTNER_ID, PARTNER_SECRET, World

STORE_CODE = "TOQ-1"
DEADLINE_SECONDS = 60.0
QUIESCE_SECONDS = 60.0  # Blibli's
FAST = Settings(
    backoff_first_seconds=0.02,
    backoff_max_seconds=0.1,
    throttle_default_seconds=0.05,
    throttle_seconds_min=0.05,
    breaker_probe_seconds=0.05,
    breaker_probe_seconds_max=0.1,
    poll_seconds=0.2,
    partner_cache_seconds=0.0,
    lease_renew_seconds=0.5,
)


def blibli_credentials(sandbox_url: str, store_code: str = STORE_CODE, **more: object) -> dict[str, object]:
    return {
        "api_client_id": "client",
        "api_client_key": "client-key-of-the-sandbox",
        "api_seller_key": f"seller-key-of-{store_code}",
        "signature_key": f"signature-key-of-{store_code}",
        "username": "merchant@example.test",
        "store_code": store_code,
        "base_url": f"{sandbox_url}/blib/v2",
        "calls_per_second": "500",
        "call_timeout_seconds": "20",
        "quiesce_seconds": f"{QUIESCE_SECONDS:g}",
        **more,
    }


class MovableClock(SystemClock):
    """Real time, with jumps: what a worker remembers by its own clock passes too. The wall clock stays, because
    requests are signed with it, unless the marketplaces' clock is moved with it."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._wall_ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self._wall_ahead

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds

    def advance_wall(self, seconds: float) -> None:
        self._wall_ahead += timedelta(seconds=seconds)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Client:
    """Signs and sends requests as a partner's developer would."""

    url: str
    session: aiohttp.ClientSession
    partner_id: str = PARTNER_ID
    secret: str = PARTNER_SECRET

    async def call(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        sign_target: str | None = None,
        drop: tuple[str, ...] = (),
    ) -> Answer:
        signed = {
            "partner-id": self.partner_id,
            "secret": sign(self.secret, target if sign_target is None else sign_target, body),
            "content-type": "application/json",
            **(headers or {}),
        }
        for name in drop:
            signed.pop(name)
        url = URL(self.url + target, encoded=True)
        async with self.session.request(method, url, data=body or None, headers=signed) as response:
            return Answer(response.status, response.headers, await response.text())

    async def update(self, body: object, **more: Any) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call("POST", "/v1/partner/inventory/updatestocks", raw, **more)

    async def history(self, query: str = "?limit=100&offset=0", **more: Any) -> Answer:
        return await self.call("GET", f"/v1/partner/inventory/history{query}", **more)


@dataclass
class Hub:
    world: World
    client: Client
    sandbox: Sandbox
    settings: Settings
    clock: MovableClock = field(default_factory=MovableClock)
    listed: dict[str, str] = field(default_factory=dict)

    async def store(
        self,
        name: str = "Toko Padi",
        skus: tuple[str, ...] = ("sku1",),
        *,
        code: str = STORE_CODE,
        mode: StoreMode = StoreMode.LIVE,
        warehouses: Mapping[int, str | None] | None = None,
        **credentials: object,
    ) -> int:
        """A store that the sandbox knows too, with one listing for each SKU (its remote id is code-n)."""
        given = blibli_credentials(self.sandbox.url, code, **credentials)
        remote = {sku: f"{code}-{n:05}-00001" for n, sku in enumerate(skus, 1)}
        known = blibli_credentials(self.sandbox.url, code)
        seller = {key: known[key] for key in ("api_client_id", "api_client_key", "api_seller_key", "username")}
        seller["signature_key"] = known["signature_key"]
        seller["listings"] = [{"remote_variant": r, "sku": sku, "quantity": 0} for sku, r in remote.items()]
        self.sandbox.put_store("blib", code, seller)
        store_id = await self.world.store(name, mode=mode, warehouses=warehouses, credentials=given)
        await self.world.variants(*skus)
        await self.world.listings([(sku, name, r) for sku, r in remote.items()])
        self.listed.update(remote)
        return store_id

    async def update(self, sku: str = "sku1", available: int = 1000, **figures: Any) -> str:
        """Send an update over HTTP; returns its transaction code."""
        body = {
            "sku": sku,
            "sync_stock": figures.pop("sync", False),
            "warehouse": figures.pop("warehouse", "default"),
            "available_stock": available,
            "buffer_stock": figures.pop("buffer", 0),
            "channel_stock": [{"code": code, "qty": qty} for code, qty in figures.items()],
        }
        answer = await self.client.update(body)
        assert answer.status == 200, answer.text
        code: str = answer.json["transaction_code"]
        return code

    def shown(self, sku: str = "sku1", code: str = STORE_CODE) -> int:
        """What the marketplace shows."""
        return self.sandbox.ledger.listing("blib", code, self.listed[sku]).quantity

    def written(self, sku: str = "sku1") -> list[int]:
        """Every quantity that the marketplace applied to a listing, in order."""
        return [w.quantity for w in self.sandbox.ledger.writes.after(0) if w.remote_variant == self.listed[sku]]

    async def records(self) -> dict[str, dict[str, Any]]:
        """The whole history over HTTP, by transaction code."""
        answer = await self.client.history("?limit=1000&offset=0")
        assert answer.status == 200, answer.text
        return {record["transaction_code"]: record for record in answer.json["data"]}

    async def ended(self, *codes: str) -> dict[str, dict[str, Any]]:
        """Wait until the history of these transactions has ended; returns the records."""
        records: dict[str, dict[str, Any]] = await until(
            self.records, lambda records: all(records[code]["finished_at"] for code in codes)
        )
        return records

    async def calls(self, n: int) -> None:
        """Wait until n calls to marketplaces have ended."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.sandbox.ledger.wait_for_calls(n)

    async def writes(self, n: int) -> None:
        """Wait until n writes took effect."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.sandbox.ledger.wait_for_writes(n)

    async def waits(self) -> list[str]:
        """What listings wait for."""
        return [row["reason"] for row in await self.world.rows("SELECT reason FROM listing_wait ORDER BY listing_id")]

    async def paused(self, store: str) -> str:
        """Wait until a store is paused; returns the reason."""
        query = "SELECT pause_reason FROM store WHERE name = $1"
        reason: str = await until(lambda: self.world.value(query, store), lambda reason: reason is not None)
        return reason

    async def later(self, seconds: float) -> None:
        """As if so much time had passed for listings that wait, are parked or in doubt; the hub's worker looks
        then."""
        self.clock.advance(seconds)
        await self.world.execute(
            "UPDATE listing_state SET parked_at = parked_at - $1 * interval '1 second',"
            " park_retry_at = park_retry_at - $1 * interval '1 second',"
            " handle_at = handle_at - $1 * interval '1 second',"
            " doubtful_until = doubtful_until - $1 * interval '1 second'",
            seconds,
        )
        await self.world.execute("UPDATE listing_wait SET due_at = due_at - $1 * interval '1 second'", seconds)
        await self.world.execute("SELECT pg_notify('lumbung_due', '')")

    def days_later(self, days: float) -> None:
        """As if so much time had passed for tokens: here and at the marketplaces."""
        self.clock.advance_wall(days * 86400)
        self.sandbox.ledger.clock.ahead_seconds += days * 86400

    async def at_rest(self) -> None:
        """Wait until nothing is due and nothing waits."""

        async def busy() -> int:
            count: int = await self.world.value(
                "SELECT (SELECT count(*) FROM listing_state WHERE state IN ('due', 'waiting'))"
                " + (SELECT count(*) FROM listing_wait WHERE reason <> 'parked')"
            )
            return count

        await until(busy, lambda count: count == 0)


async def until(
    read: Callable[[], Awaitable[Any]], right: Callable[[Any], bool], seconds: float = DEADLINE_SECONDS
) -> Any:
    """Ask again and again, a hundred times a second at most, until the answer is right."""
    never = asyncio.Event()
    async with asyncio.timeout(seconds):
        while not right(seen := await read()):
            with suppress(TimeoutError):
                await asyncio.wait_for(never.wait(), 0.01)
    return seen


@asynccontextmanager
async def running_api(settings: Settings, pool: Pool, keyring: Keyring) -> AsyncIterator[tuple[str, ApiContext]]:
    settings = replace(settings, port=free_port("127.0.0.1"))
    app, context = build_api(settings, pool, keyring)
    server = Server(
        app,
        address="127.0.0.1",
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        backpressure=settings.connections_max,
        log_enabled=False,
    )
    task = asyncio.create_task(server.serve())
    url = f"http://127.0.0.1:{settings.port}"
    await until(lambda: _listens(settings.port), bool)
    try:
        yield url, context
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await task


@asynccontextmanager
async def running_worker(settings: Settings, url: str, keyring: Keyring, **more: Any) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with Pool(url, settings) as pool, built_worker(settings, pool, keyring, **more) as worker:
        task = asyncio.create_task(worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task


@asynccontextmanager
async def running_hub(
    database_url: str, keyring: Keyring, settings: Settings = FAST, *, worker: bool = True, log: Path | None = None
) -> AsyncIterator[Hub]:
    async with (
        Sandbox.start(host="127.0.0.1", port=0, write_log=log) as sandbox,
        Pool(database_url, settings) as pool,
        running_api(settings, pool, keyring) as (url, _),
        aiohttp.ClientSession() as session,
    ):
        world = World(pool, keyring)
        await world.tenant()
        await world.partner()
        hub = Hub(world, Client(url, session), sandbox, settings)
        if not worker:
            yield hub
            return
        async with running_worker(settings, database_url, keyring, clock=hub.clock):
            yield hub


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
