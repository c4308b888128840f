"""A pool that loses connections where a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from asyncpg.transaction import Transaction

from lumbung.db.pool import Pool
from lumbung.db.query import Connection
from lumbung.errors import CommitUnknown, Unavailable
from lumbung.settings import Settings


class Weather(Pool):
    """`away`: so many connections are refused next; `always_away`: all of them. `lost`: what becomes of the next
    transactions whose COMMIT is not answered: "committed", "cut" (the server ended the connection before it) or
    "in progress" (`finish` ends it).
    """

    def __init__(self, url: str) -> None:
        super().__init__(url, Settings())
        self.away = 0
        self.always_away = False
        self.away_after_loss = 0
        self.lost: list[str] = []
        self.refused = asyncio.Event()
        self.asked = asyncio.Event()
        self.begun = 0
        self._held = AsyncExitStack()
        self._pending: Transaction | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.asked.set()
        if self.away or self.always_away:
            self.away = max(0, self.away - 1)
            self.refused.set()
            raise Unavailable("The database cannot be reached: away")
        async with super().connection() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(
        self, *, lock_timeout_ms: int | None = None, may_idle: bool = False
    ) -> AsyncIterator[Connection]:
        self.begun += 1
        what = self.lost.pop(0) if self.lost else "answered"
        if what == "in progress":
            connection = await self._held.enter_async_context(super().connection())
            self._pending = connection.transaction()
            await self._pending.start()
            yield connection
            self.asked.clear()
            raise CommitUnknown("lost")
        async with super().transaction(lock_timeout_ms=lock_timeout_ms) as connection:
            yield connection
            if what == "cut":
                async with super().connection() as other:
                    await other.execute("SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid())
        if what == "committed":
            self.away = self.away_after_loss
            raise CommitUnknown("lost")

    async def finish(self, *, commit: bool) -> None:
        """End the transaction that is in progress."""
        assert self._pending is not None
        await (self._pending.commit() if commit else self._pending.rollback())
        await self._held.aclose()
