"""The clock that is passed in, so that tests can move it.

Times that are compared between processes come from the database's clock, never from here: this one
paces calls, signs requests and measures durations within one process.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, with time zone UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point; never goes back."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = datetime(2026, 1, 5, tzinfo=UTC)):
        self._start = now.timestamp()
        self._elapsed = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._start + self._elapsed, UTC)

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        self._elapsed += seconds
