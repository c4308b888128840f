"""What an outcome means: the one place that decides what the engine does. Pure.

    outcome          the listing                          the store
    Accepted         delivered; confirmed later if an     its breaker closes
                     earlier call is still in doubt
    Throttled        stays due, no attempt is counted     waits (Retry-After, or a default)
    Unavailable      waits, exponentially, with jitter    its breaker counts
    InDoubt          waits a moment, then the newest;      (a probe of the breaker was unclear)
                     what was sent is doubtful
    Unauthorized     stays due                            pauses
    Misconfigured    parks, or stays due                  pauses when its scope is the store
    Rejected         parks; its items end as failed
    Deferred         waits, then the newest; no attempt
                     is counted

Submitted, Floor, Conflict and a token that can be refreshed have no decision yet: no connector answers them,
and one that did would be refused loudly (`NoDecisionError`).
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


class NoDecisionError(NotImplementedError):
    """A connector answered an outcome for which no decision is built."""


# --- for the listing ---


@dataclass(frozen=True, slots=True)
class Deliver:
    """It has it. `confirm_after_seconds`: send it once more then, because an older call may still take effect."""

    confirm_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class Retry:
    """Wait, then send the newest. Counts as an attempt. `doubtful`: what was sent may have been applied."""

    after_seconds: float
    doubtful: bool


@dataclass(frozen=True, slots=True)
class Defer:
    """Wait, then send the newest. Counts as no attempt."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class Stay:
    """Stay due: it is the store that waits."""


@dataclass(frozen=True, slots=True)
class Park:
    """Wait for a person; end its items as failed with the reason."""

    reason: str


ListingDecision = Deliver | Retry | Defer | Stay | Park


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
    """Start no call for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for a person, keep the work."""

    reason: str


StoreDecision = Fine | Trouble | Unclear | SlowDown | Pause


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
    throttle_seconds_max: float
    defer_default_seconds: float
    defer_seconds_max: float


@dataclass(frozen=True, slots=True)
class Situation:
    """`attempts`: failures in a row before this answer. `dice`: in [0, 1). `doubt_seconds`: for this long an earlier
    call, of ours or of a lost holder, may still take effect."""

    attempts: int
    dice: float
    doubt_seconds: float


def decide(outcome: Outcome, situation: Situation, delays: Delays) -> Decision:
    """What to do about one listing's outcome. Raises NoDecisionError where none is built."""
    match outcome:
        case Accepted():
            confirm = situation.doubt_seconds if situation.doubt_seconds > 0 else None
            return Decision(Deliver(confirm), Fine(), DELIVERED_MESSAGE)
        case Throttled(retry_after_seconds=seconds, scope=Scope.STORE | Scope.LISTING, message=message):
            wait = delays.throttle_default_seconds if seconds is None else seconds
            return Decision(Stay(), SlowDown(min(wait, delays.throttle_seconds_max)), message)
        case Unavailable(message=message):
            return Decision(Retry(_backoff(situation, delays), doubtful=False), Trouble(), message)
        case InDoubt(message=message):
            return Decision(Retry(_backoff(situation, delays), doubtful=True), Unclear(), message)
        case Unauthorized(message=message, refreshable=False):
            return Decision(Stay(), Pause(message), message)
        case Misconfigured(message=message, scope=Scope.STORE):
            return Decision(Stay(), Pause(message), message)
        case Misconfigured(message=message) | Rejected(message=message):
            return Decision(Park(message), Fine(), message)
        case Deferred(retry_after_seconds=seconds, message=message):
            wait = delays.defer_default_seconds if seconds is None else seconds
            return Decision(Defer(min(wait, delays.defer_seconds_max)), Fine(), message)
        case Submitted() | Floor() | Conflict() | Unauthorized() | Throttled():
            raise NoDecisionError(f"No decision is built for {outcome}")
        case _:
            assert_never(outcome)


def _backoff(situation: Situation, delays: Delays) -> float:
    return backoff_seconds(
        situation.attempts + 1,
        dice=situation.dice,
        first_seconds=delays.backoff_first_seconds,
        max_seconds=delays.backoff_max_seconds,
    )
