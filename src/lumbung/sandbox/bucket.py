"""A token bucket. Times are seconds of any clock that never goes back."""

from __future__ import annotations

import math


class Bucket:
    """Lets `rate_per_s` calls a second through, and `size` at once: one second's worth, rounded up, when left out."""

    def __init__(self, rate_per_s: float, now: float, size: float | None = None):
        self._rate_per_s = rate_per_s
        self._size = size if size is not None else max(1, math.ceil(rate_per_s))
        self._tokens = float(self._size)
        self._at = now

    def take(self, now: float) -> bool:
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
