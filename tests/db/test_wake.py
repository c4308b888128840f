"""Wake-ups: what is told, what is too long to tell, and what happens when nobody is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.db import wake
from lumbung.db.pool import Pool
from lumbung.db.wake import (
    CHANNEL,
    HINTS_MAX,
    PAYLOAD_CHARS_MAX,
    Gathered,
    Hints,
    Listener,
    Waker,
    payload_of,
    read_payload,
)
from lumbung.errors import Unavailable
from lumbung.settings import Settings

NOBODY = "postgresql://postgres@127.0.0.1:1/nothing"

Heard = asyncio.Queue[Hints | None]


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
        assert await heard.get() == {3: {}, 12: {}}


async def test_too_many_stores_to_name_means_all(pool: Pool) -> None:
    fits = list(range(10**6, 10**6 + PAYLOAD_CHARS_MAX // 8))
    async with listening(pool) as (heard, _):
        await wake.notify(pool, fits)
        await wake.notify(pool, [*fits, *range(2 * 10**6, 2 * 10**6 + 1)])
        await wake.notify(pool, [])
        assert await heard.get() == {store: {} for store in fits}
        assert await heard.get() is None
        assert await heard.get() is None


async def test_wake_ups_are_gathered_while_one_is_on_its_way(pool: Pool) -> None:
    async with listening(pool) as (heard, _), waking(pool, interval_seconds=0.001) as waker:
        waker.wake({})
        waker.wake({1: {11: 1}})
        waker.wake({2: {21: 3}, 1: {12: 2}})
        waker.wake({1: {11: 3}})
        assert await heard.get() == {1: {11: 3, 12: 2}, 2: {21: 3}}
        waker.wake({3: {31: 1}})
        assert await heard.get() == {3: {31: 1}}


async def test_a_wake_up_waits_for_the_interval(pool: Pool) -> None:
    async with listening(pool) as (heard, _), waking(pool, interval_seconds=3600) as waker:
        waker.wake({1: {}})
        assert await heard.get() == {1: {}}
        waker.wake({2: {}})
        await wake.notify(pool, [99])
        assert await heard.get() == {99: {}}


async def test_a_wake_up_that_is_lost_stops_nothing(pool: Pool) -> None:
    lost = asyncio.Event()

    class Away(Pool):
        def connection(self) -> object:  # type: ignore[override]
            lost.set()
            raise Unavailable("away")

    waker = Waker(Away(NOBODY, Settings()), interval_seconds=0)
    task = asyncio.create_task(waker.run())
    for store in (1, 2):
        waker.wake({store: {}})
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
        assert await heard.get() == {store: {}}
        await cut(pool)
    assert await heard.get() is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_process_tells_the_others_which_stores_to_look_at(pool: Pool) -> None:
    listener = Listener(pool, Settings())
    async with listening(pool) as (heard, _):
        await listener.tell([])
        await listener.tell(iter([5, 4]))
        assert await heard.get() == {4: {}, 5: {}}


async def test_a_wake_up_inside_a_transaction_is_heard_after_its_commit_only(pool: Pool) -> None:
    other = await asyncpg.connect(pool.url)
    async with listening(pool) as (heard, _):
        transaction = other.transaction()
        await transaction.start()
        await wake.notify_on(other, "7")
        await wake.notify(pool, [8])
        assert await heard.get() == {8: {}}
        await transaction.commit()
        assert await heard.get() == {7: {}}
    await other.close()
    assert CHANNEL == "lumbung_due"


def test_a_payload_says_what_is_due_in_which_lane() -> None:
    hints = {12: {100: 1, 104: 3}, 17: {}}
    assert payload_of(hints) == "12,-1001,-1043,17"
    assert read_payload("12,-1001,-1043,17") == hints
    assert read_payload("") is None


def test_a_worker_that_knows_stores_only_reads_the_stores_in_a_payload_and_no_other() -> None:
    read = frozenset(map(int, payload_of({12: {100: 1}, 17: {}}).split(",")))
    assert {number for number in read if number > 0} == {12, 17}


def test_a_payload_of_a_process_that_knows_stores_only_says_look_at_them() -> None:
    assert read_payload("3,12") == {3: {}, 12: {}}


@given(hints=st.dictionaries(st.integers(1, 2**63), st.dictionaries(st.integers(1, 2**63), st.integers(1, 6))))
def test_what_is_read_is_what_was_hinted_or_less_exact(hints: dict[int, dict[int, int]]) -> None:
    assert read_payload(payload_of(hints)) in (hints or None, {store: {} for store in hints})


def test_listings_that_do_not_fit_are_left_out_and_their_stores_named() -> None:
    fits = {1: {10**9 + n: 1 for n in range(538)}}
    assert len(payload_of(fits)) == 1 + 13 * 538 == PAYLOAD_CHARS_MAX - 5
    assert read_payload(payload_of(fits)) == fits
    assert payload_of({1: {10**9 + n: 1 for n in range(539)}, 2: {7: 1}}) == "1,2"


def test_a_store_to_look_at_stays_one_whatever_is_hinted_of_it() -> None:
    gathered = Gathered()
    gathered.add({1: {}, 2: {21: 1}})
    gathered.add({1: {11: 1}, 2: {}})
    assert gathered.hints == {1: {}, 2: {}}


def test_of_more_listings_than_ever_fit_only_the_stores_are_kept() -> None:
    gathered = Gathered()
    gathered.add({1: dict.fromkeys(range(1, HINTS_MAX + 1), 1)})
    assert len(gathered.hints[1]) == HINTS_MAX
    gathered.add({1: {1: 2}, 2: {5: 1}})
    assert gathered.hints == {1: {}, 2: {}}
    gathered.add({1: {1: 2}, 3: {6: 1}})
    assert gathered.hints == {1: {}, 2: {}, 3: {6: 1}}
