"""A process of the hub that can be killed, frozen and started again; its log is a file that all its lives share."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

EXIT_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Life:
    """Unix seconds. `ended_at` is when it was asked to end, `gone_at` when it was gone; `unasked`: it was by then."""

    pid: int
    began_at: float
    ended_at: float
    gone_at: float
    code: int
    unasked: bool = False


@dataclass(slots=True)
class HubProcess:
    """`env` is added to this process's own. Its stdin is a pipe that closes with us: it ends when we are gone."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log_path: Path
    lives: list[Life] = field(default_factory=list)
    frozen: bool = False
    _process: Process | None = None
    _pipe: int = -1
    _began_at: float = 0.0

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        theirs, self._pipe = os.pipe()
        try:
            with self.log_path.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.argv,
                    stdin=theirs,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.env},
                    start_new_session=True,
                )
        finally:
            os.close(theirs)
        self._began_at = time.time()

    async def kill(self) -> Life:
        """SIGKILL, whatever it does."""
        return await self._end(signal.SIGKILL)

    async def stop(self) -> Life:
        """SIGTERM; SIGKILL when that takes too long."""
        return await self._end(signal.SIGTERM)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    async def _end(self, number: signal.Signals) -> Life:
        assert self._process is not None
        asked_at, unasked = time.time(), self._process.returncode is not None
        self._signal(number)
        try:
            async with asyncio.timeout(EXIT_SECONDS_MAX):
                code = await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            code = await self._process.wait()
        life = Life(self._process.pid, self._began_at, asked_at, time.time(), code, unasked)
        self.lives.append(life)
        self._process = None
        self.frozen = False
        os.close(self._pipe)
        return life

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
