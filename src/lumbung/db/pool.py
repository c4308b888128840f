"""Connections and transactions, and what becomes of the database's errors.

lock not had in time, deadlock                -> LockBusy        rolled back, may be tried again
connection lost while COMMIT was under way    -> CommitUnknown   must be looked up, never run again blindly
anything else that the network or a stopping
server does; the schema is another version's  -> Unavailable     nothing took effect

A process that is gone or stuck must not keep its locks. Its transactions end after a silence; that is set in each of
them, with SET LOCAL, because a connection behind a pgbouncer belongs to nobody for longer. The server asks after silent
connections by itself when it is told so as they start; a pgbouncer refuses a startup parameter that it neither tracks
nor has in `ignore_startup_parameters` (it has keepalives of its own), and then it is not told.

A process that sends the same statements all the time has each planned once for a connection. Left to itself PostgreSQL
plans most of them for every call, because a plan for these very values looks cheaper; the values are arrays of which it
learns nothing but their lengths, and planning takes as long as the rest (decision 9). Such a plan may have been made
while a table was empty, and is kept until that is analyzed: reading tables whole is made unattractive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from lumbung.db.query import Connection
from lumbung.db.schema import newest_version, schema_version
from lumbung.errors import CommitUnknown, ConfigurationError, LockBusy, LumbungError, Unavailable
from lumbung.settings import Settings

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 2
KEEPALIVE_PROBES = 3
# Without jit: where a table must be read whole all the same, the price that is put on that would have it compiled.
PLAN_ONCE = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

_BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server ended the connection between two statements
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.PostgresIOError,
    ConnectionError,
    TimeoutError,
    OSError,
)
_NOT_THERE = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, "The database does not let this hub in"),
    (asyncpg.InvalidCatalogNameError, "The database does not exist"),
    (asyncpg.TooManyConnectionsError, "The database has no connection left"),
    (asyncpg.DiskFullError, "The disk of the database is full"),
    (asyncpg.ReadOnlySQLTransactionError, "The database can only be read"),
    (asyncpg.CannotConnectNowError, "The database is starting or stopping"),
)


def _unavailable(error: Exception) -> Unavailable:
    reason = _reason(error)
    return Unavailable(f"{reason}: {_first_line(error)}", retry_after_seconds=RETRY_AFTER_SECONDS, public=reason)


def _reason(error: Exception) -> str:
    """What may be told to everybody: nothing of where the database is."""
    return next((text for kind, text in _REASONS if isinstance(error, kind)), "The database cannot be reached")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except LumbungError:
        raise
    except _BUSY as error:
        raise LockBusy("Another change holds a lock on the same rows; try again", retry_after_seconds=1) from error
    except _AWAY as error:
        raise_if_cancelled(error)
        raise _unavailable(error) from error


async def _raise_if_of_another_version(connection: Connection, error: asyncpg.PostgresError) -> None:
    """What is not there comes with a migration that a process is about to make, or went with one that a newer process
    has made; in the schema of this version it is a fault."""
    try:
        version = await schema_version(connection)
    except asyncpg.PostgresError:
        return  # the first error is the one to be told
    if version == newest_version():
        return
    if version > newest_version():
        reason = "The database's schema is newer than this Lumbung: install the version that made it"
    elif version:
        reason = "The database's schema is older than this Lumbung: a process that starts makes it"
    else:
        reason = "The database has no schema yet: a process that starts makes it"
    raise Unavailable(reason, retry_after_seconds=RETRY_AFTER_SECONDS) from error


def raise_if_cancelled(error: BaseException) -> None:
    """A driver that is cancelled while its connection breaks tells the second only: whoever then goes on because the
    database is away would never end."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]


class Pool:
    """A pool that connects when it is first used, so that a process can start before its database does. `plan_once`:
    statements are planned for any values; commands that are run by hand leave it."""

    def __init__(self, url: str, settings: Settings, *, plan_once: bool = False):
        self.url = url
        self._settings = settings
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        # Without a cache of statements they are planned for every call anyway: then for its values.
        self._in_transactions = PLAN_ONCE if plan_once and settings.database_statement_cache_size else {}
        self._parameters = _keepalives(settings.database_keepalive_seconds) | self._in_transactions

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
            connect=self._connect,
            reset=_left_as_it_is,
        )

    async def _connect(self, dsn: str | None = None, **options: Any) -> Any:
        if not self._parameters:
            return await asyncpg.connect(dsn, **options)
        asked = {**options, "server_settings": options["server_settings"] | self._parameters}
        try:
            return await asyncpg.connect(dsn, **asked)
        except asyncpg.ProtocolViolationError as error:
            refusal = _first_line(error)
        connection = await asyncpg.connect(dsn, **options)
        log.info("the pooler before the database takes no parameters of ours: keepalives are its own", answer=refusal)
        self._parameters = {}
        return connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction: each statement commits by itself."""
        with _translated():
            pool = await self._ready()
            connection = await self._acquire(pool)
            try:
                yield connection
            except _NOT_THERE as error:
                await _raise_if_of_another_version(connection, error)
                raise
            finally:
                with suppress(*_AWAY):  # the work is done; the pool has dropped a connection that cannot be reset
                    await pool.release(connection)

    async def _acquire(self, pool: asyncpg.Pool) -> PoolConnectionProxy:
        try:
            return await pool.acquire(timeout=self._settings.database_connect_timeout_seconds)
        except (ValueError, asyncpg.exceptions.ClientConfigurationError) as error:
            raise ConfigurationError(f"LUMBUNG_DATABASE_URL is not a PostgreSQL URL: {_first_line(error)}") from error
        except _AWAY:
            raise
        except asyncpg.PostgresError as error:  # whatever a server or a pooler says instead of letting us in
            raise _unavailable(error) from error

    @asynccontextmanager
    async def transaction(
        self, *, lock_timeout_ms: int | None = None, may_idle: bool = False
    ) -> AsyncIterator[Connection]:
        """A transaction that commits when the block ends and rolls back when it raises. `may_idle`: it may be silent
        for long, because it locks nothing that others wait for."""
        async with self.connection() as connection:
            try:
                await connection.execute(self._begin(lock_timeout_ms, may_idle=may_idle))
                yield connection
            except BaseException:
                await _roll_back(connection)
                raise
            await _commit(connection)

    def _begin(self, lock_timeout_ms: int | None, *, may_idle: bool) -> str:
        """BEGIN and what is set for this transaction only, in one round trip, because every transaction pays for it."""
        idle_ms = 0 if may_idle else int(self._settings.database_idle_transaction_timeout_seconds * 1000)
        timeouts = {"lock_timeout": lock_timeout_ms, "idle_in_transaction_session_timeout": idle_ms or None}
        named = {name: f"{value}ms" for name, value in timeouts.items() if value is not None} | self._in_transactions
        return "BEGIN" + "".join(f"; SET LOCAL {name} = '{value}'" for name, value in named.items())

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


async def _left_as_it_is(connection: Connection) -> None:
    """Between two users. What asyncpg would do costs a round trip each time; nobody here changes a session for longer
    than a transaction, or undoes it (an open transaction is rolled back before this)."""


def _keepalives(seconds: int) -> dict[str, str]:
    """As long again as `seconds` is shared out between the probes. Nothing of this concerns Unix sockets."""
    if not seconds:
        return {}
    return {
        "tcp_keepalives_idle": str(seconds),
        "tcp_keepalives_interval": str(max(1, seconds // KEEPALIVE_PROBES)),
        "tcp_keepalives_count": str(KEEPALIVE_PROBES),
    }


@asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """A part of a transaction that may fail without it: what fails is undone, and raised. Outside of one it is one by
    itself."""
    begin, undo, end = ("SAVEPOINT part", "ROLLBACK TO SAVEPOINT part", "RELEASE SAVEPOINT part")
    if not connection.is_in_transaction():
        begin, undo, end = "BEGIN", "ROLLBACK", "COMMIT"
    await connection.execute(begin)
    try:
        yield
    except BaseException:
        with suppress(*_AWAY):  # a lost connection has rolled back by itself
            await connection.execute(undo)
        raise
    await connection.execute(end)


async def _roll_back(connection: Connection) -> None:
    if not connection.is_in_transaction():
        return
    try:
        await connection.execute("ROLLBACK")
    except (*_AWAY, asyncpg.PostgresError):
        return  # a lost connection has rolled back by itself


async def _commit(connection: Connection) -> None:
    try:
        answer = await connection.execute("COMMIT")
    except asyncpg.InsufficientResourcesError:
        raise  # a full disk, say: the server has answered that it did not commit
    except _AWAY as error:
        raise CommitUnknown(
            "The connection was lost during the commit: the change may have taken effect and may be sent again",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        ) from error
    if answer != "COMMIT":  # a statement had failed, and whoever sent it went on
        raise LumbungError("An internal error: the transaction was rolled back, nothing took effect")
