"""Obeying a rate limit: the generic cell rate algorithm (GCRA), a token bucket that keeps one number.

With T = 1 / calls_per_second, the bucket is full at the time `full_at`; each call moves that T further, and a call may
start when the bucket would be full again within burst x T of it:

    may start  <=>  now >= full_at - (burst - 1) x T
    take       =>   full_at = max(full_at, now) + T

Bound: any window of w seconds, both ends included, has at most burst + calls_per_second x w calls. Proof: let the
first of n calls in it start at s. It leaves `full_at` at s + T or later and each one after it adds T or more, so the
last finds s + (n - 1) T or later. It starts by s + w, hence s + w >= s + (n - 1) T - (burst - 1) T, which is
n <= burst + w / T.

Inside, times are whole numbers of a unit of which both a second and T are multiples: rounded ones would drift, and let
a call start a hair early on a busy day. The caller's times are taken to 2^-60 s, which is finer than any clock's.
"""

from __future__ import annotations

import math

_RESOLUTION = 60
_TICKS_PER_SECOND = 2.0**_RESOLUTION  # to multiply by it is exact


class Pacer:
    """Paces the calls of one limit. Times are seconds of the caller's monotonic clock; one that goes back stands still.

    Starts empty, so that the next holder of a lease does not repeat the burst of the last one: its first call may start
    after 1 / calls_per_second. `full` starts with the whole burst.
    """

    def __init__(self, calls_per_second: float, burst: int, *, now: float, full: bool = False):
        if not 0 < calls_per_second < math.inf or burst < 1:
            raise ValueError(
                f"a pace needs a rate above 0 and a burst of 1 or more, not {calls_per_second} and {burst}"
            )
        # The rate is a / b: with a unit of 1 / a ticks, a tick has a units and T, b / a seconds, is b seconds' ticks.
        self._units_per_tick, seconds = float(calls_per_second).as_integer_ratio()
        self._interval = seconds << _RESOLUTION
        self._tolerance = (burst - 1) * self._interval
        self._latest = now
        self._full_at = self._units(now) + (0 if full else burst * self._interval)

    def next_at(self, now: float) -> float:
        """The earliest time that a call may start: `now`, or later."""
        self._latest = max(self._latest, now)
        earliest = self._full_at - self._tolerance
        if self._units(self._latest) >= earliest:
            return self._latest
        ticks = -(-earliest // self._units_per_tick)
        rounded = ticks / _TICKS_PER_SECOND
        return rounded if rounded * _TICKS_PER_SECOND >= ticks else math.nextafter(rounded, math.inf)

    def take(self, now: float) -> bool:
        """Whether a call may start now; if so, it is counted."""
        self._latest = max(self._latest, now)
        at = self._units(self._latest)
        if at < self._full_at - self._tolerance:
            return False
        self._full_at = max(self._full_at, at) + self._interval
        return True

    def slow_down(self, until: float) -> None:
        """No call before `until` (Retry-After), one then, and no burst right after it. Never shortens a wait."""
        self._full_at = max(self._full_at, -self._units(-until) + self._tolerance)

    def _units(self, seconds: float) -> int:
        """Rounded down to a tick."""
        return math.floor(seconds * _TICKS_PER_SECOND) * self._units_per_tick
