"""The partner signature: `secret` = base64(HMAC-SHA256(key, request target + raw body)). Pure.

The key is the partner secret's own UTF-8 bytes (it looks like base64; it is not decoded). The target is what stood on
the wire, with its query, never re-encoded; with or without its leading slash, because the published examples use both.
An empty query is signed with or without its `?`, because servers do not say whether one was sent.
With a `timestamp` header, the timestamp's text comes first.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable


def sign(key: str, target: str, body: bytes, timestamp: str = "") -> str:
    """The value of the `secret` header."""
    return base64.b64encode(_digest(key.encode(), timestamp.encode() + target.encode() + body)).decode()


def matches(given: str, keys: Iterable[str], target: bytes, body: bytes, timestamp: bytes = b"") -> bool:
    """Whether a given signature is right for one of the keys; takes the same time whichever form it is."""
    sent = given.encode("utf-8", "surrogateescape")
    right = False
    for key in keys:
        for form in _forms(target):
            expected = base64.b64encode(_digest(key.encode(), timestamp + form + body))
            right |= hmac.compare_digest(expected, sent)
    return right


def _forms(target: bytes) -> list[bytes]:
    slashes = [target, target.removeprefix(b"/")]
    return slashes if b"?" in target else [*slashes, *(form + b"?" for form in slashes)]


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
