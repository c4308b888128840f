"""Leases: who may send for a store. All times are the database's; tests move the rows, never the clock."""

from __future__ import annotations

import asyncio

import pytest

from lumbung.db import lease
from lumbung.db.lease import LeaseRow
from lumbung.model import StoreMode
from tests.db.delivering import QUIESCE, blocked, claim, gate, leased, register
from tests.world import World

COVERS = {"register_worker", "renew_worker", "stop_worker", "held", "claim", "give_back", "forget_workers"}


async def expire(world: World, worker_id: int, ago_seconds: float = 1.0) -> None:
    await world.execute(
        "UPDATE worker SET expires_at = clock_timestamp() - $2 * interval '1 second' WHERE id = $1",
        worker_id,
        ago_seconds,
    )


async def renew(world: World, worker_id: int) -> bool:
    async with world.pool.connection() as connection:
        return await lease.renew(connection, worker_id)


async def held(world: World, worker_id: int) -> dict[int, int]:
    async with world.pool.connection() as connection:
        return await lease.held(connection, worker_id)


async def remaining(world: World, worker_id: int) -> float:
    left = await world.value("SELECT extract(epoch FROM expires_at - renewed_at) FROM worker WHERE id = $1", worker_id)
    return float(left)


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
    await world.execute("UPDATE store SET credentials = 'abc'")
    row = await leased(world)
    assert row == LeaseRow(world.stores["Toko Padi"].id, world.tenant_id, 1, "blib", "Toko Padi", b"abc", 0.0)
    assert "abc" not in repr(row)


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


async def test_a_lost_workers_store_is_taken_with_doubt_until_its_calls_have_quiesced(world: World) -> None:
    await world.tenant()
    store = await world.store()
    lost, second, third = [await register(world) for _ in range(3)]
    await claim(world, lost, store)
    assert await claim(world, second, store) == []
    await expire(world, lost, ago_seconds=10)
    [row] = await claim(world, second, store)
    assert row.epoch == 2
    assert row.doubt_seconds == pytest.approx(QUIESCE["blib"] - 10, abs=5)
    # A second crash, of a holder that expired earlier than the first's calls quiesce, does not shorten the doubt.
    await expire(world, second, ago_seconds=55)
    [row] = await claim(world, third, store)
    assert row.epoch == 3
    assert row.doubt_seconds == pytest.approx(QUIESCE["blib"] - 10, abs=5)


async def test_a_stopped_workers_store_is_taken_without_doubt(world: World) -> None:
    await world.tenant()
    store = await world.store()
    stopped, second = await register(world), await register(world)
    await claim(world, stopped, store)
    async with world.pool.connection() as connection:
        await lease.stop(connection, stopped)
    [row] = await claim(world, second, store)
    assert (row.epoch, row.doubt_seconds) == (2, 0.0)


async def test_a_worker_renews_while_it_lives_and_never_after_it_expired(world: World) -> None:
    worker = await register(world, lifetime_seconds=20.0)
    await expire(world, worker, ago_seconds=-3)
    assert await renew(world, worker)
    assert await remaining(world, worker) == pytest.approx(20.0, abs=0.001)
    await expire(world, worker, ago_seconds=-0.5)  # too near its end to be sure
    assert not await renew(world, worker)
    await expire(world, worker)
    assert not await renew(world, worker)
    assert not await renew(world, worker + 1000)


async def test_a_clock_that_was_far_ahead_heals_itself(world: World) -> None:
    await world.tenant()
    store = await world.store()
    ahead, second = await register(world), await register(world)
    await claim(world, ahead, store)
    await expire(world, ahead, ago_seconds=-86400 * 365)
    assert not await renew(world, ahead)
    [row] = await claim(world, second, store)
    assert row.epoch == 2
    assert row.doubt_seconds == pytest.approx(QUIESCE["blib"], abs=1)


async def test_a_doubt_that_was_written_by_a_clock_far_ahead_ends_too(world: World) -> None:
    await world.tenant()
    store = await world.store()
    await world.execute("UPDATE store_lease SET doubt_until = now() + interval '1 year'")
    [row] = await claim(world, await register(world), store)
    assert row.doubt_seconds == pytest.approx(QUIESCE["blib"], abs=1)


async def test_a_claim_takes_no_more_than_its_limit_and_passes_over_what_is_being_claimed(world: World) -> None:
    await world.tenant()
    stores = [await world.store(f"store {n}") for n in range(4)]
    first, second = await register(world), await register(world)
    async with world.pool.transaction() as connection:
        taken = await lease.claim(connection, worker_id=first, store_ids=stores, quiesce_seconds=QUIESCE, limit=2)
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


async def test_workers_that_are_long_gone_are_forgotten_and_their_leases_freed_first(world: World) -> None:
    await world.tenant()
    store = await world.store()
    gone, recent = await register(world), await register(world)
    await claim(world, gone, store)
    await expire(world, gone, ago_seconds=86400 * 2)
    await expire(world, recent, ago_seconds=3600)
    for left in ([gone, recent], [recent]):
        async with world.pool.connection() as connection:
            await lease.forget_workers(connection)
        assert [row["id"] for row in await world.rows("SELECT id FROM worker ORDER BY id")] == left
        assert await world.value("SELECT worker_id FROM store_lease") is None
