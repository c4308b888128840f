"""Shopee's request signature (marketplaces.md section 1.2 [D], golden vectors in 0.4).

HMAC-SHA256 in lower-case hex, keyed with the partner key, of the parts below, one after the other with nothing between:

    a shop's call      partner_id, path, timestamp, access_token, shop_id
    a public call      partner_id, path, timestamp         (authorisation and tokens)

`path` begins at `/api/v2/`, whatever stands in front of it in the URL, and ends before the query. Neither the other
parameters nor the body are signed. `timestamp` is in whole Unix seconds and good for five minutes.
"""

from __future__ import annotations

import hmac


def sign_public(partner_key: str, *, partner_id: int, path: str, timestamp: int) -> str:
    return _sign(partner_key, f"{partner_id}{path}{timestamp}")


def sign_shop(partner_key: str, *, partner_id: int, path: str, timestamp: int, access_token: str, shop_id: int) -> str:
    return _sign(partner_key, f"{partner_id}{path}{timestamp}{access_token}{shop_id}")


def _sign(partner_key: str, text: str) -> str:
    return hmac.digest(partner_key.encode(), text.encode(), "sha256").hex()
