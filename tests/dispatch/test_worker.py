"""A worker that crashes or stops ends, whatever it waits for; what it does to stores counts under its lease only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from lumbung.channels.registry import CHANNELS
from lumbung.cli.compose import built_worker
from lumbung.db import stores
from lumbung.db.delivery import Work
from lumbung.db.lease import ChannelTimes, LeaseRow
from lumbung.db.pool import Pool
from lumbung.db.wake import Hints, Listener
from lumbung.dispatch import worker as worker_module
from lumbung.dispatch.breaker import Breaker
from lumbung.dispatch.judge import Judge
from lumbung.dispatch.opening import Opener
from lumbung.dispatch.postgres import PostgresStorage
from lumbung.dispatch.report import Lease
from lumbung.dispatch.sender import StoreSender
from lumbung.dispatch.worker import Worker
from lumbung.errors import ConfigurationError, Unavailable
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.db.delivering import CHANNELS as TIMES
from tests.db.delivering import blocked, leased
from tests.flow.hub import DEADLINE_SECONDS, FAST
from tests.flow.market_channel import MarketChannel
from tests.flow.shop import Shop, open_store, running_shop
from tests.world import World

HASTY = replace(FAST, lease_renew_seconds=0.02, poll_seconds=0.02, stop_seconds=0.05)


class Crash(Exception):
    """What nobody expects."""


async def crash(*_: Any) -> Any:
    raise Crash


async def away(*_: Any) -> Any:
    raise Unavailable("away")


@asynccontextmanager
async def worker_of(
    shop: Shop, keyring: Keyring, settings: Settings
) -> AsyncIterator[tuple[asyncio.Task[None], asyncio.Event]]:
    """A worker's run and the event that stops it."""
    stop = asyncio.Event()
    channels = {**CHANNELS, "shpe": MarketChannel()}
    url = shop.hub.world.pool.url
    async with Pool(url, settings) as pool, built_worker(settings, pool, keyring, channels=channels) as worker:
        task = asyncio.create_task(worker.run(stop))
        try:
            yield task, stop
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
def handing_over(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the first store is being handed over, which `above_its_share` brings about."""
    begun = asyncio.Event()
    stop = StoreSender.stop

    async def noted(self: StoreSender) -> None:
        begun.set()
        await stop(self)

    monkeypatch.setattr(StoreSender, "stop", noted)
    return begun


def above_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every store is one too many for its worker."""
    monkeypatch.setattr(worker_module, "excess", lambda **_: 1)


async def test_a_worker_that_crashes_during_a_hand_over_ends_and_its_lease_expires_with_doubt(
    database_url: str, keyring: Keyring, handing_over: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_shop(database_url, keyring, HASTY, skus=("a",), worker=False) as shop:
        async with worker_of(shop, keyring, HASTY) as (task, _), shop.account.gate("/push") as gate:
            await shop.update("a", 5)
            await gate.entered()
            above_its_share(monkeypatch)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await handing_over.wait()
                monkeypatch.setattr(PostgresStorage, "look", crash)
                with pytest.raises(Crash):
                    await asyncio.shield(task)
        held = "SELECT w.stopping FROM store_lease l JOIN worker w ON w.id = l.worker_id"
        assert await shop.hub.world.rows(held) == [{"stopping": False}]


async def test_a_worker_that_crashes_while_it_stops_ends_before_the_stop_is_over(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(HASTY, stop_seconds=1e6)
    async with (
        running_shop(database_url, keyring, settings, skus=("a",), worker=False) as shop,
        worker_of(shop, keyring, settings) as (task, stop),
        shop.account.gate("/push") as gate,
    ):
        await shop.update("a", 5)
        await gate.entered()
        stop.set()
        monkeypatch.setattr(PostgresStorage, "look", crash)
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(Crash):
                await asyncio.shield(task)


async def test_a_stop_during_a_hand_over_whose_results_cannot_be_recorded_ends_in_its_time(
    database_url: str, keyring: Keyring, handing_over: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresStorage, "record", away)
    async with (
        running_shop(database_url, keyring, HASTY, skus=("a",), worker=False) as shop,
        worker_of(shop, keyring, HASTY) as (task, stop),
    ):
        await shop.update("a", 5)
        await shop.account.wait_for_calls(1)
        above_its_share(monkeypatch)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await handing_over.wait()
            stop.set()
            await asyncio.shield(task)


async def test_a_worker_that_crashes_waits_for_a_token_being_traded_but_not_for_ever(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresStorage, "swap_tokens", away)
    async with (
        running_shop(database_url, keyring, HASTY, skus=("a",), tokens=True, worker=False) as shop,
        worker_of(shop, keyring, HASTY) as (task, _),
    ):
        shop.account.expire_access()
        await shop.update("a", 5)
        await shop.account.wait_for_calls(1, "/token")
        monkeypatch.setattr(PostgresStorage, "look", crash)
        with capture_logs() as logs:
            async with asyncio.timeout(DEADLINE_SECONDS):
                with pytest.raises(Crash):
                    await asyncio.shield(task)
        assert [entry["tasks"] for entry in logs if "token pairs could not" in entry["event"]] == [1]


# --- pausing ---


def lease_of(row: LeaseRow) -> Lease:
    return Lease(row.store_id, row.tenant_id, row.epoch, row.channel, row.store_name)


async def held_store(world: World) -> tuple[PostgresStorage, Lease]:
    await world.tenant()
    await world.store()
    return PostgresStorage(world.pool, world.pool, FAST, TIMES), lease_of(await leased(world))


async def mode(world: World) -> tuple[str, str | None]:
    [row] = await world.rows("SELECT mode, pause_reason FROM store")
    return row["mode"], row["pause_reason"]


async def test_a_stop_between_a_claim_and_its_sender_gives_the_store_back_without_a_doubt(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = asyncio.Event()
    claim = PostgresStorage.claim

    async def claiming(self: PostgresStorage, *arguments: Any) -> Any:
        rows = await claim(self, *arguments)
        if rows:
            claimed.set()
            await asyncio.Event().wait()  # the stop comes here
        return rows

    monkeypatch.setattr(PostgresStorage, "claim", claiming)
    async with running_shop(database_url, keyring, HASTY, skus=("a",), worker=False) as shop:
        async with worker_of(shop, keyring, HASTY) as (task, stop), asyncio.timeout(DEADLINE_SECONDS):
            await shop.update("a", 5)
            await claimed.wait()
            held = "SELECT count(*) AS held FROM store_lease WHERE worker_id IS NOT NULL"
            assert await shop.hub.world.rows(held) == [{"held": 1}]
            stop.set()
            await task
        assert await shop.hub.world.rows(held) == [{"held": 0}]
        assert await shop.hub.world.rows("SELECT doubt_until FROM store_lease") == [{"doubt_until": None}]
        assert await shop.hub.world.rows("SELECT stopping FROM worker") == [{"stopping": True}]


async def test_who_holds_a_store_can_pause_it_and_who_has_lost_it_cannot(world: World) -> None:
    storage, held = await held_store(world)
    assert not await storage.pause(replace(held, epoch=held.epoch - 1), "The token is dead")
    assert await mode(world) == ("live", None)
    assert await storage.pause(held, "The token is dead")
    assert await mode(world) == ("paused", "The token is dead")
    assert await world.value("SELECT mode_before_pause FROM store") == "live"


async def test_a_store_that_an_operator_is_mending_at_this_moment_is_not_paused_for_what_was_wrong(
    world: World,
) -> None:
    storage, held = await held_store(world)
    async with world.pool.transaction() as operator:
        await stores.set_credentials(operator, tenant_id=held.tenant_id, store_id=held.store_id, credentials=b"new")
        pausing = asyncio.create_task(storage.pause(held, "The credentials are wrong"))
        await blocked(world)
        await stores.revoke_lease(operator, store_id=held.store_id, quiesce_seconds=60.0)
    assert not await pausing
    assert await mode(world) == ("live", None)


async def test_a_store_that_was_mended_while_it_was_being_opened_is_opened_again_and_not_paused(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has read the old credentials; before it finds out that they are wrong it has lost the lease."""
    pause, open_store = PostgresStorage.pause, Opener.open
    tried: list[str] = []

    async def mended_before(self: PostgresStorage, held: Lease, reason: str) -> bool:
        async with shop.hub.world.pool.transaction() as operator:
            await stores.revoke_lease(operator, store_id=held.store_id, quiesce_seconds=0.0)
        return await pause(self, held, reason)

    def wrong_at_first(self: Opener, *arguments: Any) -> StoreSender:
        if not tried:
            tried.append("wrong")
            raise ConfigurationError("The credentials are wrong")
        return open_store(self, *arguments)

    monkeypatch.setattr(PostgresStorage, "pause", mended_before)
    monkeypatch.setattr(Opener, "open", wrong_at_first)
    async with running_shop(database_url, keyring, HASTY, skus=("a",), worker=False) as shop:
        async with worker_of(shop, keyring, HASTY):
            await shop.hub.ended(await shop.update("a", 5))
        assert (shop.account.quantities("a"), await mode(shop.hub.world)) == ([5], ("live", None))


async def test_a_store_that_is_still_being_begun_is_not_given_back(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, renew = PostgresStorage.note_quiesce, PostgresStorage.renew
    renewed: asyncio.Queue[None] = asyncio.Queue()
    begun: list[int] = []

    async def counted(self: PostgresStorage, worker_id: int) -> Any:
        result = await renew(self, worker_id)
        renewed.put_nowait(None)
        return result

    async def slow(self: PostgresStorage, held: Lease, seconds: float) -> None:
        begun.append(held.store_id)
        if len(begun) == 1:  # the other store is claimed already
            while not renewed.empty():
                renewed.get_nowait()
            for _ in range(4):
                await renewed.get()
        await note(self, held, seconds)

    monkeypatch.setattr(PostgresStorage, "renew", counted)
    monkeypatch.setattr(PostgresStorage, "note_quiesce", slow)
    async with running_shop(database_url, keyring, HASTY, skus=("a",), worker=False) as shop:
        account, second = await open_store(shop.hub, shop.market, ("b",), "Toko Dua")
        await shop.update("a", 5)
        code = await shop.update("b", 6)
        async with account.gate("/push") as gate, worker_of(shop, keyring, HASTY):
            await gate.entered()
            held = "SELECT worker_id IS NOT NULL AS held, epoch FROM store_lease WHERE store_id = $1"
            assert await shop.hub.world.rows(held, second.id) == [{"held": True, "epoch": 1}]
            gate.open()
            await shop.hub.ended(code)


async def test_a_probe_that_a_bug_leaves_undecided_is_followed_by_another(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, may_start = Judge.judge, Breaker.may_start
    probes = 0

    def counted(self: Breaker, now: float) -> bool:
        nonlocal probes
        may = may_start(self, now)
        probes += may and self.is_open
        return may

    def bug(self: Judge, *args: Any) -> Any:
        if probes == 1:
            raise TypeError("a bug")
        return judge(self, *args)

    monkeypatch.setattr(Breaker, "may_start", counted)
    monkeypatch.setattr(Judge, "judge", bug)
    settings = replace(FAST, breaker_failures=1)
    async with running_shop(database_url, keyring, settings, skus=("a",), worker=False) as shop:
        shop.account.fail_next(503, {"error": "maintenance"})
        async with worker_of(shop, keyring, settings):
            await shop.hub.ended(await shop.update("a", 5))
    assert probes >= 2
    assert shop.account.shown["a"] == 5


async def test_a_renewal_that_is_answered_late_leaves_a_store_alone_that_was_opened_anew_meanwhile(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer tells of an epoch between that of the sender that was there and that of the one that is there now."""
    note, renew = PostgresStorage.note_quiesce, PostgresStorage.renew
    opened: asyncio.Queue[int] = asyncio.Queue()
    change, answered, heeded = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def noted(self: PostgresStorage, held: Lease, seconds: float) -> None:
        await note(self, held, seconds)
        opened.put_nowait(held.epoch)

    async def late(self: PostgresStorage, worker_id: int) -> Any:
        answer = await renew(self, worker_id)
        if answered.is_set():
            heeded.set()
        elif answer is not None and change.is_set():
            async with shop.hub.world.pool.transaction() as operator:
                await stores.revoke_lease(operator, store_id=shop.store.id, quiesce_seconds=0.0)
            assert await opened.get() == 3
            answered.set()
            return replace(answer, held={shop.store.id: 2})
        return answer

    monkeypatch.setattr(PostgresStorage, "note_quiesce", noted)
    monkeypatch.setattr(PostgresStorage, "renew", late)
    async with running_shop(database_url, keyring, HASTY, skus=("a",), worker=False) as shop:
        code = await shop.update("a", 5)
        with capture_logs() as logs:
            async with worker_of(shop, keyring, HASTY), shop.account.gate("/push") as gate:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    assert await opened.get() == 1
                    await gate.entered()
                    change.set()
                    await heeded.wait()
                gate.open()
                await shop.hub.ended(code)
        assert [entry["epoch"] for entry in logs if entry["event"].startswith("a store is opened anew")] == [1]
        assert await shop.hub.world.value("SELECT epoch FROM store_lease") == 3


# --- taking over ---

SELDOM = replace(FAST, poll_seconds=300.0, lease_seconds=900.0, lease_renew_seconds=300.0)
RESTING = replace(SELDOM, scan_rest=1e9, scan_rest_seconds_max=300.0, look_rest_seconds_max=300.0)


async def held_by_another(shop: Shop, lifetime_seconds: float) -> tuple[PostgresStorage, int]:
    """A worker of another process holds the shop's store and has just renewed its lease, which lives for so long."""
    storage = PostgresStorage(shop.hub.world.pool, shop.hub.world.pool, SELDOM, {"shpe": ChannelTimes(0.0, 900.0)})
    other = await storage.register("other", 900.0)
    assert await storage.claim(other, [shop.store.id], 1)
    await shop.hub.world.execute("UPDATE store_lease SET lifetime_seconds = $1", lifetime_seconds)
    return storage, other


def before_the_first_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[Any]]) -> None:
    look, looked = PostgresStorage.look, asyncio.Event()

    async def looking(self: PostgresStorage, working: Iterable[int]) -> list[Work]:
        if not looked.is_set():
            await act()
            looked.set()
        return await look(self, working)

    monkeypatch.setattr(PostgresStorage, "look", looking)


def after_the_first_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[Any]]) -> None:
    """Its caller hears what it found before that."""
    look, looked = PostgresStorage.look, asyncio.Event()

    async def looking(self: PostgresStorage, working: Iterable[int]) -> list[Work]:
        found = await look(self, working)
        if not looked.is_set():
            looked.set()
            await act()
        return found

    monkeypatch.setattr(PostgresStorage, "look", looking)


def a_look_that_all_wake_ups_follow(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set at the end of the first look after the worker has begun to listen."""
    wake, count, ended = Worker._wake, Worker._count, asyncio.Event()
    listens = False

    def woken(self: Worker, hints: Hints | None) -> None:
        nonlocal listens
        listens = listens or hints is None
        wake(self, hints)

    def counted(self: Worker) -> None:
        count(self)
        if listens and not self._look.is_set():
            ended.set()

    monkeypatch.setattr(Worker, "_wake", woken)
    monkeypatch.setattr(Worker, "_count", counted)
    return ended


async def test_a_store_is_taken_over_when_its_lease_ends_and_not_at_the_next_poll(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_shop(database_url, keyring, SELDOM, skus=("a",), worker=False) as shop:
        storage, other = await held_by_another(shop, 0.3)

        before_the_first_look(monkeypatch, lambda: storage.renew(other))
        code = await shop.update("a", 5)
        async with worker_of(shop, keyring, RESTING):
            await shop.hub.ended(code)
        assert shop.account.quantities("a")[0] == 5


async def test_a_store_that_was_anothers_at_the_last_look_is_served_as_soon_as_it_is_handed_over(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_shop(database_url, keyring, SELDOM, skus=("a",), worker=False) as shop:
        storage, other = await held_by_another(shop, 900.0)
        looked = a_look_that_all_wake_ups_follow(monkeypatch)
        code = await shop.update("a", 5)
        async with worker_of(shop, keyring, SELDOM), asyncio.timeout(DEADLINE_SECONDS):
            await looked.wait()
            await storage.give_back(other, [shop.store.id])
            await Listener(shop.hub.world.pool, SELDOM).tell([shop.store.id])
            await shop.hub.ended(code)
        assert shop.account.quantities("a") == [5]


async def test_one_look_that_took_long_is_not_rested_from(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first one on a connection, which is planned. What a held snapshot costs, every look costs."""
    async with running_shop(database_url, keyring, RESTING, skus=("a",), worker=False) as shop:
        storage, other = await held_by_another(shop, 900.0)
        code = await shop.update("a", 5)

        async def handed_over() -> None:
            await storage.give_back(other, [shop.store.id])
            await Listener(shop.hub.world.pool, SELDOM).tell([shop.store.id])

        after_the_first_look(monkeypatch, handed_over)
        async with worker_of(shop, keyring, RESTING):
            await shop.hub.ended(code)
        assert shop.account.quantities("a") == [5]


async def test_a_renewal_between_a_look_and_its_claim_does_not_make_the_stores_wait_for_the_next_poll(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def renewed(self: Worker, ready: Iterable[int]) -> None:
        self._give_back_excess()

    monkeypatch.setattr(Worker, "_release_waits", renewed)
    async with running_shop(database_url, keyring, SELDOM, skus=("a",), worker=False) as shop:
        code = await shop.update("a", 5)
        async with worker_of(shop, keyring, SELDOM):
            await shop.hub.ended(code)
        assert shop.account.quantities("a") == [5]
