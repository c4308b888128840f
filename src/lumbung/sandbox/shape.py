"""JSON bodies of the control API, read strictly: unknown keys and wrong types are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from lumbung.sandbox.errors import RefusedError

Shape = TypeVar("Shape", bound=msgspec.Struct)


def read_object(body: bytes) -> dict[str, object]:
    """The body as a JSON object; raises RefusedError."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the body is no JSON ({error}); send a JSON object in UTF-8") from error
    if not isinstance(value, dict):
        raise RefusedError("the body is not a JSON object; send one, such as {}")
    return value


def read_shape(keys: Mapping[str, object], shape: type[Shape]) -> Shape:
    """The object as `shape`; raises RefusedError naming what is wrong and the keys that are known."""
    known = known_keys(shape)
    if unknown := sorted(keys.keys() - set(known)):
        names = ", ".join(repr(key) for key in unknown)
        raise RefusedError(f"unknown key: {names}; known keys are {', '.join(known)}")
    try:
        return msgspec.convert(keys, shape)
    except msgspec.ValidationError as error:
        raise RefusedError(f"{error}; known keys are {', '.join(known)}") from error


def known_keys(shape: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.encode_name for field in msgspec.structs.fields(shape))
