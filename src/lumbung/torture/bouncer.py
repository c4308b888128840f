"""A transaction-pooling pgbouncer between the hub and PostgreSQL, where one is installed."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lumbung.errors import ConfigurationError

CONFIGURATION = """\
[databases]
{database} = host={socket_directory} port={server_port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 40
max_client_conn = 500
server_login_retry = 0.2
query_wait_timeout = 5
"""
# Without prepared statements that outlive a transaction; see the how-to.
ENV = {"LUMBUNG_DATABASE_STATEMENT_CACHE_SIZE": "0"}


@asynccontextmanager
async def pooling(directory: Path, *, database: str, socket: Path, port: int) -> AsyncIterator[None]:
    """Listens on 127.0.0.1:port until the block ends. `socket`: PostgreSQL's. Raises ConfigurationError."""
    program = shutil.which("pgbouncer")
    if program is None:
        raise ConfigurationError("--nemesis pgbouncer needs pgbouncer, which is not installed")
    path = directory / "pgbouncer.ini"
    path.write_text(
        CONFIGURATION.format(
            database=database, socket_directory=socket.parent, server_port=socket.suffix.removeprefix("."), port=port
        )
    )
    path.chmod(0o644)
    with (directory / "pgbouncer.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            program, *_as_owner(socket.parent), str(path), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        await _listening(process, port, directory)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _as_owner(folder: Path) -> list[str]:
    """pgbouncer refuses root, and the socket is its owner's."""
    return ["-u", pwd.getpwuid(folder.stat().st_uid).pw_name] if os.geteuid() == 0 else []


async def _listening(process: Process, port: int, directory: Path) -> None:
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if process.returncode is not None:
                break
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise ConfigurationError(f"pgbouncer does not start: see {directory / 'pgbouncer.log'}")
