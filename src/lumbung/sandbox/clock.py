"""The marketplaces' clock: the real one, moved ahead on request, so that tokens expire without waiting."""

from __future__ import annotations

import time


class Clock:
    """Unix seconds. One for the whole sandbox: it decides on tokens, signatures and quotas, and dates what is logged.
    Delays, rate limits and late answers go by real time."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def now(self) -> float:
        return time.time() + self.ahead_seconds
