"""Whatever arrives is either read exactly or refused with names: a second, independent reading agrees."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lumbung.api.validation import Limits, Page, key_problems, parse_timestamp, read_page, read_update
from lumbung.channels.catalogue import CATALOGUE
from lumbung.errors import BadRequest
from lumbung.model import StockUpdate

LATEST = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(json_depth_max=32, channel_stock_entries_max=5, as_of_latest=LATEST)
FIELDS = ["sku", "sync_stock", "warehouse", "available_stock", "buffer_stock", "channel_stock", "as_of"]

texts = st.text(max_size=5) | st.sampled_from(["sku1", "default", "x" * 255, "x" * 256, "a\x00", "\x7f", "\x9f", ""])
numbers = st.integers(-2, 7) | st.sampled_from([2**31 - 1, 2**31, 2**63, 2**64, 10**50, -1])
scalars = st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
entries = st.fixed_dictionaries(
    {}, optional={"code": st.sampled_from([*CATALOGUE, "nope"]) | anything, "qty": numbers | anything, "x": anything}
)
moments = st.sampled_from(
    ["2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T06:59:59+07:00", "soon"]
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "sku": texts | anything,
        "sync_stock": st.sampled_from([True, False, None, "true", "FALSE", "tRue", "yes", 1]) | anything,
        "warehouse": st.just("default") | anything,
        "available_stock": numbers | anything,
        "buffer_stock": st.integers(0, 3) | anything,
        "channel_stock": st.lists(entries | anything, max_size=6) | anything,
        "as_of": moments | st.none() | anything,
        "more": anything,
    },
)
likely = st.fixed_dictionaries(
    {
        "sku": st.text(min_size=1, max_size=5),
        "warehouse": st.just("default"),
        "available_stock": st.integers(0, 2**31),
        "buffer_stock": st.integers(0, 3),
        "channel_stock": st.lists(
            st.fixed_dictionaries({"code": st.sampled_from([*CATALOGUE]), "qty": st.integers(-1, 9)}), max_size=3
        ),
    },
    optional={"sync_stock": st.sampled_from([True, False, None, "true", "FALSE"]), "as_of": moments},
)


def model_wrong(body: object) -> set[str] | None:
    """The fields of a body that the contract does not allow; None: the body as a whole."""
    if not isinstance(body, dict):
        return None
    wrong = {name for name in ("sku", "warehouse") if not _is_text(body.get(name))}
    wrong |= {name for name in ("available_stock", "buffer_stock") if not _is_quantity(body.get(name))}
    flag = body.get("sync_stock")
    if not (flag is None or flag is True or flag is False or (isinstance(flag, str) and _is_word(flag))):
        wrong.add("sync_stock")
    if not wrong & {"available_stock", "buffer_stock"} and body["buffer_stock"] > body["available_stock"]:
        wrong.add("buffer_stock")
    listed = body.get("channel_stock")
    if not isinstance(listed, list) or len(listed) > LIMITS.channel_stock_entries_max:
        wrong.add("channel_stock")
    else:
        wrong |= _wrong_entries(listed)
    as_of = body.get("as_of")
    good = {"2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z", "2026-01-01T06:59:59+07:00"}
    if as_of is not None and (not isinstance(as_of, str) or as_of not in good):
        wrong.add("as_of")
    return wrong


def _wrong_entries(listed: list[Any]) -> set[str]:
    wrong: set[str] = set()
    seen: list[str] = []
    for n, entry in enumerate(listed):
        if not isinstance(entry, dict):
            wrong.add(f"channel_stock[{n}]")
            continue
        code = entry.get("code")
        if isinstance(code, str) and code in CATALOGUE and code not in seen:
            seen.append(code)
        else:
            wrong.add(f"channel_stock[{n}].code")
        if not _is_quantity(entry.get("qty")):
            wrong.add(f"channel_stock[{n}].qty")
    return wrong


def _is_text(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) < 256
        and not any(unicodedata.category(char) in ("Cc", "Cs") for char in value)
    )


def _is_quantity(value: object) -> bool:
    return type(value) is int and value in range(2**31)


def _is_word(text: str) -> bool:
    return text.casefold() in ("true", "false")


def read(body: object) -> StockUpdate | list[str]:
    try:
        return read_update(json.dumps(body).encode(), LIMITS)
    except BadRequest as error:
        return [problem.field for problem in error.problems] or ["nothing is named"]


@settings(max_examples=600, deadline=None)
@given(bodies | likely | anything)
def test_a_body_is_read_exactly_or_every_bad_field_is_named_once_in_order(body: Any) -> None:
    found, wrong = read(body), model_wrong(body)
    if wrong is None:
        assert found == ["body"]
    elif wrong:
        assert isinstance(found, list)
        assert sorted(found) == sorted(wrong)
        assert found == sorted(found, key=_place)
    else:
        figures = {entry["code"]: entry["qty"] for entry in body["channel_stock"]}
        flag = body.get("sync_stock")
        assert isinstance(found, StockUpdate)
        assert (found.sku, found.warehouse) == (body["sku"], body["warehouse"])
        assert (found.available, found.buffer) == (body["available_stock"], body["buffer_stock"])
        assert found.sync is (flag is True or (isinstance(flag, str) and flag.casefold() == "true"))
        assert list(found.figures.items()) == list(figures.items())
        assert (found.as_of is None) is (body.get("as_of") is None)


def _place(name: str) -> tuple[int, int, int]:
    """Where the contract's table has a field."""
    field, _, rest = name.partition("[")
    number, _, inner = rest.partition("]")
    return FIELDS.index(field), int(number or 0), int(inner == ".qty")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.-+eE\\u nulltruefalseNaN', max_size=40).map(str.encode)
)
@example(b'{"sku":' + b"[" * 200_000)
@example(b"-")
@example(b'"\\u')
def test_bytes_that_are_no_json_are_a_bad_request_and_nothing_else(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        read_update(body, LIMITS)
    assert refused.value.problems
    assert str(refused.value)


@given(st.integers(0, 40), st.sampled_from(["[]", "{}", "mixed"]))
def test_nesting_is_counted_exactly(depth: int, kind: str) -> None:
    inner: object = 1
    for n in range(depth):
        inner = [inner] if kind == "[]" or (kind == "mixed" and n % 2) else {"a": inner}
    body = {"sku": "s", "warehouse": "w", "available_stock": 1, "buffer_stock": 0, "channel_stock": [], "x": inner}
    found = read(body)
    assert (found == ["body"]) is (depth + 1 > LIMITS.json_depth_max)


# Timestamps


@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)),  # noqa: DTZ001
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from(["T", "t", " "]),
    st.integers(0, 9),
)
def test_a_timestamp_survives_being_written_and_read(moment: datetime, minutes: int, joint: str, digits: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    local = moment.replace(tzinfo=zone)
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    kept = min(digits, 6)
    local = local.replace(microsecond=local.microsecond // 10 ** (6 - kept) * 10 ** (6 - kept))
    fraction = f".{f'{local.microsecond:06}000'[:digits]}" if digits else ""
    text = f"{local.year:04}-{local:%m-%d}{joint}{local:%H:%M:%S}{fraction}{sign}{hours:02}:{rest:02}"
    assert parse_timestamp(text) == local
    found = parse_timestamp(text)
    assert found is not None
    assert found.tzinfo is UTC


@settings(max_examples=300)
@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+\- ]\d\d:\d\d)"))
def test_no_text_makes_reading_a_timestamp_fail(text: str) -> None:
    found = parse_timestamp(text)
    assert found is None or found.tzinfo is UTC


# Pages


def page_of(query: bytes) -> Page | list[str]:
    try:
        return read_page(query, limit_default=100, limit_max=1000)
    except BadRequest as error:
        return [problem.field for problem in error.problems] or ["nothing is named"]


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(alphabet="limtofse=&%+0129;", max_size=40).map(str.encode))
@example(b"limit=" + b"9" * 5000)
@example(b"offset=%00")
@example(b"updated_at=%ff")
def test_no_query_makes_reading_a_page_fail(query: bytes) -> None:
    found = page_of(query)
    if isinstance(found, Page):
        assert 1 <= found.limit <= 1000
        assert 0 <= found.offset < 2**53
    else:
        assert set(found) <= {"query", "updated_at", "limit", "offset"}


@given(st.integers(-5, 1100), st.integers(-5, 2**54), st.datetimes(timezones=st.just(UTC)))
def test_a_page_is_read_as_it_was_asked_for(limit: int, offset: int, moment: datetime) -> None:
    text = f"{moment.year:04}-{moment:%m-%dT%H:%M:%S.%f}+00:00"
    wrong = [name for name, bad in (("limit", not 1 <= limit <= 1000), ("offset", not 0 <= offset < 2**53)) if bad]
    for escape in (str, quote):
        query = urlencode({"limit": limit, "offset": offset}) + f"&updated_at={escape(text)}"
        assert page_of(query.encode()) == (wrong or Page(moment, limit, offset))


@given(st.text(max_size=300))
def test_a_key_is_taken_by_its_length_and_its_characters(key: str) -> None:
    good = 1 <= len(key) <= 255 and not any(unicodedata.category(char) in ("Cc", "Cs") for char in key)
    assert [problem.field for problem in key_problems([key], 255)] == ([] if good else ["Idempotency-Key"])
