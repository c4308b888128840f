"""Applications of channels: who may use them, what they may send, and what removing one leaves."""

from __future__ import annotations

from lumbung.db import applications, stores
from lumbung.db.applications import ApplicationRow
from lumbung.model import StoreMode
from tests.world import World

COVERS = {
    "add_application",
    "set_application_credentials",
    "applications_for",
    "lock_application",
    "retire_application",
    "stores_of_application",
    "application_of_identity",
}


async def add(world: World, name: str = "Main", *, tenant_id: int | None = None, channel: str = "shpe") -> int | None:
    async with world.pool.transaction() as connection:
        return await applications.add(connection, tenant_id=tenant_id, channel=channel, name=name)


async def usable(world: World, tenant_id: int | None = None, channel: str | None = None) -> list[ApplicationRow]:
    async with world.pool.connection() as connection:
        return await applications.usable(connection, tenant_id, channel)


async def store_of(world: World, application_id: int | None, name: str = "Toko Padi") -> int:
    async with world.pool.transaction() as connection:
        store_id = await stores.add_store(
            connection,
            tenant_id=world.tenant_id,
            channel="shpe",
            name=name,
            mode=StoreMode.LIVE,
            channel_app_id=application_id,
        )
    assert store_id is not None
    return store_id


async def test_a_tenant_may_use_its_own_applications_first_and_those_of_the_installation(world: World) -> None:
    other = await world.tenant("Other")
    tenant = await world.tenant("Toko")
    shared, own = await add(world, "Everybody's"), await add(world, "Mine", tenant_id=tenant)
    theirs, another = await add(world, "Theirs", tenant_id=other), await add(world, "B", tenant_id=tenant, channel="x")
    assert [row.id for row in await usable(world, tenant)] == [own, another, shared]
    assert [row.id for row in await usable(world, tenant, "shpe")] == [own, shared]
    assert [row.id for row in await usable(world)] == [own, theirs, another, shared]
    [first, *_] = await usable(world, tenant)
    assert (first.tenant_id, first.tenant, first.name, first.channel) == (tenant, "Toko", "Mine", "shpe")
    assert (first.stores, first.calls_per_second, first.burst, first.blocked_until) == (0, None, None, None)


async def test_a_name_is_taken_within_its_tenant_and_channel_only(world: World) -> None:
    tenant = await world.tenant()
    assert await add(world, tenant_id=tenant) is not None
    assert await add(world, tenant_id=tenant) is None
    assert await add(world) is not None
    assert await add(world) is None
    assert await add(world, channel="bklp") is not None


async def test_an_app_is_there_once_whatever_it_is_called_and_whosever_it_is(world: World) -> None:
    other = await world.tenant("Other")
    tenant = await world.tenant("Toko")

    async def added(name: str, tenant_id: int | None, channel: str = "shpe") -> int | None:
        async with world.pool.transaction() as connection:
            return await applications.add(
                connection, tenant_id=tenant_id, channel=channel, name=name, identity="1000001"
            )

    async def found(identity: str) -> tuple[int, str, str | None] | None:
        async with world.pool.connection() as connection:
            return await applications.of_identity(connection, channel="shpe", identity=identity)

    first = await added("Mine", tenant)
    assert first is not None
    assert await added("Theirs", other) is None
    assert await added("Everybody's", None) is None
    assert await added("Mine", tenant, channel="bklp") is not None
    assert await found("1000001") == (first, "Mine", "Toko")
    assert await found("7") is None
    async with world.pool.transaction() as connection:
        await applications.retire(connection, first)
    assert await found("1000001") is None
    shared = await added("Everybody's", None)
    assert shared is not None
    assert await found("1000001") == (shared, "Everybody's", None)


async def test_a_removed_application_is_seen_no_more_and_its_name_is_free(world: World) -> None:
    await world.tenant()
    application_id = await add(world)
    assert application_id is not None
    async with world.pool.transaction() as connection:
        assert await applications.lock(connection, application_id)
        await applications.retire(connection, application_id)
        assert not await applications.lock(connection, application_id)
    assert await usable(world) == []
    assert await add(world) not in {None, application_id}


async def test_a_limit_is_set_and_changed_and_does_not_touch_others(world: World) -> None:
    await world.tenant()
    first, second = await add(world, "1"), await add(world, "2")
    assert first is not None
    for rate, burst in ((10.0, 5), (2.5, 7)):
        async with world.pool.transaction() as connection:
            await applications.set_limit(connection, application_id=first, calls_per_second=rate, burst=burst)
    limits = {row.id: (row.calls_per_second, row.burst) for row in await usable(world)}
    assert limits == {first: (2.5, 7), second: (None, None)}


async def test_the_stores_of_an_application_come_with_what_opens_them(world: World) -> None:
    await world.tenant()
    application_id, other = await add(world), await add(world, "other")
    assert application_id is not None
    async with world.pool.transaction() as connection:
        await applications.set_credentials(connection, application_id=application_id, credentials=b"sealed")
    store, removed = await store_of(world, application_id), await store_of(world, application_id, "Gone")
    await store_of(world, other, "Not mine")
    async with world.pool.transaction() as connection:
        await stores.retire(connection, tenant_id=world.tenant_id, store_id=removed)
        found = await applications.stores_of(connection, application_id)
        by_name = await stores.find_store(connection, world.tenant_id, "Toko Padi")
    assert [(row.id, row.channel_app_id) for row in found] == [(store, application_id)]
    assert by_name is not None
    assert (by_name.channel_app_id, by_name.application_credentials) == (application_id, b"sealed")
    assert "sealed" not in repr(by_name)
    assert [row.stores for row in await usable(world) if row.id == application_id] == [1]
