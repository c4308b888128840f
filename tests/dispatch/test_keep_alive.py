"""When the tokens of a store that has nothing to send may be renewed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lumbung.clock import ManualClock
from lumbung.dispatch.breaker import Breaker
from lumbung.dispatch.pacing import Pacer
from lumbung.dispatch.sender import StoreSender


class Budgets:
    """Takes note of the calls that are counted; `wait_seconds` as the application's limit wants it."""

    def __init__(self, wait_seconds: float) -> None:
        self.wait_seconds = wait_seconds
        self.taken = 0

    async def take(self, _application_id: int | None) -> float:
        self.taken += 1
        return self.wait_seconds


def idle(*, wait_seconds: float = 0.0) -> Any:
    """A sender, so far as the question needs one."""
    sender = cast(Any, object.__new__(StoreSender))
    clock = ManualClock()
    sender.lease = SimpleNamespace(channel_app_id=1)
    sender._engine = SimpleNamespace(clock=clock, budgets=Budgets(wait_seconds))
    sender._pacer = Pacer(1.0, 1, now=clock.monotonic())
    sender._breaker = Breaker(1, 5.0, 60.0)
    sender._stopping = False
    clock.advance(10.0)
    return sender


async def test_a_renewal_counts_as_a_call_of_the_store_and_of_its_application() -> None:
    sender = idle()
    assert [await sender._may_call_now(), await sender._may_call_now()] == [True, False]
    assert sender._engine.budgets.taken == 1


async def test_a_renewal_waits_for_the_limit_of_the_application() -> None:
    assert await idle(wait_seconds=3.0)._may_call_now() is False


@pytest.mark.parametrize("wait_seconds", [0.0, 3.0])
async def test_a_renewal_leaves_the_probe_of_an_open_breaker_to_a_push(wait_seconds: float) -> None:
    """It would be out for ever: nothing that a renewal gives closes a breaker."""
    sender = idle(wait_seconds=wait_seconds)
    sender._breaker.failed(sender._engine.clock.monotonic())
    sender._engine.clock.advance(100.0)
    assert await sender._may_call_now() is False
    assert sender._breaker.may_start(sender._engine.clock.monotonic())
