"""Limits that marketplaces have for single stores and for applications, whatever faults are armed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from lumbung.sandbox.bucket import Bucket

STORE_LIMIT, APPLICATION_LIMIT = "store_limit", "application_limit"
"""What a call's `fault` says that was over one."""

Calls = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
Burst = Annotated[float, msgspec.Meta(ge=1, le=1_000_000)]


class Limit(msgspec.Struct, frozen=True):
    """Calls a second, 0 for no limit; `burst` calls at once, when left out a second's worth and at least 1."""

    calls_per_s: Calls
    burst: Burst | None = None

    @property
    def size(self) -> float:
        """Calls that may come at once; 0 without a limit."""
        if not self.calls_per_s:
            return 0.0
        return self.burst if self.burst is not None else max(1.0, self.calls_per_s)


class Buckets:
    """One for each store, or each application. Only a new limit and a reset fill it again: a fault set does not, nor
    does a PUT of a store.

    Every call is counted that says it is theirs, whatever comes of it. Times are monotonic seconds.
    """

    def __init__(self, channels: tuple[str, ...]):
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._over = dict.fromkeys(channels, 0)

    @property
    def over(self) -> Mapping[str, int]:
        """By channel, how many calls were over the limit."""
        return self._over

    def set(self, channel: str, name: str, limit: Limit, now: float) -> None:
        """Replaces a limit; the bucket is full."""
        if limit.calls_per_s:
            self._buckets[channel, name] = Bucket(limit.calls_per_s, now, limit.size)
        else:
            self._buckets.pop((channel, name), None)

    def admits(self, channel: str, name: str, now: float) -> bool:
        """Counts a call; False when it is over the limit."""
        bucket = self._buckets.get((channel, name))
        if bucket is None or bucket.take(now):
            return True
        self._over[channel] += 1
        return False

    def clear(self) -> None:
        self._buckets.clear()
        self._over = dict.fromkeys(self._over, 0)


class Limits:
    """Of stores and of applications. A call that is over its store's limit does not count for its application's."""

    def __init__(self, channels: tuple[str, ...]):
        self.stores, self.applications = Buckets(channels), Buckets(channels)

    def exceeded(self, channel: str, store: str, application: str, now: float) -> str:
        """Counts a call; STORE_LIMIT or APPLICATION_LIMIT when it is over one, else ""."""
        if not self.stores.admits(channel, store, now):
            return STORE_LIMIT
        return "" if self.applications.admits(channel, application, now) else APPLICATION_LIMIT

    def clear(self) -> None:
        self.stores.clear()
        self.applications.clear()
