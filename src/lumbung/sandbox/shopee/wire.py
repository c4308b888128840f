"""The signature and the envelope [D, sections 1.1 and 1.2]."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping

import msgspec

from lumbung.sandbox.call import Answer, Call, Verdict

CHANNEL = "shpe"
MOUNT = f"/{CHANNEL}"

_encode = msgspec.json.Encoder().encode


class RefusalError(Exception):
    """A call that is answered with an error code and changes nothing; raised and caught within this folder. `struck`:
    only because the fault set says so."""

    def __init__(self, code: str, message: str, *, struck: bool = False):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.struck = struck


def sign(partner_key: str, *parts: str) -> str:
    """Lower-case hex HMAC-SHA256 over the parts, put together without separators.

    A shop's call: partner id, path, timestamp, access token, shop id. A public call: the first three. The path begins
    with /api/v2/ and has no query. [D; golden vectors in section 0.4]
    """
    return hmac.digest(partner_key.encode(), "".join(parts).encode("utf-8", "surrogateescape"), "sha256").hex()


def is_same(left: str, right: str) -> bool:
    """In constant time. Bytes, because compare_digest takes no text beyond ASCII, and a query may hold anything."""
    return hmac.compare_digest(left.encode("utf-8", "surrogateescape"), right.encode("utf-8", "surrogateescape"))


def api_path(call: Call) -> str:
    """What is signed, and what Shopee itself would see: the path below the mount."""
    return call.path.removeprefix(MOUNT)


def success(response: object) -> Answer:
    """The wrapped answer: success is an empty `error` [D]."""
    return _answer(200, {"error": "", "message": "", "warning": "", "request_id": _request_id(), "response": response})


def flat_success(fields: Mapping[str, object]) -> Answer:
    """The answer of /auth/* and of get_shop_info: its fields beside the envelope's [D]."""
    return _answer(200, {"error": "", "message": "", "request_id": _request_id(), **fields})


def failure(code: str, message: str, *, status: int = 200, response: object = None) -> Answer:
    """A refusal: no `response` [D: the error sample], unless there is a list of what failed [C]."""
    fields: dict[str, object] = {"error": code, "message": message, "request_id": _request_id()}
    if response is not None:
        fields["response"] = response
    return _answer(status, fields)


def refused(error: RefusalError, status: int = 200) -> Verdict:
    return Verdict(failure(error.code, error.message, status=status), struck=error.struck)


def read_body(call: Call) -> dict[str, object]:
    """The body as a JSON object; raises RefusalError."""
    try:
        body = msgspec.json.decode(call.body)
    except (ValueError, RecursionError):
        raise RefusalError("error_param", "Wrong parameters, detail: the body is not JSON.") from None
    if not isinstance(body, dict):
        raise RefusalError("error_param", "Wrong parameters, detail: the body is not a JSON object.")
    return body


def is_whole(value: object) -> bool:
    """A bool is an int to Python, but no number to a marketplace."""
    return type(value) is int


def _request_id() -> str:
    return secrets.token_hex(16)


def _answer(status: int, fields: Mapping[str, object]) -> Answer:
    return Answer(status, _encode(fields))
