"""What `lumbung doctor` reads from the database."""

from __future__ import annotations

from datetime import timedelta

from lumbung.db import doctor, lease, partitions
from lumbung.db.partitions import PARTITIONED, partition_name, weeks
from tests.world import World, stock_update

COVERS = {"server", "delivering"}


async def test_a_server_tells_its_version_and_its_time(world: World) -> None:
    async with world.pool.connection() as connection:
        server = await doctor.server(connection)
        assert server.version == await connection.fetchval("SHOW server_version")
        later = await connection.fetchval("SELECT clock_timestamp()")
        assert timedelta(0) <= later - server.now < timedelta(seconds=20)


async def test_partitions_that_the_days_ahead_need_are_missing_until_they_are_made(world: World) -> None:
    now = await world.value("SELECT now()")
    async with world.pool.connection() as connection:
        missing = await doctor.missing_partitions(connection, now=now, ahead_days=40)
        [*_, last] = weeks(now, now + timedelta(days=40))
        assert set(missing) >= {partition_name(parent, last) for parent in PARTITIONED}
        assert sorted(await partitions.ensure(world.pool, ahead_days=40)) == sorted(missing)
        assert await doctor.missing_partitions(connection, now=now, ahead_days=40) == []


async def test_who_delivers_and_what_for(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=3))
    async with world.pool.connection() as connection:
        assert await doctor.delivering(connection) == doctor.Delivering(workers=0, live_stores=1, due=1, waiting=0)
        worker_id = await lease.register(connection, name="w", lifetime_seconds=60, channels=["blib"])
        assert (await doctor.delivering(connection)).workers == 1
        await lease.stop(connection, worker_id)
        assert (await doctor.delivering(connection)).workers == 0
