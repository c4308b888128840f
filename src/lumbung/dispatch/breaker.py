"""Not calling a store that does not answer: a circuit breaker.

    closed --`failures` in a row--> open --probe_seconds--> half-open (one probe) --succeeded--> closed
                                     ^                            |
                                     '---- failed: twice the wait; abandoned: the same wait

Results carry no name, so any that arrives counts: a success closes it even when it is of a call that was made before it
opened (the store has just answered); while it is open and no probe is out, a failure tells nothing new.
"""

from __future__ import annotations


class Breaker:
    """The breaker of one store. Times are seconds of the caller's monotonic clock."""

    def __init__(self, failures: int, probe_seconds: float, probe_seconds_max: float):
        if failures < 1 or not 0 < probe_seconds <= probe_seconds_max:
            raise ValueError(
                f"a breaker needs 1 failure or more and 0 < {probe_seconds=} <= {probe_seconds_max=}, not {failures=}"
            )
        self._failures_max = failures
        self._first_wait = probe_seconds
        self._longest_wait = probe_seconds_max
        self._open = False
        self._probing = False
        self._failures = 0  # in a row, while closed
        self._wait = probe_seconds
        self._probe_at = 0.0  # while open

    @property
    def is_open(self) -> bool:
        return self._open

    def may_start(self, now: float) -> bool:
        """Whether a call may start now. When it is open that call is the probe: `succeeded`, `failed` or `abandoned`
        must follow, and no other call may start until then."""
        if not self._open:
            return True
        if self._probing or now < self._probe_at:
            return False
        self._probing = True
        return True

    def next_at(self, now: float) -> float | None:
        """The earliest time that a call may start: `now`, or later; None while a probe is out."""
        if not self._open:
            return now
        return None if self._probing else max(now, self._probe_at)

    def succeeded(self, now: float) -> bool:
        """The store answered. True when this closed it."""
        closed = self._open
        self._close()
        return closed

    def failed(self, now: float) -> bool:
        """The store did not answer. True when this opened it (not when a probe failed: it was open before)."""
        if self._open:
            if self._probing:
                self._wait = min(2 * self._wait, self._longest_wait)
                self._hold(now)
            return False
        self._failures += 1
        if self._failures < self._failures_max:
            return False
        self._open = True
        self._hold(now)
        return True

    def abandoned(self, now: float) -> None:
        """The call ended without telling whether the store answers, or was never made: the same wait, then another."""
        if self._probing:
            self._hold(now)

    def _hold(self, now: float) -> None:
        self._probing = False
        self._probe_at = now + self._wait

    def _close(self) -> None:
        self._open = False
        self._probing = False
        self._failures = 0
        self._wait = self._first_wait
