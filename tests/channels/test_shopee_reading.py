"""Shopee: what is read back, and the check."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbung.channels.base import (
    Accepted,
    Deferred,
    InDoubt,
    Misconfigured,
    Observed,
    Outcome,
    Push,
    ReadRow,
    Rejected,
    Scope,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.http import Answer, Exchange, NoAnswer, NotSent
from lumbung.channels.shopee.manifest import MANIFEST

from .shopee_transport import NOW, answer, envelope, session, variant

UNREADABLE = Rejected("Shopee shows no stock that can be read")


def stock(*seller: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"stock_info_v2": {"seller_stock": list(seller), **more}}


def item(item_id: int, *seller: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"item_id": item_id, "item_status": "NORMAL", "has_model": False, **stock(*seller), **more}


def items(*entries: object) -> bytes:
    return envelope({"item_list": list(entries)})


def models(*entries: object) -> bytes:
    return envelope({"tier_variation": [], "model": list(entries)})


def of_item(listing_id: int, item_id: int, **locations: int) -> Push:
    return Push(listing_id, variant(0, item_id), sum(locations.values()), locations)


def of_model(listing_id: int, model_id: int, **locations: int) -> Push:
    return Push(listing_id, variant(model_id), sum(locations.values()), locations)


async def read(body: bytes, *pushes: Push) -> list[object]:
    store, transport = session(answer(200, body))
    reading = await store.read(pushes)
    assert (len(reading.calls), len(transport.requests)) == (1, 1)
    assert [row.listing_id for row in reading.rows] == [push.listing_id for push in pushes]
    return [row.seen for row in reading.rows]


# --- Items ---


async def test_items_without_variations_are_read_together() -> None:
    body = items(item(7, {"location_id": "", "stock": 3, "if_saleable": True}), item(9, {"stock": 0}))
    store, transport = session(answer(200, body))
    reading = await store.read([of_item(1, 9), of_item(2, 7), of_item(3, 9)])
    ((method, url, headers, sent, _),) = transport.requests
    assert (method, urlsplit(url).path, sent) == ("GET", "/api/v2/product/get_item_base_info", None)
    assert transport.query["item_id_list"] == "7,9"
    assert "Content-Type" not in headers
    assert reading.rows == (ReadRow(1, Observed(0)), ReadRow(2, Observed(3)), ReadRow(3, Observed(0)))
    (call,) = reading.calls
    assert (call.method, call.request, call.status, call.response) == ("GET", "", 200, body.decode())


@pytest.mark.parametrize(
    ("entry", "seen"),
    [
        (item(7, {"stock": 3}), Observed(3)),
        (item(7, {"stock": "3"}), Observed(3)),
        ({**item(7), **stock({"stock": 3}, shopee_stock=[{"location_id": "IDG", "stock": "99"}])}, Observed(3)),
        (item(7, {"location_id": "IDZ", "stock": 3}, {"location_id": "IDB", "stock": 4}), Observed(7)),
        (item(7), UNREADABLE),
        (item(7, {"stock": 0}), Observed(0)),
        (item(7, {"stock": 3}, item_status="BANNED"), Observed(3)),
        (item(7, {"stock": 3}, item_status="UNLIST"), Observed(3)),
        (item(7, {"stock": 3}, item_status="SELLER_DELETE"), Rejected("Item 7 is deleted on Shopee")),
        (item(7, {"stock": 3}, item_status="SHOPEE_DELETE"), Rejected("Item 7 is deleted on Shopee")),
        (
            item(7, {"stock": 3}, has_model=True),
            Rejected("Item 7 has variations on Shopee: each is a listing of its own"),
        ),
        (item(8, {"stock": 3}), Rejected("Shopee does not know item 7")),
        (item(7, {"stock": -1}), Rejected("Shopee does not know item 7")),
        ({"item_id": 7}, UNREADABLE),
        ({"item_id": 7, "stock_info_v2": None}, UNREADABLE),
        ({"item_id": 7, "stock_info_v2": {"summary_info": {"total_available_stock": 3}}}, UNREADABLE),
        (None, Rejected("Shopee does not know item 7")),
    ],
)
async def test_what_an_item_shows(entry: object, seen: object) -> None:
    assert await read(items(entry), of_item(1, 7)) == [seen]


async def test_only_the_listings_own_locations_count() -> None:
    entry = item(
        7,
        {"location_id": "IDZ", "stock": 3},
        {"location_id": "IDB", "stock": 4},
        {"location_id": "IDX", "stock": 50},
    )
    got = await read(items(entry), of_item(1, 7, IDZ=1, IDB=1), of_item(2, 7, IDB=1, GONE=1), of_item(3, 7))
    assert got == [Observed(7), Observed(4), Observed(57)]


@pytest.mark.parametrize("place", [{"location_id": "IDX"}, {"location_id": ""}, {"location_id": None}, {}])
async def test_a_listing_that_is_shown_at_none_of_its_locations_is_not_read(place: dict[str, object]) -> None:
    shown = {**place, "stock": 100}
    assert await read(items(item(7, shown)), of_item(1, 7, IDZ=1)) == [UNREADABLE]
    assert await read(models({"model_id": 55, **stock(shown)}), of_model(1, 55, IDZ=1)) == [UNREADABLE]


async def test_a_list_longer_than_any_items_is_no_answer() -> None:
    longer = [{"model_id": 55, **stock({"stock": 3})}] * 1001
    assert await read(models(*longer), of_model(1, 55)) == [Unavailable("Shopee's answer cannot be read")]
    assert await read(models(*longer[1:]), of_model(1, 55)) == [Observed(3)]
    assert await read(items(*[item(7, {"stock": 3})] * 1001), of_item(1, 7)) == [
        Unavailable("Shopee's answer cannot be read")
    ]


@pytest.mark.parametrize("response", [{}, {"item_list": []}, {"item_list": None}])
async def test_an_item_that_is_left_out_is_not_known(response: object) -> None:
    assert await read(envelope(response), of_item(1, 7)) == [Rejected("Shopee does not know item 7")]


@pytest.mark.parametrize("response", [None, [], "x", {"item_list": {}}])
async def test_a_list_that_cannot_be_read_is_read_again_later(response: object) -> None:
    assert await read(envelope(response), of_item(1, 7)) == [Unavailable("Shopee's answer cannot be read")]


async def test_a_refusal_of_several_items_is_no_verdict_on_each() -> None:
    body = envelope(error="error_item_not_found")
    words = "Shopee does not know the item or variation, or has closed it: error_item_not_found"
    several = Unavailable(f"One of 2 items cannot be read: {words}")
    assert await read(body, of_item(1, 7), of_item(2, 8)) == [several, several]
    assert await read(body, of_item(1, 7), of_item(2, 7)) == [Rejected(words), Rejected(words)]
    assert await read(body, of_model(1, 55), of_model(2, 56)) == [Rejected(words), Rejected(words)]


# --- Variations ---


async def test_variations_are_read_by_item() -> None:
    body = models({"model_id": 55, **stock({"stock": 3})}, {"model_id": 56, **stock({"stock": 4})})
    store, transport = session(answer(200, body))
    reading = await store.read([of_model(1, 56), of_model(2, 55)])
    ((method, url, _, sent, _),) = transport.requests
    assert (method, urlsplit(url).path, sent) == ("GET", "/api/v2/product/get_model_list", None)
    assert transport.query["item_id"] == "12346"
    assert reading.rows == (ReadRow(1, Observed(4)), ReadRow(2, Observed(3)))


@pytest.mark.parametrize(
    ("entry", "seen"),
    [
        ({"model_id": 55, **stock({"stock": 3}, shopee_stock=[{"location_id": "IDG", "stock": "99"}])}, Observed(3)),
        ({"model_id": 55, "model_status": "MODEL_UNAVAILABLE", **stock({"stock": 3})}, Observed(3)),
        ({"model_id": 55, **stock({"location_id": "A", "stock": 3}, {"location_id": "B", "stock": 4})}, Observed(7)),
        ({"model_id": 55}, UNREADABLE),
        ({"model_id": 54, **stock({"stock": 3})}, Rejected("Item 12346 has no variation 55 on Shopee")),
        ([], Rejected("Item 12346 has no variation 55 on Shopee")),
    ],
)
async def test_what_a_variation_shows(entry: object, seen: object) -> None:
    assert await read(models(entry), of_model(1, 55)) == [seen]


# --- Trouble ---


async def test_nothing_to_read_is_no_call() -> None:
    store, transport = session(answer(200, items()))
    reading = await store.read([])
    assert (reading.rows, reading.calls, transport.requests) == ((), (), [])


async def test_ids_that_cannot_be_are_not_read_while_the_others_are() -> None:
    got = await read(items(item(7, {"stock": 3})), of_item(1, 7), Push(2, "not one", 0), of_item(3, 7))
    assert (got[0], got[2]) == (Observed(3), Observed(3))
    assert isinstance(got[1], Rejected)


@pytest.mark.parametrize(
    ("pushes", "words"),
    [
        ([of_item(1, 7), of_model(2, 55)], "one call cannot read"),
        ([of_model(1, 55), Push(2, variant(55, 9), 0)], "one call cannot read"),
        ([of_item(number, number) for number in range(1, MANIFEST.read_max + 2)], "51 listings in one call"),
    ],
)
async def test_what_one_call_cannot_read_is_a_callers_bug(pushes: list[Push], words: str) -> None:
    store, transport = session(answer(200, items()))
    with pytest.raises(ValueError, match=words):
        await store.read(pushes)
    assert transport.requests == []


async def test_a_store_without_tokens_reads_and_checks_nothing() -> None:
    store, transport = session(answer(200, items()), tokens=None)
    refused = Unauthorized("The store is not authorised yet: run `lumbung store authorize`", refreshable=False)
    reading = await store.read([of_item(1, 7), Push(2, "not one", 0)])
    assert reading.rows[0] == ReadRow(1, refused)
    assert isinstance(reading.rows[1].seen, Rejected)
    assert (reading.calls, await store.check(), transport.requests) == ((), refused, [])


@pytest.mark.parametrize(
    ("exchange", "seen"),
    [
        (
            answer(429, b"", 3.0),
            Throttled(3.0, Scope.STORE, "Shopee asks to slow down: HTTP 429"),
        ),
        (
            answer(200, envelope(error="invalid_acceess_token")),
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
        (answer(200, envelope(error="error_server")), Unavailable("Shopee is not sure: error_server")),
        (answer(500, b""), Unavailable("Shopee failed: HTTP 500")),
        (answer(200, b"<html>"), Unavailable("Shopee's answer cannot be read: HTTP 200")),
        (NotSent("refused", NOW, 1.0), Unavailable("refused")),
        (NoAnswer("reset", NOW, 1.0), Unavailable("reset")),
    ],
)
async def test_a_read_that_fails_leaves_no_doubt(exchange: Exchange, seen: Outcome) -> None:
    store, _ = session(exchange)
    reading = await store.read([of_item(1, 7), of_item(2, 8)])
    assert reading.rows == (ReadRow(1, seen), ReadRow(2, seen))
    assert len(reading.calls) == 1


# --- Checking ---


@pytest.mark.parametrize(
    ("exchange", "outcome"),
    [
        (answer(200, b'{"error": "", "message": "", "request_id": "r", "shop_name": "A"}'), Accepted()),
        (answer(200, envelope({})), Accepted()),
        (
            answer(403, envelope(error="error_sign", message="Wrong sign.")),
            Misconfigured("Shopee does not accept the application: error_sign: Wrong sign.", Scope.STORE),
        ),
        (
            answer(200, envelope(error="invalid_access_token")),
            Unauthorized("Shopee does not accept the access token: invalid_access_token", refreshable=True),
        ),
        (answer(200, envelope(error="error_auth")), Misconfigured("Shopee refused: error_auth", Scope.STORE)),
        (
            answer(200, envelope(error="error_inner", message="Invalid stock location ID")),
            Misconfigured(
                "The listing's locations are not as Shopee keeps them (`lumbung store link` names them, `lumbung store"
                " forget-location` is for one that is gone): error_inner: Invalid stock location ID",
                Scope.STORE,
            ),
        ),
        (
            answer(200, envelope(error="error_x", message="holiday")),
            Misconfigured("Locked for now: error_x: holiday", Scope.STORE),
        ),
        (answer(200, b"<html>"), InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (NotSent("refused", NOW, 1.0), Unavailable("refused")),
    ],
)
async def test_a_check_asks_for_the_shop(exchange: Exchange, outcome: Outcome) -> None:
    store, transport = session(exchange)
    assert await store.check() == outcome
    ((method, url, _, sent, _),) = transport.requests
    assert (method, urlsplit(url).path, sent) == ("GET", "/api/v2/shop/get_shop_info", None)


# --- Anything at all ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
shown = st.fixed_dictionaries(
    {},
    optional={
        "item_id": st.just(12346) | json_values,
        "model_id": st.just(55) | json_values,
        "has_model": st.booleans() | json_values,
        "stock_info_v2": json_values
        | st.fixed_dictionaries(
            {"seller_stock": st.lists(st.fixed_dictionaries({"stock": st.integers() | json_values}))}
        ),
    },
)
bodies = st.binary() | st.fixed_dictionaries(
    {"error": st.sampled_from(["", "error_auth", "error_x"]) | json_values},
    optional={
        "message": st.text() | json_values,
        "response": json_values | st.fixed_dictionaries({"item_list": st.lists(shown), "model": st.lists(shown)}),
    },
).map(lambda value: json.dumps(value).encode())


@given(st.sampled_from([200, 200, 200, 403, 404, 429, 500]), bodies, st.booleans())
def test_whatever_a_server_answers_reading_and_checking_do_not_raise(status: int, body: bytes, of_items: bool) -> None:
    store, _ = session(Answer(status, body, {}, NOW, 1.0, None))
    reading = asyncio.run(store.read([of_item(7, 12346) if of_items else of_model(7, 55)]))
    (row,) = reading.rows
    assert (row.listing_id, len(reading.calls)) == (7, 1)
    assert not isinstance(row.seen, Accepted | InDoubt)
    assert not isinstance(row.seen, Observed) or row.seen.quantity >= 0
    asyncio.run(store.check())
