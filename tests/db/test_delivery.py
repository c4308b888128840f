"""What is due, what comes back from waiting, and what a result does to a listing and its items."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from lumbung.db import catalogue, delivery, stores
from lumbung.db.delivery import Due
from lumbung.db.lease import LeaseRow
from lumbung.inventory.listings import recompute
from tests.db.delivering import (
    DAY,
    Told,
    blocked,
    claim,
    gate,
    leased,
    listing_ids,
    record,
    record_on,
    register,
    release,
    window,
)
from tests.world import PARK_RETRY_SECONDS, World, stock_update

COVERS = {
    "stores_with_work",
    "release_waits",
    "due_window",
    "due_now",
    "lock_results",
    "take_call_ids",
    "record_states",
    "settle_items",
    "write_waits",
    "write_calls",
    "call_was_written",
}

PADI = "TOQ-1-1-1"


async def due_listing(world: World, figure: int = 20) -> tuple[LeaseRow, int, int]:
    """A small world with something due: the lease of its store, the listing, the version due."""
    await world.small()
    await world.accepted(stock_update(blib=figure))
    state = (await world.states())[PADI]
    return await leased(world), state["listing_id"], state["version_due"]


async def update(world: World, figure: int) -> int:
    """A newer update; returns its version."""
    await world.accepted(stock_update(blib=figure))
    version: int = (await world.states())[PADI]["version_due"]
    return version


async def cleared(world: World) -> None:
    """Unlink the default warehouse, so that nothing is to be shown any more."""
    row = world.stores["Toko Padi"]
    async with world.pool.transaction() as connection:
        await stores.unlink(connection, tenant_id=world.tenant_id, store_id=row.id, warehouse_id=0)
        listings = await catalogue.listings_of_store(
            connection, tenant_id=world.tenant_id, store_id=row.id, after="", limit=10
        )
        await recompute(connection, world.tenant_id, listings)


async def state(world: World, *names: str) -> tuple[Any, ...]:
    row = (await world.states())[PADI]
    return tuple(row[name] for name in names)


async def wait_over(world: World) -> None:
    await world.execute("UPDATE listing_wait SET due_at = now() - interval '1 second'")


async def waits(world: World) -> list[tuple[int, str]]:
    rows = await world.rows("SELECT listing_id, reason FROM listing_wait ORDER BY listing_id")
    return [(row["listing_id"], row["reason"]) for row in rows]


async def with_work(world: World) -> list[int]:
    async with world.pool.connection() as connection:
        return sorted(await delivery.stores_with_work(connection, wait_seconds_max=DAY))


# --- what is due ---


async def test_stores_with_something_due_or_a_wait_that_is_over_have_work(world: World) -> None:
    await world.tenant()
    names = ["due", "waiting", "over", "idle", "jumped"]
    ids = {name: await world.store(name) for name in names}
    await world.variants(*names)
    await world.listings([(name, name, name) for name in names])
    await world.accept(*(stock_update(name, blib=1) for name in names))
    assert await with_work(world) == sorted(ids.values())
    await world.execute("UPDATE listing_state SET state = 'waiting', lane = 0 WHERE store_id <> $1", ids["due"])
    for name, seconds in {"waiting": 60, "over": -1, "jumped": DAY * 2}.items():
        await world.execute(
            "INSERT INTO listing_wait"
            " SELECT tenant_id, listing_id, store_id, 'backoff', now() + $2 * interval '1 second'"
            " FROM listing_state WHERE store_id = $1",
            ids[name],
            seconds,
        )
    assert await with_work(world) == sorted([ids["due"], ids["over"], ids["jumped"]])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE store SET mode = 'observe'",
        "UPDATE store SET mode = 'paused', pause_reason = 'a', mode_before_pause = 'live'",
        "UPDATE store SET retired_at = now()",
        "UPDATE tenant SET disabled_at = now()",
    ],
)
async def test_a_store_that_may_not_be_written_to_has_no_work_and_nothing_due(world: World, change: str) -> None:
    held, listing, version = await due_listing(world)
    assert await with_work(world) == [held.store_id]
    assert [due.listing_id for due in await window(world)] == [listing]
    await world.execute(change)
    assert await with_work(world) == []
    assert await window(world) == []
    async with world.pool.connection() as connection:
        due = await delivery.due_now(
            connection,
            tenant_id=world.tenant_id,
            store_id=held.store_id,
            listing_ids=[listing],
            with_locations=False,
        )
    assert due == []
    assert await state(world, "state", "version_due") == ("due", version)  # the work is kept


async def test_work_is_found_across_tenants(world: World) -> None:
    found = []
    for tenant in ("a", "b", "c"):
        await world.tenant(tenant)
        found.append(await world.store(f"store of {tenant}"))
        await world.variants("sku1")
        await world.listings([("sku1", f"store of {tenant}", PADI)])
        await world.accepted(stock_update(blib=1))
    assert await with_work(world) == sorted(found)


async def many_due(world: World, count: int = 9) -> dict[str, int]:
    """Listings l0, l1, ... whose lanes go round: falling, rising, refresh."""
    await world.tenant()
    await world.store()
    skus = [f"l{n}" for n in range(count)]
    await world.variants(*skus)
    await world.listings([(sku, "Toko Padi", sku) for sku in skus])
    await world.accept(*(stock_update(sku, blib=0 if n % 3 == 0 else n) for n, sku in enumerate(skus)))
    ids = await listing_ids(world)
    refresh = [ids[sku] for n, sku in enumerate(skus) if n % 3 == 2]
    await world.execute("UPDATE listing_state SET lane = 3 WHERE listing_id = ANY($1)", refresh)
    return ids


async def test_a_window_gives_each_lane_from_its_cursor_in_order_up_to_the_limit(world: World) -> None:
    ids = await many_due(world)
    first = await window(world, limit=2)
    assert [(due.lane, due.listing_id) for due in first] == [
        (1, ids["l0"]),
        (1, ids["l3"]),
        (2, ids["l1"]),
        (2, ids["l4"]),
        (3, ids["l2"]),
        (3, ids["l5"]),
    ]
    rest = await window(world, cursors={1: ids["l3"], 2: ids["l4"], 3: ids["l8"]})
    assert [(due.lane, due.listing_id) for due in rest] == [(1, ids["l6"]), (2, ids["l7"])]


async def test_a_window_leaves_out_what_is_busy_and_lanes_not_asked_for(world: World) -> None:
    ids = await many_due(world)
    due = await window(world, cursors={1: 0}, busy=[ids["l0"], ids["l6"]])
    assert [one.listing_id for one in due] == [ids["l3"]]


async def test_due_says_everything_that_a_call_needs(world: World) -> None:
    held, listing, version = await due_listing(world)
    [due] = await window(world)
    assert due == Due(listing, 2, version, 20, 0, '{"blibli_sku": "TOQ-1-1-1"}', None)
    await record(world, held, Told(listing, version, 20, "retry", 0.0, doubtful=True))
    await wait_over(world)
    await release(world)
    await world.execute("UPDATE listing_state SET doubtful_at = now() - interval '100 seconds'")
    [due] = await window(world)
    assert due.doubtful_age_seconds == pytest.approx(100, abs=10)
    assert replace(due, doubtful_age_seconds=None) == Due(listing, 2, version, 20, 1, due.remote_variant, None)


async def test_due_gives_the_units_of_each_location_when_asked_to(world: World) -> None:
    await world.tenant()
    east, west, nowhere = [await world.warehouse(name) for name in ("east", "west", "nowhere")]
    await world.store(warehouses={0: "J", east: "S", west: "S", nowhere: None})
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", PADI)])
    for name, figure in {"default": 1, "east": 2, "west": 4, "nowhere": 8}.items():
        await world.accepted(stock_update(warehouse=name, blib=figure))
    [without] = await window(world)
    [due] = await window(world, with_locations=True)
    assert (without.quantity, without.locations) == (15, {})
    assert (due.quantity, due.locations) == (15, {"J": 1, "S": 6})


async def test_what_was_read_a_while_ago_is_read_again_in_its_order_with_the_newest_quantity(world: World) -> None:
    ids = await many_due(world, 4)
    await world.accepted(stock_update("l3", blib=77))
    await world.execute("UPDATE listing_state SET state = 'idle', lane = 0 WHERE listing_id = $1", ids["l1"])
    async with world.pool.connection() as connection:
        due = await delivery.due_now(
            connection,
            tenant_id=world.tenant_id,
            store_id=world.stores["Toko Padi"].id,
            listing_ids=[ids["l3"], ids["l1"], ids["l0"]],
            with_locations=True,
        )
    assert [(one.listing_id, one.quantity) for one in due] == [(ids["l3"], 77), (ids["l0"], 0)]


# --- what a result does ---


async def test_a_delivery_makes_the_listing_idle_and_ends_its_item(world: World) -> None:
    held, listing, version = await due_listing(world)
    assert await record(world, held, Told(listing, version, 20)) == {listing}
    assert await state(
        world, "state", "lane", "version_delivered", "version_settled", "quantity_delivered", "attempts", "calls"
    ) == ("idle", 0, version, version, 20, 0, 1)
    [recorded] = await world.history()
    [item] = recorded.items
    assert (item.success, item.message, item.retries) == (True, "Successfully Updated", 0)
    assert item.client_response == '{"ok": true}'
    assert item.finished_at is not None
    assert recorded.finished_at is not None
    assert recorded.created_at < item.finished_at <= recorded.updated_at <= recorded.finished_at


async def test_a_delivery_of_an_older_version_leaves_the_newer_one_due(world: World) -> None:
    held, listing, older = await due_listing(world)
    newer = await update(world, 5)
    await record(world, held, Told(listing, older, 20))
    assert await state(world, "state", "version_delivered", "version_due", "quantity_delivered", "quantity_due") == (
        "due",
        older,
        newer,
        20,
        5,
    )
    [recorded, _] = await world.history()
    assert [item.finished_at for item in recorded.items] == [None]
    await record(world, held, Told(listing, newer, 5))
    assert await state(world, "state", "version_delivered") == ("idle", newer)


@pytest.mark.parametrize(
    ("kind", "after"), [("retry", "waiting"), ("defer", "waiting"), ("stay", "due"), ("parked", "parked")]
)
async def test_what_is_not_delivered_waits_stays_or_parks(world: World, kind: str, after: str) -> None:
    held, listing, version = await due_listing(world)
    wait = None if kind == "stay" else 60.0
    reason = {"parked": "parked", "defer": "deferred"}.get(kind, "backoff")
    await record(world, held, Told(listing, version, 20, kind, wait, reason, message="why"))
    assert await state(world, "state", "lane", "park_reason", "version_delivered", "quantity_delivered") == (
        after,
        2 if kind == "stay" else 0,
        "why" if kind == "parked" else None,
        0,
        None,
    )
    assert await state(world, "attempts", "calls", "last_outcome", "last_message") == (
        1 if kind == "retry" else 0,
        1,
        "Outcome",
        "why",
    )
    assert await waits(world) == ([] if kind == "stay" else [(listing, reason)])
    [recorded] = await world.history()
    [item] = recorded.items
    if kind == "parked":
        assert (item.success, item.message) == (False, "why")
        assert item.finished_at is not None
    else:
        assert item.finished_at is None
        assert recorded.finished_at is None


@pytest.mark.parametrize(
    ("kind", "after"), [("delivered", "due"), ("retry", "waiting"), ("stay", "due"), ("parked", "parked")]
)
async def test_a_newer_version_meanwhile_is_kept_whatever_became_of_the_older(
    world: World, kind: str, after: str
) -> None:
    held, listing, older = await due_listing(world)
    newer = await update(world, 5)
    reason = "parked" if kind == "parked" else "backoff"
    wait = 60.0 if kind in {"retry", "parked"} else None
    await record(world, held, Told(listing, older, 20, kind, wait, reason))
    assert await state(world, "state", "version_due", "quantity_due") == (after, newer, 5)
    await wait_over(world)
    await release(world)
    assert [(due.version, due.quantity) for due in await window(world)] == [(newer, 5)]
    assert [item.finished_at for item in (await world.history())[0].items] == [None]


@pytest.mark.parametrize("kind", ["delivered", "retry", "stay", "parked"])
async def test_a_listing_that_was_cleared_meanwhile_is_never_sent_again(world: World, kind: str) -> None:
    held, listing, version = await due_listing(world)
    await cleared(world)
    [before] = await world.history()
    reason = {"delivered": "confirmation", "parked": "parked"}.get(kind, "backoff")
    wait = None if kind == "stay" else 0.0
    assert await record(world, held, Told(listing, version, 20, kind, wait, reason)) == {listing}
    await wait_over(world)
    await release(world)
    assert await state(world, "state", "lane", "park_reason") == ("idle", 0, None)
    assert await window(world) == []
    assert await waits(world) == []
    assert await world.history() == [before]


async def test_a_result_of_another_epoch_is_dropped(world: World) -> None:
    held, listing, version = await due_listing(world)
    before = await world.states()
    assert await record(world, held, Told(listing, version, 20), epoch=held.epoch - 1) == set()
    assert await record(world, held, Told(listing, version, 20), epoch=held.epoch + 1) == set()
    assert await world.states() == before
    assert (await world.history())[0].finished_at is None


async def test_a_lease_cannot_change_hands_while_a_result_is_being_written(world: World) -> None:
    held, listing, version = await due_listing(world)
    await world.execute("UPDATE worker SET expires_at = clock_timestamp() - interval '1 second'")
    second = await register(world)
    async with world.pool.transaction() as connection:
        assert await record_on(connection, held, Told(listing, version, 20)) == {listing}
        assert await claim(world, second, held.store_id) == []
    [taken] = await claim(world, second, held.store_id)
    assert taken.epoch == held.epoch + 1
    assert await record(world, held, Told(listing, version, 20)) == set()


async def test_attempts_count_failures_in_a_row_and_calls_count_all(world: World) -> None:
    held, listing, version = await due_listing(world)
    seen = []
    for kind in ("retry", "retry", "stay", "retry", "delivered"):
        await record(world, held, Told(listing, version, 20, kind, 0.0 if kind == "retry" else None))
        seen.append(await state(world, "attempts", "calls"))
        await wait_over(world)
        await release(world)
    assert seen == [(1, 1), (2, 2), (2, 3), (3, 4), (0, 5)]
    assert [item.retries for item in (await world.history())[0].items] == [4]


async def test_an_item_counts_only_the_calls_that_were_made_for_it(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "stay"), Told(listing, version, 20, "stay"))
    await record(world, held, Told(listing, version, 20, "stay"))
    newer = await update(world, 5)
    assert [item.retries for item in (await world.history())[1].items] == [1]
    assert [item.retries for item in (await world.history())[0].items] == [0]
    await record(world, held, Told(listing, newer, 5, "stay"))
    await record(world, held, Told(listing, newer, 5, "stay"))
    assert [item.retries for item in (await world.history())[0].items] == [1]  # read live
    await record(world, held, Told(listing, newer, 5))
    assert [item.retries for item in (await world.history())[0].items] == [2]


async def test_a_doubtful_quantity_is_kept_until_a_delivery_that_needs_no_confirmation(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "retry", 0.0, doubtful=True))
    assert (await state(world, "quantity_doubtful"))[0] == 20
    [since] = await state(world, "doubtful_at")
    await wait_over(world)
    await release(world)
    await record(world, held, Told(listing, version, 20, "delivered", 0.0, "confirmation"))
    assert await state(world, "state", "quantity_doubtful", "doubtful_at") == ("idle", 20, since)
    await wait_over(world)
    assert await release(world) == {held.store_id}
    assert await state(world, "state", "lane") == ("due", 3)
    await record(world, held, Told(listing, version, 20))
    assert await state(world, "state", "quantity_doubtful", "doubtful_at") == ("idle", None, None)


async def test_settling_ends_exactly_the_items_up_to_the_version(world: World) -> None:
    await world.tenant()
    east = await world.warehouse("east")
    await world.store(warehouses={0: None, east: None})
    await world.variants("sku1", "sku2")
    await world.listings([("sku1", "Toko Padi", PADI), ("sku2", "Toko Padi", "other")])
    await world.accepted(stock_update(blib=1))
    await world.accepted(stock_update("sku2", blib=1))
    middle = (await world.states())[PADI]["version_due"]
    await world.accepted(stock_update(warehouse="east", blib=2))
    held = await leased(world)
    ids = await listing_ids(world)
    await record(world, held, Told(ids[PADI], middle, 1))
    newest, other, first = await world.history()
    assert [item.finished_at is None for item in newest.items] == [True]
    assert [item.finished_at is None for item in other.items] == [True]
    assert [item.message for item in first.items] == ["Successfully Updated"]
    assert (newest.updated_at, other.updated_at) == (newest.created_at, other.created_at)
    assert await world.rows("SELECT items_open FROM stock_update ORDER BY id") == [
        {"items_open": 0},
        {"items_open": 1},
        {"items_open": 1},
    ]
    [ended] = first.items
    newest_version = (await world.states())[PADI]["version_due"]
    await record(world, held, Told(ids[PADI], newest_version, 3, message="Again"))
    assert (await world.history())[2].items == (ended,)
    assert [item.message for item in (await world.history())[0].items] == ["Again"]


async def test_a_record_is_finished_when_the_last_of_its_items_ends(world: World) -> None:
    await world.tenant()
    await world.store()
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", "a"), ("sku1", "Toko Padi", "b")])
    await world.accepted(stock_update(blib=4))
    held, ids = await leased(world), await listing_ids(world)
    version = (await world.states())["a"]["version_due"]
    seen = []
    for remote in ("a", "b"):
        await record(world, held, Told(ids[remote], version, 4))
        [recorded] = await world.history()
        seen.append((recorded.updated_at > recorded.created_at, recorded.finished_at is None))
    assert seen == [(True, True), (True, False)]


async def test_items_of_one_record_that_end_at_the_same_moment_are_all_counted(world: World) -> None:
    await world.tenant()
    await world.store()
    await world.variants("sku1")
    await world.listings([("sku1", "Toko Padi", "a"), ("sku1", "Toko Padi", "b")])
    await world.accepted(stock_update(blib=4))
    held, ids = await leased(world), await listing_ids(world)
    version = (await world.states())["a"]["version_due"]
    async with world.pool.transaction() as connection:
        await record_on(connection, held, Told(ids["a"], version, 4))
        second = asyncio.create_task(record(world, held, Told(ids["b"], version, 4)))
        await blocked(world)
    await second
    [recorded] = await world.history()
    assert recorded.finished_at is not None
    assert await world.value("SELECT items_open FROM stock_update") == 0


async def test_recording_the_same_results_again_ends_nothing_twice(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20))
    history = await world.history()
    await record(world, held, Told(listing, version, 20))
    assert await world.history() == history


async def test_calls_are_kept_with_what_was_asked_and_answered(world: World) -> None:
    held, listing, _ = await due_listing(world)
    async with world.pool.transaction() as connection:
        first, second = await delivery.take_call_ids(connection, 2)
        assert second > first
        row = (
            held.tenant_id, first, held.store_id, held.epoch, f"{{{listing},7}}", "PUT", "https://x/", "{}", 200,
            json.dumps({"a": "é"}), "Accepted", 12.5,
        )  # fmt: skip
        await delivery.write(connection, "write_calls", [row])
    [call] = await world.rows("SELECT * FROM call")
    assert (call["id"], call["listing_ids"], call["response"]) == (first, [listing, 7], '{"a": "\\u00e9"}')
    assert (call["epoch"], call["status"], call["duration_ms"]) == (held.epoch, 200, 12.5)
    async with world.pool.connection() as connection:
        assert await delivery.call_was_written(connection, tenant_id=held.tenant_id, call_id=first)
        assert not await delivery.call_was_written(connection, tenant_id=held.tenant_id, call_id=second)
        assert not await delivery.call_was_written(connection, tenant_id=held.tenant_id + 1, call_id=first)


# --- what comes back from waiting ---


STATES = {
    "idle": "state = 'idle', lane = 0",
    "due": "state = 'due', lane = 2",
    "waiting": "state = 'waiting', lane = 0",
    "parked": "state = 'parked', lane = 0, park_reason = 'why', parked_at = now()",
}


@pytest.mark.parametrize("reason", ["backoff", "deferred", "parked", "confirmation"])
@pytest.mark.parametrize("settled", [True, False])
async def test_a_wait_that_is_over_brings_back_what_still_waits_for_it(
    world: World, reason: str, settled: bool
) -> None:
    """All states at once: only the one that the reason belongs to becomes due."""
    await world.tenant()
    await world.store()
    await world.variants(*STATES)
    await world.listings([(name, "Toko Padi", name) for name in STATES])
    await world.accept(*(stock_update(name, blib=7) for name in STATES))
    for name, change in STATES.items():
        await world.execute(
            f"UPDATE listing_state SET {change} WHERE listing_id = $1",  # noqa: S608
            (await listing_ids(world))[name],
        )
    if settled:
        await world.execute(
            "UPDATE listing_state SET version_delivered = version_due, version_settled = version_due,"
            " quantity_delivered = 9"
        )
    await world.execute(
        "INSERT INTO listing_wait SELECT tenant_id, listing_id, store_id, $1, now() - interval '1 second'"
        " FROM listing_state",
        reason,
    )
    await release(world)
    after = {name: (row["state"], row["lane"], row["park_reason"]) for name, row in (await world.states()).items()}
    before = {
        "idle": ("idle", 0, None),
        "due": ("due", 2, None),
        "waiting": ("waiting", 0, None),
        "parked": ("parked", 0, "why"),
    }
    changed: dict[str, tuple[str, int, str | None]] = {}
    if reason in {"backoff", "deferred"}:
        changed = {"waiting": ("due", 1 if settled else 2, None)}
    elif (reason, settled) == ("parked", False):
        changed = {"parked": ("due", 3, None)}
    elif (reason, settled) == ("confirmation", True):
        changed = {"idle": ("due", 3, None)}
    assert after == {**before, **changed}
    assert await waits(world) == []


@pytest.mark.parametrize(("due", "delivered", "lane"), [(0, None, 1), (3, 9, 1), (9, 3, 2), (9, None, 2), (9, 9, 3)])
async def test_what_comes_back_goes_into_the_lane_of_its_quantity(
    world: World, due: int, delivered: int | None, lane: int
) -> None:
    held, listing, version = await due_listing(world, due)
    await world.execute("UPDATE listing_state SET quantity_delivered = $1", delivered)
    await record(world, held, Told(listing, version, due, "retry", 0.0))
    await wait_over(world)
    await release(world)
    assert await state(world, "state", "lane") == ("due", lane)


async def test_a_wait_further_ahead_than_any_can_be_is_over(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "retry", DAY - 60))
    assert await release(world) == set()
    await world.execute("UPDATE listing_wait SET due_at = now() + interval '2 days'")
    assert await release(world) == {held.store_id}
    assert await state(world, "state") == ("due",)


async def test_no_more_come_back_at_once_than_the_limit(world: World) -> None:
    ids = await many_due(world, 5)
    held = await leased(world)
    told = [Told(listing, 1, 0, "retry", 0.0) for listing in ids.values()]
    await record(world, held, *told)
    await wait_over(world)
    await release(world, limit=2)
    assert len(await waits(world)) == 3
    await release(world, limit=2)
    await release(world, limit=2)
    assert await release(world, limit=2) == set()
    assert len(await window(world)) == 5


async def test_a_listing_that_is_being_written_is_left_for_the_next_look(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "retry", 0.0))
    await wait_over(world)
    async with world.pool.transaction() as connection:
        await connection.execute("SELECT FROM listing_state FOR NO KEY UPDATE")
        assert await release(world) == set()
    assert await release(world) == {held.store_id}


async def test_a_wait_that_was_put_off_while_it_was_being_released_stays(world: World) -> None:
    """The statement's snapshot shows a confirmation that is over; what it finds locked is a backoff that is not."""
    held, listing, older = await due_listing(world)
    await record(world, held, Told(listing, older, 20, "delivered", 0.0, "confirmation"))
    await wait_over(world)
    version = await update(world, 5)
    async with gate(world.pool, "store"):
        releasing = asyncio.create_task(release(world))
        await blocked(world)
        await record(world, held, Told(listing, version, 5, "retry", 60.0))
    await releasing
    assert await state(world, "state") == ("waiting",)
    assert await waits(world) == [(listing, "backoff")]


async def test_an_update_of_a_parked_listing_while_its_wait_is_being_released_is_not_forgotten(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "parked", 0.0, "parked"))
    await wait_over(world)
    async with gate(world.pool, "store"):
        releasing = asyncio.create_task(release(world))
        await blocked(world)
        await world.execute(
            "UPDATE listing_state SET version_due = nextval('version_seq'), quantity_due = 5 WHERE state = 'parked'"
        )
    await releasing
    assert await state(world, "state", "quantity_due", "lane") == ("due", 5, 3)
    assert await waits(world) == []


async def test_waits_of_stores_that_are_not_named_stay(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "retry", 0.0))
    await wait_over(world)
    async with world.pool.connection() as connection:
        found = await delivery.release_waits(connection, store_ids=[held.store_id + 1], wait_seconds_max=DAY, limit=9)
    assert found == set()
    assert await waits(world) == [(listing, "backoff")]
