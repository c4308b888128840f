"""What a sender reads next, from a database in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lumbung.channels.base import Channel, Manifest, Pacing
from lumbung.clock import ManualClock
from lumbung.db.delivery import Due, Submitted
from lumbung.dispatch.batching import LANES, Bisection, Locks
from lumbung.dispatch.report import Lease
from lumbung.dispatch.rest import Rest
from lumbung.dispatch.storage import Storage
from lumbung.dispatch.window import Batch, Task, Window, WindowSizes
from lumbung.errors import Unavailable
from lumbung.model import DueFor

LEASE = Lease(store_id=1, tenant_id=1, epoch=1, channel="shpe", store_name="Toko")


class PlayedChannel:
    """Listings of one item share a call."""

    def __init__(self, *, batch_max: int = 4, read_max: int = 3, location_aware: bool = False) -> None:
        self.manifest = Manifest(
            code="shpe",
            name="Played",
            hosts=(),
            batch_max=batch_max,
            in_flight_max=2,
            pacing=Pacing(2.0, 1),
            credentials=(),
            call_timeout_seconds=5.0,
            quiesce_seconds=20.0,
            read_max=read_max,
            location_aware=location_aware,
        )

    def batch_key(self, remote_variant: str) -> str:
        return str(json.loads(remote_variant)["item"])

    def read_key(self, remote_variant: str) -> str:
        return ""


class Memory:
    """The due listings of one store."""

    def __init__(self) -> None:
        self.due: dict[int, Due] = {}
        self.windows = 0
        self.asked_now: list[list[int]] = []
        self.with_locations: set[bool] = set()
        self.away = False
        self.takes_seconds, self.clock = 0.0, ManualClock()

    def _answer(self) -> None:
        self.clock.advance(self.takes_seconds)
        if self.away:
            raise Unavailable("away")

    def add(self, listing_id: int, lane: int = 1, item: str = "x", due_for: DueFor = DueFor.PUSH) -> None:
        variant = json.dumps({"item": item})
        self.due[listing_id] = Due(listing_id, lane, 1, 5, attempts=0, remote_variant=variant, due_for=due_for)

    def add_submitted(self, listing_id: int, handle: str) -> None:
        """Each of an item of its own."""
        self.add(listing_id, item=str(listing_id), due_for=DueFor.ASK)
        self.due[listing_id] = replace(self.due[listing_id], submitted=Submitted(handle, 1, 5, 3.0))

    async def due_window(
        self, lease: Lease, *, cursors: Mapping[int, int], busy: Iterable[int], limit: int, with_locations: bool
    ) -> list[Due]:
        assert lease is LEASE
        self._answer()
        self.windows += 1
        self.with_locations.add(with_locations)
        busy, found = set(busy), []
        for lane, cursor in cursors.items():
            listings = (self.due[listing] for listing in sorted(self.due) if listing > cursor and listing not in busy)
            found += [listing for listing in listings if listing.lane == lane][:limit]
        return found

    async def due_now(self, lease: Lease, listing_ids: Sequence[int], *, with_locations: bool) -> list[Due]:
        self._answer()
        self.asked_now.append(list(listing_ids))
        return [self.due[listing] for listing in listing_ids if listing in self.due]


class Shelf:
    """A window with everything that it needs."""

    def __init__(
        self,
        *,
        listings_max: int = 200,
        reads_back: bool = True,
        channel: PlayedChannel | None = None,
        hinted_max: int = 1000,
        calls_per_second: float = 2.0,
    ) -> None:
        self.memory, self.clock, self.bisection, self.locks = Memory(), ManualClock(), Bisection(), Locks()
        self.window = Window(
            LEASE,
            cast(Channel, channel or PlayedChannel()),
            cast(Storage, self.memory),
            self.clock,
            WindowSizes(listings_max, calls_per_second, fresh_seconds=0.02, untold_seconds=0.2, hinted_max=hinted_max),
            self.bisection,
            self.locks,
            Rest(20.0, 5.0),
            reads_back=reads_back,
        )

    async def take(self) -> list[int] | None:
        """By a scan if need be."""
        self.window.look()
        return await self.take_hinted()

    async def take_hinted(self) -> list[int] | None:
        batch = await self.window.next()
        return None if batch is None else ids(batch)

    async def take_all(self) -> list[list[int]]:
        """All batches of one window."""
        taken = [await self.take()]
        while self.window:
            taken.append(await self.take())
        return [batch for batch in taken if batch is not None]


def ids(batch: Batch) -> list[int]:
    return [listing.listing_id for listing in batch.listings]


async def test_when_nothing_is_due_there_is_no_batch() -> None:
    shelf = Shelf()
    assert (await shelf.take(), bool(shelf.window), shelf.memory.windows) == (None, False, 1)


async def test_what_is_locked_shares_no_call_with_what_is_not() -> None:
    shelf = Shelf()
    for listing in range(1, 5):
        shelf.memory.add(listing)
    for listing in (2, 3):
        shelf.locks.locked(listing)
    assert await shelf.take_all() == [[1, 4], [2, 3]]


async def test_listings_of_one_item_share_a_call_up_to_what_a_call_takes() -> None:
    shelf = Shelf()
    for listing in range(1, 7):
        shelf.memory.add(listing)
    shelf.memory.add(7, item="y")
    assert await shelf.take_all() == [[1, 2, 3, 4], [5, 6], [7]]
    assert shelf.memory.windows == 1


async def test_about_a_seconds_worth_is_read_at_once() -> None:
    shelf = Shelf()  # 2 calls a second of 4 listings
    for listing in range(1, 21):
        shelf.memory.add(listing)
    assert await shelf.take_all() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert await shelf.take_all() == [[9, 10, 11, 12], [13, 14, 15, 16]]


async def test_no_more_is_read_at_once_than_is_set() -> None:
    shelf = Shelf(listings_max=3)
    for listing in range(1, 6):
        shelf.memory.add(listing)
    assert [await shelf.take_all() for _ in range(2)] == [[[1, 2, 3]], [[4, 5]]]


async def test_at_the_end_it_goes_round_once() -> None:
    shelf = Shelf()
    shelf.memory.add(5)
    assert [await shelf.take(), await shelf.take()] == [[5], [5]]
    assert shelf.memory.windows == 3
    del shelf.memory.due[5]
    assert await shelf.take() is None
    assert shelf.memory.windows == 5


async def test_a_lane_goes_round_by_itself_however_much_there_is_in_the_others() -> None:
    shelf = Shelf(listings_max=4)
    shelf.memory.add(50)
    for listing in range(100, 200):
        shelf.memory.add(listing, lane=2)
    assert await shelf.take_all() == [[50, 100, 101, 102]]
    shelf.memory.add(3)  # behind the cursor of its lane
    assert await shelf.take_all() == [[103, 104, 105, 106]]
    assert await shelf.take_all() == [[3, 50, 107, 108]]


async def test_what_is_gone_goes_before_what_is_there_and_retries_have_their_share() -> None:
    shelf = Shelf()
    for listing in range(1, 9):
        shelf.memory.add(listing, lane=2)
        shelf.memory.add(listing + 100, lane=4)
    batches = await shelf.take_all()
    assert batches == [[101, 102, 1, 2], [3, 4, 5, 6]]


async def test_a_busy_listing_is_not_read_nor_returned() -> None:
    shelf = Shelf()
    for listing in (1, 2, 3):
        shelf.memory.add(listing)
    shelf.window.busy |= {1}
    await shelf.window.fill()
    shelf.window.busy |= {3}
    assert await shelf.take() == [2]
    shelf.window.busy |= {2}
    assert await shelf.take() is None


async def test_what_could_not_be_sent_is_the_next_again() -> None:
    shelf = Shelf()
    shelf.memory.add(1)
    shelf.memory.add(2, item="y")
    first = await shelf.window.next()
    assert first is not None
    shelf.window.put_back(first)
    assert [await shelf.take(), await shelf.take()] == [[1], [2]]


@pytest.mark.parametrize(
    ("told", "seconds"), [(None, 0.201), ("hint", 0.021), ("another", 0.201), ("look", 0.021), ("forgotten", 0.021)]
)
async def test_what_was_read_too_long_ago_is_read_again_so_that_the_newest_goes_out(
    told: str | None, seconds: float
) -> None:
    shelf = Shelf(hinted_max=1)
    for listing in (1, 2, 3):
        shelf.memory.add(listing)
    await shelf.window.fill()
    shelf.memory.due[1] = replace(shelf.memory.due[1], version=9, quantity=0)
    del shelf.memory.due[2]
    shelf.clock.advance(seconds / 2)
    match told:
        case "hint":
            shelf.window.hint({3: 1})
        case "another":
            shelf.window.hint({4: 1})
        case "look":
            shelf.window.look()
        case "forgotten":
            shelf.window.hint({4: 1, 5: 1})
        case _:
            pass
    shelf.clock.advance(seconds / 2)
    batch = await shelf.window.next()
    assert batch is not None
    assert [(listing.listing_id, listing.version, listing.quantity) for listing in batch.listings] == [
        (1, 9, 0),
        (3, 1, 5),
    ]
    assert batch.read_at == pytest.approx(seconds)
    assert shelf.memory.asked_now == [[1, 2, 3]]


@pytest.mark.parametrize(("told", "seconds"), [(None, 0.2), ("hint", 0.02), ("look", 0.02), ("another", 0.2)])
async def test_what_was_read_just_now_is_not_read_again(told: str | None, seconds: float) -> None:
    shelf = Shelf()
    shelf.memory.add(1)
    await shelf.window.fill()
    match told:
        case "hint":
            shelf.window.hint({1: 1})
        case "look":
            shelf.window.look()
        case "another":
            shelf.window.hint({4: 1})
        case _:
            pass
    shelf.clock.advance(seconds)
    assert (await shelf.take_hinted(), shelf.memory.asked_now) == ([1], [])


async def test_those_that_are_sent_before_they_are_too_old_are_read_again_together() -> None:
    shelf = Shelf(calls_per_second=100.0)
    for listing in range(1, 41):
        shelf.memory.add(listing, item=str(listing))
    await shelf.window.fill()
    for sent_in_time in (2, 4, 8, 3, 3):
        shelf.clock.advance(0.21)
        for _ in range(sent_in_time):
            await shelf.take_hinted()
    assert [len(asked) for asked in shelf.memory.asked_now] == [2, 4, 8, 16, 3]
    assert shelf.memory.asked_now[0] == [1, 2]
    assert shelf.memory.windows == 1


async def test_a_listing_that_is_due_for_something_else_by_now_waits_for_the_next_window() -> None:
    shelf = Shelf()
    shelf.memory.add(1)
    shelf.memory.add(2)
    await shelf.window.fill()
    shelf.memory.add(1, due_for=DueFor.CONFIRM)
    shelf.clock.advance(1.0)
    assert await shelf.take() == [2]
    batch = await shelf.window.next()
    assert batch is not None
    assert (batch.task, ids(batch)) == (Task.READ, [1])


@pytest.mark.parametrize(
    ("due_for", "reads_back", "task"),
    [
        (DueFor.PUSH, True, Task.PUSH),
        (DueFor.CONFIRM, True, Task.READ),
        (DueFor.CONFIRM, False, Task.PUSH),
        (DueFor.RECONCILE, True, Task.READ),
        (DueFor.RECONCILE, False, Task.READ),
        (DueFor.OBSERVE, False, Task.READ),
    ],
)
async def test_what_is_due_is_pushed_or_read(due_for: DueFor, reads_back: bool, task: Task) -> None:
    shelf = Shelf(reads_back=reads_back)
    shelf.memory.add(1, due_for=due_for)
    batch = await shelf.window.next()
    assert batch is not None
    assert batch.task is task


async def test_reading_back_takes_what_one_call_reads_whatever_their_items() -> None:
    shelf = Shelf(channel=PlayedChannel(read_max=3))
    for listing, item in enumerate("xyzxy", start=1):
        shelf.memory.add(listing, item=item, due_for=DueFor.RECONCILE)
    assert await shelf.take_all() == [[1, 2, 3], [4, 5]]


async def test_questions_about_one_handle_go_together() -> None:
    shelf = Shelf()
    for listing, handle in enumerate(["a", "b", "a", "b", "a"], start=1):
        shelf.memory.add_submitted(listing, handle)
    batches = [batch for _ in range(2) if (batch := await shelf.window.next())]
    assert [(batch.task, batch.handle, ids(batch)) for batch in batches] == [
        (Task.ASK, "a", [1, 3, 5]),
        (Task.ASK, "b", [2, 4]),
    ]


async def test_a_stale_question_whose_handle_has_changed_is_not_asked_with_the_old_one() -> None:
    shelf = Shelf()
    shelf.memory.add_submitted(1, "a")
    shelf.memory.add_submitted(2, "a")
    await shelf.window.fill()
    shelf.memory.add_submitted(1, "b")
    shelf.clock.advance(1.0)
    batch = await shelf.window.next()
    assert batch is not None
    assert (batch.handle, ids(batch)) == ("a", [2])


async def test_a_listing_that_may_be_to_blame_shares_smaller_calls() -> None:
    shelf = Shelf()
    for listing in range(1, 7):
        shelf.memory.add(listing)
    shelf.bisection.failed([1, 2, 3, 4])
    assert await shelf.take_all() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("location_aware", [True, False])
async def test_locations_are_read_where_the_channel_knows_them(location_aware: bool) -> None:
    shelf = Shelf(channel=PlayedChannel(location_aware=location_aware))
    shelf.memory.add(1)
    await shelf.take()
    assert shelf.memory.with_locations == {location_aware}


async def test_what_is_hinted_is_read_by_its_key_without_a_scan() -> None:
    shelf = await quiet_shelf()
    for listing in (1, 2, 3):
        shelf.memory.add(listing, lane=2)
    shelf.window.hint({2: 2, 3: 2, 4: 1})
    assert await shelf.take_hinted() == [2, 3]
    assert await shelf.take_hinted() is None
    assert (shelf.memory.asked_now, shelf.memory.windows) == ([[4, 2, 3]], 1)


async def test_what_is_hinted_and_gone_is_read_before_what_is_there_and_lanes_share_what_is_read_at_once() -> None:
    shelf = await quiet_shelf(listings_max=5)
    for listing in range(1, 21):
        shelf.memory.add(listing, lane=2 if listing <= 10 else 1)
    shelf.window.hint({listing: shelf.memory.due[listing].lane for listing in range(1, 21)})
    assert await shelf.take_hinted() == [11, 12, 13, 14]
    assert await shelf.take_hinted() == [1]
    assert shelf.memory.asked_now == [[11, 12, 13, 14, 1]]


async def test_a_retry_that_is_hinted_as_something_fresh_takes_its_place_among_the_retries() -> None:
    shelf = await quiet_shelf(listings_max=5)
    for listing in range(1, 11):
        shelf.memory.add(listing, lane=4 if listing <= 5 else 1)
    shelf.window.hint(dict.fromkeys(range(1, 11), 1))
    taken = [listing for _ in range(4) for listing in await shelf.take_hinted() or ()]
    assert taken == [6, 7, 8, 9, 1, 10, 2, 3, 4, 5]


async def test_a_listing_that_is_hinted_while_it_is_busy_is_read_when_it_is_free() -> None:
    shelf = await quiet_shelf()
    shelf.memory.add(1)
    shelf.window.busy |= {1}
    shelf.window.hint({1: 1})
    assert await shelf.take_hinted() is None
    shelf.window.busy -= {1}
    assert (await shelf.take_hinted(), shelf.memory.windows) == ([1], 1)


async def test_a_listing_that_a_scan_passes_over_because_it_is_busy_is_read_when_it_is_free() -> None:
    shelf = Shelf()
    shelf.memory.add(1)
    shelf.window.busy |= {1}
    assert await shelf.take() is None
    shelf.window.busy -= {1}
    assert (await shelf.take_hinted(), shelf.memory.windows, shelf.memory.asked_now) == ([1], 1, [[1]])


async def test_once_a_scan_has_been_all_round_and_found_nothing_there_is_none_until_it_is_called_for() -> None:
    shelf = await quiet_shelf()
    shelf.memory.add(1)
    assert (await shelf.take_hinted(), shelf.window.scan_after(0.0), shelf.memory.windows) == (None, None, 1)
    shelf.window.look()
    assert (shelf.window.scan_after(0.0), await shelf.take_hinted(), shelf.memory.windows) == (0.0, [1], 2)


async def test_a_scan_rests_for_a_multiple_of_what_the_last_one_took_while_hints_are_read() -> None:
    shelf = Shelf()
    shelf.memory.takes_seconds, shelf.memory.clock = 0.125, shelf.clock
    shelf.memory.add(1)
    assert await shelf.take() == [1]
    shelf.window.busy |= {1}
    shelf.memory.add(2)
    shelf.memory.add(3)
    shelf.window.hint({2: 1})
    assert (await shelf.take(), shelf.memory.windows) == ([2], 1)
    shelf.window.busy |= {2}
    assert (await shelf.take(), shelf.memory.windows) == (None, 1)
    assert shelf.window.scan_after(shelf.clock.monotonic()) == 2.375
    shelf.clock.advance(2.375)
    assert (await shelf.take(), shelf.memory.windows) == ([3], 2)


async def test_a_scan_that_has_rested_goes_before_what_is_hinted() -> None:
    shelf = Shelf()
    shelf.memory.add(1)
    shelf.memory.add(2)
    shelf.window.hint({2: 1})
    del shelf.memory.due[2]
    assert (await shelf.take(), shelf.memory.windows, shelf.memory.asked_now) == ([1], 1, [])


async def test_while_nothing_is_hinted_a_backlog_is_scanned_without_a_rest() -> None:
    shelf = Shelf(listings_max=2)
    shelf.memory.takes_seconds, shelf.memory.clock = 0.125, shelf.clock
    for listing in range(1, 7):
        shelf.memory.add(listing)
    assert [await shelf.take() for _ in range(3)] == [[1, 2], [3, 4], [5, 6]]
    assert (shelf.memory.windows, shelf.window.scan_after(0.375)) == (3, 0.0)


async def test_hints_that_are_forgotten_call_for_a_scan() -> None:
    shelf = await quiet_shelf(hinted_max=1)
    shelf.memory.add(1)
    shelf.memory.add(2)
    shelf.window.hint({1: 1, 2: 1})
    assert await shelf.take_hinted() == [1, 2]
    assert shelf.memory.windows == 2


@pytest.mark.parametrize("hinted", [True, False])
async def test_what_could_not_be_read_is_still_looked_for(hinted: bool) -> None:
    shelf = await quiet_shelf()
    shelf.memory.add(1)
    shelf.memory.away = True
    if hinted:
        shelf.window.hint({1: 1})
    else:
        shelf.window.look()
    with pytest.raises(Unavailable):
        await shelf.take_hinted()
    shelf.memory.away = False
    assert await shelf.take_hinted() == [1]


async def test_what_was_read_again_in_vain_is_still_looked_for() -> None:
    shelf = await quiet_shelf()
    shelf.memory.add(1)
    shelf.window.hint({1: 1})
    await shelf.window.fill()
    shelf.clock.advance(1.0)
    shelf.memory.away = True
    with pytest.raises(Unavailable):
        await shelf.take_hinted()
    shelf.memory.away = False
    assert (await shelf.take_hinted(), shelf.memory.windows) == ([1], 1)


async def quiet_shelf(*, listings_max: int = 200, hinted_max: int = 1000) -> Shelf:
    """Its first scan has found nothing."""
    shelf = Shelf(listings_max=listings_max, hinted_max=hinted_max)
    assert await shelf.take() is None
    return shelf


TOLD = st.one_of(st.none(), st.sampled_from(LANES))
"""As due in this lane, right or wrong; None: only that something is due."""


class WindowMachine(RuleBasedStateMachine):
    """A store whose listings come and go. The model is a list of what was returned, and the set of those in flight."""

    @initialize(batch_max=st.integers(1, 4), listings_max=st.integers(1, 20))
    def make(self, batch_max: int, listings_max: int) -> None:
        self.channel = PlayedChannel(batch_max=batch_max)
        self.shelf = Shelf(listings_max=listings_max, channel=self.channel, hinted_max=5)
        self.memory, self.window = self.shelf.memory, self.shelf.window
        self.in_flight: list[list[int]] = []
        self.named = 0

    @rule(lane=st.sampled_from(LANES), item=st.sampled_from("xy"), listings=st.integers(1, 15), told=TOLD)
    def some_become_due(self, lane: int, item: str, listings: int, told: int | None) -> None:
        for _ in range(listings):
            self.named += 1
            # Spread over the ids, so that some come behind the cursor.
            listing_id = self.named * 37 % 1009 + 1
            self.memory.add(listing_id, lane=lane, item=item)
            self.tell(listing_id, told)

    @rule(lane=st.sampled_from(LANES), data=st.data(), told=TOLD)
    def one_changes_its_lane(self, lane: int, data: st.DataObject, told: int | None) -> None:
        if self.memory.due:
            listing = self.memory.due[data.draw(st.sampled_from(sorted(self.memory.due)))]
            self.memory.due[listing.listing_id] = replace(listing, lane=lane, version=listing.version + 1)
            self.tell(listing.listing_id, told)

    def tell(self, listing_id: int, lane: int | None) -> None:
        if lane is None:
            self.window.look()
        else:
            self.window.hint({listing_id: lane})

    @rule(ms=st.integers(0, 60))
    def time_passes(self, ms: int) -> None:
        self.shelf.clock.advance(ms / 1000)

    @rule(put_back=st.booleans())
    def take(self, put_back: bool) -> None:
        batch = run(self.window.next())
        free = self.memory.due.keys() - self.window.busy
        if batch is None:
            assert free == set()
            return
        listings = ids(batch)
        assert len(listings) == len(set(listings)) <= self.channel.manifest.batch_max
        assert set(listings) <= self.memory.due.keys() - self.window.busy
        assert len({listing.remote_variant for listing in batch.listings}) == 1
        age = self.shelf.clock.monotonic() - batch.read_at
        newest = all(listing == self.memory.due[listing.listing_id] for listing in batch.listings)
        assert age <= 0.02 or (age <= 0.2 and newest)
        if put_back:
            self.window.put_back(batch)
        else:
            self.window.busy |= set(listings)
            self.in_flight.append(listings)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), delivered=st.booleans())
    def a_call_ends(self, data: st.DataObject, delivered: bool) -> None:
        listings = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.window.busy -= set(listings)
        if delivered:
            for listing in listings:
                self.memory.due.pop(listing, None)
        else:
            self.window.hint({listing: self.memory.due[listing].lane for listing in listings})

    @invariant()
    def no_listing_is_in_two_calls(self) -> None:
        assert max(Counter(listing for call in self.in_flight for listing in call).values(), default=0) <= 1


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(
    sizes=st.fixed_dictionaries({lane: st.integers(0, 25) for lane in LANES}),
    listings_max=st.integers(1, 8),
    gone=st.booleans(),
    before=st.integers(0, 40),
)
@settings(max_examples=60, deadline=None)
def test_every_due_listing_is_returned_within_two_rounds(
    sizes: dict[int, int], listings_max: int, gone: bool, before: int
) -> None:
    """`gone`: each call delivers; otherwise all stay due for ever. A round of a lane: its listings / its share. It
    begins wherever the cursors stand after some calls."""
    shelf = Shelf(listings_max=listings_max)
    for lane, size in sizes.items():
        for place in range(size):
            shelf.memory.add(1 + lane + 10 * place, lane=lane)
    shares = {1: 28 / 50, 2: 8 / 50, 3: 4 / 50, 4: 7 / 50, 5: 2 / 50, 6: 1 / 50}
    waits: Counter[int] = Counter()
    for _ in range(before):
        run(shelf.window.next())
    left, places = dict(shelf.memory.due), 0
    while left and places < 5000:
        batch = run(shelf.window.next())
        assert batch is not None
        places += len(batch.listings)
        for listing in batch.listings:
            if left.pop(listing.listing_id, None) is not None:
                waits[listing.lane] = places
            if gone:
                del shelf.memory.due[listing.listing_id]
    assert not left
    for lane, longest in waits.items():
        assert longest <= 2 * (sizes[lane] / shares[lane] + listings_max)


def run(coroutine: Coroutine[None, None, Batch | None]) -> Batch | None:
    """Drive a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(Batch | None, stop.value)
    raise AssertionError("the memory answers at once")
