"""A store's token pair: traded once, written until the database has it, never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from lumbung.channels.base import InDoubt, Refreshed, Throttled, Tokens, Unauthorized, Unavailable
from lumbung.clock import ManualClock
from lumbung.db.lease import StoredTokens
from lumbung.dispatch.report import Lease
from lumbung.dispatch.storage import Storage
from lumbung.dispatch.tokens import AGREE_AGAIN, Refusal, TokenKeeper, digest, seal, unseal
from lumbung.errors import ConfigurationError
from lumbung.errors import Unavailable as Away
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_tokens
from lumbung.settings import Settings

LEASE = Lease(store_id=1, tenant_id=1, epoch=3, channel="shpe", store_name="Toko")
LIFE = timedelta(hours=4)
DEAD = Unauthorized("The refresh token is dead", refreshable=False)
TOLD_DEAD = Unauthorized(f"{DEAD.message}{AGREE_AGAIN}", refreshable=False)


class Marketplace:
    """Trades a refresh token once; the session of the store."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.pairs = 0
        self.live: set[str] = set()
        self.used: list[Tokens] = []
        self.trades: list[str] = []
        self.refuse: Throttled | Unavailable | InDoubt | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    def issue(self) -> Tokens:
        self.pairs += 1
        now = self.clock.now()
        pair = Tokens(f"access-{self.pairs}", f"refresh-{self.pairs}", now, now + LIFE, now + 10 * LIFE, {"shop": "9"})
        self.live.add(pair.refresh)
        return pair

    def use(self, tokens: Tokens) -> None:
        self.used.append(tokens)

    async def refresh(self, tokens: Tokens) -> Refreshed:
        self.trades.append(tokens.refresh)
        refused = self.refuse
        if refused is None and tokens.refresh in self.live:
            self.live.remove(tokens.refresh)  # from here on the new pair is the only one
            new = self.issue()
            await self.go_on.wait()
            return Refreshed(new, ())
        await self.go_on.wait()
        return Refreshed(refused or DEAD, ())


class Memory:
    """One store's row."""

    def __init__(self, keyring: Keyring, tokens: Tokens) -> None:
        self.keyring = keyring
        self.store(tokens)
        self.away = self.writes_away = False
        self.tries = asyncio.Queue[None]()
        self.loses_answers = 0

    def store(self, tokens: Tokens) -> None:
        self.blob, self.digest = seal(self.keyring, LEASE.store_id, tokens), digest(tokens)

    @property
    def stored(self) -> Tokens:
        return unseal(self.keyring, LEASE.store_id, self.blob)

    async def swap_tokens(self, lease: Lease, old_digest: bytes | None, new: StoredTokens) -> bool:
        assert lease is LEASE
        self.tries.put_nowait(None)
        if self.away or self.writes_away:
            raise Away("away")
        if self.digest != old_digest:
            return False
        self.blob, self.digest = new.tokens, new.digest
        if self.loses_answers:
            self.loses_answers -= 1
            raise Away("the answer was lost")
        return True

    async def read_tokens(self, lease: Lease) -> tuple[bytes, bytes] | None:
        assert lease is LEASE
        if self.away:
            raise Away("away")
        return self.blob, self.digest


@dataclass
class Store:
    """A keeper with everything that it needs; `kept`: the tasks that may end whatever becomes of their beginner."""

    keyring: Keyring
    clock: ManualClock = field(default_factory=ManualClock)
    kept: list[asyncio.Future[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.marketplace = Marketplace(self.clock)
        self.first = self.marketplace.issue()
        self.memory = Memory(self.keyring, self.first)
        self.keeper = self.another_keeper()

    def another_keeper(self) -> TokenKeeper:
        return TokenKeeper(
            self.marketplace,
            self.first,
            LEASE,
            storage=cast(Storage, self.memory),
            keyring=self.keyring,
            clock=self.clock,
            settings=Settings(poll_seconds=0.0, token_refresh_seconds_min=60.0),
            keep=cast("Callable[[Awaitable[None]], None]", lambda work: self.kept.append(asyncio.ensure_future(work))),
        )

    def pass_hours(self, hours: float) -> None:
        self.clock.advance(hours * 3600)


@pytest.fixture
async def store(keyring: Keyring) -> Store:
    return Store(keyring)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# --- as they are kept ---


def test_a_pair_is_stored_sealed_for_its_store(keyring: Keyring) -> None:
    now = datetime.fromisoformat("2026-01-05T00:00:00+00:00")
    for refresh_expires_at in (None, now + LIFE):
        tokens = Tokens("access", "refresh", now, now + LIFE, refresh_expires_at, {"shop": "9"})
        blob = seal(keyring, 1, tokens)
        assert unseal(keyring, 1, blob) == tokens
        assert b"refresh" not in blob
        with pytest.raises(ConfigurationError):
            unseal(keyring, 2, blob)


def test_a_pair_is_known_by_its_refresh_token_alone(keyring: Keyring) -> None:
    now = datetime.fromisoformat("2026-01-05T00:00:00+00:00")
    assert digest(Tokens("a", "r", now, now)) == digest(Tokens("b", "r", now, now))
    assert digest(Tokens("a", "r", now, now)) != digest(Tokens("a", "s", now, now))
    assert len(digest(Tokens("a", "r", now, now))) == 32


# --- before a call ---


async def test_a_young_pair_is_left_alone(store: Store) -> None:
    store.pass_hours(1.99)
    assert (store.keeper.wants_refresh, await store.keeper.before_call()) == (False, None)
    assert (store.marketplace.trades, store.marketplace.used) == ([], [store.first])


async def test_a_pair_is_traded_at_half_its_life_and_the_new_one_written_and_used(store: Store) -> None:
    store.pass_hours(2.0)
    assert (store.keeper.wants_refresh, await store.keeper.before_call()) == (True, None)
    assert store.marketplace.trades == ["refresh-1"]
    assert store.keeper.tokens == store.memory.stored == store.marketplace.used[-1]
    assert store.keeper.tokens.refresh == "refresh-2"
    assert await store.keeper.before_call() is None
    assert len(store.marketplace.trades) == 1


async def test_nothing_is_traded_while_the_database_is_away(store: Store) -> None:
    """What it gives could not be written, and a process that is killed then would lose the store."""
    store.memory.away = True
    store.pass_hours(4.0)
    assert isinstance(await store.keeper.before_call(), Unavailable)
    assert store.marketplace.trades == []


async def test_a_pair_that_nobody_needs_is_renewed_before_its_refresh_token_dies(store: Store) -> None:
    """Here within 10 days: its refresh token lives for 40 hours."""
    keeper = store.keeper
    seen = [keeper.would_die]
    store.pass_hours(4.0)
    seen.append(keeper.would_die)
    store.marketplace.refuse = Unavailable("503")
    assert await store.keeper.before_call() == Unavailable("The access token cannot be refreshed now: 503")
    seen.append(keeper.would_die)  # it was tried in vain just now
    store.clock.advance(60.0)
    seen.append(keeper.would_die)
    store.marketplace.refuse = None
    assert await store.keeper.before_call() is None
    seen.append(keeper.would_die)
    assert seen == [False, True, False, True, False]


async def test_a_refresh_that_fails_before_the_pair_expires_stops_nothing_and_is_tried_again_later(
    store: Store,
) -> None:
    store.marketplace.refuse = Unavailable("503")
    store.pass_hours(2.0)
    for _ in range(3):
        assert await store.keeper.before_call() is None
    assert len(store.marketplace.trades) == 1
    store.clock.advance(60.0)
    assert await store.keeper.before_call() is None
    assert len(store.marketplace.trades) == 2


@pytest.mark.parametrize("refusal", [Unavailable("503"), Throttled(5.0, message="503"), InDoubt("503")], ids=str)
async def test_an_expired_pair_that_cannot_be_refreshed_answers_every_call_in_its_stead(
    store: Store, refusal: Unavailable | Throttled | InDoubt
) -> None:
    store.marketplace.refuse = refusal
    store.pass_hours(4.0)
    for _ in range(2):
        assert store.keeper.wants_refresh
        assert await store.keeper.before_call() == Unavailable("The access token cannot be refreshed now: 503")
    store.marketplace.refuse = None
    assert await store.keeper.before_call() is None
    assert store.keeper.tokens.refresh == "refresh-2"


async def test_a_dead_refresh_token_is_told_at_once(store: Store) -> None:
    store.marketplace.live.clear()
    store.pass_hours(2.0)
    assert await store.keeper.before_call() == TOLD_DEAD


# --- a call was not authorised ---


async def test_ten_calls_that_are_refused_at_once_make_one_refresh(store: Store) -> None:
    store.marketplace.go_on.clear()
    refused = [asyncio.create_task(store.keeper.refused(store.first)) for _ in range(10)]
    await settle()
    store.marketplace.go_on.set()
    assert await asyncio.gather(*refused) == [None] * 10
    assert store.marketplace.trades == ["refresh-1"]
    assert store.keeper.tokens == store.memory.stored


async def test_ten_calls_that_are_refused_at_once_make_one_refresh_also_when_it_fails(store: Store) -> None:
    store.marketplace.refuse = InDoubt("timeout")
    store.marketplace.go_on.clear()
    refused = [asyncio.create_task(store.keeper.refused(store.first)) for _ in range(10)]
    await settle()
    store.marketplace.go_on.set()
    expected = Unavailable("The access token cannot be refreshed now: timeout")
    assert await asyncio.gather(*refused) == [expected] * 10
    assert store.marketplace.trades == ["refresh-1"]


async def test_a_call_made_with_a_pair_that_is_no_longer_used_is_tried_again_without_a_refresh(store: Store) -> None:
    assert await store.keeper.refused(store.first) is None
    assert await store.keeper.refused(store.first) is None
    assert store.marketplace.trades == ["refresh-1"]


async def test_a_new_pair_that_is_refused_too_is_the_end(store: Store) -> None:
    assert await store.keeper.refused(store.first) is None
    refusal = await store.keeper.refused(store.keeper.tokens)
    assert refusal == Unauthorized(f"The new access token is not accepted either{AGREE_AGAIN}", refreshable=False)
    assert store.marketplace.trades == ["refresh-1"]


async def test_after_a_call_was_accepted_the_next_refusal_is_a_new_one(store: Store) -> None:
    assert await store.keeper.refused(store.first) is None
    store.keeper.accepted()
    assert await store.keeper.refused(store.keeper.tokens) is None
    assert store.marketplace.trades == ["refresh-1", "refresh-2"]


async def test_a_pair_that_somebody_else_has_stored_is_taken_without_a_refresh(store: Store) -> None:
    other = store.marketplace.issue()
    store.memory.store(other)
    assert await store.keeper.refused(store.first) is None
    assert (store.keeper.tokens, store.marketplace.trades, store.marketplace.used[-1]) == (other, [], other)


async def test_a_refresh_token_that_somebody_else_has_used_meanwhile_is_no_matter(store: Store) -> None:
    store.marketplace.live.clear()
    store.marketplace.go_on.clear()
    refused = asyncio.create_task(store.keeper.refused(store.first))
    await settle()
    other = store.marketplace.issue()
    store.memory.store(other)  # it was written after we had looked
    store.marketplace.go_on.set()
    assert await refused is None
    assert store.keeper.tokens == other


async def test_a_stored_pair_that_cannot_be_opened_is_not_taken(store: Store) -> None:
    store.memory.blob, store.memory.digest = b"\x01" + bytes(40), bytes(32)
    store.marketplace.live.clear()
    assert await store.keeper.refused(store.first) == TOLD_DEAD


# --- writing ---


async def test_a_new_pair_is_written_until_the_database_is_back(store: Store) -> None:
    store.memory.writes_away = True
    refused = asyncio.create_task(store.keeper.refused(store.first))
    for _ in range(5):
        await store.memory.tries.get()
    assert not refused.done()
    store.memory.writes_away = False
    assert await refused is None
    assert store.memory.stored.refresh == "refresh-2"


async def test_a_new_pair_is_written_also_when_the_one_who_asked_is_cancelled(store: Store) -> None:
    store.memory.writes_away = True
    refused = asyncio.create_task(store.keeper.refused(store.first))
    await store.memory.tries.get()
    refused.cancel()
    await asyncio.wait([refused])
    assert refused.cancelled()
    store.memory.writes_away = False
    await asyncio.gather(*store.kept)
    assert store.memory.stored.refresh == "refresh-2"


async def test_a_trade_under_way_ends_and_is_written_when_the_one_who_asked_is_cancelled(store: Store) -> None:
    store.marketplace.go_on.clear()
    refused = asyncio.create_task(store.keeper.refused(store.first))
    await settle()
    refused.cancel()
    await asyncio.wait([refused])
    store.marketplace.go_on.set()
    await asyncio.gather(*store.kept)
    assert store.memory.stored == store.keeper.tokens
    assert store.keeper.tokens.refresh == "refresh-2"


async def test_a_write_whose_answer_was_lost_is_known_as_ours(store: Store) -> None:
    store.memory.loses_answers = 1
    assert await store.keeper.refused(store.first) is None
    assert store.keeper.tokens == store.memory.stored
    assert store.keeper.tokens.refresh == "refresh-2"


async def test_when_another_pair_was_stored_first_the_stored_one_is_used(store: Store) -> None:
    store.marketplace.go_on.clear()
    refused = asyncio.create_task(store.keeper.refused(store.first))
    await settle()
    other = store.marketplace.issue()
    store.memory.store(other)
    store.marketplace.go_on.set()
    assert await refused is None
    assert (store.keeper.tokens, store.memory.stored, store.marketplace.used[-1]) == (other, other, other)


@pytest.mark.parametrize("what", ["of another key", "not a pair"])
async def test_a_new_pair_that_cannot_be_written_for_one_that_cannot_be_opened_is_used_and_told_loudly(
    store: Store, what: str
) -> None:
    store.marketplace.go_on.clear()
    refused = asyncio.create_task(store.keeper.refused(store.first))
    await settle()
    blob = store.keyring.encrypt(b"[]", purpose_of_tokens(LEASE.store_id))
    store.memory.blob, store.memory.digest = b"\x01" + bytes(40) if what == "of another key" else blob, bytes(32)
    store.marketplace.go_on.set()
    with capture_logs() as logs:
        async with asyncio.timeout(10):
            assert await refused is None
    assert store.keeper.tokens.refresh == "refresh-2"
    assert store.memory.digest == bytes(32)  # who has its key may still open it
    assert store.memory.tries.qsize() == 1
    [told] = [entry for entry in logs if entry["log_level"] == "error"]
    assert "cannot be opened" in told["event"]


# --- two processes, in any order of things ---

steps = st.lists(
    st.sampled_from(["refused 0", "refused 1", "half-life", "away", "back", "cancel", "stop", "go on"]), max_size=25
)


@given(steps=steps)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_the_pair_that_works_ends_in_the_database(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    """The model of the marketplace is one live refresh token; at rest that one must be stored, or none is left."""
    path = tmp_path_factory.getbasetemp() / "keys-of-tokens"

    async def play() -> None:
        store = Store(Keyring.load(path, create=True))
        keepers = [store.keeper, store.another_keeper()]
        asked: list[asyncio.Task[Refusal | None]] = []
        for step in steps:
            match step.split():
                case ["refused", which]:
                    keeper = keepers[int(which)]
                    keeper.accepted()
                    asked.append(asyncio.create_task(keeper.refused(keeper.tokens)))
                case ["half-life"]:
                    store.pass_hours(2.0)
                    asked += [asyncio.create_task(keeper.before_call()) for keeper in keepers]
                case ["cancel"]:
                    for task in asked:
                        task.cancel()
                case ["away"] | ["back"]:
                    store.memory.away = step == "away"
                case ["stop"]:
                    store.marketplace.go_on.clear()
                case _:
                    store.marketplace.go_on.set()
            await settle()
        store.memory.away = False
        store.marketplace.go_on.set()
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.gather(*store.kept)
        assert store.marketplace.live == {store.memory.stored.refresh}
        for keeper in keepers:
            keeper.accepted()
            assert await keeper.refused(keeper.tokens) is None
            assert keeper.tokens == store.memory.stored

    asyncio.run(play())
