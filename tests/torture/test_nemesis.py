"""What is done, in which order, and how it is chosen."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import pytest

from lumbung.db import delivery
from lumbung.db.pool import Pool
from lumbung.errors import UsageError
from lumbung.torture import nemesis
from lumbung.torture.deeds_of_processes import COMMITS, LOOKS
from lumbung.torture.nemesis import KNOWN, Nemesis, chosen


@dataclass
class Hurried:
    """As much of the targets as the nemesis itself needs; no time goes by."""

    dice: random.Random

    def with_own_dice(self) -> Hurried:
        return Hurried(random.Random(1))

    async def lifetimes(self, _least: float, _most: float) -> None:
        return


def test_all_is_everything_but_what_needs_a_pgbouncer() -> None:
    assert set(chosen("all")) == set(KNOWN) - {"pgbouncer"}


async def test_the_statements_that_it_waits_for_are_those_that_the_hub_sends(pool: Pool) -> None:
    sent: list[str] = []
    async with pool.transaction() as connection:
        connection.add_query_logger(lambda query: sent.append(query.query))
        await delivery.stores_with_work(connection, working=[], wait_seconds_max=1.0, renew_ahead_seconds=1.0)
    assert sum(LOOKS.decode() in query for query in sent) == 1
    assert sum(COMMITS.decode() in query for query in sent) == 1


def test_none_is_peace_and_names_are_taken_as_they_come_once_each() -> None:
    assert chosen("none") == ()
    assert chosen(" late, kill,late ") == ("late", "kill")


def test_a_name_that_is_unknown_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="knows no 'kil'; it takes all, none, or any of kill, kill-before-claim"):
        chosen("kill,kil")


async def test_each_hand_does_everything_once_before_anything_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    stop = asyncio.Event()

    def act(name: str) -> Any:
        async def do(_targets: object) -> None:
            done.append(name)
            if len(done) == 9:
                stop.set()

        return do

    monkeypatch.setattr(nemesis, "TO_THE_HUB", {name: act(name) for name in ("kill", "freeze", "restart", "outage")})
    monkeypatch.setattr(nemesis, "BY_MARKETPLACES", {"late": act("late")})
    targets: Any = Hurried(random.Random(1))
    async with asyncio.timeout(60):
        await Nemesis(targets, ["kill", "freeze", "restart"]).run(stop)
    assert set(done[:3]) == set(done[3:6]) == set(done[6:9]) == {"kill", "freeze", "restart"}
    assert len(done) == 9
