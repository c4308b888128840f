"""What reading a listing back means: the rules that never resurrect sold units. Pure.

    shown = desired                          nothing
    shown > desired                          told again: it would oversell
    shown < desired                          left, and reported: units were sold since. Told again only if a call whose
                                             outcome was unclear may have put that number there: it said just that, or
                                             nobody knows what it said (a lost holder's)

An operator who wants those below corrected too says so (`lumbung reconcile --correct-down`).
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
    Observed,
    Outcome,
    Rejected,
    Scope,
    Submitted,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.dispatch.policy import Correct, Decision, Delays, Fine, Settle, Situation, decide
from lumbung.model import DueFor


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a listing should show, and what an unclear call may have made it show (`in_doubt`; None: not known)."""

    due_for: DueFor
    desired: int
    in_doubt: int | None


def decide_reading(seen: Observed | Outcome, wanted: Wanted, situation: Situation, delays: Delays) -> Decision:
    """What to do about one listing that was read back."""
    match seen:
        case Observed(quantity=quantity):
            return _seen(quantity, wanted)
        case Throttled() | Unavailable() | Unauthorized() | Misconfigured(scope=Scope.STORE):
            return decide(seen, situation, delays)
        case InDoubt(message=message):
            return decide(Unavailable(message), situation, delays)
        case Rejected() | Misconfigured() | Accepted() | Submitted() | Floor() | Deferred() | Conflict():
            return _unreadable(seen, wanted)
        case _:
            assert_never(seen)


def _seen(quantity: int, wanted: Wanted) -> Decision:
    if quantity == wanted.desired:
        return Decision(Settle(quantity), Fine(), "It shows what it should")
    above = quantity > wanted.desired
    by_doubt = wanted.due_for is DueFor.CONFIRM and wanted.in_doubt in {None, quantity}
    if wanted.due_for is not DueFor.OBSERVE and (above or by_doubt):
        return Decision(Correct(quantity), Fine(), f"It shows {quantity} instead of {wanted.desired}: told again")
    return Decision(Settle(quantity), Fine(), f"It shows {quantity} instead of {wanted.desired}")


def _unreadable(seen: Outcome, wanted: Wanted) -> Decision:
    """Doubt that reading cannot remove is removed by telling it again."""
    message = str(getattr(seen, "message", "It cannot be read back"))
    if wanted.due_for is DueFor.CONFIRM:
        return Decision(Correct(None), Fine(), f"{message}: told again")
    return Decision(Settle(None), Fine(), message)
