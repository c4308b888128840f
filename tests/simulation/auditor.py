"""The invariants of the engine, looked at while it runs and when it has come to rest.

1  every accepted update has its record
2  applied versions of a listing never decrease, except by a call whose outcome nobody could know
3  at rest every live listing shows its newest accepted quantity, unless it is parked, floored or locked
4  at most one call in flight for a listing and epoch; the next one starts when the result of the last is recorded
5  no rate is exceeded, as the marketplace counts
6  every item ends, and whatever is due has a next attempt in sight
7  no token pair is lost
8  where nothing fails no listing waits longer than twice (due listings / rate), plus a constant
9  where nothing is unclear, nothing that was sold is put on sale again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from lumbung.dispatch.report import Report
from lumbung.dispatch.storage import Recorded
from tests.simulation.accepting import Accepted
from tests.simulation.marketplace import Account, Call, Marketplace
from tests.simulation.tables import Key, State, Tables
from tests.simulation.trace import Broken, Trace

FAIR_CONSTANT_SECONDS = 6.0
FAIR_SUBMITTED_SECONDS = 8.0


@dataclass(slots=True)
class Told:
    """What is known of a listing: which version each quantity is, the newest one, and the newest that was applied."""

    store_id: int
    versions: dict[int, int] = field(default_factory=dict)
    newest_version: int = 0
    newest_quantity: int = 0
    applied_version: int = 0
    applied_unclear: bool = False
    due_since: float | None = None


@dataclass(slots=True)
class Bucket:
    """A limit as the marketplace counts it: calls that have not drained yet."""

    rate: float
    burst: float
    level: float = 0.0
    at: float = 0.0

    def take(self, now: float) -> bool:
        self.level = max(0.0, self.level - self.rate * (now - self.at)) + 1
        self.at = now
        return self.level <= self.burst + 1e-6


class Auditor:
    """`clear`: nothing is ever unclear in this run. `fair`: nothing fails either, and nobody is away."""

    def __init__(self, tables: Tables, market: Marketplace, trace: Trace, *, clear: bool, fair: bool):
        self._tables = tables
        self._market = market
        self._trace = trace
        self._clear = clear
        self._fair = fair
        self._retired = False
        self.clock_jumped_at = -1.0
        self._told: dict[int, Told] = {}
        self._codes: dict[int, str] = {}
        self._in_flight: dict[tuple[int, int], Call] = {}
        self._unrecorded: dict[tuple[int, int], Call] = {}
        self._buckets = {account.store_id: Bucket(account.rate, account.burst) for account in market.accounts.values()}
        self._app_buckets: dict[int, Bucket] = {}
        market.watch(self)

    def limit_application(self, app_id: int, rate: float, burst: int) -> None:
        """What all processes together may do: see dispatch/allowance.py."""
        self._app_buckets[app_id] = Bucket(rate, burst + rate)

    # --- what happens ---

    def retire(self) -> None:
        """The run is over: look no more."""
        self._retired = True

    def accepted(self, accepted: Accepted, tenant_id: int) -> None:
        self._codes[accepted.update_id] = accepted.code
        for listing_id in accepted.due:
            state = self._tables.states[tenant_id, listing_id]
            told = self._told.setdefault(listing_id, Told(state.store_id))
            told.versions[state.quantity_due] = state.version_due
            told.newest_version, told.newest_quantity = state.version_due, state.quantity_due
            told.due_since = self._trace.time() if told.due_since is None else told.due_since
            self._trace.add(f"listing {listing_id}", "accepted", state.quantity_due, "version", state.version_due)

    def began(self, call: Call) -> None:
        if self._retired:
            return
        for push in call.pushes:
            place = (push.listing_id, call.lease.epoch)
            if place in self._in_flight:
                self._broken(4, "two calls in flight at once", push.listing_id)
            if place in self._unrecorded:
                self._broken(4, "a call before the last one's result was recorded", push.listing_id)
            self._in_flight[place] = call
        self._count(call)

    def ended(self, call: Call) -> None:
        for push in call.pushes:
            place = (push.listing_id, call.lease.epoch)
            self._in_flight.pop(place, None)
            self._unrecorded[place] = call

    def applied(self, call: Call, listing_id: int, quantity: int) -> None:
        if self._retired:
            return
        told = self._told[listing_id]
        version = told.versions.get(quantity)
        if version is None:
            return  # the least that the marketplace takes
        if version < told.applied_version and not self._excused(call):
            self._broken(2, f"version {version} applied after {told.applied_version}", listing_id)
        if self._clear and version == told.applied_version and self._market.shelves[listing_id].sold:
            self._broken(9, "what was sold is on sale again", listing_id)
        told.applied_version = max(told.applied_version, version)
        told.applied_unclear = self._excused(call)
        self._judge_fairness(told, listing_id, version)

    def bought(self, listing_id: int, units: int) -> None:
        """Nothing is wrong with that."""

    def recorded(self, reports: Sequence[Report], recorded: Recorded) -> None:
        for report in reports:
            for result in report.results:
                self._unrecorded.pop((result.listing_id, report.epoch), None)
                self._trace.add(
                    f"listing {result.listing_id}",
                    "recorded"
                    if (report.tenant_id, result.listing_id, report.epoch) in recorded.written
                    else "dropped",
                    result.outcome,
                    result.decision,
                )
                self._in_sight((report.tenant_id, result.listing_id))

    # --- during the run ---

    def _excused(self, call: Call) -> bool:
        """Nobody could know when, or whether, it would be applied: unclear answers, holders that are lost or frozen."""
        stale = self._tables.leases[call.account.store_id].epoch != call.lease.epoch
        # A clock that jumps makes submitted work look given up: it is in doubt then, and healed.
        return call.unclear or stale or call.process.frozen_until >= call.began or call.began <= self.clock_jumped_at

    def _count(self, call: Call) -> None:
        if self._excused(call):
            return  # a lease cannot fence a marketplace
        account, now = call.account, self._trace.time()
        if not self._buckets[account.store_id].take(now):
            self._broken(5, f"more than {account.rate}/s", call.pushes[0].listing_id)
        bucket = self._app_buckets.get(account.app_id) if account.app_id is not None else None
        if bucket is not None and not bucket.take(now):
            self._broken(5, f"more than {bucket.rate}/s of the application", call.pushes[0].listing_id)

    def _judge_fairness(self, told: Told, listing_id: int, version: int) -> None:
        waited = 0.0 if told.due_since is None else self._trace.time() - told.due_since
        told.due_since = None if version == told.newest_version else self._trace.time()
        listings = sum(other.store_id == told.store_id for other in self._told.values())
        account = self._market.accounts[told.store_id]
        constant = FAIR_CONSTANT_SECONDS + (FAIR_SUBMITTED_SECONDS if account.submits else 0.0)
        if self._fair and not account.compares and waited > 2 * listings / account.rate + constant:
            self._broken(8, f"waited {waited:.1f} s", listing_id)

    def _in_sight(self, key: Key) -> None:
        """Whatever is to be told something newer is due, or waits for a time that comes."""
        state, wait = self._tables.states[key], self._tables.waits.get(key)
        if state.state == "waiting" and wait is None:
            self._broken(6, "waits for no time", key[1])
        newer = state.version_due > state.version_settled
        if state.state == "parked" and newer and (wait is None or wait.reason != "parked"):
            self._broken(6, "parked with a newer version that nothing brings back", key[1])
        if state.state == "idle" and newer:
            self._broken(6, "idle with a version that was never told", key[1])

    # --- at rest ---

    def restless(self) -> str | None:
        """What is still to happen, in words; None at rest."""
        market = self._market
        if market.open_calls or market.effects_to_come:
            return "calls are in flight"
        for key, state in self._tables.states.items():
            if self._tables.is_live(state.store_id) and (why := self._restless(key, state)):
                return f"listing {key[1]} {why}"
        return None

    def _restless(self, key: Key, state: State) -> str | None:
        wait, shelf = self._tables.waits.get(key), self._market.shelves[key[1]]
        if state.state == "due":
            return f"is due for {state.due_for}"
        if state.state == "parked":
            return "is parked with a newer version" if state.version_due > state.version_settled else None
        if wait is None or (wait.reason == "floor" and shelf.floor is not None):
            return None
        if state.state == "waiting" and shelf.locked:
            return None
        return f"waits for a {wait.reason}"

    def stuck(self, why: str) -> None:
        listing_id = int(why.split()[1]) if why.startswith("listing") else next(iter(self._told), 0)
        self._broken(6, f"it does not come to rest: {why}", listing_id)

    def final(self) -> None:
        self._check_records()
        for key, state in self._tables.states.items():
            self._in_sight(key)
            self._check_shown(key, state)
        self._check_items()
        for account in self._market.accounts.values():
            self._check_tokens(account)
            self._check_trouble(account)

    def _check_records(self) -> None:
        for update_id, code in self._codes.items():
            update = self._tables.updates.get(update_id)
            if update is None or update.code != code:
                self._broken(1, f"no record of {code}", 0)

    def _check_shown(self, key: Key, state: State) -> None:
        told, shelf = self._told[key[1]], self._market.shelves[key[1]]
        if state.state in {"parked", "waiting"} or not self._tables.is_live(state.store_id):
            return
        if told.applied_unclear and shelf.sold:
            return  # nobody can tell what an unclear call put there from what was sold since: it is left
        if shelf.shown + shelf.sold != told.newest_quantity:
            message = f"shows {shelf.shown} ({shelf.sold} sold) instead of {told.newest_quantity}"
            self._broken(3, message, key[1])

    def _check_items(self) -> None:
        still_open: dict[int, int] = {}
        for item in self._tables.items.values():
            if item.success is not None or item.listing_id is None:
                continue
            still_open[item.update_id] = still_open.get(item.update_id, 0) + 1
            state = self._tables.states[item.tenant_id, item.listing_id]
            if state.state != "waiting" and self._tables.is_live(item.store_id):
                self._broken(6, f"item {item.id} has not ended", item.listing_id)
        for update in self._tables.updates.values():
            if update.items_open != still_open.get(update.id, 0):
                self._broken(6, f"update {update.id} counts {update.items_open} open items", 0)

    def _check_tokens(self, account: Account) -> None:
        if not is_lost(self._tables, account) or (account.traded_by is not None and account.traded_by.dead):
            return
        raise Broken(7, "the stored pair is not the live one", self._trace.last(f"store {account.store_id}"))

    def _check_trouble(self, account: Account) -> None:
        trouble = self._tables.leases[account.store_id].trouble
        if trouble is not None and account.answered >= 2:
            about = self._trace.last(f"store {account.store_id}", "all")
            raise Broken(6, f"store {account.store_id} answers but is said to be in trouble: {trouble}", about)

    def _broken(self, number: int, message: str, listing_id: int) -> None:
        store = self._told[listing_id].store_id if listing_id in self._told else 0
        about = f"listing {listing_id} of store {store} at {self._trace.time():.4f} s"
        raise Broken(number, f"{about}: {message}", self._trace.last(f"listing {listing_id}", f"store {store}", "all"))


def is_lost(tables: Tables, account: Account) -> bool:
    """Whether the database has another pair than the one that works."""
    digest = sha256(f"refresh-{account.pair}-{account.store_id}".encode()).digest()
    return account.pair > 0 and tables.stores[account.store_id].tokens_digest != digest
