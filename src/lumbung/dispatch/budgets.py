"""Limits wider than a store: each application's allowance of this process, filled from the database (allowance.py)."""

from __future__ import annotations

import asyncio

from lumbung.clock import Clock
from lumbung.dispatch.allowance import Allowance
from lumbung.dispatch.storage import Storage


class Budgets:
    def __init__(self, storage: Storage, clock: Clock, *, recheck_seconds: float):
        self._storage = storage
        self._clock = clock
        self._recheck_seconds = recheck_seconds
        self._allowances: dict[int, Allowance] = {}
        self._asking: dict[int, asyncio.Lock] = {}
        self._unlimited_until: dict[int, float] = {}

    async def take(self, channel_app_id: int | None) -> float:
        """Count a call of an application: 0 when it may be made now, else seconds after which to ask again."""
        if channel_app_id is None or self._clock.monotonic() < self._unlimited_until.get(channel_app_id, 0.0):
            return 0.0
        allowance = self._allowances.setdefault(channel_app_id, Allowance())
        async with self._asking.setdefault(channel_app_id, asyncio.Lock()):
            now = self._clock.monotonic()
            if allowance.take(now):
                return 0.0
            if allowance.next_at(now) > now:
                return allowance.next_at(now) - now
            grant = await self._storage.reserve(channel_app_id, allowance.want(now))
            now = self._clock.monotonic()
            if not grant.limited and allowance.next_at(now) <= now:  # else it was blocked meanwhile
                self._unlimited_until[channel_app_id] = now + self._recheck_seconds
                return 0.0
            allowance.granted(now, grant.calls, max(grant.wait_seconds, 0.001))
            return 0.0 if allowance.take(now) else allowance.next_at(now) - now

    async def block(self, channel_app_id: int, seconds: float) -> None:
        """No call of the application for so long, by any process."""
        self._allowances.setdefault(channel_app_id, Allowance()).block(self._clock.monotonic() + seconds)
        self._unlimited_until.pop(channel_app_id, None)
        await self._storage.block(channel_app_id, seconds)
