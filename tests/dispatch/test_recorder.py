"""Recording what became of pushes: in batches, under the lease's epoch, kept while the database is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
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
from lumbung.db.query import Connection
from lumbung.dispatch.policy import Defer, Deliver, ListingDecision, Park, Retry, Stay
from lumbung.dispatch.recorder import RESPONSE_BYTES_MAX, Recorder, Report, Result, clip_json
from lumbung.errors import CommitUnknown, Unavailable
from lumbung.settings import Settings
from tests.db.delivering import claim, leased, listing_ids, register
from tests.world import World, stock_update

FAST = Settings(record_interval_ms=0.0, poll_seconds=0.001)
DELIVERED = Deliver(None)


class Weather(Pool):
    """A pool whose next transactions fail, before their begin or after their commit, as long as there are errors."""

    def __init__(self, url: str) -> None:
        super().__init__(url, Settings())
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.stormy = asyncio.Event()
        self.always: Exception | None = None
        self.begun = 0

    @asynccontextmanager
    async def transaction(self, *, lock_timeout_ms: int | None = None) -> AsyncIterator[Connection]:
        self.begun += 1
        if self.always is not None:
            self.stormy.set()
            raise self.always
        if self.before:
            raise self.before.pop(0)
        async with super().transaction(lock_timeout_ms=lock_timeout_ms) as connection:
            yield connection
        if self.after:
            raise self.after.pop(0)


@pytest.fixture
async def weather(world: World) -> AsyncIterator[Weather]:
    async with Weather(world.pool.url) as pool:
        yield pool


@asynccontextmanager
async def recording(pool: Pool, settings: Settings = FAST) -> AsyncIterator[Recorder]:
    recorder = Recorder(pool, settings)
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
    message: str = "Successfully Updated",
    answer: str = '{"ok": 1}',
) -> Result:
    return Result(listing_id, version, quantity, "Accepted", decision, message, answer)


def report(
    held: LeaseRow,
    *results: Result,
    epoch: int | None = None,
    calls: tuple[CallRecord, ...] = (),
    pause: str | None = None,
) -> Report:
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    at = held.epoch if epoch is None else epoch
    return Report(held.tenant_id, held.store_id, at, results, calls, pause, future)


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
        (Retry(12.0, doubtful=False), "waiting", ("backoff", 12)),
        (Retry(12.0, doubtful=True), "waiting", ("backoff", 12)),
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
    [row] = (await world.states()).values()
    assert row["quantity_doubtful"] == (20 if decision == Retry(12.0, doubtful=True) else None)


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
    weather.always = Unavailable("away")
    with capture_logs() as logs:
        async with recording(weather) as recorder:
            first, second = report(held, result(*listed["a"])), report(held, result(*listed["b"]))
            recorder.put(first)
            for _ in range(3):
                await weather.stormy.wait()
                weather.stormy.clear()
            recorder.put(second)
            assert not first.recorded.done()
            assert await states(world) == {"a": "due", "b": "due"}
            weather.always = None
            assert (await first.recorded, await second.recorded) == (True, True)
            await states(world)
    assert await states(world) == {"a": "idle", "b": "idle"}
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "results cannot be recorded, trying again"),
        ("info", "results are recorded again"),
    ]


async def test_a_commit_whose_answer_was_lost_is_looked_up_and_not_written_twice(
    world: World, weather: Weather
) -> None:
    held, listed = await due(world, "a")
    weather.after = [CommitUnknown("lost")]
    async with recording(weather) as recorder:
        assert await written(recorder, report(held, result(*listed["a"]), calls=(call(), call())))
    assert weather.begun == 1
    assert await told(world) == [("Successfully Updated", True)]
    assert await world.value("SELECT calls FROM listing_state") == 1
    assert await world.value("SELECT count(*) FROM call") == 2


async def test_a_commit_that_had_no_effect_is_written_again(world: World, weather: Weather) -> None:
    held, listed = await due(world, "a")
    weather.before = [CommitUnknown("lost")]
    async with recording(weather) as recorder:
        assert await written(recorder, report(held, result(*listed["a"]), calls=(call(),)))
    assert weather.begun == 2
    assert await world.value("SELECT calls FROM listing_state") == 1
    assert await world.value("SELECT count(*) FROM call") == 1


async def test_results_without_a_call_are_written_again_and_end_nothing_twice(world: World, weather: Weather) -> None:
    held, listed = await due(world, "a")
    weather.after = [CommitUnknown("lost")]
    async with recording(weather) as recorder:
        assert await written(recorder, report(held, result(*listed["a"])))
    assert weather.begun == 2
    [recorded] = await world.history()
    assert recorded.finished_at is not None
    assert await told(world) == [("Successfully Updated", True)]
    assert await world.value("SELECT items_open FROM stock_update") == 0


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


async def test_a_recorder_is_behind_when_too_much_waits_to_be_written(world: World) -> None:
    held, listed = await due(world, "a", "b")
    recorder = Recorder(world.pool, Settings(record_interval_ms=0.0, record_backlog_rows_max=2))
    reports = [report(held, result(*listed[remote])) for remote in "ab"]
    seen = []
    for one in reports:
        seen.append(recorder.is_behind)
        recorder.put(one)
    seen.append(recorder.is_behind)
    task = asyncio.create_task(recorder.run())
    assert [await one.recorded for one in reports] == [True, True]
    seen.append(recorder.is_behind)
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
    await world.execute("UPDATE worker SET expires_at = clock_timestamp() - interval '1 second'")
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
