"""What changes the set of listings or who serves them, alone and at the same moment as updates."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from lumbung.db import catalogue
from lumbung.db import stock as stock_db
from lumbung.db import stores as stores_db
from lumbung.db.catalogue import ListingRow
from lumbung.db.query import Connection
from lumbung.errors import LockBusy
from lumbung.inventory import stock, stores
from lumbung.inventory.listings import Imported, Mapped, import_listings, recompute, remove_listings
from lumbung.inventory.variant_stock import VariantStock
from lumbung.model import StoreMode
from lumbung.settings import Settings
from tests.db.delivering import Told, blocked, leased, listing_ids, record, record_on, window
from tests.world import REMAP_DOUBT_SECONDS, SUBMITTED_SECONDS, World, stock_update

SETTINGS = Settings(chunk_rows_max=2)
PADI = "TOQ-1-1-1"
ROUNDS = 30


@dataclass
class Progress:
    chunks: list[int] = field(default_factory=list)

    def __call__(self, count: int) -> None:
        self.chunks.append(count)


def mapped(world: World, sku: str, remote: str, store: str = "Toko Padi") -> Mapped:
    row = world.stores[store]
    return Mapped(sku, row.id, row.channel, json.dumps({"blibli_sku": remote}))


async def imported(world: World, *rows: Mapped) -> Imported:
    async with world.pool.transaction() as connection:
        return await imported_on(connection, world, *rows)


async def imported_on(connection: Connection, world: World, *rows: Mapped) -> Imported:
    return await import_listings(
        connection,
        world.tenant_id,
        rows,
        remap_doubt_seconds=REMAP_DOUBT_SECONDS,
        submitted_seconds=SUBMITTED_SECONDS,
    )


async def removed_on(connection: Connection, world: World, *listings: ListingRow) -> int:
    return await remove_listings(
        connection,
        world.tenant_id,
        listings,
        "Taken away",
        remap_doubt_seconds=REMAP_DOUBT_SECONDS,
        submitted_seconds=SUBMITTED_SECONDS,
    )


async def settle(world: World) -> Progress:
    progress = Progress()
    await stores.settle(world.pool, SETTINGS, world.stores["Toko Padi"], progress)
    return progress


async def link(world: World, warehouse: int, location: str | None = None) -> Progress:
    store = world.stores["Toko Padi"]
    async with world.pool.transaction() as connection:
        await stores_db.link(
            connection, tenant_id=world.tenant_id, store_id=store.id, warehouse_id=warehouse, location=location
        )
    return await settle(world)


async def unlink_unsettled(world: World, warehouse: int) -> bool:
    store = world.stores["Toko Padi"]
    async with world.pool.transaction() as connection:
        return await stores_db.unlink(connection, tenant_id=world.tenant_id, store_id=store.id, warehouse_id=warehouse)


async def unlink(world: World, warehouse: int) -> bool:
    served = await unlink_unsettled(world, warehouse)
    await settle(world)
    return served


async def ends(world: World) -> list[list[tuple[str, bool]]]:
    """Each record's items as (message, success), newest record first; open items have no message."""
    return [[(item.message, item.success) for item in recorded.items] for recorded in await world.history()]


async def versions(world: World) -> dict[str, int | None]:
    return {remote: row["version_due"] for remote, row in (await world.states()).items()}


async def two_warehouses(world: World, **figures: int) -> int:
    """sku1 listed in a store that `default` and `east` serve, each with its figure if given; returns east."""
    await world.tenant()
    east = await world.warehouse("east")
    await world.store(warehouses={0: None, east: None})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", PADI)])
    for warehouse, figure in figures.items():
        await world.accepted(stock_update(warehouse=warehouse, blib=figure))
    return east


# --- imports ---


async def test_an_import_counts_what_is_new_unchanged_and_moved(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    rows = [mapped(world, "sku1", PADI), mapped(world, "sku1", "b"), mapped(world, "sku2", "c")]
    assert await imported(world, *rows) == Imported(added=2, unchanged=1, remapped=0)
    moved = [mapped(world, "sku2", PADI), mapped(world, "sku1", "b"), mapped(world, "sku2", "d")]
    assert await imported(world, *moved) == Imported(added=1, unchanged=1, remapped=1)


async def test_an_import_of_what_is_there_sends_nothing(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    before = await world.states()
    assert await imported(world, mapped(world, "sku1", PADI)) == Imported(0, 1, 0)
    assert await world.states() == before
    assert await ends(world) == [[("", False)]]


async def test_a_new_listing_is_sent_what_is_known_and_nothing_when_nothing_is(world: World) -> None:
    await two_warehouses(world, default=20, east=3)
    await world.variants("empty")
    await imported(world, mapped(world, "sku1", "new"), mapped(world, "empty", "none"))
    assert await world.due() == {PADI: 23, "new": 23, "none": None}
    assert (await world.states())["none"]["state"] is None
    assert [len(recorded.items) for recorded in await world.history()] == [1, 1]


async def test_a_remap_retires_the_listing_ends_its_items_and_shows_the_other_skus_stock(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accepted(stock_update(blib=20))
    await world.accepted(stock_update("sku2", blib=5))
    old = (await listing_ids(world))[PADI]
    await imported(world, mapped(world, "sku2", PADI))
    new = (await listing_ids(world))[PADI]
    assert new != old
    assert await world.due() == {PADI: 5}
    assert (await ends(world))[1] == [("The listing was mapped to another SKU", False)]
    assert await world.rows("SELECT state, lane FROM listing_state WHERE listing_id = $1", old) == [
        {"state": "idle", "lane": 0}
    ]
    # What the old SKU does no longer concerns the place.
    await world.accepted(stock_update(blib=1))
    assert await world.due() == {PADI: 5}


async def test_an_answer_for_a_remapped_listing_marks_neither(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accepted(stock_update(blib=20))
    await world.accepted(stock_update("sku2", blib=5))
    held, old = await leased(world), (await world.states())[PADI]
    await imported(world, mapped(world, "sku2", PADI))
    before = await world.states(), await world.history()
    await record(world, held, Told(old["listing_id"], old["version_due"], 20))
    assert (await world.states(), await world.history()) == before


DOUBT = "SELECT extract(epoch FROM doubtful_until - clock_timestamp())::float8 FROM listing_state WHERE listing_id = $1"


SUBMITTED = "state = 'waiting', lane = 0, handle = 'f', handle_version = 1, handle_quantity = 1, handle_at = now()"


@pytest.mark.parametrize(
    ("under_way", "seconds"),
    [
        ("state = 'due', lane = 1", REMAP_DOUBT_SECONDS),
        ("state = 'idle', lane = 0, doubtful_until = now() + interval '1 s'", REMAP_DOUBT_SECONDS),
        ("state = 'idle', lane = 0, doubtful_until = now() + interval '600 s'", 600.0),
        (SUBMITTED, REMAP_DOUBT_SECONDS + SUBMITTED_SECONDS),
    ],
)
async def test_what_is_delivered_after_a_remap_is_confirmed_when_a_call_may_have_been_under_way(
    world: World, under_way: str, seconds: float
) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accept(stock_update(blib=20), stock_update("sku2", blib=5))
    await world.execute(f"UPDATE listing_state SET {under_way}, quantity_doubtful = 20")  # noqa: S608
    await imported(world, mapped(world, "sku2", PADI))
    state = (await world.states())[PADI]
    assert (state["quantity_due"], state["quantity_doubtful"]) == (5, None)
    assert seconds - 30 < await world.value(DOUBT, state["listing_id"]) <= seconds


async def test_a_place_whose_listing_was_removed_while_a_call_was_in_doubt_is_confirmed_under_its_next_sku(
    world: World,
) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accept(stock_update(blib=20), stock_update("sku2", blib=5))
    await world.execute("UPDATE listing_state SET doubtful_until = now() + interval '600 s', quantity_doubtful = 20")
    ids = [row["listing_id"] for row in (await world.states()).values()]
    async with world.pool.transaction() as connection:
        assert (
            await removed_on(connection, world, *await catalogue.listings_by_id(connection, world.tenant_id, ids)) == 1
        )
    await imported(world, mapped(world, "sku2", PADI))
    state = (await world.states())[PADI]
    assert (state["quantity_due"], state["quantity_doubtful"]) == (5, None)
    assert 570 < await world.value(DOUBT, state["listing_id"]) <= 600


async def test_what_a_remapped_place_is_told_first_is_confirmed_although_its_figure_comes_later(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accepted(stock_update(blib=20))
    await imported(world, mapped(world, "sku2", PADI))
    assert await world.due() == {PADI: None}
    await world.accepted(stock_update("sku2", blib=5))
    state = (await world.states())[PADI]
    assert (state["state"], state["quantity_due"], state["quantity_doubtful"]) == ("due", 5, None)
    assert REMAP_DOUBT_SECONDS - 30 < await world.value(DOUBT, state["listing_id"]) <= REMAP_DOUBT_SECONDS


@pytest.mark.parametrize("state", ["'idle', lane = 0", "'parked', lane = 0, park_reason = 'why'"])
async def test_a_remap_of_a_listing_without_a_call_leaves_no_doubt(world: World, state: str) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accept(stock_update(blib=20), stock_update("sku2", blib=5))
    await world.execute(f"UPDATE listing_state SET state = {state}")  # noqa: S608
    await imported(world, mapped(world, "sku2", PADI))
    assert (await world.states())[PADI]["doubtful_until"] is None


async def test_a_remap_to_a_sku_without_a_figure_has_nothing_to_tell(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    await world.accepted(stock_update(blib=20))
    await imported(world, mapped(world, "sku2", PADI))
    assert (await world.states())[PADI]["state"] == "idle"
    assert await world.due() == {PADI: None}


async def test_a_link_that_is_made_while_listings_are_recomputed_stays_unsettled(world: World) -> None:
    await world.small()
    east, west = await world.warehouse("east"), await world.warehouse("west")
    store = world.stores["Toko Padi"]

    async def serve(warehouse: int) -> None:
        async with world.pool.transaction() as connection:
            await stores_db.link(
                connection, tenant_id=world.tenant_id, store_id=store.id, warehouse_id=warehouse, location=None
            )

    await serve(east)
    async with world.pool.transaction() as connection:
        await connection.execute("SELECT FROM variant FOR NO KEY UPDATE")
        task = asyncio.create_task(settle(world))
        await blocked(world)
        await serve(west)
    await task
    rows = await world.rows("SELECT warehouse_id FROM store_warehouse WHERE settled_at IS NULL")
    assert [row["warehouse_id"] for row in rows] == [west]
    await settle(world)
    assert await world.value("SELECT count(*) FROM store_warehouse WHERE settled_at IS NULL") == 0


async def test_two_imports_of_one_new_place_at_the_same_moment_give_one_listing(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    results = await asyncio.gather(
        imported(world, mapped(world, "sku1", "new")),
        imported(world, mapped(world, "sku2", "new")),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, LockBusy)]
    done = [result for result in results if isinstance(result, Imported)]
    # One after the other is as good: then the second remaps.
    assert (len(done), len(refused)) in {(1, 1), (2, 0)}
    assert await world.value("SELECT count(*) FROM listing WHERE retired_at IS NULL") == 2


async def test_an_import_that_comes_second_is_told_to_try_again(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    async with world.pool.transaction() as connection:
        await imported_on(connection, world, mapped(world, "sku1", "new"))
        second = asyncio.create_task(imported(world, mapped(world, "sku2", "new")))
        await blocked(world)
    with pytest.raises(LockBusy, match="Another import maps the same listings"):
        await second
    assert await imported(world, mapped(world, "sku2", "new")) == Imported(0, 0, 1)


# --- removals ---


async def test_a_removed_listing_ends_its_items_at_once_and_is_not_sent(world: World) -> None:
    await world.small()
    await imported(world, mapped(world, "sku1", "kept"))
    await world.accepted(stock_update(blib=20))
    row = (await world.states())[PADI]
    listing = ListingRow(row["listing_id"], await world.value("SELECT id FROM variant"), row["store_id"], "")
    for count in (1, 0):
        async with world.pool.transaction() as connection:
            assert count == await removed_on(connection, world, listing)
    assert await world.due() == {"kept": 20}
    [recorded] = await world.history()
    assert [(item.remote_variant, item.message, item.success) for item in recorded.items] == [
        ('{"blibli_sku": "TOQ-1-1-1"}', "Taken away", False),
        ('{"blibli_sku": "kept"}', "", False),
    ]
    assert recorded.finished_at is None
    assert recorded.updated_at > recorded.created_at


async def test_a_waiting_listing_that_is_removed_waits_no_longer(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    held, row = await leased(world), (await world.states())[PADI]
    await record(world, held, Told(row["listing_id"], row["version_due"], 20, "retry", 60.0))
    await stores.remove(world.pool, SETTINGS, world.stores["Toko Padi"], Progress())
    assert await world.rows("SELECT state FROM listing_state") == [{"state": "idle"}]
    assert await world.value("SELECT count(*) FROM listing_wait") == 0


async def test_a_store_is_removed_in_chunks_with_all_its_listings(world: World) -> None:
    await world.small()
    await imported(world, *(mapped(world, "sku1", f"l{n}") for n in range(4)))
    await world.accepted(stock_update(blib=20))
    progress = Progress()
    await stores.remove(world.pool, SETTINGS, world.stores["Toko Padi"], progress)
    assert progress.chunks == [2, 2, 1]
    assert await ends(world) == [[("Store 'Toko Padi' was removed", False)] * 5]
    assert await world.value("SELECT count(*) FROM listing WHERE retired_at IS NULL") == 0
    assert await world.value("SELECT count(*) FROM listing_state WHERE lane > 0") == 0
    assert await world.value("SELECT retired_at IS NOT NULL FROM store")
    await world.accepted(stock_update(blib=3))
    assert [item.message for item in (await world.history())[0].items] == ["No store: there is no Blibli (blib) store"]


# --- who serves a store ---


async def test_linking_an_empty_warehouse_sends_nothing(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    before = await world.states()
    await link(world, await world.warehouse("empty"))
    assert await world.states() == before


async def test_linking_a_warehouse_with_stock_shows_the_sum_and_leaves_the_items_open(world: World) -> None:
    await world.small()
    east = await world.warehouse("east")
    await world.accepted(stock_update(warehouse="east", available=7, sync=True))
    await world.accepted(stock_update(blib=20))
    await link(world, east)
    assert await world.due() == {PADI: 27}
    assert await ends(world) == [[("", False)], []]
    held, row = await leased(world), (await world.states())[PADI]
    await record(world, held, Told(row["listing_id"], row["version_due"], 27))
    assert (await ends(world))[0] == [("Successfully Updated", True)]


async def test_linking_at_another_location_sends_it_again(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    before = await versions(world)
    await link(world, 0, "JKT")
    assert await world.due() == {PADI: 20}
    assert await versions(world) != before
    again = await versions(world)
    await link(world, 0, "JKT")
    assert await versions(world) == again


async def located(world: World) -> int:
    """sku1 shows 20 at J (default) and 3 at S (east); returns east."""
    await world.tenant()
    east = await world.warehouse("east")
    await world.store(warehouses={0: "J", east: "S"})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", PADI)])
    for warehouse, figure in (("default", 20), ("east", 3)):
        await world.accepted(stock_update(warehouse=warehouse, blib=figure))
    return east


async def at_locations(world: World) -> tuple[int, dict[str, int]]:
    """What the only due listing is to show, in all and by location."""
    [due] = await window(world, with_locations=True)
    return due.quantity, dict(due.locations)


async def test_a_location_that_is_unlinked_is_told_to_show_nothing(world: World) -> None:
    east = await located(world)
    assert await at_locations(world) == (23, {"J": 20, "S": 3})
    await unlink(world, east)
    assert await at_locations(world) == (20, {"J": 20, "S": 0})


async def test_a_location_that_a_warehouse_has_left_for_another_is_told_to_show_nothing(world: World) -> None:
    east = await located(world)
    await link(world, east, "B")
    assert await at_locations(world) == (23, {"J": 20, "S": 0, "B": 3})
    await link(world, east, "S")
    assert await at_locations(world) == (23, {"J": 20, "S": 3, "B": 0})


async def test_a_location_that_a_listing_was_never_shown_at_is_not_touched(world: World) -> None:
    await located(world)
    empty = await world.warehouse("empty")
    await link(world, empty, "M")
    assert await at_locations(world) == (23, {"J": 20, "S": 3})
    await unlink(world, empty)
    assert await at_locations(world) == (23, {"J": 20, "S": 3})


async def test_where_no_warehouse_has_a_location_any_more_none_is_named(world: World) -> None:
    east = await located(world)
    await unlink(world, east)
    await link(world, 0, None)
    assert await at_locations(world) == (20, {})


async def test_a_remapped_listing_inherits_where_its_place_was_shown(world: World) -> None:
    await located(world)
    await world.variants("sku2")
    await world.accepted(stock_update("sku2", blib=2))
    await world.listings([("sku2", "Toko Padi", PADI)])
    assert await at_locations(world) == (2, {"J": 2, "S": 0})
    await world.listings([("sku1", "Toko Padi", PADI)])
    assert await at_locations(world) == (23, {"J": 20, "S": 3})


async def test_a_listing_that_is_removed_and_imported_again_knows_where_its_place_was_shown(world: World) -> None:
    east = await located(world)
    ids = list((await listing_ids(world)).values())
    async with world.pool.transaction() as connection:
        await removed_on(connection, world, *await catalogue.listings_by_id(connection, world.tenant_id, ids))
    await unlink(world, east)
    await world.listings([("sku1", "Toko Padi", PADI)])
    assert await at_locations(world) == (20, {"J": 20, "S": 0})


async def test_an_update_before_the_listings_are_recomputed_moves_all_to_their_locations(world: World) -> None:
    """Or the units of one warehouse would be shown at the location of the other."""
    east = await two_warehouses(world, default=6, east=5)
    store = world.stores["Toko Padi"]
    async with world.pool.transaction() as connection:
        for warehouse, place in ((0, "J"), (east, "S")):
            await stores_db.link(
                connection, tenant_id=world.tenant_id, store_id=store.id, warehouse_id=warehouse, location=place
            )
    await world.accepted(stock_update(blib=7))
    assert await at_locations(world) == (12, {"J": 7, "S": 5})


async def test_units_without_a_location_beside_others_are_named_apart(world: World) -> None:
    east = await two_warehouses(world, default=6, east=5)
    await link(world, east, "S")
    assert await at_locations(world) == (11, {"": 6, "S": 5})


async def test_a_forgotten_location_is_told_nothing_any_more(world: World) -> None:
    east = await located(world)
    await unlink(world, east)
    store = world.stores["Toko Padi"]
    async with world.pool.transaction() as connection:
        forgotten = await stores_db.forget_location(
            connection, tenant_id=world.tenant_id, store_id=store.id, location="S"
        )
    assert forgotten == 1
    assert await at_locations(world) == (20, {"J": 20})


async def test_unlinking_one_of_two_sends_the_rest_and_ends_that_warehouses_items(world: World) -> None:
    east = await two_warehouses(world, default=20, east=3)
    assert await world.due() == {PADI: 23}
    assert await unlink(world, east)
    assert await world.due() == {PADI: 20}
    assert await ends(world) == [[("The warehouse no longer serves this store", False)], [("", False)]]
    assert await unlink(world, east) is False


async def test_unlinking_the_last_one_sends_nothing_and_clears_what_was_due(world: World) -> None:
    await world.small()
    await world.accepted(stock_update(blib=20))
    await unlink(world, 0)
    assert await world.due() == {PADI: None}
    assert await ends(world) == [[("The warehouse no longer serves this store", False)]]
    assert (await world.history())[0].finished_at is not None
    await link(world, 0)
    assert await world.due() == {PADI: 20}


async def test_a_link_is_settled_in_chunks_and_marked_when_it_is_done(world: World) -> None:
    await world.small()
    await imported(world, *(mapped(world, "sku1", f"l{n}") for n in range(4)))
    progress = await link(world, 0)
    assert progress.chunks == [2, 2, 1]
    assert await world.rows("SELECT settled_at IS NOT NULL AS settled FROM store_warehouse") == [{"settled": True}]


async def test_a_link_that_a_crash_left_unsettled_is_settled_by_the_next_run(world: World) -> None:
    east = await two_warehouses(world, default=20, east=3)
    await unlink_unsettled(world, east)
    assert await world.due() == {PADI: 23}  # the crash comes here
    await settle(world)
    assert await world.due() == {PADI: 20}


async def test_a_link_undone_and_made_again_around_an_update_ends_in_the_right_sum(world: World) -> None:
    east = await two_warehouses(world, default=20, east=3)
    await unlink_unsettled(world, east)
    await world.accepted(stock_update(blib=21))
    assert await world.due() == {PADI: 21}
    await link(world, east)
    assert await world.due() == {PADI: 24}


async def test_a_store_that_only_observes_keeps_what_is_due(world: World) -> None:
    await world.tenant()
    await world.store(mode=StoreMode.OBSERVE)
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", PADI)])
    await world.accepted(stock_update(blib=20))
    assert await world.due() == {PADI: 20}


# --- at the same moment ---


async def test_a_listing_that_is_imported_while_a_warehouse_is_linked_has_the_sum(world: World) -> None:
    """Its place comes before those that the recomputing has already passed."""
    east = await two_warehouses(world, default=20, east=3)
    await unlink(world, east)
    async with world.pool.transaction() as connection:
        await imported_on(connection, world, mapped(world, "sku1", "AAA"))
        linking = asyncio.create_task(link(world, east))
        await blocked(world)
    await linking
    assert await world.due() == {PADI: 23, "AAA": 23}


async def test_clearing_one_listing_and_showing_another_does_not_deadlock_with_a_recorder(world: World) -> None:
    """What is shown is written before what is cleared, whatever their ids: so all are locked first, sorted."""
    east = await two_warehouses(world, default=4, east=1)
    await unlink(world, east)
    await imported(world, mapped(world, "sku1", "second"))
    ids, held, store = await listing_ids(world), await leased(world), world.stores["Toko Padi"]
    async with world.pool.transaction() as connection:
        await stores_db.link(connection, tenant_id=world.tenant_id, store_id=store.id, warehouse_id=east, location=None)

    async def clear_the_first_and_show_the_second() -> None:
        async with world.pool.transaction(lock_timeout_ms=5000) as connection:
            variant_id = await connection.fetchval("SELECT id FROM variant")
            await stock_db.lock_variants_by_id(connection, world.tenant_id, [variant_id])
            variant = VariantStock(world.tenant_id, variant_id, "sku1")
            await stock.load(connection, {(world.tenant_id, variant_id): variant})
            [(version, _)], _ = await stock_db.take_ids(connection, versions=1)
            variant.remove(variant.listings[ids[PADI]], "Gone", version=version)
            variant.recompute(variant.listings[ids["second"]], version=version)
            await catalogue.retire_listings(connection, world.tenant_id, [ids[PADI]])
            await stock.write(connection, [variant])

    async with world.pool.transaction() as connection:
        await record_on(connection, held, Told(ids[PADI], 1, 4, "stay"))
        clearing = asyncio.create_task(clear_the_first_and_show_the_second())
        await blocked(world)
        await record_on(connection, held, Told(ids["second"], 1, 4, "stay"))
    await clearing
    assert await world.due() == {"second": 5}


async def test_updates_racing_with_links_end_in_the_right_sum(world: World) -> None:
    east = await two_warehouses(world, default=1, east=1)
    for n in range(ROUNDS):
        change = unlink(world, east) if n % 2 == 0 else link(world, east)
        await asyncio.gather(
            world.accepted(stock_update(blib=n)), change, world.accepted(stock_update(warehouse="east", blib=1000 + n))
        )
        assert await world.due() == {PADI: n if n % 2 == 0 else 1000 + 2 * n}
    assert await open_items_are_pointed_to(world)


async def test_updates_racing_with_imports_reach_every_listing(world: World) -> None:
    await two_warehouses(world, default=1, east=1)
    for n in range(ROUNDS):
        await asyncio.gather(
            world.accepted(stock_update(blib=n)),
            imported(world, mapped(world, "sku1", f"l{n}")),
            world.accepted(stock_update(warehouse="east", blib=100 + n)),
        )
        due = await world.due()
        assert len(due) == n + 2
        assert set(due.values()) == {100 + 2 * n}
    assert await open_items_are_pointed_to(world)


async def test_updates_racing_with_remaps_show_the_mapped_skus_stock(world: World) -> None:
    await world.small()
    await world.variants("sku2")
    for n in range(ROUNDS):
        sku = ("sku1", "sku2")[n % 2]
        await asyncio.gather(
            world.accepted(stock_update("sku1", blib=n)),
            imported(world, mapped(world, sku, PADI)),
            world.accepted(stock_update("sku2", blib=1000 + n)),
        )
        assert await world.due() == {PADI: n if sku == "sku1" else 1000 + n}
    assert await open_items_are_pointed_to(world)


async def test_recomputing_what_has_not_changed_sends_nothing(world: World) -> None:
    await two_warehouses(world, default=20, east=3)
    before = await world.states()
    async with world.pool.transaction() as connection:
        chunk = await catalogue.listings_of_store(
            connection, tenant_id=world.tenant_id, store_id=world.stores["Toko Padi"].id, after="", limit=10
        )
        await recompute(connection, world.tenant_id, chunk)
    assert await world.states() == before


async def open_items_are_pointed_to(world: World) -> bool:
    return bool(
        await world.value(
            """
            SELECT (SELECT count(*) FROM item i WHERE finished_at IS NULL AND NOT EXISTS (
                        SELECT FROM contribution c JOIN listing_state s USING (tenant_id, listing_id)
                        WHERE c.tenant_id = i.tenant_id AND c.listing_id = i.listing_id
                          AND c.warehouse_id = i.warehouse_id AND c.item_id = i.id AND c.version = i.update_id
                          AND c.item_created_at = i.created_at AND c.version > s.version_settled)) = 0
               AND (SELECT count(*) FROM stock_update u WHERE items_open <> (
                        SELECT count(*) FROM item i WHERE i.tenant_id = u.tenant_id AND i.created_at = u.created_at
                          AND i.update_id = u.id AND i.finished_at IS NULL)) = 0
            """
        )
    )
