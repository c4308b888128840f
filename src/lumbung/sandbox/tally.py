"""A count that can be waited for, so that tests wait for what happens and never sleep."""

from __future__ import annotations

import asyncio


class Tally:
    """Counts up. `wait_for(n)` returns once the count has reached n, or when the tally is closed."""

    def __init__(self) -> None:
        self.count = 0
        self._closed = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def bump(self) -> int:
        self.count += 1
        if self._waiting:
            self._wake()
        return self.count

    async def wait_for(self, n: int) -> None:
        if self.count >= n or self._closed:
            return
        waiting = (n, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting[1]
        finally:
            self._waiting.remove(waiting)

    def restart(self) -> None:
        """Count from 0 again; who waits for n goes on waiting for n."""
        self.count = 0

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for n, future in self._waiting:
            if (self._closed or self.count >= n) and not future.done():
                future.set_result(None)
