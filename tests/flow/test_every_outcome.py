"""Every row of the outcome table, through real HTTP, real PostgreSQL and the real worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from lumbung.channels.base import (
    Conflict,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Rejected,
    Scope,
    Unauthorized,
)
from lumbung.keyring import Keyring
from tests.flow.hub import FAST, QUIESCE_SECONDS, until
from tests.flow.market_account import Job
from tests.flow.market_channel import PlainMarketChannel
from tests.flow.shop import Shop, open_store, running_market_worker, running_shop


@pytest.fixture
async def shop(database_url: str, keyring: Keyring) -> AsyncIterator[Shop]:
    async with running_shop(database_url, keyring) as running:
        yield running


# --- Accepted ---


async def test_an_accepted_quantity_is_delivered_and_counted(shop: Shop) -> None:
    code = await shop.update("a", 20)
    await shop.hub.ended(code)
    assert shop.account.quantities("a") == [20]
    state = await shop.state()
    assert (state["state"], state["quantity_delivered"], state["due_since"]) == ("idle", 20, None)
    [minute] = await shop.hub.world.rows(
        "SELECT sum(accepted)::int AS accepted, sum(pushed)::int AS pushed, sum(failed)::int AS failed"
        " FROM stats_minute"
    )
    assert minute == {"accepted": 1, "pushed": 1, "failed": 0}
    assert shop.metrics.attempts.labels("shpe", "Accepted")._value.get() == 1


# --- Submitted ---


async def test_submitted_work_is_asked_about_and_delivered_when_it_is_applied(shop: Shop) -> None:
    shop.account.say("a", Job(check_after_seconds=1000.0))
    code = await shop.update("a", 20)
    await shop.waiting_for("submitted")
    assert (await shop.item(code))["progress"] is True
    await shop.hub.later(1000.0)
    await shop.hub.ended(code)
    assert (len(shop.account.called("/push")), len(shop.account.called("/jobs"))) == (1, 1)
    assert (await shop.item(code))["success"] is True
    state = await shop.state()
    assert (state["state"], state["handle"], state["quantity_delivered"]) == ("idle", None, 20)


async def test_submitted_work_survives_a_restart_and_a_newer_quantity_waits_for_it(
    database_url: str, keyring: Keyring
) -> None:
    async with running_shop(database_url, keyring, worker=False) as shop:
        shop.account.say("a", Job(check_after_seconds=1000.0))
        async with running_market_worker(FAST, database_url, keyring):
            older = await shop.update("a", 20)
            await shop.waiting_for("submitted")
        newer = await shop.update("a", 7)
        async with running_market_worker(FAST, database_url, keyring):
            await shop.hub.later(1000.0)
            await shop.hub.ended(older, newer)
        assert shop.account.quantities("a") == [20, 7]


async def test_submitted_work_that_is_not_ready_is_asked_about_again(shop: Shop) -> None:
    shop.account.say("a", Job(check_after_seconds=1000.0, pending=1))
    code = await shop.update("a", 20)
    await shop.waiting_for("submitted")
    await shop.hub.later(1000.0)
    await shop.account.wait_for_calls(1, "/jobs")
    await shop.waiting_for("submitted")
    await shop.hub.later(1000.0)
    await shop.hub.ended(code)
    assert len(shop.account.called("/jobs")) == 2


async def test_work_that_the_marketplace_has_forgotten_is_sent_again(shop: Shop) -> None:
    shop.account.say("a", Job(check_after_seconds=1000.0))
    code = await shop.update("a", 20)
    await shop.waiting_for("submitted")
    shop.account.forget_jobs()
    await shop.hub.later(1000.0)
    await shop.hub.ended(code)
    assert shop.account.quantities("a") == [20]
    assert (await shop.state())["handle"] is None


async def test_work_that_is_never_applied_is_sent_again_in_the_end(database_url: str, keyring: Keyring) -> None:
    async with running_shop(database_url, keyring, replace(FAST, submitted_seconds_max=1500.0)) as shop:
        shop.account.say("a", Job(check_after_seconds=1000.0, pending=100))
        code = await shop.update("a", 20)
        await shop.waiting_for("submitted")
        for _ in range(2):
            asked = len(shop.account.called("/jobs"))
            await shop.hub.later(1000.0)
            await shop.account.wait_for_calls(asked + 1, "/jobs")
            if asked == 0:
                await shop.waiting_for("submitted")
        await shop.hub.ended(code)
        assert shop.account.quantities("a") == [20]


async def test_submitted_work_that_is_rejected_later_parks_its_listing(shop: Shop) -> None:
    shop.account.say("a", Job(check_after_seconds=1000.0, result=Rejected("Banned")))
    code = await shop.update("a", 20)
    await shop.waiting_for("submitted")
    await shop.hub.later(1000.0)
    await shop.hub.ended(code)
    assert (await shop.item(code))["message"] == "Banned"
    assert (await shop.state())["park_reason"] == "Banned"


# --- Throttled ---


async def test_a_throttled_listing_waits_while_its_store_goes_on(shop: Shop) -> None:
    shop.account.throttle(Scope.LISTING, 1000.0)
    code = await shop.update("a", 20)
    await shop.waiting_for("deferred")
    await shop.hub.ended(await shop.update("b", 7))
    assert (await shop.state())["attempts"] == 0
    await shop.hub.later(1000.0)
    await shop.hub.ended(code)
    assert shop.account.quantities("a") == [20]


async def test_a_throttled_application_slows_every_store_of_it_down(database_url: str, keyring: Keyring) -> None:
    async with running_shop(database_url, keyring, skus=("a",)) as shop:
        world = shop.hub.world
        app = await world.application()
        await world.execute(
            "INSERT INTO budget (channel_app_id, name, calls_per_second, burst) VALUES ($1, 'calls', 1000, 100)", app
        )
        other, _ = await open_store(shop.hub, shop.market, ("b",), "Other")
        await world.execute("UPDATE store SET channel_app_id = $1", app)
        shop.account.throttle(Scope.APPLICATION, 1000.0)
        await shop.update("a", 20)
        await until(
            lambda: world.value("SELECT blocked_until > now() + interval '900 seconds' FROM budget"),
            lambda it: it is True,
        )
        await shop.update("b", 7)
        await until(
            lambda: world.value("SELECT count(*) FROM store_lease WHERE worker_id IS NOT NULL"), lambda n: n == 2
        )
        assert (shop.account.writes, other.writes) == ([], [])


# --- Unavailable and InDoubt ---


async def test_a_refusal_that_was_surely_not_applied_leaves_no_doubt(shop: Shop) -> None:
    shop.account.fail_next(503, {"error": "maintenance"})
    await shop.hub.ended(await shop.update("a", 20))
    state = await shop.state()
    assert (state["doubtful_until"], state["calls"], shop.account.quantities("a")) == (None, 2, [20])
    assert await shop.hub.waits() == []


async def test_an_unclear_answer_is_followed_at_once_by_the_newest_and_confirmed_by_reading(shop: Shop) -> None:
    shop.account.fail_next(500, applied=True)
    code = await shop.update("a", 20)
    await shop.hub.ended(code)
    assert shop.account.quantities("a") == [20, 20]
    await shop.waiting_for("confirmation")
    shop.account.sold("a", 3)
    await shop.hub.later(QUIESCE_SECONDS)
    await shop.hub.at_rest()
    assert shop.account.quantities("a") == [20, 20]  # 17 is what customers left: it is not resurrected
    assert len(shop.account.called("/read")) == 1
    state = await shop.state()
    assert (state["quantity_observed"], state["doubtful_until"], state["state"]) == (17, None, "idle")


async def test_a_doubtful_older_quantity_that_landed_is_corrected(shop: Shop) -> None:
    async with shop.account.gate() as gate:
        await shop.update("a", 5)
        await gate.entered()
        newer = await shop.update("a", 9)
        gate.let_later_pass()
        await shop.hub.ended(newer)  # the first call has timed out
        gate.open()
        await shop.account.wait_for_writes(2)
    assert shop.account.quantities("a") == [9, 5]
    await shop.hub.later(QUIESCE_SECONDS)
    await shop.hub.at_rest()
    assert shop.account.quantities("a") == [9, 5, 9]


async def test_a_marketplace_that_cannot_be_read_back_is_told_again(database_url: str, keyring: Keyring) -> None:
    async with running_shop(database_url, keyring, channel=PlainMarketChannel()) as shop:
        shop.account.fail_next(500, applied=True)
        await shop.hub.ended(await shop.update("a", 20))
        await shop.hub.later(QUIESCE_SECONDS)
        await shop.hub.at_rest()
        assert shop.account.quantities("a") == [20, 20, 20]


# --- Unauthorized ---


async def test_an_expired_token_is_refreshed_once_under_many_pushes(database_url: str, keyring: Keyring) -> None:
    skus = tuple(f"s{n}" for n in range(40))
    async with running_shop(database_url, keyring, skus=skus, tokens=True) as shop:
        shop.account.expire_access()
        codes = await asyncio.gather(*(shop.update(sku, 7) for sku in skus))
        await shop.hub.ended(*codes)
        assert len(shop.account.called("/token")) == 1
        assert {shop.account.shown[sku] for sku in skus} == {7}
        assert {(await shop.item(code))["success"] for code in codes} == {True}


async def test_a_dead_refresh_token_pauses_its_store_only_and_keeps_the_work(
    database_url: str, keyring: Keyring
) -> None:
    async with running_shop(database_url, keyring, skus=("a",), tokens=True) as shop:
        await open_store(shop.hub, shop.market, ("b",), "Fine", tokens=True)
        shop.account.expire_access()
        shop.account.kill_refresh()
        code = await shop.update("a", 20)
        await shop.hub.ended(await shop.update("b", 7))
        assert await shop.hub.paused("Toko Pasar") != ""
        assert (await shop.item(code))["progress"] is True
        assert (await shop.state())["state"] == "due"


async def test_a_new_token_that_is_not_accepted_either_pauses_the_store(database_url: str, keyring: Keyring) -> None:
    async with running_shop(database_url, keyring, skus=("a",), tokens=True) as shop:
        shop.account.say("a", *[Unauthorized("expired", refreshable=True)] * 5)
        await shop.update("a", 20)
        assert "not accepted either" in await shop.hub.paused("Toko Pasar")
        assert len(shop.account.called("/token")) == 1


# --- Misconfigured and Rejected ---


async def test_a_listing_that_is_set_up_wrongly_is_parked_with_the_reason(shop: Shop) -> None:
    shop.account.say("a", Misconfigured("No such warehouse", Scope.LISTING))
    code = await shop.update("a", 20)
    await shop.hub.ended(code)
    assert (await shop.state())["park_reason"] == "No such warehouse"
    assert (await shop.item(code))["message"] == "No such warehouse"


async def test_a_store_that_is_set_up_wrongly_is_paused(shop: Shop) -> None:
    shop.account.say("a", Misconfigured("No permission", Scope.STORE))
    code = await shop.update("a", 20)
    assert await shop.hub.paused("Toko Pasar") == "No permission"
    assert (await shop.item(code))["progress"] is True


async def test_a_rejected_listing_is_parked_though_nothing_else_is_due(shop: Shop) -> None:
    shop.account.say("a", Rejected("Unknown item"))
    code = await shop.update("a", 20)
    await shop.hub.ended(code)
    state = await shop.state()
    assert (state["state"], state["park_reason"], state["calls"]) == ("parked", "Unknown item", 1)
    item = await shop.item(code)
    assert (item["success"], item["retrier_count"]) == (False, 0)


async def test_fifty_rejections_in_a_row_pause_the_store_and_park_none(database_url: str, keyring: Keyring) -> None:
    skus = tuple(f"s{n}" for n in range(60))
    settings = replace(FAST, storm_rejections=50)
    async with running_shop(database_url, keyring, settings, skus=skus, worker=False) as shop:
        for sku in skus:
            shop.account.say(sku, *[Rejected("Wrong address")] * 3)
        codes = [await shop.update(sku, 5) for sku in skus]
        async with running_market_worker(settings, database_url, keyring):
            reason = await shop.hub.paused("Toko Pasar")
        assert reason.startswith("5")
        assert "different listings in a row were refused" in reason
        assert reason.endswith("Wrong address")
        states = await shop.hub.world.rows("SELECT DISTINCT state FROM listing_state")
        assert states == [{"state": "due"}]
        records = await shop.hub.records()
        assert {records[code]["finished_at"] for code in codes} == {None}


async def test_rejections_between_successes_park_each_listing(database_url: str, keyring: Keyring) -> None:
    skus = tuple(f"s{n}" for n in range(12))
    settings = replace(FAST, storm_rejections=3)
    async with running_shop(database_url, keyring, settings, skus=skus) as shop:
        for sku in skus[::2]:
            shop.account.say(sku, Rejected("Unknown item"))
        for sku in skus:
            await shop.hub.ended(await shop.update(sku, 5))
        states = await shop.hub.world.rows("SELECT state, count(*)::int AS n FROM listing_state GROUP BY 1 ORDER BY 1")
        assert states == [{"state": "idle", "n": 6}, {"state": "parked", "n": 6}]
        assert await shop.hub.world.value("SELECT mode FROM store") == "live"


@pytest.mark.parametrize("how", ["refuse", "fail", "fail_applied"])
async def test_a_batch_that_fails_because_of_one_listing_is_cut_in_halves(
    database_url: str, keyring: Keyring, how: str
) -> None:
    skus = tuple(f"s{n}" for n in range(10))
    async with running_shop(database_url, keyring, skus=skus, worker=False) as shop:
        shop.account.poison("s3", how)  # type: ignore[arg-type]
        codes = {sku: await shop.update(sku, 5) for sku in skus}
        async with running_market_worker(FAST, database_url, keyring):
            await shop.hub.ended(*(code for sku, code in codes.items() if sku != "s3"))
            if how == "refuse":
                await shop.hub.ended(codes["s3"])
                assert (await shop.state("s3"))["state"] == "parked"
        assert {(await shop.item(code))["success"] for sku, code in codes.items() if sku != "s3"} == {True}
        assert {shop.account.shown[sku] for sku in skus if sku != "s3"} == {5}


# --- Floor ---


async def test_below_the_floor_the_minimum_is_sent_at_once_and_the_rest_is_kept_waiting(shop: Shop) -> None:
    await shop.hub.ended(await shop.update("a", 50))
    shop.account.reserve("a", 8)
    code = await shop.update("a", 3)
    await shop.waiting_for("floor")
    assert shop.account.quantities("a") == [50, 8]
    assert (await shop.item(code))["progress"] is True
    shop.account.reserve("a", 0)
    await shop.hub.later(FAST.floor_retry_seconds)
    await shop.hub.ended(code)
    assert shop.account.quantities("a") == [50, 8, 3]
    assert (await shop.state())["quantity_floor"] is None


async def test_a_floor_that_is_still_there_is_met_again(shop: Shop) -> None:
    await shop.hub.ended(await shop.update("a", 50))
    shop.account.reserve("a", 8)
    await shop.update("a", 3)
    await shop.waiting_for("floor")
    shop.account.reserve("a", 5)
    await shop.hub.later(FAST.floor_retry_seconds)
    await shop.account.wait_for_writes(3)
    await shop.waiting_for("floor")
    assert shop.account.quantities("a") == [50, 8, 5]


async def test_a_floor_is_not_sent_where_less_is_shown_already(shop: Shop) -> None:
    await shop.hub.ended(await shop.update("a", 5))
    shop.account.say("a", Floor(9, "9 are reserved"))
    await shop.update("a", 3)
    await shop.waiting_for("floor")
    assert shop.account.quantities("a") == [5]


async def test_an_unclear_call_that_lands_over_a_floor_is_taken_down_again(shop: Shop) -> None:
    shop.account.reserve("a", 5)
    async with shop.account.gate() as gate:
        await shop.update("a", 20)
        await gate.entered()
        await shop.update("a", 2)
        gate.let_later_pass()
        await shop.waiting_for("floor")  # the first call has timed out
        gate.open()
        await shop.account.wait_for_writes(2)
    assert shop.account.quantities("a") == [5, 20]
    await shop.hub.later(max(QUIESCE_SECONDS, FAST.floor_retry_seconds))
    await shop.account.wait_for_writes(3)
    await shop.waiting_for("floor")
    assert shop.account.quantities("a") == [5, 20, 5]
    assert (await shop.state())["doubtful_until"] is None
    calls = len(shop.account.called())
    await shop.hub.later(FAST.floor_retry_seconds)
    await shop.account.wait_for_calls(calls + 1)
    await shop.waiting_for("floor")
    assert shop.account.quantities("a") == [5, 20, 5]  # nothing is in doubt any more, and no more than that is shown


async def test_a_floor_that_was_learnt_before_an_outage_does_not_put_up_what_was_sold_meanwhile(shop: Shop) -> None:
    await shop.hub.ended(await shop.update("a", 60))
    shop.account.reserve("a", 50)
    async with shop.account.gate(after=True) as gate:
        code = await shop.update("a", 2)
        await gate.entered()  # the marketplace has answered that 50 is the least, and goes away
        shop.account.fail_next(503, {"error": "maintenance"}, times=2)
    await shop.account.wait_for_calls(3)
    shop.account.sold("a", 40)
    shop.account.reserve("a", 0)
    await shop.hub.ended(code)
    assert shop.account.quantities("a") == [60, 2]


# --- Deferred and Conflict ---


async def test_a_campaign_defers_a_listing_and_the_newest_goes_out_after_it(shop: Shop) -> None:
    shop.account.say("a", Deferred(1000.0, "Flash sale"))
    older = await shop.update("a", 20)
    await shop.waiting_for("deferred")
    newer = await shop.update("a", 21)
    await shop.hub.later(1000.0)
    await shop.hub.ended(older, newer)
    assert shop.account.quantities("a") == [21]


async def test_a_compare_and_set_that_is_stale_is_decided_again_with_what_is_shown(shop: Shop) -> None:
    shop.account.compare_and_set = True
    await shop.hub.ended(await shop.update("a", 20))
    shop.account.sold("a", 4)
    await shop.hub.ended(await shop.update("a", 30))
    pushes = [call.items[0].expected for call in shop.account.called("/push")]
    assert pushes[-2:] == [20, 16]
    assert shop.account.shown["a"] == 30


async def test_a_conflict_that_does_not_say_what_is_shown_leaves_nothing_expected(shop: Shop) -> None:
    await shop.hub.ended(await shop.update("a", 20))
    shop.account.say("a", Conflict(None))
    await shop.hub.ended(await shop.update("a", 30))
    assert [call.items[0].expected for call in shop.account.called("/push")][-2:] == [20, None]


async def test_an_answer_for_a_listing_may_be_unclear_while_the_others_are_clear(shop: Shop) -> None:
    shop.account.say("a", InDoubt("Perhaps"))
    codes = [await shop.update(sku, 6) for sku in ("a", "b", "c")]
    await shop.hub.ended(*codes)
    assert await shop.hub.waits() == ["confirmation"]
