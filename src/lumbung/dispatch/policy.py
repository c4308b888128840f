"""What an outcome means: the one place that decides what the engine does. Pure.

outcome          the listing                                      the store
Accepted         delivered; confirmed later if an earlier call    its breaker closes
                 is still in doubt; what was sent to respect a
                 floor waits for the rest
Submitted        waits, then is asked about                       its breaker closes
Throttled        stays due, no attempt is counted; of scope       waits (Retry-After, or a default), or with it all
                 listing: waits itself                            stores of its application
Unavailable      waits, exponentially, with jitter                its breaker counts
InDoubt          is sent again at once, later after a backoff;    (a probe of the breaker was unclear)
                 what was sent is doubtful
Unauthorized     stays due                                        refreshes its token once, or pauses
Misconfigured    parks, or stays due                              pauses when its scope is the store (of listings: the
                                                                 storm rule)
Rejected         parks; its items end as failed                   (the storm rule may pause it: storm.py)
Floor            is sent the minimum at once, waits for the rest  its breaker closes
Deferred         waits, then the newest; no attempt is counted    its breaker closes
Conflict         is decided again with what is really shown       its breaker closes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from lumbung.channels.base import (
    Accepted,
    Conflict,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    Scope,
    Submitted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.dispatch.backoff import backoff_seconds

DELIVERED_MESSAGE = "Successfully Updated"


# --- for the listing ---


@dataclass(frozen=True, slots=True)
class Deliver:
    """It has it. `confirm_after_seconds`: look at it again then, because an older call may still take effect."""

    confirm_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AwaitFloor:
    """It shows the least that the marketplace takes; the rest is tried then. `sent`: it was told that just now, and for
    `doubt_seconds` an older call may still take effect (None: none can)."""

    after_seconds: float
    sent: bool
    doubt_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Send the newest at once. Counts as an attempt. `doubt_seconds`: what was sent may have been applied, and may
    still be until then. `floor`: the least that the marketplace takes. `observed`: what it shows."""

    doubt_seconds: float | None = None
    floor: int | None = None
    observed: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Wait, then send the newest (or ask again). Counts as an attempt."""

    after_seconds: float
    doubt_seconds: float | None = None
    observed: int | None = None


@dataclass(frozen=True, slots=True)
class Defer:
    """Wait, then send the newest. Counts as no attempt."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class Submit:
    """Taken, to be applied later: wait, then ask with `handle`. Nothing else is sent for the listing meanwhile."""

    handle: str
    after_seconds: float


@dataclass(frozen=True, slots=True)
class Stay:
    """Stay due: it is the store that waits. Counts as no attempt."""


@dataclass(frozen=True, slots=True)
class Park:
    """Wait for a person; end its items as failed with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Settle:
    """It was read back, and what it shows stays."""

    observed: int | None


@dataclass(frozen=True, slots=True)
class Correct:
    """It was read back, and is to be told its quantity again, at once."""

    observed: int | None


ListingDecision = Deliver | AwaitFloor | Again | Retry | Defer | Submit | Stay | Park | Settle | Correct


# --- for its store ---


@dataclass(frozen=True, slots=True)
class Fine:
    """It answered."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """It could not be reached: the breaker counts."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """Neither reached nor unreachable."""


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Start no call for so long; `application`: no store of the application may."""

    seconds: float
    application: bool = False


@dataclass(frozen=True, slots=True)
class Refresh:
    """Its access token is not accepted: renew it, once."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for a person, keep the work."""

    reason: str


StoreDecision = Fine | Trouble | Unclear | SlowDown | Refresh | Pause


@dataclass(frozen=True, slots=True)
class Decision:
    listing: ListingDecision
    store: StoreDecision
    message: str


@dataclass(frozen=True, slots=True)
class Delays:
    """Settings, in seconds."""

    backoff_first_seconds: float
    backoff_max_seconds: float
    throttle_default_seconds: float
    throttle_seconds_min: float
    throttle_seconds_max: float
    defer_default_seconds: float
    defer_seconds_max: float
    floor_retry_seconds: float
    submitted_check_seconds_max: float
    submitted_seconds_max: float


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on besides the outcome.

    `attempts`: failures in a row before this answer. `dice`: in [0, 1). `doubt_seconds`: for this long an earlier
    call, of ours or of a lost holder, may still take effect. `quiesce_seconds`: for this long this call may, if it is
    unclear. `in_doubt`: an unclear call was not confirmed since, though it may be over. `shown`: what the marketplace
    is believed to show. `floored`: what was sent was the least that it takes. `asked_after_seconds`: this answers a
    question about what was submitted so long ago. `sent`: what the call said.
    """

    attempts: int
    dice: float
    doubt_seconds: float = 0.0
    quiesce_seconds: float = 0.0
    in_doubt: bool = False
    shown: int | None = None
    floored: bool = False
    asked_after_seconds: float | None = None
    sent: int | None = None


def decide(outcome: Outcome, situation: Situation, delays: Delays) -> Decision:
    """What to do about one listing's outcome."""
    match outcome:
        case Accepted():
            return Decision(_accepted(situation, delays), Fine(), DELIVERED_MESSAGE)
        case Submitted(handle=handle, check_after_seconds=seconds):
            return _submitted(handle, seconds, situation, delays)
        case Throttled(retry_after_seconds=seconds, scope=scope, message=message):
            wait = _within(delays.throttle_default_seconds if seconds is None else seconds, delays.throttle_seconds_max)
            wait = max(wait, delays.throttle_seconds_min)
            if scope is Scope.LISTING:
                return Decision(Defer(wait), Fine(), message)
            return Decision(Stay(), SlowDown(wait, application=scope is Scope.APPLICATION), message)
        case Unavailable(message=message):
            return Decision(Retry(_backoff(situation, delays)), Trouble(), message)
        case InDoubt(message=message):
            return Decision(_in_doubt(situation, delays), Unclear(), message)
        case Unauthorized(message=message, refreshable=refreshable):
            return Decision(Stay(), Refresh(message) if refreshable else Pause(message), message)
        case Misconfigured(message=message, scope=Scope.STORE):
            return Decision(Stay(), Pause(message), message)
        case Misconfigured(message=message) | Rejected(message=message):
            return Decision(Park(message), Fine(), message)
        case Floor(minimum=minimum, message=message):
            return Decision(_floor(minimum, situation, delays), Fine(), message)
        case Deferred(retry_after_seconds=seconds, message=message):
            wait = _within(delays.defer_default_seconds if seconds is None else seconds, delays.defer_seconds_max)
            return Decision(Defer(wait), Fine(), message)
        case Conflict(observed=observed):
            return Decision(_conflict(observed, situation, delays), Fine(), "The marketplace shows another quantity")
        case _:
            assert_never(outcome)


def _accepted(situation: Situation, delays: Delays) -> ListingDecision:
    doubt = situation.doubt_seconds if situation.doubt_seconds > 0 else None
    if situation.floored:
        wait = delays.floor_retry_seconds if doubt is None else min(doubt, delays.floor_retry_seconds)
        return AwaitFloor(wait, sent=True, doubt_seconds=doubt)
    return Deliver(doubt)


def _submitted(handle: str, seconds: float, situation: Situation, delays: Delays) -> Decision:
    """What is not ready after a long time is in doubt: waiting for ever would be the end of the listing."""
    if situation.asked_after_seconds is not None and situation.asked_after_seconds > delays.submitted_seconds_max:
        message = f"The marketplace has not applied in {situation.asked_after_seconds:.0f} s what it took"
        return Decision(_in_doubt(situation, delays), Unclear(), message)
    wait = _within(seconds, delays.submitted_check_seconds_max)
    return Decision(Submit(handle, wait), Fine(), "The marketplace has taken it and applies it later")


def _in_doubt(situation: Situation, delays: Delays) -> ListingDecision:
    if situation.attempts == 0:
        return Again(doubt_seconds=situation.quiesce_seconds)
    return Retry(_backoff(situation, delays), doubt_seconds=situation.quiesce_seconds)


def _floor(minimum: int, situation: Situation, delays: Delays) -> ListingDecision:
    """The minimum goes out at once: the old, larger number oversells. A marketplace that does not take its own minimum
    either, or names one that is no more than what was sent, is given time. So it does again as long as an unclear call
    may have put up more. No floor is kept over a wait: by then it may be above what is shown."""
    if situation.floored or (situation.sent is not None and minimum <= situation.sent):
        return Retry(_backoff(situation, delays))
    doubtful = situation.in_doubt or situation.doubt_seconds > 0
    if situation.shown is not None and situation.shown <= minimum and not doubtful:
        return AwaitFloor(delays.floor_retry_seconds, sent=False)
    return Again(floor=minimum)


def _conflict(observed: int | None, situation: Situation, delays: Delays) -> ListingDecision:
    if situation.attempts == 0:
        return Again(observed=observed)
    return Retry(_backoff(situation, delays), observed=observed)


def _within(seconds: float, seconds_max: float) -> float:
    """A marketplace may name a time that is past, or far too far ahead."""
    return max(0.0, min(seconds, seconds_max))


def _backoff(situation: Situation, delays: Delays) -> float:
    return backoff_seconds(
        situation.attempts + 1,
        dice=situation.dice,
        first_seconds=delays.backoff_first_seconds,
        max_seconds=delays.backoff_max_seconds,
    )
