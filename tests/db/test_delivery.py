"""What is due, what comes back from waiting, and what a result does to a listing and its items."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from lumbung.db import catalogue, delivery, stores
from lumbung.db.delivery import Due, Named, Submitted, Work
from lumbung.db.lease import LeaseRow
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Defer,
    Deliver,
    ListingDecision,
    Park,
    Retry,
    Settle,
    Stay,
    Submit,
)
from lumbung.inventory.listings import recompute
from lumbung.model import DueFor
from tests.db.delivering import (
    DAY,
    Told,
    blocked,
    claim,
    expire,
    gate,
    leased,
    listing_ids,
    record,
    record_on,
    register,
    release,
    window,
)
from tests.world import World, stock_update

COVERS = {
    "stores_with_work",
    "release_waits",
    "due_window",
    "due_now",
    "lock_results",
    "take_call_ids",
    "record_states",
    "settle_items",
    "open_transactions",
    "write_waits",
    "write_calls",
    "transaction_id",
    "transaction_status",
    "unpark",
}

PADI = "TOQ-1-1-1"
REMOTE = '{"blibli_sku": "TOQ-1-1-1"}'


def rows_of(table: str) -> dict[str, dict[str, str]]:
    """A table of words, by the first of each row; columns are two or more spaces apart, the last ones one or more."""
    found = {}
    for line in table.strip("\n").splitlines()[1:]:
        name, nothing, newer, cleared, *rest = re.split(r"\s{2,}", line)
        handle, floor, doubt, seen, tries, wait = " ".join(rest).split()
        found[name] = {
            "nothing": nothing,
            "a newer update": newer,
            "cleared": cleared,
            "handle": handle,
            "floor": floor,
            "doubt": doubt,
            "seen": seen,
            "tries": tries,
            "wait": wait,
        }
    return found


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


async def work(world: World, *working: int) -> list[Work]:
    async with world.pool.connection() as connection:
        found = await delivery.stores_with_work(
            connection, working=working, wait_seconds_max=DAY, renew_ahead_seconds=DAY
        )
    return sorted(found, key=lambda one: one.store_id)


async def with_work(world: World) -> list[int]:
    return [found.store_id for found in await work(world)]


async def due_now(
    world: World, held: LeaseRow, *listings: int, epoch: int | None = None, with_locations: bool = False
) -> list[Due]:
    async with world.pool.connection() as connection:
        asked = Named(held.tenant_id, held.store_id, held.epoch if epoch is None else epoch, listings, with_locations)
        [due] = await delivery.due_now(connection, [asked])
    return due


# --- what is due ---


async def test_stores_with_something_due_or_a_wait_that_is_over_have_work(world: World) -> None:
    await world.tenant()
    names = ["due", "waiting", "over", "idle", "jumped", "both"]
    ids = {name: await world.store(name) for name in names}
    await world.variants(*names, "more")
    await world.listings([(name, name, name) for name in names] + [("more", "both", "more")])
    await world.accept(*(stock_update(name, blib=1) for name in names))
    assert await work(world) == [Work(ids[name], True, False, None, 0) for name in names]
    await world.execute("UPDATE listing_state SET state = 'waiting', lane = 0 WHERE store_id <> $1", ids["due"])
    await world.accepted(stock_update("more", blib=1))
    for name, seconds in {"waiting": 60, "over": -1, "jumped": DAY * 2, "both": -1}.items():
        await world.execute(
            "INSERT INTO listing_wait"
            " SELECT tenant_id, listing_id, store_id, 'backoff', now() + $2 * interval '1 second'"
            " FROM listing_state WHERE store_id = $1 AND state = 'waiting'",
            ids[name],
            seconds,
        )
    worker = await register(world)
    await claim(world, worker, ids["over"])
    assert await work(world) == [
        Work(ids["due"], True, False, None, 0),
        Work(ids["over"], False, True, worker, 1),
        Work(ids["jumped"], False, True, None, 0),
        Work(ids["both"], True, True, None, 0),
    ]


async def test_stores_that_the_caller_works_for_are_not_looked_for_and_all_others_are_found(world: World) -> None:
    tenants = {name: await world.tenant(name) for name in "ab"}
    names = [f"{tenant}{n}" for n in range(4) for tenant in "ba"]  # neither tenants' stores have ids in one piece
    ids: dict[str, int] = {}
    for name in names:
        world.tenant_id = tenants[name[0]]
        ids[name] = await world.store(name)
        await world.variants(name)
        await world.listings([(name, name, name)])
        if name not in {"a1", "b2"}:
            await world.accept(stock_update(name, blib=1))
    found = set(names) - {"a1", "b2"}
    for working in ([], ["a0"], ["b3"], ["a3", "b0"], ["a1"], ["a0", "a2", "b1"], names):
        told = await work(world, *(ids[name] for name in working))
        assert [one.store_id for one in told] == sorted(ids[name] for name in found.union(working))
        assert all(one.due for one in told)
    assert [one.store_id for one in await work(world, 999_999)] == sorted(ids[name] for name in found)
    await world.execute("UPDATE store SET mode = 'observe' WHERE id = $1", ids["a0"])
    assert ids["a0"] not in {one.store_id for one in await work(world, ids["a0"])}


async def test_a_store_whose_tokens_would_die_unused_has_work(world: World) -> None:
    await world.tenant()
    ids = {name: await world.store(name) for name in ("dies", "fresh", "lasts", "none", "observed")}
    for name, access, refresh in (
        ("dies", -1, DAY - 60), ("fresh", 60, DAY - 60), ("lasts", -1, DAY + 60), ("observed", -1, 0)
    ):  # fmt: skip
        await world.execute(
            "UPDATE store SET tokens = 't', tokens_digest = 'd',"
            " access_expires_at = now() + $2 * interval '1 second',"
            " refresh_expires_at = now() + $3 * interval '1 second' WHERE id = $1",
            ids[name],
            access,
            refresh,
        )
    await world.execute("UPDATE store SET mode = 'observe' WHERE id = $1", ids["observed"])
    assert await work(world) == [Work(ids["dies"], False, False, None, 0)]


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
    assert await due_now(world, held, listing) == []
    assert await state(world, "state", "version_due") == ("due", version)  # the work is kept


async def test_what_is_due_is_told_to_the_holder_of_the_lease_only(world: World) -> None:
    held, listing, _ = await due_listing(world)
    assert [due.listing_id for due in await window(world, epoch=held.epoch)] == [listing]
    assert [due.listing_id for due in await due_now(world, held, listing)] == [listing]
    for epoch in (held.epoch - 1, held.epoch + 1):
        assert await window(world, epoch=epoch) == []
        assert await due_now(world, held, listing, epoch=epoch) == []


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
    first = Due(listing, 2, version, 20, 0, REMOTE)
    assert await window(world) == await due_now(world, held, listing) == [first]
    doubted = Told(listing, version, 20, Retry(0.0, doubt_seconds=100.0))
    await record(world, held, doubted)
    await wait_over(world)
    await release(world)
    [due] = await window(world)
    assert due.doubt_left_seconds == pytest.approx(100, abs=10)
    assert replace(due, doubt_left_seconds=None) == replace(first, lane=5, attempts=1, doubtful=20)
    await record(world, held, Told(listing, version, 25, Submit("handle", 0.0)))
    await update(world, 30)
    await wait_over(world)
    await release(world)
    [due] = await due_now(world, held, listing)
    assert due.submitted is not None
    assert due.submitted.age_seconds == pytest.approx(0, abs=10)
    assert replace(due.submitted, age_seconds=0.0) == Submitted("handle", version, 25, 0.0)
    assert (due.due_for, due.quantity, due.version > version) == (DueFor.ASK, 30, True)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("delivered_at = NULL", None),
        ("quantity_observed = 7, observed_at = now()", 7),
        ("quantity_delivered = 9, delivered_at = now()", 9),
        (
            "quantity_delivered = 9, delivered_at = now(), quantity_observed = 7, observed_at = now() - interval '1 s'",
            9,
        ),
        (
            "quantity_delivered = 9, delivered_at = now() - interval '1 s', quantity_observed = 7, observed_at = now()",
            7,
        ),
        ("quantity_delivered = 9, delivered_at = now() - interval '1 s', observed_at = now()", None),
    ],
)
async def test_a_marketplace_is_believed_to_show_what_it_was_told_or_showed_last(
    world: World, seen: str, expected: int | None
) -> None:
    await due_listing(world)
    await world.execute(f"UPDATE listing_state SET {seen}")  # noqa: S608
    assert [due.expected for due in await window(world)] == [expected]


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
    assert (due.quantity, due.locations) == (15, {"J": 1, "S": 6, "": 8})


async def test_what_was_read_a_while_ago_is_read_again_in_its_order_with_the_newest_quantity(world: World) -> None:
    ids = await many_due(world, 4)
    held = await leased(world)
    await world.accepted(stock_update("l3", blib=77))
    await world.execute("UPDATE listing_state SET state = 'idle', lane = 0 WHERE listing_id = $1", ids["l1"])
    due = await due_now(world, held, ids["l3"], ids["l1"], ids["l0"], with_locations=True)
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


# What each answer leaves of a listing that is due for the third time: it was in lane 5 or 6, with a floor of 3, a doubt
# about 7, and 8 seen. Under "meanwhile" stand state, lane and due_for: when nothing happened while the call was under
# way, when a newer update came (5 units, fewer than were told), and when there is nothing to show any more. Then the
# handle, the floor, the doubt (? is a doubt about nobody knows what), what was seen, the attempts, and the wait.
# "=" is what was there before, "-" is nothing.

PUSHED = """
                          nothing         a newer update  cleared      handle floor doubt seen tries wait
delivered                 idle 0 push     due 1 push      idle 0 push  -      -     -     =    0     -
delivered, in doubt       idle 0 push     due 1 push      idle 0 push  -      -     =     =    0     confirmation
delivered, lost holder    idle 0 push     due 1 push      idle 0 push  -      -     ?     =    0     confirmation
told the least            waiting 0 push  due 1 push      idle 0 push  -      -     -     =    0     floor
the least, in doubt       waiting 0 push  due 1 push      idle 0 push  -      -     =     =    0     floor
the least, lost holder    waiting 0 push  due 1 push      idle 0 push  -      -     ?     =    0     floor
not told the least        waiting 0 push  due 1 push      idle 0 push  -      -     =     =    0     floor
retry                     waiting 0 push  waiting 0 push  idle 0 push  -      -     =     =    +1    backoff
retry, in doubt           waiting 0 push  waiting 0 push  idle 0 push  -      -     ?     =    +1    backoff
retry, another was shown  waiting 0 push  waiting 0 push  idle 0 push  -      -     =     6    +1    backoff
retry, unknown is shown   waiting 0 push  waiting 0 push  idle 0 push  -      -     =     -    +1    backoff
again                     due 5 push      due 4 push      idle 0 push  -      =     =     =    +1    -
again, in doubt           due 5 push      due 4 push      idle 0 push  -      =     ?     =    +1    -
again, below the floor    due 5 push      due 4 push      idle 0 push  -      4     =     =    +1    -
defer                     waiting 0 push  waiting 0 push  idle 0 push  -      -     =     =    =     deferred
stay                      due 5 push      due 4 push      idle 0 push  -      =     =     =    =     -
submitted                 waiting 0 ask   waiting 0 ask   idle 0 ask   h2     =     =     =    =     submitted
parked                    parked 0 push   parked 0 push   idle 0 push  -      -     =     =    0     parked
"""
PUSHES = {
    "delivered": Told(0, 0, 20, Deliver()),
    "delivered, in doubt": Told(0, 0, 20, Deliver(60.0)),
    "delivered, lost holder": Told(0, 0, 20, Deliver(60.0), doubt_unknown=True),
    "told the least": Told(0, 0, 20, AwaitFloor(60.0, sent=True)),
    "the least, in doubt": Told(0, 0, 20, AwaitFloor(60.0, sent=True, doubt_seconds=60.0)),
    "the least, lost holder": Told(0, 0, 20, AwaitFloor(60.0, sent=True, doubt_seconds=60.0), doubt_unknown=True),
    "not told the least": Told(0, 0, 20, AwaitFloor(60.0, sent=False)),
    "retry": Told(0, 0, 20, Retry(60.0)),
    "retry, in doubt": Told(0, 0, 20, Retry(60.0, doubt_seconds=60.0)),
    "retry, another was shown": Told(0, 0, 20, Retry(60.0, observed=6), outcome="Conflict"),
    "retry, unknown is shown": Told(0, 0, 20, Retry(60.0), outcome="Conflict"),
    "again": Told(0, 0, 20, Again()),
    "again, in doubt": Told(0, 0, 20, Again(doubt_seconds=60.0)),
    "again, below the floor": Told(0, 0, 20, Again(floor=4), outcome="Floor"),
    "defer": Told(0, 0, 20, Defer(60.0)),
    "stay": Told(0, 0, 20, Stay()),
    "submitted": Told(0, 0, 20, Submit("h2", 60.0)),
    "parked": Told(0, 0, 20, Park("Banned")),
}

# What was submitted with the handle h is asked about. Only a question that could not be asked is asked again.
ASKED = """
                      nothing         a newer update  cleared      handle floor doubt seen tries wait
applied               idle 0 push     due 1 push      idle 0 push  -      -     -     =    0     -
not yet applied       waiting 0 ask   waiting 0 ask   idle 0 ask   h2     =     =     =    =     submitted
not reached           waiting 0 ask   waiting 0 ask   idle 0 ask   h      =     =     =    +1    backoff
too fast              waiting 0 ask   waiting 0 ask   idle 0 ask   h      =     =     =    =     deferred
the store waits       due 6 ask       due 4 ask       idle 0 ask   h      =     =     =    =     -
an unclear answer     due 6 push      due 4 push      idle 0 push  -      =     ?     =    +1    -
unclear again         waiting 0 push  waiting 0 push  idle 0 push  -      -     ?     =    +1    backoff
below the floor       waiting 0 push  waiting 0 push  idle 0 push  -      -     =     =    +1    backoff
another is shown      waiting 0 push  waiting 0 push  idle 0 push  -      -     =     6    +1    backoff
locked by a campaign  waiting 0 push  waiting 0 push  idle 0 push  -      -     =     =    =     deferred
refused               parked 0 push   parked 0 push   idle 0 push  -      -     =     =    0     parked
"""
ASKS = {
    "applied": Told(0, 0, 20, Deliver()),
    "not yet applied": Told(0, 0, 20, Submit("h2", 60.0)),
    "not reached": Told(0, 0, 20, Retry(60.0), outcome="Unavailable"),
    "too fast": Told(0, 0, 20, Defer(60.0), outcome="Throttled"),
    "the store waits": Told(0, 0, 20, Stay()),
    "an unclear answer": Told(0, 0, 20, Again(doubt_seconds=60.0)),
    "unclear again": Told(0, 0, 20, Retry(60.0, doubt_seconds=60.0)),
    "below the floor": Told(0, 0, 20, Retry(60.0), outcome="Floor"),
    "another is shown": Told(0, 0, 20, Retry(60.0, observed=6), outcome="Conflict"),
    "locked by a campaign": Told(0, 0, 20, Defer(60.0), outcome="Deferred"),
    "refused": Told(0, 0, 20, Park("Unknown item")),
}

# What was delivered is read back, because a call was unclear.
READ = """
                            nothing            a newer update  cleared      handle floor doubt seen tries wait
shows what it may           idle 0 push        due 1 push      idle 0 push  -      -     -     6    0     -
cannot be read, and stays   idle 0 push        due 1 push      idle 0 push  -      -     -     =    0     -
oversells                   due 1 push         due 1 push      idle 0 push  -      -     =     30   0     -
shows the lost call's       due 3 push         due 1 push      idle 0 push  -      -     =     7    0     -
cannot be read, told again  due 3 push         due 1 push      idle 0 push  -      -     =     =    0     -
not reached                 waiting 0 confirm  waiting 0 push  idle 0 push  -      -     =     =    +1    backoff
too fast                    waiting 0 confirm  waiting 0 push  idle 0 push  -      -     =     =    =     deferred
the store waits             due 6 confirm      due 4 push      idle 0 push  -      =     =     =    =     -
told instead                idle 0 push        due 1 push      idle 0 push  -      -     -     =    0     -
"""
READS = {
    "shows what it may": Told(0, 0, 20, Settle(6)),
    "cannot be read, and stays": Told(0, 0, 20, Settle(None)),
    "oversells": Told(0, 0, 20, Correct(30)),
    "shows the lost call's": Told(0, 0, 20, Correct(7)),
    "cannot be read, told again": Told(0, 0, 20, Correct(None)),
    "not reached": Told(0, 0, 20, Retry(60.0)),
    "too fast": Told(0, 0, 20, Defer(60.0)),
    "the store waits": Told(0, 0, 20, Stay()),
    "told instead": Told(0, 0, 20, Deliver()),
}

BEFORE = {
    DueFor.PUSH: "lane = 5, quantity_delivered = 9",
    DueFor.ASK: "lane = 6, quantity_delivered = 9, due_for = 'ask', handle = 'h', handle_version = version_due,"
    " handle_quantity = 20, handle_at = now()",
    DueFor.CONFIRM: "lane = 6, quantity_delivered = 20, due_for = 'confirm', version_delivered = version_due,"
    " version_settled = version_due",
}
EACH = [
    pytest.param(due_for, name, answers[name], row, id=f"{due_for}: {name}")
    for due_for, table, answers in (
        (DueFor.PUSH, PUSHED, PUSHES),
        (DueFor.ASK, ASKED, ASKS),
        (DueFor.CONFIRM, READ, READS),
    )
    for name, row in rows_of(table).items()
]


async def under_way(world: World, due_for: DueFor, told: Told) -> tuple[LeaseRow, Told]:
    """A call is under way for the only listing: the lease, and what it is about to be told."""
    held, listing, version = await due_listing(world)
    await world.execute(
        f"UPDATE listing_state SET {BEFORE[due_for]}, attempts = 2, failing_since = now(), quantity_floor = 3,"  # noqa: S608
        " delivered_at = now(), quantity_doubtful = 7, doubtful_until = now() + interval '50 seconds',"
        " quantity_observed = 8, observed_at = now()"
    )
    handle = "h" if due_for is DueFor.ASK else None
    return held, replace(told, listing_id=listing, version=version, due_for=due_for, handle=handle)


async def meanwhile(world: World, what: str) -> None:
    if what == "a newer update":
        await update(world, 5)
    elif what == "cleared":
        await cleared(world)


async def looks(world: World) -> dict[str, str]:
    """The listing in the words of the tables."""
    [row] = (await world.states()).values()
    [reason] = [wait for _, wait in await waits(world)] or ["-"]
    doubt = "-" if row["doubtful_until"] is None else row["quantity_doubtful"]
    return {
        "state": f"{row['state']} {row['lane']} {row['due_for']}",
        "handle": str(row["handle"] or "-"),
        "floor": "-" if row["quantity_floor"] is None else str(row["quantity_floor"]),
        "doubt": "?" if doubt is None else str(doubt),
        "seen": "-" if row["quantity_observed"] is None else str(row["quantity_observed"]),
        "tries": str(row["attempts"]),
        "wait": reason,
    }


@pytest.mark.parametrize("what", ["nothing", "a newer update", "cleared"])
@pytest.mark.parametrize(("due_for", "name", "answer", "row"), EACH)
async def test_an_answer_leaves_of_a_listing_what_the_table_says(
    world: World, due_for: DueFor, name: str, answer: Told, row: dict[str, str], what: str
) -> None:
    held, told = await under_way(world, due_for, answer)
    await meanwhile(world, what)
    before = await looks(world)
    assert await record(world, held, told) == {told.listing_id}
    said = {"state": row[what], **{key: row[key] for key in before if key != "state"}}
    signs = {"=": lambda key: before[key], "+1": lambda key: str(int(before[key]) + 1)}
    assert await looks(world) == {key: signs[value](key) if value in signs else value for key, value in said.items()}


@pytest.mark.parametrize(("due_for", "name", "answer", "row"), EACH)
async def test_a_newer_update_meanwhile_is_told_whatever_became_of_the_older(
    world: World, due_for: DueFor, name: str, answer: Told, row: dict[str, str]
) -> None:
    held, told = await under_way(world, due_for, answer)
    newer = await update(world, 5)
    await record(world, held, told)
    await wait_over(world)
    await release(world)
    assert [(due.version, due.quantity) for due in await window(world)] == [(newer, 5)]
    assert [item.finished_at for item in (await world.history())[0].items] == [None]


@pytest.mark.parametrize(("due_for", "name", "answer", "row"), EACH)
async def test_a_listing_that_was_cleared_meanwhile_is_never_sent_again(
    world: World, due_for: DueFor, name: str, answer: Told, row: dict[str, str]
) -> None:
    held, told = await under_way(world, due_for, answer)
    await cleared(world)
    [before] = await world.history()
    await record(world, held, told)
    await wait_over(world)
    await release(world)
    assert await state(world, "state", "lane", "park_reason") == ("idle", 0, None)
    assert await window(world) == []
    assert await waits(world) == []
    assert await world.history() == [before]


@pytest.mark.parametrize(("name", "answer"), PUSHES.items(), ids=PUSHES)
async def test_only_a_delivery_and_a_refusal_end_items(world: World, name: str, answer: Told) -> None:
    held, told = await under_way(world, DueFor.PUSH, answer)
    await record(world, held, replace(told, message="why"))
    assert await state(world, "calls", "last_outcome", "last_message") == (1, told.outcome, "why")
    [recorded] = await world.history()
    [item] = recorded.items
    ended = {"delivered": True, "delivered, in doubt": True, "delivered, lost holder": True, "parked": False}
    if name in ended:
        assert (item.success, item.message) == (ended[name], "why")
        assert recorded.finished_at is not None
    else:
        assert item.finished_at is None
        assert recorded.finished_at is None
    delivered, settled, due = await state(world, "version_delivered", "version_settled", "version_due")
    assert (delivered == due, settled == due) == (ended.get(name, False), name in ended)


@pytest.mark.parametrize(("told", "due", "lane"), [(20, 0, 1), (20, 19, 1), (20, 21, 2), (20, 20, 3), (0, 0, 3)])
async def test_what_is_newer_goes_into_the_lane_of_what_was_told_last(
    world: World, told: int, due: int, lane: int
) -> None:
    held, listing, version = await due_listing(world, 7)
    await update(world, due)
    await record(world, held, Told(listing, version, told))
    assert await state(world, "state", "lane") == ("due", lane)


async def test_what_is_due_and_what_fails_does_so_since_it_began(world: World) -> None:
    held, listing, version = await due_listing(world)
    seen = [await state(world, "due_since", "failing_since")]
    for kind in (Stay(), Again(), Retry(0.0), Stay(), AwaitFloor(0.0, sent=False), Deliver()):
        await record(world, held, Told(listing, version, 20, kind))
        await wait_over(world)
        await release(world)
        seen.append(await state(world, "due_since", "failing_since"))
    began, failed = seen[0][0], seen[2][1]
    assert began < failed
    assert seen == [(began, None), (began, None)] + [(began, failed)] * 3 + [(began, None), (None, None)]


async def test_a_parked_listing_says_why_since_when_and_until_when(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "parked", message="Banned"))
    reason, parked_at, retry_at = await state(world, "park_reason", "parked_at", "park_retry_at")
    assert (reason, retry_at - parked_at) == ("Banned", timedelta(hours=1))
    assert await world.rows("SELECT due_at FROM listing_wait") == [{"due_at": retry_at}]


# --- doubt, floors, what was submitted ---


async def doubt(world: World) -> int | str | None:
    """What the doubt is about; "nobody knows" what; None: there is none."""
    quantity, until = await state(world, "quantity_doubtful", "doubtful_until")
    if until is None:
        assert quantity is None
        return None
    return "nobody knows" if quantity is None else int(quantity)


async def doubt_seconds(world: World) -> float:
    return float(await world.value("SELECT extract(epoch FROM doubtful_until - now()) FROM listing_state"))


async def test_a_doubt_is_about_what_every_unclear_call_said(world: World) -> None:
    held, listing, version = await due_listing(world)
    seen = []
    for quantity in (20, 20, 5, 5):
        await record(world, held, Told(listing, version, quantity, Again(doubt_seconds=60.0)))
        seen.append(await doubt(world))
    assert seen == [20, 20, "nobody knows", "nobody knows"]


async def test_a_doubt_that_is_over_is_replaced_by_the_next(world: World) -> None:
    held, listing, version = await due_listing(world)
    for quantity in (20, 5):
        await record(world, held, Told(listing, version, quantity, Again(doubt_seconds=60.0)))
        assert await doubt(world) == quantity
        await world.execute("UPDATE listing_state SET doubtful_until = now() - interval '1 second'")


@pytest.mark.parametrize("later", [Again(doubt_seconds=60.0), Retry(5.0, doubt_seconds=60.0), Deliver(60.0)])
async def test_a_doubt_is_never_over_sooner_because_there_is_another(world: World, later: ListingDecision) -> None:
    """A remapped listing's old call may take effect for longer than a call of the store can."""
    held, listing, version = await due_listing(world)
    await world.execute("UPDATE listing_state SET doubtful_until = now() + interval '1000 seconds'")
    await record(world, held, Told(listing, version, 20, later, doubt_unknown=True))
    assert await doubt(world) == "nobody knows"
    assert await doubt_seconds(world) == pytest.approx(1000, abs=20)


async def test_a_lost_holders_doubt_is_about_nobody_knows_what(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, Deliver(40.0), doubt_unknown=True))
    assert await doubt(world) == "nobody knows"
    assert await doubt_seconds(world) == pytest.approx(40, abs=20)
    assert await waits(world) == [(listing, "confirmation")]


async def test_a_doubtful_quantity_is_kept_until_a_delivery_that_needs_no_confirmation(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, Retry(0.0, doubt_seconds=60.0)))
    [until] = await state(world, "doubtful_until")
    await wait_over(world)
    await release(world)
    await record(world, held, Told(listing, version, 20, Deliver(30.0)))
    assert await state(world, "state", "quantity_doubtful", "doubtful_until") == ("idle", 20, until)
    await wait_over(world)
    assert await release(world) == {held.store_id: {listing: 3}}
    assert await state(world, "state", "lane", "due_for") == ("due", 3, "confirm")
    await record(world, held, Told(listing, version, 20, due_for=DueFor.CONFIRM))
    assert await state(world, "state", "due_for") == ("idle", "push")
    assert await doubt(world) is None


@pytest.mark.parametrize(("due_for", "after"), [(DueFor.CONFIRM, None), (DueFor.RECONCILE, 20), (DueFor.OBSERVE, 20)])
async def test_a_doubt_ends_when_the_confirmation_finds_nothing_to_correct(
    world: World, due_for: DueFor, after: int | None
) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, Again(doubt_seconds=60.0)))
    await record(world, held, Told(listing, version, 20, Deliver(30.0)))
    await world.execute("UPDATE listing_state SET state = 'due', lane = 3, due_for = $1", str(due_for))
    await record(world, held, Told(listing, version, 20, Settle(20), due_for=due_for))
    assert await state(world, "state", "quantity_observed") == ("idle", 20)
    assert await doubt(world) == after


async def test_a_confirmation_corrects_and_the_doubt_stays_until_it_is_told(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 5, Again(doubt_seconds=60.0)))
    await record(world, held, Told(listing, version, 20, Deliver(30.0)))
    await wait_over(world)
    await release(world)
    await record(world, held, Told(listing, version, 20, Correct(5), due_for=DueFor.CONFIRM))
    assert await state(world, "state", "due_for", "lane", "version_delivered") == ("due", "push", 3, version)
    assert await doubt(world) == 5
    await record(world, held, Told(listing, version, 20))
    assert await state(world, "state") == ("idle",)
    assert await doubt(world) is None


async def test_a_confirmation_is_dropped_when_nothing_is_in_doubt_any_more(world: World) -> None:
    held, listing, version = await due_listing(world, 9)
    await record(world, held, Told(listing, version, 9, Deliver(0.0), doubt_unknown=True))
    newer = await update(world, 8)
    await record(world, held, Told(listing, newer, 8))
    assert await state(world, "state", "doubtful_until") == ("idle", None)
    await wait_over(world)
    await release(world)
    assert await window(world) == []
    assert await world.rows("SELECT FROM listing_wait") == []


async def test_a_floor_is_kept_until_a_wait_begins(world: World) -> None:
    held, listing, version = await due_listing(world, 2)
    seen = []
    for kind in (Again(floor=5), Stay(), Retry(0.0), Again(floor=6), AwaitFloor(60.0, sent=True)):
        await record(world, held, Told(listing, version, 6, kind))
        seen.append(await state(world, "quantity_floor"))
        if not isinstance(kind, AwaitFloor):
            await wait_over(world)
            await release(world)
    assert seen == [(5,), (5,), (None,), (6,), (None,)]
    assert await state(world, "state", "quantity_delivered", "version_delivered") == ("waiting", 6, 0)
    await wait_over(world)
    await release(world)
    [due] = await window(world)
    assert (due.quantity, due.delivered, due.floor, due.lane) == (2, 6, None, 1)  # the rest is tried


async def test_what_was_submitted_is_asked_about_until_it_is_answered_and_what_is_newer_waits(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, Submit("h", 0.0)))
    [since] = await state(world, "handle_at")
    newer = await update(world, 5)
    assert await window(world) == []
    for kind, handle in ((Retry(0.0), "h"), (Stay(), "h"), (Submit("h2", 0.0), "h2")):
        await wait_over(world)
        await release(world)
        [due] = await window(world)
        assert (due.due_for, due.quantity, due.submitted and due.submitted.version) == (DueFor.ASK, 5, version)
        asked = Told(listing, version, 20, kind, outcome="Unavailable", due_for=DueFor.ASK, handle="h")
        await record(world, held, asked)
        assert await state(world, "handle", "handle_version", "handle_quantity") == (handle, version, 20)
        assert await state(world, "handle_at") == (since,)
    await wait_over(world)
    await release(world)
    await record(world, held, Told(listing, version, 20, due_for=DueFor.ASK, handle="h2"))
    assert await state(world, "version_delivered", "handle", "handle_version") == (version, None, None)
    assert [(due.due_for, due.version, due.quantity) for due in await window(world)] == [(DueFor.PUSH, newer, 5)]
    assert [item.finished_at is None for update_ in await world.history() for item in update_.items] == [True, False]


# --- retries ---


async def test_an_update_of_a_failing_listing_goes_among_the_retries(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20))
    lanes = []
    for figure in (5, 30, 20):
        version = await update(world, 20)
        await record(world, held, Told(listing, version, 20, Again()))
        version = await update(world, figure)
        lanes.append(await state(world, "lane"))
        await record(world, held, Told(listing, version, 20))
    assert lanes == [(4,), (5,), (6,)]


async def test_retries_are_released_into_lanes_of_their_own_until_one_succeeds(world: World) -> None:
    held, listing, version = await due_listing(world)
    lanes = []
    for kind in (Defer(0.0), Retry(0.0), Defer(0.0), AwaitFloor(0.0, sent=False)):
        await record(world, held, Told(listing, version, 20, kind))
        await wait_over(world)
        await release(world)
        lanes.append(await state(world, "lane"))
    assert lanes == [(2,), (5,), (5,), (2,)]


# --- which results count ---


async def test_a_result_of_another_epoch_is_dropped(world: World) -> None:
    held, listing, version = await due_listing(world)
    before = await world.states()
    assert await record(world, held, Told(listing, version, 20), epoch=held.epoch - 1) == set()
    assert await record(world, held, Told(listing, version, 20), epoch=held.epoch + 1) == set()
    assert await world.states() == before
    assert (await world.history())[0].finished_at is None


async def test_a_lease_cannot_change_hands_while_a_result_is_being_written(world: World) -> None:
    held, listing, version = await due_listing(world)
    second = await register(world)
    [holder] = [row["worker_id"] for row in await world.rows("SELECT worker_id FROM store_lease")]
    await expire(world, holder)
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
    await record(world, held, Told(listing, version, 20, "stay"))
    await record(world, held, Told(listing, version, 20, "stay"))
    newer = await update(world, 5)
    assert [item.retries for item in (await world.history())[1].items] == [1]
    assert [item.retries for item in (await world.history())[0].items] == [0]
    await record(world, held, Told(listing, newer, 5, "stay"))
    await record(world, held, Told(listing, newer, 5, "stay"))
    assert [item.retries for item in (await world.history())[0].items] == [1]  # read live
    await record(world, held, Told(listing, newer, 5))
    assert [item.retries for item in (await world.history())[0].items] == [2]


async def test_what_only_says_later_what_a_call_meant_is_no_call(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "stay"))
    await record(world, held, Told(listing, version, 20, "parked", calls=0))
    assert await state(world, "state", "calls") == ("parked", 1)


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


async def test_an_item_that_has_ended_tells_of_what(world: World) -> None:
    held, listing, version = await due_listing(world)
    code = (await world.history())[0].transaction_code
    await world.execute("UPDATE item SET created_at = created_at - interval '3 seconds'")
    await world.execute("UPDATE stock_update SET created_at = created_at - interval '3 seconds'")
    await world.execute("UPDATE contribution SET item_created_at = item_created_at - interval '3 seconds'")
    async with world.pool.transaction() as connection:
        row = (world.tenant_id, listing, version, 0, True, "ok", "{}", None)
        [ended] = await delivery.settle_items(connection, [row])
        assert await delivery.settle_items(connection, [row]) == []
        assert await delivery.settle_items(connection, []) == []
    assert ended.latency_seconds == pytest.approx(3, abs=2.9)
    assert ended.latency_seconds > 3
    assert replace(ended, latency_seconds=3.0) == delivery.Ended(
        world.tenant_id, held.store_id, listing, str(code), True, "ok", 0, 3.0
    )


async def codes(world: World, listings: Iterable[int]) -> dict[int, list[UUID]]:
    async with world.pool.connection() as connection:
        found = await delivery.open_transactions(connection, [(world.tenant_id, one) for one in listings])
    return {listing: sorted(map(UUID, texts)) for (_, listing), texts in found.items()}


async def test_the_transactions_that_wait_for_a_listing_are_those_of_its_open_items(world: World) -> None:
    await world.tenant()
    east = await world.warehouse("east")
    await world.store(warehouses={0: None, east: None})
    await world.variants("sku1", "sku2", "sku3")
    await world.listings([(sku, "Toko Padi", sku) for sku in ("sku1", "sku2", "sku3")])
    await world.accepted(stock_update(blib=1))  # overtaken
    first = await world.accepted(stock_update(blib=2))
    second = await world.accepted(stock_update(warehouse="east", blib=3))
    other = await world.accepted(stock_update("sku2", blib=1))
    held, ids = await leased(world), await listing_ids(world)
    everything = [*ids.values(), ids["sku1"]]
    assert await codes(world, everything) == {ids["sku1"]: sorted([first, second]), ids["sku2"]: [other]}
    older = await world.value("SELECT min(version) FROM contribution WHERE listing_id = $1", ids["sku1"])
    await record(world, held, Told(ids["sku1"], older, 2))
    assert await codes(world, everything) == {ids["sku1"]: [second], ids["sku2"]: [other]}
    assert await codes(world, []) == {}


async def test_what_became_of_a_transaction_can_be_asked(world: World) -> None:
    async def status(transaction: str) -> str | None:
        async with world.pool.connection() as other:
            return await delivery.transaction_status(other, transaction)

    async with world.pool.transaction() as connection:
        committed = await delivery.transaction_id(connection)
        assert committed == await delivery.transaction_id(connection)
        assert await status(committed) == "in progress"
    assert await status(committed) == "committed"
    async with world.pool.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        aborted = await delivery.transaction_id(connection)
        await transaction.rollback()
    assert await status(aborted) == "aborted"
    assert aborted != committed
    assert await status("3") is None  # too long ago to tell


async def test_calls_are_kept_with_what_was_asked_and_answered(world: World) -> None:
    held, listing, _ = await due_listing(world)
    async with world.pool.transaction() as connection:
        first, second = await delivery.take_call_ids(connection, 2)
        assert second > first
        row = (
            held.tenant_id, first, held.store_id, held.epoch, f"{{{listing},7}}", "PUT", "https://x/", "{}", 200,
            json.dumps({"a": "é"}), "Accepted", 12.5,
        )  # fmt: skip
        await delivery.write_calls(connection, [row])
        await delivery.write_calls(connection, [])
    [call] = await world.rows("SELECT * FROM call")
    assert (call["id"], call["listing_ids"], call["response"]) == (first, [listing, 7], '{"a": "\\u00e9"}')
    assert (call["epoch"], call["status"], call["duration_ms"]) == (held.epoch, 200, 12.5)


async def test_a_wait_is_put_off_by_the_next_one(world: World) -> None:
    held, listing, _ = await due_listing(world)
    for reason, seconds in (("backoff", 5.0), ("confirmation", 500.0)):
        async with world.pool.transaction() as connection:
            await delivery.write_waits(connection, [(world.tenant_id, listing, held.store_id, reason, seconds)])
        [row] = await world.rows(
            "SELECT reason, store_id, extract(epoch FROM due_at - now())::float8 AS s FROM listing_wait"
        )
        assert (row["reason"], row["store_id"]) == (reason, held.store_id)
        assert row["s"] == pytest.approx(seconds, abs=5)


# --- a storm ---


async def unpark(world: World, held: LeaseRow, *listings: int, epoch: int | None = None) -> None:
    async with world.pool.transaction() as connection:
        await delivery.unpark(
            connection, tenant_id=world.tenant_id, epoch=held.epoch if epoch is None else epoch, listing_ids=listings
        )


async def test_what_was_parked_by_a_storm_is_due_again_under_the_epoch_only(world: World) -> None:
    ids = await many_due(world, 3)
    held = await leased(world)
    parked, due, other = ids.values()
    version = await world.value("SELECT max(version_due) FROM listing_state")
    await world.execute("UPDATE listing_state SET version_due = $1", version)
    await record(world, held, *(Told(listing, version, 0, "parked", message="Banned") for listing in (parked, other)))
    before = await world.states()
    await unpark(world, held, *ids.values(), epoch=held.epoch - 1)
    assert await world.states() == before
    await unpark(world, held, parked, due)
    after = await world.states()
    [back] = [row for row in after.values() if row["listing_id"] == parked]
    assert (back["state"], back["lane"], back["due_for"], back["park_reason"], back["park_retry_at"]) == (
        "due", 3, "push", None, None,
    )  # fmt: skip
    unchanged = [row for row in after.values() if row["listing_id"] != parked]
    assert unchanged == [row for row in before.values() if row["listing_id"] != parked]
    assert await waits(world) == [(other, "parked")]


# --- what comes back from waiting ---


STATES = {
    "idle": "state = 'idle', lane = 0",
    "due": "state = 'due', lane = 2",
    "waiting": "state = 'waiting', lane = 0",
    "parked": "state = 'parked', lane = 0, park_reason = 'why', parked_at = now(), park_retry_at = now()",
}
STAYS = {
    "idle": ("idle", 0, "push", None),
    "due": ("due", 2, "push", None),
    "waiting": ("waiting", 0, "push", None),
    "parked": ("parked", 0, "push", "why"),
}
COMES_BACK: dict[tuple[str, bool], dict[str, tuple[str, int, str, str | None]]] = {
    ("parked", False): {"parked": ("due", 3, "push", None)},
    ("confirmation", True): {"idle": ("due", 3, "confirm", None)},
    **{
        (reason, settled): {"waiting": ("due", 1 if settled else 2, "push", None)}
        for reason in ("backoff", "deferred", "floor", "submitted")
        for settled in (True, False)
    },
}


@pytest.mark.parametrize("reason", ["backoff", "deferred", "floor", "submitted", "parked", "confirmation"])
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
            " quantity_delivered = 9, doubtful_until = now()"
        )
    await world.execute(
        "INSERT INTO listing_wait SELECT tenant_id, listing_id, store_id, $1, now() - interval '1 second'"
        " FROM listing_state",
        reason,
    )
    await release(world)
    rows = await world.states()
    after = {name: tuple(row[key] for key in ("state", "lane", "due_for", "park_reason")) for name, row in rows.items()}
    assert after == {**STAYS, **COMES_BACK.get((reason, settled), {})}
    assert await waits(world) == []
    if reason == "parked":
        assert rows["parked"]["park_retry_at"] is None


async def test_a_parked_listing_without_anything_newer_stays_and_the_next_update_brings_it_back_at_once(
    world: World,
) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "parked", message="Banned"))
    newer = [await update(world, 5), await update(world, 6)]
    assert await state(world, "state", "park_reason", "version_due") == ("parked", "Banned", newer[1])
    await wait_over(world)
    assert await release(world) == {held.store_id: {listing: 3}}
    assert await state(world, "state", "lane", "park_reason", "park_retry_at") == ("due", 3, None, None)
    await record(world, held, Told(listing, newer[1], 6, "parked", message="Still banned"))
    await wait_over(world)
    await release(world)
    assert await state(world, "state", "park_reason", "park_retry_at") == ("parked", "Still banned", None)
    assert await waits(world) == []
    await update(world, 7)
    assert await state(world, "state", "lane", "park_reason", "quantity_due") == ("due", 3, None, 7)


async def test_a_confirmation_of_what_was_told_something_newer_since_is_only_dropped(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, Deliver(0.0)))
    newer = await update(world, 5)
    await wait_over(world)
    await release(world)
    assert await state(world, "state", "lane", "due_for", "version_due") == ("due", 1, "push", newer)
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
    assert await state(world, "state", "lane") == ("due", lane + 3)
    await world.execute("UPDATE listing_state SET attempts = 0, state = 'waiting', lane = 0")
    await record(world, held, Told(listing, version, due, "defer", 0.0))
    await world.execute("UPDATE listing_wait SET due_at = now() - interval '1 second'")
    await release(world)
    assert await state(world, "state", "lane") == ("due", lane)


async def test_a_wait_further_ahead_than_any_can_be_is_over(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "retry", DAY - 60))
    assert await release(world) == {}
    await world.execute("UPDATE listing_wait SET due_at = now() + interval '2 days'")
    assert await release(world) == {held.store_id: {listing: 5}}
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
    assert await release(world, limit=2) == {}
    assert len(await window(world)) == 5


async def test_a_listing_that_is_being_written_is_left_for_the_next_look(world: World) -> None:
    held, listing, version = await due_listing(world)
    await record(world, held, Told(listing, version, 20, "retry", 0.0))
    await wait_over(world)
    async with world.pool.transaction() as connection:
        await connection.execute("SELECT FROM listing_state FOR NO KEY UPDATE")
        assert await release(world) == {}
    assert await release(world) == {held.store_id: {listing: 5}}


async def test_a_wait_that_was_put_off_while_it_was_being_released_stays(world: World) -> None:
    """The statement's snapshot shows a confirmation that is over; what it finds locked is a backoff that is not."""
    held, listing, older = await due_listing(world)
    await record(world, held, Told(listing, older, 20, Deliver(0.0)))
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
    await record(world, held, Told(listing, version, 20, "parked"))
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
    assert found == {}
    assert await waits(world) == [(listing, "backoff")]
