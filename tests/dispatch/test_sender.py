"""A bug of ours, wherever it is: loud, the call is written down, and nothing is sent again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from lumbung.channels.base import Rejected, Scope
from lumbung.dispatch.breaker import Breaker
from lumbung.dispatch.judge import Judge
from lumbung.dispatch.postgres import PostgresStorage
from lumbung.dispatch.sender import UNDECIDED_MESSAGE
from lumbung.errors import Unavailable
from lumbung.keyring import Keyring
from tests.flow.hub import FAST, until
from tests.flow.market_account import Job
from tests.flow.shop import Shop, running_shop

HOUR = 3600.0
PATIENT = replace(FAST, backoff_first_seconds=HOUR, backoff_max_seconds=HOUR, submitted_seconds_max=10 * HOUR)


def bug(*_: Any) -> Any:
    raise TypeError("a bug")


async def calls_of(shop: Shop) -> int:
    count: int = await shop.hub.world.value("SELECT count(*) FROM call")
    return count


@pytest.mark.parametrize(("where", "name"), [(Judge, "judge"), (Judge, "holds"), (Breaker, "succeeded")])
async def test_a_call_that_cannot_be_decided_upon_is_recorded_and_its_listing_waits_in_doubt(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, where: type, name: str
) -> None:
    async with running_shop(database_url, keyring, PATIENT, skus=("a",)) as shop:
        with capture_logs() as logs, monkeypatch.context() as broken:
            broken.setattr(where, name, bug)
            code = await shop.update("a", 5)
            state = await shop.in_state("waiting")
        assert any(entry["log_level"] == "error" and entry["event"] == "a sender failed" for entry in logs)
        assert (state["attempts"], state["last_message"], state["quantity_doubtful"]) == (1, UNDECIDED_MESSAGE, None)
        assert state["doubtful_until"] is not None
        assert await shop.hub.waits() == ["backoff"]
        assert (len(shop.account.called()), await calls_of(shop)) == (1, 1)
        await shop.hub.later(HOUR)
        await shop.hub.ended(code)
        assert shop.account.shown["a"] == 5


async def test_each_time_that_a_bug_shows_again_its_listing_waits_longer(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(FAST, backoff_first_seconds=HOUR, backoff_max_seconds=100 * HOUR)
    left = "SELECT round(extract(epoch FROM due_at - now()) / 3600)::int FROM listing_wait"
    async with running_shop(database_url, keyring, settings, skus=("a",)) as shop:
        monkeypatch.setattr(Judge, "judge", bug)
        await shop.update("a", 5)
        waited = []
        for attempt in (1, 2, 3):
            await until(shop.state, lambda row, n=attempt: (row["attempts"], row["state"]) == (n, "waiting"))  # type: ignore[misc]
            waited.append(await shop.hub.world.value(left))
            await shop.hub.later(100 * HOUR)
        assert waited == [1, 2, 4]


async def test_what_was_submitted_is_asked_about_again_after_an_answer_that_could_not_be_decided_upon(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_shop(database_url, keyring, PATIENT, skus=("a",)) as shop:
        shop.account.say("a", Job(check_after_seconds=HOUR))
        code = await shop.update("a", 5)
        await shop.waiting_for("submitted")
        with monkeypatch.context() as broken:
            broken.setattr(Judge, "judge", bug)
            await shop.hub.later(HOUR)
            await shop.waiting_for("backoff")
        assert (await shop.state())["due_for"] == "ask"
        await shop.hub.later(HOUR)
        await shop.hub.ended(code)
        assert (len(shop.account.called("/push")), len(shop.account.called("/jobs"))) == (1, 2)


async def test_a_bug_between_two_calls_is_loud_and_ends_neither_the_sender_nor_what_it_holds_back(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_shop(database_url, keyring, FAST, skus=("a", "b")) as shop:
        shop.account.say("a", Rejected("no"))
        with capture_logs() as logs, monkeypatch.context() as broken:
            broken.setattr(Judge, "nothing_else", bug)
            first = await shop.update("a", 5)

            async def failures() -> int:
                return sum(entry["event"] == "a sender failed" for entry in logs)

            await until(failures, lambda count: count >= 3)
            assert (await shop.state("a"))["state"] == "due"  # held for a verdict
            broken.setattr(Judge, "judge", bug)
            second = await shop.update("b", 6)
            await until(lambda: shop.state("b"), lambda row: row["attempts"] > 0)
        await shop.hub.ended(first, second)
        assert (shop.account.shown["a"], shop.account.shown["b"]) == (5, 6)
        assert await shop.hub.world.value("SELECT epoch FROM store_lease WHERE store_id = $1", shop.store.id) == 1


async def test_a_database_that_is_away_while_an_application_is_slowed_down_does_not_stop_the_store(
    database_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("away")

    async with running_shop(database_url, keyring, FAST, skus=("a",)) as shop:
        app = await shop.hub.world.application()
        await shop.hub.world.execute("UPDATE store SET channel_app_id = $1", app)
        monkeypatch.setattr(PostgresStorage, "block", away)
        shop.account.throttle(Scope.APPLICATION, FAST.throttle_seconds_min)
        with capture_logs() as logs:
            await shop.hub.ended(await shop.update("a", 5))
        told = [(entry["log_level"], entry["event"]) for entry in logs if entry["log_level"] in {"warning", "error"}]
        assert told == [("warning", "other processes could not be told to slow down")]
        assert ([call.status for call in shop.account.called()], shop.account.shown["a"]) == ([429, 200], 5)
