"""Sentences of the design that no other test of the whole hub holds."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lumbung.cli import compose
from lumbung.db.embedded import EmbeddedPostgres
from lumbung.db.migrate import migrate
from lumbung.db.partitions import ensure
from lumbung.db.pool import Pool
from lumbung.db.wake import OnWake
from lumbung.keyring import Keyring
from tests.flow.hub import FAST, running_hub, running_worker, until
from tests.flow.shop import running_shop


class Deaf:
    """Nobody hears a wake-up, and nobody is told one."""

    def __init__(self, *given: object) -> None:
        self.told: list[int] = []

    async def run(self, on_wake: OnWake) -> None:
        await asyncio.Event().wait()

    async def tell(self, store_ids: Iterable[int]) -> None:
        self.told += store_ids


async def test_updates_are_delivered_although_no_wake_up_ever_comes(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "Listener", Deaf)
    async with running_hub(database_url, keyring) as hub:
        await hub.store()
        for quantity in (5, 6, 7):
            await hub.ended(await hub.update(blib=quantity))
        assert hub.written() == [5, 6, 7]


async def test_the_hub_works_without_prepared_statements_that_outlive_a_transaction(
    database_url: str, keyring: Keyring
) -> None:
    settings = replace(FAST, database_statement_cache_size=0)
    async with running_hub(database_url, keyring, settings) as hub:
        await hub.store()
        await hub.ended(await hub.update(blib=5))
        assert hub.written() == [5]


async def test_who_takes_over_sends_at_once_and_writes_nothing_of_a_listing_before(
    database_url: str, keyring: Keyring
) -> None:
    async with running_hub(database_url, keyring, worker=False) as hub:
        store_id = await hub.store()
        await hub.world.execute(
            "INSERT INTO worker (name, started_at, renewed_at, expires_at, lifetime_seconds)"
            " VALUES ('lost', now(), now(), now() - interval '1 ms', 3)"
        )
        await hub.world.execute(
            "UPDATE store_lease SET epoch = 7, worker_id = (SELECT id FROM worker),"
            " lifetime_seconds = 0.001 WHERE store_id = $1",
            store_id,
        )
        code = await hub.update(blib=20)
        row = "SELECT xmin::text, ctid::text FROM listing_state"
        before = await hub.world.rows(row)
        async with hub.sandbox.gate("blib") as gate, running_worker(FAST, database_url, keyring):
            await gate.entered()
            assert await hub.world.value("SELECT epoch FROM store_lease") == 8
            assert await hub.world.value("SELECT doubt_until > now() FROM store_lease") is True
            assert (await hub.world.rows(row), await hub.waits()) == (before, [])
            gate.open()
            await hub.ended(code)
            assert await hub.waits() == ["confirmation"]


async def test_a_marketplace_that_is_away_is_logged_once_and_once_that_it_is_back(
    database_url: str, keyring: Keyring
) -> None:
    async with running_shop(database_url, keyring, skus=("a",)) as shop:
        shop.account.fail_next(503, {"error": "maintenance"}, times=FAST.breaker_failures + 7)
        query = "SELECT trouble FROM store_lease WHERE store_id = $1"
        with capture_logs() as logs:
            code = await shop.update("a", 20)
            await until(lambda: shop.hub.world.value(query, shop.store.id), lambda trouble: trouble is not None)
            await shop.hub.ended(code)
            await until(lambda: shop.hub.world.value(query, shop.store.id), lambda trouble: trouble is None)
        told = [entry["event"] for entry in logs if str(entry["event"]).startswith("the marketplace can")]
        assert told == ["the marketplace cannot be reached", "the marketplace can be reached again"]
        assert len(shop.account.called("/push")) == FAST.breaker_failures + 7 + 1


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="lumbung-design-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


async def test_what_was_acknowledged_is_in_the_history_after_the_database_was_killed(
    place: Path, keyring: Keyring
) -> None:
    codes = []
    with EmbeddedPostgres.start(place) as server:
        server.ensure_database("lumbung")
        url = server.url("lumbung")
        async with Pool(url, FAST) as pool:
            await migrate(pool, timeout_seconds=60)
            await ensure(pool, ahead_days=1)
        async with running_hub(url, keyring, worker=False) as hub:
            await hub.store()
            codes = [await hub.update(blib=n) for n in range(20)]
            os.kill(int((place / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    with EmbeddedPostgres.start(place) as server:
        async with Pool(server.url("lumbung"), FAST) as pool, pool.connection() as connection:
            rows = await connection.fetch("SELECT transaction_code::text AS code FROM stock_update ORDER BY id")
            assert [row["code"] for row in rows] == codes
            assert await connection.fetchval("SELECT quantity_due FROM listing_state") == 19
