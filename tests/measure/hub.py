"""A hub to be measured: an embedded PostgreSQL with fsync in a temporary directory, and `lumbung` processes."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TypeVar

from lumbung.cli.roles import free_port
from lumbung.db.embedded import EmbeddedPostgres
from lumbung.db.migrate import migrate
from lumbung.db.partitions import ensure
from lumbung.db.pool import Pool
from lumbung.keyring import Keyring
from lumbung.settings import PREFIX, Settings
from tests.measure.control import Control, answers

T = TypeVar("T")

HOST = "127.0.0.1"
LOOK_SECONDS = 0.1
START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass
class Hub:
    """`url`: of the database. What is started here ends with `open_hub`, or when this process is gone."""

    home: Path
    url: str
    pool: Pool
    keyring: Keyring
    _processes: list[Process] = field(default_factory=list)

    @property
    def roots(self) -> list[int]:
        """The processes that were started here, and PostgreSQL's first one."""
        [postmaster] = self.home.rglob("postmaster.pid")
        return [int(postmaster.read_text().split()[0]), *(process.pid for process in self._processes)]

    async def start(self, *arguments: str, **settings: str) -> Process:
        """`lumbung` with these arguments and settings (`LOG_LEVEL="error"`)."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        own = {"DATABASE_URL": self.url, "DATA_DIR": str(self.home), "METRICS_PORT": "0", "LOG_LEVEL": "error"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "lumbung", *arguments, "--supervised"),
            env={**plain, **{PREFIX + name: value for name, value in {**own, **settings}.items()}},
        )
        self._processes.append(process)
        return process

    async def start_worker(self, **settings: str) -> Process:
        return await self.start("serve", "--roles", "worker", **settings)

    async def start_api(self) -> str:
        """Its URL, once it is ready."""
        port = free_port(HOST)
        process = await self.start("serve", "--roles", "api", "--host", HOST, "--port", str(port))
        url = f"http://{HOST}:{port}"
        await self.until_answering(process, f"{url}/readyz")
        return url

    async def start_sandbox(self, port: int | None = None) -> Control:
        """Marketplaces, whose writes are logged to `writes` of `home`."""
        port = port or free_port(HOST)
        log = self.home / "writes"
        process = await self.start("sandbox", "--host", HOST, "--port", str(port), "--write-log", str(log))
        control = Control(f"http://{HOST}:{port}", log)
        await self.until_answering(process, f"{control.url}/_control/status")
        return control

    async def until_answering(self, process: Process, url: str) -> None:
        async def answering() -> bool:
            assert process.returncode is None, f"the process that was to answer at {url} ended: {process.returncode}"
            return await asyncio.to_thread(answers, url)

        await until(answering, START_SECONDS, f"{url} to answer")

    async def end(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def open_hub() -> AsyncIterator[Hub]:
    with tempfile.TemporaryDirectory(prefix="lumbung-measure-") as directory:
        home = Path(directory)
        keyring = Keyring.load(home / "keys", create=True)
        with EmbeddedPostgres.start(home / "postgres") as server:
            server.ensure_database("lumbung")
            async with Pool(server.url("lumbung"), Settings()) as pool:
                await migrate(pool, timeout_seconds=60)
                await ensure(pool, ahead_days=14)
                hub = Hub(home, server.url("lumbung"), pool, keyring)
                try:
                    yield hub
                finally:
                    await hub.end()


async def until(right: Callable[[], Awaitable[T]], seconds: float, what: str) -> T:
    """What `right` gives once that is true. Raises TimeoutError that names what was waited for."""
    deadline = monotonic() + seconds
    while not (found := await right()):
        if monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}, in vain")
        await asyncio.sleep(LOOK_SECONDS)
    return found
