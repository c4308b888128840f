"""A process that can be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from lumbung.hub_process import HubProcess

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
def say(word):
    print(word, flush=True)
    with open(os.environ["SAYS"], "w") as says:
        says.write(word)
say("runs")
while os.read(0, 1):
    pass
say("orphaned")
"""


def process(tmp_path: Path, program: str = PROGRAM) -> HubProcess:
    """What it says goes to its log, and word by word into a pipe: whoever writes it waits for who reads it."""
    os.mkfifo(tmp_path / "says")
    return HubProcess("worker-1", [sys.executable, "-c", program], {"SAYS": str(tmp_path / "says")}, tmp_path / "log")


async def heard(tmp_path: Path) -> str:
    """The next word that it says."""
    async with asyncio.timeout(60):
        return await asyncio.to_thread((tmp_path / "says").read_text)


async def stopped(one: HubProcess) -> None:
    """Returns once the kernel has stopped it."""
    async with asyncio.timeout(60):
        await asyncio.to_thread(os.waitid, os.P_PID, one.pid, os.WSTOPPED | os.WNOWAIT)


async def test_each_life_is_written_down_and_all_share_a_log(tmp_path: Path) -> None:
    one = process(tmp_path)
    await one.start()
    assert await heard(tmp_path) == "runs"
    killed = await one.kill()
    assert (killed.code, one.runs, one.pid) == (-signal.SIGKILL, False, 0)
    await one.start()
    assert await heard(tmp_path) == "runs"
    ended = await one.stop()
    assert ended.code == 3
    assert one.lives == [killed, ended]
    assert killed.began_at <= killed.ended_at <= killed.gone_at <= ended.began_at
    assert one.log_path.read_text() == "runs\nruns\n"


async def test_a_frozen_process_stands_still_until_it_is_thawed_and_can_be_killed(tmp_path: Path) -> None:
    one = process(tmp_path)
    await one.start()
    assert await heard(tmp_path) == "runs"
    one.freeze()
    assert one.frozen
    await stopped(one)
    one.thaw()
    assert psutil.Process(one.pid).status() != psutil.STATUS_STOPPED
    one.freeze()
    assert (await one.kill()).code == -signal.SIGKILL
    assert not one.frozen


async def test_a_process_hears_that_its_parent_is_gone(tmp_path: Path) -> None:
    one = process(tmp_path)
    await one.start()
    assert await heard(tmp_path) == "runs"
    os.close(one._pipe)  # as the kernel does when we are gone
    assert await heard(tmp_path) == "orphaned"
    one._pipe = os.open(os.devnull, os.O_RDONLY)
    await one.stop()
    assert not one.runs


async def test_a_process_that_ended_by_itself_is_told_apart(tmp_path: Path) -> None:
    one = process(tmp_path, "pass")
    await one.start()
    assert one._process is not None
    async with asyncio.timeout(60):
        await one._process.wait()
    assert not one.runs
    life = await one.kill()
    assert (life.code, life.unasked) == (0, True)
