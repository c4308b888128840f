"""The delivery half's storage: what one transaction of results writes, and that it is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lumbung.channels.base import CallRecord
from lumbung.db import stores
from lumbung.db.budget import Grant
from lumbung.db.delivery import Work
from lumbung.db.lease import ChannelTimes, LeaseRow, StoredTokens
from lumbung.db.pool import Pool
from lumbung.dispatch.policy import Again, Deliver, ListingDecision, Park, Retry, Stay
from lumbung.dispatch.postgres import PostgresStorage
from lumbung.dispatch.report import Lease
from lumbung.dispatch.storage import Recorded, Renewal
from lumbung.errors import LockBusy, LumbungError, Unavailable
from lumbung.model import Lane
from lumbung.settings import Settings
from tests.db.delivering import CHANNELS, LIFETIME, QUIESCE, Told, blocked, leased, report
from tests.dispatch.weather import Weather
from tests.world import World, stock_update

FAST = Settings(poll_seconds=0.001, record_lock_timeout_ms=20)


@pytest.fixture
async def weather(world: World) -> AsyncIterator[Weather]:
    async with Weather(world.pool.url) as pool:
        yield pool


def storage_of(
    pool: Pool, settings: Settings = FAST, channels: dict[str, ChannelTimes] | None = None
) -> PostgresStorage:
    return PostgresStorage(pool, pool, settings, CHANNELS if channels is None else channels)


async def due(world: World, *remotes: str) -> tuple[LeaseRow, dict[str, int], str]:
    """Listings that are due 20 in one store: its lease, their ids, and the transaction; each version is the same."""
    await world.tenant()
    await world.store()
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", remote) for remote in remotes])
    code = await world.accepted(stock_update(blib=20))
    ids = {remote: row["listing_id"] for remote, row in (await world.states()).items()}
    return await leased(world), ids, str(code)


async def told(world: World, listing: int, decision: ListingDecision, **more: Any) -> Told:
    version = await world.value("SELECT version_due FROM listing_state WHERE listing_id = $1", listing)
    return Told(listing, version, 20, decision, **more)


def lease_of(row: LeaseRow) -> Lease:
    return Lease(row.store_id, row.tenant_id, row.epoch, row.channel, row.store_name)


def call(status: int = 200) -> CallRecord:
    return CallRecord("PUT", "https://shop.test/stock", "{}", status, "{}", datetime(2026, 1, 5, tzinfo=UTC), 12.5)


async def states(world: World) -> dict[str, str]:
    return {remote: row["state"] for remote, row in (await world.states()).items()}


async def counted(world: World) -> tuple[int, int, int, int]:
    """Calls of listings, calls that were kept, items that are open, and those that were counted as delivered."""
    [row] = await world.rows(
        "SELECT (SELECT sum(calls) FROM listing_state)::int AS calls, (SELECT count(*) FROM call)::int AS kept,"
        " (SELECT sum(items_open) FROM stock_update)::int AS open,"
        " (SELECT coalesce(sum(pushed), 0) FROM stats_minute)::int AS pushed"
    )
    return row["calls"], row["kept"], row["open"], row["pushed"]


# --- what one transaction writes ---


async def test_results_are_written_with_all_that_belongs_to_them(world: World) -> None:
    held, ids, code = await due(world, "a", "b", "c", "d")
    results = [
        (await told(world, ids["a"], Deliver())).result,
        (await told(world, ids["b"], Retry(5.0))).result,
        (await told(world, ids["c"], Park("Banned"), message="Banned")).result,
    ]
    other = (await told(world, ids["d"], Again())).result
    recorded = await storage_of(world.pool).record(
        [report(held, *results, calls=(call(500), call())), report(held, other)]
    )
    keys = {remote: (world.tenant_id, listing, held.epoch) for remote, listing in ids.items()}
    assert recorded.written == set(keys.values())
    assert {(item.listing_id, item.success, item.message, item.transaction_code) for item in recorded.ended} == {
        (ids["a"], True, "Successfully Updated", code),
        (ids["c"], False, "Banned", code),
    }
    assert recorded.waiting == {keys["b"][:2]: [code], keys["d"][:2]: [code]}
    assert await states(world) == {"a": "idle", "b": "waiting", "c": "parked", "d": "due"}
    assert await world.rows("SELECT listing_id, reason FROM listing_wait ORDER BY 1") == [
        {"listing_id": ids["b"], "reason": "backoff"},
        {"listing_id": ids["c"], "reason": "parked"},
    ]
    kept = await world.rows("SELECT id, status, listing_ids FROM call ORDER BY id")
    assert [(row["status"], row["listing_ids"]) for row in kept] == [
        (500, [ids["a"], ids["b"], ids["c"]]),
        (200, [ids["a"], ids["b"], ids["c"]]),
    ]
    answered = await world.rows("SELECT DISTINCT call_id FROM item WHERE success IS NOT NULL")
    assert answered == [{"call_id": kept[1]["id"]}]
    [stats] = await world.rows("SELECT store_id, accepted, pushed, failed, latency FROM stats_minute WHERE pushed > 0")
    assert (stats["store_id"], stats["pushed"], stats["failed"], sum(stats["latency"])) == (held.store_id, 1, 3, 1)


async def test_results_of_several_tenants_and_stores_share_a_transaction(world: World) -> None:
    reports, expected = [], set()
    for tenant in ("one", "two"):
        await world.tenant(tenant)
        world.stores.clear()
        await world.store(f"store of {tenant}")
        await world.variants("sku1")
        await world.listings([("sku1", f"store of {tenant}", "a")])
        await world.accepted(stock_update(blib=20))
        listing = (await world.states())["a"]["listing_id"]
        held = await leased(world)
        reports.append(report(held, (await told(world, listing, Deliver())).result))
        expected.add((world.tenant_id, listing, held.epoch))
    recorded = await storage_of(world.pool).record(reports)
    assert recorded.written == expected
    assert {item.tenant_id for item in recorded.ended} == {key[0] for key in expected}
    assert await world.rows("SELECT DISTINCT state FROM listing_state") == [{"state": "idle"}]


async def test_nothing_of_a_lost_holders_results_is_written_but_its_calls(world: World) -> None:
    held, ids, _ = await due(world, "a", "b")
    await world.execute(
        "UPDATE listing_state SET state = 'parked', lane = 0, park_reason = 'x' WHERE listing_id = $1", ids["b"]
    )
    before = await world.states()
    late = report(
        held,
        (await told(world, ids["a"], Deliver())).result,
        epoch=held.epoch - 1,
        calls=(call(),),
        pause="The token is dead",
        unpark=(ids["b"],),
    )
    assert await storage_of(world.pool).record([late]) == Recorded(set(), [], {})
    assert await world.states() == before
    assert await counted(world) == (0, 1, 2, 0)
    assert await world.value("SELECT mode FROM store") == "live"


async def test_a_pause_that_is_recorded_while_an_operator_mends_the_store_waits_and_is_dropped(world: World) -> None:
    """Stores are locked before their leases, by both: or the operator's command would be the victim of a deadlock."""
    held, ids, _ = await due(world, "a")
    storage = storage_of(world.pool, Settings(record_lock_timeout_ms=20_000))
    last = (await told(world, ids["a"], Stay())).result
    async with world.pool.transaction() as operator:
        await stores.set_credentials(operator, tenant_id=world.tenant_id, store_id=held.store_id, credentials=b"mended")
        recording = asyncio.create_task(storage.record([report(held, last, pause="Wrong key")]))
        await blocked(world)
        await stores.revoke_lease(operator, store_id=held.store_id, quiesce_seconds=1.0)
    assert (await recording).written == set()
    assert await world.rows("SELECT mode, credentials FROM store") == [{"mode": "live", "credentials": b"mended"}]


async def test_a_storm_pauses_the_store_and_brings_back_what_it_parked(world: World) -> None:
    held, ids, _ = await due(world, "a", "b")
    storage = storage_of(world.pool)
    await storage.record([report(held, (await told(world, ids["a"], Park("Banned"), message="Banned")).result)])
    last = (await told(world, ids["b"], Stay())).result
    await storage.record([report(held, last, pause="A storm \x00", unpark=(ids["a"],))])
    assert await states(world) == {"a": "due", "b": "due"}
    assert await world.rows("SELECT mode, pause_reason FROM store") == [
        {"mode": "paused", "pause_reason": "A storm \ufffd"}
    ]
    assert await world.rows("SELECT * FROM listing_wait") == []


async def test_a_row_that_is_locked_is_waited_for_as_long_as_is_set_and_nothing_is_written(world: World) -> None:
    held, ids, _ = await due(world, "a", "b")
    reports = [
        report(held, (await told(world, listing, Deliver())).result, calls=(call(),)) for listing in ids.values()
    ]
    async with world.pool.transaction() as holder:
        await holder.execute("SELECT FROM listing_state WHERE listing_id = $1 FOR UPDATE", ids["b"])
        with pytest.raises(LockBusy):
            await storage_of(world.pool).record(reports)
    assert await states(world) == {"a": "due", "b": "due"}
    assert await counted(world) == (0, 0, 2, 0)


async def test_a_database_that_is_away_is_told(weather: Weather, world: World) -> None:
    held, ids, _ = await due(world, "a")
    one = report(held, (await told(world, ids["a"], Deliver())).result)
    weather.away = 1
    with pytest.raises(Unavailable):
        await storage_of(weather).record([one])
    assert weather.begun == 1


# --- a COMMIT that is not answered ---


@pytest.mark.parametrize("calls", [(), (call(),)], ids=["without a call", "with a call"])
@pytest.mark.parametrize(
    ("lost", "begun"),
    [
        (["committed"], 1),
        (["cut"], 2),
        (["cut", "cut", "committed"], 3),
    ],
    ids=["it took effect", "it did not", "it did at the third try"],
)
async def test_results_whose_commit_is_not_answered_are_written_exactly_once(
    world: World, weather: Weather, lost: list[str], begun: int, calls: tuple[CallRecord, ...]
) -> None:
    held, ids, code = await due(world, "a", "b")
    weather.lost = list(lost)
    results = ((await told(world, ids["a"], Deliver())).result, (await told(world, ids["b"], Retry(5.0))).result)
    recorded = await storage_of(weather).record([report(held, *results, calls=calls)])
    assert weather.begun == begun
    assert recorded.written == {(world.tenant_id, listing, held.epoch) for listing in ids.values()}
    assert [(item.listing_id, item.transaction_code) for item in recorded.ended] == [(ids["a"], code)]
    assert recorded.waiting == {(world.tenant_id, ids["b"]): [code]}
    assert await counted(world) == (2, len(calls), 1, 1)
    assert (await world.states())["b"]["attempts"] == 1


async def test_a_database_that_is_away_is_asked_until_it_tells_what_became_of_a_commit(
    world: World, weather: Weather
) -> None:
    held, ids, _ = await due(world, "a")
    weather.lost, weather.away_after_loss = ["committed"], 5
    recorded = await storage_of(weather).record([report(held, (await told(world, ids["a"], Deliver())).result)])
    assert (weather.begun, weather.away, len(recorded.ended)) == (1, 0, 1)
    assert await counted(world) == (1, 0, 0, 1)


@pytest.mark.parametrize(("commit", "begun"), [(True, 1), (False, 2)])
async def test_a_commit_that_is_still_under_way_is_asked_about_until_it_has_ended(
    world: World, weather: Weather, commit: bool, begun: int
) -> None:
    held, ids, _ = await due(world, "a")
    weather.lost = ["in progress"]
    one = report(held, (await told(world, ids["a"], Deliver())).result)
    recording = asyncio.create_task(storage_of(weather).record([one]))
    for _ in range(3):
        weather.asked.clear()
        await weather.asked.wait()
    assert not recording.done()
    await weather.finish(commit=commit)
    assert len((await recording).ended) == 1
    assert weather.begun == begun
    assert await counted(world) == (1, 0, 0, 1)


# --- this process, its stores and what they share ---


async def test_a_worker_registers_claims_renews_gives_back_and_stops(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    store = world.stores["Toko Padi"].id
    storage = storage_of(world.pool)
    worker = await storage.register("one", LIFETIME)
    assert await storage.look([]) == [Work(store, True, False, None, 0)]
    [row] = await storage.claim(worker, [store], 10)
    assert (row.store_id, row.epoch, row.lifetime_seconds) == (store, 1, LIFETIME)
    assert await storage.renew(worker) == Renewal({store: 1}, 1)
    assert await storage.look([]) == [Work(store, True, False, worker, 1)]
    await storage.give_back(worker, [store])
    assert await storage.renew(worker) == Renewal({}, 1)
    await storage.stop(worker)
    assert await storage.renew(worker) is None


async def test_renewing_waits_for_no_connection_that_reading_and_recording_have(world: World) -> None:
    async with (
        Pool(world.pool.url, Settings(database_connections_max=1)) as busy,
        Pool(world.pool.url, Settings(database_connections_max=1)) as own,
    ):
        storage = PostgresStorage(busy, own, FAST, CHANNELS)
        async with busy.connection():
            worker = await storage.register("one", LIFETIME)
            assert await storage.renew(worker) == Renewal({}, 1)


async def test_what_is_due_is_read_under_the_lease_and_what_its_holder_finds_is_noted(world: World) -> None:
    held, ids, _ = await due(world, "a", "b")
    storage, lease = storage_of(world.pool), lease_of(held)
    window = await storage.due_window(lease, cursors={2: ids["a"]}, busy=[], limit=9, with_locations=False)
    again = await storage.due_now(lease, [ids["b"], ids["a"]], with_locations=False)
    assert [one.listing_id for one in window] == [ids["b"]]
    assert [one.listing_id for one in again] == [ids["b"], ids["a"]]
    await storage.note_quiesce(lease, 90.0)
    await storage.note_trouble(lease, "timeouts")
    assert await world.rows("SELECT quiesce_seconds, trouble FROM store_lease") == [
        {"quiesce_seconds": 90.0, "trouble": "timeouts"}
    ]
    await storage.pause(lease, "by \x00 hand")
    assert await world.value("SELECT pause_reason FROM store") == "by \ufffd hand"
    assert await storage.due_now(lease, [ids["b"]], with_locations=False) == []


@pytest.mark.parametrize(
    ("settings", "quiesce", "longest"),
    [
        (Settings(), QUIESCE, 7200),
        (Settings(backoff_max_seconds=9000), QUIESCE, 9000),
        (Settings(park_retry_seconds=9000), QUIESCE, 9000),
        (Settings(defer_seconds_max=9000), QUIESCE, 9000),
        (Settings(throttle_seconds_max=9000), QUIESCE, 9000),
        (Settings(floor_retry_seconds=9000), QUIESCE, 9000),
        (Settings(submitted_check_seconds_max=9000), QUIESCE, 9000),
        (Settings(quiesce_seconds_max=5400), QUIESCE, 9000),
        (Settings(submitted_seconds_max=5400), QUIESCE, 9000),
        (Settings(), 4500.0, 9000),
    ],
)
async def test_a_wait_longer_than_any_can_be_is_over(
    world: World, settings: Settings, quiesce: float, longest: int
) -> None:
    held, ids, _ = await due(world, "a", "b")
    storage = storage_of(world.pool, settings, {"blib": ChannelTimes(quiesce, LIFETIME)})
    await storage.record([report(held, *[(await told(world, one, Retry(0.0))).result for one in ids.values()])])
    for listing, seconds in zip(ids.values(), (longest - 60, longest + 60), strict=True):
        await world.execute(
            "UPDATE listing_wait SET due_at = now() + $2 * interval '1 second' WHERE listing_id = $1", listing, seconds
        )
    assert [found.ready for found in await storage.look([])] == [True]
    assert await storage.release_waits([held.store_id]) == {held.store_id: {ids["b"]: Lane.RETRY_RISING}}
    assert await states(world) == {"a": "waiting", "b": "due"}
    assert [(found.due, found.ready) for found in await storage.look([])] == [(True, False)]


async def test_no_more_waits_are_released_at_once_than_a_chunk_has_rows(world: World) -> None:
    held, ids, _ = await due(world, "a", "b", "c")
    storage = storage_of(world.pool, Settings(chunk_rows_max=2))
    await storage.record([report(held, *[(await told(world, one, Retry(0.0))).result for one in ids.values()])])
    await storage.release_waits([held.store_id])
    assert sorted((await states(world)).values()) == ["due", "due", "waiting"]


async def test_a_budget_is_shared_and_blocked_no_longer_than_a_throttle_can_last(world: World) -> None:
    await world.tenant()
    app_id = await world.value(
        "INSERT INTO channel_app (channel, name, credentials) VALUES ('shpe', 'a', '') RETURNING id"
    )
    await world.execute(
        "INSERT INTO budget (channel_app_id, name, calls_per_second, burst) VALUES ($1, 'second', 0.001, 5)", app_id
    )
    storage = storage_of(world.pool, Settings(throttle_seconds_max=100))
    assert await storage.reserve(app_id + 1, 3) == Grant(3, 0.0, limited=False)
    assert (await storage.reserve(app_id, 3)).calls == 3
    await storage.block(app_id, 50)
    assert (await storage.reserve(app_id, 2)).calls == 0
    await world.execute("UPDATE budget SET blocked_until = now() + interval '150 seconds'")
    assert (await storage.reserve(app_id, 2)).calls == 2


async def test_tokens_are_swapped_and_read(world: World) -> None:
    await world.small()
    storage, lease = storage_of(world.pool), lease_of(await leased(world))
    assert await storage.read_tokens(lease) is None
    assert await storage.swap_tokens(lease, None, StoredTokens(b"t", b"d", None, None))
    assert not await storage.swap_tokens(lease, None, StoredTokens(b"u", b"e", None, None))
    assert await storage.read_tokens(lease) == (b"t", b"d")


async def test_every_question_to_a_database_that_is_away_raises_the_same(weather: Weather, world: World) -> None:
    held, ids, _ = await due(world, "a")
    weather.always_away = True
    storage, lease = storage_of(weather), lease_of(held)
    asked = [
        storage.register("one", LIFETIME),
        storage.renew(1),
        storage.stop(1),
        storage.look([]),
        storage.claim(1, [held.store_id], 1),
        storage.give_back(1, [held.store_id]),
        storage.note_quiesce(lease, 1.0),
        storage.note_trouble(lease, "a"),
        storage.pause(lease, "a"),
        storage.release_waits([held.store_id]),
        storage.due_window(lease, cursors={1: 0}, busy=[], limit=1, with_locations=False),
        storage.due_now(lease, list(ids.values()), with_locations=False),
        storage.record([]),
        storage.reserve(1, 1),
        storage.block(1, 1.0),
        storage.swap_tokens(lease, None, StoredTokens(b"t", b"d", None, None)),
        storage.read_tokens(lease),
    ]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in errors] == [Unavailable] * len(asked)
    assert all(isinstance(error, LumbungError) for error in errors)
