"""What a merchant's browser brings back after agreeing: `redirect?code=...&shop_id=...`.

Source: marketplaces.md section 1.3 [D]. A main account, which many shops share, comes back with `main_account_id` in
place of `shop_id`; its first pair of tokens is many shops', which this connector does not do.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

from lumbung.errors import BadRequest, Problem

REDIRECTED_CHARACTERS_MAX = 4096
_CODE = re.compile(r"[A-Za-z0-9_.~-]{1,512}", re.ASCII)


def code_of(redirected: str, shop_id: int) -> str:
    """The code, from a whole address or alone. Raises BadRequest that says what is wrong."""
    text = redirected.strip()
    if len(text) > REDIRECTED_CHARACTERS_MAX:
        raise _bad(f"is longer than {REDIRECTED_CHARACTERS_MAX} characters")
    if _CODE.fullmatch(text):
        return text
    try:
        query = parse_qs(urlsplit(text).query, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        query = {}
    if "main_account_id" in query:
        raise _bad("is of a main account, and those are not supported: log in with the shop's own account")
    shop = query.get("shop_id")
    if shop is not None and shop != [str(shop_id)]:
        raise _bad(f"is of shop {', '.join(shop)[:100]}, but the store is shop {shop_id}")
    codes = query.get("code", [])
    if len(codes) != 1 or not _CODE.fullmatch(codes[0]):
        raise _bad("must be the whole address that the browser was sent to, with its code, or the code alone")
    return codes[0]


def _bad(message: str) -> BadRequest:
    return BadRequest(f"The address {message}", (Problem("redirected", message),))
