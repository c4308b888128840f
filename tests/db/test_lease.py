"""Leases: who may send for a store. All times are the database's; tests move the rows, never the clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from lumbung.db import lease
from lumbung.db.lease import ChannelTimes, LeaseRow, StoredTokens
from lumbung.model import StoreMode
from tests.db.delivering import CHANNELS, LIFETIME, QUIESCE, blocked, claim, expire, gate, leased, register
from tests.world import World

COVERS = {
    "register_worker",
    "renew_worker",
    "stop_worker",
    "held",
    "claim",
    "note_quiesce",
    "note_trouble",
    "give_back",
    "forget_workers",
    "swap_tokens",
    "read_tokens",
}


async def renew(world: World, worker_id: int) -> int | None:
    async with world.pool.connection() as connection:
        return await lease.renew(connection, worker_id)


async def held(world: World, worker_id: int) -> dict[int, int]:
    async with world.pool.connection() as connection:
        return await lease.held(connection, worker_id)


async def stop(world: World, worker_id: int) -> None:
    async with world.pool.connection() as connection:
        await lease.stop(connection, worker_id)


async def remaining(world: World, worker_id: int) -> float:
    left = await world.value("SELECT extract(epoch FROM expires_at - renewed_at) FROM worker WHERE id = $1", worker_id)
    return float(left)


async def lost(world: World) -> tuple[int, int, int]:
    """A store whose holder has not renewed in time: the store, that worker, and one that could take it."""
    await world.tenant()
    store = await world.store()
    holder, other = await register(world), await register(world)
    await claim(world, holder, store)
    await expire(world, holder)
    return store, holder, other


async def test_of_two_claimers_at_the_same_moment_one_gets_the_store(world: World) -> None:
    await world.tenant()
    store = await world.store()
    workers = [await register(world) for _ in range(6)]
    rows = await asyncio.gather(*(claim(world, worker, store) for worker in workers))
    assert sorted(map(len, rows)) == [0, 0, 0, 0, 0, 1]
    winner = workers[[len(row) for row in rows].index(1)]
    assert await held(world, winner) == {store: 1}
    assert await claim(world, workers[0], store) == []


@pytest.mark.parametrize("holder", ["nobody", "an expired worker"])
async def test_a_claim_that_began_before_another_took_the_store_does_not_take_it_again(
    world: World, holder: str
) -> None:
    """Its snapshot still shows the store as free; the row that it finds unlocked says otherwise."""
    await world.tenant()
    store = await world.store()
    expired, winner, loser = [await register(world) for _ in range(3)]
    if holder == "an expired worker":
        await claim(world, expired, store)
        await expire(world, expired)
    async with gate(world.pool, "tenant"):
        claiming = asyncio.create_task(claim(world, loser, store))
        await blocked(world)
        await world.execute("UPDATE store_lease SET worker_id = $1, epoch = epoch + 1", winner)
    assert await claiming == []
    assert list(await held(world, winner)) == [store]


async def test_a_lease_says_what_its_holder_needs(world: World) -> None:
    await world.small()
    app = await world.value(
        "INSERT INTO channel_app (channel, name, credentials) VALUES ('blib', 'a', 'sealed') RETURNING id"
    )
    await world.execute(
        "UPDATE store SET credentials = 'abc', channel_app_id = $1, tokens = 't', tokens_digest = 'd'", app
    )
    row = await leased(world)
    assert row == LeaseRow(
        world.stores["Toko Padi"].id,
        world.tenant_id,
        1,
        "blib",
        "Toko Padi",
        b"abc",
        0.0,
        LIFETIME,
        app,
        b"t",
        application_credentials=b"sealed",
    )
    assert "abc" not in repr(row)
    assert "sealed" not in repr(row)


async def test_the_epoch_grows_with_each_change_of_holder(world: World) -> None:
    await world.tenant()
    store = await world.store()
    epochs = []
    for _ in range(3):
        worker = await register(world)
        epochs += [row.epoch for row in await claim(world, worker, store)]
        async with world.pool.connection() as connection:
            await lease.give_back(connection, worker_id=worker, store_ids=[store])
        assert await held(world, worker) == {}
    assert epochs == [1, 2, 3]


async def test_giving_back_what_another_holds_changes_nothing(world: World) -> None:
    await world.tenant()
    store = await world.store()
    holder, other = await register(world), await register(world)
    await claim(world, holder, store)
    async with world.pool.connection() as connection:
        await lease.give_back(connection, worker_id=other, store_ids=[store])
    assert await held(world, holder) == {store: 1}


async def test_what_a_holder_remembers_as_unclear_stays_in_doubt_when_it_gives_the_store_back(world: World) -> None:
    await world.tenant()
    stores = [await world.store(name) for name in ("clear", "unclear")]
    first, second = await register(world), await register(world)
    await claim(world, first, *stores)
    async with world.pool.connection() as connection:
        await lease.give_back(connection, worker_id=first, store_ids=stores, doubts={stores[1]: 13.0})
    seconds = {row.store_id: row.doubt_seconds for row in await claim(world, second, *stores)}
    assert seconds == {stores[0]: 0.0, stores[1]: pytest.approx(13.0, abs=2.5)}
    async with world.pool.connection() as connection:  # it knows of no more: what was told it stays
        await lease.give_back(connection, worker_id=second, store_ids=stores, doubts={stores[1]: 1.0})
    [row] = await world.rows(
        "SELECT doubt_until > now() + interval '5 seconds' AS stays FROM store_lease WHERE doubt_until IS NOT NULL"
    )
    assert row == {"stays": True}


async def test_a_lost_workers_store_is_taken_with_doubt_until_its_calls_have_quiesced(world: World) -> None:
    await world.tenant()
    store = await world.store()
    lost, second, third = [await register(world) for _ in range(3)]
    await claim(world, lost, store)
    assert await claim(world, second, store) == []
    await expire(world, lost, ago_seconds=10)
    [row] = await claim(world, second, store)
    assert row.epoch == 2
    assert row.doubt_seconds == pytest.approx(QUIESCE, abs=1)
    # A second crash begins it anew; nor does it matter how long ago the lease seems to have ended.
    await expire(world, second, ago_seconds=3600)
    [row] = await claim(world, third, store)
    assert row.epoch == 3
    assert row.doubt_seconds == pytest.approx(QUIESCE, abs=1)


async def test_a_stopped_workers_store_is_taken_without_doubt(world: World) -> None:
    await world.tenant()
    store = await world.store()
    stopped, second = await register(world), await register(world)
    await claim(world, stopped, store)
    await stop(world, stopped)
    [row] = await claim(world, second, store)
    assert (row.epoch, row.doubt_seconds) == (2, 0.0)


async def test_a_worker_renews_while_it_lives_and_also_when_it_is_late(world: World) -> None:
    worker = await register(world, lifetime_seconds=20.0)
    for ago in (-3.0, 0.5, 3600.0, -86400.0 * 365):
        await expire(world, worker, ago_seconds=ago)
        assert await renew(world, worker) == 1
        assert await remaining(world, worker) == pytest.approx(20.0, abs=0.001)


async def test_a_worker_that_stops_or_is_unknown_renews_nothing(world: World) -> None:
    worker = await register(world)
    await stop(world, worker)
    assert await renew(world, worker) is None
    assert await renew(world, worker + 1000) is None
    assert await world.rows("SELECT stopping, expires_at <= clock_timestamp() AS over FROM worker") == [
        {"stopping": True, "over": True}
    ]


async def test_live_workers_are_those_that_could_take_stores(world: World) -> None:
    me, live, expired, stopping, ahead = [await register(world) for _ in range(5)]
    assert await renew(world, me) == 5
    await expire(world, expired)
    await expire(world, ahead, ago_seconds=-86400)
    await stop(world, stopping)
    assert await renew(world, me) == 2
    await expire(world, live)
    await expire(world, me)
    assert await renew(world, me) == 1


async def test_a_renewal_that_is_under_way_when_a_claim_judges_keeps_the_store(world: World) -> None:
    store, holder, other = await lost(world)
    async with world.pool.transaction() as renewing:
        assert await lease.renew(renewing, holder) == 2
        claiming = asyncio.create_task(claim(world, other, store))
        await blocked(world)
    assert await claiming == []
    assert await held(world, holder) == {store: 1}


async def test_a_renewal_that_comes_after_a_claim_waits_for_it_and_finds_the_store_gone(world: World) -> None:
    store, holder, other = await lost(world)

    async def renewed() -> tuple[int | None, dict[int, int]]:
        async with world.pool.connection() as connection:
            return await lease.renew(connection, holder), await lease.held(connection, holder)

    async with world.pool.transaction() as claiming:
        [row] = await lease.claim(claiming, worker_id=other, store_ids=[store], channels=CHANNELS, limit=1)
        renewing = asyncio.create_task(renewed())
        await blocked(world)
        assert not renewing.done()
    assert await renewing == (2, {})
    assert await held(world, other) == {store: row.epoch} == {store: 2}


async def test_a_renewal_that_ended_while_a_claim_looked_keeps_the_store(world: World) -> None:
    """The claim's snapshot shows the holder as expired; its row, once locked, does not."""
    store, holder, other = await lost(world)
    async with gate(world.pool, "tenant"):
        claiming = asyncio.create_task(claim(world, other, store))
        await blocked(world)
        assert await renew(world, holder) == 2
    assert await claiming == []
    assert await held(world, holder) == {store: 1}


async def test_each_lease_lasts_as_long_as_its_channel_needs(world: World) -> None:
    """One worker holds a store of short calls and one of long ones: the first is lost before the other."""
    await world.tenant()
    short, long = await world.store("short"), await world.store("long", "shpe")
    channels = {**CHANNELS, "shpe": ChannelTimes(quiesce_seconds=5.0, lifetime_seconds=100.0)}
    holder, other = await register(world), await register(world)

    async def claimed(worker: int) -> dict[int, float]:
        async with world.pool.connection() as connection:
            rows = await lease.claim(connection, worker_id=worker, store_ids=[short, long], channels=channels, limit=9)
        return {row.store_id: row.lifetime_seconds for row in rows}

    assert await claimed(holder) == {short: LIFETIME, long: 100.0}
    for age, taken in [(LIFETIME - 5, {}), (LIFETIME + 1, {short: LIFETIME}), (95, {}), (101, {long: 100.0})]:
        await world.execute(
            "UPDATE worker SET renewed_at = clock_timestamp() - $2 * interval '1 second' WHERE id = $1", holder, age
        )
        assert await claimed(other) == taken


async def test_a_clock_that_was_far_ahead_heals_itself(world: World) -> None:
    await world.tenant()
    store = await world.store()
    ahead, second = await register(world), await register(world)
    await claim(world, ahead, store)
    await expire(world, ahead, ago_seconds=-86400 * 365)
    [row] = await claim(world, second, store)
    assert row.epoch == 2
    assert row.doubt_seconds == pytest.approx(QUIESCE, abs=1)


async def test_doubt_lasts_as_long_as_the_holder_found_its_stores_calls_to_take(world: World) -> None:
    store, holder, other = await lost(world)
    async with world.pool.connection() as connection:
        await lease.note_quiesce(connection, store_id=store, epoch=99, seconds=7.0)
        assert await connection.fetchval("SELECT quiesce_seconds FROM store_lease") is None
        await lease.note_quiesce(connection, store_id=store, epoch=1, seconds=300.0)
        await lease.note_quiesce(connection, store_id=store, epoch=1, seconds=300.0)
    await expire(world, holder, ago_seconds=10)
    [row] = await claim(world, other, store)
    assert row.doubt_seconds == pytest.approx(300, abs=1)


async def test_noting_what_is_known_already_writes_nothing(world: World) -> None:
    await world.small()
    row = await leased(world)
    written = set()
    for _ in range(3):
        async with world.pool.connection() as connection:
            await lease.note_quiesce(connection, store_id=row.store_id, epoch=row.epoch, seconds=0.1)
        written.add(await world.value("SELECT xmin::text FROM store_lease"))
    assert len(written) == 1


async def test_trouble_is_noted_by_the_holder_and_lasts_from_when_it_began(world: World) -> None:
    await world.small()
    row = await leased(world)

    async def noted(trouble: str | None, *, epoch: int = row.epoch) -> tuple[str | None, datetime | None]:
        async with world.pool.connection() as connection:
            await lease.note_trouble(connection, store_id=row.store_id, epoch=epoch, trouble=trouble)
        [found] = await world.rows("SELECT trouble, trouble_since FROM store_lease")
        return found["trouble"], found["trouble_since"]

    assert await noted("timeouts", epoch=row.epoch + 1) == (None, None)
    text, since = await noted("timeouts")
    assert text == "timeouts"
    assert since is not None
    assert await noted("refused") == ("refused", since)
    assert await noted(None, epoch=row.epoch - 1) == ("refused", since)
    assert await noted(None) == (None, None)


async def test_a_doubt_that_was_written_by_a_clock_far_ahead_ends_too(world: World) -> None:
    await world.tenant()
    store = await world.store()
    await world.execute("UPDATE store_lease SET doubt_until = now() + interval '1 year'")
    [row] = await claim(world, await register(world), store)
    assert row.doubt_seconds == pytest.approx(QUIESCE + LIFETIME, abs=1)


async def test_a_claim_takes_no_more_than_its_limit_and_passes_over_what_is_being_claimed(world: World) -> None:
    await world.tenant()
    stores = [await world.store(f"store {n}") for n in range(4)]
    first, second = await register(world), await register(world)
    async with world.pool.transaction() as connection:
        taken = await lease.claim(connection, worker_id=first, store_ids=stores, channels=CHANNELS, limit=2)
        assert [row.store_id for row in taken] == stores[:2]
        assert [row.store_id for row in await claim(world, second, *stores)] == stores[2:]
    assert await held(world, first) == {stores[0]: 1, stores[1]: 1}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE store SET mode = 'observe'",
        "UPDATE store SET mode = 'paused', pause_reason = 'a', mode_before_pause = 'live'",
        "UPDATE store SET retired_at = now()",
        "UPDATE tenant SET disabled_at = now()",
    ],
)
async def test_only_live_stores_of_enabled_tenants_are_leased(world: World, change: str) -> None:
    await world.tenant()
    store = await world.store()
    await world.execute(change)
    assert await claim(world, await register(world), store) == []
    assert await world.value("SELECT epoch FROM store_lease") == 0


async def test_a_store_of_a_channel_that_this_process_cannot_serve_is_left_to_others(world: World) -> None:
    await world.tenant()
    store = await world.store("Toko Lain", "shpe", mode=StoreMode.LIVE)
    assert await claim(world, await register(world), store) == []


async def test_workers_that_are_long_gone_are_forgotten_once_nobody_doubts_their_calls(world: World) -> None:
    await world.tenant()
    store = await world.store()
    gone, recent = await register(world), await register(world)
    await claim(world, gone, store)
    await expire(world, gone, ago_seconds=86400 * 2)
    await expire(world, recent, ago_seconds=3600)

    async def left() -> list[int]:
        async with world.pool.connection() as connection:
            await lease.forget_workers(connection)
        return [row["id"] for row in await world.rows("SELECT id FROM worker ORDER BY id")]

    assert await left() == [gone, recent]
    other = await register(world)
    [row] = await claim(world, other, store)
    assert row.doubt_seconds == pytest.approx(QUIESCE, abs=1)
    assert await left() == [recent, other]


async def test_workers_that_can_serve_less_take_no_share_of_the_stores(world: World) -> None:
    me = await register(world, channels=("blib", "shpe"))
    less = await register(world, channels=("blib",))
    await register(world, channels=("blib", "shpe", "tkpd"))
    async with world.pool.connection() as connection:
        assert await lease.renew(connection, me) == 2
        assert await lease.renew(connection, less) == 3


async def test_a_revoked_lease_is_in_doubt_until_its_holder_has_surely_ended_its_calls(world: World) -> None:
    await world.tenant()
    store = await world.store()
    holder, other = await register(world), await register(world)
    await claim(world, holder, store)
    until = QUIESCE + LIFETIME
    await world.execute(
        "UPDATE store_lease SET epoch = epoch + 1, doubt_until = now() + $1 * interval '1 second'", until
    )
    async with world.pool.connection() as connection:
        await lease.give_back(connection, worker_id=holder, store_ids=[store])
    [row] = await claim(world, other, store)
    assert row.doubt_seconds == pytest.approx(until, abs=5)


# --- tokens ---

EXPIRES = datetime(2026, 2, 1, tzinfo=UTC)


async def swap(world: World, old: bytes | None, new: StoredTokens, *, tenant: int | None = None) -> bool:
    async with world.pool.connection() as connection:
        return await lease.swap_tokens(
            connection,
            tenant_id=world.tenant_id if tenant is None else tenant,
            store_id=world.stores["Toko Padi"].id,
            old_digest=old,
            new=new,
        )


async def tokens(world: World) -> tuple[bytes, bytes] | None:
    async with world.pool.connection() as connection:
        return await lease.read_tokens(connection, tenant_id=world.tenant_id, store_id=world.stores["Toko Padi"].id)


async def test_a_pair_takes_the_place_of_the_one_that_it_was_traded_for_only(world: World) -> None:
    await world.small()
    first, second, third = [StoredTokens(f"t{n}".encode(), f"d{n}".encode(), EXPIRES, None) for n in range(3)]
    assert await tokens(world) is None
    assert not await swap(world, b"d0", first)
    assert await swap(world, None, first)
    assert not await swap(world, None, second)
    assert not await swap(world, b"d0", second, tenant=world.tenant_id + 1)
    assert await tokens(world) == (b"t0", b"d0")
    assert await swap(world, b"d0", second)
    assert not await swap(world, b"d0", third)  # single use: the pair of the other trade is not dropped
    assert await tokens(world) == (b"t1", b"d1")
    assert await world.rows("SELECT access_expires_at, refresh_expires_at FROM store") == [
        {"access_expires_at": EXPIRES, "refresh_expires_at": None}
    ]


async def test_of_two_trades_of_one_pair_one_is_kept(world: World) -> None:
    await world.small()
    first, one, other = [StoredTokens(f"t{n}".encode(), f"d{n}".encode(), None, None) for n in range(3)]
    await swap(world, None, first)
    assert sorted(await asyncio.gather(swap(world, b"d0", one), swap(world, b"d0", other))) == [False, True]


async def test_a_new_pair_is_kept_whoever_holds_the_lease_by_now(world: World) -> None:
    await world.small()
    await leased(world)
    await world.execute("UPDATE store_lease SET epoch = epoch + 1")
    assert await swap(world, None, StoredTokens(b"t", b"d", None, None))
