"""wrk as the load generator, where it is installed: it is written in C and leaves most of the machine to the server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lumbung.bench.load import Load
from lumbung.errors import LumbungError

SEPARATOR = b"\n\x01\n"
_SCRIPT = r"""
local file = assert(io.open(os.getenv("LUMBUNG_BENCH_REQUESTS"), "rb"))
local text = file:read("*a")
file:close()
local requests, from = {}, 1
while true do
   local first, last = text:find("\n\1\n", from, true)
   if not first then break end
   requests[#requests + 1] = text:sub(from, first - 1)
   from = last + 1
end
local turn = tonumber(os.getenv("LUMBUNG_BENCH_FIRST")) % #requests
function request()
   turn = turn % #requests + 1
   return requests[turn]
end
function done(summary, latency, all)
   local e = summary.errors
   io.stderr:write(string.format('{"requests": %d, "micros": %d, "failed": %d, "lost": %d}\n', summary.requests,
                                 summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
"""


def program() -> str | None:
    return shutil.which("wrk")


class Wrk:
    """As Generator.ceaselessly, by wrk. `directory`: its own, made here."""

    def __init__(self, wrk: str, url: str, requests: Sequence[bytes], directory: Path):
        directory.mkdir()
        self._wrk = wrk
        self._url = url
        self._script = directory / "wrk.lua"
        self._script.write_text(_SCRIPT)
        self._requests = directory / "requests"
        self._requests.write_bytes(b"".join(request + SEPARATOR for request in requests))
        self._first = 0

    async def ceaselessly(self, seconds: float, connections: int) -> Load:
        whole = max(1, round(seconds))
        env = {"LUMBUNG_BENCH_REQUESTS": str(self._requests), "LUMBUNG_BENCH_FIRST": str(self._first)}
        process = await asyncio.create_subprocess_exec(
            self._wrk,
            *("-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "30s", "-s", str(self._script), self._url),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **env},
        )
        _, said = await process.communicate()
        if process.returncode:
            raise LumbungError(f"wrk failed: {said.decode(errors='replace').strip()}")
        found = json.loads(said.splitlines()[-1])
        self._first += found["requests"]
        return Load(found["requests"] - found["failed"], found["failed"] + found["lost"], found["micros"] / 1e6)
