"""The storage in memory against the one in PostgreSQL: the same operations, the same answers, the same rows.

Durations end in 3 and time passes in steps of 10 s, so that it never matters that PostgreSQL's clock runs meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from lumbung.db import budget, stores
from lumbung.db.delivery import Due, Ended
from lumbung.db.lease import ChannelTimes, LeaseRow, StoredTokens
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
from lumbung.dispatch.postgres import PostgresStorage
from lumbung.dispatch.report import Lease, Report, Result
from lumbung.dispatch.storage import Recorded, Storage
from lumbung.model import DueFor, StockUpdate, Submission
from lumbung.settings import Settings
from tests.simulation import leases
from tests.simulation.accepting import accept
from tests.simulation.memory import DirectLink, MemoryStorage
from tests.simulation.tables import Budget, Listing, Store, Tables
from tests.simulation.tables import Lease as LeaseInMemory
from tests.world import PARTNER_ID, World

OPERATIONS = 300
TOLERANCE_SECONDS = 2.5
WAITS = (13.0, 33.0, 63.0)
STEPS = (10, 10, 30, 70)
QUIESCE_SECONDS = 23.0
CHANNELS = {"blib": ChannelTimes(QUIESCE_SECONDS, 15.0)}
SETTINGS = Settings(
    backoff_max_seconds=103.0,
    park_retry_seconds=63.0,
    defer_seconds_max=103.0,
    throttle_seconds_max=203.0,
    submitted_check_seconds_max=103.0,
    quiesce_seconds_max=103.0,
)
TIMES = {
    "worker": ("renewed_at", "expires_at"),
    "store_lease": ("doubt_until",),
    "listing_state": (
        "due_since", "failing_since", "park_retry_at", "observed_at", "doubtful_until", "delivered_at", "handle_at",
        "parked_at",
    ),
    "listing_wait": ("due_at",),
    "budget": ("refilled_at", "blocked_until"),
}  # fmt: skip
STATE_COLUMNS = (
    "state", "lane", "due_for", "version_due", "version_delivered", "version_settled", "quantity_due",
    "quantity_delivered", "quantity_observed", "quantity_doubtful", "quantity_floor", "calls", "attempts",
    "last_outcome", "last_message", "park_reason", "handle", "handle_version", "handle_quantity",
    *TIMES["listing_state"],
)  # fmt: skip


@dataclass
class Twins:
    """Both, and what is known of their world."""

    world: World
    postgres: Storage
    memory: Storage
    tables: Tables
    dice: Random
    listings: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    now: float = 0.0
    shifted_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    async def both(self, operation: Callable[[Storage], Awaitable[Any]]) -> Any:
        self.now += 0.001
        theirs, ours = await operation(self.postgres), await operation(self.memory)
        assert_alike(_plain(theirs), _plain(ours))
        return theirs

    async def pass_time(self, seconds: float) -> None:
        """In PostgreSQL everything is moved back; what its clock has run by itself since is counted."""
        clock = await self.world.value("SELECT clock_timestamp()")
        shift = timedelta(seconds=seconds) - (clock - self.shifted_at)
        self.shifted_at = clock
        for table, columns in TIMES.items():
            moved = ", ".join(f"{column} = {column} - $1::interval" for column in columns)
            await self.world.execute(f"UPDATE {table} SET {moved}", shift)  # noqa: S608
        self.now += seconds

    async def compare(self) -> None:
        assert_alike(await self._rows_of_postgres(), self._rows_of_memory())

    async def _rows_of_postgres(self) -> dict[str, Any]:
        clock = await self.world.value("SELECT clock_timestamp()")
        states = await self.world.rows("SELECT * FROM listing_state")
        waits = await self.world.rows("SELECT listing_id, reason, due_at FROM listing_wait")
        held = await self.world.rows("SELECT * FROM store_lease")
        items = await self.world.rows("SELECT id, success, message, retries FROM item")
        updates = await self.world.rows("SELECT id, items_open FROM stock_update")
        return {
            "states": {row["listing_id"]: {c: _left(row[c], clock) for c in STATE_COLUMNS} for row in states},
            "waits": {row["listing_id"]: (row["reason"], _left(row["due_at"], clock)) for row in waits},
            "leases": {
                row["store_id"]: (
                    row["worker_id"],
                    row["epoch"],
                    _left(row["doubt_until"], clock),
                    row["quiesce_seconds"],
                    row["trouble"],
                )
                for row in held
            },
            "items": {row["id"]: (row["success"], row["message"], row["retries"]) for row in items},
            "updates": {row["id"]: row["items_open"] for row in updates},
        }

    def _rows_of_memory(self) -> dict[str, Any]:
        tables, now = self.tables, self.now
        times = set(TIMES["listing_state"])
        return {
            "states": {
                listing: {c: _from_now(getattr(s, c), now) if c in times else getattr(s, c) for c in STATE_COLUMNS}
                for (_, listing), s in tables.states.items()
            },
            "waits": {listing: (wait.reason, wait.due_at - now) for (_, listing), wait in tables.waits.items()},
            "leases": {
                row.store_id: (
                    row.worker_id,
                    row.epoch,
                    _from_now(row.doubt_until, now),
                    row.quiesce_seconds,
                    row.trouble,
                )
                for row in tables.leases.values()
            },
            "items": {item.id: (item.success, item.message, item.retries) for item in tables.items.values()},
            "updates": {update.id: update.items_open for update in tables.updates.values()},
        }


def _left(value: Any, clock: datetime) -> Any:
    return (value - clock).total_seconds() if isinstance(value, datetime) else value


def _from_now(value: float | None, now: float) -> float | None:
    return None if value is None else value - now


def _plain(value: Any) -> Any:
    """What can be compared: the order of sets and of what ended does not count, nor how long it took."""
    match value:
        case Ended():
            return {**asdict(value), "latency_seconds": 0}
        case Recorded():
            ended = sorted((_plain(item) for item in value.ended), key=str)
            waiting = {key: sorted(codes) for key, codes in value.waiting.items()}
            return {"written": sorted(value.written), "ended": ended, "waiting": waiting}
        case set() | frozenset():
            return sorted(value)
        case [*values]:
            return sorted((_plain(item) for item in values), key=_name)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        case _:
            return value


def _name(plain: Any) -> Any:
    return (plain.get("store_id", 0), plain.get("listing_id", 0)) if isinstance(plain, dict) else plain


def assert_alike(theirs: Any, ours: Any, where: str = "") -> None:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        assert theirs.keys() == ours.keys(), where
        for key in theirs:
            assert_alike(theirs[key], ours[key], f"{where}.{key}")
    elif isinstance(theirs, list | tuple) and isinstance(ours, list | tuple):
        assert len(theirs) == len(ours), (where, theirs, ours)
        for number, pair in enumerate(zip(theirs, ours, strict=True)):
            assert_alike(*pair, f"{where}[{number}]")
    elif isinstance(theirs, float) and isinstance(ours, float):
        assert abs(theirs - ours) < TOLERANCE_SECONDS, (where, theirs, ours)
    else:
        assert theirs == ours, (where, theirs, ours)


# --- the world ---


async def twins(world: World, seed: int) -> Twins:
    await world.tenant()
    await world.store("one")
    await world.store("two", warehouses={0: "L1"})
    await world.variants("sku1", "sku2")
    await world.listings([("sku1", "one", "A"), ("sku1", "two", "B"), ("sku2", "one", "C"), ("sku2", "two", "D")])
    await world.execute("UPDATE store SET tokens = '\\x01', tokens_digest = '\\x02'")
    app_id = await world.value(
        "INSERT INTO channel_app (channel, name, credentials) VALUES ('blib', 'app', '') RETURNING id"
    )
    async with world.pool.connection() as connection:
        await budget.put_budget(connection, channel_app_id=app_id, name="b", calls_per_second=0.013, burst=5)
    both = await _built(world, seed)
    both.tables.budgets[app_id] = [Budget(0.013, 5, both.now)]
    both.shifted_at = await world.value("SELECT clock_timestamp()")
    return both


async def _built(world: World, seed: int) -> Twins:
    tables = Tables(lambda: both.now)
    for row in world.stores.values():
        link = await world.value("SELECT location FROM store_warehouse WHERE store_id = $1", row.id)
        made = Store(row.id, row.tenant_id, row.channel, row.name, serving={0: link})
        made.tokens, made.tokens_digest = b"\x01", b"\x02"
        tables.stores[row.id] = made
        tables.leases[row.id] = LeaseInMemory(row.id, row.tenant_id)
    for sku in await world.rows("SELECT tenant_id, sku, id FROM variant"):
        tables.variants[sku["tenant_id"], sku["sku"]] = sku["id"]
    for got in await world.rows("SELECT tenant_id, id, variant_id, store_id, remote_variant FROM listing ORDER BY id"):
        tables.listings[got["tenant_id"], got["id"]] = Listing(**got)
    tables.version = await world.value("SELECT last_value FROM version_seq")
    tables.item = await world.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM item_seq")
    both = Twins(
        world,
        PostgresStorage(world.pool, world.pool, SETTINGS, CHANNELS),
        MemoryStorage(tables, DirectLink(), SETTINGS, CHANNELS),
        tables,
        Random(seed),
        [listing_id for _, listing_id in tables.listings],
    )
    return both


# --- operations ---


async def _accept(both: Twins) -> None:
    dice, tenant_id = both.dice, both.world.tenant_id
    code = UUID(int=dice.getrandbits(128))
    quantity = dice.choice((0, 5, 5, 10, 20, 99))
    update = StockUpdate(dice.choice(("sku1", "sku2")), "default", quantity, 0, dice.random() < 0.9, {})
    await both.world.submit(Submission(tenant_id, PARTNER_ID, code, update))
    both.now += 0.001
    accept(both.tables, tenant_id, update, str(code))


async def _register(both: Twins) -> None:
    if len(both.workers) < 3:
        both.workers.append(await both.both(lambda storage: storage.register("w", 15.0)))


async def _renew(both: Twins) -> None:
    worker_id = both.dice.choice(both.workers)
    await both.both(lambda storage: storage.renew(worker_id))


async def _claim(both: Twins) -> None:
    worker_id, limit = both.dice.choice(both.workers), both.dice.randint(1, 2)
    wanted = list(both.tables.stores)
    rows: list[LeaseRow] = await both.both(lambda storage: storage.claim(worker_id, wanted, limit))
    both.leases += [Lease(row.store_id, row.tenant_id, row.epoch, row.channel, row.store_name) for row in rows]


async def _give_back(both: Twins) -> None:
    worker_id, store_id = both.dice.choice(both.workers), both.dice.choice(list(both.tables.stores))
    doubts = {store_id: 13.0} if both.dice.random() < 0.3 else {}
    await both.both(lambda storage: storage.give_back(worker_id, [store_id], doubts))


async def _look(both: Twins) -> None:
    working = both.dice.sample(list(both.tables.stores), both.dice.randint(0, len(both.tables.stores)))
    await both.both(lambda storage: storage.look(working))


async def _release(both: Twins) -> None:
    chosen = [store_id for store_id in both.tables.stores if both.dice.random() < 0.8]
    await both.both(lambda storage: storage.release_waits(chosen))


async def _window(both: Twins, lease: Lease) -> list[Due]:
    cursors = {lane: both.dice.choice((0, 0, both.listings[1])) for lane in range(1, 7)}
    busy, limit = [i for i in both.listings if both.dice.random() < 0.1], both.dice.randint(1, 4)
    due: list[Due] = await both.both(
        lambda storage: storage.due_window(lease, cursors=cursors, busy=busy, limit=limit, with_locations=True)
    )
    await both.both(lambda storage: storage.due_now(lease, both.listings[::-1], with_locations=both.leases[0] is lease))
    return due


async def _record(both: Twins) -> None:
    if not both.leases:
        return
    lease = both.dice.choice((both.leases[-1], both.dice.choice(both.leases)))
    due = await _window(both, lease)
    if not due:
        return
    results = tuple(_result(both.dice, listing) for listing in due)
    pause = "a reason" if both.dice.random() < 0.03 else None
    unpark = tuple(i for i in both.listings if both.dice.random() < 0.5) if both.dice.random() < 0.1 else ()
    report = Report(
        lease.tenant_id, lease.store_id, lease.epoch, "blib", results, (), pause, _no_future(), unpark=unpark
    )
    if both.dice.random() < 0.1:
        report = replace(report, epoch=lease.epoch + 1)
    await both.both(lambda storage: storage.record([report]))


def _no_future() -> Any:
    """Only the recorder looks at it."""
    return None


def _result(dice: Random, due: Due) -> Result:
    asked = due.due_for is DueFor.ASK and due.submitted is not None
    submitted = due.submitted if asked else None
    decision = _decision(dice)
    outcome = dice.choice(("InDoubt", "Conflict", "Accepted", "Throttled"))
    return Result(
        due.listing_id,
        submitted.version if submitted else due.version,
        submitted.quantity if submitted else dice.choice((due.quantity, due.quantity, 5)),
        outcome,
        decision,
        "words",
        '{"a": 1}',
        due_for=due.due_for,
        handle=submitted.handle if submitted else None,
        doubt_unknown=dice.random() < 0.3,
        calls=dice.randint(0, 1),
    )


def _decision(dice: Random) -> ListingDecision:
    wait, doubt = dice.choice(WAITS), dice.choice((None, QUIESCE_SECONDS))
    floor, observed = dice.choice((None, 7)), dice.choice((None, 0, 5, 50))
    return dice.choice(
        (
            Deliver(),
            Deliver(),
            Deliver(wait),
            AwaitFloor(wait, sent=True, doubt_seconds=doubt),
            AwaitFloor(wait, sent=False),
            Again(doubt, floor, observed),
            Retry(wait, doubt, observed),
            Defer(wait),
            Submit(dice.choice(("h1", "h2")), wait),
            Stay(),
            Park("a reason"),
            Settle(observed),
            Correct(observed),
        )
    )


async def _reconcile(both: Twins) -> None:
    """As `lumbung reconcile` makes idle listings due."""
    due_for, upgrade = both.dice.choice(("reconcile", "observe")), both.dice.random() < 0.3
    await both.world.execute(
        "UPDATE listing_state SET state = 'due', lane = 3, due_for = $1 WHERE state = 'idle'", due_for
    )
    await both.world.execute("UPDATE listing_state SET due_for = 'reconcile' WHERE due_for = 'observe' AND $1", upgrade)
    for state in both.tables.states.values():
        if state.state == "idle":
            state.state, state.lane, state.due_for = "due", 3, due_for
        if state.due_for == "observe" and upgrade:
            state.due_for = "reconcile"


async def _note(both: Twins) -> None:
    if both.leases:
        lease, trouble = both.dice.choice(both.leases), both.dice.choice((None, "trouble"))
        await both.both(lambda storage: storage.note_quiesce(lease, 33.0))
        await both.both(lambda storage: storage.note_trouble(lease, trouble))


async def _operate(both: Twins) -> None:
    """Pause or resume a store, revoke its lease, take its warehouse away or give it back."""
    store_id, tenant_id, deed = both.dice.choice(list(both.tables.stores)), both.world.tenant_id, both.dice.random()
    async with both.world.pool.transaction() as connection:
        if deed < 0.2:
            await stores.pause(connection, tenant_id=tenant_id, store_id=store_id, reason="a person")
            leases.pause(both.tables, store_id, "a person")
        elif deed < 0.6:
            for paused in both.tables.stores:
                if not both.tables.is_live(paused):
                    await stores.resume(connection, tenant_id=tenant_id, store_id=paused)
                    leases.resume(both.tables, paused)
        elif both.tables.stores[store_id].serving:
            await stores.unlink(connection, tenant_id=tenant_id, store_id=store_id, warehouse_id=0)
            both.tables.stores[store_id].serving = {}
        else:
            await stores.link(connection, tenant_id=tenant_id, store_id=store_id, warehouse_id=0, location="L2")
            both.tables.stores[store_id].serving = {0: "L2"}


async def _share(both: Twins) -> None:
    app_id, calls = next(iter(both.tables.budgets)), both.dice.randint(1, 3)
    await both.both(lambda storage: storage.reserve(app_id, calls))
    if both.dice.random() < 0.2:
        await both.both(lambda storage: storage.block(app_id, 33.0))


async def _swap(both: Twins) -> None:
    if both.leases:
        lease, old = both.dice.choice(both.leases), both.dice.choice((b"\x02", b"\x03"))
        new = StoredTokens(b"\x05", both.dice.choice((b"\x02", b"\x03")), None, None)
        await both.both(lambda storage: storage.swap_tokens(lease, old, new))
        await both.both(lambda storage: storage.read_tokens(lease))


async def _wait(both: Twins) -> None:
    await both.pass_time(both.dice.choice(STEPS))


OPERATIONS_BY_WEIGHT: dict[Callable[[Twins], Awaitable[None]], int] = {
    _accept: 12,
    _register: 1,
    _renew: 6,
    _claim: 8,
    _give_back: 2,
    _look: 3,
    _release: 8,
    _record: 30,
    _reconcile: 2,
    _note: 2,
    _operate: 3,
    _share: 2,
    _swap: 2,
    _wait: 10,
}


@pytest.mark.parametrize("seed", range(6))
async def test_memory_does_what_postgresql_does(world: World, seed: int) -> None:
    both = await twins(world, seed)
    await _register(both)
    operations, weights = list(OPERATIONS_BY_WEIGHT), list(OPERATIONS_BY_WEIGHT.values())
    for number in range(OPERATIONS):
        [operation] = both.dice.choices(operations, weights)
        try:
            await operation(both)
            await both.compare()
        except Exception as error:
            error.add_note(f"seed {seed}, operation {number}: {operation.__name__}")
            raise
