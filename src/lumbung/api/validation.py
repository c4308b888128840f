"""Reading a request: everything that is wrong with it at once, each problem naming its field. Pure.

Written by hand because a schema library stops at the first problem, or turns "100" and 1.0 into integers on its way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from lumbung.api.json_object import NotAnObjectError, read_object
from lumbung.channels.catalogue import CATALOGUE
from lumbung.errors import BadRequest, Problem
from lumbung.model import QUANTITY_MAX, StockUpdate

TEXT_CHARS_MAX = 255
OFFSET_MAX = 2**53 - 1
NOT_BUILT = frozenset({"transaction_code", "sku", "channel", "success", "progress", "cursor"})
"""Filters of the history that partner-contract.md announces."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TIMESTAMP = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?(?:([Zz])|([+ -])(\d{2}:[0-5]\d))", re.ASCII
)
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Limits:
    """`as_of_latest`: no as_of may be after it."""

    json_depth_max: int
    channel_stock_entries_max: int
    as_of_latest: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """A valid query of the history."""

    updated_at: datetime | None
    limit: int
    offset: int


@dataclass(slots=True)
class _Problems:
    found: list[Problem] = field(default_factory=list)

    def add(self, name: str, message: str) -> None:
        self.found.append(Problem(name, message))

    def raise_if_any(self) -> None:
        if self.found:
            raise self.error()

    def error(self) -> BadRequest:
        message = "; ".join(f"{problem.field}: {problem.message}" for problem in self.found[:3])
        more = len(self.found) - 3
        return BadRequest(f"{message}; and {more} more" if more > 0 else message, tuple(self.found))


def read_update(body: bytes, limits: Limits, earlier: Sequence[Problem] = ()) -> StockUpdate:
    """The stock update that a body asks for. Raises BadRequest with every problem: the earlier ones (of the headers),
    then those of the body in the order of the contract."""
    problems = _Problems([*earlier])
    try:
        fields, fault = read_object(body, limits.json_depth_max)
    except NotAnObjectError as error:
        problems.add("body", str(error))
        raise problems.error() from None
    sku = _text(fields, "sku", problems)
    sync = _flag(fields, problems)
    warehouse = _text(fields, "warehouse", problems)
    available = _quantity(fields.get("available_stock", _MISSING), "available_stock", problems)
    buffer = _quantity(fields.get("buffer_stock", _MISSING), "buffer_stock", problems)
    if available is not None and buffer is not None and buffer > available:
        problems.add("buffer_stock", f"must not be more than available_stock ({available})")
    figures = _figures(fields.get("channel_stock", _MISSING), limits.channel_stock_entries_max, problems)
    as_of = _as_of(fields.get("as_of"), limits.as_of_latest, problems)
    if fault and len(problems.found) == len(earlier):  # else the field's own problem says it better
        problems.add("body", fault)
    problems.raise_if_any()
    assert sku is not None and warehouse is not None  # noqa: PT018 (each was checked above)
    assert available is not None and buffer is not None  # noqa: PT018
    return StockUpdate(sku, warehouse, available, buffer, sync, figures, as_of)


def read_page(query: bytes, *, limit_default: int, limit_max: int) -> Page:
    """The page of history that a query string asks for. Raises BadRequest naming each wrong parameter."""
    problems = _Problems()
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except (UnicodeDecodeError, ValueError):
        problems.add("query", "must be URL-encoded UTF-8, with at most 100 parameters")
        pairs = []
    values: dict[str, str] = {}
    for name, text in pairs:
        if name in values and name in ("updated_at", "limit", "offset"):
            problems.add(name, "must be given once")
        values[name] = text
    for name in sorted(NOT_BUILT & values.keys()):
        problems.add(name, "is not supported yet: without it the answer would hold records that it leaves out")
    updated_at = _moment(values.get("updated_at"), "updated_at", problems)
    limit = _number(values.get("limit"), "limit", limit_default, (1, limit_max), problems)
    offset = _number(values.get("offset"), "offset", 0, (0, OFFSET_MAX), problems)
    problems.raise_if_any()
    return Page(updated_at, limit, offset)


def parse_timestamp(text: str) -> datetime | None:
    """An RFC 3339 timestamp with offset, in UTC; None when it is not one. A space stands for a `+` that was not
    escaped in a URL. A leap second (23:59:60 in UTC) is the second after it, as in POSIX and PostgreSQL."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        return None
    date, clock, fraction, zulu, sign, offset = found.groups()
    leap = clock.endswith(":60")
    micros = (fraction or "")[:6].ljust(6, "0")
    zone = "+00:00" if zulu else f"{'-' if sign == '-' else '+'}{offset}"
    try:
        moment = datetime.fromisoformat(f"{date}T{clock[:-2] + '59' if leap else clock}.{micros}{zone}").astimezone(UTC)
        if not leap:
            return moment
        return moment + timedelta(seconds=1) if (moment.hour, moment.minute) == (23, 59) else None
    except (ValueError, OverflowError):
        return None


def key_problems(keys: Sequence[str], chars_max: int) -> tuple[Problem, ...]:
    """What is wrong with the Idempotency-Key headers of a request; no header is right."""
    if len(keys) > 1:
        return (Problem("Idempotency-Key", "must be given once"),)
    if keys and (not 1 <= len(keys[0]) <= chars_max or _CONTROL.search(keys[0])):
        return (Problem("Idempotency-Key", f"must be 1 to {chars_max} characters without control characters"),)
    return ()


def _text(fields: Mapping[str, Any], name: str, problems: _Problems) -> str | None:
    value = fields.get(name, _MISSING)
    if value is _MISSING:
        problems.add(name, "is required")
    elif not isinstance(value, str):
        problems.add(name, f"must be a string, not {_kind(value)}")
    elif not 1 <= len(value) <= TEXT_CHARS_MAX:
        problems.add(name, f"must have 1 to {TEXT_CHARS_MAX} characters")
    elif _CONTROL.search(value):
        halved = _SURROGATE.search(value)
        broken = "must be text in UTF-8, without half of a surrogate pair"
        problems.add(name, broken if halved else "must not hold control characters")
    else:
        return value
    return None


def _flag(fields: Mapping[str, Any], problems: _Problems) -> bool:
    value = fields.get("sync_stock")
    match value:
        case None:
            return False
        case bool():
            return value
        case str() if value.lower() in ("true", "false"):
            return value.lower() == "true"
        case _:
            problems.add("sync_stock", 'must be true, false, "true" or "false"')
            return False


def _quantity(value: object, name: str, problems: _Problems) -> int | None:
    if value is _MISSING:
        problems.add(name, "is required")
    elif not isinstance(value, int) or isinstance(value, bool):
        problems.add(name, f"must be an integer, not {_kind(value)}")
    elif not 0 <= value <= QUANTITY_MAX:
        problems.add(name, f"must be from 0 to {QUANTITY_MAX}")
    else:
        return value
    return None


def _figures(value: object, entries_max: int, problems: _Problems) -> dict[str, int]:
    figures: dict[str, int] = {}
    if value is _MISSING:
        problems.add("channel_stock", "is required (it may be an empty array)")
    elif not isinstance(value, list):
        problems.add("channel_stock", f"must be an array, not {_kind(value)}")
    elif len(value) > entries_max:
        problems.add("channel_stock", f"must have at most {entries_max} entries")
    else:
        seen: set[str] = set()
        for n, entry in enumerate(value):
            _figure(entry, f"channel_stock[{n}]", seen, figures, problems)
    return figures


def _figure(entry: object, path: str, seen: set[str], figures: dict[str, int], problems: _Problems) -> None:
    if not isinstance(entry, dict):
        problems.add(path, f"must be an object, not {_kind(entry)}")
        return
    code = _code(entry.get("code", _MISSING), f"{path}.code", seen, problems)
    quantity = _quantity(entry.get("qty", _MISSING), f"{path}.qty", problems)
    if code is not None and quantity is not None:
        figures[code] = quantity


def _code(value: object, name: str, seen: set[str], problems: _Problems) -> str | None:
    if value is _MISSING:
        problems.add(name, "is required")
    elif not isinstance(value, str):
        problems.add(name, f"must be a string, not {_kind(value)}")
    elif value not in CATALOGUE:
        problems.add(name, f"must be one of {', '.join(sorted(CATALOGUE))}")
    elif value in seen:
        problems.add(name, f"{value} is named twice")
    else:
        seen.add(value)
        return value
    return None


def _as_of(value: object, latest: datetime, problems: _Problems) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        problems.add("as_of", f"must be a string, not {_kind(value)}")
        return None
    unescaped = value[-6:-5] == " "  # in a URL that would be a plus sign, in a body it is a mistake
    moment = _moment("" if unescaped else value, "as_of", problems)
    if moment is not None and moment > latest:
        problems.add("as_of", "must not be in the future")
    return moment


def _moment(text: str | None, name: str, problems: _Problems) -> datetime | None:
    if text is None:
        return None
    moment = parse_timestamp(text)
    if moment is None:
        problems.add(name, "must be an RFC 3339 timestamp with offset, such as 2021-02-05T15:04:05Z")
    return moment


def _number(text: str | None, name: str, default: int, bounds: tuple[int, int], problems: _Problems) -> int:
    if text is None:
        return default
    low, high = bounds
    if text.isascii() and text.isdigit() and len(text) <= 16 and low <= int(text) <= high:
        return int(text)
    problems.add(name, f"must be a whole number from {low} to {high}")
    return default


def _kind(value: object) -> str:
    names: list[tuple[type, str]] = [
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a number with a fraction or exponent"),
        (str, "a string"),
        (list, "an array"),
        (dict, "an object"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), "null")


def latest_as_of(now: datetime, ahead_seconds_max: float) -> datetime:
    return now + timedelta(seconds=ahead_seconds_max)
