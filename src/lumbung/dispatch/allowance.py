"""A process's part of a limit that many stores share. Pure.

Calls are reserved from the budget in the database about a second's worth at a time, and are good for a second: what is
not used by then is lost, so that a process never comes with a purse of old calls on top of the others'.

Bound: with a budget of `rate` and `burst` the calls of all processes in any window of w seconds are at most
burst + rate x (w + 1), and rate x the time that the database takes to answer on top.
"""

from __future__ import annotations

GOOD_FOR_SECONDS = 1.0


class Allowance:
    """Times are seconds of the caller's monotonic clock."""

    def __init__(self, calls_max: int = 1000) -> None:
        self._calls_max = calls_max
        self._left = 0
        self._good_until = 0.0
        self._next_at = 0.0
        self._want = 1

    def take(self, now: float) -> bool:
        """Whether a call may be made of what is reserved; if so, it is counted."""
        if self._left == 0 or now >= self._good_until or now < self._next_at:
            return False
        self._left -= 1
        return True

    def next_at(self, now: float) -> float:
        """The earliest time to ask the budget again: `now`, or later."""
        return max(now, self._next_at)

    def want(self, now: float) -> int:
        """How many calls to reserve now: twice as many when the last ones did not last a second, else half as many."""
        if self._left == 0 and now < self._good_until:
            self._want = min(2 * self._want, self._calls_max)
        elif now >= self._good_until:
            self._want = max(1, self._want // 2)
        return self._want

    def granted(self, now: float, calls: int, wait_seconds: float) -> None:
        """The budget gave so many calls; with none, there may be some after the wait. Never shortens a wait: the budget
        may have been asked before we were told to wait."""
        self._left = calls
        self._good_until = now + GOOD_FOR_SECONDS
        if calls == 0:
            self._next_at = max(self._next_at, now + wait_seconds)

    def block(self, until: float) -> None:
        """The marketplace asks all of them to wait. Never shortens a wait."""
        self._left = 0
        self._next_at = max(self._next_at, until)
