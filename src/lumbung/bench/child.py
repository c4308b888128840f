"""A process of the benchmark's own: it ends when the one that started it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop

from lumbung.dispatch.supervisor import parent_gone


def run(work: Coroutine[Any, Any, object]) -> None:
    uvloop.run(_until_orphaned(work))


async def _until_orphaned(work: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.create_task(work), asyncio.create_task(parent_gone())]
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
