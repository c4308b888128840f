"""Real servers, in directories of their own; the other processes are real ones too."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import psutil
import pytest

from lumbung.db import embedded
from lumbung.db.embedded import (
    SOCKET_PATH_BYTES_MAX,
    EmbeddedPostgres,
    bin_dir,
    buffers_mb,
    fatal_line,
    memory_bytes,
)
from lumbung.errors import ConfigurationError

ANOTHER_USER = """
import sys
from pathlib import Path
from lumbung.db.embedded import EmbeddedPostgres
server = EmbeddedPostgres.start(Path(sys.argv[1]), durable=sys.argv[2:] == ["durable"])
print("started", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: the socket's name is limited."""
    folder = Path(tempfile.mkdtemp(prefix="lmb-")).resolve()
    yield folder
    for pid in server_pids(folder):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(folder)


def server_pids(place: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.name() == "postgres" and process.cwd() == str(place / "postgres"):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def postmaster_pid(place: Path) -> int:
    return int((place / "postgres" / "postmaster.pid").read_text().splitlines()[0])


async def ask(url: str, *queries: str) -> list[object]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [await connection.fetchval(query) for query in queries]
    finally:
        await connection.close()


def another_user(place: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process that uses the server until a line comes, or until it is killed."""
    user = subprocess.Popen(
        [sys.executable, "-c", ANOTHER_USER, str(place), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "started\n"
    return user


async def test_a_new_directory_gets_a_durable_server(place: Path) -> None:
    with EmbeddedPostgres.start(place) as server:
        names = ["fsync", "synchronous_commit", "full_page_writes", "max_connections", "shared_buffers", "timezone"]
        names += ["autovacuum_naptime", "wal_level", "listen_addresses", "data_checksums", "server_encoding"]
        shown = await ask(server.url("postgres"), *[f"SHOW {name}" for name in names])
        assert dict(zip(names, shown, strict=True)) == {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "max_connections": "200",
            "shared_buffers": f"{buffers_mb(memory_bytes())}MB".replace("1024MB", "1GB"),
            "timezone": "UTC",
            "autovacuum_naptime": "10s",
            "wal_level": "replica",
            "listen_addresses": "",
            "data_checksums": "on",
            "server_encoding": "UTF8",
        }
        assert len(list((place / "postgres" / "log").glob("postgresql-*.log"))) == 1
    assert server_pids(place) == []


@pytest.mark.parametrize(("memory", "found"), [(1, 128), (4, 256), (12, 768), (16, 1024), (64, 1024)])
def test_the_servers_cache_goes_by_the_memory_of_the_machine(memory: int, found: int) -> None:
    assert buffers_mb(memory * 2**30) == found


@pytest.mark.parametrize(("limit", "found"), [("268435456\n", 2**28), ("max\n", None), (None, None)])
def test_memory_is_that_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, found: int | None
) -> None:
    monkeypatch.setattr(embedded, "CONTAINER_MEMORY", (tmp_path / "nothing", tmp_path / "memory.max"))
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    assert memory_bytes() == (found or psutil.virtual_memory().total)


async def test_version_16_starts_too_and_its_directory_is_refused_by_18(place: Path) -> None:
    with EmbeddedPostgres.start(place, version=16, durable=False) as server:
        assert str((await ask(server.url("postgres"), "SHOW server_version"))[0]).startswith("16.")
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres.start(place)
    assert str(caught.value) == (
        f"{place}/postgres was made by PostgreSQL 16, and 18 cannot read it: dump it with the version that made it "
        "(pg_dumpall), move the directory away, start again and load the dump"
    )
    assert server_pids(place) == []
    assert (place / "postgres" / "PG_VERSION").read_text() == "16\n"


async def test_rows_are_there_after_a_stop_and_a_start(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False) as server:
        await ask(server.url("postgres"), "CREATE TABLE t AS SELECT 7 AS n")
    with EmbeddedPostgres.start(place, durable=False) as server:
        assert await ask(server.url("postgres"), "SELECT n FROM t") == [7]


async def test_a_server_without_fsync_is_not_joined_by_one_who_needs_it(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False) as server:
        settings = ["SHOW fsync", "SHOW synchronous_commit", "SHOW full_page_writes"]
        assert await ask(server.url("postgres"), *settings) == ["off", "off", "off"]
        with pytest.raises(ConfigurationError, match="runs without fsync, for tests"):
            EmbeddedPostgres.start(place)
        assert await ask(server.url("postgres"), "SELECT 1") == [1]
    with EmbeddedPostgres.start(place) as server:
        assert await ask(server.url("postgres"), *settings) == ["on", "on", "on"]


def test_the_last_of_several_processes_stops_it(place: Path) -> None:
    user = another_user(place)
    pid = postmaster_pid(place)
    first = EmbeddedPostgres.start(place, durable=False)
    second = EmbeddedPostgres.start(place, durable=False)
    assert postmaster_pid(place) == pid
    user.communicate("\n")
    assert pid in server_pids(place)
    first.stop()
    first.stop()
    assert pid in server_pids(place)
    second.stop()
    assert server_pids(place) == []


def test_a_process_that_forgets_to_stop_prints_nothing_and_leaves_nothing(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_USER, str(place)], input="\n", capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("started\n", "")
    assert server_pids(place) == []


async def test_after_its_only_user_was_killed_it_is_joined(place: Path) -> None:
    user = another_user(place)
    pid = postmaster_pid(place)
    user.kill()
    user.communicate()
    assert pid in server_pids(place)
    with EmbeddedPostgres.start(place, durable=False) as server:
        assert postmaster_pid(place) == pid
        assert await ask(server.url("postgres"), "SELECT 1") == [1]
    assert server_pids(place) == []


async def test_after_the_server_was_killed_it_recovers(place: Path) -> None:
    user = another_user(place, "durable")
    pid = postmaster_pid(place)
    with EmbeddedPostgres.start(place) as server:
        await ask(server.url("postgres"), "CREATE TABLE t AS SELECT 7 AS n")
    user.kill()
    os.kill(pid, signal.SIGKILL)
    user.communicate()
    with EmbeddedPostgres.start(place) as server:
        assert postmaster_pid(place) != pid
        assert await ask(server.url("postgres"), "SELECT n FROM t") == [7]


async def test_several_users_of_a_killed_server_revive_one_server_and_all_use_it(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False) as ours, EmbeddedPostgres.start(place, durable=False) as theirs:
        killed = postmaster_pid(place)
        os.kill(killed, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid) for pid in server_pids(place)], timeout=30)
        assert not ours.is_up()
        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(server.revive) for server in (ours, theirs) * 3]:
                done.result()
        assert ours.is_up()
        assert theirs.is_up()
        pid = postmaster_pid(place)
        assert pid != killed
        parents = {psutil.Process(found).ppid() for found in server_pids(place) if found != pid}
        assert parents == {pid}
        assert await ask(ours.url("postgres"), "SELECT 1") == await ask(theirs.url("postgres"), "SELECT 1") == [1]


def test_a_server_that_runs_is_not_touched_by_a_revival_and_one_that_was_let_go_is_not_started(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False) as server:
        pid = postmaster_pid(place)
        assert server.is_up()
        server.revive()
        assert postmaster_pid(place) == pid
    server.revive()
    assert not server.is_up()
    assert server_pids(place) == []


def test_what_keeps_it_from_being_revived_is_said(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False) as server:
        os.kill(postmaster_pid(place), signal.SIGKILL)
        control = place / "postgres" / "global" / "pg_control"
        control.rename(place / "pg_control")
        with pytest.raises(ConfigurationError, match=r"PostgreSQL does not start"):
            server.revive()
        (place / "pg_control").rename(control)
        server.revive()
        assert server.is_up()


async def test_a_process_id_that_belongs_to_another_program_by_now_does_not_keep_it_from_starting(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False):
        text = (place / "postgres" / "postmaster.pid").read_text()
    owner = (place / "postgres").stat()
    stale = place / "postgres" / "postmaster.pid"
    for path in (stale, stale.with_name(".s.PGSQL.5432.lock")):
        path.write_text(re.sub(r"^\d+", str(os.getpid()), text))
        os.chown(path, owner.st_uid, owner.st_gid)
    with EmbeddedPostgres.start(place, durable=False) as server:
        assert await ask(server.url("postgres"), "SELECT 1") == [1]


def test_it_has_a_session_of_its_own_so_that_ctrl_c_does_not_reach_it(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False):
        pid = postmaster_pid(place)
        assert os.getsid(pid) == pid
        assert os.getsid(pid) != os.getsid(0)


def test_a_server_that_is_not_ready_in_time_goes_on_and_is_joined_later(place: Path) -> None:
    user = another_user(place)
    pid = postmaster_pid(place)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ConfigurationError, match="does not answer, but processes of it run"):
        EmbeddedPostgres.start(place, durable=False, start_timeout_seconds=0.01)
    os.kill(pid, signal.SIGCONT)
    with EmbeddedPostgres.start(place, durable=False):
        assert postmaster_pid(place) == pid
    user.communicate("\n")
    assert server_pids(place) == []


async def test_a_database_is_made_once_whatever_its_name(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False) as server:
        for name in ["lumbung", "lumbung", "a/b 'c' \"d\" 50%ä?"]:
            server.ensure_database(name)
        await ask(server.url(), "CREATE TABLE t AS SELECT 7 AS n")
        server.ensure_database("lumbung")
        assert await ask(server.url(), "SELECT n FROM t") == [7]
        assert await ask(server.url("a/b 'c' \"d\" 50%ä?"), "SELECT current_database()") == ["a/b 'c' \"d\" 50%ä?"]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(server.ensure_database, ["raced"] * 4))
        assert await ask(server.url("raced"), "SELECT 1") == [1]


async def test_a_path_with_odd_characters_is_percent_encoded(place: Path) -> None:
    odd = place / "a b'ä%?&"
    with EmbeddedPostgres.start(odd, durable=False) as server:
        assert server.url("d").endswith("a%20b%27%C3%A4%25%3F%26%2Fpostgres&port=5432")
        assert await ask(server.url("postgres"), "SELECT 1") == [1]


async def test_the_environment_of_another_postgresql_is_not_obeyed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "PGHOST": "nowhere", "PGOPTIONS": "-c nonsense=1"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres.start(place, durable=False) as server:
        server.ensure_database("lumbung")
        assert await ask(server.url(), "SELECT current_database()") == ["lumbung"]


async def test_processes_that_start_at_once_share_one_server(place: Path) -> None:
    def start_and_stop(_: int) -> int:
        with EmbeddedPostgres.start(place, durable=False) as server:
            return len(asyncio.run(ask(server.url("postgres"), "SELECT 1")))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start_and_stop, range(4))) == [1, 1, 1, 1]
    assert server_pids(place) == []


async def test_a_cluster_that_was_left_half_made_is_made_anew(place: Path) -> None:
    (place / "postgres.new").mkdir()
    (place / "postgres.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres.start(place, durable=False) as server:
        assert await ask(server.url("postgres"), "SELECT 1") == [1]
    assert not (place / "postgres.new").exists()


def test_a_directory_with_something_else_in_it_is_left_alone(place: Path) -> None:
    (place / "postgres").mkdir()
    (place / "postgres" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres.start(place)
    assert str(caught.value) == f"{place}/postgres is not empty and holds no PostgreSQL cluster: move it away"
    assert [path.name for path in (place / "postgres").iterdir()] == ["mine.txt"]


def test_a_file_in_the_place_of_a_directory_is_named(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres.start(place / "file")
    assert str(caught.value) == f"data_dir {place}/file cannot be used: File exists"
    (place / "postgres").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres.start(place)
    assert str(caught.value) == f"{place}/postgres is not a directory: move it away"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(place: Path) -> None:
    place.chmod(0o500)
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres.start(place)
    place.chmod(0o700)
    assert str(caught.value) == f"data_dir {place} cannot be used: Permission denied"


def test_a_path_that_is_too_long_for_a_socket_is_refused_before_anything_is_made(place: Path) -> None:
    spare = SOCKET_PATH_BYTES_MAX - len("/postgres/.s.PGSQL.5432")
    long = place / ("x" * (spare - len(str(place))))
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres.start(long)
    assert str(caught.value) == f"data_dir {long} is too long: a socket in it allows {spare} bytes"
    assert not long.exists()


def test_a_comma_in_the_path_is_refused_because_a_url_cannot_say_it(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="has a comma in it"):
        EmbeddedPostgres.start(place / "a,b")


def test_a_server_that_does_not_start_says_why_in_one_line(place: Path) -> None:
    with EmbeddedPostgres.start(place, durable=False):
        pass
    with (place / "postgres" / "postgresql.auto.conf").open("a") as overrides:
        overrides.write("max_connections = 'many'\n")
    with pytest.raises(ConfigurationError) as caught:
        EmbeddedPostgres.start(place, durable=False)
    assert str(caught.value).startswith(f"PostgreSQL does not start in {place}/postgres: ")
    assert 'invalid value for parameter "max_connections": "many"' in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server_pids(place) == []


def test_tools_are_found_by_version_and_an_unknown_version_is_refused() -> None:
    assert (bin_dir(18) / "pgbench").is_file()
    assert (bin_dir(16) / "psql").is_file()
    with pytest.raises(ConfigurationError) as caught:
        bin_dir(9)
    assert str(caught.value) == "There is no embedded PostgreSQL 9; there is 16, 18"


def test_what_ended_the_server_is_said_whatever_it_logs_after_it() -> None:
    told = ["LOG:  starting", "LOG:  redo starts", "FATAL:  could not write: No space left on device"]
    assert fatal_line("\n".join([*told, "LOG:  startup process exited", "LOG:  database system is shut down"])) == (
        "LOG:  redo starts | FATAL:  could not write: No space left on device"
    )
    assert fatal_line("FATAL:  the only line") == "FATAL:  the only line"
    assert fatal_line("\n".join([*told, *["LOG:  all is well"] * 10])) == ""
