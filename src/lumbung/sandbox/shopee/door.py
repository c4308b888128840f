"""Who may call [D, section 1.2]. In which order Shopee looks at what, is not known [I]: parameters, application,
timestamp, signature, shop, token."""

from __future__ import annotations

from lumbung.sandbox.call import Call
from lumbung.sandbox.ledger import Ledger, Store
from lumbung.sandbox.shopee.shop import Shop, shop_of, shops_of
from lumbung.sandbox.shopee.wire import CHANNEL, RefusalError, api_path, is_same, sign

SKEW_MAX_SECONDS = 5 * 60
PUBLIC_PARAMETERS = ("partner_id", "timestamp", "sign")
SHOP_PARAMETERS = (*PUBLIC_PARAMETERS, "access_token", "shop_id")


def admit_application(call: Call, ledger: Ledger) -> str:
    """The partner id of a public call that is signed as it should; raises RefusalError."""
    _check_parameters(call, PUBLIC_PARAMETERS)
    _check_signature(call, ledger)
    return call.query["partner_id"]


def admit_shop(call: Call, ledger: Ledger) -> Store:
    """The store that a shop's call is about, when the call is signed and its token good; raises RefusalError."""
    _check_parameters(call, SHOP_PARAMETERS)
    _check_signature(call, ledger, call.query["access_token"], call.query["shop_id"])
    store = ledger.find_store(CHANNEL, call.query["shop_id"])
    if store is None:
        raise RefusalError("error_shop", "shopid is invalid")
    if shop_of(store).partner_id != call.query["partner_id"]:
        raise RefusalError("error_auth", "Invalid partner_id or shopid.")
    _check_token(call, store, ledger)
    return store


def _check_parameters(call: Call, names: tuple[str, ...]) -> None:
    for name in names:
        if not call.query.get(name):
            # The message of the timestamp is worded otherwise than those of its neighbours.
            message = "no timestamp" if name == "timestamp" else f"There is no {name} in query."
            raise RefusalError("error_param", message)


def _check_signature(call: Call, ledger: Ledger, *more: str) -> None:
    partner_id, timestamp = call.query["partner_id"], call.query["timestamp"]
    shop = _shop_of_application(partner_id, call.query.get("shop_id", ""), ledger)
    if shop is None:
        raise RefusalError("error_param", "Invalid partner_id.")
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        raise RefusalError("error_param", "Invalid timestamp")
    if abs(int(timestamp) - call.now) > SKEW_MAX_SECONDS:
        raise RefusalError("error_param", "Invalid timestamp")
    expected = sign(shop.partner_key, partner_id, api_path(call), timestamp, *more)
    if not is_same(call.query["sign"], expected):
        raise RefusalError("error_sign", "Wrong sign.")


def _shop_of_application(partner_id: str, shop_id: str, ledger: Ledger) -> Shop | None:
    """Any shop will do, as all have the application's key; the one that the call names is found without a search."""
    store = ledger.find_store(CHANNEL, shop_id)
    if store is not None and shop_of(store).partner_id == partner_id:
        return shop_of(store)
    return next((shop_of(store) for store in shops_of(partner_id, ledger)), None)


def _check_token(call: Call, store: Store, ledger: Ledger) -> None:
    access_token = call.query["access_token"]
    if shop_of(store).tokens.is_valid(access_token, call.now):
        return
    if shop_of(store).tokens.knows(access_token):
        # The typo is Shopee's [C].
        raise RefusalError("invalid_acceess_token", "Invalid access_token.")
    if any(shop_of(other).tokens.knows(access_token) for other in ledger.stores(CHANNEL)):
        raise RefusalError("error_auth", "Invalid partner_id or shopid.")
    raise RefusalError("error_auth", "Invalid access_token.")
