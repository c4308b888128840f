"""Wake-ups: an accepting process says which stores have something due, so that workers need not wait for a poll.

Never inside an accepting transaction: NOTIFY takes a database-wide lock at commit. A wake-up carries no quantity and
may be lost; what it would have told is found by the next poll. Nothing is correct because of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import asyncpg

from lumbung.db.pool import Pool, raise_if_cancelled
from lumbung.db.query import Connection
from lumbung.errors import Unavailable
from lumbung.settings import Settings

CHANNEL = "lumbung_due"
PAYLOAD_CHARS_MAX = 7000  # PostgreSQL takes 8000 bytes


async def notify(pool: Pool, stores: Iterable[int]) -> None:
    """Tell every listening worker to look at these stores; too many to name means: look everywhere."""
    payload = ",".join(map(str, sorted(stores)))
    async with pool.connection() as connection:
        await notify_on(connection, payload if len(payload) <= PAYLOAD_CHARS_MAX else "")


async def try_notify(pool: Pool, stores: Iterable[int]) -> None:
    """As `notify`, at the end of what is done already: a wake-up that is lost is no failure of it."""
    with suppress(Unavailable):
        await notify(pool, stores)


async def notify_on(connection: Connection, payload: str) -> None:
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)


class Waker:
    """Gathers stores and notifies at most every `interval_seconds`. A lost one costs a poll interval: errors pass."""

    def __init__(self, pool: Pool, *, interval_seconds: float):
        self._pool = pool
        self._interval_seconds = interval_seconds
        self._stores: set[int] = set()
        self._some = asyncio.Event()

    def wake(self, stores: Iterable[int]) -> None:
        self._stores.update(stores)
        if self._stores:
            self._some.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            stores, self._stores = self._stores, set()
            await try_notify(self._pool, stores)
            await asyncio.sleep(self._interval_seconds)


class Listener:
    """A connection of its own that listens, as long as the process lives."""

    def __init__(self, pool: Pool, settings: Settings):
        self._pool = pool
        self._settings = settings

    async def run(self, on_wake: Callable[[frozenset[int] | None], None]) -> None:
        """Listen until cancelled. `on_wake` gets the stores named, or None for all of them: also whenever a connection
        is made, because what was told before is lost."""
        while True:
            with suppress(Unavailable):
                await self.listen(on_wake)
            await asyncio.sleep(self._settings.poll_seconds)

    async def tell(self, store_ids: Iterable[int]) -> None:
        """Have other processes look at these stores."""
        stores = list(store_ids)
        if stores:
            await notify(self._pool, stores)

    async def listen(self, on_wake: Callable[[frozenset[int] | None], None]) -> None:
        """Listen until the connection is lost; raises Unavailable then."""

        def heard(connection: object, pid: int, channel: str, payload: object) -> None:
            text = str(payload)
            on_wake(frozenset(map(int, text.split(","))) if text else None)

        timeout = self._settings.database_connect_timeout_seconds
        try:
            connection = await asyncpg.connect(self._pool.url, timeout=timeout, command_timeout=timeout)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise_if_cancelled(error)
            raise Unavailable("Cannot listen for wake-ups: the database cannot be reached") from error
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, heard)
            on_wake(None)
            await lost.wait()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise_if_cancelled(error)
            raise Unavailable("Cannot listen for wake-ups: the database cannot be reached") from error
        finally:
            connection.terminate()
        raise Unavailable("The connection that listens for wake-ups was lost")
