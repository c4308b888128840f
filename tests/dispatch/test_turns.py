"""Who is next, and who may make a call."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.dispatch.permits import Permits
from lumbung.dispatch.turns import Turns

TENANTS = st.integers(1, 4)


def test_tenants_take_turns_then_their_stores() -> None:
    turns = Turns[str]()
    for tenant_id, who in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")]:
        turns.join(tenant_id, who)
    assert [turns.next() for _ in range(7)] == ["a1", "b1", "c1", "a2", "b2", "a3", None]


def test_a_tenant_that_comes_back_stands_behind_the_others() -> None:
    turns = Turns[str]()
    turns.join(1, "a1")
    turns.join(2, "b1")
    assert turns.next() == "a1"
    turns.join(1, "a2")
    assert [turns.next(), turns.next()] == ["b1", "a2"]


def test_who_leaves_is_passed_over_and_leaving_twice_is_nothing() -> None:
    turns = Turns[str]()
    turns.join(1, "a1")
    turns.join(2, "b1")
    turns.leave(1, "a1")
    turns.leave(1, "a1")
    turns.leave(9, "x")
    assert (len(turns), turns.next(), turns.next()) == (1, "b1", None)


class TurnsMachine(RuleBasedStateMachine):
    """The model is a list of those who wait in the order in which they came, and when each tenant was last put at the
    end of the row: when it was served, or when it came with nobody else of it waiting."""

    @initialize()
    def make(self) -> None:
        self.turns = Turns[int]()
        self.waiting: list[tuple[int, int]] = []
        self.since: dict[int, int] = {}
        self.now = 0

    def tick(self) -> int:
        self.now += 1
        return self.now

    @rule(tenant=TENANTS)
    def join(self, tenant: int) -> None:
        who = self.tick()
        if tenant not in {other for other, _ in self.waiting}:
            self.since[tenant] = who
        self.waiting.append((tenant, who))
        self.turns.join(tenant, who)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        tenant, who = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove((tenant, who))
        self.turns.leave(tenant, who)

    @rule(tenant=TENANTS)
    def leave_without_waiting(self, tenant: int) -> None:
        self.turns.leave(tenant, -1)

    @rule()
    def serve(self) -> None:
        served = self.turns.next()
        if not self.waiting:
            assert served is None
            return
        tenant = min({tenant for tenant, _ in self.waiting}, key=lambda tenant: self.since[tenant])
        first = next(who for other, who in self.waiting if other == tenant)
        assert served == first
        self.waiting.remove((tenant, first))
        self.since[tenant] = self.tick()

    @invariant()
    def it_knows_how_many_wait(self) -> None:
        assert len(self.turns) == len(self.waiting)


TestTurnsMachine = TurnsMachine.TestCase
TestTurnsMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(stores=st.lists(st.integers(1, 30), min_size=2, max_size=5))
@settings(max_examples=40, deadline=None)
def test_a_tenant_with_many_stores_waits_for_its_own_and_others_not_for_it(stores: list[int]) -> None:
    turns = Turns[tuple[int, int]]()
    for tenant, count in enumerate(stores):
        for store in range(count):
            turns.join(tenant, (tenant, store))
    order = [served for _ in range(sum(stores)) if (served := turns.next()) is not None]
    assert order == sorted(order, key=lambda served: (served[1], served[0]))


# --- permits: the same with those who wait asleep ---


class Callers:
    """Tasks that want a place and keep it until they are told to go."""

    def __init__(self, limit: int) -> None:
        self.permits = Permits(limit)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.inside: list[str] = []
        self.served: list[str] = []

    async def come(self, tenant_id: int, name: str) -> None:
        async def call() -> None:
            await self.permits.acquire(tenant_id)
            self.inside.append(name)
            self.served.append(name)

        self.tasks[name] = asyncio.create_task(call())
        await settle()

    async def go(self, name: str) -> None:
        self.inside.remove(name)
        self.permits.release()
        await settle()

    async def give_up(self, name: str) -> None:
        self.tasks[name].cancel()
        await settle()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_the_limit_are_out_and_tenants_are_served_in_turn() -> None:
    callers = Callers(2)
    for tenant_id, name in [(1, "a1"), (1, "a2"), (1, "a3"), (1, "a4"), (2, "b1")]:
        await callers.come(tenant_id, name)
    assert (callers.inside, callers.permits.in_flight) == (["a1", "a2"], 2)
    for name in ("a1", "a2", "a3"):
        await callers.go(name)
    assert callers.served == ["a1", "a2", "a3", "b1", "a4"]
    assert callers.permits.in_flight == 2
    await callers.go("b1")
    await callers.go("a4")
    assert callers.permits.in_flight == 0


async def test_who_comes_while_others_wait_does_not_overtake_them() -> None:
    callers = Callers(1)
    await callers.come(1, "a1")
    await callers.come(1, "a2")
    callers.inside.remove("a1")
    callers.permits.release()  # a2 has been given the place but has not run yet
    await callers.come(1, "a3")
    assert (callers.inside, callers.permits.in_flight) == (["a2"], 1)


async def test_a_place_given_to_one_who_leaves_at_that_moment_goes_to_the_next() -> None:
    callers = Callers(1)
    for name in ("a1", "a2", "a3"):
        await callers.come(1, name)
    callers.inside.remove("a1")
    callers.permits.release()
    await callers.give_up("a2")
    assert (callers.inside, callers.tasks["a2"].cancelled(), callers.permits.in_flight) == (["a3"], True, 1)


async def test_a_place_freed_while_the_first_is_leaving_goes_to_the_next() -> None:
    callers = Callers(1)
    for name in ("a1", "a2", "a3"):
        await callers.come(1, name)
    callers.tasks["a2"].cancel()  # it has not run yet: it still stands in its queue
    await callers.go("a1")
    assert (callers.inside, callers.permits.in_flight) == (["a3"], 1)


async def test_when_all_who_waited_have_left_the_place_is_free_at_once() -> None:
    callers = Callers(1)
    for name in ("a1", "a2"):
        await callers.come(1, name)
    await callers.give_up("a2")
    await callers.go("a1")
    assert callers.permits.in_flight == 0
    await callers.come(2, "b1")
    assert callers.inside == ["b1"]


steps = st.lists(st.tuples(st.sampled_from(["come", "come", "go", "give up"]), TENANTS, st.integers(0, 9)), max_size=40)


@given(limit=st.integers(1, 3), steps=steps)
@settings(max_examples=80, deadline=None)
def test_whoever_comes_goes_and_gives_up_places_are_neither_lost_nor_made(
    limit: int, steps: list[tuple[str, int, int]]
) -> None:
    """Against two lists: those inside, and those who wait."""

    async def play() -> None:
        callers, inside, waiting = Callers(limit), list[str](), list[str]()
        for number, (what, tenant, which) in enumerate(steps):
            if what == "come":
                await callers.come(tenant, name := f"{number} of {tenant}")
                (inside if len(inside) < limit else waiting).append(name)
            elif what == "go" and inside:
                await callers.go(gone := inside[which % len(inside)])
                inside.remove(gone)
                entered = [name for name in callers.inside if name not in inside]
                assert len(entered) == min(1, len(waiting))
                for name in entered:
                    tenant_of = name.split(" of ")[1]
                    assert name == next(other for other in waiting if other.endswith(f" of {tenant_of}"))
                    waiting.remove(name)
                    inside.append(name)
            elif what == "give up" and waiting:
                await callers.give_up(left := waiting[which % len(waiting)])
                waiting.remove(left)
            assert callers.inside == inside
            assert callers.permits.in_flight == len(inside) <= limit
        for name in list(waiting):
            await callers.give_up(name)

    asyncio.run(play())
