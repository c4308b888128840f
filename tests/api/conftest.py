"""One hub without a worker for a module whose tests do not disturb each other."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from lumbung.keyring import Keyring
from tests.conftest import SERVER_URL, TEMPLATE, in_database
from tests.flow.hub import Hub, running_hub


@asynccontextmanager
async def fresh_database() -> AsyncIterator[str]:
    """A database of its own with the whole schema."""
    server, name = os.environ[SERVER_URL], f"lumbung_api_{uuid4().hex}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{os.environ[TEMPLATE]}"')
        yield in_database(server, name)
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    """A hub whose one tenant has sku1 in its catalogue; nothing delivers."""
    path: Path = tmp_path_factory.mktemp("keys") / "keys"
    async with (
        fresh_database() as url,
        running_hub(url, Keyring.load(path, create=True), worker=False) as hub,
    ):
        await hub.world.variants("sku1")
        yield hub
