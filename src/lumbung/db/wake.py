"""Wake-ups: an accepting process says which stores have something due, so that workers need not wait for a poll.

Never inside an accepting transaction: NOTIFY takes a database-wide lock at commit. A wake-up carries no quantity and
may be lost; what it would have told is found by the next poll. Nothing is correct because of it.

It names the listings too, as long as they fit, so that they are read by their keys and the lanes need not be looked
through. The payload is one list of whole numbers:

    12,-1001,-1043,17    in store 12 listing 100 in lane 1 and listing 104 in lane 3; look at store 17
    (nothing)            look everywhere

A worker of a version that knows stores only reads all of them as stores: it looks at 12 and 17, and, as for any store
that it does not hold, for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TypeAlias

import asyncpg

from lumbung.db.pool import Pool, raise_if_cancelled
from lumbung.db.query import Connection
from lumbung.errors import Unavailable
from lumbung.settings import Settings

CHANNEL = "lumbung_due"
PAYLOAD_CHARS_MAX = 7000  # PostgreSQL takes 8000 bytes
HINTS_MAX = PAYLOAD_CHARS_MAX // 4  # more listings than that never fit
LANE_BASE = 10  # lanes are digits

Hints: TypeAlias = Mapping[int, Mapping[int, int]]
"""By store: the listings that have become due there, with their lanes; none: all of the store is looked at."""

OnWake: TypeAlias = Callable[[Hints | None], None]
"""Gets hints, or None: look everywhere."""


def payload_of(hints: Hints) -> str:
    """With the listings if they fit, else the stores only, else nothing, which means everywhere."""
    stores = sorted(hints)
    for numbers in (_numbers(stores, hints), stores):
        payload = ",".join(map(str, numbers))
        if len(payload) <= PAYLOAD_CHARS_MAX:
            return payload
    return ""


def _numbers(stores: Iterable[int], hints: Hints) -> list[int]:
    return [
        number
        for store in stores
        for number in (store, *(-(listing * LANE_BASE + lane) for listing, lane in hints[store].items()))
    ]


def read_payload(payload: str) -> Hints | None:
    if not payload:
        return None
    hints: dict[int, dict[int, int]] = {}
    listings: dict[int, int] = {}
    for number in map(int, payload.split(",")):
        if number < 0:
            listing, lane = divmod(-number, LANE_BASE)
            listings[listing] = lane
        else:
            listings = hints.setdefault(number, {})
    return hints


async def notify(pool: Pool, stores: Iterable[int]) -> None:
    """Tell every listening worker to look at these stores; too many to name means: look everywhere."""
    await notify_hints(pool, {store: {} for store in stores})


async def notify_hints(pool: Pool, hints: Hints) -> None:
    """Tell every listening worker what has become due."""
    async with pool.connection() as connection:
        await notify_on(connection, payload_of(hints))


async def try_notify(pool: Pool, stores: Iterable[int]) -> None:
    """As `notify`, at the end of what is done already: a wake-up that is lost is no failure of it."""
    with suppress(Unavailable):
        await notify(pool, stores)


async def notify_on(connection: Connection, payload: str) -> None:
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)


class Waker:
    """Gathers what is due and notifies at most every `interval_seconds`. A lost one costs a poll interval: errors
    pass."""

    def __init__(self, pool: Pool, *, interval_seconds: float):
        self._pool = pool
        self._interval_seconds = interval_seconds
        self._gathered = Gathered()
        self._some = asyncio.Event()

    def wake(self, hints: Hints) -> None:
        self._gathered.add(hints)
        if self._gathered.hints:
            self._some.set()

    async def run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            gathered, self._gathered = self._gathered, Gathered()
            with suppress(Unavailable):
                await notify_hints(self._pool, gathered.hints)
            await asyncio.sleep(self._interval_seconds)


class Gathered:
    """What has become due since the last wake-up. Of more listings than a payload can name only the stores are kept."""

    def __init__(self) -> None:
        self.hints: dict[int, dict[int, int]] = {}
        self._listings = 0

    def add(self, hints: Hints) -> None:
        for store, listings in hints.items():
            self._add(store, listings)

    def _add(self, store: int, listings: Mapping[int, int]) -> None:
        known = self.hints.get(store)
        if known is None:
            known = self.hints[store] = {}
        elif not known or not listings:
            listings = {}  # all of it is to be looked at
            self._listings -= len(known)
            known.clear()
        before = len(known)
        known.update(listings)
        self._listings += len(known) - before
        if self._listings > HINTS_MAX:
            self.hints = {one: {} for one in self.hints}
            self._listings = 0


class Listener:
    """A connection of its own that listens, as long as the process lives."""

    def __init__(self, pool: Pool, settings: Settings):
        self._pool = pool
        self._settings = settings

    async def run(self, on_wake: OnWake) -> None:
        """Listen until cancelled. Whenever a connection is made everything is looked at, because what was told before
        is lost."""
        while True:
            with suppress(Unavailable):
                await self.listen(on_wake)
            await asyncio.sleep(self._settings.poll_seconds)

    async def tell(self, store_ids: Iterable[int]) -> None:
        """Have other processes look at these stores."""
        stores = list(store_ids)
        if stores:
            await notify(self._pool, stores)

    async def listen(self, on_wake: OnWake) -> None:
        """Listen until the connection is lost; raises Unavailable then."""

        def heard(connection: object, pid: int, channel: str, payload: object) -> None:
            on_wake(read_payload(str(payload)))

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
