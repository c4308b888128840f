"""Stores: modes, pauses, who serves them, and what a removed one leaves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lumbung.db import lease, stores
from lumbung.db.lease import StoredTokens
from lumbung.db.stores import StoreRow
from lumbung.errors import UsageError
from lumbung.model import StoreMode
from tests.db.delivering import claim, register
from tests.world import World

COVERS = {
    "add_store",
    "store_of_account",
    "set_credentials",
    "add_lease_row",
    "find_store",
    "unretired_stores",
    "list_stores",
    "set_mode",
    "pause_store",
    "pause_held_store",
    "resume_store",
    "retire_store",
    "lock_links",
    "link_warehouse",
    "unlink_warehouse",
    "settle_links",
    "newest_change",
    "unsettled_stores",
    "has_unsettled_links",
    "links_of",
    "set_account",
    "revoke_lease",
    "put_tokens",
    "forget_location",
    "lock_stores",
}


async def found(world: World, reference: str) -> StoreRow | None:
    async with world.pool.connection() as connection:
        return await stores.find_store(connection, world.tenant_id, reference)


async def test_a_new_store_observes_has_a_lease_row_and_is_found_by_name_and_id(world: World) -> None:
    tenant = await world.tenant()
    async with world.pool.transaction() as connection:
        store = await stores.add_store(
            connection, tenant_id=tenant, channel="blib", name="Padi", mode=StoreMode.OBSERVE
        )
        assert store is not None
        await stores.set_credentials(connection, tenant_id=tenant, store_id=store, credentials=b"secret")
        await stores.set_credentials(connection, tenant_id=tenant + 1, store_id=store, credentials=b"not mine")
    row = StoreRow(store, tenant, "blib", "Padi", StoreMode.OBSERVE, None, b"secret")
    assert await found(world, "Padi") == await found(world, str(store)) == row
    assert await found(world, "padi") is None
    assert await world.rows("SELECT store_id, tenant_id, worker_id, epoch FROM store_lease") == [
        {"store_id": store, "tenant_id": tenant, "worker_id": None, "epoch": 0}
    ]


async def test_a_name_is_taken_while_its_store_lives_and_free_when_it_is_removed(world: World) -> None:
    tenant = await world.tenant()
    first = await world.store("Padi")
    async with world.pool.transaction() as connection:
        assert (
            await stores.add_store(connection, tenant_id=tenant, channel="shpe", name="Padi", mode=StoreMode.LIVE)
            is None
        )
        await stores.retire(connection, tenant_id=tenant, store_id=first)
        assert await stores.find_store(connection, tenant, "Padi") is None
        assert await stores.unretired_stores(connection) == []
        second = await stores.add_store(connection, tenant_id=tenant, channel="shpe", name="Padi", mode=StoreMode.LIVE)
    assert second is not None
    assert second != first
    assert await world.value("SELECT count(*) FROM store_lease") == 2


async def test_a_name_that_is_a_number_is_found_before_the_id(world: World) -> None:
    await world.tenant()
    first = await world.store("Padi")
    second = await world.store(str(first))
    by_number = await found(world, str(first))
    assert by_number is not None
    assert by_number.id == second


@pytest.mark.parametrize("mode", [StoreMode.LIVE, StoreMode.OBSERVE])
async def test_a_pause_is_over_in_the_mode_that_was_before_it_however_often_it_was_paused(
    world: World, mode: StoreMode
) -> None:
    tenant = await world.tenant()
    store = await world.store("Padi", mode=mode)
    for reason in ("token", "by hand"):
        async with world.pool.transaction() as connection:
            await stores.pause(connection, tenant_id=tenant, store_id=store, reason=reason)
        row = await found(world, "Padi")
        assert row is not None
        assert (row.mode, row.pause_reason) == (StoreMode.PAUSED, reason)
    async with world.pool.transaction() as connection:
        assert await stores.resume(connection, tenant_id=tenant, store_id=store) is mode
        assert await stores.resume(connection, tenant_id=tenant, store_id=store) is None
    row = await found(world, "Padi")
    assert row is not None
    assert (row.mode, row.pause_reason) == (mode, None)


async def test_setting_a_mode_ends_a_pause(world: World) -> None:
    tenant = await world.tenant()
    store = await world.store("Padi")
    async with world.pool.transaction() as connection:
        await stores.pause(connection, tenant_id=tenant, store_id=store, reason="token")
        await stores.set_mode(connection, tenant_id=tenant, store_id=store, mode=StoreMode.OBSERVE)
    assert await world.rows("SELECT mode, pause_reason, mode_before_pause FROM store") == [
        {"mode": "observe", "pause_reason": None, "mode_before_pause": None}
    ]


async def test_a_removed_store_is_not_paused(world: World) -> None:
    tenant = await world.tenant()
    store = await world.store("Padi")
    async with world.pool.transaction() as connection:
        await stores.retire(connection, tenant_id=tenant, store_id=store)
        await stores.pause(connection, tenant_id=tenant, store_id=store, reason="token")
    assert await world.value("SELECT mode FROM store") == "live"


async def test_stores_are_listed_with_their_listings_and_warehouses(world: World) -> None:
    await world.tenant("other")
    await world.store("elsewhere")
    tenant = await world.tenant("Toko")
    east, west = await world.warehouse("east"), await world.warehouse("west")
    store = await world.store("Padi", warehouses={0: None, east: "SBY", west: "X"})
    await world.variants("sku1")
    await world.listings([("sku1", "Padi", "a"), ("sku1", "Padi", "b")])
    async with world.pool.transaction() as connection:
        await stores.unlink(connection, tenant_id=tenant, store_id=store, warehouse_id=west)
        [row] = await stores.list_stores(connection, tenant)
        assert len(await stores.list_stores(connection, None)) == 2
        assert [one.name for one in await stores.unretired_stores(connection)] == ["elsewhere", "Padi"]
    assert {key: row[key] for key in ("id", "tenant", "channel", "mode", "listings", "warehouses")} == {
        "id": store,
        "tenant": "Toko",
        "channel": "blib",
        "mode": "live",
        "listings": 2,
        "warehouses": {"default": None, "east": "SBY"},
    }


async def test_links_are_made_moved_undone_and_made_again_and_each_change_is_unsettled(world: World) -> None:
    tenant = await world.tenant()
    east = await world.warehouse("east")
    store = await world.store("Padi", warehouses={})
    seen: list[dict[int, str | None]] = []
    async with world.pool.transaction() as connection:

        async def look() -> None:
            seen.append(await stores.links_of(connection, tenant_id=tenant, store_id=store))
            assert await stores.has_unsettled_links(connection, tenant_id=tenant, store_id=store)
            newest = await stores.newest_change(connection, tenant_id=tenant, store_id=store)
            await stores.settle_links(connection, tenant_id=tenant, store_id=store, newest=newest - 1)
            assert await stores.has_unsettled_links(connection, tenant_id=tenant, store_id=store)
            await stores.settle_links(connection, tenant_id=tenant, store_id=store, newest=newest)
            assert not await stores.has_unsettled_links(connection, tenant_id=tenant, store_id=store)

        for location in (None, "SBY"):
            await stores.link(connection, tenant_id=tenant, store_id=store, warehouse_id=east, location=location)
            await look()
        assert await stores.unlink(connection, tenant_id=tenant, store_id=store, warehouse_id=east)
        await look()
        assert not await stores.unlink(connection, tenant_id=tenant, store_id=store, warehouse_id=east)
        await stores.link(connection, tenant_id=tenant, store_id=store, warehouse_id=east, location="JKT")
        await look()
    assert seen == [{east: None}, {east: "SBY"}, {}, {east: "JKT"}]
    assert await world.value("SELECT count(*) FROM store_warehouse") == 1


async def test_only_live_stores_with_a_change_that_was_left_are_unsettled(world: World) -> None:
    tenant = await world.tenant()
    left, recent, settled, removed = [await world.store(name) for name in ("left", "recent", "settled", "removed")]
    await world.execute(
        "UPDATE store_warehouse SET created_at = now() - interval '2 minutes' WHERE store_id <> $1", recent
    )
    async with world.pool.transaction() as connection:
        await stores.settle_links(connection, tenant_id=tenant, store_id=settled, newest=2**60)
        await stores.retire(connection, tenant_id=tenant, store_id=removed)
        assert await stores.unsettled(connection) == [(tenant, left, "left")]


async def test_two_live_stores_are_never_the_same_account(world: World) -> None:
    await world.tenant()
    async with world.pool.transaction() as connection:
        kept = await stores.add_store(
            connection, tenant_id=world.tenant_id, channel="blib", name="A", mode=StoreMode.LIVE, account="TOQ-1"
        )
        with pytest.raises(UsageError, match="Store 'A' is the account TOQ-1 already"):
            await stores.add_store(
                connection, tenant_id=world.tenant_id, channel="blib", name="B", mode=StoreMode.LIVE, account="TOQ-1"
            )
        assert kept is not None
        await stores.retire(connection, tenant_id=world.tenant_id, store_id=kept)
        again = await stores.add_store(
            connection, tenant_id=world.tenant_id, channel="blib", name="B", mode=StoreMode.LIVE, account="TOQ-1"
        )
    assert again not in (None, kept)


async def test_a_store_is_paused_by_its_holder_only_and_once_it_is_mended_no_more(world: World) -> None:
    await world.tenant()
    store = await world.store("Padi")
    [row] = await claim(world, await register(world), store)

    async def paused(epoch: int) -> bool:
        async with world.pool.transaction() as connection:
            return await stores.pause_held(
                connection, tenant_id=world.tenant_id, store_id=store, epoch=epoch, reason="why"
            )

    assert not await paused(row.epoch - 1)
    assert await paused(row.epoch)
    modes = "SELECT mode, pause_reason, mode_before_pause FROM store"
    assert await world.rows(modes) == [{"mode": "paused", "pause_reason": "why", "mode_before_pause": "live"}]
    async with world.pool.transaction() as connection:
        await stores.revoke_lease(connection, store_id=store, quiesce_seconds=60.0)
        await stores.resume(connection, tenant_id=world.tenant_id, store_id=store)
    assert not await paused(row.epoch)
    assert await world.rows(modes) == [{"mode": "live", "pause_reason": None, "mode_before_pause": None}]


async def test_a_revoked_lease_has_another_epoch_and_leaves_what_is_in_flight_in_doubt(world: World) -> None:
    """The holder stays until it has dropped the store: nobody else may send meanwhile."""
    await world.tenant()
    store, other = await world.store("Padi"), await world.store("Other")
    holder, another = await register(world), await register(world)
    await claim(world, holder, store)
    await claim(world, holder, other)
    async with world.pool.transaction() as connection:
        await stores.revoke_lease(connection, store_id=store, quiesce_seconds=60.0)
        assert await lease.held(connection, holder) == {store: 2, other: 1}
    assert await claim(world, another, store) == []
    assert await doubt_after_renewal(world, store) == 15.0 + 60.0
    assert await doubt_after_renewal(world, other) is None


async def doubt_after_renewal(world: World, store: int) -> float | None:
    """Seconds from the holder's last renewal to the end of the doubt."""
    left: float | None = await world.value(
        "SELECT extract(epoch FROM l.doubt_until - w.renewed_at)::float8 FROM store_lease l"
        " JOIN worker w ON w.id = l.worker_id WHERE l.store_id = $1",
        store,
    )
    return left


@pytest.mark.parametrize(("noted", "doubt"), [(None, 100.0 + 60.0), (5.0, 100.0 + 60.0), (300.0, 100.0 + 300.0)])
async def test_what_a_revoked_lease_leaves_in_doubt_lasts_as_long_as_the_lease_and_the_stores_calls_can(
    world: World, noted: float | None, doubt: float
) -> None:
    await world.tenant()
    store = await world.store("Padi")
    await claim(world, await register(world), store)
    await world.execute("UPDATE store_lease SET lifetime_seconds = 100, quiesce_seconds = $1", noted)
    async with world.pool.transaction() as connection:
        await stores.revoke_lease(connection, store_id=store, quiesce_seconds=60.0)
    assert await doubt_after_renewal(world, store) == doubt


async def test_revoking_a_lease_that_nobody_has_leaves_no_doubt(world: World) -> None:
    await world.tenant()
    store = await world.store("Padi")
    async with world.pool.transaction() as connection:
        await stores.revoke_lease(connection, store_id=store, quiesce_seconds=60.0)
    assert await world.rows("SELECT worker_id, epoch, doubt_until FROM store_lease") == [
        {"worker_id": None, "epoch": 1, "doubt_until": None}
    ]


async def test_a_store_takes_another_account_unless_a_live_store_is_that(world: World) -> None:
    tenant = await world.tenant()
    async with world.pool.transaction() as connection:
        for name, account in (("Padi", "A"), ("Other", "B")):
            await stores.add_store(
                connection, tenant_id=tenant, channel="blib", name=name, mode=StoreMode.LIVE, account=account
            )
        padi = await stores.find_store(connection, tenant, "Padi")
        assert padi is not None
        for account in ("A", "C"):
            await stores.change_account(connection, padi, account)
        with pytest.raises(UsageError, match=r"^Store 'Other' is the account B already"):
            await stores.change_account(connection, padi, "B")
    assert await world.rows("SELECT name, account FROM store ORDER BY id") == [
        {"name": "Padi", "account": "C"},
        {"name": "Other", "account": "B"},
    ]


async def test_tokens_that_a_person_brought_take_the_place_of_whatever_is_there(world: World) -> None:
    tenant = await world.tenant()
    store, other = await world.store("Padi"), await world.store("Other")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for blob in (b"first", b"second"):
        async with world.pool.transaction() as connection:
            new = StoredTokens(blob, blob + b"-digest", at, None)
            await stores.put_tokens(connection, tenant_id=tenant, store_id=store, new=new)
            await stores.put_tokens(connection, tenant_id=tenant + 1, store_id=other, new=new)
    rows = await world.rows(
        "SELECT tokens, tokens_digest, access_expires_at, refresh_expires_at FROM store ORDER BY id"
    )
    assert [tuple(row.values()) for row in rows] == [(b"second", b"second-digest", at, None), (None,) * 4]


async def test_a_location_is_forgotten_for_the_listings_of_one_store(world: World) -> None:
    tenant = await world.tenant()
    await world.variants("sku1", "sku2")
    for name in ("Padi", "Other"):
        await world.store(name)
        await world.listings([(sku, name, f"{name}-{sku}") for sku in ("sku1", "sku2")])
    await world.execute(
        "INSERT INTO former_location"
        " SELECT tenant_id, store_id, remote_variant, place FROM listing, unnest(ARRAY['J', 'S']) AS place"
    )
    async with world.pool.transaction() as connection:
        padi = world.stores["Padi"].id
        assert await stores.forget_location(connection, tenant_id=tenant, store_id=padi, location="J") == 2
        assert await stores.forget_location(connection, tenant_id=tenant, store_id=padi, location="J") == 0
        assert await stores.forget_location(connection, tenant_id=tenant + 1, store_id=padi, location="S") == 0
    left = await world.rows("SELECT store_id, location FROM former_location ORDER BY 1, 2")
    other = world.stores["Other"].id
    assert [tuple(row.values()) for row in left] == [
        (padi, "S"), (padi, "S"), (other, "J"), (other, "J"), (other, "S"), (other, "S")
    ]  # fmt: skip
