"""Variants and listings as imports and people read and write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lumbung.db import catalogue
from lumbung.db.catalogue import ListingRow
from lumbung.errors import LockBusy
from tests.world import World, stock_update

COVERS = {
    "put_variants",
    "variants_by_sku",
    "live_listings",
    "listings_by_id",
    "retire_listings",
    "add_listings",
    "listings_of_store",
    "calling_states",
    "doubt_states",
    "doubted_places",
    "list_listings",
    "stock_of_sku",
    "contributions_of_sku",
}

PADI = '{"blibli_sku": "TOQ-1-1-1"}'


async def test_variants_are_made_renamed_and_taken_out_of_retirement(world: World) -> None:
    tenant = await world.tenant()
    async with world.pool.transaction() as connection:
        assert await catalogue.put_variants(connection, tenant, [("b", "B"), ("a", "A")]) == 2
        ids = await catalogue.variants_by_sku(connection, tenant, ["a", "b", "c"])
        assert sorted(ids) == ["a", "b"]
        await connection.execute("UPDATE variant SET retired_at = now() WHERE sku = 'a'")
        assert list(await catalogue.variants_by_sku(connection, tenant, ["a", "b"])) == ["b"]
        assert await catalogue.put_variants(connection, tenant, [("a", "Again"), ("c", "C")]) == 1
        assert (await catalogue.variants_by_sku(connection, tenant, ["a"])) == {"a": ids["a"]}
        assert await catalogue.variants_by_sku(connection, tenant + 1, ["a"]) == {}
    assert await world.value("SELECT name FROM variant WHERE sku = 'a'") == "Again"


async def test_a_place_has_one_live_listing(world: World) -> None:
    await world.small()
    tenant, store = world.tenant_id, world.stores["Toko Padi"].id
    variant = await world.value("SELECT id FROM variant")
    async with world.pool.transaction() as connection:
        [first] = (await catalogue.live_listings(connection, tenant, [(store, PADI), (store, "{}")])).values()
        assert (first.variant_id, first.store_id, first.remote_variant) == (variant, store, PADI)
        assert await catalogue.listings_by_id(connection, tenant, [first.id, 99]) == [first]
        assert await catalogue.live_listings(connection, tenant + 1, [(store, PADI)]) == {}
    with pytest.raises(LockBusy, match="Another import maps the same listings at this moment; try again"):
        async with world.pool.transaction() as connection:
            await catalogue.add_listings(connection, tenant, [(variant, store, PADI)])
    async with world.pool.transaction() as connection:
        await catalogue.retire_listings(connection, tenant, [first.id])
        retired_at = await connection.fetchval("SELECT retired_at FROM listing")
        assert await catalogue.live_listings(connection, tenant, [(store, PADI)]) == {}
        assert await catalogue.listings_by_id(connection, tenant, [first.id]) == []
        [second] = await catalogue.add_listings(connection, tenant, [(variant, store, PADI)])
    assert second == ListingRow(second.id, variant, store, PADI)
    assert second.id > first.id
    async with world.pool.transaction() as connection:
        await catalogue.retire_listings(connection, tenant, [first.id])
    assert await world.value("SELECT retired_at FROM listing WHERE id = $1", first.id) == retired_at


async def test_a_stores_listings_come_in_chunks_in_order(world: World) -> None:
    await world.tenant()
    store = await world.store()
    await world.store("other")
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", name) for name in "dbace"] + [("sku1", "other", "bb")])
    await world.execute("""UPDATE listing SET retired_at = now() WHERE remote_variant = '{"blibli_sku": "c"}'""")
    seen: list[list[str]] = []
    after = ""
    async with world.pool.connection() as connection:
        while chunk := await catalogue.listings_of_store(
            connection, tenant_id=world.tenant_id, store_id=store, after=after, limit=2
        ):
            seen.append([row.remote_variant for row in chunk])
            after = chunk[-1].remote_variant
    assert [[name[-3] for name in chunk] for chunk in seen] == [["a", "b"], ["d", "e"]]


async def test_listings_are_listed_with_what_they_show(world: World) -> None:
    await world.small()
    store = await world.store("other")
    await world.variants("sku2")
    await world.listings([("sku2", "other", "x")])
    await world.accepted(stock_update(blib=20))

    async def listed(store_id: int | None = None, sku: str | None = None, limit: int = 9) -> list[tuple[object, ...]]:
        async with world.pool.connection() as connection:
            rows = await catalogue.list_listings(
                connection, tenant_id=world.tenant_id, store_id=store_id, sku=sku, limit=limit
            )
        return [(row["sku"], row["store"], row["state"], row["quantity_due"]) for row in rows]

    first, second = ("sku1", "Toko Padi", "due", 20), ("sku2", "other", None, None)
    assert await listed() == [first, second]
    assert await listed(limit=1) == await listed(sku="sku1") == [first]
    assert await listed(store_id=store) == [second]
    assert await listed(store_id=store, sku="sku1") == []


async def test_what_decides_a_skus_quantities_is_shown_by_warehouse(world: World) -> None:
    await world.tenant()
    east = await world.warehouse("east")
    await world.store(warehouses={0: "J", east: None})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", "a")])
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    await world.accepted(stock_update(available=9, buffer=2, as_of=noon, blib=5, shpe=4))
    await world.accepted(stock_update(available=3, sync=True, warehouse="east"))
    async with world.pool.connection() as connection:
        levels = await catalogue.stock_of_sku(connection, tenant_id=world.tenant_id, sku="sku1")
        adds = await catalogue.contributions_of_sku(connection, tenant_id=world.tenant_id, sku="sku1")
        assert await catalogue.stock_of_sku(connection, tenant_id=world.tenant_id, sku="sku2") == []
    named = {"blib": {"quantity": 5, "named": True}, "shpe": {"quantity": 4, "named": True}}
    assert [{key: row[key] for key in row if key != "updated_at"} for row in levels] == [
        {
            "warehouse": "default",
            "available": 9,
            "buffer": 2,
            "reserved": 0,
            "sync": False,
            "newest_as_of": noon,
            "figures": named,
        },
        {
            "warehouse": "east",
            "available": 3,
            "buffer": 0,
            "reserved": 0,
            "sync": True,
            "newest_as_of": None,
            "figures": {},
        },
    ]
    assert [(row["warehouse"], row["quantity"], row["location"]) for row in adds] == [
        ("default", 5, "J"),
        ("east", 3, None),
    ]


async def test_a_place_is_in_doubt_as_long_as_a_call_of_a_listing_that_is_gone(world: World) -> None:
    await world.small()
    [row] = await world.rows("SELECT id, store_id, remote_variant FROM listing")
    listing, place = row["id"], (row["store_id"], row["remote_variant"])
    async with world.pool.transaction() as connection:

        async def doubted(tenant_id: int = world.tenant_id) -> dict[tuple[int, str], float]:
            return await catalogue.doubted_places(connection, tenant_id, [place, (place[0], "another")])

        await catalogue.doubt_states(connection, world.tenant_id, {listing: 600.0})
        assert await doubted() == {}  # it is still there
        await catalogue.retire_listings(connection, world.tenant_id, [listing])
        assert await doubted() == {place: pytest.approx(600.0, abs=30)}
        assert await doubted(world.tenant_id + 1) == {}
        await catalogue.doubt_states(connection, world.tenant_id, {listing: -1.0})
        assert await doubted() == {}


async def test_listings_whose_calls_may_take_effect_are_found_and_doubted(world: World) -> None:
    await world.small()
    await world.variants("sku2", "sku3")
    await world.listings([("sku2", "Toko Padi", "b"), ("sku3", "Toko Padi", "c")])
    await world.accept(*(stock_update(sku, blib=5) for sku in ("sku1", "sku2", "sku3")))
    ids = {remote: row["listing_id"] for remote, row in (await world.states()).items()}
    await world.execute("UPDATE listing_state SET state = 'idle', lane = 0 WHERE listing_id <> $1", ids["b"])
    async with world.pool.transaction() as connection:

        async def calling(tenant_id: int = world.tenant_id) -> dict[int, float]:
            return await catalogue.calling_states(
                connection, tenant_id, list(ids.values()), seconds=120.0, submitted_seconds=3600.0
            )

        assert await calling() == {ids["b"]: 120.0}
        await catalogue.doubt_states(connection, world.tenant_id, {ids["c"]: 60.0})
        assert await calling() == {ids["b"]: 120.0, ids["c"]: 120.0}
        await catalogue.doubt_states(connection, world.tenant_id, {ids["c"]: 600.0})
        assert (await calling())[ids["c"]] == pytest.approx(600.0, abs=30)
        await catalogue.doubt_states(connection, world.tenant_id, {ids["c"]: -1.0})
        assert await calling() == {ids["b"]: 120.0}
        assert await calling(world.tenant_id + 1) == {}
        await connection.execute("UPDATE store_lease SET quiesce_seconds = 300, lifetime_seconds = 15")
        assert await calling() == {ids["b"]: 315.0}
        await connection.execute(
            "UPDATE listing_state SET state = 'waiting', lane = 0, handle = 'h', handle_version = 1,"
            " handle_quantity = 1, handle_at = now() WHERE listing_id = $1",
            ids["b"],
        )
        assert await calling() == {ids["b"]: 3915.0}
