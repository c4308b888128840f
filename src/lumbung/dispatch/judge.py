"""From what a call gave to what is written down and done: the policy applied to each listing of a batch, with the rules
that look at several: bisection of calls that fail as a whole, and the storm rule.

Nothing here waits or acts: the sender does what a verdict says.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from lumbung.channels.base import (
    Attempt,
    CallRecord,
    Deferred,
    InDoubt,
    Misconfigured,
    Observed,
    Outcome,
    Reading,
    Rejected,
    Scope,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.db.delivery import Due
from lumbung.dispatch.batching import Bisection, Locks
from lumbung.dispatch.policy import (
    Again,
    AwaitFloor,
    Correct,
    Decision,
    Defer,
    Delays,
    Deliver,
    Fine,
    Park,
    Pause,
    Retry,
    Settle,
    Situation,
    Stay,
    StoreDecision,
    Submit,
    decide,
)
from lumbung.dispatch.reconcile import Wanted, decide_reading
from lumbung.dispatch.report import Lease, Result
from lumbung.dispatch.storm import Storm
from lumbung.dispatch.window import Batch, Task
from lumbung.model import DueFor

CONFIRM_SECONDS_MIN = 0.001
DOUBTS_KEPT = 1000  # so many may be over before they are looked through


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call gave for one listing; `answer` is its part of the marketplace's answer, JSON text or ""."""

    seen: Outcome | Observed
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What a call gave, by listing."""

    rows: dict[int, Answered]
    calls: tuple[CallRecord, ...]
    as_a_whole: bool = False

    @classmethod
    def of(cls, given: Attempt | Reading) -> Exchanged:
        if isinstance(given, Reading):
            return cls({row.listing_id: Answered(row.seen) for row in given.rows}, given.calls)
        rows = {row.listing_id: Answered(row.outcome, row.answer) for row in given.rows}
        return cls(rows, given.calls, given.as_a_whole)

    @classmethod
    def all_alike(
        cls, batch: Batch, outcome: Outcome, calls: tuple[CallRecord, ...] = (), *, as_a_whole: bool = False
    ) -> Exchanged:
        return cls({listing.listing_id: Answered(outcome) for listing in batch.listings}, calls, as_a_whole)


@dataclass(frozen=True, slots=True)
class Told:
    """A store's decision with the words for a person."""

    decision: StoreDecision
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to write, what to do about the store, what may be sent again (`released`: held listings among the results),
    and listings that were parked though it was the store."""

    results: tuple[Result, ...]
    store: tuple[Told, ...] = ()
    released: tuple[int, ...] = ()
    unpark: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """Times on the process's monotonic clock."""

    started: float
    now: float


@dataclass(frozen=True, slots=True)
class Doubt:
    """Calls that may take effect until then, by the process's monotonic clock, and what all of them said (None: not
    the same)."""

    until: float
    quantity: int | None

    def and_another(self, quantity: int, until: float, now: float) -> Doubt:
        if self.until <= now:
            return Doubt(until, quantity)
        return Doubt(max(self.until, until), quantity if self.quantity == quantity else None)


NO_DOUBT = Doubt(0.0, None)
REFUSALS = frozenset({"Rejected", "Misconfigured"})
"""What parks a listing, unless so many in a row do that it is the store."""


class Judge:
    """The rules of one store, with what they remember from call to call."""

    def __init__(
        self,
        lease: Lease,
        delays: Delays,
        *,
        quiesce_seconds: float,
        doubt_seconds_max: float,
        storm_rejections: int,
        bisection: Bisection,
        locks: Locks,
        dice: Callable[[], float],
        thing_of: Callable[[Due], Hashable],
    ):
        self._lease = lease
        self._delays = delays
        self._quiesce_seconds = quiesce_seconds
        self._doubt_seconds_max = doubt_seconds_max
        self._bisection = bisection
        self._locks = locks
        self._storm = Storm(storm_rejections)
        self._thing_of = thing_of
        self._held: dict[int, Result] = {}
        self._doubts: dict[int, Doubt] = {}  # our own, by our own clock: the database's may jump
        self._doubts_max = DOUBTS_KEPT
        self._dice = dice

    def doubt_seconds(self, now: float) -> float:
        """For how long calls for any listing may still take effect by our own clock, ours or those of a lost holder."""
        until = max((doubt.until for doubt in self._doubts.values()), default=0.0)
        return max(0.0, max(until, self._lease.doubt_until) - now)

    def holds(self, listing_id: int) -> bool:
        """Whether a rejection of it waits for a verdict: it is not to be sent meanwhile."""
        return listing_id in self._held

    def judge(self, batch: Batch, exchanged: Exchanged, moment: Moment) -> Verdict:
        """Raises KeyError when a connector has answered for fewer listings than it was asked about."""
        ids = [listing.listing_id for listing in batch.listings]
        seen = [exchanged.rows[listing_id].seen for listing_id in ids]
        locked = all(isinstance(what, Deferred) for what in seen)
        whole = exchanged.as_a_whole and len(ids) > 1 and not (locked and self._locks.believes(ids))
        answered = any(_is_answer(what) for what in seen)
        if whole or (exchanged.as_a_whole and not answered):
            self._bisection.failed(ids)
        else:
            self._bisection.settled(ids)
            if answered:
                self._bisection.answered(len(ids))
        self._note_locks(ids, seen, whole=whole)
        decided = [
            (listing, self._one(batch.task, listing, what, batch.read_at, moment, whole=whole))
            for listing, what in zip(batch.listings, seen, strict=True)
        ]
        results = [
            self._with_doubt(
                _result(
                    batch.task,
                    listing,
                    exchanged.rows[listing.listing_id],
                    decision,
                    self._doubt_unknown(batch.task, listing, batch.read_at, moment),
                ),
                moment.now,
            )
            for listing, decision in decided
        ]
        self._forget_old_doubts(moment.now)
        store = tuple(Told(decision.store, decision.message) for _, decision in decided)
        return self._with_storm(results, store, {listing.listing_id: listing for listing in batch.listings})

    def _note_locks(self, ids: Sequence[int], seen: Sequence[Outcome | Observed], *, whole: bool) -> None:
        for listing_id, what in zip(ids, seen, strict=True):
            if isinstance(what, Deferred) and not whole:
                self._locks.locked(listing_id)
            else:
                self._locks.free(listing_id)

    def nothing_else(self) -> Verdict:
        """Nothing else is due: what is held will not become clearer."""
        released = self._storm.nothing_else()
        return Verdict(tuple(self._held.pop(listing_id) for listing_id in released), released=released)

    def _one(
        self, task: Task, listing: Due, seen: Outcome | Observed, read_at: float, moment: Moment, *, whole: bool
    ) -> Decision:
        if whole and _may_be_anothers(seen):
            message = f"{seen.message} (the call was refused as a whole: it is cut in halves)"
            return Decision(Stay(), Fine(), message)
        situation = self._situation(task, listing, read_at, moment)
        if task is Task.READ and listing.due_for is DueFor.CONFIRM and self._remembered(listing) > moment.now:
            # The database's clock has jumped forwards: what is read now may change yet.
            wait = min(self._remembered(listing) - moment.now, self._doubt_seconds_max)
            return Decision(Defer(wait), Fine(), "An unclear call may still take effect")
        if task is Task.READ:
            return decide_reading(
                seen, Wanted(listing.due_for, listing.quantity, listing.doubtful), situation, self._delays
            )
        if isinstance(seen, Observed):
            seen = InDoubt("The connector answered a push with a quantity")
        return decide(seen, situation, self._delays)

    def _situation(self, task: Task, listing: Due, read_at: float, moment: Moment) -> Situation:
        """Doubt counts from the start of the call, or since what is asked about was submitted: a lost call may have
        been applied after ours."""
        doubt_until = max(self._lease.doubt_until, self._own_doubt_until(listing, read_at))
        left = max(doubt_until - moment.now, CONFIRM_SECONDS_MIN)
        return Situation(
            attempts=listing.attempts,
            dice=self._dice(),
            doubt_seconds=left if doubt_until > _sent_at(task, listing, read_at, moment) else 0.0,
            quiesce_seconds=self._quiesce_seconds,
            in_doubt=listing.doubt_left_seconds is not None,
            shown=listing.expected,
            floored=listing.floor is not None and listing.quantity < listing.floor,
            asked_after_seconds=listing.submitted.age_seconds if task is Task.ASK and listing.submitted else None,
            sent=_told(task, listing),
        )

    def _own_doubt_until(self, listing: Due, read_at: float) -> float:
        """A doubt further ahead than any can be was written before the clock jumped back."""
        remembered = self._doubts.get(listing.listing_id, NO_DOUBT).until
        if listing.doubt_left_seconds is None:
            return remembered
        return max(remembered, read_at + min(listing.doubt_left_seconds, self._doubt_seconds_max))

    def _remembered(self, listing: Due) -> float:
        """Until when calls for it, of ours or of a lost holder, may take effect by our own clock."""
        return max(self._lease.doubt_until, self._doubts.get(listing.listing_id, NO_DOUBT).until)

    def _with_doubt(self, result: Result, now: float) -> Result:
        if not isinstance(result.decision, Again | Retry) or result.decision.doubt_seconds is None:
            return result
        before = self._doubts.get(result.listing_id, NO_DOUBT)
        doubt = before.and_another(result.quantity, now + result.decision.doubt_seconds, now)
        self._doubts[result.listing_id] = doubt
        return replace(result, doubt_unknown=doubt.quantity is None)

    def _forget_old_doubts(self, now: float) -> None:
        """Only when they have doubled: in an outage there are many, and each call would look at all of them."""
        if len(self._doubts) > self._doubts_max:
            self._doubts = {listing_id: doubt for listing_id, doubt in self._doubts.items() if doubt.until > now}
            self._doubts_max = max(DOUBTS_KEPT, 2 * len(self._doubts))

    def _doubt_unknown(self, task: Task, listing: Due, read_at: float, moment: Moment) -> bool:
        """Whether the doubt is about calls whose quantities nobody knows."""
        sent_at = _sent_at(task, listing, read_at, moment)
        if listing.doubtful is None and self._own_doubt_until(listing, read_at) > sent_at:
            return True
        return self._lease.doubt_until > sent_at

    def _with_storm(self, results: list[Result], store: tuple[Told, ...], listings: Mapping[int, Due]) -> Verdict:
        rejected = [r.listing_id for r in results if r.outcome in REFUSALS and isinstance(r.decision, Park)]
        answered = [r.listing_id for r in results if r.listing_id not in rejected]
        self._storm.forget(answered)
        for listing_id in answered:
            self._held.pop(listing_id, None)
        if any(_is_success(result) for result in results):
            released = self._storm.succeeded()
            held = [self._held.pop(listing_id) for listing_id in released if listing_id not in rejected]
            self._held.clear()
            return Verdict((*results, *held), store, released)
        stormy = [self._storm.rejected(listing_id, self._thing_of(listings[listing_id])) for listing_id in rejected]
        if any(stormy):
            return self._paused_by_storm(results, rejected, store)
        held_now = [_held(result) if result.listing_id in rejected else result for result in results]
        self._held.update({r.listing_id: replace(r, calls=0) for r in results if r.listing_id in rejected})
        return Verdict(tuple(held_now), store)

    def _paused_by_storm(self, results: list[Result], rejected: Sequence[int], store: tuple[Told, ...]) -> Verdict:
        """It is the store, not its listings: none is parked."""
        counted = self._storm.counted
        last = next(result.message for result in reversed(results) if result.listing_id in rejected)
        self._storm.succeeded()
        released = tuple(self._held)
        self._held.clear()
        reason = (
            f"{len(counted)} different listings in a row were refused: the store seems to be set up wrongly. "
            f"The last answer: {last}"
        )
        pause = Told(Pause(reason), reason)
        kept = tuple(_held(result) if result.listing_id in rejected else result for result in results)
        return Verdict(kept, (*store, pause), released, unpark=tuple(i for i in counted if i not in rejected))


def _may_be_anothers(seen: Outcome | Observed) -> TypeGuard[Rejected | Misconfigured | Deferred]:
    """Whether what was said of a whole call may be the fault of one of its listings. A lock too: the others must not
    wait for hours because one is in a campaign."""
    match seen:
        case Misconfigured(scope=scope):
            return scope is Scope.LISTING
        case Rejected() | Deferred():
            return True
        case _:
            return False


def _is_answer(seen: Outcome | Observed) -> bool:
    """Whether the marketplace has looked at the listing."""
    if isinstance(seen, Misconfigured):
        return seen.scope is Scope.LISTING
    return not isinstance(seen, Throttled | Unavailable | InDoubt | Unauthorized)


def _is_success(result: Result) -> bool:
    match result.decision:
        case Deliver() | Submit() | AwaitFloor(sent=True):
            return True
        case Settle(observed=observed) | Correct(observed=observed):
            return observed is not None
        case _:
            return False


def _held(result: Result) -> Result:
    """The call is counted now; what it means for the listing comes later. What was asked about has ended by it."""
    return replace(result, decision=Stay(), handle=None)


def _result(task: Task, listing: Due, answered: Answered, decision: Decision, doubt_unknown: bool) -> Result:
    version, handle = listing.version, None
    if task is Task.ASK and listing.submitted is not None:
        version, handle = listing.submitted.version, listing.submitted.handle
    return Result(
        listing.listing_id,
        version,
        _told(task, listing),
        type(answered.seen).__name__,
        decision.listing,
        decision.message,
        answered.answer,
        due_for=listing.due_for,
        handle=handle,
        doubt_unknown=doubt_unknown,
        attempt=listing.attempts + 1,
    )


def _sent_at(task: Task, listing: Due, read_at: float, moment: Moment) -> float:
    """From when on what a call was about may have been applied. Submitted no time ago means that the database's clock
    has jumped back since: then nobody knows, and every doubt that is remembered may be a later one."""
    if task is Task.ASK and listing.submitted is not None:
        if listing.submitted.age_seconds <= 0:
            return 0.0
        return min(moment.started, read_at - listing.submitted.age_seconds)
    return moment.started


def _told(task: Task, listing: Due) -> int:
    """The quantity that a call was about."""
    if task is Task.ASK and listing.submitted is not None:
        return listing.submitted.quantity
    return listing.quantity if task is Task.READ else sent_quantity(listing)


def sent_quantity(listing: Due) -> int:
    """What a push says: the quantity, or the least that the marketplace takes."""
    return listing.quantity if listing.floor is None else max(listing.quantity, listing.floor)
