"""A body as one JSON object: a fast reader for those that are right, and a second look at those that it refuses. Pure.

The fast reader does not say where half of a surrogate pair, a number of thousands of digits or a byte that is not UTF-8
stands. The second look lets such values through, each as one that no field takes, so that the field's own check names
it. What it reads is never accepted.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

SECOND_LOOK_BYTES_MAX = 65_536  # any update of the contract is shorter, and it takes longer than the first
INTEGER_DIGITS_MAX = 30
GZIP = b"\x1f\x8b"
UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class NotAnObjectError(Exception):
    """What a body must (not) be, to follow "The body"."""


def read_object(body: bytes, depth_max: int) -> tuple[dict[str, Any], str]:
    """The object, and what is wrong with the body in spite of which its fields could be read; "" for nothing.

    Raises NotAnObjectError for a body of which nothing can be read.
    """
    fault = ""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise NotAnObjectError(_too_deep(depth_max)) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        fault = _fault(body, error)
        value = _second_look(body, fault)
    if not isinstance(value, dict):
        raise NotAnObjectError(fault or "must be a JSON object")
    # Nothing is deeper than there are brackets.
    if body.count(b"{") + body.count(b"[") > depth_max and _deeper_than(value, depth_max):
        raise NotAnObjectError(_too_deep(depth_max))
    return value, fault


def _second_look(body: bytes, fault: str) -> object:
    if len(body) > SECOND_LOOK_BYTES_MAX:
        raise NotAnObjectError(fault)
    try:
        text = body.decode(errors="surrogateescape")
        return json.loads(text, strict=False, parse_int=_integer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NotAnObjectError(fault) from None


def _integer(digits: str) -> int:
    """Out of every field's range when it has too many digits to be worth reading."""
    return int(digits[:INTEGER_DIGITS_MAX])


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _fault(body: bytes, error: Exception) -> str:
    if not body:
        return "must be a JSON object, and is empty"
    if body.startswith(GZIP):
        return "must not be compressed"
    if body.startswith(UTF8_BOM):
        return "must not begin with a byte order mark"
    if body.startswith(UTF16_BOMS) or b"\0" in body[:4]:
        return "must be in UTF-8, and looks like UTF-16"
    try:
        body.decode()
    except UnicodeDecodeError as broken:
        return f"must be in UTF-8, and its byte {broken.start} (0x{body[broken.start]:02x}) is not"
    reason = str(error).partition(" - at ")[0]
    return f"must be a JSON document in UTF-8 ({reason})"


def _too_deep(depth_max: int) -> str:
    return f"must not be nested deeper than {depth_max}"


def _deeper_than(value: object, depth_max: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth_max):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return any(isinstance(inner, dict | list) for inner in level)


def _inside(value: object) -> list[object]:
    match value:
        case dict():
            return [inner for inner in value.values() if isinstance(inner, dict | list)]
        case list():
            return [inner for inner in value if isinstance(inner, dict | list)]
        case _:
            return []
