"""Fair shares of the stores, against workers that take and give back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lumbung.dispatch.share import excess, room, share


@pytest.mark.parametrize(
    ("with_work", "live", "expected"), [(14, 3, 5), (15, 3, 5), (16, 3, 6), (0, 3, 0), (2, 5, 1), (7, 0, 7), (7, 1, 7)]
)
def test_a_share_is_rounded_up(with_work: int, live: int, expected: int) -> None:
    assert share(with_work=with_work, live=live) == expected


def test_room_is_what_is_missing_from_the_share_within_what_a_process_may_hold() -> None:
    assert room(held=2, with_work=14, active=2, live=3, held_max=100) == 3
    assert room(held=9, with_work=14, active=2, live=3, held_max=100) == 3
    assert room(held=9, with_work=14, active=2, live=3, held_max=10) == 1
    assert room(held=12, with_work=14, active=2, live=3, held_max=10) == 0
    assert room(held=6, with_work=14, active=6, live=3, held_max=100) == 0


def test_orphans_are_shared_by_those_who_are_left_although_the_lost_still_count_among_the_live() -> None:
    assert room(held=7, with_work=20, active=7, live=3, held_max=100, orphans=6, lost=1) == 3
    assert room(held=7, with_work=20, active=7, live=3, held_max=100, orphans=7, lost=1) == 4
    assert room(held=7, with_work=20, active=7, live=3, held_max=9, orphans=6, lost=1) == 2
    assert room(held=7, with_work=20, active=7, live=2, held_max=100, orphans=1, lost=2) == 3
    assert room(held=0, with_work=20, active=0, live=3, held_max=100, orphans=6, lost=1) == 7


def test_the_excess_is_given_back_a_part_at_a_time_but_at_least_one() -> None:
    assert excess(with_work=100, active=100, live=2, percent=10.0) == 10
    assert excess(with_work=100, active=53, live=2, percent=10.0) == 3
    assert excess(with_work=10, active=7, live=2, percent=10.0) == 1
    assert excess(with_work=10, active=5, live=2, percent=10.0) == 0
    assert excess(with_work=10, active=7, live=2, percent=0.0) == 1


@given(with_work=st.integers(0, 1000), live=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_the_shares_of_all_cover_all_and_no_share_could_be_smaller(with_work: int, live: int) -> None:
    mine = share(with_work=with_work, live=live)
    assert mine * live >= with_work
    assert mine == 0 or (mine - 1) * live < with_work


@given(
    held=st.integers(0, 100),
    with_work=st.integers(0, 100),
    active=st.integers(0, 100),
    live=st.integers(0, 9),
    held_max=st.integers(0, 100),
    percent=st.floats(0, 100),
)
@settings(max_examples=200, deadline=None)
def test_nobody_takes_and_gives_back_at_once_nor_below_nothing(
    held: int, with_work: int, active: int, live: int, held_max: int, percent: float
) -> None:
    more = room(held=held, with_work=with_work, active=active, live=live, held_max=held_max)
    less = excess(with_work=with_work, active=active, live=live, percent=percent)
    assert more >= 0
    assert less >= 0
    assert more == 0 or less == 0
    assert active - less >= 0
    assert active - less >= share(with_work=with_work, live=live) or less == 0
    assert held + more <= max(held, held_max)


class SharingMachine(RuleBasedStateMachine):
    """Workers that exchange stores. The model is one dictionary: who holds which store; all stores have work."""

    @initialize(stores=st.integers(0, 60), workers=st.integers(1, 6))
    def make(self, stores: int, workers: int) -> None:
        self.stores = stores
        self.workers = list(range(workers))
        self.named = workers
        self.holder: dict[int, int] = {}

    def held(self, worker: int) -> list[int]:
        return [store for store, holder in self.holder.items() if holder == worker]

    @rule()
    def a_worker_comes(self) -> None:
        if len(self.workers) < 8:
            self.workers.append(self.named)
            self.named += 1

    @rule(data=st.data())
    def a_worker_goes(self, data: st.DataObject) -> None:
        if len(self.workers) > 1:
            gone = data.draw(st.sampled_from(self.workers))
            self.workers.remove(gone)
            self.holder = {store: worker for store, worker in self.holder.items() if worker != gone}

    @rule(more=st.integers(-20, 20))
    def work_comes_and_goes(self, more: int) -> None:
        self.stores = max(0, min(60, self.stores + more))
        self.holder = {store: worker for store, worker in self.holder.items() if store < self.stores}

    @rule(data=st.data())
    def one_looks_and_renews(self, data: st.DataObject) -> None:
        self.look_and_renew(data.draw(st.sampled_from(self.workers)))

    def look_and_renew(self, worker: int) -> int:
        """Returns how many stores changed hands."""
        mine, live = self.held(worker), len(self.workers)
        back = mine[: excess(with_work=self.stores, active=len(mine), live=live, percent=10.0)]
        for store in back:
            del self.holder[store]
        mine = self.held(worker)
        free = [store for store in range(self.stores) if store not in self.holder]
        most = room(held=len(mine), with_work=self.stores, active=len(mine), live=live, held_max=1000)
        for store in free[:most]:
            self.holder[store] = worker
        return len(back) + len(free[:most])

    @rule()
    def left_alone_they_come_to_rest_with_all_served_and_none_above_its_share(self) -> None:
        rounds = 0
        while sum(self.look_and_renew(worker) for worker in self.workers):
            rounds += 1
            assert rounds <= 60, "at least one a round, of 60 stores"
        assert len(self.holder) == self.stores
        fair = -(-self.stores // len(self.workers))
        assert max(len(self.held(worker)) for worker in self.workers) <= fair

    @invariant()
    def nobody_holds_what_another_holds(self) -> None:
        assert sum(len(self.held(worker)) for worker in self.workers) == len(self.holder) <= self.stores


TestSharingMachine = SharingMachine.TestCase
TestSharingMachine.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)
