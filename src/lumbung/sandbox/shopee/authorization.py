"""The seller agrees, and codes and refresh tokens are traded for token pairs [D, section 1.3]."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from lumbung.sandbox.call import Answer, Call, Verdict
from lumbung.sandbox.ledger import Ledger, Store
from lumbung.sandbox.shopee.door import admit_application
from lumbung.sandbox.shopee.shop import shop_of, shops_of
from lumbung.sandbox.shopee.tokens import Pair, new_code, new_pair
from lumbung.sandbox.shopee.wire import CHANNEL, RefusalError, flat_success, is_whole, read_body

AUTH_PARTNER = "/api/v2/shop/auth_partner"
TOKEN_GET = "/api/v2/auth/token/get"  # noqa: S105 - a path
ACCESS_TOKEN_GET = "/api/v2/auth/access_token/get"  # noqa: S105 - a path


def holds_tokens(path: str) -> bool:
    """Whether bodies at this path are likely to hold codes and tokens: also where it is a little misspelt."""
    return "/auth/" in path


def agree(call: Call, ledger: Ledger) -> Verdict:
    """The seller follows the link, and agrees at once: sent on to `redirect` with a code and the shop.

    The real page asks who the seller is. Here it is the application's only shop, or the one that the parameter
    `shop_id` names [I].
    """
    partner_id = admit_application(call, ledger)
    redirect = call.query.get("redirect", "")
    if not _is_url(redirect):
        raise RefusalError("error_param", "Wrong parameters, detail: redirect.")
    store = _seller(partner_id, call.query.get("shop_id"), ledger)
    tokens, code = shop_of(store).tokens, new_code()
    target = f"{redirect}{'&' if '?' in redirect else '?'}{urlencode({'code': code, 'shop_id': store.name})}"
    return Verdict(
        Answer(302, b"", "text/html; charset=utf-8", location=target), effect=lambda: tokens.add_code(code, call.now)
    )


def trade_code(call: Call, ledger: Ledger) -> Verdict:
    store, code = _shop_and_secret(call, "code", ledger, unknown_shop="invalid_shop_id")
    tokens = shop_of(store).tokens
    if not tokens.takes_code(code, call.now):
        raise RefusalError("invalid_code", "Invalid code.")
    pair = new_pair()
    return Verdict(_issued(store, pair), effect=lambda: tokens.trade_code(code, pair, call.now))


def refresh(call: Call, ledger: Ledger) -> Verdict:
    store, refresh_token = _shop_and_secret(call, "refresh_token", ledger, unknown_shop="shop_no_linked")
    tokens = shop_of(store).tokens
    if not tokens.linked:
        raise RefusalError("shop_no_linked", "The shop is not linked to this partner.")
    if not tokens.is_current(refresh_token):
        raise RefusalError("error_auth", "Invalid refresh_token.")
    if tokens.has_died(call.now):
        raise RefusalError("refresh_token_expired", "The refresh_token has expired.")
    pair = new_pair()
    return Verdict(_issued(store, pair), effect=lambda: tokens.refresh(refresh_token, pair, call.now))


def _shop_and_secret(call: Call, secret: str, ledger: Ledger, *, unknown_shop: str) -> tuple[Store, str]:
    """The shop that the body names, which is the application's own, and the code or token in it."""
    partner_id = admit_application(call, ledger)
    body = read_body(call)
    value, shop_id = body.get(secret), body.get("shop_id")
    if not isinstance(value, str) or not value:
        raise RefusalError("error_param", f"Wrong parameters, detail: {secret}.")
    if not is_whole(shop_id):
        raise RefusalError("error_param", "Wrong parameters, detail: shop_id.")
    if not is_whole(body.get("partner_id")) or str(body["partner_id"]) != partner_id:
        raise RefusalError("error_param", "Invalid partner_id.")
    store = ledger.find_store(CHANNEL, str(shop_id))
    if store is None:
        raise RefusalError(unknown_shop, "The shop is not known.")
    if shop_of(store).partner_id != partner_id:
        raise RefusalError("error_auth", "Invalid partner_id or shopid.")
    return store, value


def _seller(partner_id: str, shop_id: str | None, ledger: Ledger) -> Store:
    shops = [store for store in shops_of(partner_id, ledger) if shop_id in (None, store.name)]
    if len(shops) != 1:
        raise RefusalError("error_param", "Wrong parameters, detail: shop_id must say which of the shops agrees.")
    return shops[0]


def _issued(store: Store, pair: Pair) -> Answer:
    shop = shop_of(store)
    return flat_success(
        {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "expire_in": int(shop.tokens.access_seconds),
            "partner_id": int(shop.partner_id),
            "shop_id": int(store.name),
        }
    )


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and text.isascii() and text.isprintable()
