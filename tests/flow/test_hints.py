"""What is due is found by its hint alone: the lanes are not looked through, and no poll comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from lumbung.channels.base import InDoubt, Scope, Throttled, Unavailable
from lumbung.dispatch.postgres import PostgresStorage
from lumbung.keyring import Keyring
from tests.flow.hub import FAST
from tests.flow.shop import Shop, running_shop

HOUR = 3600.0


async def finds_nothing(*_: Any, **__: Any) -> list[Any]:
    return []


@asynccontextmanager
async def without_scans(database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """Its store is being served; from now on only hints tell of anything."""
    async with running_shop(database_url, keyring, replace(FAST, poll_seconds=HOUR)) as shop:
        await shop.hub.ended(await shop.update("a", 1))
        monkeypatch.setattr(PostgresStorage, "due_window", finds_nothing)
        yield shop


async def test_updates_are_delivered_by_their_hints(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with without_scans(database_url, keyring, monkeypatch) as shop:
        for quantity in (5, 6, 0):
            await shop.hub.ended(await shop.update("a", quantity), await shop.update("b", quantity))
            assert (shop.account.shown["a"], shop.account.shown["b"]) == (quantity, quantity)


@pytest.mark.parametrize(
    "answer",
    [
        Throttled(None, Scope.STORE, "slow down"),
        Unavailable("away"),
        InDoubt("timeout"),
    ],
    ids=lambda answer: type(answer).__name__,
)
async def test_what_stays_due_or_becomes_due_again_after_a_call_is_found(
    database_url: str,
    keyring: Keyring,
    monkeypatch: pytest.MonkeyPatch,
    answer: Throttled | Unavailable | InDoubt,
) -> None:
    async with without_scans(database_url, keyring, monkeypatch) as shop:
        shop.account.say("a", answer)
        code = await shop.update("a", 5)
        await shop.hub.ended(code)
        assert shop.account.shown["a"] == 5


async def test_an_update_that_is_accepted_while_a_call_is_under_way_is_found_when_it_has_ended(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with without_scans(database_url, keyring, monkeypatch) as shop:
        async with shop.account.gate() as gate:
            first = await shop.update("a", 5)
            await gate.entered()
            second = await shop.update("a", 6)
        await shop.hub.ended(first, second)
        assert shop.account.shown["a"] == 6


async def test_hints_that_do_not_fit_into_a_wake_up_leave_it_to_a_scan(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumbung.db.wake.PAYLOAD_CHARS_MAX", 5)
    async with running_shop(database_url, keyring, replace(FAST, poll_seconds=HOUR)) as shop:
        for quantity in (1, 2, 3):
            await shop.hub.ended(await shop.update("a", quantity))
        assert shop.account.shown["a"] == 3
