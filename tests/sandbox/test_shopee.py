"""What the fake Shopee answers: who is let in, how stock is set, and what is read."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbung.sandbox.call import Call
from lumbung.sandbox.ledger import Ledger
from lumbung.sandbox.server import Sandbox
from lumbung.sandbox.shopee.marketplace import Shopee
from lumbung.sandbox.shopee.wire import sign

from .conftest import Controller
from .shopee_seller import (
    ACCESS_TOKEN_GET,
    ITEM_INFO,
    ITEM_LIST,
    MODEL_LIST,
    OTHER_SHOP,
    OTHER_STORE,
    PARTNER,
    PARTNER_KEY,
    SHOP,
    SHOP_INFO,
    STORE,
    TOKEN_GET,
    UPDATE_STOCK,
    WAREHOUSES,
    Answer,
    App,
    entry,
    no,
    ok,
    placed,
    stock,
)

TWO_PLACES = {**STORE, "locations": ["IDZ", "IDY"]}


def shown(sandbox: Sandbox, shop: int = SHOP) -> dict[str, dict[str, int]]:
    return {name: one.stock for name, one in sandbox.ledger.store("shpe", str(shop)).listings.items()}


def untouched(sandbox: Sandbox) -> bool:
    stock = {"12346/55": {"": 7}, "12346/56": {"": 0}, "12347": {"": 3}}
    return sandbox.ledger.writes.last == 0 and shown(sandbox) == stock


def written(sandbox: Sandbox) -> list[tuple[str, str, int]]:
    return [(write.remote_variant, write.location, write.quantity) for write in sandbox.ledger.writes.after(0)]


def places(sandbox: Sandbox) -> None:
    sandbox.put_store("shpe", str(SHOP), TWO_PLACES)


def failed(model: int, reason: str) -> dict[str, object]:
    return {"model_id": model, "failed_reason": reason}


def taken(model: int, units: int, location: str = "") -> dict[str, object]:
    return {"model_id": model, "location_id": location, "stock": units}


def all_failed(*rows: dict[str, object]) -> tuple[int, dict[str, object]]:
    message = "Update stock failed, please check failure_list."
    lists = {"success_list": [], "failure_list": list(rows)}
    return 200, {"error": "error_busi_update_stock_failed", "message": message, "response": lists}


# Who is let in


def test_a_signature_is_the_golden_vector_of_the_fact_sheet() -> None:
    assert (
        sign("test_partner_key", "1000001", "/api/v2/product/update_stock", "1700000000", "tok_abc", "2000002")
        == "febd863a962682d014d75ec2c10760de9399b5363c9a1369d9f9413de455c0e5"
    )
    assert (
        sign("test_partner_key", "1000001", "/api/v2/auth/access_token/get", "1700000000")
        == "3f92740945b65af9a4ac9b97bc66d63a6fd66aa81c1c727cd04b17d0a8636775"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("partner_id", "There is no partner_id in query."),
        ("timestamp", "no timestamp"),
        ("access_token", "There is no access_token in query."),
        ("shop_id", "There is no shop_id in query."),
        ("sign", "There is no sign in query."),
    ],
)
async def test_a_missing_parameter_is_refused_by_name(sandbox: Sandbox, app: App, name: str, message: str) -> None:
    query = app.of_shop(UPDATE_STOCK)
    body = stock(12347, entry(0, 5))
    assert await app.post(UPDATE_STOCK, body, query={**query, name: ""}) == no("error_param", message)
    del query[name]
    assert await app.post(UPDATE_STOCK, body, query=query) == no("error_param", message)
    assert untouched(sandbox)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sign": "0" * 64}, "error_sign", "Wrong sign."),
        ({"sign": "\u00e9\u0000"}, "error_sign", "Wrong sign."),
        ({"shop_id": str(OTHER_SHOP)}, "error_sign", "Wrong sign."),
        ({"access_token": "other-access"}, "error_sign", "Wrong sign."),
        ({"partner_id": "9"}, "error_param", "Invalid partner_id."),
        ({"partner_id": "\u0661"}, "error_param", "Invalid partner_id."),
        ({"timestamp": "now"}, "error_param", "Invalid timestamp"),
        ({"timestamp": "9" * 400}, "error_param", "Invalid timestamp"),
    ],
)
async def test_a_call_that_was_changed_after_signing_is_refused(
    sandbox: Sandbox, app: App, change: dict[str, str], error: str, message: str
) -> None:
    query = {**app.of_shop(UPDATE_STOCK), **change}
    assert await app.post(UPDATE_STOCK, stock(12347, entry(0, 5)), query=query) == no(error, message)
    assert untouched(sandbox)


async def test_another_key_another_path_or_upper_case_is_a_wrong_sign(sandbox: Sandbox, app: App) -> None:
    good = app.of_shop(UPDATE_STOCK)
    for query in (
        app.of_shop(UPDATE_STOCK, key="another"),
        app.of_shop(f"/shpe{UPDATE_STOCK}"),
        {**good, "sign": good["sign"].upper()},
    ):
        refused = await app.post(UPDATE_STOCK, stock(12347, entry(0, 5)), query=query)
        assert refused == no("error_sign", "Wrong sign.")
    assert untouched(sandbox)


@pytest.mark.parametrize(
    ("late_seconds", "error"), [(295, ""), (-295, ""), (305, "error_param"), (-305, "error_param")]
)
async def test_a_timestamp_is_good_for_five_minutes(app: App, late_seconds: float, error: str) -> None:
    _, body = await app.get(SHOP_INFO, query=app.of_shop(SHOP_INFO, late_seconds=late_seconds))
    assert (body["error"], body["message"]) == (error, "Invalid timestamp" if error else "")


async def test_a_signature_grows_old_on_the_moved_clock(app: App, control: Controller) -> None:
    query = app.of_shop(SHOP_INFO)
    assert (await app.get(SHOP_INFO, query=query))[1]["error"] == ""
    await control("PUT", "/clock", {"ahead_seconds": 301})
    assert await app.get(SHOP_INFO, query=query) == no("error_param", "Invalid timestamp")


async def test_tokens_of_nobody_and_of_another_shop_are_refused(sandbox: Sandbox, app: App) -> None:
    for token, message in (
        ("nobody's", "Invalid access_token."),
        ("other-access", "Invalid partner_id or shopid."),
    ):
        query = app.of_shop(UPDATE_STOCK, token=token)
        answer = await app.post(UPDATE_STOCK, stock(12347, entry(0, 5)), query=query)
        assert answer == no("error_auth", message)
    assert untouched(sandbox)


async def test_shops_that_are_not_there_or_not_the_applications_are_refused(sandbox: Sandbox, app: App) -> None:
    stranger = {**STORE, "partner_id": 7, "partner_key": "theirs", "access_token": "t"}
    sandbox.put_store("shpe", "3000000", stranger)
    for shop, error, message in (
        (4000000, "error_shop", "shopid is invalid"),
        (3000000, "error_auth", "Invalid partner_id or shopid."),
    ):
        assert await app.get(SHOP_INFO, query=app.of_shop(SHOP_INFO, shop=shop)) == no(error, message)


async def test_the_status_of_a_refused_caller_is_a_setting_of_the_store(sandbox: Sandbox, app: App) -> None:
    sandbox.put_store("shpe", str(SHOP), {**STORE, "auth_status": 403})
    wrong_sign = app.of_shop(SHOP_INFO, key="another")
    assert await app.get(SHOP_INFO, query=wrong_sign) == no("error_sign", "Wrong sign.", 403)
    assert await app.refresh("wrong") == no("error_auth", "Invalid refresh_token.", 403)
    assert await app.get(MODEL_LIST, item_id="9") == no("error_item_not_found", "Product not found.")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", UPDATE_STOCK),
        ("PUT", UPDATE_STOCK),
        ("POST", MODEL_LIST),
        ("POST", f"{UPDATE_STOCK}/"),
        ("GET", "/api/v1/items/get"),
    ],
)
async def test_an_unknown_path_or_method_is_answered_404(app: App, method: str, path: str) -> None:
    async with app.session.request(method, app.mount + path, params=app.of_shop(path)) as answer:
        assert (answer.status, (await answer.json())["error"]) == (404, "error_not_found")


# Setting stock


async def test_models_are_set_and_others_stay(sandbox: Sandbox, app: App) -> None:
    assert await app.set((56, 4)) == ok({"success_list": [taken(56, 4)], "failure_list": []})
    assert shown(sandbox) == {"12346/55": {"": 7}, "12346/56": {"": 4}, "12347": {"": 3}}
    assert await app.set((56, 0), (55, 10_000_000)) == ok(
        {"success_list": [taken(56, 0), taken(55, 10_000_000)], "failure_list": []}
    )
    assert written(sandbox) == [("12346/56", "", 4), ("12346/56", "", 0), ("12346/55", "", 10_000_000)]


@pytest.mark.parametrize("model", [{}, {"model_id": 0}])
async def test_an_item_without_variations_is_set_without_a_model(
    sandbox: Sandbox, app: App, model: dict[str, object]
) -> None:
    body = stock(12347, {**model, "seller_stock": [{"stock": 5}]})
    assert await app.post(UPDATE_STOCK, body) == ok({"success_list": [taken(0, 5)], "failure_list": []})
    assert written(sandbox) == [("12347", "", 5)]


async def test_one_bad_model_fails_beside_healthy_ones(sandbox: Sandbox, app: App) -> None:
    assert await app.set((99, 1), (55, 5)) == ok(
        {"success_list": [taken(55, 5)], "failure_list": [failed(99, "model ID not exist in sku")]}
    )
    assert written(sandbox) == [("12346/55", "", 5)]


async def test_when_all_rows_fail_the_list_is_wrapped_in_an_error(sandbox: Sandbox, app: App) -> None:
    assert await app.set((99, 1), (55, 10_000_001), (56, -1)) == all_failed(
        failed(99, "model ID not exist in sku"),
        failed(55, "Stock should be within 0-10000000"),
        failed(56, "Stock should be within 0-10000000"),
    )
    assert untouched(sandbox)


async def test_fifty_models_are_taken_and_fifty_one_are_refused(sandbox: Sandbox, app: App) -> None:
    listings = [{"remote_variant": f"9/{model}", "sku": f"s{model}"} for model in range(1, 52)]
    sandbox.put_store("shpe", str(SHOP), {**STORE, "listings": listings})
    rows = [(model, model) for model in range(1, 52)]
    assert await app.set(*rows, item=9) == no("product.error_param", "invalid field StockList: size must be 1 to 50")
    assert sandbox.ledger.writes.last == 0
    _, body = await app.set(*rows[:50], item=9)
    assert (body["error"], len(body["response"]["success_list"])) == ("", 50)
    assert sandbox.ledger.writes.last == 50


GOOD: list[dict[str, object]] = [{"seller_stock": [{"stock": 5}]}]


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"{", "error_param", "Wrong parameters, detail: the body is not JSON."),
        (b"", "error_param", "Wrong parameters, detail: the body is not JSON."),
        (b"\xff", "error_param", "Wrong parameters, detail: the body is not JSON."),
        (b"[" * 100_000, "error_param", "Wrong parameters, detail: the body is not JSON."),
        ([], "error_param", "Wrong parameters, detail: the body is not a JSON object."),
        ({"stock_list": GOOD}, "product.error_param", "invalid field ItemId: value must  Not Null"),
        ({"item_id": "12347", "stock_list": GOOD}, "product.error_param", "invalid field ItemId"),
        ({"item_id": True, "stock_list": GOOD}, "product.error_param", "invalid field ItemId"),
        ({"item_id": 12347}, "product.error_param", "invalid field StockList: size must be 1 to 50"),
        (stock(12347), "product.error_param", "invalid field StockList: size must be 1 to 50"),
        ({"item_id": 12347, "stock_list": ["x"]}, "product.error_param", "invalid field StockList"),
        (stock(12347, {}), "product.error_param", "invalid field SellerStock: value must  Not Null"),
        (stock(12347, {"seller_stock": []}), "product.error_param", "invalid field SellerStock: value must  Not Null"),
        (stock(12347, {"seller_stock": [5]}), "product.error_param", "invalid field SellerStock"),
        (stock(12347, {"seller_stock": [{}]}), "product.error_param", "invalid field Stock"),
        (stock(12347, {"seller_stock": [{"stock": "5"}]}), "product.error_param", "invalid field Stock"),
        (stock(12347, {"seller_stock": [{"stock": 5.0}]}), "product.error_param", "invalid field Stock"),
        (
            stock(12347, {"seller_stock": [{"stock": 5, "location_id": 1}]}),
            "product.error_param",
            "invalid field LocationId",
        ),
        (stock(12346, {"model_id": "55", **GOOD[0]}), "product.error_param", "invalid field ModelId"),
        (stock(12346, entry(55, 1), entry(55, 2)), "error_param", "Repeat model_id"),
        (stock(12347, *GOOD, *GOOD), "error_param", "Repeat model_id"),
        (stock(12347, {"seller_stock": [{"stock": 5}, {"stock": 6}]}), "error_param", "Repeat location_id"),
        (stock(1, entry(0, 5)), "error_item_not_found", "Product not found."),
        (stock(12347, entry(55, 5)), "error_param", "Wrong model_id"),
        (
            stock(12346, entry(0, 5)),
            "error_edit_item_stock_for_item_has_model",
            "The item has models, edit their stock.",
        ),
    ],
)
async def test_a_wrong_body_is_refused_whole(
    sandbox: Sandbox, app: App, body: object, error: str, message: str
) -> None:
    assert await app.post(UPDATE_STOCK, body) == no(error, message)
    assert untouched(sandbox)


async def test_a_write_below_what_promotions_reserve_names_the_floor(
    sandbox: Sandbox, app: App, control: Controller
) -> None:
    state = {"channel": "shpe", "store": str(SHOP), "remote_variant": "12346/55", "reserved_by_promotions": 4}
    assert (await control("PUT", "/listings", state))[0] == 200
    floor = failed(55, "Stock should be larger than 4 (reserve stock number)")
    assert await app.set((55, 3), (56, 9)) == ok({"success_list": [taken(56, 9)], "failure_list": [floor]})
    assert await app.set((55, 0)) == all_failed(floor)
    assert await app.set((55, 4)) == ok({"success_list": [taken(55, 4)], "failure_list": []})
    assert written(sandbox) == [("12346/56", "", 9), ("12346/55", "", 4)]


async def test_what_orders_reserve_is_no_floor_and_shows_nowhere(
    sandbox: Sandbox, app: App, control: Controller
) -> None:
    before = await app.get(MODEL_LIST, item_id="12346")
    state = {"channel": "shpe", "store": str(SHOP), "remote_variant": "12346/55", "reserved_by_orders": 4}
    assert (await control("PUT", "/listings", state))[0] == 200
    assert await app.get(MODEL_LIST, item_id="12346") == before
    assert (await app.set((55, 0)))[1]["error"] == ""


async def test_a_sale_takes_sellers_stock_at_once(app: App, control: Controller) -> None:
    sale = {"channel": "shpe", "store": str(SHOP), "remote_variant": "12347", "quantity": 2}
    assert (await control("POST", "/sales", sale))[0] == 200
    _, body = await app.get(ITEM_INFO, item_id_list="12347")
    assert body["response"]["item_list"][0]["stock_info_v2"]["seller_stock"] == [
        {"location_id": "", "stock": 1, "if_saleable": True}
    ]


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("unknown", "model ID not exist in sku"),
        ("banned", "Product status is abnormal"),
        ("locked", "Cannot edit stock, the model is in promotion"),
    ],
)
@pytest.mark.parametrize("by_fault_set", [True, False])
async def test_a_model_in_a_bad_condition_fails_beside_healthy_ones(
    sandbox: Sandbox, app: App, control: Controller, condition: str, reason: str, by_fault_set: bool
) -> None:
    if by_fault_set:
        sandbox.faults.set("shpe", row_faults={"shirt-red": condition})
    else:
        state = {"channel": "shpe", "store": str(SHOP), "remote_variant": "12346/55", "condition": condition}
        assert (await control("PUT", "/listings", state))[1]["condition"] == condition
    assert await app.set((55, 1), (56, 2)) == ok({"success_list": [taken(56, 2)], "failure_list": [failed(55, reason)]})
    assert written(sandbox) == [("12346/56", "", 2)]
    assert [call.fault for call in sandbox.ledger.calls.after(0)] == ["row_faults" if by_fault_set else ""]


async def test_an_item_is_as_bad_as_all_of_its_models(sandbox: Sandbox, app: App) -> None:
    banned = no("error_item_uneditable", "The status of the item is abnormal.")
    sandbox.faults.set("shpe", row_faults={"12347": "banned", "12346/55": "banned", "12346/56": "unknown"})
    assert await app.set((0, 5), item=12347) == banned
    assert await app.set((55, 5), (56, 6)) == banned
    sandbox.faults.set("shpe", reject_skus=["hat", "shirt-red", "shirt-blue"])
    for item, model in ((12347, 0), (12346, 55)):
        assert await app.set((model, 5), item=item) == no("error_item_not_found", "Product not found.")
    sandbox.faults.set("shpe", row_faults={"hat": "locked"})
    assert await app.set((0, 5), item=12347) == all_failed(failed(0, "Cannot edit stock, the model is in promotion"))
    assert untouched(sandbox)


async def test_a_shop_on_holiday_refuses_writes_and_shows_its_stock(
    sandbox: Sandbox, app: App, control: Controller
) -> None:
    path = f"/stores/shpe/{SHOP}/holiday"
    assert (await control("PUT", path, {"holiday": True}))[0] == 200
    message = "Cannot change stock when the shop is in holiday mode."
    assert await app.set((55, 5)) == no("error_holiday_mode_change_stock", message)
    assert untouched(sandbox)
    assert (await app.get(MODEL_LIST, item_id="12346"))[1]["error"] == ""
    assert (await control("PUT", path, {"holiday": False}))[0] == 200
    assert (await app.set((55, 5)))[1]["error"] == ""


# Locations


async def test_only_the_named_locations_are_written(sandbox: Sandbox, app: App) -> None:
    places(sandbox)
    body = stock(12346, placed(55, IDZ=4, IDY=6), placed(56, IDY=1))
    assert await app.post(UPDATE_STOCK, body) == ok(
        {"success_list": [taken(55, 4, "IDZ"), taken(55, 6, "IDY"), taken(56, 1, "IDY")], "failure_list": []}
    )
    assert (await app.post(UPDATE_STOCK, stock(12346, placed(55, IDZ=0))))[1]["error"] == ""
    assert shown(sandbox) == {"12346/55": {"IDZ": 0, "IDY": 6}, "12346/56": {"IDY": 1}, "12347": {"": 3}}
    assert written(sandbox)[-1] == ("12346/55", "IDZ", 0)


async def test_an_ordinary_shop_takes_no_location(sandbox: Sandbox, app: App) -> None:
    assert await app.post(UPDATE_STOCK, stock(12346, placed(55, IDZ=4))) == no(
        "error_auth", "The shop has no permission to set seller_stock by location_id."
    )
    assert untouched(sandbox)


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        ([placed(55, IDX=4)], "error_inner", "Invalid stock location ID"),
        ([placed(55, IDZ=4), placed(56, IDX=4)], "error_inner", "Invalid stock location ID"),
        ([placed(55, IDZ=4), entry(56, 4)], "error_busi", "multi warehouse, please input location id"),
    ],
)
async def test_wrong_locations_refuse_the_whole_call(
    sandbox: Sandbox, app: App, entries: list[dict[str, object]], error: str, message: str
) -> None:
    places(sandbox)
    assert await app.post(UPDATE_STOCK, stock(12346, *entries)) == no(error, message)
    assert untouched(sandbox)


async def test_the_first_write_decides_whether_an_item_lies_in_locations(sandbox: Sandbox, app: App) -> None:
    places(sandbox)
    other = no("error_param", "The item has a different stock structure.")
    assert (await app.post(UPDATE_STOCK, stock(12346, placed(55, IDZ=4))))[1]["error"] == ""
    assert await app.set((55, 5)) == other
    assert await app.set((56, 5)) == other
    assert (await app.set((0, 5), item=12347))[1]["error"] == ""
    assert await app.post(UPDATE_STOCK, stock(12347, placed(0, IDZ=4))) == other
    assert written(sandbox) == [("12346/55", "IDZ", 4), ("12347", "", 5)]


async def test_the_floor_counts_every_location(sandbox: Sandbox, app: App, control: Controller) -> None:
    places(sandbox)
    await app.post(UPDATE_STOCK, stock(12346, placed(55, IDZ=4, IDY=6)))
    state = {"channel": "shpe", "store": str(SHOP), "remote_variant": "12346/55", "reserved_by_promotions": 8}
    await control("PUT", "/listings", state)
    floor = "Stock should be larger than 8 (reserve stock number)"
    assert await app.post(UPDATE_STOCK, stock(12346, placed(55, IDZ=1))) == all_failed(failed(55, floor))
    assert (await app.post(UPDATE_STOCK, stock(12346, placed(55, IDZ=2))))[1]["error"] == ""
    assert shown(sandbox)["12346/55"] == {"IDZ": 2, "IDY": 6}


# Reading


async def test_models_show_their_stock_by_location(sandbox: Sandbox, app: App, control: Controller) -> None:
    places(sandbox)
    await app.post(UPDATE_STOCK, stock(12346, placed(55, IDZ=4, IDY=6)))
    state = {"channel": "shpe", "store": str(SHOP), "remote_variant": "12346/55", "reserved_by_promotions": 3}
    await control("PUT", "/listings", state)
    assert await app.get(MODEL_LIST, item_id="12346") == ok(
        {
            "tier_variation": [
                {"name": "Variation", "option_list": [{"option": "shirt-red"}, {"option": "shirt-blue"}]}
            ],
            "model": [
                {
                    "model_id": 55,
                    "model_sku": "shirt-red",
                    "model_status": "MODEL_NORMAL",
                    "tier_index": [0],
                    "stock_info_v2": {
                        "summary_info": {"total_reserved_stock": 3, "total_available_stock": 7},
                        "seller_stock": [
                            {"location_id": "IDZ", "stock": 4, "if_saleable": True},
                            {"location_id": "IDY", "stock": 6, "if_saleable": True},
                        ],
                        "shopee_stock": [{"location_id": "", "stock": "0"}],
                    },
                },
                {
                    "model_id": 56,
                    "model_sku": "shirt-blue",
                    "model_status": "MODEL_NORMAL",
                    "tier_index": [1],
                    "stock_info_v2": {
                        "summary_info": {"total_reserved_stock": 0, "total_available_stock": 0},
                        "seller_stock": [{"location_id": "", "stock": 0, "if_saleable": True}],
                        "shopee_stock": [{"location_id": "", "stock": "0"}],
                    },
                },
            ],
        }
    )


async def test_items_show_their_status_and_stock_and_unknown_ones_are_left_out(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", row_faults={"hat": "banned"})
    _, body = await app.get(ITEM_INFO, item_id_list="12347,1,12346,12347")
    opened_at = {body["response"]["item_list"][n].pop(name) for n in (0, 1) for name in ("create_time", "update_time")}
    assert len(opened_at) == 1
    assert body["response"]["item_list"] == [
        {
            "item_id": 12347,
            "item_sku": "hat",
            "item_status": "BANNED",
            "has_model": False,
            "stock_info_v2": {
                "summary_info": {"total_reserved_stock": 0, "total_available_stock": 3},
                "seller_stock": [{"location_id": "", "stock": 3, "if_saleable": True}],
                "shopee_stock": [{"location_id": "", "stock": 0}],
            },
        },
        {
            "item_id": 12346,
            "item_sku": "",
            "item_status": "NORMAL",
            "has_model": True,
            "stock_info_v2": {
                "summary_info": {"total_reserved_stock": 0, "total_available_stock": 7},
                "seller_stock": [{"location_id": "", "stock": 7, "if_saleable": True}],
                "shopee_stock": [{"location_id": "", "stock": 0}],
            },
        },
    ]


async def test_models_that_are_gone_are_left_out_and_banned_ones_say_so(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", row_faults={"shirt-red": "unknown", "shirt-blue": "banned"})
    _, body = await app.get(MODEL_LIST, item_id="12346")
    assert [(model["model_id"], model["model_status"]) for model in body["response"]["model"]] == [
        (56, "MODEL_UNAVAILABLE")
    ]


async def test_an_item_without_variations_has_no_models_and_an_unknown_one_is_an_error(app: App) -> None:
    assert await app.get(MODEL_LIST, item_id="12347") == ok({"tier_variation": [], "model": []})
    assert await app.get(MODEL_LIST, item_id="1") == no("error_item_not_found", "Product not found.")


@pytest.mark.parametrize(
    ("path", "parameters", "detail"),
    [
        (ITEM_INFO, {}, "item_id_list."),
        (ITEM_INFO, {"item_id_list": "1,x"}, "item_id_list."),
        (ITEM_INFO, {"item_id_list": ",".join(map(str, range(51)))}, "item_id_list has more than 50 ids."),
        (MODEL_LIST, {}, "item_id."),
        (MODEL_LIST, {"item_id": "\u0661"}, "item_id."),
        (ITEM_LIST, {"page_size": "10", "item_status": "NORMAL"}, "offset."),
        (ITEM_LIST, {"offset": "0", "page_size": "101", "item_status": "NORMAL"}, "page_size."),
        (ITEM_LIST, {"offset": "0", "page_size": "0", "item_status": "NORMAL"}, "page_size."),
        (ITEM_LIST, {"offset": "0", "page_size": "1"}, "item_status."),
    ],
)
async def test_wrong_parameters_of_a_reading_are_refused(
    app: App, path: str, parameters: dict[str, str], detail: str
) -> None:
    assert await app.get(path, query={**app.of_shop(path), **parameters}) == no(
        "error_param", f"Wrong parameters, detail: {detail}"
    )


async def test_fifty_items_are_read_at_once(app: App) -> None:
    _, body = await app.get(ITEM_INFO, item_id_list=",".join(map(str, range(12300, 12350))))
    assert [item["item_id"] for item in body["response"]["item_list"]] == [12346, 12347]


async def test_items_are_listed_in_pages(app: App) -> None:
    _, first = await app.get(ITEM_LIST, offset="0", page_size="1", item_status="NORMAL")
    _, last = await app.get(ITEM_LIST, offset="1", page_size="1", item_status="NORMAL")
    update_time = first["response"]["item"][0]["update_time"]
    assert first["response"] == {
        "item": [{"item_id": 12346, "item_status": "NORMAL", "update_time": update_time}],
        "total_count": 2,
        "has_next_page": True,
        "next_offset": 1,
    }
    assert last["response"] == {
        "item": [{"item_id": 12347, "item_status": "NORMAL", "update_time": update_time}],
        "total_count": 2,
        "has_next_page": False,
    }


@pytest.mark.parametrize(
    ("fault", "status", "found"),
    [
        ("banned", "BANNED", [12347]),
        ("banned", "NORMAL", [12346]),
        ("unknown", "NORMAL", [12346]),
        ("unknown", "SELLER_DELETE", []),
        ("locked", "NORMAL", [12346, 12347]),
    ],
)
async def test_items_are_listed_by_status(
    sandbox: Sandbox, app: App, fault: str, status: str, found: list[int]
) -> None:
    sandbox.faults.set("shpe", row_faults={"hat": fault})
    _, body = await app.get(ITEM_LIST, offset="0", page_size="9", item_status=status)
    assert [item["item_id"] for item in body["response"]["item"]] == found
    assert {item["item_status"] for item in body["response"]["item"]} <= {status}
    # A lock does not show in what is read.
    assert [call.fault for call in sandbox.ledger.calls.after(0)] == ["" if fault == "locked" else "row_faults"]


async def test_a_write_does_not_move_the_update_time(sandbox: Sandbox, app: App, control: Controller) -> None:
    async def listed(*, update_time_from: str = "0", update_time_to: str = "9999999999") -> Answer:
        return await app.get(
            ITEM_LIST,
            offset="0",
            page_size="9",
            item_status="NORMAL",
            update_time_from=update_time_from,
            update_time_to=update_time_to,
        )

    before = await listed()
    await control("PUT", "/clock", {"ahead_seconds": 3_600})
    assert (await app.set((55, 1)))[1]["error"] == ""
    assert await listed() == before
    since = str(int(sandbox.ledger.clock.now()) - 60)
    assert (await listed(update_time_from=since))[1]["response"]["total_count"] == 0
    assert (await listed(update_time_to=since))[1]["response"]["total_count"] == 2


async def test_a_listing_that_is_added_later_makes_an_item(app: App, control: Controller) -> None:
    new = {"listings": [{"remote_variant": "12346/57", "sku": "shirt-green"}, {"remote_variant": "8", "sku": "scarf"}]}
    assert (await app.set((57, 5)))[1]["error"] == "error_busi_update_stock_failed"
    assert (await control("POST", f"/stores/shpe/{SHOP}/listings", new))[0] == 200
    assert (await app.set((57, 5)))[1]["error"] == ""
    assert (await app.set((0, 5), item=8))[1]["error"] == ""


async def test_warehouses_are_shown_only_by_shops_that_have_several(sandbox: Sandbox, app: App) -> None:
    message = "The shop is not in the whitelist of multi warehouse."
    assert await app.get(WAREHOUSES) == no("warehouse.error_not_in_whitelist", message)
    places(sandbox)
    _, body = await app.get(WAREHOUSES)
    assert [(one["warehouse_id"], one["location_id"]) for one in body["response"]] == [(1, "IDZ"), (2, "IDY")]


async def test_the_shop_info_stands_beside_the_envelope(app: App) -> None:
    status, body = await app.get(SHOP_INFO)
    assert body.pop("expire_time") - body.pop("auth_time") == 365 * 86_400
    assert (status, body) == (
        200,
        {
            "error": "",
            "message": "",
            "shop_name": f"Shop {SHOP}",
            "region": "ID",
            "status": "NORMAL",
            "is_cb": False,
            "is_upgraded_cbsc": False,
            "merchant_id": None,
            "shop_fulfillment_flag": "Others",
        },
    )


# Refusals without regard to content, and the control API


async def test_throttles_and_quotas_come_under_200(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", throttle_rate=1, retry_after_s=2, times=1)
    async with app.session.get(app.mount + SHOP_INFO, params=app.of_shop(SHOP_INFO)) as answer:
        body = await answer.json()
        assert (answer.status, answer.headers["Retry-After"]) == (200, "2")
    assert (body["error"], body["message"]) == ("error_rate_limit", "Too many requests, please slow down.")
    sandbox.faults.set("shpe", quota_calls=1)
    assert (await app.set((55, 1)))[1]["error"] == ""
    assert await app.set((55, 2)) == no("error_limit", "The daily limit of calls is reached.")
    assert written(sandbox) == [("12346/55", "", 1)]
    assert [call.fault for call in sandbox.ledger.calls.after(0)] == ["throttle_rate", "", "quota_calls"]


async def test_errors_come_in_the_envelope(sandbox: Sandbox, app: App) -> None:
    sandbox.faults.set("shpe", error_rate=1)
    assert [await app.set((55, 1)) for _ in range(3)] == [
        no("error_server", "Something wrong. Please try later.", 500),
        no("error_network", "Inner http call failed", 502),
        no("error_system_busy", "System is busy, please try later.", 503),
    ]
    assert untouched(sandbox)


async def test_a_body_over_one_mebibyte_is_answered_413(sandbox: Sandbox, app: App) -> None:
    answer = await app.post(UPDATE_STOCK, b" " * (1024 * 1024 + 1))
    assert answer == no("error_param", "Wrong parameters, detail: the body is too large.", 413)


@pytest.mark.parametrize(
    ("store", "change", "message"),
    [
        ("shop", {}, "the store is 'shop'; a shop of Shopee is named by its shop_id"),
        ("02", {}, "the store is '02'; a shop of Shopee is named by its shop_id"),
        (str(SHOP), {"partner_id": "1"}, "Expected `int`, got `str` - at `$.partner_id`"),
        (str(SHOP), {"auth_status": 401}, "Invalid enum value 401 - at `$.auth_status`"),
        (str(SHOP), {"locations": ["A", "A"]}, "a location is there twice"),
        (str(SHOP), {"token": "x"}, "unknown key: 'token'; known keys are partner_id, partner_key"),
        (
            str(SHOP),
            {"partner_key": "x"},
            f"store '{OTHER_SHOP}' has the partner_id {PARTNER} with another partner_key",
        ),
        (
            str(SHOP),
            {"listings": [{"remote_variant": "1/", "sku": "a"}]},
            "the remote_variant '1/' is neither ITEM nor",
        ),
        (str(SHOP), {"listings": [{"remote_variant": "x", "sku": "a"}]}, "the remote_variant 'x' is neither ITEM nor"),
        (
            str(SHOP),
            {"listings": [{"remote_variant": "1", "sku": "a"}, {"remote_variant": "1/2", "sku": "b"}]},
            "item '1' is there with and without variations",
        ),
    ],
)
async def test_a_wrong_store_is_refused_by_name(
    sandbox: Sandbox, app: App, control: Controller, store: str, change: dict[str, object], message: str
) -> None:
    status, body = await control("PUT", f"/stores/shpe/{store}", {**STORE, **change})
    assert (status, body["message"][: len(message)]) == (400, message)
    assert untouched(sandbox)
    assert shown(sandbox, OTHER_SHOP) == {"500": {"": 1}}


async def test_the_only_shop_of_an_application_may_get_another_key(sandbox: Sandbox) -> None:
    for key in ("one", "two"):
        sandbox.put_store("shpe", str(SHOP), {**STORE, "partner_key": key})
    assert sum(1 for _ in sandbox.ledger.stores("shpe")) == 1


async def test_a_listing_is_not_added_beside_one_that_it_cannot_stand_with(
    sandbox: Sandbox, app: App, control: Controller
) -> None:
    new = {"listings": [{"remote_variant": "7", "sku": "x"}, {"remote_variant": "12347/1", "sku": "y"}]}
    status, body = await control("POST", f"/stores/shpe/{SHOP}/listings", new)
    assert (status, body["message"][:45]) == (400, "item '12347' is there with and without variations"[:45])
    assert untouched(sandbox)


async def test_a_call_log_holds_no_token_and_no_signature(app: App, control: Controller) -> None:
    sign_of_call = app.of_shop(UPDATE_STOCK)["sign"]
    await app.set((55, 1))
    _, body = await app.refresh("refresh-1")
    await app.post("/api/v2/auth/token/get/", {"code": "code-1", "shop_id": {"refresh_token": "refresh-1"}})
    _, location = await app.agree(shop_id=str(SHOP))
    _, calls = await control("GET", "/calls")
    assert [(call["store"], call["path"].removeprefix("/shpe/api/v2/")) for call in calls] == [
        (str(SHOP), "product/update_stock"),
        (str(SHOP), "auth/access_token/get"),
        ("", "auth/token/get/"),
        (str(SHOP), "shop/auth_partner"),
    ]
    code = location.partition("code=")[2].partition("&")[0]
    assert len(code) == 32
    for secret in ("access-1", "refresh-1", "code-1", body["access_token"], body["refresh_token"], code, sign_of_call):
        assert secret not in str(calls)


async def test_another_shop_is_not_touched(sandbox: Sandbox, app: App) -> None:
    app.access_token = str(OTHER_STORE["access_token"])
    assert (await app.set((0, 9), item=500, shop=OTHER_SHOP))[1]["error"] == ""
    assert await app.set((55, 9), shop=OTHER_SHOP) == no("error_item_not_found", "Product not found.")
    assert shown(sandbox, OTHER_SHOP) == {"500": {"": 9}}
    assert shown(sandbox) == {"12346/55": {"": 7}, "12346/56": {"": 0}, "12347": {"": 3}}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from([12346, 55, 5]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["item_id", "stock_list", "model_id", "seller_stock", "stock", "location_id", "shop_id"]),
            inner,
        )
    ),
    max_leaves=20,
)


PLACE = st.fixed_dictionaries(
    {"stock": st.sampled_from([0, 5, -1, 10_000_001]), "location_id": st.sampled_from(["", "IDZ", "IDX"])}
)
ROW = st.fixed_dictionaries(
    {"model_id": st.sampled_from([0, 55, 56, 9]), "seller_stock": st.lists(PLACE, min_size=1, max_size=2)}
)
PLAUSIBLE = st.fixed_dictionaries(
    {"item_id": st.sampled_from([12346, 12347, 1]), "stock_list": st.lists(ROW, min_size=1, max_size=3)}
)


@settings(deadline=None, max_examples=300)
@given(
    body=st.binary() | (JSON | PLAUSIBLE).map(msgspec.json.encode),
    path=st.sampled_from([UPDATE_STOCK, ACCESS_TOKEN_GET, TOKEN_GET, MODEL_LIST, "/"]),
)
def test_any_body_is_answered_and_changes_at_most_what_it_names(body: bytes, path: str) -> None:
    ledger = Ledger()
    shopee = Shopee(ledger)
    ledger.put_store(shopee.store(str(SHOP), {**STORE, "locations": ["IDZ"]}))
    parts = (str(PARTNER), path, "1700000000") + (() if "/auth/" in path else ("access-1", str(SHOP)))
    query = {
        "partner_id": str(PARTNER),
        "timestamp": "1700000000",
        "access_token": "access-1",
        "shop_id": str(SHOP),
        "sign": sign(PARTNER_KEY, *parts),
    }
    call = Call("POST", f"/shpe{path}", query, {}, body, 1700000000.0)
    verdict = shopee.judge(call, ledger, {})
    assert verdict.answer.status == (200 if path not in {MODEL_LIST, "/"} else 404)
    assert msgspec.json.decode(verdict.answer.body, type=dict)["error"] != "error_sign"
    assert {change.remote_variant for change in verdict.changes} <= set(shopee.target(call).remote_variants)
    assert ledger.writes.last == 0
