"""The engine with one protection taken off: whether the auditor would notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lumbung.dispatch import policy
from lumbung.dispatch.tokens import TokenKeeper
from lumbung.dispatch.window import Window
from tests.simulation import leases, recording
from tests.simulation.tables import Lease, Tables


def without_the_epoch_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends for the store by now, the result of a lost holder counts."""
    monkeypatch.setattr(recording, "holds", lambda tables, report: True)


def without_confirmation_after_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "_accepted", _accepted_without_doubt)


def _accepted_without_doubt(situation: policy.Situation, delays: policy.Delays) -> policy.ListingDecision:
    if situation.floored:
        return policy.AwaitFloor(delays.floor_retry_seconds, sent=True)
    return policy.Deliver(None)


class _Forgetful(set[int]):
    def update(self, *others: Iterable[int]) -> None:
        """Nothing is ever busy."""


def without_the_busy_set(monkeypatch: pytest.MonkeyPatch) -> None:
    build: Callable[..., None] = Window.__init__

    def forgetful(self: Window, *given: Any, **named: Any) -> None:
        build(self, *given, **named)
        self.busy = _Forgetful()

    monkeypatch.setattr(Window, "__init__", forgetful)


def without_doubt_at_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "doubt_until", _no_doubt)


def _no_doubt(tables: Tables, lease: Lease, now: float, quiesce: float) -> None:
    """What the lost holder had in flight is forgotten."""


def without_writing_new_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who loses the lease drops the pair that it has just traded."""

    async def drop(self: TokenKeeper, old: object, new: object) -> None:
        return

    monkeypatch.setattr(TokenKeeper, "_write", drop)


def without_the_retry_of_parked_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[..., None] = recording._write_wait

    def forgets_parked(tables: Tables, report: Any, result: Any, park_retry_seconds: float) -> None:
        if not isinstance(result.decision, policy.Park):
            write(tables, report, result, park_retry_seconds)

    monkeypatch.setattr(recording, "_write_wait", forgets_parked)
