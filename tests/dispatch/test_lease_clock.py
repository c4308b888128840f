"""The holder's view of its lease, against a database whose clock and answers are played."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.dispatch.lease_clock import LeaseClock, lifetime_seconds

LIFETIME = 16.0
WAIT_MAX = 64.0
# Powers of two apart, so that sums of them are exact.
moments = st.integers(0, 20 * 64).map(lambda n: n / 64)


def test_a_lease_that_was_never_renewed_does_not_hold() -> None:
    clock = LeaseClock()
    assert (clock.valid(0.0, 15.0), clock.left(0.0, 15.0), clock.may_start(0.0, 0.0, 15.0)) == (False, 0.0, False)


def test_a_lease_counts_from_when_its_renewal_was_asked_for() -> None:
    clock = LeaseClock()
    clock.renewed(asked_at=100.0)
    assert [clock.left(now, 15.0) for now in (100.0, 114.5, 115.0, 116.0)] == [15.0, 0.5, 0.0, 0.0]
    assert [clock.valid(now, 15.0) for now in (114.5, 115.0)] == [True, False]


def test_a_call_starts_only_when_it_ends_while_the_lease_holds() -> None:
    clock = LeaseClock()
    clock.renewed(asked_at=100.0)
    assert [clock.may_start(now, 5.0, 15.0) for now in (109.5, 110.0, 110.5)] == [True, False, False]


def test_leases_of_other_lifetimes_end_at_other_times() -> None:
    clock = LeaseClock()
    clock.renewed(asked_at=100.0)
    assert [clock.valid(120.0, lifetime) for lifetime in (15.0, 44.0)] == [False, True]


def test_an_older_renewal_does_not_shorten_a_lease() -> None:
    clock = LeaseClock()
    clock.renewed(asked_at=100.0)
    clock.renewed(asked_at=90.0)
    assert clock.left(100.0, 15.0) == 15.0


def test_a_lost_registration_ends_every_lease_at_once_until_there_is_a_new_one() -> None:
    clock = LeaseClock()
    clock.renewed(asked_at=100.0)
    clock.lost()
    assert not clock.valid(100.0, 15.0)
    clock.renewed(asked_at=101.0)
    assert clock.left(101.0, 15.0) == 15.0


@pytest.mark.parametrize(("call_timeout", "lifetime"), [(5.0, 15.0), (20.0, 44.0), (0.0, 15.0)])
def test_a_lifetime_is_long_enough_for_a_call_and_a_renewal_during_it(call_timeout: float, lifetime: float) -> None:
    assert lifetime_seconds(15.0, call_timeout) == lifetime


class Database:
    """A worker row and one lease: `now` is its own clock, which may jump."""

    def __init__(self) -> None:
        self.now = 0.0
        self.renewed_at = 0.0
        self.holder = "us"

    def gives_away(self) -> bool:
        """Expired means past, or further ahead than one lifetime."""
        return self.renewed_at + LIFETIME < self.now or self.renewed_at > self.now + LIFETIME

    def claim_for_another(self) -> None:
        if self.holder == "us" and self.gives_away():
            self.holder = "another"


class LeaseMachine(RuleBasedStateMachine):
    """A renewal is asked for, written at some time and answered at some later time, or its answer is lost."""

    @initialize(offset=st.integers(-1000, 1000))
    def register(self, offset: int) -> None:
        self.offset = float(offset)  # between the monotonic clock and the database's
        self.database = Database()
        self.clock = LeaseClock()
        self.clock.renewed(self.monotonic())
        self.told = "us"
        self.asked_at: float | None = None
        self.written: str | None = None

    def monotonic(self) -> float:
        return self.database.now + self.offset

    def believes(self) -> bool:
        return self.clock.valid(self.monotonic(), LIFETIME) and self.told == "us"

    @rule(seconds=moments)
    def time_passes(self, seconds: float) -> None:
        self.database.now += seconds

    @precondition(lambda self: self.asked_at is None)
    @rule()
    def ask_to_renew(self) -> None:
        self.asked_at, self.written = self.monotonic(), None

    @precondition(lambda self: self.asked_at is not None and self.written is None)
    @rule()
    def the_database_writes(self) -> None:
        self.database.renewed_at = self.database.now
        self.written = self.database.holder  # `held` tells who holds the lease by now

    @precondition(lambda self: self.written is not None)
    @rule()
    def the_answer_comes(self) -> None:
        assert self.asked_at is not None
        assert self.written is not None
        self.clock.renewed(self.asked_at)
        self.told = self.written
        self.asked_at = self.written = None

    @precondition(lambda self: self.asked_at is not None)
    @rule()
    def the_answer_is_lost(self) -> None:
        self.asked_at = self.written = None

    @rule()
    def another_looks_for_work(self) -> None:
        self.database.claim_for_another()

    @invariant()
    def it_never_believes_in_a_lease_that_the_database_would_give_away(self) -> None:
        if self.believes():
            assert self.database.holder == "us"
            assert not self.database.gives_away()

    @invariant()
    def a_call_that_starts_now_ends_before_anybody_else_can_start_one(self) -> None:
        call_seconds = 4.0
        if self.clock.may_start(self.monotonic(), call_seconds, LIFETIME) and self.told == "us":
            assert self.database.renewed_at + LIFETIME > self.database.now + call_seconds


TestLeaseMachine = LeaseMachine.TestCase
TestLeaseMachine.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


class JumpingClockMachine(RuleBasedStateMachine):
    """The two rules by which a clock that jumps heals itself. Somebody looks every second; then nothing is held up for
    longer than twice the longest time that it may take, counted in real seconds after the last jump."""

    @initialize()
    def make(self) -> None:
        self.database = Database()
        self.wait_until: float | None = None
        self.quiet_seconds = 0  # since the clock jumped, or the lease or the wait was written

    @rule(seconds=st.integers(1, 150))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.look()
            self.database.now += 1
            self.quiet_seconds += 1
        self.look()

    def look(self) -> None:
        self.database.claim_for_another()
        now = self.database.now
        # Due means past, or further ahead than the longest wait.
        if self.wait_until is not None and not now < self.wait_until <= now + WAIT_MAX:
            self.wait_until = None

    @rule(seconds=st.integers(-200, 200))
    def the_clock_jumps(self, seconds: int) -> None:
        self.database.now += seconds
        self.quiet_seconds = 0

    @rule()
    def the_lease_is_ours_and_we_fall_silent(self) -> None:
        self.database.renewed_at, self.database.holder = self.database.now, "us"
        self.quiet_seconds = 0

    @rule(seconds=st.integers(0, int(WAIT_MAX)))
    def a_listing_is_to_wait(self, seconds: int) -> None:
        self.wait_until = self.database.now + seconds
        self.quiet_seconds = 0

    @invariant()
    def no_lease_outlives_its_holder_for_long(self) -> None:
        if self.quiet_seconds > 2 * LIFETIME:
            assert self.database.holder == "another"

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        if self.quiet_seconds > 2 * WAIT_MAX:
            assert self.wait_until is None


TestJumpingClockMachine = JumpingClockMachine.TestCase
TestJumpingClockMachine.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
