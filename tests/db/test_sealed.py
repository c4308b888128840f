"""Whether a database has secrets that only the key file opens."""

from __future__ import annotations

import pytest

from lumbung.db import sealed
from lumbung.db.pool import Pool
from lumbung.db.migrate import is_writable
from tests.world import World

COVERS = ["exist", "is_writable"]


async def exist(pool: Pool) -> bool:
    async with pool.connection() as connection:
        return await sealed.exist(connection)


async def test_a_new_database_has_none(world: World, pool: Pool) -> None:
    await world.tenant()
    assert await exist(pool) is False
