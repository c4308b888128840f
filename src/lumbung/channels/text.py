"""What marketplaces say, as it is kept and shown."""

from __future__ import annotations

import msgspec

MESSAGE_CHARACTERS_MAX = 500


def words(text: str) -> str:
    """The marketplace's words on one line, without control characters, at most 500 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE_CHARACTERS_MAX]).split())
    return line[:MESSAGE_CHARACTERS_MAX]


def json_text(text: str) -> str:
    """`text` when it is JSON, else ""."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    return text
