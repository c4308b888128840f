"""Blibli's optional request signature (marketplaces.md section 4, golden vector in 0.4; both tagged C).

Five lines joined by LF: the method, the MD5 of the body in hex (empty without a body), the content type (empty for a
GET), the time as Java prints it in Jakarta (`Tue Nov 14 22:13:20 WIB 2023`), and the path after `/proxy` without the
query. Signed with HMAC-SHA256, in base64. The header `Signature-Time` is the same instant in milliseconds.

Assumption: the year is the calendar year. Blibli's own client formats `YYYY`, Java's week year, which differs in the
last days of December; nobody has published which of the two the server checks then.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JAKARTA = timezone(timedelta(hours=7), "WIB")  # no daylight saving; needs no time zone database
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")  # not strftime: it speaks the process's locale
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def signature_headers(
    key: str, *, method: str, path: str, body: bytes | None, now: datetime, path_prefix: str = ""
) -> dict[str, str]:
    """The headers Signature and Signature-Time for a call to `path` (`/proxy/...`, without the query)."""
    text = raw_string(method, path_prefix + signed_path(path), body, now)
    digest = hmac.digest(key.encode(), text.encode(), "sha256")
    milliseconds = (now - _EPOCH) // timedelta(milliseconds=1)
    return {"Signature": base64.b64encode(digest).decode(), "Signature-Time": str(milliseconds)}


def raw_string(method: str, path: str, body: bytes | None, now: datetime) -> str:
    """The string that is signed; `path` as `signed_path` gives it."""
    body_md5 = "" if body is None else hashlib.md5(body, usedforsecurity=False).hexdigest()
    content_type = "" if method == "GET" else "application/json"
    return "\n".join((method, body_md5, content_type, jakarta_date(now), path))


def signed_path(path: str) -> str:
    """`/proxy/seller/v1/x` -> `/seller/v1/x`; `/proxy/mta/x` -> `/mtaapi/x`."""
    rest = path.split("/proxy", 1)[1]
    return rest.replace("/mta", "/mtaapi", 1) if rest.startswith("/mta/") else rest


def jakarta_date(now: datetime) -> str:
    """`now` as `EEE MMM dd HH:mm:ss zzz yyyy` in Jakarta."""
    return _jakarta_date(now.replace(microsecond=0))


@lru_cache(maxsize=8)  # many calls are made in a second
def _jakarta_date(now: datetime) -> str:
    there = now.astimezone(_JAKARTA)
    return f"{_DAYS[there.weekday()]} {_MONTHS[there.month - 1]} {there:%d %H:%M:%S} WIB {there.year}"
