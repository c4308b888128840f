"""How long to wait after a failure: exponential, with full jitter, capped.

    wait = dice x min(max_seconds, first_seconds x 2^(attempts - 1)),  0 <= dice < 1

Full jitter spreads callers that failed together over the whole wait, so that they do not come back together.
"""

from __future__ import annotations

import math


def backoff_seconds(attempts: int, *, dice: float, first_seconds: float, max_seconds: float) -> float:
    """Seconds to wait after `attempts` failures in a row (at least 1); `dice` is drawn by the caller from [0, 1)."""
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, not {attempts}")
    return dice * _ceiling(attempts - 1, first_seconds, max_seconds)


def _ceiling(doublings: int, first_seconds: float, max_seconds: float) -> float:
    if first_seconds <= 0:
        return 0.0
    # Compared as powers, not computed: a listing that fails for months has more doublings than a float has room for.
    if first_seconds >= max_seconds or doublings >= math.log2(max_seconds) - math.log2(first_seconds):
        return max_seconds
    return math.ldexp(first_seconds, doublings)
