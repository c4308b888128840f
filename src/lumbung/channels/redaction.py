"""Keeping secrets out of what is kept: servers echo what they were sent, in the spelling of their own formats."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from html.entities import codepoint2name

_SECRET_CHARACTERS_MIN = 6


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret replaced by `***`, for servers that echo what they were sent.

    A secret is found however JSON, a URL, HTML or base64 spell it, alone or within something longer: whoever reads the
    text can undo that. Secrets shorter than 6 characters are left: they would tear words apart and are no secrets.
    """
    spellings = _spellings_of_all(tuple(secrets))
    text = _without(text, spellings)
    # No usual encoder escapes letters and digits. They are only read where that shows a secret, and left elsewhere.
    plain = _ESCAPED_CHARACTER.sub(_letter_or_digit, text)
    redacted = _without(plain, spellings)
    return text if redacted == plain else redacted


# Each escape may itself have been escaped, three times at most: a bound keeps the search quick on any answer.
_BACKSLASHES = r"\\\\{0,6}"
_PERCENT = r"%(?:25){0,3}"
_AMP = r"(?:amp;){0,3}"
_ESCAPED_CHARACTER = re.compile(
    rf"{_BACKSLASHES}(?:u00|x)([3-7][0-9A-Fa-f])|{_PERCENT}([3-7][0-9A-Fa-f])"
    rf"|&{_AMP}#[xX]0{{0,6}}([3-7][0-9A-Fa-f]);|&{_AMP}#0{{0,6}}([0-9]{{2,3}});"
)
_CONTROL_ESCAPES = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_ENTITIES = {**codepoint2name, ord("'"): "apos"}
_RUN = re.compile(r"[A-Za-z0-9]+|\\+|.", re.DOTALL)
_WORD = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class _Spelling:
    """A text to look for. `word`, its longest run of letters and digits, tells quickly where it cannot be."""

    text: str = field(repr=False)
    word: str = field(repr=False)


@lru_cache(maxsize=1024)
def _spellings_of_all(secrets: tuple[str, ...]) -> tuple[_Spelling, ...]:
    given = [secret for secret in secrets if len(secret) >= _SECRET_CHARACTERS_MIN]
    given.sort(key=len, reverse=True)  # one may be a part of another
    return tuple(spelling for secret in given for spelling in _spellings(secret))


def _spellings(secret: str) -> tuple[_Spelling, ...]:
    texts = dict.fromkeys((secret, *_in_base64(secret.encode(errors="surrogatepass"))))
    return tuple(_Spelling(text, max(_WORD.findall(text), key=len, default="")) for text in texts)


def _in_base64(secret: bytes) -> Iterator[str]:
    """What base64 makes of the secret wherever it stands in what is encoded, but for the characters at either end that
    depend on its neighbours too. In both alphabets."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret).decode()
        own = encoded[math.ceil(before * 8 / 6) : (before + len(secret)) * 8 // 6]
        yield own
        yield own.translate({ord("+"): "-", ord("/"): "_"})


def _without(text: str, spellings: Iterable[_Spelling]) -> str:
    for spelling in spellings:
        if spelling.word in text:
            text = _pattern_of(spelling.text).sub("***", text)
    return text


@lru_cache(maxsize=4096)
def _pattern_of(spelling: str) -> re.Pattern[str]:
    return re.compile("".join(map(_pattern, _RUN.findall(spelling))))


def _pattern(run: str) -> str:
    """A pattern for one character, or several of a kind, in every spelling."""
    if run.isascii() and run.isalnum():
        return run
    if run[0] != "\\":
        return f"(?:{re.escape(run)}|{_escapes(run)})"
    # Doubled by each escaping. Not simply as many as there are: the last may belong to the quote that follows.
    doubled = "|".join(rf"\\{{{len(run) * times}}}" for times in (8, 4, 2, 1))
    return f"(?:{doubled}|(?:{_escapes(run[0])}){{{len(run)}}})"


def _escapes(character: str) -> str:
    code = ord(character)
    units = character.encode("utf-16-be", errors="surrogatepass")
    entity = rf"{_AMP}(?:#0{{0,6}}{code}|#[xX]0{{0,6}}(?i:{code:x})|{_ENTITIES.get(code, '#')});"
    after_backslashes = [
        _BACKSLASHES.join(f"u(?i:{units[at : at + 2].hex()})" for at in range(0, len(units), 2)),
        re.escape(_CONTROL_ESCAPES.get(character, character)),
        f"(?:&|u0026){entity}",
    ]
    if code < 0x100:
        after_backslashes.append(f"x(?i:{code:02x})")
    found = [
        f"{_BACKSLASHES}(?:{'|'.join(after_backslashes)})",
        "".join(f"{_PERCENT}(?i:{byte:02x})" for byte in character.encode(errors="surrogatepass")),
        f"&{entity}",
    ]
    if character == " ":  # a form's
        found += [r"\+", _escapes("+")]
    return "|".join(found)


def _letter_or_digit(escape: re.Match[str]) -> str:
    *hexadecimal, decimal = escape.groups()
    character = chr(int(decimal) if decimal else int(next(filter(None, hexadecimal)), 16))
    return character if character.isascii() and character.isalnum() else escape[0]
