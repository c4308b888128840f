"""The statements of accepting, each on its own: locks, arrays, conflicts, and what must not change."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from lumbung.db import delivery, stock
from lumbung.db.query import Connection
from lumbung.errors import LockBusy
from lumbung.inventory import stock as accepting
from lumbung.inventory.variant_stock import VariantStock
from lumbung.model import StockLimit, Tenant, UnknownSku
from tests.db.delivering import DAY, Told, blocked, leased, listing_ids, record
from tests.world import PARTNER_ID, World, stock_update

COVERS = {
    "create_variants",
    "lock_variants",
    "lock_variants_by_id",
    "resolve",
    "count_unknown_skus",
    "claim_idempotency_keys",
    "forget_idempotency_keys",
    "read_stock",
    "read_listings",
    "read_reach",
    "take_ids",
    "lock_states",
    "write_states",
    "write_stock",
    "drop_contributions",
    "clear_states",
    "drop_waits",
    "write_history",
    "end_items",
    "committed",
}

PADI = "TOQ-1-1-1"
NOW = datetime(2026, 1, 5, tzinfo=UTC)


async def the_state(world: World) -> dict[str, Any]:
    [row] = await world.rows("SELECT * FROM listing_state")
    return row


async def write_state(world: World, lane: int, version: int, quantity: int) -> None:
    listing = (await listing_ids(world))[PADI]
    row = (world.tenant_id, listing, world.stores["Toko Padi"].id, lane, version, quantity)
    async with world.pool.transaction() as connection:
        await stock.write(connection, "write_states", [row])


# --- who and where ---


async def test_tenants_and_warehouses_are_found_by_what_requests_name(world: World) -> None:
    first = await world.tenant("a")
    second = await world.tenant("b", unknown_sku=UnknownSku.CREATE, channel_stock_limit=StockLimit.TOTAL)
    east = await world.warehouse("east")
    await world.warehouse("closed")
    await world.execute("UPDATE warehouse SET retired_at = now() WHERE name = 'closed'")
    names = [(first, "default"), (first, "east"), (second, "east"), (second, "closed"), (second, "default")]
    async with world.pool.connection() as connection:
        a = Tenant(first, "a", UnknownSku.REJECT, StockLimit.NONE)
        b = Tenant(second, "b", UnknownSku.CREATE, StockLimit.TOTAL)
        assert await stock.resolve(connection, [*names, (99, "default"), (second, "east")]) == {
            (first, "default"): (a, 0),
            (first, "east"): (a, None),
            (second, "default"): (b, 0),
            (second, "east"): (b, east),
            (second, "closed"): (b, None),
        }


# --- the one lock ---


async def test_variants_that_exist_are_locked_and_others_are_absent(world: World) -> None:
    tenant = await world.tenant()
    await world.variants("a", "b", "gone")
    await world.execute("UPDATE variant SET retired_at = now() WHERE sku = 'gone'")
    ids = {row["sku"]: row["id"] for row in await world.rows("SELECT id, sku FROM variant")}
    async with world.pool.transaction() as connection:
        skus = [(tenant, sku) for sku in ("b", "a", "gone", "never", "a")] + [(tenant + 1, "a")]
        assert await stock.lock_variants(connection, skus) == {(tenant, "a"): ids["a"], (tenant, "b"): ids["b"]}
        assert await can_lock(world, tenant, "gone")
        assert not await can_lock(world, tenant, "a")
        assert not await can_lock(world, tenant, "b")
    async with world.pool.transaction() as connection:
        found = await stock.lock_variants_by_id(connection, tenant, [ids["b"], ids["b"], 99])
        assert found == {ids["b"]: "b"}
        assert await can_lock(world, tenant, "a")
        assert not await can_lock(world, tenant, "b")


async def can_lock(world: World, tenant: int, sku: str) -> bool:
    try:
        async with world.pool.transaction(lock_timeout_ms=20) as connection:
            await stock.lock_variants(connection, [(tenant, sku)])
    except LockBusy:
        return False
    return True


async def test_variants_are_locked_in_one_order_whatever_the_order_of_the_skus(world: World) -> None:
    tenant = await world.tenant()
    await world.variants("m")
    await world.variants("z")
    await world.variants("a")  # the ids go m, z, a
    async with world.pool.transaction() as first:
        await stock.lock_variants(first, [(tenant, "m")])
        second = asyncio.create_task(locked_in_a_transaction(world, [(tenant, "a"), (tenant, "m"), (tenant, "z")]))
        await blocked(world)
        # Who waits for the first holds nothing of what comes after it.
        await stock.lock_variants(first, [(tenant, "z"), (tenant, "a")])
    await second


async def locked_in_a_transaction(world: World, skus: list[tuple[int, str]]) -> None:
    async with world.pool.transaction() as connection:
        await stock.lock_variants(connection, skus)


async def test_a_locked_variant_does_not_hold_up_foreign_keys(world: World) -> None:
    await world.small()
    async with world.pool.transaction() as connection:
        await stock.lock_variants(connection, [(world.tenant_id, "sku1")])
        async with world.pool.transaction(lock_timeout_ms=100) as other:
            await other.execute(
                "INSERT INTO listing (tenant_id, variant_id, store_id, remote_variant)"
                " SELECT tenant_id, variant_id, store_id, '{}' FROM listing"
            )


async def test_unknown_skus_are_made_once_and_known_ones_are_neither_written_nor_locked(world: World) -> None:
    tenant = await world.tenant()
    await world.variants("known")
    before = await world.rows("SELECT id, xmin::text, ctid::text FROM variant")
    async with world.pool.transaction() as connection:
        await stock.create_variants(connection, [(tenant, "known"), (tenant, "new"), (tenant, "new")])
        assert await can_lock(world, tenant, "known")
    assert await world.rows("SELECT id, xmin::text, ctid::text FROM variant WHERE sku = 'known'") == before
    assert await world.value("SELECT count(*) FROM variant WHERE sku = 'new'") == 1


async def test_an_unknown_sku_that_two_make_at_once_is_one_variant(world: World) -> None:
    tenant = await world.tenant()

    async def made(sku: str) -> dict[tuple[int, str], int]:
        async with world.pool.transaction() as connection:
            await stock.create_variants(connection, [(tenant, sku)])
            return await stock.lock_variants(connection, [(tenant, sku)])

    found = await asyncio.gather(*(made("new") for _ in range(8)))
    assert len({one[tenant, "new"] for one in found}) == 1


async def test_unknown_skus_are_counted(world: World) -> None:
    tenant = await world.tenant()
    async with world.pool.transaction() as connection:
        await stock.count_unknown_skus(connection, [(tenant, "b"), (tenant, "a"), (tenant, "b")])
        await stock.count_unknown_skus(connection, [(tenant, "b")])
    rows = await world.rows("SELECT sku, times, first_at <= last_at AS ordered FROM unknown_sku ORDER BY sku")
    assert rows == [{"sku": "a", "times": 1, "ordered": True}, {"sku": "b", "times": 3, "ordered": True}]


# --- idempotency keys ---


async def claimed(world: World, key: str, body: bytes, code: UUID, *, seconds: int = 60) -> tuple[bytes, UUID]:
    async with world.pool.transaction() as connection:
        found = await stock.claim_idempotency_keys(
            connection, [(world.tenant_id, PARTNER_ID, key, body, code)], seconds=seconds
        )
    return found[world.tenant_id, PARTNER_ID, key]


async def test_a_key_stands_for_its_first_body_and_code_until_it_expires(world: World) -> None:
    await world.tenant()
    first, second = uuid4(), uuid4()
    assert await claimed(world, "k", b"a", first) == (b"a", first)
    assert await claimed(world, "k", b"b", second) == (b"a", first)
    await world.execute("UPDATE idempotency_key SET created_at = now() - interval '59 seconds'")
    assert await claimed(world, "k", b"b", second) == (b"a", first)
    await world.execute("UPDATE idempotency_key SET created_at = now() - interval '61 seconds'")
    assert await claimed(world, "k", b"b", second) == (b"b", second)
    assert await claimed(world, "k", b"a", first) == (b"b", second)


async def test_keys_of_other_partners_and_tenants_are_others(world: World) -> None:
    first = await world.tenant("a")
    second = await world.tenant("b")
    claims = [(first, "p", "k", b"1", uuid4()), (first, "q", "k", b"2", uuid4()), (second, "p", "k", b"3", uuid4())]
    async with world.pool.transaction() as connection:
        found = await stock.claim_idempotency_keys(connection, claims, seconds=60)
    assert found == {(tenant, partner, key): (body, code) for tenant, partner, key, body, code in claims}


async def test_the_same_key_waits_for_the_first_ones_commit(world: World) -> None:
    await world.tenant()
    first, second = uuid4(), uuid4()
    async with world.pool.transaction() as connection:
        await stock.claim_idempotency_keys(connection, [(world.tenant_id, PARTNER_ID, "k", b"a", first)], seconds=60)
        again = asyncio.create_task(claimed(world, "k", b"a", second))
        await blocked(world)
    assert await again == (b"a", first)


async def test_only_expired_keys_are_forgotten(world: World) -> None:
    await world.tenant()
    for key in ("old", "new"):
        await claimed(world, key, b"a", uuid4())
    await world.execute("UPDATE idempotency_key SET created_at = now() - interval '61 seconds' WHERE key = 'old'")
    async with world.pool.connection() as connection:
        await stock.forget_idempotency_keys(connection, seconds=60)
    assert await world.rows("SELECT key FROM idempotency_key") == [{"key": "new"}]


# --- reading and writing ---


async def test_what_is_written_of_a_variant_is_read_again(world: World) -> None:
    await world.tenant()
    east = await world.warehouse("east")
    await world.store(warehouses={0: "J", east: None})
    await world.variants("sku1", "sku2")
    await world.listings([("sku1", "Toko Padi", PADI)])
    variant = await world.value("SELECT id FROM variant WHERE sku = 'sku1'")
    listing, store = (await listing_ids(world))[PADI], world.stores["Toko Padi"].id
    key = (world.tenant_id, variant)
    async with world.pool.transaction() as connection:
        for available in (5, 6):
            levels = [(*key, 0, available, 1, 0, True, NOW), (*key, east, available, 2, 0, False, None)]
            figures = [(*key, 0, "blib", available, available == 6)]
            contributions = [(world.tenant_id, listing, 0, available, "I", 40 + available, 7, NOW, 3)]
            await stock.write_stock(connection, contributions=contributions, levels=levels, figures=figures)
        rows = [tuple(row) for row in await stock.read(connection, "read_stock", [key])]
        assert sorted(rows, key=str) == [
            (*key, 0, 6, 1, 0, True, NOW, None, None, None),
            (*key, 0, None, None, None, None, None, "blib", 6, True),
            (*key, east, 6, 2, 0, False, None, None, None, None),
        ]
        listed = (*key, listing, store, "blib", None, 0, 0)
        rows = [tuple(row) for row in await stock.read(connection, "read_listings", [key])]
        assert sorted(rows) == [
            (*listed, 0, True, "J", 6, "I", 46, 7, NOW, 3),
            (*listed, east, True, None, *[None] * 6),
        ]
        await stock.write(connection, "drop_contributions", [(world.tenant_id, listing, 0)])
        assert [row["quantity"] for row in await stock.read(connection, "read_listings", [key])] == [None, None]
        assert await stock.read(connection, "read_stock", []) == []


async def test_one_kind_of_row_is_written_without_the_others(world: World) -> None:
    await world.small()
    [listing] = (await listing_ids(world)).values()
    async with world.pool.transaction() as connection:
        contribution = (world.tenant_id, listing, 0, 6, None, 46, 7, NOW, 3)
        await stock.write_stock(connection, contributions=[contribution], levels=[], figures=[])
        await stock.write_stock(connection, contributions=[], levels=[], figures=[])
    tables = ("contribution", "stock_level", "channel_stock")
    assert [await world.value(f"SELECT count(*) FROM {table}") for table in tables] == [1, 0, 0]  # noqa: S608


async def test_retired_listings_stores_and_links_are_not_read(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=4))
    pair = [(world.tenant_id, await world.value("SELECT id FROM variant"))]

    async def read() -> list[tuple[int, bool, int]]:
        """Warehouse, whether it serves the store, what it contributes."""
        async with world.pool.connection() as connection:
            rows = await stock.read(connection, "read_listings", pair)
        return [(row["warehouse_id"], row["serving"], row["quantity"]) for row in rows]

    assert await read() == [(0, True, 4)]
    await world.execute("UPDATE store_warehouse SET retired_at = now()")
    assert await read() == [(0, False, 4)]
    await world.execute("UPDATE store SET retired_at = now()")
    assert await read() == []
    await world.execute("UPDATE store SET retired_at = NULL")
    assert await read() == [(0, False, 4)]
    await world.execute("UPDATE listing SET retired_at = now()")
    assert await read() == []


async def test_a_listing_whose_store_nobody_serves_is_read_too(world: World) -> None:
    await world.tenant()
    await world.store(warehouses={})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", PADI)])
    async with world.pool.connection() as connection:
        variant = await world.value("SELECT id FROM variant")
        [row] = await stock.read(connection, "read_listings", [(world.tenant_id, variant)])
        assert (row["warehouse_id"], row["quantity"]) == (None, None)
        variants = {(world.tenant_id, variant): VariantStock(world.tenant_id, variant, "sku1")}
        await accepting.load(connection, variants)
    [listing] = variants[world.tenant_id, variant].listings.values()
    assert (listing.serving, listing.contributions) == ({}, {})


async def test_why_a_channel_is_out_of_reach(world: World) -> None:
    tenant = await world.tenant()
    east = await world.warehouse("east")
    await world.store()
    asked = [(tenant, "blib", 0), (tenant, "blib", east), (tenant, "shpe", 0), (tenant + 1, "blib", 0)]
    async with world.pool.connection() as connection:
        assert await stock.read_reach(connection, asked) == {
            (tenant, "blib", 0): (True, True),
            (tenant, "blib", east): (True, False),
            (tenant, "shpe", 0): (False, False),
            (tenant + 1, "blib", 0): (False, False),
        }


async def test_versions_and_item_ids_only_grow_and_versions_carry_their_time(world: World) -> None:
    async with world.pool.connection() as connection:
        versions, items = await stock.take_ids(connection, versions=3, items=2)
        others = await stock.take_ids(connection, versions=2, items=4)
        assert await stock.take_ids(connection, versions=0) == ([], [])
    versions, items = versions + others[0], items + others[1]
    numbers, times = [number for number, _ in versions], [at for _, at in versions]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    assert times == sorted(times)
    assert items == list(range(items[0], items[0] + 6))


# --- states ---


async def test_a_listing_becomes_due_and_a_newer_version_replaces_the_older(world: World) -> None:
    await world.small()
    await write_state(world, 2, 5, 20)
    assert {k: v for k, v in (await the_state(world)).items() if k in {"state", "lane", "version_due"}} == {
        "state": "due",
        "lane": 2,
        "version_due": 5,
    }
    await write_state(world, 1, 6, 0)
    state = await the_state(world)
    assert (state["state"], state["lane"], state["version_due"], state["quantity_due"]) == ("due", 1, 6, 0)
    assert (state["version_delivered"], state["version_settled"], state["quantity_delivered"]) == (0, 0, None)


PARKED = "state = 'parked', lane = 0, park_reason = 'a', parked_at = now()"
ASKING = "due_for = 'ask', handle = 'h', handle_version = 5, handle_quantity = 20, handle_at = now()"

# What is written on what was there: state, lane, park_reason, due_for.
WRITTEN_ON = {
    "state = 'due'": ("due", 2, None, "push"),
    "state = 'due', lane = 5, attempts = 1": ("due", 5, None, "push"),
    "state = 'due', lane = 1, attempts = 1": ("due", 5, None, "push"),
    "state = 'due', lane = 3, due_for = 'confirm'": ("due", 2, None, "push"),
    f"state = 'due', lane = 3, {ASKING}": ("due", 2, None, "ask"),
    "state = 'idle', lane = 0": ("due", 2, None, "push"),
    "state = 'waiting', lane = 0": ("waiting", 0, None, "push"),
    "state = 'waiting', lane = 0, attempts = 3, due_for = 'reconcile'": ("waiting", 0, None, "push"),
    f"state = 'waiting', lane = 0, {ASKING}": ("waiting", 0, None, "ask"),
    f"{PARKED}, park_retry_at = now() + interval '1 hour'": ("parked", 0, "a", "push"),
    f"{PARKED}, park_retry_at = now() - interval '1 hour'": ("parked", 0, "a", "push"),
    PARKED: ("due", 3, None, "push"),
}


@pytest.mark.parametrize("before", WRITTEN_ON)
async def test_a_newer_version_finds_a_listing_as_it_is_and_makes_of_it_what_it_may(world: World, before: str) -> None:
    """Waiting goes on; a parked one is left to its row in listing_wait as long as there is one."""
    await world.small()
    await write_state(world, 1, 5, 20)
    since = (await the_state(world))["due_since"]
    await world.execute(f"UPDATE listing_state SET {before}")  # noqa: S608
    await write_state(world, 2, 6, 30)
    state = await the_state(world)
    assert (state["state"], state["lane"], state["park_reason"], state["due_for"]) == WRITTEN_ON[before]
    assert (state["version_due"], state["quantity_due"], state["due_since"]) == (6, 30, since)


async def test_a_listing_is_due_since_the_first_version_that_is_not_delivered(world: World) -> None:
    await world.small()
    before = await world.value("SELECT clock_timestamp()")
    await write_state(world, 1, 5, 20)
    first = (await the_state(world))["due_since"]
    assert before < first < await world.value("SELECT clock_timestamp()")
    await world.execute("UPDATE listing_state SET state = 'idle', lane = 0, due_since = NULL")
    await write_state(world, 1, 6, 20)
    assert (await the_state(world))["due_since"] > first


async def test_a_parked_listing_whose_wait_ends_while_an_update_queues_for_it_comes_back(world: World) -> None:
    """The release holds the row and finds nothing newer; the update that waits for it sees that no wait is left."""
    await world.small()
    await world.accepted(stock_update(blib=1))
    held, row = await leased(world), await the_state(world)
    await record(world, held, Told(row["listing_id"], row["version_due"], 1, "parked"))
    await world.execute("UPDATE listing_wait SET due_at = now() - interval '1 second'")
    async with world.pool.transaction() as releasing:
        await delivery.release_waits(releasing, store_ids=[held.store_id], wait_seconds_max=DAY, limit=10)
        updating = asyncio.create_task(world.accepted(stock_update(blib=2)))
        await blocked(world)
    await updating
    state = await the_state(world)
    assert (state["state"], state["lane"], state["quantity_due"], state["park_reason"]) == ("due", 3, 2, None)
    assert await world.rows("SELECT * FROM listing_wait") == []


async def test_clearing_settles_everything_and_touches_nothing_else(world: World) -> None:
    await world.small()
    await world.listings([("sku1", "Toko Padi", "other")])
    await world.accepted(stock_update(blib=20))
    ids, held = await listing_ids(world), await leased(world)
    version = (await the_states(world))["other"]["version_due"]
    await record(world, held, *(Told(listing, version, 20, "parked", message="why") for listing in ids.values()))
    other = (await the_states(world))["other"]
    async with world.pool.transaction() as connection:
        await stock.lock_states(connection, [(world.tenant_id, ids[PADI])])
        await stock.write(connection, "clear_states", [(world.tenant_id, ids[PADI], version + 50)])
        await stock.write(connection, "drop_waits", [(world.tenant_id, ids[PADI])])
    state = (await the_states(world))[PADI]
    assert (state["state"], state["lane"], state["park_reason"]) == ("idle", 0, None)
    assert (state["version_due"], state["version_settled"], state["version_delivered"]) == (version + 50,) * 2 + (0,)
    assert (await the_states(world))["other"] == other
    assert await world.rows("SELECT listing_id FROM listing_wait") == [{"listing_id": ids["other"]}]


async def test_clearing_forgets_what_was_under_way(world: World) -> None:
    """Nothing is left to ask, to retry or to raise; a doubt stays, because the call may still take effect."""
    await world.small()
    await write_state(world, 2, 5, 20)
    await world.execute(
        f"UPDATE listing_state SET {ASKING}, state = 'parked', lane = 0, park_reason = 'a', park_retry_at = now(),"  # noqa: S608
        " failing_since = now(), quantity_floor = 3, quantity_doubtful = 20, doubtful_until = now() + interval '1 day'"
    )
    listing = (await listing_ids(world))[PADI]
    async with world.pool.transaction() as connection:
        await stock.write(connection, "clear_states", [(world.tenant_id, listing, 9)])
    state = await the_state(world)
    forgotten = (
        "park_reason", "park_retry_at", "due_since", "failing_since", "quantity_floor",
        "handle", "handle_version", "handle_quantity", "handle_at",
    )  # fmt: skip
    assert {name: state[name] for name in forgotten} == dict.fromkeys(forgotten)
    assert (state["state"], state["lane"], state["due_for"], state["quantity_doubtful"]) == ("idle", 0, "push", 20)
    assert state["doubtful_until"] is not None


async def the_states(world: World) -> dict[str, dict[str, Any]]:
    return await world.states()


# --- history ---


async def updates_with_items(world: World, connection: Connection, count: int) -> tuple[int, list[int]]:
    """An update with so many open items, made at NOW's week of the database; returns its id and its items'."""
    [(version, at)], items = await stock.take_ids(connection, versions=1, items=count)
    update = (world.tenant_id, at, version, uuid4(), PARTNER_ID, count, count)
    rows = [(world.tenant_id, at, version, item, None, 0, 0, 1, "blib", 5, None, None) for item in items]
    await stock.write_history(connection, updates=[update], items=rows, changes=[])
    return version, items


def ending(world: World, at: datetime, version: int, item: int, calls: int = 1) -> tuple[Any, ...]:
    return (world.tenant_id, at, version, item, True, "Superseded by x", calls)


async def test_ending_items_twice_ends_and_counts_them_once(world: World) -> None:
    await world.tenant()
    async with world.pool.transaction() as connection:
        version, [first, second] = await updates_with_items(world, connection, 2)
    at = await world.value("SELECT created_at FROM stock_update")
    seen = []
    for item in (first, first, second, second):
        async with world.pool.transaction() as connection:
            await stock.write(connection, "end_items", [ending(world, at, version, item, calls=4)])
        [row] = await world.rows("SELECT items_open, updated_at, finished_at IS NOT NULL AS finished FROM stock_update")
        seen.append((row["items_open"], row["finished"], row["updated_at"]))
    assert [(count, finished) for count, finished, _ in seen] == [(1, False), (1, False), (0, True), (0, True)]
    assert at < seen[0][2] == seen[1][2] < seen[2][2] == seen[3][2]
    rows = await world.rows("SELECT success, message, client_response, retries FROM item ORDER BY id")
    assert rows == [{"success": True, "message": "Superseded by x", "client_response": "", "retries": 3}] * 2


async def test_items_of_one_record_ended_by_two_at_once_are_both_counted(world: World) -> None:
    await world.tenant()
    async with world.pool.transaction() as connection:
        version, [first, second] = await updates_with_items(world, connection, 2)
    at = await world.value("SELECT created_at FROM stock_update")

    async def end(item: int) -> None:
        async with world.pool.transaction() as connection:
            await stock.write(connection, "end_items", [ending(world, at, version, item)])

    async with world.pool.transaction() as connection:
        await stock.write(connection, "end_items", [ending(world, at, version, first)])
        other = asyncio.create_task(end(second))
        await blocked(world)
    await other
    assert await world.value("SELECT items_open FROM stock_update") == 0


async def test_an_item_never_ends_before_it_was_made(world: World) -> None:
    """The transaction that overtakes it may have begun before it: it waited for the variant."""
    await world.small()
    async with world.pool.transaction() as early:
        await early.execute("SELECT now()")
        await world.accepted(stock_update(blib=20))
        [open_item] = await world.rows("SELECT * FROM item")
        row = ending(world, open_item["created_at"], open_item["update_id"], open_item["id"])
        await stock.write(early, "end_items", [row])
    [recorded] = await world.history()
    [item] = recorded.items
    assert item.finished_at is not None
    assert item.finished_at > item.created_at
    assert recorded.updated_at > recorded.created_at


async def test_an_update_without_open_items_is_finished_when_it_is_made(world: World) -> None:
    await world.tenant()
    async with world.pool.transaction() as connection:
        [(version, at)], _ = await stock.take_ids(connection, versions=1)
        update = (world.tenant_id, at, version, uuid4(), PARTNER_ID, 1, 0)
        item = (world.tenant_id, at, version, 1, None, 0, 0, 1, "shpe", 5, False, "No connector")
        change = (world.tenant_id, at, version, 0, 1, 0, 9, 1, True, '{"shpe": 5}', NOW, True, None)
        await stock.write_history(connection, updates=[update], items=[item], changes=[change])
        assert await stock.committed(connection, tenant_id=world.tenant_id, created_at=at, update_id=version)
        assert not await stock.committed(connection, tenant_id=world.tenant_id, created_at=at, update_id=version + 1)
        assert not await stock.committed(connection, tenant_id=world.tenant_id + 1, created_at=at, update_id=version)
        later = at + timedelta(microseconds=1)
        assert not await stock.committed(connection, tenant_id=world.tenant_id, created_at=later, update_id=version)
    [written] = await world.rows("SELECT created_at, updated_at, finished_at FROM stock_update")
    assert set(written.values()) == {at}
    [ended] = await world.rows("SELECT success, message, client_response, finished_at FROM item")
    assert ended == {"success": False, "message": "No connector", "client_response": "", "finished_at": at}
    [stored] = await world.rows("SELECT available, buffer, sync, figures, as_of, applied, replaced FROM stock_change")
    assert tuple(stored.values()) == (9, 1, True, '{"shpe": 5}', NOW, True, None)


async def test_nothing_to_write_is_no_statement(world: World) -> None:
    async with world.pool.transaction() as connection:
        await connection.execute("SET TRANSACTION READ ONLY")
        await stock.write_stock(connection, contributions=[], levels=[], figures=[])
        await stock.write_history(connection, updates=[], items=[], changes=[])
        await stock.write(connection, "end_items", [])
