"""Wake-ups between processes; they take time, and some are lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextvars import Context, copy_context
from random import Random

from lumbung.db.wake import Hints, OnWake, payload_of, read_payload
from tests.simulation.loop import Process, VirtualLoop


class Bell:
    """`lost`: how likely a wake-up is lost."""

    def __init__(self, loop: VirtualLoop, dice: Random) -> None:
        self.lost = 0.0
        self.listeners: dict[str, tuple[Context, OnWake]] = {}
        self._loop = loop
        self._dice = dice

    def ring(self, hints: Hints, besides: str = "") -> None:
        """Nobody hears what has not been listening since before it was told."""
        payload = payload_of(hints)
        for name, (context, on_wake) in self.listeners.items():
            if name != besides and self._dice.random() >= self.lost:
                when = self._loop.time() + 0.001 + 0.01 * self._dice.random()
                self._loop.call_at(when, on_wake, read_payload(payload), context=context)


class SimulatedWakeUps:
    def __init__(self, bell: Bell, process: Process):
        self._bell = bell
        self._process = process

    async def run(self, on_wake: OnWake) -> None:
        self._bell.listeners[self._process.name] = (copy_context(), on_wake)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._bell.listeners.pop(self._process.name, None)

    async def tell(self, store_ids: Iterable[int]) -> None:
        self._bell.ring({store: {} for store in store_ids}, besides=self._process.name)
