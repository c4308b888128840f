"""Connections and transactions, and what becomes of the database's errors."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from lumbung.db.pool import Pool, savepoint
from lumbung.db.query import Connection
from lumbung.db.schema import newest_version
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


async def test_a_transaction_that_says_nothing_for_too_long_loses_its_locks(table: Pool) -> None:
    async def be_stuck(pool: Pool) -> None:
        async with pool.transaction() as stuck:
            await stuck.execute("UPDATE small SET n = 9 WHERE n = 1")
            await run(table, "UPDATE small SET n = 3 WHERE n = 1")  # waits for the lock
            await stuck.execute("UPDATE small SET n = 8 WHERE n = 2")

    async with Pool(table.url, Settings(database_idle_transaction_timeout_seconds=0.05)) as pool:
        with pytest.raises(Unavailable):
            await be_stuck(pool)
    assert await numbers(table) == [2, 3]


async def test_the_silence_that_a_transaction_may_keep_ends_with_it(table: Pool) -> None:
    query = "SHOW idle_in_transaction_session_timeout"
    settings = Settings(database_connections_max=1, database_idle_transaction_timeout_seconds=7.0)
    async with Pool(table.url, settings) as pool:
        async with pool.transaction(lock_timeout_ms=10) as connection:
            assert (await connection.fetchval(query), await connection.fetchval("SHOW lock_timeout")) == ("7s", "10ms")
        async with pool.connection() as connection:
            assert await connection.fetchval(query) == "0"
        async with pool.transaction(may_idle=True) as connection:
            assert await connection.fetchval(query) == "0"
    settings = Settings(database_idle_transaction_timeout_seconds=0)
    async with Pool(table.url, settings) as pool, pool.transaction() as connection:
        assert await connection.fetchval(query) == "0"


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


@pytest.mark.parametrize(("seconds", "asked"), [(30, ["30", "10", "3"]), (0, [])])
async def test_the_server_is_told_to_ask_after_connections_that_are_silent(
    pool: Pool, seconds: int, asked: list[str]
) -> None:
    async with Relay(pool.url) as relay, Pool(relay.url, Settings(database_keepalive_seconds=seconds)) as relayed:
        async with relayed.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        [started] = relay.startups
        names = [f"tcp_keepalives_{name}" for name in ("idle", "interval", "count")]
        assert [started[name] for name in names if name in started] == asked


@pytest.mark.parametrize("refuses", [False, True], ids=["direct", "pooler"])
async def test_a_process_that_sends_the_same_statements_all_the_time_has_them_planned_once(
    pool: Pool, *, refuses: bool
) -> None:
    async with Relay(pool.url, refuses=refuses) as relay, Pool(relay.url, Settings(), plan_once=True) as once:
        async with once.transaction() as connection:
            assert await planning(connection) == ("force_generic_plan", "off")
        async with once.connection() as connection:
            outside = await planning(connection)
        assert outside == (("auto", "on") if refuses else ("force_generic_plan", "off"))
    async with pool.transaction() as connection:
        assert await planning(connection) == ("auto", "on")


async def planning(connection: Connection) -> tuple[str, str]:
    return await connection.fetchval("SHOW plan_cache_mode"), await connection.fetchval("SHOW enable_seqscan")


async def test_what_is_planned_for_every_call_anyway_is_planned_for_its_values(pool: Pool) -> None:
    settings = Settings(database_statement_cache_size=0)
    async with Pool(pool.url, settings, plan_once=True) as uncached, uncached.transaction() as connection:
        assert await planning(connection) == ("auto", "on")


async def test_behind_a_pooler_that_refuses_keepalives_everything_works_without_them(table: Pool) -> None:
    """A pgbouncer refuses startup parameters that it does not know: all but those that it tracks."""
    settings = Settings(database_connections_max=2, database_statement_cache_size=0)
    async with Relay(table.url, refuses=True) as relay, Pool(relay.url, settings) as pool:
        with capture_logs() as logs:
            async with pool.transaction() as first, pool.transaction(lock_timeout_ms=10) as second:
                await first.execute("INSERT INTO small VALUES (3)")
                await second.execute("INSERT INTO small VALUES (4)")
        assert await numbers(table) == [1, 2, 3, 4]
        tracked = {"user", "database", "client_encoding", "application_name", "timezone"}
        assert ["tcp_keepalives_idle" in started for started in relay.startups] == [True, False, False]
        assert all(started.keys() <= tracked for started in relay.startups[1:])
        assert len(logs) == 1
        assert "unsupported startup parameter" in logs[0]["answer"]


@pytest.mark.parametrize("asked", ["SELECT newer FROM tenant", "SELECT newer(1)", "SELECT FROM newer"])
async def test_what_is_not_there_yet_is_unavailable_until_a_process_has_made_it(pool: Pool, asked: str) -> None:
    async with pool.connection() as connection:
        await connection.execute("DELETE FROM migration WHERE number = $1", newest_version())
    with pytest.raises(Unavailable, match="schema is older than this Lumbung"):
        async with pool.transaction() as connection:
            await connection.fetchval(asked)


async def test_what_a_newer_process_has_taken_away_is_unavailable_too(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO migration (number, name, digest) VALUES (1000, 'newer', '')")
    with pytest.raises(Unavailable, match="schema is newer than this Lumbung"):
        async with pool.transaction() as connection:
            await connection.fetchval("SELECT older FROM tenant")


async def test_what_no_migration_makes_is_told_as_the_fault_that_it_is(pool: Pool) -> None:
    with pytest.raises(asyncpg.UndefinedColumnError, match="newer"):
        async with pool.transaction() as connection:
            await connection.fetchval("SELECT newer FROM tenant")


async def test_a_database_without_tables_is_unavailable_until_a_process_has_made_them(empty_database_url: str) -> None:
    async with Pool(empty_database_url, Settings()) as pool:
        with pytest.raises(Unavailable, match="has no schema yet"):
            async with pool.connection() as connection:
                await connection.fetch("SELECT FROM tenant")


async def reach(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if "host" in options:
        return await asyncio.open_unix_connection(f"{options['host'][0]}/.s.PGSQL.{options['port'][0]}")
    return await asyncio.open_connection(parts.hostname, parts.port)


def url_of(server: asyncio.Server, url: str) -> str:
    """The same database by way of a server of ours."""
    [listener] = server.sockets
    parts = urlsplit(url)
    user, _, _ = parts.netloc.rpartition("@")
    return f"postgresql://{user}@127.0.0.1:{listener.getsockname()[1]}{parts.path}?sslmode=disable"


class Relay:
    """A way to the server that notes what each connection starts with. `refuses`: as a pgbouncer does, what it does not
    know."""

    def __init__(self, url: str, *, refuses: bool = False) -> None:
        self._target = url
        self._refuses = refuses
        self.url = ""
        self.startups: list[dict[str, str]] = []

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = url_of(self._server, self._target)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(8)  # its length, the protocol's version; then names and values
        body = await reader.readexactly(struct.unpack("!I", head[:4])[0] - 8)
        words = body.rstrip(b"\x00").decode().split("\x00")
        started = dict(zip(words[::2], words[1::2], strict=True))
        self.startups.append(started)
        if self._refuses and (unknown := [name for name in started if name.startswith("tcp_")]):
            fields = f"SFATAL\0C08P01\0Munsupported startup parameter: {unknown[0]}\0\0".encode()
            writer.write(b"E" + struct.pack("!I", len(fields) + 4) + fields)
            writer.close()
            return
        server_reader, server_writer = await reach(self._target)
        server_writer.write(head + body)
        asked = asyncio.create_task(pump(reader, server_writer))
        await pump(server_reader, writer)
        asked.cancel()
        writer.close()
        server_writer.close()


@asynccontextmanager
async def cut_off_after_commit(url: str) -> AsyncIterator[str]:
    """A way to the server that is cut as soon as the answer to a COMMIT comes; the answer is dropped."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await reach(url)
        asked = asyncio.create_task(pump(reader, server_writer))
        while data := await server_reader.read(65536):
            if b"COMMIT\x00Z" in data:
                break
            writer.write(data)
        asked.cancel()
        writer.close()
        server_writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield url_of(server, url)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@pytest.fixture
def release_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncpg.Pool.release

    async def lost(self: asyncpg.Pool, connection: Any, **more: Any) -> None:
        await release(self, connection, **more)
        raise ConnectionResetError("lost")

    monkeypatch.setattr(asyncpg.Pool, "release", lost)


async def test_what_was_committed_is_not_told_as_having_had_no_effect(table: Pool, release_that_fails: None) -> None:
    async with table.transaction() as connection:
        await connection.execute("UPDATE small SET n = 3 WHERE n = 1")
    assert await numbers(table) == [2, 3]


async def test_who_is_cancelled_ends_although_the_connection_breaks_at_that_moment(table: Pool) -> None:
    begun = asyncio.Event()

    async def breaks() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError from None

    async def work() -> None:
        while True:
            with suppress(Unavailable):
                async with table.connection():
                    await breaks()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_transaction_of_which_a_statement_failed_is_not_taken_for_committed(table: Pool) -> None:
    async def goes_on() -> None:
        async with table.transaction() as connection:
            await connection.execute("INSERT INTO small VALUES (7)")
            with suppress(asyncpg.UndefinedTableError):
                await connection.execute("SELECT FROM nowhere")

    with pytest.raises(LumbungError, match="rolled back"):
        await goes_on()
    assert await numbers(table) == [1, 2]


@pytest.mark.parametrize("inside", [True, False])
async def test_a_part_of_a_transaction_may_fail_without_it(table: Pool, inside: bool) -> None:
    async with table.transaction() if inside else table.connection() as connection:
        async with savepoint(connection):
            await connection.execute("INSERT INTO small VALUES (3)")
        with suppress(asyncpg.UndefinedTableError):
            async with savepoint(connection):
                await connection.execute("INSERT INTO small VALUES (4)")
                await connection.execute("SELECT FROM nowhere")
        async with savepoint(connection):
            await connection.execute("INSERT INTO small VALUES (5)")
    assert await numbers(table) == [1, 2, 3, 5]
