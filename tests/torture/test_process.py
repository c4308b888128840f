"""A process that can be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from lumbung.torture.process import HubProcess

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("runs", os.environ["WORD"], flush=True)
while os.read(0, 1):
    pass
print("orphaned", flush=True)
"""


def process(tmp_path: Path) -> HubProcess:
    return HubProcess("worker-1", [sys.executable, "-c", PROGRAM], {"WORD": "padi"}, tmp_path / "log")


async def said(one: HubProcess, text: str, times: int = 1) -> None:
    async with asyncio.timeout(60):
        while one.log_path.read_text().count(text) < times:  # noqa: ASYNC110 (another process writes it)
            await asyncio.sleep(0.01)


async def test_each_life_is_written_down_and_all_share_a_log(tmp_path: Path) -> None:
    one = process(tmp_path)
    await one.start()
    await said(one, "runs padi")
    killed = await one.kill()
    assert (killed.code, one.runs, one.pid) == (-signal.SIGKILL, False, 0)
    await one.start()
    await said(one, "runs padi", 2)
    stopped = await one.stop()
    assert stopped.code == 3
    assert one.lives == [killed, stopped]
    assert killed.began_at <= killed.ended_at <= killed.gone_at <= stopped.began_at


async def test_a_frozen_process_stands_still_until_it_is_thawed_and_can_be_killed(tmp_path: Path) -> None:
    one = process(tmp_path)
    await one.start()
    await said(one, "runs")
    one.freeze()
    assert one.frozen
    async with asyncio.timeout(60):
        while psutil.Process(one.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 (the kernel's doing)
            await asyncio.sleep(0.01)
    one.thaw()
    assert psutil.Process(one.pid).status() != psutil.STATUS_STOPPED
    one.freeze()
    assert (await one.kill()).code == -signal.SIGKILL
    assert not one.frozen


async def test_a_process_hears_that_its_parent_is_gone(tmp_path: Path) -> None:
    one = process(tmp_path)
    await one.start()
    await said(one, "runs")
    os.close(one._pipe)  # as the kernel does when we are gone
    await said(one, "orphaned")
    one._pipe = os.open(os.devnull, os.O_RDONLY)
    await one.stop()
    assert not one.runs


async def test_a_process_that_ended_by_itself_is_told_apart(tmp_path: Path) -> None:
    one = HubProcess("worker-1", [sys.executable, "-c", "print('runs', flush=True)"], {}, tmp_path / "log")
    await one.start()
    await said(one, "runs")
    async with asyncio.timeout(60):
        while one.runs:  # noqa: ASYNC110 (the kernel's doing)
            await asyncio.sleep(0.01)
    life = await one.kill()
    assert (life.code, life.unasked) == (0, True)
