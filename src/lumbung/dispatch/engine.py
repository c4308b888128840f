"""What all senders of a process share, and what each store's channel allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from lumbung.clock import Clock
from lumbung.dispatch.budgets import Budgets
from lumbung.dispatch.lease_clock import LeaseClock
from lumbung.dispatch.metrics import WorkerMetrics
from lumbung.dispatch.permits import Permits
from lumbung.dispatch.policy import Delays
from lumbung.dispatch.recorder import Recorder
from lumbung.dispatch.rest import Rest
from lumbung.dispatch.storage import Storage
from lumbung.settings import Settings


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What the store's channel, or its own settings, allow. Seconds."""

    calls_per_second: float
    burst: int
    call_timeout_seconds: float
    quiesce_seconds: float


@dataclass(frozen=True, slots=True)
class Engine:
    """What all senders of a process share. `permits`: calls at once, by channel code. `rest`: of scans.
    `look_after(seconds)`: have the worker look for waits that are over. `keep`: let a task end, also when its sender
    is gone."""

    storage: Storage
    settings: Settings
    clock: Clock
    recorder: Recorder
    lease_clock: LeaseClock
    permits: Mapping[str, Permits]
    budgets: Budgets
    metrics: WorkerMetrics
    dice: Callable[[], float]
    rest: Rest
    look_after: Callable[[float], None]
    keep: Callable[[Awaitable[None]], None]


def delays_of(settings: Settings) -> Delays:
    return Delays(
        backoff_first_seconds=settings.backoff_first_seconds,
        backoff_max_seconds=settings.backoff_max_seconds,
        throttle_default_seconds=settings.throttle_default_seconds,
        throttle_seconds_min=settings.throttle_seconds_min,
        throttle_seconds_max=settings.throttle_seconds_max,
        defer_default_seconds=settings.defer_default_seconds,
        defer_seconds_max=settings.defer_seconds_max,
        floor_retry_seconds=settings.floor_retry_seconds,
        submitted_check_seconds_max=settings.submitted_check_seconds_max,
        submitted_seconds_max=settings.submitted_seconds_max,
    )
