"""Wake-ups: what is told, what is too long to tell, and what happens when nobody is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from lumbung.db import wake
from lumbung.db.pool import Pool
from lumbung.db.wake import CHANNEL, PAYLOAD_CHARS_MAX, Listener, Waker
from lumbung.errors import Unavailable
from lumbung.settings import Settings

NOBODY = "postgresql://postgres@127.0.0.1:1/nothing"

Heard = asyncio.Queue[frozenset[int] | None]


@asynccontextmanager
async def listening(pool: Pool) -> AsyncIterator[tuple[Heard, asyncio.Task[None]]]:
    """A listener that is ready: the first thing that it says is to look everywhere."""
    heard: Heard = asyncio.Queue()
    task = asyncio.create_task(Listener(pool, Settings()).listen(heard.put_nowait))
    try:
        assert await heard.get() is None
        yield heard, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def cut(pool: Pool) -> None:
    """End the connection that listens."""
    async with pool.connection() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )


@asynccontextmanager
async def waking(pool: Pool, *, interval_seconds: float) -> AsyncIterator[Waker]:
    waker = Waker(pool, interval_seconds=interval_seconds)
    task = asyncio.create_task(waker.run())
    try:
        yield waker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_wake_up_names_its_stores(pool: Pool) -> None:
    async with listening(pool) as (heard, _):
        await wake.notify(pool, [12, 3])
        assert await heard.get() == frozenset({3, 12})


async def test_too_many_stores_to_name_means_all(pool: Pool) -> None:
    fits = list(range(10**6, 10**6 + PAYLOAD_CHARS_MAX // 8))
    async with listening(pool) as (heard, _):
        await wake.notify(pool, fits)
        await wake.notify(pool, [*fits, *range(2 * 10**6, 2 * 10**6 + 1)])
        await wake.notify(pool, [])
        assert await heard.get() == frozenset(fits)
        assert await heard.get() is None
        assert await heard.get() is None


async def test_wake_ups_are_gathered_while_one_is_on_its_way(pool: Pool) -> None:
    async with listening(pool) as (heard, _), waking(pool, interval_seconds=0.001) as waker:
        waker.wake([])
        waker.wake([1])
        waker.wake([2, 1])
        assert await heard.get() == frozenset({1, 2})
        waker.wake([3])
        assert await heard.get() == frozenset({3})


async def test_a_wake_up_waits_for_the_interval(pool: Pool) -> None:
    async with listening(pool) as (heard, _), waking(pool, interval_seconds=3600) as waker:
        waker.wake([1])
        assert await heard.get() == frozenset({1})
        waker.wake([2])
        await wake.notify(pool, [99])
        assert await heard.get() == frozenset({99})


async def test_a_wake_up_that_is_lost_stops_nothing(pool: Pool) -> None:
    lost = asyncio.Event()

    class Away(Pool):
        def connection(self) -> object:  # type: ignore[override]
            lost.set()
            raise Unavailable("away")

    waker = Waker(Away(NOBODY, Settings()), interval_seconds=0)
    task = asyncio.create_task(waker.run())
    for store in (1, 2):
        waker.wake([store])
        await lost.wait()
        lost.clear()
    assert not task.done()
    task.cancel()


async def test_listening_ends_with_an_error_when_its_connection_is_lost(pool: Pool) -> None:
    async with listening(pool) as (_, task):
        await cut(pool)
        with pytest.raises(Unavailable, match="was lost"):
            await task


async def test_nobody_to_listen_to_is_an_error() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        await Listener(Pool(NOBODY, Settings()), Settings()).listen(lambda _: None)


async def test_who_listens_again_looks_everywhere_because_what_was_told_meanwhile_is_lost(pool: Pool) -> None:
    heard: Heard = asyncio.Queue()
    task = asyncio.create_task(Listener(pool, Settings(poll_seconds=0.001)).run(heard.put_nowait))
    for store in (1, 2):
        assert await heard.get() is None
        await wake.notify(pool, [store])
        assert await heard.get() == frozenset({store})
        await cut(pool)
    assert await heard.get() is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_process_tells_the_others_which_stores_to_look_at(pool: Pool) -> None:
    listener = Listener(pool, Settings())
    async with listening(pool) as (heard, _):
        await listener.tell([])
        await listener.tell(iter([5, 4]))
        assert await heard.get() == frozenset({4, 5})


async def test_a_wake_up_inside_a_transaction_is_heard_after_its_commit_only(pool: Pool) -> None:
    other = await asyncpg.connect(pool.url)
    async with listening(pool) as (heard, _):
        transaction = other.transaction()
        await transaction.start()
        await wake.notify_on(other, "7")
        await wake.notify(pool, [8])
        assert await heard.get() == frozenset({8})
        await transaction.commit()
        assert await heard.get() == frozenset({7})
    await other.close()
    assert CHANNEL == "lumbung_due"
