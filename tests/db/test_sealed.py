"""Whether a database has secrets that only the key file opens."""

from __future__ import annotations

from lumbung.db import sealed
from lumbung.db.migrate import is_writable
from lumbung.db.pool import Pool
from tests.world import World

COVERS = {"exist", "is_writable"}


async def exist(pool: Pool) -> bool:
    async with pool.connection() as connection:
        return await sealed.exist(connection)


async def test_a_new_installation_has_no_secrets(world: World, pool: Pool) -> None:
    await world.tenant()
    assert await exist(pool) is False


async def test_a_partner_a_store_and_an_application_each_have_secrets(world: World, pool: Pool) -> None:
    await world.tenant()
    await world.partner()
    assert await exist(pool) is True
    await world.execute("DELETE FROM partner")
    await world.execute("INSERT INTO channel_app (channel, name, credentials) VALUES ('shpe', 'ours', 'sealed')")
    assert await exist(pool) is True
    await world.execute("DELETE FROM channel_app")
    assert await exist(pool) is False
    await world.store()
    assert await exist(pool) is True


async def test_a_database_is_writable_unless_it_can_only_be_read(pool: Pool) -> None:
    async with pool.connection() as connection:
        assert await is_writable(connection) is True
        async with connection.transaction(readonly=True):
            assert await is_writable(connection) is False
