"""Counting what is due, waits and is parked, now and then, for the worker's metrics.

While somebody holds a snapshot that takes ever longer: then it is done more seldom.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from lumbung.clock import Clock
from lumbung.db import gauges
from lumbung.db.pool import Pool
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.errors import LumbungError
from lumbung.model import Lane, WaitReason
from lumbung.settings import Settings

INTERVALS_MAX = 20  # a gauge that is older than that says nothing


async def keep_counting(pool: Pool, settings: Settings, metrics: WorkerMetrics, clock: Clock) -> None:
    """Never ends. While the database is away the gauges keep what they showed last."""
    while True:
        began, took = clock.monotonic(), 0.0
        with suppress(LumbungError):  # the worker tells that the database is away
            await count(pool, settings, metrics)
            took = clock.monotonic() - began
        await asyncio.sleep(until_next(settings, took))


def until_next(settings: Settings, took: float) -> float:
    """Seconds between two counts when the last one has taken so long."""
    interval = settings.metrics_interval_seconds
    return min(max(interval, settings.scan_rest * took), INTERVALS_MAX * interval)


async def count(pool: Pool, settings: Settings, metrics: WorkerMetrics) -> None:
    async with pool.connection() as connection:
        found = await gauges.read(connection, rows_max=settings.metrics_rows_max)
    for lane in Lane:
        if lane is not Lane.NONE:
            metrics.due.labels(lane.name.lower()).set(found.due.get(int(lane), 0))
    for reason in WaitReason:
        metrics.waiting.labels(reason.value).set(found.waiting.get(reason.value, 0))
    metrics.parked.set(found.parked)
    metrics.oldest_due.set(found.oldest_due_seconds)
