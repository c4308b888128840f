"""What a benchmark runs on: a database that the composition root has opened, and processes that it starts and ends.

Each process is what users run (`lumbung serve --roles api`), or the benchmark's own (stub.py, echo.py, steady.py).
"""

from __future__ import annotations

import asyncio
import http.client
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from urllib.parse import urlsplit

import psutil

from lumbung.bench import wrk
from lumbung.bench.generator import Generator
from lumbung.bench.wrk import SEPARATOR, Wrk
from lumbung.clock import Clock
from lumbung.db.pool import Pool
from lumbung.errors import LumbungError
from lumbung.hub_process import HubProcess

HOST = "127.0.0.1"
START_SECONDS_MAX = 60.0
ASK_SECONDS_MAX = 120.0
LOOK_SECONDS = 0.05
STEADY_SECONDS = 2.0  # by when a load goes at its pace


@dataclass(frozen=True, slots=True)
class Rig:
    """`seconds`: of each load; `rounds`: of each figure; `pgbench`: its path; `note` tells
    people what is being done; `free_port` gives a port that nobody listens on."""

    directory: Path
    database_url: str
    pool: Pool
    clock: Clock
    seconds: float
    rounds: int
    quick: bool
    pgbench: Path
    note: Callable[[str], None]
    free_port: Callable[[], int]

    @asynccontextmanager
    async def api(self, **settings: str) -> AsyncIterator[Process]:
        """An API process, ready."""
        port = self.free_port()
        arguments = ["-m", "lumbung", "serve", "--roles", "api", "--supervised", "--host", HOST, "--port", str(port)]
        async with self._running("api", arguments, port, "/readyz", settings) as process:
            yield process

    @asynccontextmanager
    async def worker(self, name: str = "worker", **settings: str) -> AsyncIterator[Process]:
        """A worker; its URL is that of its metrics."""
        port = self.free_port()
        arguments = ["-m", "lumbung", "serve", "--roles", "worker", "--supervised"]
        env = {"METRICS_PORT": str(port), **settings}
        async with self._running(name, arguments, port, "/metrics", env) as process:
            yield process

    @asynccontextmanager
    async def echo(self, key: str) -> AsyncIterator[Process]:
        port = self.free_port()
        arguments = ["-m", "lumbung.bench.echo", "--port", str(port), "--key", key]
        async with self._running("echo", arguments, port, "/readyz", {}) as process:
            yield process

    @asynccontextmanager
    async def stub(self, port: int, *, wait_ms: float = 0, receipts: bool = False) -> AsyncIterator[Process]:
        arguments = ["-m", "lumbung.bench.stub", "--port", str(port), "--wait-ms", f"{wait_ms:g}"]
        arguments += ["--receipts"] if receipts else []
        async with self._running("stub", arguments, port, "/counts", {}) as process:
            yield process

    def generator(self, url: str, requests: Sequence[bytes]) -> Generator | Wrk:
        """wrk where it is installed, else ours."""
        program = wrk.program()
        if program is None:
            return Generator(url, requests)
        return Wrk(program, url, requests, Path(mkdtemp(prefix="wrk-", dir=self.directory)) / "load")

    async def command(self, *arguments: str) -> None:
        """A `lumbung` command on this database, run to its end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "lumbung", *arguments),
            env={**os.environ, **self._env()},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode:
            raise LumbungError(f"lumbung {arguments[0]} failed: {said.decode(errors='replace').strip()[-500:]}")

    def _env(self) -> dict[str, str]:
        return {
            "LUMBUNG_DATABASE_URL": self.database_url,
            "LUMBUNG_DATA_DIR": str(self.directory),
            "LUMBUNG_LOG_LEVEL": "error",
            "LUMBUNG_KEY_FILE": "",
            "LUMBUNG_PUBLIC_PATH_PREFIX": "",
        }

    @asynccontextmanager
    async def steadily(
        self, url: str, requests: Sequence[bytes], per_second: float, connections: int
    ) -> AsyncIterator[None]:
        """A load at a pace, by a process of its own, as long as the block runs."""
        file = self.directory / "steady-requests"
        file.write_bytes(b"".join(request + SEPARATOR for request in requests))
        arguments = ["-m", "lumbung.bench.steady", "--url", url, "--requests", str(file)]
        arguments += ["--per-second", f"{per_second:g}", "--connections", str(connections)]
        process = HubProcess("steady", [sys.executable, *arguments], {}, self.directory / "steady.log")
        await process.start()
        try:
            await asyncio.sleep(STEADY_SECONDS)
            yield
            if not process.runs:
                raise LumbungError(f"The load has ended: {process.log_path.read_text()[-500:].strip()}")
        finally:
            if process.runs:
                await process.stop()

    @asynccontextmanager
    async def _running(
        self, name: str, arguments: Sequence[str], port: int, path: str, settings: Mapping[str, str]
    ) -> AsyncIterator[Process]:
        env = {**self._env(), **{f"LUMBUNG_{key}": value for key, value in settings.items()}}
        hub = HubProcess(name, [sys.executable, *arguments], env, self.directory / f"{name}.log")
        await hub.start()
        process = Process(f"http://{HOST}:{port}", hub)
        try:
            await process.until_answering(path)
            yield process
        finally:
            if hub.runs:
                await hub.stop()


@dataclass(frozen=True, slots=True)
class Process:
    url: str
    hub: HubProcess

    async def until_answering(self, path: str) -> None:
        async def answers() -> bool:
            if not self.hub.runs:
                raise LumbungError(f"{self.hub.name} has ended: {self.hub.log_path.read_text()[-500:].strip()}")
            with suppress(OSError, http.client.HTTPException, LumbungError):
                await self.get(path)
                return True
            return False

        await until(answers, START_SECONDS_MAX, f"{self.hub.name} to answer")

    async def get(self, path: str) -> bytes:
        return await asyncio.to_thread(_get, self.url, path)

    def memory_mb(self) -> float:
        """Resident."""
        return float(psutil.Process(self.hub.pid).memory_info().rss) / 2**20


def _get(url: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ASK_SECONDS_MAX)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status not in {200, 204}:
        raise LumbungError(f"{url}{path} answers {answer.status}")
    return body


async def until(right: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Raises LumbungError that names what was waited for."""
    deadline = monotonic() + seconds
    while not await right():
        if monotonic() > deadline:
            raise LumbungError(f"Waited {seconds:g} s for {what}, in vain")
        await asyncio.sleep(LOOK_SECONDS)
