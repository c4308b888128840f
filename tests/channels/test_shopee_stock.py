"""Shopee: stock updates: what is sent, and what each answer says of each listing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.base import (
    Accepted,
    Attempt,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Push,
    Rejected,
    Row,
    Scope,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.call import Answered
from lumbung.channels.http import Answer, NoAnswer, NotSent
from lumbung.channels.shopee import errors
from lumbung.channels.shopee.manifest import MANIFEST
from lumbung.channels.shopee.wire import Envelope

from .shopee_transport import NOW, answer, envelope, push, session, updated, variant

UNMENTIONED = InDoubt("Shopee's answer does not mention the listing")
LOCATIONS = (
    "The listing's locations are not as Shopee keeps them (`lumbung store link` names them, `lumbung store"
    " forget-location` is for one that is gone): "
)
BOTH = InDoubt("Shopee's answer contradicts itself: taken and refused")


def contradicts(came: str, sent: str) -> InDoubt:
    return InDoubt(f"Shopee's answer contradicts what was sent: {came} instead of {sent}")


def gone(words: str) -> Rejected:
    return Rejected(f"Shopee does not know the item or variation, or has closed it: {words}")


async def attempt(body: bytes, *pushes: Push, status: int = 200) -> Attempt:
    store, transport = session(answer(status, body))
    got = await store.push(pushes)
    assert len(transport.requests) == 1
    return got


async def outcomes(body: bytes, *pushes: Push, status: int = 200) -> list[Outcome]:
    got = await attempt(body, *pushes, status=status)
    assert [row.listing_id for row in got.rows] == [each.listing_id for each in pushes]
    return [row.outcome for row in got.rows]


# --- What is sent ---


async def test_one_call_says_all_variations_of_an_item() -> None:
    store, transport = session(answer(200, updated({"model_id": 55, "stock": 5}, {"model_id": 56, "stock": 0})))
    got = await store.push([push(1, 55), push(2, 56, 0)])
    ((method, _, _, body, _),) = transport.requests
    assert method == "POST"
    assert body == (
        b'{"item_id":12346,"stock_list":[{"model_id":55,"seller_stock":[{"stock":5}]},'
        b'{"model_id":56,"seller_stock":[{"stock":0}]}]}'
    )
    assert [row.outcome for row in got.rows] == [Accepted(), Accepted()]
    assert got.as_a_whole is False


async def test_an_item_without_variations_is_its_model_0() -> None:
    store, transport = session(answer(200, updated({"model_id": 0, "location_id": "", "stock": 7})))
    got = await store.push([push(1, 0, 7)])
    assert transport.sent == {"item_id": 12346, "stock_list": [{"model_id": 0, "seller_stock": [{"stock": 7}]}]}
    assert got.rows == (Row(1, Accepted(), '{"model_id": 0, "location_id": "", "stock": 7}'),)


async def test_each_location_is_an_entry_and_all_together_are_the_quantity() -> None:
    taken = [{"model_id": 55, "location_id": "IDZ", "stock": 6}, {"model_id": 55, "location_id": "IDB", "stock": 1}]
    store, transport = session(answer(200, updated(*taken)))
    got = await store.push([push(1, 55, 7, IDZ=4, IDB=1)])
    stock = [{"location_id": "IDB", "stock": 1}, {"location_id": "IDZ", "stock": 6}]
    assert transport.sent == {"item_id": 12346, "stock_list": [{"model_id": 55, "seller_stock": stock}]}
    assert [row.outcome for row in got.rows] == [Accepted()]
    assert json.loads(got.rows[0].answer) == taken


async def test_nothing_to_push_is_no_call() -> None:
    store, transport = session(answer(200, updated()))
    got = await store.push([])
    assert (got.rows, got.calls, transport.requests) == ((), (), [])


async def test_ids_that_cannot_be_are_rejected_and_the_rest_goes_on() -> None:
    store, transport = session(answer(200, updated({"model_id": 55, "stock": 5})))
    got = await store.push([Push(1, '{"blibli_sku": "A"}', 5), push(2, 55)])
    assert isinstance(got.rows[0].outcome, Rejected)
    assert got.rows[1].outcome == Accepted()
    assert transport.sent == {"item_id": 12346, "stock_list": [{"model_id": 55, "seller_stock": [{"stock": 5}]}]}


async def test_only_ids_that_cannot_be_are_no_call() -> None:
    store, transport = session(answer(200, updated()))
    got = await store.push([Push(1, "not one", 5)])
    assert [type(row.outcome) for row in got.rows] == [Rejected]
    assert (got.calls, transport.requests) == ((), [])


@pytest.mark.parametrize(
    ("pushes", "words"),
    [
        ([push(1, 55), Push(2, variant(55, item_id=9), 5)], "2 items in one call"),
        ([push(1, 55), push(2, 55)], "a variation twice"),
        ([push(number, number) for number in range(1, MANIFEST.batch_max + 2)], "51 listings in one call"),
        ([push(1, 55, -1)], "below 0"),
        ([push(1, 55, 1, IDZ=2)], "more than its quantity"),
    ],
)
async def test_a_callers_bug_is_loud_and_nothing_is_sent(pushes: list[Push], words: str) -> None:
    store, transport = session(answer(200, updated()))
    with pytest.raises(ValueError, match=words):
        await store.push(pushes)
    assert transport.requests == []


async def test_a_store_without_tokens_makes_no_call() -> None:
    store, transport = session(answer(200, updated()), tokens=None)
    refused = Unauthorized("The store is not authorised yet: run `lumbung store authorize`", refreshable=False)
    got = await store.push([push(1, 55), push(2, 56)])
    assert got == Attempt((Row(1, refused), Row(2, refused)), ())
    assert transport.requests == []


# --- What is said of each listing ---


async def test_a_success_that_hides_a_refusal_is_split() -> None:
    body = updated(
        {"model_id": 55, "location_id": "", "stock": 5},
        failed=[{"model_id": 56, "failed_reason": "model ID not exist in sku"}],
    )
    got = await attempt(body, push(1, 55), push(2, 56))
    assert got.rows == (
        Row(1, Accepted(), '{"model_id": 55, "location_id": "", "stock": 5}'),
        Row(2, gone("model ID not exist in sku"), '{"model_id": 56, "failed_reason": "model ID not exist in sku"}'),
    )
    assert got.as_a_whole is False


async def test_a_failure_that_hides_a_success_is_split_alike() -> None:
    code = "product.error_busi_update_stock_failed"
    body = updated(
        {"model_id": 55, "location_id": "", "stock": 5},
        failed=[{"model_id": 56, "failed_reason": "Stock should be larger than 9 (reserve stock number)"}],
        error=code,
        message="Update stock failed, please check failure_list for detailed reason",
    )
    got = await attempt(body, push(1, 55), push(2, 56))
    reserved = f"More is reserved than was sent: {code}: Stock should be larger than 9 (reserve stock number)"
    assert [row.outcome for row in got.rows] == [Accepted(), Floor(9, reserved)]
    assert got.as_a_whole is False


async def test_each_listing_has_its_own_reason() -> None:
    failed = [
        {"model_id": 55, "failed_reason": "Cannot change stock when item is under promotion."},
        {"model_id": 56, "failed_reason": "System error, please try later"},
        {"model_id": 57, "failed_reason": ""},
        {"model_id": 58},
    ]
    got = await outcomes(updated(failed=failed), push(1, 55), push(2, 56), push(3, 57), push(4, 58))
    assert got == [
        Deferred(None, "Locked for now: Cannot change stock when item is under promotion."),
        InDoubt("Shopee is not sure: System error, please try later"),
        Rejected("Shopee refused: HTTP 200, no reason given"),
        Rejected("Shopee refused: HTTP 200, no reason given"),
    ]


@pytest.mark.parametrize(
    ("taken", "outcome"),
    [
        ([{"model_id": 55, "stock": 5}], Accepted()),
        ([{"model_id": "55", "stock": "5"}], Accepted()),
        ([{"model_id": 55, "location_id": None, "stock": 5}], Accepted()),
        ([{"model_id": 55, "location_id": "SGZ", "stock": 5}], Accepted()),
        ([{"model_id": 55, "stock": 5}, {"model_id": 55, "stock": 5}], Accepted()),
        ([{"model_id": 55, "stock": 4}], contradicts("4", "5")),
        ([{"model_id": 55}], contradicts("None", "5")),
        ([{"model_id": 55, "stock": 5}, {"model_id": 55, "stock": 4}], contradicts("None", "5")),
        (
            [{"model_id": 55, "location_id": "A", "stock": 5}, {"model_id": 55, "location_id": "B", "stock": 5}],
            contradicts("A 5, B 5", "5"),
        ),
        ([], UNMENTIONED),
        ([{"model_id": 56, "stock": 5}], UNMENTIONED),
        ([{"stock": 5}], UNMENTIONED),
        ([{"model_id": 55, "stock": -5}], UNMENTIONED),
        ([{"model_id": [], "stock": 5}], UNMENTIONED),
        ([None, 5, {"model_id": 55, "stock": 5}], Accepted()),
    ],
)
async def test_what_was_sent_must_come_back(taken: list[Mapping[str, object]], outcome: Outcome) -> None:
    assert await outcomes(updated(*taken), push(1, 55)) == [outcome]


@pytest.mark.parametrize(
    ("taken", "outcome"),
    [
        ([{"location_id": "IDZ", "stock": 4}, {"location_id": "IDB", "stock": 1}], Accepted()),
        ([{"location_id": "IDZ", "stock": 4}], contradicts("IDZ 4", "IDB 1, IDZ 4")),
        (
            [{"location_id": "IDZ", "stock": 1}, {"location_id": "IDB", "stock": 4}],
            contradicts("IDB 4, IDZ 1", "IDB 1, IDZ 4"),
        ),
        ([{"stock": 5}], contradicts("5", "IDB 1, IDZ 4")),
        (
            [{"location_id": "IDZ", "stock": 4}, {"location_id": "IDB", "stock": 1}, {"location_id": "X", "stock": 9}],
            contradicts("IDB 1, IDZ 4, X 9", "IDB 1, IDZ 4"),
        ),
    ],
)
async def test_every_location_must_come_back(taken: list[dict[str, object]], outcome: Outcome) -> None:
    body = updated(*({"model_id": 55, **entry} for entry in taken))
    assert await outcomes(body, push(1, 55, 5, IDZ=4, IDB=1)) == [outcome]


async def test_a_location_that_was_refused_is_the_listings_reason() -> None:
    reason = "Invalid stock location ID"
    body = updated(
        {"model_id": 55, "location_id": "IDZ", "stock": 4}, failed=[{"model_id": 55, "failed_reason": reason}]
    )
    misplaced = Misconfigured(LOCATIONS + reason)
    got = await attempt(body, push(1, 55, 5, IDZ=4, IDB=1))
    assert [row.outcome for row in got.rows] == [misplaced]
    assert json.loads(got.rows[0].answer) == [
        {"model_id": 55, "location_id": "IDZ", "stock": 4},
        {"model_id": 55, "failed_reason": reason},
    ]


async def test_a_throttle_of_one_location_leaves_doubt_when_another_was_taken() -> None:
    failed = [{"model_id": 55, "failed_reason": "Too many requests"}]
    body = updated({"model_id": 55, "location_id": "IDZ", "stock": 4}, failed=failed)
    slow = "Shopee asks to slow down: Too many requests"
    locations = {"IDZ": 4, "IDB": 1}
    assert await outcomes(body, push(1, 55, 5, **locations)) == [InDoubt(f"Some of it was taken: {slow}")]
    assert await outcomes(updated(failed=failed), push(1, 55, 5, **locations)) == [Throttled(None, Scope.STORE, slow)]


@pytest.mark.parametrize("stock", [5, 4])
async def test_what_is_taken_and_refused_at_once_is_in_doubt(stock: int) -> None:
    body = updated({"model_id": 55, "stock": stock}, failed=[{"model_id": 55, "failed_reason": "not found"}])
    assert await outcomes(body, push(1, 55)) == [BOTH]


async def test_of_two_reasons_the_doubtful_one_counts() -> None:
    failed = [
        {"model_id": 55, "failed_reason": "Invalid stock location ID"},
        {"model_id": 55, "failed_reason": "System error"},
    ]
    assert await outcomes(updated(failed=failed), push(1, 55)) == [InDoubt("Shopee is not sure: System error")]


async def test_under_a_top_level_error_what_the_lists_leave_out_is_in_doubt() -> None:
    body = updated({"model_id": 55, "stock": 5}, error="error_auth", message="Total stock must be more")
    assert await outcomes(body, push(1, 55), push(2, 56)) == [Accepted(), UNMENTIONED]


@pytest.mark.parametrize(
    "response",
    [None, "", [], {}, {"success_list": [], "failure_list": []}, {"success_list": None, "failure_list": None}],
)
async def test_a_success_without_lists_is_in_doubt(response: object) -> None:
    assert await outcomes(envelope(response), push(1, 55)) == [UNMENTIONED]


@pytest.mark.parametrize("response", ["x", 5, [1], {"success_list": {}}, {"failure_list": "x"}])
@pytest.mark.parametrize("error", ["", "error_param"])
async def test_lists_that_cannot_be_read_are_in_doubt(response: object, error: str) -> None:
    got = await attempt(envelope(response, error=error), push(1, 55), push(2, 56))
    assert {row.outcome for row in got.rows} == {InDoubt("Shopee's lists cannot be read")}
    assert got.as_a_whole is False


@pytest.mark.parametrize("name", ["success_list", "failure_list"])
async def test_a_list_longer_than_an_updates_is_no_answer(name: str) -> None:
    unreadable = InDoubt("Shopee's lists cannot be read")
    for pushed, most in ((push(1, 55), 50), (push(1, 55, 5, IDZ=4, IDB=1), 100)):
        longer = envelope({name: [{"model_id": 56}] * (most + 1)})
        assert await outcomes(longer, pushed) == [unreadable]
        assert await outcomes(envelope({name: [{"model_id": 56}] * most}), pushed) == [UNMENTIONED]


async def test_a_reason_that_many_listings_share_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    real = errors.of_a_listing

    def counted(answered: Answered, answer: Envelope, reason: str, *, others_taken: bool) -> Outcome:
        looked_up.append(reason)
        return real(answered, answer, reason, others_taken=others_taken)

    monkeypatch.setattr(errors, "of_a_listing", counted)
    pushes = [push(number, number) for number in range(1, 51)]
    reason = "than reserve stock " * 100
    body = updated(failed=[{"model_id": number, "failed_reason": reason} for number in range(1, 51)])
    got = await outcomes(body, *pushes)
    assert looked_up == [reason[:500].strip()]
    assert got == [Deferred(None, f"More is reserved than was sent: {looked_up[0]}")] * 50


async def test_one_listing_that_is_refused_for_the_shop_does_not_stop_its_siblings_store() -> None:
    failed = [{"model_id": 56, "failed_reason": "shop_id is invalid"}]
    got = await outcomes(updated({"model_id": 55, "stock": 5}, failed=failed), push(1, 55), push(2, 56))
    assert got == [Accepted(), Misconfigured("Shopee does not accept the store: shop_id is invalid", Scope.LISTING)]


async def test_a_listing_that_does_not_exist_is_rejected_under_a_servers_error_too() -> None:
    body = updated(
        {"model_id": 55, "stock": 5},
        failed=[{"model_id": 56, "failed_reason": "model ID not exist"}],
        error="error_server",
    )
    assert await outcomes(body, push(1, 55), push(2, 56)) == [
        Accepted(),
        gone("error_server: model ID not exist"),
    ]


async def test_a_success_under_a_status_that_fails_is_in_doubt() -> None:
    body = updated({"model_id": 55, "stock": 5})
    contradiction = InDoubt("Shopee's answer contradicts itself: HTTP 400, no reason given")
    assert await outcomes(body, push(1, 55), status=400) == [contradiction]
    failed = InDoubt("Shopee failed: HTTP 502, no reason given")
    assert await outcomes(body, push(1, 55), status=502) == [failed]


# --- What is said of the whole call ---


@pytest.mark.parametrize(
    ("code", "message", "outcome"),
    [
        ("error_item_not_found", "", gone("error_item_not_found")),
        ("error_param", "Wrong model_id", gone("error_param: Wrong model_id")),
        ("error_nobody_knows", "", Rejected("Shopee refused: error_nobody_knows")),
        (
            "error_inner",
            "Invalid stock location ID",
            Misconfigured(LOCATIONS + "error_inner: Invalid stock location ID"),
        ),
        (
            "error_promotion_cantnot_update_stock",
            "",
            Deferred(None, "Locked for now: error_promotion_cantnot_update_stock"),
        ),
    ],
)
async def test_a_refusal_that_may_be_one_listings_is_cut_in_halves(code: str, message: str, outcome: Outcome) -> None:
    body = envelope(error=code, message=message)
    several = await attempt(body, push(1, 55), push(2, 56))
    alone = await attempt(body, push(1, 55))
    assert several.rows == (Row(1, outcome, body.decode()), Row(2, outcome, body.decode()))
    assert several.as_a_whole is True
    assert alone.rows == (Row(1, outcome, body.decode()),)
    assert alone.as_a_whole is False


async def test_an_update_that_failed_without_lists_is_in_doubt_for_all() -> None:
    body = envelope(error="error_busi_update_stock_failed", message="Update stock failed, please check failure_list")
    got = await attempt(body, push(1, 55), push(2, 56))
    unsure = InDoubt(
        "Shopee is not sure: error_busi_update_stock_failed: Update stock failed, please check failure_list"
    )
    assert [row.outcome for row in got.rows] == [unsure, unsure]
    assert got.as_a_whole is False


async def test_a_floor_of_a_whole_call_is_nobodys_until_it_is_alone() -> None:
    body = envelope(error="error.param", message="Can not update item with stock less than reserved stock: 9")
    spoken = "More is reserved than was sent: error.param: Can not update item with stock less than reserved stock: 9"
    several = await attempt(body, push(1, 55), push(2, 56, 0))
    alone = await attempt(body, push(1, 55))
    assert [row.outcome for row in several.rows] == [Rejected(spoken), Rejected(spoken)]
    assert several.as_a_whole is True
    assert [row.outcome for row in alone.rows] == [Floor(9, spoken)]
    assert alone.as_a_whole is False


@pytest.mark.parametrize(
    ("exchange", "outcome"),
    [
        (answer(200, envelope(error="error_server")), InDoubt("Shopee is not sure: error_server")),
        (
            answer(200, envelope(error="error_rate_limit"), 2.0),
            Throttled(2.0, Scope.STORE, "Shopee asks to slow down: error_rate_limit"),
        ),
        (
            answer(403, envelope(error="invalid_acceess_token")),
            Unauthorized("Shopee does not accept the access token: invalid_acceess_token", refreshable=True),
        ),
        (
            answer(200, envelope(error="error_shop")),
            Misconfigured("Shopee does not accept the store: error_shop", Scope.STORE),
        ),
        (
            answer(200, envelope(error="error_holiday_mode_change_stock")),
            Deferred(None, "Locked for now: error_holiday_mode_change_stock"),
        ),
        (answer(429, b"", 60.0), Throttled(60.0, Scope.STORE, "Shopee asks to slow down: HTTP 429")),
        (answer(503, b"", 60.0), InDoubt("Shopee failed: HTTP 503")),
        (NotSent("refused", NOW, 1.0), Unavailable("refused")),
        (NoAnswer("reset", NOW, 1.0), InDoubt("reset")),
    ],
)
async def test_what_is_no_listings_fault_is_not_cut(exchange: Answer | NotSent | NoAnswer, outcome: Outcome) -> None:
    store, _ = session(exchange)
    got = await store.push([push(1, 55), push(2, 56)])
    assert [row.outcome for row in got.rows] == [outcome, outcome]
    assert got.as_a_whole is False


async def test_shopees_words_are_one_line_of_bounded_length() -> None:
    body = envelope(error="error_x", message="a\nb\x1b[31m\u2028" + "x" * 5000)
    (outcome,) = await outcomes(body, push(1, 55))
    assert isinstance(outcome, Rejected)
    assert outcome.message.startswith("Shopee refused: error_x: a b [31m xxx")
    assert len(outcome.message) < 600


async def test_shopee_that_echoes_our_secrets_does_not_get_them_kept() -> None:
    store, transport = session(answer(200, b""))
    await store.push([push(1, 55)])
    echo = f"test_partner_key refresh_abc tok_abc {transport.query['sign']}"
    reason = json.dumps({"model_id": 56, "failed_reason": echo})
    for body in (envelope(error="E", message=echo), updated(failed=[json.loads(reason)])):
        store, _ = session(answer(200, body))
        got = await store.push([push(1, 55), push(2, 56)])
        for secret in echo.split():
            assert secret not in repr(got)
        assert "*** *** *** ***" in got.rows[1].answer


# --- Anything at all ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "model_id": st.sampled_from([0, 55, 56, "55"]) | json_values,
        "location_id": st.sampled_from(["", "IDZ", None]) | json_values,
        "stock": st.sampled_from([5, 0, "5"]) | json_values,
        "failed_reason": st.text() | json_values,
    },
)
codes = st.sampled_from(["", "error_auth", "product.error_busi_update_stock_failed", "error_limit"])
bodies = st.binary() | st.fixed_dictionaries(
    {},
    optional={
        "error": codes | json_values,
        "message": st.text() | json_values,
        "response": json_values
        | st.fixed_dictionaries({}, optional={"success_list": st.lists(entries), "failure_list": st.lists(entries)}),
    },
).map(lambda value: json.dumps(value).encode())
exchanges = st.one_of(
    st.builds(
        Answer,
        status=st.sampled_from([101, 200, 201, 204, 302, 400, 401, 403, 404, 422, 429, 500, 503])
        | st.integers(100, 999),
        body=bodies,
        headers=st.just({}),
        started_at=st.just(NOW),
        duration_ms=st.just(1.0),
        retry_after_seconds=st.none() | st.floats(0, 1e9),
    ),
    st.builds(NotSent, st.text(), st.just(NOW), st.just(1.0)),
    st.builds(NoAnswer, st.text(), st.just(NOW), st.just(1.0)),
)


@given(exchanges)
def test_whatever_a_server_answers_there_is_one_row_each_and_text_that_can_be_kept(
    exchange: Answer | NotSent | NoAnswer,
) -> None:
    store, transport = session(exchange)
    got = asyncio.run(store.push([push(7, 55), push(8, 56), push(9, 0, 5, IDZ=4, IDB=1)]))
    assert [row.listing_id for row in got.rows] == [7, 8, 9]
    assert (len(got.calls), len(transport.requests)) == (1, 1)
    for row in got.rows:
        if isinstance(row.outcome, Accepted):
            assert isinstance(exchange, Answer)
            assert exchange.status < 500
            assert b"success_list" in exchange.body
        if isinstance(exchange, NotSent):
            assert row.outcome == Unavailable(exchange.message)
        if row.answer:
            json.loads(row.answer)
    assert not got.as_a_whole or not any(isinstance(row.outcome, Accepted | Floor) for row in got.rows)
    assert "\0" not in got.calls[0].response
    got.calls[0].response.encode()


@given(st.binary(), st.sampled_from([200, 403, 500]), st.sampled_from(["", "error_auth", "E"]))
def test_a_server_that_echoes_our_secrets_amid_anything_does_not_get_them_kept(
    noise: bytes, status: int, code: str
) -> None:
    around = noise.decode("latin-1")
    echo = f"{around}test_partner_key{around}tok_abc{around}refresh_abc"
    for body in (echo.encode(), envelope(echo, error=code, message=echo), updated(failed=[echo], error=code)):
        store, _ = session(answer(status, body))
        kept = repr(asyncio.run(store.push([push(1, 55)])))
        for secret in ("test_partner_key", "tok_abc", "refresh_abc"):
            assert secret not in kept
