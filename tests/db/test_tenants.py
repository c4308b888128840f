"""Tenants, partners, warehouses, signatures and the audit."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lumbung.db import stock, tenants
from lumbung.db.tenants import PartnerRow
from lumbung.model import StockLimit, Tenant, UnknownSku
from tests.world import World

COVERS = {
    "add_tenant",
    "find_tenant",
    "set_item_deadline",
    "list_tenants",
    "add_partner",
    "find_partner",
    "list_partners",
    "rotate_partner",
    "finish_rotation",
    "partner_secrets",
    "set_partner_disabled",
    "trace_partner",
    "remember_signature",
    "forget_signatures",
    "add_warehouse",
    "add_default_warehouse",
    "list_warehouses",
    "unknown_skus",
    "add_audit",
}


async def partner(world: World, partner_id: str = "p") -> None:
    async with world.pool.transaction() as connection:
        assert await tenants.add_partner(
            connection, partner_id=partner_id, tenant_id=world.tenant_id, name="P", secret=b"one", strict=False
        )


async def found(world: World, partner_id: str = "p") -> PartnerRow:
    async with world.pool.connection() as connection:
        row = await tenants.find_partner(connection, partner_id)
    assert row is not None
    return row


async def rotate(world: World, secret: bytes, *, overlap_seconds: float = 60.0) -> bool:
    async with world.pool.transaction() as connection:
        expires_at = await tenants.rotate_partner(
            connection, partner_id="p", secret=secret, old_expires_seconds=overlap_seconds
        )
    return expires_at is not None


async def test_a_new_tenant_has_the_default_warehouse_with_id_0(world: World) -> None:
    tenant = await world.tenant("Toko", unknown_sku=UnknownSku.CREATE, channel_stock_limit=StockLimit.EACH)
    async with world.pool.connection() as connection:
        [warehouse] = await tenants.list_warehouses(connection, tenant)
        row = Tenant(tenant, "Toko", UnknownSku.CREATE, StockLimit.EACH)
        assert await tenants.find_tenant(connection, "Toko") == row
        assert await tenants.find_tenant(connection, str(tenant)) == row
        assert await tenants.find_tenant(connection, "Tok") is None
    assert (warehouse["id"], warehouse["name"], warehouse["retired_at"]) == (0, "default", None)


async def test_a_tenants_name_is_taken_once(world: World) -> None:
    first = await world.tenant("Toko")
    async with world.pool.transaction() as connection:
        second = await tenants.add_tenant(
            connection, name="Toko", unknown_sku=UnknownSku.REJECT, channel_stock_limit=StockLimit.NONE
        )
    assert second is None
    assert await world.rows("SELECT tenant_id, id FROM warehouse") == [{"tenant_id": first, "id": 0}]


async def test_tenants_are_listed_with_what_they_have(world: World) -> None:
    await world.tenant("empty")
    await world.small()
    await partner(world)
    async with world.pool.connection() as connection:
        rows = await tenants.list_tenants(connection)
    assert [(row["name"], row["partners"], row["stores"], row["variants"]) for row in rows] == [
        ("empty", 0, 0, 0),
        ("Toko", 1, 1, 1),
    ]


async def test_a_warehouses_name_is_taken_once_a_tenant(world: World) -> None:
    first = await world.tenant("a")
    east = await world.warehouse("east")
    second = await world.tenant("b")
    async with world.pool.transaction() as connection:
        assert await tenants.add_warehouse(connection, tenant_id=first, name="east") is None
        assert await tenants.add_warehouse(connection, tenant_id=first, name="default") is None
        other = await tenants.add_warehouse(connection, tenant_id=second, name="east")
        assert other is not None
        assert other > east > 0
        assert [row["name"] for row in await tenants.list_warehouses(connection, None)] == [
            "default",
            "east",
            "default",
            "east",
        ]
        assert [row["id"] for row in await tenants.list_warehouses(connection, first)] == [0, east]


async def test_a_partner_is_found_by_its_id_which_is_taken_once(world: World) -> None:
    tenant = await world.tenant()
    await partner(world)
    row = await found(world)
    assert row == PartnerRow("p", tenant, b"one", None, strict=False, disabled=False, traced=False)
    async with world.pool.transaction() as connection:
        assert not await tenants.add_partner(
            connection, partner_id="p", tenant_id=tenant, name="Q", secret=b"two", strict=True
        )
        assert await tenants.find_partner(connection, "q") is None
        assert await tenants.partner_secrets(connection) == [("p", b"one")]
    assert await found(world) == row


async def test_an_old_secret_works_until_it_is_finished(world: World) -> None:
    await world.tenant()
    await partner(world)
    async with world.pool.connection() as connection:
        assert not await tenants.finish_rotation(connection, "p")
    assert await rotate(world, b"two")
    row = await found(world)
    assert (row.secret, row.old_secret) == (b"two", b"one")
    async with world.pool.connection() as connection:
        assert await tenants.finish_rotation(connection, "p")
        assert not await tenants.finish_rotation(connection, "p")
    row = await found(world)
    assert (row.secret, row.old_secret) == (b"two", None)


async def test_an_old_secret_expires_by_the_databases_clock(world: World) -> None:
    await world.tenant()
    await partner(world)
    assert await rotate(world, b"two", overlap_seconds=3600)
    left = await world.value("SELECT old_secret_expires_at - now() FROM partner")
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    await world.execute("UPDATE partner SET old_secret_expires_at = now() - interval '1 second'")
    assert (await found(world)).old_secret is None
    async with world.pool.connection() as connection:
        [row] = await tenants.list_partners(connection)
    assert row["old_secret_expires_at"] is None


async def test_a_secret_that_is_still_live_is_not_rotated_away(world: World) -> None:
    await world.tenant()
    await partner(world)
    assert await rotate(world, b"two")
    assert not await rotate(world, b"three")
    row = await found(world)
    assert (row.secret, row.old_secret) == (b"two", b"one")
    await world.execute("UPDATE partner SET old_secret_expires_at = now() - interval '1 second'")
    assert await rotate(world, b"three")
    row = await found(world)
    assert (row.secret, row.old_secret) == (b"three", b"two")


async def test_a_partner_is_disabled_once_and_enabled_again(world: World) -> None:
    await world.tenant()
    await partner(world)
    times = []
    for disabled in (True, True, False):
        async with world.pool.connection() as connection:
            await tenants.set_partner_disabled(connection, "p", disabled=disabled)
        assert (await found(world)).disabled is disabled
        times.append(await world.value("SELECT disabled_at FROM partner"))
    assert times[0] == times[1]
    assert times[2] is None


@pytest.mark.parametrize(("seconds", "traced"), [(60.0, True), (-1.0, False)])
async def test_a_partner_is_traced_for_a_short_time(world: World, seconds: float, traced: bool) -> None:
    await world.tenant()
    await partner(world)
    async with world.pool.connection() as connection:
        await tenants.trace_partner(connection, "p", seconds=seconds)
    assert (await found(world)).traced is traced


async def test_a_signature_is_seen_once_until_it_is_forgotten(world: World) -> None:
    tenant = await world.tenant()

    async def fresh(signature: bytes, partner_id: str = "p") -> bool:
        async with world.pool.connection() as connection:
            return await tenants.remember_signature(
                connection, tenant_id=tenant, partner_id=partner_id, signature=signature
            )

    assert [await fresh(b"a"), await fresh(b"a"), await fresh(b"b"), await fresh(b"a", "q")] == [
        True,
        False,
        True,
        True,
    ]
    await world.execute("UPDATE seen_signature SET seen_at = now() - interval '61 seconds' WHERE signature = 'a'")
    async with world.pool.connection() as connection:
        await tenants.forget_signatures(connection, seconds=60)
    assert [await fresh(b"b"), await fresh(b"a")] == [False, True]


async def test_unknown_skus_are_listed_most_often_asked_for_first(world: World) -> None:
    tenant = await world.tenant()
    async with world.pool.transaction() as connection:
        await stock.count_unknown_skus(connection, [(tenant, sku) for sku in "abbbcc"])
        rows = await tenants.unknown_skus(connection, tenant_id=tenant, limit=2)
        assert await tenants.unknown_skus(connection, tenant_id=tenant + 1, limit=2) == []
    assert [(row["sku"], row["times"]) for row in rows] == [("b", 3), ("c", 2)]


async def test_what_operators_do_is_kept(world: World) -> None:
    tenant = await world.tenant()
    async with world.pool.transaction() as connection:
        await tenants.add_audit(
            connection, tenant_id=tenant, actor="cli", action="pause", subject="store 1", detail={"reason": "é"}
        )
    assert await world.rows("SELECT tenant_id, actor, action, subject, detail->>'reason' AS reason FROM audit") == [
        {"tenant_id": tenant, "actor": "cli", "action": "pause", "subject": "store 1", "reason": "é"}
    ]


async def test_the_item_deadline_of_one_tenant_is_changed(world: World) -> None:
    other, tenant = await world.tenant("Other"), await world.tenant("Toko")
    async with world.pool.transaction() as connection:
        assert await tenants.set_item_deadline(connection, tenant, seconds=90) == 3600
        assert await tenants.set_item_deadline(connection, tenant, seconds=60) == 90
    assert await world.rows("SELECT id, history_item_deadline_seconds AS seconds FROM tenant ORDER BY id") == [
        {"id": other, "seconds": 3600},
        {"id": tenant, "seconds": 60},
    ]
