"""What `lumbung doctor` reads from the database."""

from __future__ import annotations

from datetime import timedelta

from lumbung.db import doctor, partitions
from lumbung.db.partitions import PARTITIONED, partition_name, weeks
from tests.world import World

COVERS = {"server"}


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
