"""The processes under fire, and the ways between them: each has a way of its own to the database, through a proxy, and
every worker calls the marketplaces from an address of its own, through one proxy that tells them apart.

    partners --> api 1, 2 --.
                            |-- a proxy each --> PostgreSQL
    worker 1, 2, 3 ---------'
         '--- from 127.0.1.1, .2, .3 --- one proxy --> sandbox
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lumbung.hub_process import HubProcess
from lumbung.torture.proxy import Proxy, Upstream

HOST = "127.0.0.1"
PROGRAM = (sys.executable, "-m", "lumbung")


@dataclass(slots=True)
class Member:
    """A process of the hub. `source`: where a worker calls marketplaces from; "" for an API process."""

    process: HubProcess
    database: Proxy
    source: str = ""
    url: str = ""

    @property
    def name(self) -> str:
        return self.process.name


@dataclass(slots=True)
class Fleet:
    apis: list[Member]
    workers: list[Member]
    market: Proxy
    sandbox: HubProcess
    sandbox_url: str

    @property
    def members(self) -> list[Member]:
        return [*self.apis, *self.workers]


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """`env`: of every process; `ports`: free ones, one for each API process and worker; `program`: the command line
    that a role is added to."""

    directory: Path
    apis: int
    workers: int
    upstream: Upstream
    database: str
    sandbox_port: int
    ports: Sequence[int]
    env: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = PROGRAM


@asynccontextmanager
async def running(plan: FleetPlan) -> AsyncIterator[Fleet]:
    """Everything is started, in no order; all of it is gone at the end."""
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(Proxy.start((HOST, plan.sandbox_port)))
        ports = iter(plan.ports)
        apis = [await _member(stack, plan, "api", n, next(ports)) for n in range(1, plan.apis + 1)]
        workers = [await _member(stack, plan, "worker", n, next(ports)) for n in range(1, plan.workers + 1)]
        fleet = Fleet(apis, workers, market, _sandbox(plan), f"http://{HOST}:{plan.sandbox_port}")
        try:
            await fleet.sandbox.start()
            for member in fleet.members:
                await member.process.start()
            yield fleet
        finally:
            for process in [*(member.process for member in fleet.members), fleet.sandbox]:
                if process.runs:
                    process.thaw()
                    await process.kill()


async def _member(stack: AsyncExitStack, plan: FleetPlan, role: str, number: int, port: int) -> Member:
    database = await stack.enter_async_context(Proxy.start(plan.upstream))
    source = f"127.0.1.{number}" if role == "worker" else ""
    env = {
        **plan.env,
        "LUMBUNG_DATABASE_URL": f"postgresql://postgres@{HOST}:{database.port}/{plan.database}",
        "LUMBUNG_DATA_DIR": str(plan.directory),
        "LUMBUNG_LOG_FORMAT": "json",
    }
    argv = [*plan.program, "serve", "--roles", role, "--supervised", "--host", HOST]
    if role == "api":
        argv += ["--port", str(port)]
    else:
        env |= {"LUMBUNG_CALL_SOURCE_ADDRESS": source, "LUMBUNG_METRICS_PORT": str(port)}
    name = f"{role}-{number}"
    process = HubProcess(name, argv, env, plan.directory / f"{name}.log")
    url = f"http://{HOST}:{port}"
    return Member(process, database, source, url)


def _sandbox(plan: FleetPlan) -> HubProcess:
    argv = [*PROGRAM, "sandbox", "--supervised", "--host", HOST, "--port", str(plan.sandbox_port)]
    argv += ["--write-log", str(plan.directory / "writes.jsonl"), "--call-log", str(plan.directory / "calls.jsonl")]
    return HubProcess("sandbox", argv, {}, plan.directory / "sandbox.log")


def events(path: Path) -> list[dict[str, Any]]:
    """What a process has logged; lines that are no JSON (a traceback of Python's own) as {"event": line}."""
    if not path.exists():
        return []
    return [_event(line) for line in path.read_text(errors="replace").splitlines() if line.strip()]


def _event(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"event": line, "level": "unreadable"}
