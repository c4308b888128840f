"""Shopee: the table of what answers mean, row by row."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lumbung.channels.base import (
    Accepted,
    Deferred,
    Floor,
    InDoubt,
    Misconfigured,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unauthorized,
    Unavailable,
)
from lumbung.channels.call import Answered
from lumbung.channels.shopee import errors, wire

from .shopee_transport import NOW, envelope


def meant(code: str, message: str = "", status: int = 200, retry_after_seconds: float | None = None) -> errors.Meaning:
    body = envelope(error=code, message=message)
    answered = Answered(status, body.decode(), retry_after_seconds, NOW)
    return errors.meaning(answered, wire.envelope(body))


def of_a_listing(code: str, reason: str, *, others_taken: bool = False) -> Outcome:
    answered = Answered(200, "", None, NOW)
    return errors.of_a_listing(answered, wire.Envelope(code), reason, others_taken=others_taken)


def without_envelope(status: int, body: bytes, retry_after_seconds: float | None = None) -> Outcome:
    answered = Answered(status, body.decode(errors="replace"), retry_after_seconds, NOW)
    return errors.meaning(answered, wire.envelope(body)).outcome


GONE = "Shopee does not know the item or variation, or has closed it: "
LOCATIONS = (
    "The listing's locations are not as Shopee keeps them (`lumbung store link` names them, `lumbung store"
    " forget-location` is for one that is gone): "
)
SHOPS_LOCATIONS = "The store's locations are not as Shopee keeps them (`lumbung store link` names them): "
STORE = "Shopee does not accept the store: "
FIT = "The listing is not as Shopee keeps the item: "
RESERVED = "More is reserved than was sent: "
LOCKED = "Locked for now: "
UNSURE = "Shopee is not sure: "
APPLICATION = "Shopee does not accept the application: "
TOKEN = "Shopee does not accept the access token: "
DEAD = "The store is no longer authorised: "
CLOCK = "Shopee does not accept the time of the call, check this machine's clock: "
OWN_STOCK = "Shopee keeps the stock of this item itself: "
REFUSED = "Shopee refused: "
SLOW = "Shopee asks to slow down: "


def words(code: str, message: str) -> str:
    return f"{code}: {message}" if message else code


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_item_not_found", "Product not found"),
        ("product.error_item_not_found", ""),
        ("error_item_not_belong_shop", ""),
        ("error_nil_shopid_or_itemid", ""),
        ("error_item_uneditable", ""),
        ("product.error_busi", "Item status is abnormal"),
        ("error_param", "Wrong model_id"),
        ("error_param", "Repeat model_id"),
        ("error_busi_update_stock_failed", "model ID not exist in sku"),
        ("error_auth", "The item has been deleted"),
    ],
)
def test_an_item_or_variation_that_is_not_there_is_rejected(code: str, message: str) -> None:
    assert meant(code, message).outcome == Rejected(GONE + words(code, message))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_busi_cannot_edit_vsku", "Can not use OpenAPI to edit VSKU"),
        ("error_edit_item_stock_for_item_has_model", "Can't to edit item stock directly while item has models."),
        ("error_in_item_promotion_nomodel_to_models", "Can't to edit item stock directly while item has models."),
        ("product.error_busi", "Invalid product setting"),
    ],
)
def test_a_listing_that_does_not_fit_the_item_is_rejected(code: str, message: str) -> None:
    assert meant(code, message).outcome == Rejected(FIT + words(code, message))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_param", "Wrong parameters, detail: something."),
        ("product.error_param", "invalid field ItemId: value must Not Null"),
        ("error_busi_update_stock_failed", "Stock should be within 0-10000000"),
        ("error_auth", ""),
        ("error_busi", ""),
        ("error_nobody_knows", "of this"),
    ],
)
def test_what_is_plainly_a_refusal_is_rejected_with_shopees_words(code: str, message: str) -> None:
    assert meant(code, message).outcome == Rejected(REFUSED + words(code, message))


@pytest.mark.parametrize(
    ("code", "message", "minimum"),
    [
        ("error_busi_update_stock_failed", "Stock should be larger than 13 (reserve stock number)", 13),
        ("", "Stock should be larger than 13 (reserve stock number) for model 01 RED", 13),
        ("error.param", "Can not update item with stock less than reserved stock: 7", 7),
        ("product.error.param", "Can not update item with stock less than reserve stock (7)", 7),
        ("error_param", "Stock must be greater than or equal to 20 (reserved_stock)", 20),
        ("error_auth", "Total stock must be more than reserved stock 0.", 0),
        ("error_inner", "stock should be larger than 9 (Reserved Stock number)", 9),
    ],
)
def test_a_floor_is_the_number_in_the_text(code: str, message: str, minimum: int) -> None:
    spoken = ": ".join(part for part in (code, message) if part)
    assert of_a_listing(code, message) == Floor(minimum, RESERVED + spoken)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_auth", "Total stock must be more than reserved stock."),
        ("error_auth", "Stock should be larger than reserved stock."),
        ("error.param", "Can not update item with stock less than reserved stock"),
        ("error_param", "Can not update item with stock less than reserve stock"),
        ("error_param", "Stock should be larger than 1,300 (reserve stock number)"),
        ("error_param", "Stock should be larger than (reserve stock number) for model 5"),
    ],
)
def test_a_floor_without_a_number_that_can_be_read_is_waited_for(code: str, message: str) -> None:
    assert meant(code, message).outcome == Deferred(None, RESERVED + words(code, message))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_param", "Can not update item with different stock structure. Can only update seller stock with ..."),
        ("error_auth", "Lack of location_id, please double check."),
        ("error_inner", "Invalid stock location ID"),
    ],
)
def test_locations_that_do_not_fit_park_the_listing(code: str, message: str) -> None:
    assert meant(code, message).outcome == Misconfigured(LOCATIONS + words(code, message), Scope.LISTING)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_auth", "You do not have right to use seller location_id, please only fill seller_stock filed."),
        ("error_auth", "The shop has no permission to set seller_stock by location_id."),
        ("error_auth", "The location_id input is not matched the shop's location_id(more/wrong)."),
        ("error_busi", "The merchant/shop has multi warehouse, please input location id"),
        ("error_busi", "multi warehouse, please input location id"),
        ("warehouse.error_not_in_whitelist", ""),
    ],
)
def test_locations_that_the_shop_keeps_otherwise_stop_the_shop(code: str, message: str) -> None:
    assert meant(code, message) == errors.Meaning(
        Misconfigured(SHOPS_LOCATIONS + words(code, message), Scope.STORE), everyone=False
    )


@pytest.mark.parametrize("code", ["error_auth", "error_server"])
def test_an_item_that_shopee_fulfils_parks_the_listing(code: str) -> None:
    message = "The current item belong to the full FBS shop, so normal stock must be equal to 0"
    assert meant(code, message).outcome == Misconfigured(OWN_STOCK + words(code, message), Scope.LISTING)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_shop", "shopid is invalid"),
        ("error_param_shop_id_not_found", ""),
        ("error_perm_non_admin", ""),
        ("error_seller_under_penalty", ""),
        ("error_wms_shop_block_upate_stock", "Warehouse shop can't update stock."),
        ("product.cnsc_shop_block", ""),
        ("error_auth", "The CNSC shop is not upgraded"),
    ],
)
def test_what_is_wrong_with_the_shop_stops_the_shop(code: str, message: str) -> None:
    assert meant(code, message).outcome == Misconfigured(STORE + words(code, message), Scope.STORE)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_sign", "Wrong sign."),
        ("common.error_auth", "Invalid sign"),
        ("error_param", "There is no sign in query"),
        ("error_param", "There is no access_token in query"),
        ("error_param", "There is no partner_id in query"),
        ("error_param", "request not from gateway"),
        ("error_param", "[Gateway] illegal request."),
        ("error_param", "no timestamp"),
        ("error_param", "Missing required parameter: sign"),
        ("error_param", "access_token is required"),
        ("error_auth", "The source IP is not in the whitelist"),
        ("error_auth", "Invalid partner_id"),
        ("error_auth", "No permission to current api."),
        ("error_permission", "This app type has no permission to this API"),
        ("source_ip_undeclared", ""),
    ],
)
def test_what_is_wrong_with_the_application_stops_the_shop(code: str, message: str) -> None:
    assert meant(code, message, status=403).outcome == Misconfigured(APPLICATION + words(code, message), Scope.STORE)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("invalid_acceess_token", "Invalid access token"),
        ("invalid_access_token", ""),
        ("error_auth", "Invalid access_token."),
        ("common.error_auth", "Your access_token has expired"),
    ],
)
@pytest.mark.parametrize("status", [200, 401, 403])
def test_an_expired_access_token_may_be_refreshed(code: str, message: str, status: int) -> None:
    assert meant(code, message, status).outcome == Unauthorized(TOKEN + words(code, message), refreshable=True)


@pytest.mark.parametrize("code", sorted(errors.DEAD_AUTHORISATION_CODES))
def test_an_authorisation_that_is_over_is_not_refreshed(code: str) -> None:
    assert meant(code).outcome == Unauthorized(DEAD + code, refreshable=False)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_param", "Invalid timestamp"),
        ("error_auth", "The timestamp is expired."),
        ("error_sign", "Wrong timestamp"),
        ("error_timestamp", ""),
        ("invalid_timestamp", ""),
    ],
)
def test_a_wrong_time_is_this_machines_clock_and_nothing_was_applied(code: str, message: str) -> None:
    assert meant(code, message, status=403).outcome == Unavailable(CLOCK + words(code, message))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_cannt_edit_stock_in_promotion", "Normal_stock cannot be edited when item is under promotion."),
        ("error_promotion_cantnot_update_stock", "Cannot change stock when item is under promotion."),
        ("error_model_update_stock_model_in_promotion", ""),
        ("error_busi_update_stock_failed", "Cannot change stock when item is under promotion."),
    ],
)
def test_a_promotion_is_waited_for_and_may_be_one_listings(code: str, message: str) -> None:
    assert meant(code, message) == errors.Meaning(Deferred(None, LOCKED + words(code, message)), everyone=False)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_holiday_mode_change_stock", "Cannot change stock in holiday mode."),
        ("error_auth", "Please wait for the holiday mode set then to edit item."),
        ("error_auth", "Shop is under vacation mode"),
    ],
)
def test_a_holiday_is_everyones(code: str, message: str) -> None:
    assert meant(code, message) == errors.Meaning(Deferred(None, LOCKED + words(code, message)), everyone=True)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("error_server", "Something wrong. Please try later"),
        ("error_server", "Interal error, please contact openapi team"),
        ("error_inner", "Our system is taking some time to respond, please try later."),
        ("error_inner", "Update item failed: product not found"),
        ("error_system_busy", ""),
        ("product.error_busi", "Too many connections"),
        ("error_network", "Inner http call failed"),
        ("error_data", "parse data failed"),
        ("product.duplicate_request", ""),
        ("error_nobody_knows", "item not found, please try later"),
        ("error_busi_update_stock_failed", ""),
        (
            "product.error_busi_update_stock_failed",
            "Update stock failed, please check failure_list for detailed reason",
        ),
    ],
)
def test_what_does_not_say_whether_it_was_applied_is_in_doubt(code: str, message: str) -> None:
    assert meant(code, message).outcome == InDoubt(UNSURE + words(code, message))


# --- The reason of one listing ---


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("error_promotion_cantnot_update_stock", Deferred(None, LOCKED + "error_promotion_cantnot_update_stock")),
        ("product.error_system_busy", InDoubt(UNSURE + "product.error_system_busy")),
        ("product.error_item_not_found", Rejected(GONE + "product.error_item_not_found")),
        ("error_item_uneditable", Rejected(GONE + "error_item_uneditable")),
        ("ERROR_SERVER", InDoubt(UNSURE + "ERROR_SERVER")),
        ("error_nobody_knows", Rejected(REFUSED + "error_nobody_knows")),
        ("System error", InDoubt(UNSURE + "System error")),
        ("", Rejected(REFUSED + "HTTP 200, no reason given")),
    ],
)
def test_a_reason_is_read_as_a_code_and_else_as_words(reason: str, outcome: Outcome) -> None:
    assert of_a_listing("", reason) == outcome


def test_the_calls_code_counts_only_for_a_listing_without_a_reason() -> None:
    unknown = "error_server: model ID not exist in sku"
    assert of_a_listing("error_server", "model ID not exist in sku") == Rejected(GONE + unknown)
    assert of_a_listing("error_server", "something else") == Rejected(REFUSED + "error_server: something else")
    assert of_a_listing("error_server", "") == InDoubt(UNSURE + "error_server")
    failed = "error_busi_update_stock_failed"
    assert of_a_listing(failed, "") == Rejected(REFUSED + failed)


@pytest.mark.parametrize(
    ("reason", "spoken"),
    [
        ("shop_id is invalid", STORE + "shop_id is invalid"),
        ("Your shop is CNSC", STORE + "Your shop is CNSC"),
        ("partner_id is required", APPLICATION + "partner_id is required"),
        ("No permission to current api", APPLICATION + "No permission to current api"),
        ("Invalid access token", TOKEN + "Invalid access token"),
        (
            "The merchant/shop has multi warehouse, please input location id",
            SHOPS_LOCATIONS + "The merchant/shop has multi warehouse, please input location id",
        ),
    ],
)
@pytest.mark.parametrize("others_taken", [True, False])
def test_the_words_of_one_listings_reason_never_stop_the_store(reason: str, spoken: str, others_taken: bool) -> None:
    assert of_a_listing("", reason, others_taken=others_taken) == Misconfigured(spoken, Scope.LISTING)


def test_a_code_as_a_reason_stops_the_store_only_where_nothing_was_taken() -> None:
    blocked, dead = "error_wms_shop_block_upate_stock", "shop_access_expired"
    assert of_a_listing("", blocked) == Misconfigured(STORE + blocked, Scope.STORE)
    assert of_a_listing("", blocked, others_taken=True) == Misconfigured(STORE + blocked, Scope.LISTING)
    assert of_a_listing("", dead) == Unauthorized(DEAD + dead, refreshable=False)
    assert of_a_listing("", dead, others_taken=True) == Misconfigured(DEAD + dead, Scope.LISTING)


def test_one_listings_reason_slows_the_store_down_and_neither_the_application_nor_the_whole_day() -> None:
    assert of_a_listing("", "error_limit") == Throttled(None, Scope.STORE, "The day's calls are used up: error_limit")
    partner = "Too many requests of the partner"
    assert of_a_listing("", partner) == Throttled(None, Scope.STORE, SLOW + partner)


# --- What stands before Shopee, in Shopee's form ---


WHITELIST = "Refused before it came to Shopee (is this machine's address in the app's IP whitelist?): "
NOWHERE = "There is no such address, is base_url right? "


@pytest.mark.parametrize(
    ("status", "code", "message", "outcome"),
    [
        (403, "Forbidden", "Access Denied", Misconfigured(WHITELIST + "Forbidden: Access Denied", Scope.STORE)),
        (401, "Unauthorized", "x", Unauthorized(TOKEN + "Unauthorized: x", refreshable=True)),
        (401, "error_nobody_knows", "", Unauthorized(TOKEN + "error_nobody_knows", refreshable=True)),
        (404, "Not Found", "no Route matched", Unavailable(NOWHERE + "Not Found: no Route matched")),
        (404, "error_nobody_knows", "", Unavailable(NOWHERE + "error_nobody_knows")),
        (408, "Request Expired", "", InDoubt("Shopee gave up waiting: Request Expired")),
        (408, "Request Timeout", "", InDoubt(UNSURE + "Request Timeout")),
        (200, "Bad Gateway", "", InDoubt(UNSURE + "Bad Gateway")),
        (400, "Service Unavailable", "", InDoubt(UNSURE + "Service Unavailable")),
        (403, "Too Many Requests", "", Throttled(None, Scope.STORE, SLOW + "Too Many Requests")),
        # Shopee's own codes are looked up under any status; an unknown one may be about one listing.
        (403, "error_nobody_knows", "", Rejected(REFUSED + "error_nobody_knows")),
        (404, "error_item_not_found", "", Rejected(GONE + "error_item_not_found")),
    ],
)
def test_a_foreign_answer_in_shopees_form_parks_no_listing(
    status: int, code: str, message: str, outcome: Outcome
) -> None:
    assert meant(code, message, status).outcome == outcome


def test_a_refusal_at_the_door_that_will_pass_does_not_stop_the_store() -> None:
    slow = "Refused before it came to Shopee: "
    assert without_envelope(403, b"<html>", 9.0) == Throttled(9.0, Scope.STORE, slow + "HTTP 403")
    foreign = meant("Forbidden", "", 403, retry_after_seconds=9.0).outcome
    assert foreign == Throttled(9.0, Scope.STORE, slow + "Forbidden")


# --- How fast ---


@pytest.mark.parametrize(
    ("code", "message", "scope"),
    [
        ("error_rate_limit", "", Scope.STORE),
        ("product.error_rate_limit", "Too many calls of this shop", Scope.STORE),
        ("error_rate_limit", "The app's limit is reached", Scope.APPLICATION),
        ("error_rate_limit", "Limit of the partner_id is reached", Scope.APPLICATION),
        ("error_server", "Too many requests", Scope.STORE),
    ],
)
@pytest.mark.parametrize("seconds", [None, 3.0])
def test_a_rate_limit_reaches_as_far_as_its_words_say(
    code: str, message: str, scope: Scope, seconds: float | None
) -> None:
    got = meant(code, message, retry_after_seconds=seconds).outcome
    assert got == Throttled(seconds, scope, SLOW + words(code, message))


def test_a_daily_quota_lasts_until_midnight_in_singapore() -> None:
    # 2023-11-14 22:13:20 UTC is 06:13:20 of the 15th at UTC+8.
    spoken = "The day's calls are used up: product.error_limit"
    assert meant("product.error_limit").outcome == Throttled(17 * 3600 + 46 * 60 + 40.0, Scope.STORE, spoken)
    assert meant("product.error_limit", retry_after_seconds=9.0).outcome == Throttled(9.0, Scope.STORE, spoken)


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        (datetime(2026, 1, 5, 15, 59, 59, tzinfo=UTC), 1.0),
        (datetime(2026, 1, 5, 16, 0, 0, tzinfo=UTC), 86_400.0),
        (datetime(2026, 12, 31, 12, 0, 0, tzinfo=UTC), 4 * 3600.0),
    ],
)
def test_the_quotas_day_ends_at_16_utc(now: datetime, seconds: float) -> None:
    assert errors.seconds_until_quota_day(now) == seconds


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, envelope(), Accepted()),
        (200, b'{"error": ""}', Accepted()),
        (400, envelope(), InDoubt("Shopee's answer contradicts itself: HTTP 400, no reason given")),
        (500, envelope(), InDoubt("Shopee failed: HTTP 500, no reason given")),
        (503, envelope(error="error_item_not_found"), InDoubt("Shopee failed: error_item_not_found")),
        (429, envelope(), Throttled(None, Scope.STORE, SLOW + "HTTP 429, no reason given")),
        (429, b"<html>", Throttled(None, Scope.STORE, SLOW + "HTTP 429")),
        (200, b"<html>", InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, b"", InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, b"{}", InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, b'{"error": 0}', InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, envelope()[:-1], InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (200, b"[" * 100_000, InDoubt("Shopee's answer cannot be read: HTTP 200")),
        (400, b"<html>", InDoubt("Shopee's answer cannot be read: HTTP 400")),
        (408, b"", InDoubt("Shopee gave up waiting: HTTP 408")),
        (302, b"", Unavailable("Shopee redirects for now, is base_url right? HTTP 302")),
        (303, b"", InDoubt("Shopee redirects for its answer: HTTP 303")),
        (307, b"", Unavailable("Shopee redirects for now, is base_url right? HTTP 307")),
        (308, b"", Misconfigured("Shopee redirects elsewhere: HTTP 308", Scope.STORE)),
        (301, b"", Misconfigured("Shopee redirects elsewhere: HTTP 301", Scope.STORE)),
        (401, b"", Unauthorized(TOKEN + "HTTP 401", refreshable=True)),
        (
            403,
            b"<html>",
            Misconfigured(
                "Refused before it came to Shopee (is this machine's address in the app's IP whitelist?): HTTP 403",
                Scope.STORE,
            ),
        ),
        (404, b"", Unavailable("There is no such address, is base_url right? HTTP 404")),
        (413, b"", Rejected("Shopee finds the request too large: HTTP 413")),
        (415, b"", Rejected("Shopee does not take this content type: HTTP 415")),
    ],
)
def test_what_an_answer_without_a_reason_means(status: int, body: bytes, outcome: Outcome) -> None:
    assert without_envelope(status, body) == outcome


def test_an_answer_that_is_not_shopees_keeps_its_retry_after() -> None:
    assert without_envelope(429, b"", 17.0) == Throttled(17.0, Scope.STORE, SLOW + "HTTP 429")


@pytest.mark.parametrize(
    ("code", "bare"),
    [
        ("error_param", "error_param"),
        ("product.error_param", "error_param"),
        ("common.error_auth", "error_auth"),
        ("error.param", "error.param"),
        ("product.error.param", "error.param"),
        ("a.b.c", "b.c"),
        (".", "."),
        ("product.", "product."),
        ("", ""),
    ],
)
def test_one_module_in_front_of_a_code_is_taken_off(code: str, bare: str) -> None:
    assert errors.bare(code) == bare
