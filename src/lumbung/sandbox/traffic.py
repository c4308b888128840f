"""Calls in flight: in all, and for each listing."""

from __future__ import annotations

import asyncio

from lumbung.sandbox.call import Target

# A client that gives up and calls again at once may be seen calling before its hanging up is seen: both wait in the
# same round of the event loop. So an overlap counts only when it is still there some rounds later.
SETTLE_ROUNDS = 3

Key = tuple[str, str, str]


class Traffic:
    """A call is in flight from its receipt until it is answered or its client has left."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.max_in_flight_per_listing = 0
        self._by_listing: dict[Key, int] = {}

    def enter(self, channel: str, target: Target) -> None:
        self.in_flight += 1
        for key in _keys(channel, target):
            self._enter(key)

    def leave(self, channel: str, target: Target) -> None:
        self.in_flight -= 1
        for key in _keys(channel, target):
            self._leave(key)

    def reset(self) -> None:
        """Forgets the maximum; what is in flight stays in flight."""
        self.max_in_flight_per_listing = 0

    def _enter(self, key: Key) -> None:
        count = self._by_listing.get(key, 0) + 1
        self._by_listing[key] = count
        if count > self.max_in_flight_per_listing:
            if count == 1:
                self.max_in_flight_per_listing = 1
            else:
                self._count_later(key, SETTLE_ROUNDS)

    def _leave(self, key: Key) -> None:
        count = self._by_listing[key] - 1
        if count:
            self._by_listing[key] = count
        else:
            del self._by_listing[key]

    def _count_later(self, key: Key, rounds: int) -> None:
        if rounds:
            asyncio.get_running_loop().call_soon(self._count_later, key, rounds - 1)
        else:
            self.max_in_flight_per_listing = max(self.max_in_flight_per_listing, self._by_listing.get(key, 0))


def _keys(channel: str, target: Target) -> list[Key]:
    """One for each listing of a call, also when the call names it twice."""
    return [(channel, target.store, remote_variant) for remote_variant in dict.fromkeys(target.remote_variants)]
