"""What marketplaces say, as it is kept and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

MESSAGE_CHARACTERS_MAX = 500


def words(text: str) -> str:
    """The marketplace's words on one line, without control characters, at most 500 characters."""
    begin = text[: 4 * MESSAGE_CHARACTERS_MAX]
    if not begin.isprintable():
        begin = "".join(c if c.isprintable() else " " for c in begin)
    return " ".join(begin.split())[:MESSAGE_CHARACTERS_MAX]


def json_text(text: str) -> str:
    """`text` when it is JSON, else ""."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    return text


def strings_under(body: bytes | str, wanted: Callable[[str], bool]) -> tuple[str, ...]:
    """Every string of a JSON object that stands under a name which is `wanted`, at any depth and within anything; none
    when `body` is no such object."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ()
    found: list[str] = []
    for name, raw in fields.items():
        try:
            found += _strings({name: msgspec.json.decode(raw)}, wanted)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue  # a number that is too large, say: no string
    return tuple(found)


def _strings(value: object, wanted: Callable[[str], bool], taken: bool = False) -> Iterator[str]:
    match value:
        case str() if taken:
            yield value
        case dict():
            for name, inner in value.items():
                yield from _strings(inner, wanted, taken or wanted(name))
        case list():
            for inner in value:
                yield from _strings(inner, wanted, taken)
        case _:
            return
