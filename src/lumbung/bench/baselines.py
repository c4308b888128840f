"""What the same machine can do at best, measured in the same run: every figure is compared with these.

E   requests/s that the same server and framework read, check the signature of and answer; no database (echo.py)
H   calls/s that the same HTTP client makes with the same body to the stub marketplace
R   rows/s of 500-row upserts from arrays into tables with the same columns and indexes
C   single-row commits/s of pgbench, by 1 and by 64 clients
"""

from __future__ import annotations

import asyncio
import re
from time import perf_counter

from lumbung.bench.rig import Rig
from lumbung.channels.http import Answer, HttpClient, Transport
from lumbung.db.bench import Bare
from lumbung.errors import LumbungError

COMMIT = "INSERT INTO bare_commit (at) VALUES (now());\n"
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
CALLS_AT_ONCE = 64


async def rows_per_second(rig: Rig, bare: Bare, seconds: float, listings: int) -> float:
    async with rig.pool.connection() as connection:
        rows, began = 0, perf_counter()
        while (took := perf_counter() - began) < seconds:
            rows += await bare.once(connection, listings)
    return rows / took


async def calls_per_second(rig: Rig, url: str, body: bytes, seconds: float) -> float:
    """`url`: of the stub. One client, as a worker has, and as many calls at once as its pool has connections."""
    ends = perf_counter() + seconds
    async with HttpClient(rig.clock, connections_per_host_max=CALLS_AT_ONCE) as client:
        began = perf_counter()
        made = await asyncio.gather(*(_call_until(client, url, body, ends) for _ in range(CALLS_AT_ONCE)))
    return sum(made) / (perf_counter() - began)


async def _call_until(client: Transport, url: str, body: bytes, ends: float) -> int:
    made = 0
    while perf_counter() < ends:
        answer = await client.request(
            "PUT", url, headers={"Content-Type": "application/json"}, body=body, timeout_seconds=20
        )
        if not isinstance(answer, Answer):
            raise LumbungError(f"The stub marketplace does not answer: {answer.message}")
        made += 1
    return made


async def commits_per_second(rig: Rig, clients: int, seconds: float) -> float:
    """pgbench reads its script from a file, and a table of its own."""
    script = rig.directory / "commit.sql"
    script.write_text(COMMIT)
    process = await asyncio.create_subprocess_exec(
        str(rig.pgbench),
        *("-n", "-M", "prepared", "-f", str(script), "-c", str(clients), "-j", "1", "-T", str(max(1, round(seconds)))),
        rig.database_url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    found = _TPS.search(said.decode())
    if found is None:
        raise LumbungError(f"pgbench failed: {said.decode(errors='replace').strip()[-300:]}")
    return float(found[1])
