"""Recording what became of pushes: in batches, under the lease's epoch, kept while the database is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lumbung.channels.base import CallRecord
from lumbung.db.lease import LeaseRow
from lumbung.db.pool import Pool
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Defer,
    Deliver,
    ListingDecision,
    Park,
    Retry,
    Settle,
    Stay,
    Submit,
)
from lumbung.dispatch.postgres import PostgresStorage
from lumbung.dispatch.recorder import Recorder
from lumbung.dispatch.recording import RESPONSE_BYTES_MAX, clip_json
from lumbung.dispatch.report import Report, Result
from lumbung.dispatch.storage import Recorded
from lumbung.errors import LockBusy, LumbungError, Unavailable
from lumbung.settings import Settings
from tests.db.delivering import CHANNELS, claim, expire, leased, listing_ids, register, report
from tests.dispatch.weather import Weather
from tests.world import World, stock_update

FAST = Settings(record_interval_ms=0.0, poll_seconds=0.001)
DELIVERED = Deliver(None)


class Watched(PostgresStorage):
    """Remembers which listings it was given at once."""

    def __init__(self, pool: Pool, settings: Settings = FAST) -> None:
        super().__init__(pool, pool, settings, CHANNELS)
        self.batches: list[list[int]] = []

    async def record(self, reports: Sequence[Report]) -> Recorded:
        self.batches.append([result.listing_id for one in reports for result in one.results])
        return await super().record(reports)


@pytest.fixture
async def weather(world: World) -> AsyncIterator[Weather]:
    async with Weather(world.pool.url) as pool:
        yield pool


@asynccontextmanager
async def recording(
    pool: Pool, settings: Settings = FAST, storage: PostgresStorage | None = None
) -> AsyncIterator[Recorder]:
    recorder = Recorder(storage or Watched(pool, settings), settings, WorkerMetrics())
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def result(
    listing_id: int,
    version: int,
    quantity: int = 20,
    decision: ListingDecision = DELIVERED,
    *,
    outcome: str = "Accepted",
    message: str = "Successfully Updated",
    answer: str = '{"ok": 1}',
    calls: int = 1,
    attempt: int = 1,
) -> Result:
    return Result(listing_id, version, quantity, outcome, decision, message, answer, calls=calls, attempt=attempt)


def call(response: str = "{}", *, status: int = 200) -> CallRecord:
    return CallRecord("PUT", "https://shop.test/stock", "{}", status, response, datetime(2026, 1, 5, tzinfo=UTC), 12.5)


async def written(recorder: Recorder, one: Report) -> bool:
    recorder.put(one)
    return await one.recorded


async def due(world: World, *remotes: str) -> tuple[LeaseRow, dict[str, tuple[int, int]]]:
    """Listings that are due 20 in one store: its lease, and (listing, version) by blibli sku."""
    await world.tenant()
    await world.store()
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", remote) for remote in remotes])
    await world.accepted(stock_update(blib=20))
    states = await world.states()
    held = await leased(world)
    return held, {remote: (row["listing_id"], row["version_due"]) for remote, row in states.items()}


async def told(world: World) -> list[tuple[str, bool]]:
    """The messages of the newest record's items; "" for those that are open."""
    return [(item.message, item.success) for item in (await world.history())[0].items]


async def states(world: World) -> dict[str, str]:
    return {remote: row["state"] for remote, row in (await world.states()).items()}


async def test_a_report_is_written_with_its_calls_and_ends_its_items(world: World) -> None:
    held, listed = await due(world, "a", "b")
    async with recording(world.pool) as recorder:
        results = (result(*listed["a"]), result(*listed["b"], decision=Park("Banned"), message="Banned", answer=""))
        assert await written(recorder, report(held, *results, calls=(call('{"n": 1}'), call('{"n": 2}'))))
    assert await states(world) == {"a": "idle", "b": "parked"}
    assert await told(world) == [("Successfully Updated", True), ("Banned", False)]
    calls = await world.rows("SELECT * FROM call ORDER BY id")
    assert [(row["response"], row["listing_ids"], row["outcome"]) for row in calls] == [
        ('{"n": 1}', [listed["a"][0], listed["b"][0]], "Accepted"),
        ('{"n": 2}', [listed["a"][0], listed["b"][0]], "Accepted"),
    ]
    items = await world.rows("SELECT call_id, client_response FROM item ORDER BY id")
    assert items == [
        {"call_id": calls[1]["id"], "client_response": '{"ok": 1}'},
        {"call_id": calls[1]["id"], "client_response": ""},
    ]


@pytest.mark.parametrize(
    ("decision", "state", "wait"),
    [
        (Deliver(None), "idle", None),
        (Deliver(30.0), "idle", ("confirmation", 30)),
        (AwaitFloor(12.0, sent=True), "waiting", ("floor", 12)),
        (AwaitFloor(12.0, sent=False), "waiting", ("floor", 12)),
        (Again(), "due", None),
        (Retry(12.0), "waiting", ("backoff", 12)),
        (Submit("handle", 12.0), "waiting", ("submitted", 12)),
        (Settle(20), "due", None),  # a newer update is to be told
        (Correct(30), "due", None),
        (Defer(12.0), "waiting", ("deferred", 12)),
        (Stay(), "due", None),
        (Park("Banned"), "parked", ("parked", 3600)),
    ],
    ids=str,
)
async def test_each_decision_leaves_the_state_and_the_wait_that_it_means(
    world: World, decision: ListingDecision, state: str, wait: tuple[str, int] | None
) -> None:
    held, listed = await due(world, "a")
    async with recording(world.pool) as recorder:
        assert await written(recorder, report(held, result(*listed["a"], decision=decision)))
    assert await states(world) == {"a": state}
    found = await world.rows("SELECT reason, round(extract(epoch FROM due_at - now()) + 1)::int AS s FROM listing_wait")
    assert [row["reason"] for row in found] == ([wait[0]] if wait else [])
    assert all(wait and abs(row["s"] - wait[1]) <= 5 for row in found)


async def test_results_of_a_lease_that_was_lost_are_dropped_and_their_calls_kept(world: World) -> None:
    held, listed = await due(world, "a")
    async with recording(world.pool) as recorder:
        late = report(held, result(*listed["a"]), epoch=held.epoch - 1, calls=(call(),))
        assert not await written(recorder, late)
        assert await states(world) == {"a": "due"}
        assert await told(world) == [("", False)]
        assert await world.value("SELECT epoch FROM call") == held.epoch - 1
        assert await written(recorder, report(held, result(*listed["a"])))
    assert await states(world) == {"a": "idle"}


async def test_results_wait_while_the_database_is_away_and_are_written_when_it_is_back(
    world: World, weather: Weather
) -> None:
    held, listed = await due(world, "a", "b")
    weather.always_away = True
    with capture_logs() as logs:
        async with recording(weather) as recorder:
            first, second = report(held, result(*listed["a"])), report(held, result(*listed["b"]))
            recorder.put(first)
            for _ in range(3):
                await weather.refused.wait()
                weather.refused.clear()
            recorder.put(second)
            assert not first.recorded.done()
            assert await states(world) == {"a": "due", "b": "due"}
            weather.always_away = False
            assert (await first.recorded, await second.recorded) == (True, True)
            await states(world)
    assert await states(world) == {"a": "idle", "b": "idle"}
    assert [(entry["log_level"], entry["event"]) for entry in logs if entry["log_level"] != "debug"] == [
        ("warning", "results cannot be recorded, trying again"),
        ("info", "results are recorded again"),
    ]


async def test_a_commit_that_is_not_answered_is_recorded_once_and_told_once(world: World, weather: Weather) -> None:
    held, listed = await due(world, "a")
    weather.lost, weather.away_after_loss = ["committed"], 2
    metrics = WorkerMetrics()
    recorder = Recorder(Watched(weather), FAST, metrics)
    task = asyncio.create_task(recorder.run())
    assert await written(recorder, report(held, result(*listed["a"]), calls=(call(), call())))
    task.cancel()
    assert weather.begun == 1
    assert await told(world) == [("Successfully Updated", True)]
    assert await world.value("SELECT calls FROM listing_state") == 1
    assert await world.value("SELECT count(*) FROM call") == 2
    assert metrics.registry.get_sample_value("lumbung_accept_to_delivered_seconds_count") == 1
    labels = {"channel": "blib", "outcome": "Accepted"}
    assert metrics.registry.get_sample_value("lumbung_attempts_total", labels) == 1


async def test_a_row_that_is_locked_holds_up_its_own_store_only(world: World) -> None:
    await world.tenant()
    ids = [await world.store(name) for name in ("one", "two")]
    await world.variants("sku1")
    await world.listings([("sku1", "one", "a"), ("sku1", "two", "b")])
    await world.accepted(stock_update(blib=20))
    listed = {remote: (row["listing_id"], row["version_due"]) for remote, row in (await world.states()).items()}
    one, two = await claim(world, await register(world), *ids)
    settings = Settings(record_interval_ms=0.0, poll_seconds=0.001, record_lock_timeout_ms=20)
    async with recording(world.pool, settings) as recorder:
        async with world.pool.transaction() as holder:
            await holder.execute("SELECT FROM listing_state WHERE listing_id = $1 FOR UPDATE", listed["a"][0])
            locked, free = report(one, result(*listed["a"])), report(two, result(*listed["b"]))
            recorder.put(locked)
            recorder.put(free)
            assert await free.recorded
            assert not locked.recorded.done()
        assert await locked.recorded
    assert await states(world) == {"a": "idle", "b": "idle"}


LOCKING = Settings(
    record_interval_ms=0.0,
    poll_seconds=0.001,
    record_lock_timeout_ms=20,
    record_rows_max=2,
    record_backlog_rows_max=4,
)


async def two_stores(
    world: World, count: int
) -> tuple[LeaseRow, LeaseRow, list[tuple[int, int]], list[tuple[int, int]]]:
    """The leases of two stores, and so many listings (with their versions) that are due in each."""
    await world.tenant()
    ids = [await world.store(name) for name in ("one", "two")]
    await world.variants("sku1")
    await world.listings([("sku1", store, f"{store}{n}") for store in ("one", "two") for n in range(count)])
    await world.accepted(stock_update(blib=20))
    rows = await world.states()
    due = {store: [(row["listing_id"], row["version_due"]) for name, row in rows.items() if name.startswith(store)]
           for store in ("one", "two")}  # fmt: skip
    one, two = await claim(world, await register(world), *ids)
    return one, two, due["one"], due["two"]


async def test_a_store_whose_rows_are_locked_fills_up_no_batch_and_no_backlog_of_others(world: World) -> None:
    one, two, locked, free = await two_stores(world, 6)
    async with recording(world.pool, LOCKING) as recorder:
        async with world.pool.transaction() as holder:
            await holder.execute("SELECT FROM listing_state WHERE listing_id = $1 FOR UPDATE", locked[0][0])
            waiting = [report(one, result(*listing)) for listing in locked]
            recorder.put(waiting[0])
            for listing in free[:3]:  # more than once, so that the store is apart by then
                assert await written(recorder, report(two, result(*listing)))
            for late in waiting[1:]:
                recorder.put(late)
            assert (recorder.is_behind(one.store_id), recorder.is_behind(two.store_id)) == (True, False)
            for listing in free[3:]:
                assert await written(recorder, report(two, result(*listing)))
            assert not waiting[0].recorded.done()
        assert [await late.recorded for late in waiting] == [True] * len(waiting)
        assert not recorder.is_behind(one.store_id)
    assert set((await states(world)).values()) == {"idle"}


async def test_stores_take_turns_in_a_batch(world: World) -> None:
    one, two, many, few = await two_stores(world, 3)
    storage = Watched(world.pool, LOCKING)
    reports = [report(one, result(*listing)) for listing in many] + [report(two, result(*few[0]))]
    async with recording(world.pool, LOCKING, storage) as recorder:
        for each in reports:
            recorder.put(each)
        assert [await each.recorded for each in reports] == [True] * 4
    assert storage.batches == [[many[0][0], few[0][0]], [many[1][0], many[2][0]]]


async def test_a_store_that_was_apart_is_written_with_the_others_again_and_in_its_order(world: World) -> None:
    one, two, first, second = await two_stores(world, 1)
    storage = Watched(world.pool, LOCKING)
    async with recording(world.pool, LOCKING, storage) as recorder:
        async with world.pool.transaction() as holder:
            await holder.execute("SELECT FROM listing_state WHERE listing_id = $1 FOR UPDATE", first[0][0])
            held = report(one, result(*first[0], decision=Stay(), outcome="Rejected", message="held"))
            recorder.put(held)
            assert await written(recorder, report(two, result(*second[0], decision=Stay())))
            later = report(one, result(*first[0], decision=Park("Banned"), outcome="Rejected", message="Banned"))
            recorder.put(later)
        assert (await held.recorded, await later.recorded) == (True, True)
        storage.batches.clear()
        last = report(one, result(*first[0], decision=Stay())), report(two, result(*second[0]))
        for each in last:
            recorder.put(each)
        assert [await each.recorded for each in last] == [True, True]
    assert storage.batches == [[first[0][0], second[0][0]]]
    assert await states(world) == {"one0": "parked", "two0": "idle"}


class LockedAtFirst(Watched):
    """A row of the first batch is locked; notes before each batch whether a store is to wait."""

    def __init__(self, pool: Pool, store_id: int) -> None:
        super().__init__(pool, LOCKING)
        self.recorder = Recorder(self, LOCKING, WorkerMetrics())
        self.behind: list[bool] = []
        self._store_id = store_id

    async def record(self, reports: Sequence[Report]) -> Recorded:
        self.behind.append(self.recorder.is_behind(self._store_id))
        if len(self.behind) == 1:
            raise LockBusy("locked")
        return await super().record(reports)


async def test_what_a_store_has_gathered_behind_a_lock_holds_up_no_other_when_the_lock_is_gone(world: World) -> None:
    one, two, gathered, _ = await two_stores(world, 6)
    storage = LockedAtFirst(world.pool, two.store_id)
    reports = [report(one, result(*listing)) for listing in gathered]
    for each in reports:
        storage.recorder.put(each)
    task = asyncio.create_task(storage.recorder.run())
    assert [await each.recorded for each in reports] == [True] * 6
    task.cancel()
    assert storage.behind == [True, False, False, False]  # it is apart until little is left


class LostTwice(Watched):
    """The first store's rows are locked, and then the database is away, before it is written."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, LOCKING)
        self.errors: list[LumbungError] = [LockBusy("locked"), Unavailable("away"), LockBusy("locked")]

    async def record(self, reports: Sequence[Report]) -> Recorded:
        if self.errors:
            raise self.errors.pop(0)
        return await super().record(reports)


async def test_a_store_apart_waits_for_a_database_that_is_away_too(world: World) -> None:
    held, listed = await due(world, "a")
    storage = LostTwice(world.pool)
    async with recording(world.pool, LOCKING, storage) as recorder:
        assert await written(recorder, report(held, result(*listed["a"])))
    assert (storage.errors, await states(world)) == ([], {"a": "idle"})


async def test_a_recorder_is_behind_when_too_much_waits_to_be_written(world: World) -> None:
    held, listed = await due(world, "a", "b")
    settings = Settings(record_interval_ms=0.0, record_backlog_rows_max=2)
    recorder = Recorder(Watched(world.pool), settings, WorkerMetrics())
    reports = [report(held, result(*listed[remote])) for remote in "ab"]
    seen = []
    for one in reports:
        seen.append(recorder.is_behind(held.store_id))
        recorder.put(one)
    seen.append(recorder.is_behind(held.store_id))
    task = asyncio.create_task(recorder.run())
    assert [await one.recorded for one in reports] == [True, True]
    seen.append(recorder.is_behind(held.store_id))
    task.cancel()
    assert seen == [False, False, True, False]


async def test_reports_of_one_moment_share_a_transaction_up_to_the_limit_of_rows(
    world: World, weather: Weather
) -> None:
    held, listed = await due(world, *"abcde")
    reports = [report(held, result(*listed[remote])) for remote in "abcde"]
    async with recording(weather, Settings(record_interval_ms=0.0, record_rows_max=2)) as recorder:
        for one in reports:
            recorder.put(one)
        assert [await one.recorded for one in reports] == [True] * 5
    assert weather.begun == 3
    assert set((await states(world)).values()) == {"idle"}


async def test_a_pause_is_written_with_the_results(world: World) -> None:
    held, listed = await due(world, "a")
    async with recording(world.pool) as recorder:
        assert await written(recorder, report(held, result(*listed["a"], decision=Stay()), pause="The token is dead"))
    assert await world.rows("SELECT mode, pause_reason, mode_before_pause FROM store") == [
        {"mode": "paused", "pause_reason": "The token is dead", "mode_before_pause": "live"}
    ]
    assert await states(world) == {"a": "due"}


async def test_a_pause_that_a_lost_holder_asks_for_is_dropped_with_its_results(world: World) -> None:
    held, listed = await due(world, "a")
    async with recording(world.pool) as recorder:
        late = report(held, result(*listed["a"], decision=Stay()), epoch=held.epoch - 1, pause="The token is dead")
        assert not await written(recorder, late)
    assert await world.value("SELECT mode FROM store") == "live"


async def test_of_two_results_of_one_listing_only_that_of_the_newest_epoch_is_written(world: World) -> None:
    """The process lost its lease with a call in flight, took it again and sent again: both answers come at once."""
    held, listed = await due(world, "a")
    await expire(world, await world.value("SELECT worker_id FROM store_lease"))
    [again] = await claim(world, await register(world), held.store_id)
    listing, version = listed["a"]
    late = report(held, result(listing, version, 20, Park("Banned"), message="Banned"))
    fresh = report(again, result(listing, version, 20))
    async with recording(world.pool) as recorder:
        recorder.put(late)
        recorder.put(fresh)
        assert (await late.recorded, await fresh.recorded) == (False, True)
    assert await states(world) == {"a": "idle"}
    assert await told(world) == [("Successfully Updated", True)]


async def test_two_results_of_one_listing_are_written_in_their_order_in_two_transactions(world: World) -> None:
    held, listed = await due(world, "a", "b")
    storage = Watched(world.pool)
    first = report(held, result(*listed["a"], decision=Stay(), outcome="Rejected", message="held"))
    other = report(held, result(*listed["b"]))
    second = report(held, result(*listed["a"], decision=Park("Banned"), outcome="Rejected", message="Banned", calls=0))
    async with recording(world.pool, storage=storage) as recorder:
        for one in (first, second, other):
            recorder.put(one)
        assert [await one.recorded for one in (first, second, other)] == [True] * 3
    a, b = listed["a"][0], listed["b"][0]
    assert storage.batches == [[a, b], [a]]
    assert await states(world) == {"a": "parked", "b": "idle"}
    assert (await world.states())["a"]["calls"] == 1


# --- what cannot be stored ---


UNSTORABLE: dict[str, ListingDecision] = {
    "a number that is too large": Settle(2**70),
    "a handle that is no text": Submit("h\x00", 5.0),
    "a handle that is no Unicode": Submit("\ud800", 5.0),
}


@pytest.mark.parametrize("name", UNSTORABLE)
async def test_what_cannot_be_stored_backs_off_loudly_and_the_others_are_written(world: World, name: str) -> None:
    held, listed = await due(world, *"abcde")
    reports = [
        report(held, result(*listed["a"])),
        report(
            held, result(*listed["b"]), result(*listed["c"], decision=UNSTORABLE[name], message="x"), calls=(call(),)
        ),
        report(held, result(*listed["d"])),
        report(held, result(*listed["e"], decision=Park("Banned"), message="Banned")),
    ]
    with capture_logs() as logs:
        async with recording(world.pool) as recorder:
            for one in reports:
                recorder.put(one)
            assert [await one.recorded for one in reports] == [True] * 4
    assert await states(world) == {"a": "idle", "b": "waiting", "c": "waiting", "d": "idle", "e": "parked"}
    [error] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (error["event"], error["store"]) == ("results cannot be stored", held.store_id)
    assert isinstance(error["exc_info"], Exception)
    for remote in "bc":
        row = (await world.states())[remote]
        assert (row["attempts"], row["calls"], row["quantity_doubtful"], row["last_outcome"]) == (1, 1, 20, "InDoubt")
        assert row["last_message"] == "The answer could not be stored: see the log"
    waits = await world.rows(
        "SELECT round(extract(epoch FROM due_at - now()) / 60) AS m FROM listing_wait WHERE reason = 'backoff'"
    )
    assert [int(row["m"]) for row in waits] == [15, 15]
    assert await world.value("SELECT count(*) FROM call") == 0


async def test_a_store_that_cannot_even_keep_that_is_a_bug_that_is_seen(world: World) -> None:
    held, listed = await due(world, "a")

    class Broken(Watched):
        async def record(self, reports: Sequence[Report]) -> Recorded:
            raise ValueError("a bug")

    recorder = Recorder(Broken(world.pool), FAST, WorkerMetrics())
    recorder.put(report(held, result(*listed["a"]), calls=(call(),)))
    with capture_logs() as logs, pytest.raises(ValueError, match="a bug"):
        await recorder.run()
    assert [entry["event"] for entry in logs] == ["results cannot be stored"]


# --- what is told ---


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


async def test_every_attempt_is_told_with_what_it_was_about(world: World, heard: list[Any]) -> None:
    held, listed = await due(world, "a", "b", "c", "d")
    code = str((await world.history())[0].transaction_code)
    results = (
        result(*listed["a"], attempt=3),
        result(*listed["b"], decision=Retry(5.0), outcome="Unavailable", message="refused", attempt=4),
        result(*listed["c"], decision=Park("Banned"), outcome="Rejected", message="Banned"),
        result(*listed["d"], decision=Defer(5.0), outcome="Deferred", message="A campaign"),
    )
    async with recording(world.pool) as recorder:
        assert await written(recorder, report(held, *results))
    head = {"tenant": world.tenant_id, "store": held.store_id}
    assert [entry for entry in heard if entry["event"] != "item ended"] == [
        {
            **head,
            "event": event,
            "log_level": level,
            "listing": listed[remote][0],
            "transaction": codes,
            "attempt": attempt,
            "outcome": outcome,
            "reason": reason,
            "counted": True,
        }
        for event, level, remote, codes, attempt, outcome, reason in [
            ("delivered", "debug", "a", [code], 3, "Accepted", "Successfully Updated"),
            ("attempted", "info", "b", [code], 4, "Unavailable", "refused"),
            ("attempted", "info", "c", [code], 1, "Rejected", "Banned"),
            ("attempted", "debug", "d", None, 1, "Deferred", "A campaign"),
        ]
    ]
    ended = [entry for entry in heard if entry["event"] == "item ended"]
    assert sorted(ended, key=lambda entry: entry["listing"]) == [
        {
            **head,
            "event": "item ended",
            "log_level": "debug",
            "listing": listed[remote][0],
            "transaction": code,
            "attempt": 1,
            "success": success,
            "message": message,
        }
        for remote, success, message in [("a", True, "Successfully Updated"), ("c", False, "Banned")]
    ]


async def test_an_attempt_under_a_lease_that_was_lost_is_told_as_not_counted(world: World, heard: list[Any]) -> None:
    held, listed = await due(world, "a")
    late = report(held, result(*listed["a"], decision=Retry(5.0)), epoch=held.epoch - 1)
    async with recording(world.pool) as recorder:
        assert not await written(recorder, late)
    assert [(entry["event"], entry["counted"], entry["transaction"]) for entry in heard] == [("attempted", False, None)]


async def test_what_postgresql_cannot_keep_is_replaced_and_what_is_too_long_is_cut(world: World) -> None:
    held, listed = await due(world, "a")
    text = "x\x00\ud800" + "y" * 2000
    async with recording(world.pool, Settings(record_interval_ms=0.0, call_text_chars_max=100)) as recorder:
        one = result(*listed["a"], decision=Park(text), message=text, answer=json.dumps(text))
        assert await written(recorder, report(held, one, calls=(call(text, status=0),)))
    [row] = (await world.states()).values()
    assert row["park_reason"] == row["last_message"] == "x�?" + "y" * 509
    [kept] = await world.rows("SELECT status, response FROM call")
    assert kept == {"status": 0, "response": "x�?" + "y" * 97}
    [item] = (await world.history())[0].items
    assert len(item.client_response.encode()) <= RESPONSE_BYTES_MAX


async def test_a_report_without_results_keeps_its_calls(world: World) -> None:
    held, _ = await due(world, "a")
    async with recording(world.pool) as recorder:
        assert await written(recorder, report(held, calls=(call(),)))
    assert await world.rows("SELECT listing_ids FROM call") == [{"listing_ids": []}]
    assert await listing_ids(world)


# --- the marketplace's answer, clipped ---

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=200),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=30), inner, max_size=5),
    max_leaves=30,
)


@given(value=values, ascii_only=st.booleans())
def test_json_that_is_clipped_is_json_and_short_enough(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    clipped = clip_json(text, RESPONSE_BYTES_MAX)
    assert len(clipped.encode()) <= RESPONSE_BYTES_MAX
    assert "\x00" not in clipped
    kept = json.loads(clipped)
    if len(text.encode()) <= RESPONSE_BYTES_MAX:
        assert clipped == text
    else:
        assert isinstance(kept, str)
        assert text.startswith(kept.removesuffix("..."))


@given(text=st.text(st.characters(exclude_categories=()), min_size=5).map(lambda text: text * 200))
def test_whatever_is_too_long_becomes_a_json_string_that_begins_with_it(text: str) -> None:
    clipped = clip_json(text, RESPONSE_BYTES_MAX)
    assert len(clipped.encode()) <= RESPONSE_BYTES_MAX
    if len(text.encode("utf-8", "replace")) > RESPONSE_BYTES_MAX:
        assert json.loads(clipped).endswith("...")


def test_an_answer_keeps_as_much_as_there_is_room_for() -> None:
    assert clip_json("", 512) == ""
    assert clip_json('{"a": "' + "b" * 503 + '"}', 512) == '{"a": "' + "b" * 503 + '"}'
    clipped = clip_json('{"a": "' + "b" * 504 + '"}', 512)
    assert len(clipped) == 512
    assert json.loads(clipped) == '{"a": "' + "b" * 497 + "..."
