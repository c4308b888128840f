"""The lease as its holder sees it, on its own monotonic clock. Pure.

    asked to renew           answered                        the lease ends
    |------------------------|--------------------------------|
    ^ counted from here, because the database may have written its time at any moment in between

The database counts with its own clock: a lease is valid until its worker's renewed_at plus its lifetime. Two rules
heal jumps of that clock: expired means past, or further ahead than a lifetime; due means past, or further ahead than
the longest wait. A holder whose clock runs as fast as the database's therefore always stops first.
"""

from __future__ import annotations


class LeaseClock:
    """When this process may start a call. Times are seconds of its monotonic clock."""

    def __init__(self) -> None:
        self._renewed_at: float | None = None

    def renewed(self, asked_at: float) -> None:
        """The database took a renewal that was asked for then."""
        if self._renewed_at is None or asked_at > self._renewed_at:
            self._renewed_at = asked_at

    def lost(self) -> None:
        """The database says that the worker is not registered."""
        self._renewed_at = None

    def valid(self, now: float, lifetime_seconds: float) -> bool:
        """Whether a lease of such a lifetime still holds."""
        return self.left(now, lifetime_seconds) > 0

    def left(self, now: float, lifetime_seconds: float) -> float:
        """Seconds for which a lease of such a lifetime still holds; 0 when it does not."""
        if self._renewed_at is None:
            return 0.0
        return max(0.0, self._renewed_at + lifetime_seconds - now)

    def may_start(self, now: float, call_seconds: float, lifetime_seconds: float) -> bool:
        """Whether a call that takes at most so long ends while the lease holds."""
        return self.left(now, lifetime_seconds) > call_seconds


def lifetime_seconds(lease_seconds: float, call_timeout_seconds: float) -> float:
    """The lifetime of the leases of a channel: long enough for a call, and a renewal during it, to end."""
    return max(lease_seconds, 2.2 * call_timeout_seconds)
