"""Real PostgreSQL for every test that wants it: one server a run, a database a test, cloned from a template.

`LUMBUNG_TEST_DATABASE_URL` names another server (its user must be allowed to create databases);
`LUMBUNG_TEST_POSTGRES_VERSION` picks 16 or 18 of the embedded ones.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from lumbung.db.embedded import EmbeddedPostgres
from lumbung.db.migrate import migrate
from lumbung.db.partitions import ensure
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.settings import Settings
from tests.world import World

SERVER_URL = "LUMBUNG_TEST_SERVER_URL"
TEMPLATE = "LUMBUNG_TEST_TEMPLATE"

_servers: list[tuple[EmbeddedPostgres, Path]] = []


def pytest_configure(config: pytest.Config) -> None:
    """Start the server and make the template once, before the workers of pytest-xdist start."""
    if hasattr(config, "workerinput") or config.option.collectonly or SERVER_URL in os.environ:
        return
    url = os.environ.get("LUMBUNG_TEST_DATABASE_URL")
    if url is None:
        directory = Path(tempfile.mkdtemp(prefix="lumbung-tests-"))
        version = int(os.environ.get("LUMBUNG_TEST_POSTGRES_VERSION", "18"))
        server = EmbeddedPostgres.start(directory, version=version, durable=False)
        _servers.append((server, directory))
        url = server.url("postgres")
    os.environ[SERVER_URL] = url
    os.environ[TEMPLATE] = asyncio.run(_make_template(url))


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    if TEMPLATE in os.environ and SERVER_URL in os.environ:
        asyncio.run(_drop(os.environ[SERVER_URL], os.environ[TEMPLATE]))
    while _servers:
        server, directory = _servers.pop()
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def _make_template(url: str) -> str:
    name = f"lumbung_template_{uuid4().hex[:8]}"
    await _execute(url, f'CREATE DATABASE "{name}"')
    async with Pool(in_database(url, name), Settings()) as pool:
        await migrate(pool, timeout_seconds=60)
        await ensure(pool, ahead_days=14)
    return name


async def _drop(url: str, name: str) -> None:
    await _execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def in_database(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture
async def database_url() -> AsyncIterator[str]:
    """A database of its own with the whole schema."""
    server = os.environ[SERVER_URL]
    name = f"lumbung_test_{uuid4().hex}"
    await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{os.environ[TEMPLATE]}"')
    yield in_database(server, name)
    await _drop(server, name)


@pytest.fixture
async def empty_database_url() -> AsyncIterator[str]:
    """A database of its own without any table."""
    server = os.environ[SERVER_URL]
    name = f"lumbung_empty_{uuid4().hex}"
    await _execute(server, f'CREATE DATABASE "{name}"')
    yield in_database(server, name)
    await _drop(server, name)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with Pool(database_url, Settings()) as opened:
        yield opened


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.load(tmp_path / "keys", create=True)


@pytest.fixture
def world(pool: Pool, keyring: Keyring) -> World:
    return World(pool, keyring)
