"""The marketplace of the tests, and that its connector tells every outcome from the market's bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import pytest

from lumbung.channels.base import (
    Accepted,
    Channel,
    Conflict,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Observed,
    Outcome,
    Push,
    ReadsBack,
    Rejected,
    RotatesTokens,
    Scope,
    SubmitsWork,
    Submitted,
    Throttled,
    Tokens,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.http import HttpClient
from lumbung.clock import SystemClock
from lumbung.errors import BadRequest, ConfigurationError

from .market import Market
from .market_account import Account, Item, Job
from .market_channel import (
    MANIFEST,
    MarketChannel,
    MarketSession,
    PlainMarketChannel,
    market_credentials,
    remote_variant,
    tokens_of,
)


@dataclass
class Shop:
    """An account with the items a to c, and sessions for it."""

    market: Market
    account: Account
    http: HttpClient

    def session(self, *, api_key: bool = True, **more: object) -> MarketSession:
        given = market_credentials(self.market, self.account, api_key=api_key, **more)
        return MarketChannel().open(given, self.http, SystemClock())

    def logged_in(self) -> tuple[MarketSession, Tokens]:
        session, tokens = self.session(api_key=False), tokens_of(self.account.issue(), self.account.name)
        session.use(tokens)
        return session, tokens


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with Market() as market, HttpClient(SystemClock()) as http:
        account = market.account()
        account.put("a", "b", "c")
        yield Shop(market, account, http)


def push_of(id: str, quantity: int = 0, *, expected: int | None = None, listing_id: int = 0) -> Push:
    return Push(listing_id or ord(id[0]), remote_variant(id), quantity, expected=expected)


async def pushed(shop: Shop, *pushes: Push) -> tuple[dict[str, Outcome], bool]:
    attempt = await shop.session().push(pushes)
    assert [row.listing_id for row in attempt.rows] == [push.listing_id for push in pushes]
    assert len(attempt.calls) == 1
    return {chr(row.listing_id): row.outcome for row in attempt.rows}, attempt.as_a_whole


# --- Rows ---


async def test_a_batch_is_one_call_and_every_item_has_its_own_answer(shop: Shop) -> None:
    shop.account.say("b", Rejected("banned"))
    answers, as_a_whole = await pushed(shop, push_of("a", 3), push_of("b", 4), push_of("x", 5))
    assert answers == {"a": Accepted(), "b": Rejected("banned"), "x": Rejected("There is no item x")}
    assert as_a_whole is False
    assert shop.account.shown == {"a": 3, "b": 0, "c": 0}
    assert [(write.id, write.quantity) for write in shop.account.writes] == [("a", 3)]
    [call] = shop.account.called()
    assert (call.ids, call.items[0], call.status) == (("a", "b", "x"), Item("a", 3), 200)


@pytest.mark.parametrize(
    "outcome",
    [
        Throttled(2.5, Scope.LISTING, "later"),
        Unavailable("closed"),
        InDoubt("perhaps"),
        Unauthorized("no", True),
        Misconfigured("no warehouse", Scope.LISTING),
        Misconfigured("no permission", Scope.STORE),
        Rejected("banned"),
        Floor(5, "reserved"),
        Deferred(30.0, "campaign"),
        Deferred(None, "holiday"),
        Conflict(7),
        Conflict(None),
    ],
)
async def test_what_an_item_is_answered_is_what_the_connector_says(shop: Shop, outcome: Outcome) -> None:
    shop.account.say("a", outcome)
    assert await pushed(shop, push_of("a", 3)) == ({"a": outcome}, False)
    assert shop.account.writes == []
    assert await pushed(shop, push_of("a", 3)) == ({"a": Accepted()}, False)


async def test_a_compare_and_set_meets_a_conflict_when_a_customer_was_faster(shop: Shop) -> None:
    shop.account.compare_and_set = True
    assert (await pushed(shop, push_of("a", 9, expected=0)))[0] == {"a": Accepted()}
    shop.account.sold("a", 2)
    assert (await pushed(shop, push_of("a", 8, expected=9)))[0] == {"a": Conflict(7)}
    assert (await pushed(shop, push_of("a", 8, expected=7)))[0] == {"a": Accepted()}
    assert (await pushed(shop, push_of("a", 6)))[0] == {"a": Accepted()}
    assert shop.account.quantities("a") == [9, 8, 6]


async def test_below_what_is_reserved_is_a_floor(shop: Shop) -> None:
    shop.account.reserve("a", 5)
    assert (await pushed(shop, push_of("a", 4)))[0] == {"a": Floor(5, "5 reserved")}
    assert (await pushed(shop, push_of("a", 5)))[0] == {"a": Accepted()}


async def test_an_answer_that_leaves_items_out_or_makes_no_sense_leaves_doubt_about_them(shop: Shop) -> None:
    rows = [{"id": "a", "outcome": "accepted"}, {"id": "b", "outcome": "perhaps"}]
    shop.account.fail_next(200, {"rows": rows})
    answers, as_a_whole = await pushed(shop, push_of("a"), push_of("b"), push_of("c"))
    assert answers == {
        "a": Accepted(),
        "b": InDoubt("The answer for this item cannot be read"),
        "c": InDoubt("The answer leaves this item out"),
    }
    assert as_a_whole is False


# --- Whole calls ---


@pytest.mark.parametrize(
    ("how", "body", "outcome", "as_a_whole"),
    [
        (400, {"error": "malformed"}, Rejected("malformed"), True),
        (401, {"error": "expired"}, Unauthorized("expired", True), False),
        (401, {"error": "dead"}, Unauthorized("dead", False), False),
        (403, {"error": "suspended"}, Misconfigured("suspended", Scope.STORE), False),
        (500, {}, InDoubt("HTTP 500"), True),
        (503, {"error": "busy"}, InDoubt("busy"), True),
        (503, {"error": "maintenance"}, Unavailable("maintenance"), False),
        ("garbage", None, InDoubt("The answer cannot be read"), True),
        ("drop", None, InDoubt("The connection was closed before an answer came"), True),
    ],
)
@pytest.mark.parametrize("applied", [False, True])
async def test_what_a_whole_call_is_answered_is_said_of_every_item(
    shop: Shop,
    how: int | Literal["drop", "garbage"],
    body: dict[str, object] | None,
    outcome: Outcome,
    as_a_whole: bool,
    applied: bool,
) -> None:
    shop.account.fail_next(how, body, applied=applied)
    answers = await pushed(shop, push_of("a", 3), push_of("b", 4))
    assert answers == ({"a": outcome, "b": outcome}, as_a_whole)
    assert [(write.id, write.quantity) for write in shop.account.writes] == ([("a", 3), ("b", 4)] if applied else [])
    assert [call.status for call in shop.account.called()] == [{"garbage": 200, "drop": 0}.get(str(how), how)]


@pytest.mark.parametrize("seconds", [None, 0.5, 17.0])
@pytest.mark.parametrize("scope", list(Scope))
async def test_a_throttle_says_how_far_and_how_long(shop: Shop, scope: Scope, seconds: float | None) -> None:
    shop.account.throttle(scope, seconds, times=2)
    for _ in range(2):
        assert await pushed(shop, push_of("a")) == ({"a": Throttled(seconds, scope, "slow down")}, False)
    assert await pushed(shop, push_of("a")) == ({"a": Accepted()}, False)


async def test_a_market_that_is_away_has_surely_applied_nothing(shop: Shop) -> None:
    session = shop.session()
    assert await session.check() == Accepted()
    async with shop.market.away():
        attempt = await session.push([push_of("a", 3)])
        assert isinstance(attempt.rows[0].outcome, Unavailable)
        assert (attempt.as_a_whole, attempt.calls[0].status) == (False, 0)
        assert isinstance(await session.check(), Unavailable)
    assert await session.check() == Accepted()
    assert shop.account.writes == []


@pytest.mark.parametrize(
    ("how", "outcome", "written"),
    [
        ("refuse", Rejected("an item cannot be read"), []),
        ("fail", InDoubt("broken"), []),
        ("fail_applied", InDoubt("broken"), ["a", "b"]),
    ],
)
async def test_a_poisoned_item_spoils_every_call_that_it_is_in(
    shop: Shop, how: Literal["refuse", "fail", "fail_applied"], outcome: Outcome, written: list[str]
) -> None:
    shop.account.poison("b", how)
    assert await pushed(shop, push_of("a", 3), push_of("b", 4)) == ({"a": outcome, "b": outcome}, True)
    assert [write.id for write in shop.account.writes] == written
    assert await pushed(shop, push_of("a", 3)) == ({"a": Accepted()}, False)
    shop.account.cure("b")
    assert await pushed(shop, push_of("b", 4)) == ({"b": Accepted()}, False)


# --- Gates ---


@pytest.mark.parametrize("after", [False, True])
async def test_a_gate_holds_a_push_before_or_after_it_takes_effect(shop: Shop, after: bool) -> None:
    async with shop.account.gate(after=after) as gate:
        task = asyncio.create_task(pushed(shop, push_of("a", 3)))
        await gate.entered()
        assert shop.account.quantities("a") == ([3] if after else [])
        assert shop.account.calls == []
        gate.open()
        assert await task == ({"a": Accepted()}, False)
    assert shop.account.quantities("a") == [3]
    assert (shop.account.calls_at_once_most, shop.account.pushes_of_one_id_at_once_most) == (1, 1)


async def test_a_held_call_takes_effect_although_nobody_waits_for_it_any_more(shop: Shop) -> None:
    async with shop.account.gate() as gate:
        attempt = await shop.session(call_timeout_seconds=0.05).push([push_of("a", 3)])
        assert attempt.rows[0].outcome == InDoubt("No answer within 0.05 s")
        gate.let_later_pass()
        assert await pushed(shop, push_of("a", 4)) == ({"a": Accepted()}, False)
        gate.open()
        await shop.account.wait_for_calls(2)
    assert shop.account.quantities("a") == [4, 3]
    assert shop.account.pushes_of_one_id_at_once_most == 2


async def test_what_is_held_when_the_market_goes_away_never_takes_effect(shop: Shop) -> None:
    async with shop.account.gate() as gate:
        task = asyncio.create_task(pushed(shop, push_of("a", 3)))
        await gate.entered()
        async with shop.market.away():
            assert await task == ({"a": InDoubt("The connection was closed before an answer came")}, True)
    assert (shop.account.writes, [call.status for call in shop.account.calls]) == ([], [0])
    assert await pushed(shop, push_of("a", 4)) == ({"a": Accepted()}, False)


# --- Jobs ---


async def test_what_is_submitted_takes_effect_when_it_is_asked_about(shop: Shop) -> None:
    shop.account.say("a", Job(30.0, pending=1))
    shop.account.say("b", Job(30.0, Rejected("banned")))
    pushes = [push_of("a", 3), push_of("b", 4), push_of("c", 5)]
    assert await pushed(shop, *pushes) == (
        {"a": Submitted("job-1", 30.0), "b": Submitted("job-1", 30.0), "c": Accepted()},
        False,
    )
    session = shop.session()
    first = await session.ask("job-1", pushes[:2])
    second = await session.ask("job-1", pushes[:2])
    assert [row.outcome for row in first.rows] == [Submitted("job-1", 30.0), Rejected("banned")]
    assert [row.outcome for row in second.rows] == [Accepted(), Rejected("banned")]
    assert [(write.id, write.quantity) for write in shop.account.writes] == [("c", 5), ("a", 3)]
    assert [len(attempt.calls) for attempt in (first, second)] == [1, 1]


async def test_a_forgotten_job_leaves_doubt_and_trouble_in_asking_leaves_none(shop: Shop) -> None:
    shop.account.say("a", Job())
    push = push_of("a", 3)
    await pushed(shop, push)
    session = shop.session()
    shop.account.fail_next(500, route="/jobs")
    shop.account.fail_next("garbage", route="/jobs")
    shop.account.throttle(seconds=3.0, route="/jobs")
    outcomes = [(await session.ask("job-1", [push])).rows[0].outcome for _ in range(3)]
    shop.account.forget_jobs()
    outcomes.append((await session.ask("job-1", [push])).rows[0].outcome)
    assert outcomes == [
        Unavailable("HTTP 500"),
        Unavailable("The answer cannot be read"),
        Throttled(3.0, Scope.STORE, "slow down"),
        InDoubt("The market knows no such job"),
    ]


# --- Reading back ---


async def test_reading_shows_what_customers_left(shop: Shop) -> None:
    shop.account.put("a", quantity=9)
    shop.account.sold("a", 2)
    shop.account.say("b", Deferred(None, "hidden"), route="/read")
    reading = await shop.session().read([push_of("a"), push_of("b"), push_of("x")])
    assert [row.seen for row in reading.rows] == [
        Observed(7),
        Deferred(None, "hidden"),
        Rejected("There is no item x"),
    ]
    assert [call.ids for call in shop.account.called("/read")] == [("a", "b", "x")]


@pytest.mark.parametrize("how", [500, "garbage", "drop"])
async def test_trouble_in_reading_leaves_no_doubt(shop: Shop, how: int | Literal["drop", "garbage"]) -> None:
    shop.account.fail_next(how, route="/read")
    reading = await shop.session().read([push_of("a"), push_of("b")])
    assert [type(row.seen) for row in reading.rows] == [Unavailable, Unavailable]
    shop.account.throttle(Scope.STORE, 3.0, route="/read")
    reading = await shop.session().read([push_of("a")])
    assert [row.seen for row in reading.rows] == [Throttled(3.0, Scope.STORE, "slow down")]


# --- Tokens ---


async def test_a_refresh_token_works_once(shop: Shop) -> None:
    session, old = shop.logged_in()
    first = await session.refresh(old)
    assert isinstance(first.result, Tokens)
    assert (first.result.access, first.result.refresh) == ("access-2-of-toko", "refresh-2-of-toko")
    assert first.result.access_expires_at - first.result.issued_at == timedelta(hours=4)
    assert first.result.refresh_expires_at == first.result.issued_at + timedelta(days=30)
    assert first.result.more == {"shop": "toko"}
    second = await session.refresh(old)
    assert second.result == Unauthorized("invalid_grant", refreshable=False)
    for secret in (old.access, old.refresh, first.result.access, first.result.refresh):
        assert secret not in repr((first, second))


async def test_an_expired_token_is_renewed_and_a_dead_one_is_not(shop: Shop) -> None:
    session, old = shop.logged_in()
    assert await session.check() == Accepted()
    shop.account.later(4 * 3600)
    assert await session.check() == Unauthorized("the access token is expired", refreshable=True)
    new = (await session.refresh(old)).result
    assert isinstance(new, Tokens)
    assert await session.check() == Unauthorized("the access token is expired", refreshable=True)
    session.use(new)
    assert await session.check() == Accepted()
    shop.account.expire_access()
    assert await session.check() == Unauthorized("the access token is expired", refreshable=True)
    shop.account.kill_refresh()
    assert (await session.refresh(new)).result == Unauthorized("invalid_grant", refreshable=False)
    shop.account.kill_access()
    assert await session.check() == Unauthorized("the access token is dead", refreshable=False)


@pytest.mark.parametrize(
    ("how", "applied", "result"),
    [
        ("drop", True, InDoubt("The connection was closed before an answer came")),
        ("garbage", True, InDoubt("The answer cannot be read")),
        (500, False, InDoubt("HTTP 500")),
    ],
)
async def test_a_refresh_without_an_answer_may_have_used_the_token_up(
    shop: Shop, how: int | Literal["drop", "garbage"], applied: bool, result: InDoubt
) -> None:
    session, old = shop.logged_in()
    shop.account.fail_next(how, applied=applied, route="/token")
    assert (await session.refresh(old)).result == result
    again = (await session.refresh(old)).result
    assert isinstance(again, Unauthorized if applied else Tokens)


async def test_a_refresh_can_be_throttled_or_surely_not_have_been(shop: Shop) -> None:
    session, old = shop.logged_in()
    shop.account.throttle(Scope.APPLICATION, 3.0, route="/token")
    assert (await session.refresh(old)).result == Throttled(3.0, Scope.APPLICATION, "slow down")
    async with shop.market.away():
        assert isinstance((await session.refresh(old)).result, Unavailable)
    assert isinstance((await session.refresh(old)).result, Tokens)


async def test_a_session_without_key_or_token_is_a_stranger(shop: Shop) -> None:
    attempt = await shop.session(api_key=False).push([push_of("a", 3)])
    assert attempt.rows[0].outcome == Unauthorized("the access token is dead", refreshable=False)
    assert shop.account.writes == []


async def test_accounts_share_nothing(shop: Shop) -> None:
    other = shop.market.account("toko-2")
    other.put("a")
    other.throttle()
    assert await pushed(shop, push_of("a", 3)) == ({"a": Accepted()}, False)
    assert (shop.account.shown["a"], other.shown["a"], other.calls) == (3, 0, [])


# --- The connector's own rules ---


async def test_a_plain_connector_can_only_push_and_check(shop: Shop) -> None:
    plain = PlainMarketChannel().open(market_credentials(shop.market, shop.account), shop.http, SystemClock())
    full = shop.session()
    for capability in (SubmitsWork, ReadsBack, RotatesTokens):
        assert (isinstance(plain, capability), isinstance(full, capability)) == (False, True)
    shop.account.fail_next(401, {"error": "expired"})
    shop.account.say("a", Job())
    outcomes = [(await plain.push([push_of("a", 3)])).rows[0].outcome for _ in range(3)]
    assert outcomes == [
        Unauthorized("expired", refreshable=False),
        InDoubt("An answer that this connector does not know"),
        Accepted(),
    ]


async def test_no_more_than_one_batch_and_nothing_below_zero_is_sent(shop: Shop) -> None:
    session = shop.session()
    many = [push_of("a", listing_id=n) for n in range(1, 12)]
    for attempt in (session.push(many), session.read(many)):
        with pytest.raises(ValueError, match="11 listings in one call; the market takes 10"):
            await attempt
    with pytest.raises(ValueError, match="below 0"):
        await session.push([push_of("a", -1)])
    assert ((await session.push([])).calls, (await session.read([])).calls) == ((), ())
    assert shop.account.calls == []


def test_ids_become_one_text_however_they_are_written() -> None:
    channel: Channel = MarketChannel(replace(MANIFEST, batch_max=1))
    assert [channel.remote_variant(text) for text in (" a ", '{"id":"a"}')] == ['{"id": "a"}'] * 2
    assert (channel.batch_key('{"id": "a"}'), channel.manifest.batch_max) == ("", 1)
    for text in ("", "{}", '{"id": ""}', '{"id": "a", "b": 1}'):
        with pytest.raises(BadRequest, match="remote_variant must be an id"):
            channel.remote_variant(text)


async def test_credentials_are_checked_as_those_of_every_channel(shop: Shop) -> None:
    channel = MarketChannel()
    given = market_credentials(shop.market, shop.account, quiesce_seconds=2, calls_per_second=9)
    assert channel.account(given) == "toko"
    assert (given["quiesce_seconds"], given["calls_per_second"]) == ("2", "9")
    with pytest.raises(ConfigurationError) as raised:
        channel.open({**given, "account": "", "quiesce_seconds": "long"}, shop.http, SystemClock())
    assert [problem.field for problem in raised.value.problems] == ["account", "quiesce_seconds"]
