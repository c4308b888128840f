"""Places for calls to one channel at once, given to tenants in turn, then to their stores (turns.py)."""

from __future__ import annotations

import asyncio

from lumbung.dispatch.turns import Turns


class Permits:
    """At most `limit` are out at any moment."""

    def __init__(self, limit: int):
        self._free = limit
        self._limit = limit
        self._turns: Turns[asyncio.Future[None]] = Turns()

    @property
    def in_flight(self) -> int:
        return self._limit - self._free

    async def acquire(self, tenant_id: int) -> None:
        """Wait for a place."""
        if self._free > 0 and not len(self._turns):
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.join(tenant_id, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # it was given to us just as we left
            else:
                self._turns.leave(tenant_id, turn)
            raise

    def release(self) -> None:
        self._free += 1
        while self._free > 0 and (turn := self._turns.next()) is not None:
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
