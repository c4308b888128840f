"""What a role of the hub does with its process."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Iterator

import pytest

from lumbung import garbage
from lumbung.cli.roles import run_unless_signalled


@pytest.fixture
def usual_collecting() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("usual_collecting")
def test_garbage_is_collected_seldom_and_what_is_there_at_the_start_is_left_alone() -> None:
    garbage.collect_seldom()
    assert gc.get_threshold() == garbage.THRESHOLDS
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000


def test_work_that_nobody_interrupts_gives_its_result() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert run_unless_signalled(work) == "done"


def test_work_that_is_interrupted_is_cancelled_first() -> None:
    ended: list[str] = []

    async def work() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(KeyboardInterrupt):
        run_unless_signalled(work)
    assert ended == ["cancelled"]
