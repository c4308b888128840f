"""What names and codes that people give may look like."""

from __future__ import annotations

import re

from lumbung.errors import UsageError

CHARACTERS_MAX = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def problem_of(text: str, characters_max: int = CHARACTERS_MAX) -> str | None:
    """What is wrong with a SKU or a name, if anything is."""
    if not 1 <= len(text) <= characters_max:
        return f"must have 1 to {characters_max} characters"
    if _CONTROL.search(text):
        return "must not hold control characters"
    return None


def checked(what: str, text: str) -> str:
    """A name as it is kept. Raises UsageError that begins with `what`."""
    problem = problem_of(text)
    if problem is None and text != text.strip():
        problem = "must not begin or end with a space"
    if problem is not None:
        raise UsageError(f"{what} {problem}")
    return text


def checked_reference(what: str, text: str) -> str:
    """As `checked`, for what can also be named by its id. Raises UsageError."""
    if text.isascii() and text.isdigit():
        raise UsageError(f"{what} must not be digits only: it would be taken for an id")
    return checked(what, text)
