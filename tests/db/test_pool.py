"""Connections and transactions, and what becomes of the database's errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
import pytest

from lumbung.db.pool import Pool
from lumbung.errors import CommitUnknown, ConfigurationError, LockBusy, LumbungError, Unavailable
from lumbung.settings import Settings

# Ends the connection's own server process when the transaction commits: the COMMIT is sent and never answered.
DIES_AT_COMMIT = """
CREATE TABLE fatal (n int);
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(0); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER die AFTER INSERT ON fatal DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die();
"""


@pytest.fixture
async def table(pool: Pool) -> Pool:
    """The pool of a database with a small table: n = 1, 2."""
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE small (n int PRIMARY KEY); INSERT INTO small VALUES (1), (2)")
    return pool


async def run(
    pool: Pool, *statements: str, lock_timeout_ms: int | None = None, error: BaseException | None = None
) -> None:
    """One transaction."""
    async with pool.transaction(lock_timeout_ms=lock_timeout_ms) as connection:
        for statement in statements:
            await connection.execute(statement)
        if error is not None:
            raise error


async def numbers(pool: Pool) -> list[int]:
    async with pool.connection() as connection:
        return [row["n"] for row in await connection.fetch("SELECT n FROM small ORDER BY n")]


async def test_a_transaction_commits_when_its_block_ends(table: Pool) -> None:
    async with table.transaction() as connection:
        await connection.execute("INSERT INTO small VALUES (3)")
        assert await numbers(table) == [1, 2]
    assert await numbers(table) == [1, 2, 3]


@pytest.mark.parametrize("error", [ValueError("a bug"), LumbungError("on purpose"), asyncio.CancelledError()])
async def test_a_transaction_rolls_back_when_its_block_raises_and_the_error_passes(
    table: Pool, error: BaseException
) -> None:
    with pytest.raises(type(error)) as raised:
        await run(table, "INSERT INTO small VALUES (3)", error=error)
    assert raised.value is error
    assert await numbers(table) == [1, 2]


async def test_a_mistake_in_a_statement_is_a_bug_and_passes(table: Pool) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with table.transaction() as connection:
            await connection.execute("INSERT INTO small VALUES (1)")
    with pytest.raises(asyncpg.PostgresSyntaxError):
        async with table.connection() as connection:
            await connection.execute("SELEKT 1")
    with pytest.raises(asyncpg.DataError):
        async with table.connection() as connection:
            await connection.fetch("SELECT $1::int", 2**40)


async def test_a_lock_that_is_not_had_in_time_is_busy(table: Pool) -> None:
    async with table.transaction() as holder:
        await holder.execute("SELECT FROM small WHERE n = 1 FOR UPDATE")
        with pytest.raises(LockBusy, match="try again") as raised:
            await run(
                table,
                "UPDATE small SET n = 9 WHERE n = 2",
                "SELECT FROM small WHERE n = 1 FOR UPDATE",
                lock_timeout_ms=10,
            )
    assert raised.value.retry_after_seconds == 1
    assert await numbers(table) == [1, 2]


async def test_a_lock_timeout_ends_with_its_transaction(table: Pool) -> None:
    async with Pool(table.url, Settings(database_connections_max=1)) as pool:
        async with pool.transaction(lock_timeout_ms=10) as connection:
            assert await connection.fetchval("SHOW lock_timeout") == "10ms"
        async with pool.transaction() as connection:
            assert await connection.fetchval("SHOW lock_timeout") == "0"


async def test_of_two_that_deadlock_one_is_busy_and_the_other_goes_on(table: Pool) -> None:
    async def lock(first: int, second: int, mine: asyncio.Event, theirs: asyncio.Event) -> None:
        async with table.transaction() as connection:
            await connection.execute("SET LOCAL deadlock_timeout = '10ms'")
            await connection.execute("SELECT FROM small WHERE n = $1 FOR UPDATE", first)
            mine.set()
            await theirs.wait()
            await connection.execute("SELECT FROM small WHERE n = $1 FOR UPDATE", second)

    one, two = asyncio.Event(), asyncio.Event()
    results = await asyncio.gather(lock(1, 2, one, two), lock(2, 1, two, one), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["LockBusy", "NoneType"]


async def test_a_closed_port_is_unavailable_and_a_pool_may_be_made_before_its_server() -> None:
    async with Pool("postgresql://postgres@127.0.0.1:1/nothing", Settings()) as pool:
        for _ in range(2):
            with pytest.raises(Unavailable, match="The database cannot be reached: ") as raised:
                async with pool.transaction():
                    raise AssertionError
            assert raised.value.retry_after_seconds == 2
            assert not isinstance(raised.value, CommitUnknown)


async def test_an_unknown_database_is_unavailable_or_misconfigured_never_a_crash(pool: Pool) -> None:
    async with Pool(urlunsplit(urlsplit(pool.url)._replace(path="/not_there")), Settings()) as nowhere:
        with pytest.raises((LumbungError, asyncpg.InvalidCatalogNameError)):
            async with nowhere.connection():
                raise AssertionError


@pytest.mark.parametrize("url", ["http://example.test/", "postgresql://host:port/x"])
async def test_what_is_not_a_postgresql_url_is_named_as_the_setting_to_mend(url: str) -> None:
    async with Pool(url, Settings()) as pool:
        with pytest.raises(ConfigurationError, match="LUMBUNG_DATABASE_URL is not a PostgreSQL URL"):
            async with pool.connection():
                raise AssertionError


async def test_a_connection_that_is_lost_before_the_commit_is_unavailable_and_leaves_nothing(table: Pool) -> None:
    with pytest.raises(Unavailable) as raised:
        await run(table, "INSERT INTO small VALUES (3)", "SELECT pg_terminate_backend(pg_backend_pid())")
    assert not isinstance(raised.value, CommitUnknown | LockBusy)
    assert await numbers(table) == [1, 2]


async def test_a_connection_that_is_lost_during_the_commit_leaves_it_unknown(table: Pool) -> None:
    async with table.connection() as connection:
        await connection.execute(DIES_AT_COMMIT)
    with pytest.raises(CommitUnknown, match="may have taken effect and may be sent again") as raised:
        await run(table, "INSERT INTO small VALUES (3)", "INSERT INTO fatal VALUES (1)")
    assert raised.value.retry_after_seconds == 2
    assert await numbers(table) == [1, 2]  # this time it had not


async def test_a_commit_whose_answer_is_lost_has_taken_effect_and_is_unknown_too(table: Pool) -> None:
    async with cut_off_after_commit(table.url) as url, Pool(url, Settings()) as pool:
        with pytest.raises(CommitUnknown):
            async with pool.transaction() as connection:
                await connection.execute("INSERT INTO small VALUES (3)")
    assert await numbers(table) == [1, 2, 3]


async def test_a_statement_that_takes_too_long_is_unavailable(table: Pool) -> None:
    async with Pool(table.url, Settings(database_command_timeout_seconds=0.05)) as pool:
        with pytest.raises(Unavailable):
            async with pool.connection() as connection:
                await connection.execute("SELECT pg_sleep(60)")


async def test_no_free_connection_in_time_is_unavailable(table: Pool) -> None:
    settings = Settings(database_connections_max=1, database_connect_timeout_seconds=0.2)
    async with Pool(table.url, settings) as pool, pool.connection():
        with pytest.raises(Unavailable):
            async with pool.connection():
                raise AssertionError


async def test_connections_speak_utc_and_say_whose_they_are(pool: Pool) -> None:
    async with pool.connection() as connection:
        assert await connection.fetchval("SHOW timezone") == "UTC"
        assert await connection.fetchval("SHOW application_name") == "lumbung"


async def test_a_database_without_tables_is_unavailable_until_a_process_has_made_them(empty_database_url: str) -> None:
    async with Pool(empty_database_url, Settings()) as pool:
        with pytest.raises(Unavailable, match="has no schema yet"):
            async with pool.connection() as connection:
                await connection.fetch("SELECT FROM tenant")


@asynccontextmanager
async def cut_off_after_commit(url: str) -> AsyncIterator[str]:
    """A way to the server that is cut as soon as the answer to a COMMIT comes; the answer is dropped."""
    parts = urlsplit(url)
    options = parse_qs(parts.query)

    async def reach() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if "host" in options:
            return await asyncio.open_unix_connection(f"{options['host'][0]}/.s.PGSQL.{options['port'][0]}")
        return await asyncio.open_connection(parts.hostname, parts.port)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await reach()
        asked = asyncio.create_task(pump(reader, server_writer))
        while data := await server_reader.read(65536):
            if b"COMMIT\x00Z" in data:
                break
            writer.write(data)
        asked.cancel()
        writer.close()
        server_writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        [listener] = server.sockets
        user, _, _ = parts.netloc.rpartition("@")
        yield f"postgresql://{user}@127.0.0.1:{listener.getsockname()[1]}{parts.path}?sslmode=disable"


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
