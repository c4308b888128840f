"""Connections and transactions, and what becomes of the database's errors.

lock not had in time, deadlock                -> LockBusy        rolled back, may be tried again
connection lost while COMMIT was under way    -> CommitUnknown   must be looked up, never run again blindly
anything else that the network or a stopping
server does; there is no schema yet           -> Unavailable     nothing took effect
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from lumbung.db.query import Connection
from lumbung.errors import CommitUnknown, ConfigurationError, LockBusy, LumbungError, Unavailable
from lumbung.settings import Settings

RETRY_AFTER_SECONDS = 2

_BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended the connection between two statements
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ReadOnlySQLTransactionError,
    ConnectionError,
    TimeoutError,
    OSError,
)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except LumbungError:
        raise
    except _BUSY as error:
        raise LockBusy("Another change holds a lock on the same rows; try again", retry_after_seconds=1) from error
    except asyncpg.UndefinedTableError as error:
        raise Unavailable(
            "The database has no schema yet: a process that starts makes it", retry_after_seconds=RETRY_AFTER_SECONDS
        ) from error
    except _AWAY as error:
        raise Unavailable(
            f"The database cannot be reached: {_first_line(error)}",
            retry_after_seconds=RETRY_AFTER_SECONDS,
            public="The database cannot be reached",
        ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


class Pool:
    """A pool that connects when it is first used, so that a process can start before its database does."""

    def __init__(self, url: str, settings: Settings):
        self.url = url
        self._settings = settings
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()

    async def _ready(self) -> asyncpg.Pool:
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await self._open()
        return self._pool

    async def _open(self) -> asyncpg.Pool:
        """Reads the URL and connects at the first acquire: nothing fails here."""
        settings = self._settings
        return await asyncpg.create_pool(
            self.url,
            min_size=0,
            max_size=settings.database_connections_max,
            timeout=settings.database_connect_timeout_seconds,
            command_timeout=settings.database_command_timeout_seconds,
            statement_cache_size=settings.database_statement_cache_size,
            server_settings={"application_name": "lumbung", "timezone": "UTC"},
        )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction: each statement commits by itself."""
        with _translated():
            pool = await self._ready()
            connection = await self._acquire(pool)
            try:
                yield connection
            finally:
                await pool.release(connection)

    async def _acquire(self, pool: asyncpg.Pool) -> PoolConnectionProxy:
        try:
            return await pool.acquire(timeout=self._settings.database_connect_timeout_seconds)
        except (ValueError, asyncpg.exceptions.ClientConfigurationError) as error:
            raise ConfigurationError(f"LUMBUNG_DATABASE_URL is not a PostgreSQL URL: {_first_line(error)}") from error

    @asynccontextmanager
    async def transaction(self, *, lock_timeout_ms: int | None = None) -> AsyncIterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises."""
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                if lock_timeout_ms is not None:
                    await connection.execute("SELECT set_config('lock_timeout', $1, true)", f"{lock_timeout_ms}ms")
                yield connection
            except BaseException:
                await _roll_back(transaction)
                raise
            await _commit(transaction)

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), timeout=5)
            except (TimeoutError, *_AWAY):
                pool.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _roll_back(transaction: asyncpg.transaction.Transaction) -> None:
    try:
        await transaction.rollback()
    except (*_AWAY, asyncpg.PostgresError):
        return  # a lost connection has rolled back by itself


async def _commit(transaction: asyncpg.transaction.Transaction) -> None:
    try:
        await transaction.commit()
    except _AWAY as error:
        raise CommitUnknown(
            "The connection was lost during the commit: the change may have taken effect and may be sent again",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        ) from error
