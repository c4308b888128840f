"""A marketplace: what each listing shows, and what becomes of calls.

A call takes effect and is answered at moments that the dice choose, whatever becomes of who made it. Its fault is drawn
when it arrives:

    refused    nothing happens, and the caller knows             lost      it took effect, the answer is lost
    nothing    nothing happens, and the caller does not know     late      the answer is lost, it takes effect later
    throttled  nothing happens; with or without a time           expired   the access token is no longer good
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Protocol

from lumbung.channels.base import (
    Accepted,
    Attempt,
    Conflict,
    Deferred,
    Floor,
    InDoubt,
    Observed,
    Outcome,
    Push,
    Reading,
    ReadRow,
    Refreshed,
    Rejected,
    Row,
    Scope,
    Submitted,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.dispatch.report import Lease
from tests.simulation.loop import Process, VirtualClock, VirtualLoop
from tests.simulation.trace import Trace

UNCLEAR = frozenset({"lost", "nothing", "late"})


@dataclass(slots=True)
class Shelf:
    """A listing as the marketplace has it. `floor`, `locked`, `banned`, `poison`: what it does to pushes now."""

    listing_id: int
    store_id: int
    shown: int = 0
    sold: int = 0
    floor: int | None = None
    locked: bool = False
    banned: bool = False
    poison: bool = False


@dataclass(slots=True)
class Account:
    """A store there. `access`, `refresh`: the live pair, where it knows pairs."""

    store_id: int
    channel: str
    rate: float
    burst: int
    submits: bool = False
    compares: bool = False
    app_id: int | None = None
    pair: int = 0
    access_until: float = 0.0
    access_seconds: float = 0.0
    traded_by: Process | None = None
    answered: int = 0


@dataclass(eq=False, slots=True)
class Call:
    """`told`: the quantities; `unclear`: whoever made it cannot know what it did."""

    number: int
    account: Account
    lease: Lease
    process: Process
    kind: str
    pushes: tuple[Push, ...]
    fault: str
    began: float
    pair: int = 0
    ended: float | None = None

    @property
    def unclear(self) -> bool:
        return self.fault in UNCLEAR or self.process.dead


class Watcher(Protocol):
    """Who looks at what the marketplace sees."""

    def began(self, call: Call) -> None: ...

    def ended(self, call: Call) -> None: ...

    def applied(self, call: Call, listing_id: int, quantity: int) -> None: ...

    def bought(self, listing_id: int, units: int) -> None: ...


@dataclass(slots=True)
class Chances:
    """Of faults, a call; zero in fair weather."""

    faults: dict[str, float] = field(default_factory=dict)
    submitted: float = 0.5
    refresh_unavailable: float = 0.0
    forgotten: float = 0.0


@dataclass(slots=True)
class Handle:
    """Submitted work. `outcomes`: what became of each listing, once it is done."""

    pushes: tuple[Push, ...]
    ready_at: float
    outcomes: dict[int, Outcome] = field(default_factory=dict)


class Marketplace:
    def __init__(self, loop: VirtualLoop, dice: Random, trace: Trace, chances: Chances, *, quiesce_seconds: float):
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.shelves: dict[int, Shelf] = {}
        self.accounts: dict[int, Account] = {}
        self.handles: dict[str, Handle] = {}
        self.chances = chances
        self.open_calls = 0
        self.effects_to_come = 0
        self._watchers: list[Watcher] = []
        self._dice = dice
        self._trace = trace
        self._quiesce_seconds = quiesce_seconds
        self._calls = 0

    def watch(self, watcher: Watcher) -> None:
        self._watchers.append(watcher)

    def buy(self, listing_id: int, units: int) -> None:
        shelf = self.shelves[listing_id]
        units = min(units, shelf.shown)
        shelf.shown -= units
        shelf.sold += units
        if units:
            self._trace.add(f"listing {listing_id}", "sold", units, "left", shelf.shown)
            for watcher in self._watchers:
                watcher.bought(listing_id, units)

    # --- calls ---

    async def call(
        self, account: Account, lease: Lease, process: Process, kind: str, pushes: Sequence[Push], pair: int
    ) -> Attempt | Reading:
        self._calls += 1
        fault = self._fault()
        call = Call(self._calls, account, lease, process, kind, tuple(pushes), fault, self.loop.time(), pair)
        answer: asyncio.Future[Attempt | Reading] = self.loop.create_future()
        self.open_calls += 1
        self._note(call, "call", fault)
        for watcher in self._watchers:
            watcher.began(call)
        took = 0.02 + 0.4 * self._dice.random() ** 2
        if fault == "refused":
            self.loop.later(took, self._answer, call, answer, _all_alike(call, Unavailable("refused")))
        elif fault in UNCLEAR:
            self._unclear(call, answer, took)
        else:
            self.loop.later(took, self._take_effect, call, answer)
        return await answer

    def _fault(self) -> str:
        roll = self._dice.random()
        for fault, chance in self.chances.faults.items():
            if roll < chance:
                return fault
            roll -= chance
        return ""

    def _unclear(self, call: Call, answer: asyncio.Future[Attempt | Reading], took: float) -> None:
        """A timeout or a reset; what was late takes effect within the quiesce time after the caller has given up."""
        gives_up = took + 1.5 * self._dice.random()
        if call.fault == "lost":
            self.loop.later(took, self._effects, call)
        elif call.fault == "late":
            self.effects_to_come += 1
            self.loop.later(gives_up + 0.9 * self._quiesce_seconds * self._dice.random(), self._late, call)
        silence = Unavailable("no answer") if call.kind.startswith("ask") else InDoubt("no answer")
        self.loop.later(gives_up, self._answer, call, answer, _all_alike(call, silence))

    def _late(self, call: Call) -> None:
        self.effects_to_come -= 1
        self._effects(call)

    def _take_effect(self, call: Call, answer: asyncio.Future[Attempt | Reading]) -> None:
        given = self._effects(call)
        self.loop.later(0.01 + 0.1 * self._dice.random(), self._answer, call, answer, given)

    def _answer(self, call: Call, answer: asyncio.Future[Attempt | Reading], given: Attempt | Reading) -> None:
        self.open_calls -= 1
        call.ended = self.loop.time()
        for watcher in self._watchers:
            watcher.ended(call)
        call.account.answered += call.fault not in {"refused", *UNCLEAR}
        self._note(call, "answer", given)
        if not answer.done():
            answer.set_result(given)

    def _note(self, call: Call, what: str, more: object) -> None:
        for push in call.pushes:
            said = more
            if isinstance(more, Attempt):
                said = next(row.outcome for row in more.rows if row.listing_id == push.listing_id)
            elif isinstance(more, Reading):
                said = next(row.seen for row in more.rows if row.listing_id == push.listing_id)
            self._trace.add(
                f"listing {push.listing_id}",
                what,
                f"#{call.number} {call.kind} {push.quantity} by {call.process.name} epoch {call.lease.epoch}:",
                said,
            )

    # --- what a call does ---

    def _effects(self, call: Call) -> Attempt | Reading:
        account = call.account
        if account.access_seconds and (call.pair != account.pair or self.loop.time() >= account.access_until):
            return _all_alike(call, Unauthorized("expired", refreshable=True))
        if call.fault == "throttled":
            seconds = None if self._dice.random() < 0.5 else 0.5 + 2 * self._dice.random()
            scope = Scope.APPLICATION if account.app_id is not None and self._dice.random() < 0.3 else Scope.STORE
            scope = Scope.LISTING if self._dice.random() < 0.2 else scope
            return _all_alike(call, Throttled(seconds, scope))
        if call.kind == "read":
            return Reading(tuple(ReadRow(p.listing_id, self._read(p)) for p in call.pushes), ())
        if len(call.pushes) > 1 and any(self.shelves[push.listing_id].poison for push in call.pushes):
            rows = tuple(Row(push.listing_id, Rejected("one of these cannot be taken")) for push in call.pushes)
            return Attempt(rows, (), as_a_whole=True)
        if call.kind.startswith("ask"):
            return self._asked(call)
        if account.submits and not call.fault and self._dice.random() < self.chances.submitted:
            return self._submit(call)
        return Attempt(tuple(Row(p.listing_id, self._apply(call, p)) for p in call.pushes), ())

    def _read(self, push: Push) -> Observed | Outcome:
        shelf = self.shelves[push.listing_id]
        return Rejected("banned") if shelf.banned else Observed(shelf.shown)

    def _apply(self, call: Call, push: Push) -> Outcome:
        shelf = self.shelves[push.listing_id]
        if shelf.banned or shelf.poison:
            return Rejected("banned")
        if shelf.locked:
            return Deferred(None if self._dice.random() < 0.5 else 3 * self._dice.random(), "locked")
        if shelf.floor is not None and push.quantity < shelf.floor:
            return Floor(shelf.floor, "reserved")
        if call.account.compares and push.expected is not None and push.expected != shelf.shown:
            return Conflict(shelf.shown)
        self._trace.add(f"listing {push.listing_id}", "shows", push.quantity, f"#{call.number}")
        for watcher in self._watchers:
            watcher.applied(call, push.listing_id, push.quantity)
        shelf.shown, shelf.sold = push.quantity, 0
        return Accepted()

    def _submit(self, call: Call) -> Attempt:
        handle = f"h{call.number}"
        seconds = 0.2 + 3 * self._dice.random()
        self.handles[handle] = Handle(call.pushes, self.loop.time() + seconds)
        self.effects_to_come += 1
        self.loop.later(seconds, self._work_through, handle, call)
        rows = tuple(Row(push.listing_id, Submitted(handle, 0.1 + 2 * self._dice.random())) for push in call.pushes)
        return Attempt(rows, ())

    def _work_through(self, handle: str, call: Call) -> None:
        self.effects_to_come -= 1
        work = self.handles[handle]
        for push in work.pushes:
            work.outcomes[push.listing_id] = self._apply(call, push)

    def _asked(self, call: Call) -> Attempt:
        work = self.handles[call.kind.removeprefix("ask ")]
        if not work.outcomes:
            handle = call.kind.removeprefix("ask ")
            return Attempt(tuple(Row(p.listing_id, Submitted(handle, 0.5)) for p in call.pushes), ())
        if self._dice.random() < self.chances.forgotten:
            return Attempt(tuple(Row(p.listing_id, InDoubt("nobody knows this work")) for p in call.pushes), ())
        return Attempt(tuple(Row(p.listing_id, work.outcomes[p.listing_id]) for p in call.pushes), ())

    # --- tokens ---

    def issue(self, account: Account, process: Process | None) -> Tokens:
        account.pair += 1
        account.access_until = self.loop.time() + account.access_seconds
        account.traded_by = process
        now = self.clock.now()
        return Tokens(
            f"access-{account.pair}-{account.store_id}",
            f"refresh-{account.pair}-{account.store_id}",
            now,
            now + timedelta(seconds=account.access_seconds),
        )

    async def refresh(self, account: Account, process: Process, tokens: Tokens) -> Refreshed:
        answer: asyncio.Future[Refreshed] = self.loop.create_future()
        self.loop.later(0.02 + self._dice.random(), self._trade, account, process, tokens, answer)
        return await answer

    def _trade(self, account: Account, process: Process, tokens: Tokens, answer: asyncio.Future[Refreshed]) -> None:
        result: Tokens | Unavailable | Unauthorized
        if self._dice.random() < self.chances.refresh_unavailable:
            result = Unavailable("not now")
        elif tokens.refresh != f"refresh-{account.pair}-{account.store_id}":
            result = Unauthorized("this refresh token was used", refreshable=False)
        else:
            result = self.issue(account, process)
        self._trace.add(f"store {account.store_id}", "refresh by", process.name, type(result).__name__, account.pair)
        self.loop.later(0.01 + 0.2 * self._dice.random(), _give, answer, Refreshed(result, ()))


def _give(answer: asyncio.Future[Refreshed], given: Refreshed) -> None:
    if not answer.done():
        answer.set_result(given)


def _all_alike(call: Call, outcome: Outcome) -> Attempt | Reading:
    if call.kind == "read":
        return Reading(tuple(ReadRow(push.listing_id, outcome) for push in call.pushes), ())
    return Attempt(tuple(Row(push.listing_id, outcome) for push in call.pushes), ())
