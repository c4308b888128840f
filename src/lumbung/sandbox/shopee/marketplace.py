"""Shopee as one marketplace, below /shpe.

POST /shpe/api/v2/product/update_stock       GET /shpe/api/v2/product/get_item_list
POST /shpe/api/v2/auth/token/get             GET /shpe/api/v2/product/get_item_base_info
POST /shpe/api/v2/auth/access_token/get      GET /shpe/api/v2/product/get_model_list
GET  /shpe/api/v2/shop/auth_partner          GET /shpe/api/v2/shop/get_shop_info
                                             GET /shpe/api/v2/shop/get_warehouse_detail
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web

from lumbung.sandbox.call import Answer, Call, Target, Verdict
from lumbung.sandbox.faults import RowFaults
from lumbung.sandbox.ledger import Ledger, Store
from lumbung.sandbox.marketplace import Handler
from lumbung.sandbox.shopee import authorization, door, reading, stock
from lumbung.sandbox.shopee.shop import open_shop, shop_of
from lumbung.sandbox.shopee.wire import CHANNEL, MOUNT, RefusalError, api_path, failure, is_whole, refused

PublicAction = Callable[[Call, Ledger], Verdict]
ShopAction = Callable[[Call, Store, RowFaults], Verdict]

PUBLIC: dict[tuple[str, str], PublicAction] = {
    ("GET", authorization.AUTH_PARTNER): authorization.agree,
    ("POST", authorization.TOKEN_GET): authorization.trade_code,
    ("POST", authorization.ACCESS_TOKEN_GET): authorization.refresh,
}
OF_A_SHOP: dict[tuple[str, str], ShopAction] = {
    ("POST", stock.UPDATE_STOCK): stock.update_stock,
    ("GET", reading.SHOP_INFO): reading.shop_info,
    ("GET", reading.WAREHOUSES): reading.warehouses,
    ("GET", reading.ITEM_LIST): reading.item_list,
    ("GET", reading.ITEM_INFO): reading.item_info,
    ("GET", reading.MODEL_LIST): reading.model_list,
}

# What is answered without regard to content: HTTP status, code, message. The codes are Shopee's [D, C]; which of them
# comes with which 5xx, and the answers to 404 and 413, are [I].
REFUSALS = {
    400: (400, "error_param", "Wrong parameters, detail: the body is broken."),
    404: (404, "error_not_found", "The api path is not found."),
    413: (413, "error_param", "Wrong parameters, detail: the body is too large."),
    429: (200, "error_rate_limit", "Too many requests, please slow down."),
    500: (500, "error_server", "Something wrong. Please try later."),
    502: (502, "error_network", "Inner http call failed"),
    503: (503, "error_system_busy", "System is busy, please try later."),
}


class Shopee:
    """Needs the ledger to set up a shop: tokens are issued by its clock, and shops of an application share a key."""

    channel = CHANNEL
    headers_shown = ("content-type", "user-agent")

    def __init__(self, ledger: Ledger):
        self._ledger = ledger

    @property
    def mounts(self) -> Mapping[str, str]:
        return {"base_url": MOUNT}

    def routes(self, handler: Handler) -> list[web.RouteDef]:
        return [web.route("*", f"{MOUNT}/{{rest:.*}}", handler)]

    def store(self, name: str, settings: Mapping[str, object]) -> Store:
        return open_shop(name, settings, self._ledger)

    def target(self, call: Call) -> Target:
        """A write is in flight for the listings that it names; what is only read may change meanwhile."""
        path, application = api_path(call), call.query.get("partner_id", "")
        if authorization.holds_tokens(path):
            return Target(_shop_id(_body(call)), application=application, is_secret=True)
        names = stock.named(_body(call)) if path == stock.UPDATE_STOCK else ()
        return Target(call.query.get("shop_id", ""), names, application)

    def judge(self, call: Call, ledger: Ledger, row_faults: RowFaults) -> Verdict:
        what = (call.method, api_path(call))
        try:
            if action := PUBLIC.get(what):
                return action(call, ledger)
            if what not in OF_A_SHOP:
                return Verdict(self.refusal(call, 404))
            store = door.admit_shop(call, ledger)
        except RefusalError as error:
            return refused(error, self._auth_status(call))
        try:
            return OF_A_SHOP[what](call, store, row_faults)
        except RefusalError as error:
            return refused(error)

    def refusal(self, call: Call, status: int) -> Answer:
        http_status, code, message = REFUSALS[status]
        return failure(code, message, status=http_status)

    def quota_refusal(self, call: Call) -> Answer:
        return failure("error_limit", "The daily limit of calls is reached.")

    def revoke(self, store: Store) -> None:
        shop_of(store).tokens.revoke()

    def _auth_status(self, call: Call) -> int:
        store = self._ledger.find_store(CHANNEL, self.target(call).store)
        return shop_of(store).auth_status if store is not None else 200


def _shop_id(body: dict[str, object]) -> str:
    shop_id = body.get("shop_id")
    return str(shop_id) if is_whole(shop_id) else ""


def _body(call: Call) -> dict[str, object]:
    """For what a call says it is about; {} when that cannot be told."""
    try:
        body = msgspec.json.decode(call.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
