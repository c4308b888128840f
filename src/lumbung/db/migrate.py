"""Brings the schema up to date: plain SQL files, forward only, under a lock, so that many processes may start at once.

Each file runs in its own transaction together with its row in the table `migration`. The lock is on that table, so it
ends with the transaction that holds it, also when the process is killed (docs/decisions/0002-migrations.md).
"""

from __future__ import annotations

import asyncpg

from lumbung.db.pool import Pool
from lumbung.db.query import Connection, Queries
from lumbung.db.schema import Migration, migrations
from lumbung.errors import ConfigurationError

_queries = Queries(__file__)

OLDEST_SERVER = 150000
LOCK_SLACK_SECONDS = 5.0  # the server ends the wait for the lock; we only when it has not by then


async def migrate(pool: Pool, *, timeout_seconds: float) -> list[Migration]:
    """Apply what is missing; returns what was applied. Safe to call from any number of processes at once."""
    async with pool.connection() as connection:
        await _check_server(connection)
        await _ensure_table(connection)
    applied = []
    for migration in migrations():
        async with pool.transaction(lock_timeout_ms=int(timeout_seconds * 1000)) as connection:
            if await _apply(connection, migration, timeout_seconds):
                applied.append(migration)
    return applied


async def is_writable(connection: Connection) -> bool:
    """False for a standby, and for a database that was made read only."""
    return bool(await _queries["is_writable"].value(connection))


async def _check_server(connection: Connection) -> None:
    number = int(await _queries["server_version_number"].value(connection))
    if number < OLDEST_SERVER:
        raise ConfigurationError(f"PostgreSQL {number // 10000} is too old: Lumbung needs 15 or newer")


async def _ensure_table(connection: Connection) -> None:
    try:
        await _queries["create_migration_table"].run(connection)
    except (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError):
        return  # IF NOT EXISTS is not safe against itself: another process has just made it


async def _apply(connection: Connection, migration: Migration, timeout_seconds: float) -> bool:
    await _queries["lock_migration_table"].within(timeout_seconds + LOCK_SLACK_SECONDS).run(connection)
    digest = await _queries["digest_of"].value(connection, number=migration.number)
    if digest == migration.digest:
        return False
    if digest is not None:
        raise ConfigurationError(
            f"Migration {migration.number:04} ({migration.name}) differs from the one that this database has: "
            "install the version of Lumbung that made it, or a newer one"
        )
    await connection.execute(migration.sql, timeout=timeout_seconds)
    await _queries["record_migration"].run(
        connection, number=migration.number, name=migration.name, digest=migration.digest
    )
    return True
