"""A limit that many processes share: each one's part of it, and how that is filled from the database."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lumbung.clock import ManualClock
from lumbung.db.budget import Grant
from lumbung.dispatch.allowance import Allowance
from lumbung.dispatch.budgets import Budgets
from lumbung.dispatch.storage import Storage
from lumbung.errors import Unavailable

APP = 7


def granted(calls: int, now: float = 0.0, wait_seconds: float = 0.0) -> Allowance:
    allowance = Allowance()
    allowance.granted(now, calls, wait_seconds)
    return allowance


# --- a process's part ---


def test_a_new_allowance_has_nothing_and_asks_for_one_call_at_once() -> None:
    allowance = Allowance()
    assert (allowance.take(5.0), allowance.next_at(5.0), allowance.want(5.0)) == (False, 5.0, 1)


def test_what_was_reserved_is_taken_once() -> None:
    allowance = granted(2)
    assert [allowance.take(0.0), allowance.take(0.5), allowance.take(0.5)] == [True, True, False]


def test_what_is_not_used_within_a_second_is_lost() -> None:
    allowance = granted(2, now=10.0)
    assert [allowance.take(10.75), allowance.take(11.0)] == [True, False]


def test_more_is_reserved_when_it_did_not_last_a_second_and_less_when_it_did() -> None:
    allowance, wants = Allowance(calls_max=6), []
    for now in (0.0, 0.25, 0.5, 0.75, 5.0, 10.0, 15.0, 20.0):
        wants.append(allowance.want(now))
        allowance.granted(now, 1, 0.0)
        if now < 1.0:
            assert allowance.take(now)
    assert wants == [1, 2, 4, 6, 3, 1, 1, 1]


def test_when_there_is_nothing_to_reserve_it_is_asked_again_after_the_wait() -> None:
    allowance = granted(0, now=10.0, wait_seconds=0.5)
    assert (allowance.take(10.25), allowance.next_at(10.25), allowance.next_at(11.0)) == (False, 10.5, 11.0)


def test_a_block_drops_what_is_left_and_is_never_shortened() -> None:
    allowance = granted(5)
    allowance.block(60.0)
    allowance.block(30.0)
    assert (allowance.take(0.5), allowance.next_at(0.5)) == (False, 60.0)


def test_an_answer_that_was_under_way_when_a_block_came_does_not_shorten_it() -> None:
    allowance = Allowance()
    allowance.block(60.0)
    allowance.granted(1.0, 0, wait_seconds=0.5)
    assert allowance.next_at(1.0) == 60.0
    allowance.granted(1.0, 5, wait_seconds=0.0)
    assert (allowance.take(1.0), allowance.next_at(1.0)) == (False, 60.0)


class Bucket:
    """The budget in the database: it empties at `rate`, and `burst` calls stand in it at most."""

    def __init__(self, rate: int, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self.used, self.at = 0.0, 0.0

    def reserve(self, now: float, calls: int) -> tuple[int, float]:
        self.used, self.at = max(0.0, self.used - self.rate * (now - self.at)), now
        given = max(0, min(calls, int(self.burst - self.used)))
        self.used += given
        return given, max(0.0, (self.used + 1 - self.burst) / self.rate)


class SharedLimitMachine(RuleBasedStateMachine):
    """Several processes and one bucket; what the marketplace sees is a list of the times of all calls."""

    @initialize(processes=st.integers(1, 4), rate=st.integers(1, 20), burst=st.integers(1, 20))
    def make(self, processes: int, rate: int, burst: int) -> None:
        self.bucket = Bucket(rate, burst)
        self.processes = [Allowance() for _ in range(processes)]
        self.now = 0.0
        self.calls: list[float] = []
        self.blocked_until = 0.0

    # Sums of these are exact.
    @rule(ticks=st.integers(1, 96))
    def time_passes(self, ticks: int) -> None:
        self.now += ticks / 64

    @rule(which=st.integers(0, 3), tries=st.integers(1, 30))
    def call(self, which: int, tries: int) -> None:
        allowance = self.processes[which % len(self.processes)]
        for _ in range(tries):
            if not allowance.take(self.now):
                if allowance.next_at(self.now) > self.now:
                    return
                allowance.granted(self.now, *self.bucket.reserve(self.now, allowance.want(self.now)))
                if not allowance.take(self.now):
                    return
            self.calls.append(self.now)
            assert self.now >= self.blocked_until or which % len(self.processes) != 0

    @rule(ticks=st.integers(0, 128))
    def the_first_is_told_to_wait(self, ticks: int) -> None:
        until = self.now + ticks / 64
        self.blocked_until = max(self.blocked_until, until)
        self.processes[0].block(until)

    @invariant()
    def no_window_of_calls_is_above_the_bound(self) -> None:
        for count, first in enumerate(reversed(self.calls), start=1):
            assert count <= self.bucket.burst + self.bucket.rate * (self.calls[-1] - first + 1)

    @invariant()
    def nobody_waits_longer_than_the_bucket_needs_for_a_call_or_than_the_block(self) -> None:
        for allowance in self.processes:
            assert allowance.next_at(self.now) <= max(self.now + 1 / self.bucket.rate, self.blocked_until)


@given(ticks=st.lists(st.integers(0, 64), min_size=1, max_size=12), rate=st.integers(1, 20), burst=st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_what_many_reserved_one_after_another_is_within_the_bound_when_all_is_used_at_once(
    ticks: list[int], rate: int, burst: int
) -> None:
    bucket, now, processes = Bucket(rate, burst), 0.0, list[Allowance]()
    for tick in ticks:
        now += tick / 64
        processes.append(Allowance())
        processes[-1].granted(now, *bucket.reserve(now, 1000))
    calls = 0
    for allowance in processes:
        while allowance.take(now):
            calls += 1
    assert calls <= burst + rate


TestSharedLimitMachine = SharedLimitMachine.TestCase
TestSharedLimitMachine.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)


# --- filled from the database ---


class CountingStorage:
    """A budget in memory, which counts what it is asked."""

    def __init__(self, clock: ManualClock, *, limited: bool = True, rate: int = 4, burst: int = 8) -> None:
        self.clock = clock
        self.limited = limited
        self.bucket = Bucket(rate, burst)
        self.reserved: list[int] = []
        self.blocked: list[tuple[int, float]] = []
        self.away = False

    async def reserve(self, channel_app_id: int, calls: int) -> Grant:
        assert channel_app_id == APP
        self.reserved.append(calls)
        if self.away:
            raise Unavailable("away")
        given, wait_seconds = self.bucket.reserve(self.clock.monotonic(), calls) if self.limited else (0, 0.0)
        await asyncio.sleep(0)
        return Grant(given, wait_seconds, self.limited)

    async def block(self, channel_app_id: int, seconds: float) -> None:
        if self.away:
            raise Unavailable("away")
        self.blocked.append((channel_app_id, seconds))


def budgets_of(storage: CountingStorage) -> Budgets:
    return Budgets(cast(Storage, storage), storage.clock, recheck_seconds=15.0)


async def test_a_store_without_an_application_has_no_budget() -> None:
    storage = CountingStorage(ManualClock())
    assert [await budgets_of(storage).take(None) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert storage.reserved == []


async def test_calls_are_reserved_more_at_a_time_the_more_are_made() -> None:
    storage = CountingStorage(ManualClock(), burst=100)
    budgets = budgets_of(storage)
    assert [await budgets.take(APP) for _ in range(31)] == [0.0] * 31
    assert storage.reserved == [1, 2, 4, 8, 16]


async def test_an_empty_budget_says_how_long_to_wait_and_is_not_asked_before() -> None:
    storage = CountingStorage(ManualClock(), rate=4, burst=1)
    budgets = budgets_of(storage)
    assert [await budgets.take(APP) for _ in range(3)] == [0.0, 0.25, 0.25]
    assert len(storage.reserved) == 2
    storage.clock.advance(0.25)
    assert await budgets.take(APP) == 0.0
    assert len(storage.reserved) == 3


async def test_many_who_ask_at_once_ask_the_database_one_after_the_other() -> None:
    storage = CountingStorage(ManualClock(), rate=4, burst=3)
    budgets = budgets_of(storage)
    assert sorted(await asyncio.gather(*(budgets.take(APP) for _ in range(10)))) == [0.0] * 3 + [0.25] * 7
    assert storage.reserved == [1, 2, 4]


async def test_an_application_without_a_budget_is_asked_about_again_only_now_and_then() -> None:
    storage = CountingStorage(ManualClock(), limited=False)
    budgets = budgets_of(storage)
    for _ in range(5):
        assert await budgets.take(APP) == 0.0
    assert storage.reserved == [1]
    storage.clock.advance(15.0)
    storage.limited = True
    assert await budgets.take(APP) == 0.0
    assert len(storage.reserved) == 2


@pytest.mark.parametrize("limited", [True, False])
async def test_a_blocked_application_waits_here_and_elsewhere(limited: bool) -> None:
    storage = CountingStorage(ManualClock(), limited=limited)
    budgets = budgets_of(storage)
    assert await budgets.take(APP) == 0.0
    await budgets.block(APP, 30.0)
    assert await budgets.take(APP) == 30.0
    assert (storage.blocked, len(storage.reserved)) == ([(APP, 30.0)], 1)
    storage.clock.advance(30.0)
    assert await budgets.take(APP) == 0.0


async def test_a_block_holds_here_also_when_the_others_cannot_be_told() -> None:
    storage = CountingStorage(ManualClock())
    budgets = budgets_of(storage)
    storage.away = True
    with pytest.raises(Unavailable):
        await budgets.block(APP, 30.0)
    assert await budgets.take(APP) == 30.0


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("burst", [0, 8])
async def test_a_block_that_comes_while_the_database_is_asked_holds(limited: bool, burst: int) -> None:
    storage = CountingStorage(ManualClock(), limited=limited, burst=burst)
    budgets = budgets_of(storage)
    asking = asyncio.create_task(budgets.take(APP))
    await asyncio.sleep(0)
    await budgets.block(APP, 30.0)
    assert await asking == 30.0
    assert await budgets.take(APP) == 30.0
    storage.clock.advance(29.0)
    assert await budgets.take(APP) == 1.0


async def test_while_the_database_is_away_nothing_is_given_and_nothing_is_broken() -> None:
    storage = CountingStorage(ManualClock())
    budgets = budgets_of(storage)
    storage.away = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await budgets.take(APP)
    storage.away = False
    assert await budgets.take(APP) == 0.0
