"""One call on a marketplace's path, and what the marketplace makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec


class Call(msgspec.Struct, frozen=True):
    """`path` is as it was sent, without the query; `query` is decoded, the last one of a repeated name wins.
    `now` is unix seconds at receipt, by the sandbox's clock."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    now: float


class Target(msgspec.Struct, frozen=True):
    """What a call says it is about, before anything is checked; empty where it does not say. `is_secret`: tokens stand
    in its bodies, which are not kept."""

    store: str
    remote_variants: tuple[str, ...] = ()
    application: str = ""
    is_secret: bool = False


class Change(msgspec.Struct, frozen=True, gc=False):
    """A quantity to be set, after everything was checked."""

    channel: str
    store: str
    remote_variant: str
    location: str
    quantity: int


class Answer(msgspec.Struct, frozen=True):
    """`location`: where a redirect leads; it may hold a code, so it is never kept."""

    status: int
    body: bytes
    content_type: str = "application/json"
    retry_after_s: int | None = None
    location: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The answer, and what takes effect with it: quantities (`changes`), and whatever else (`effect`: a token pair is
    traded). `struck`: a row was refused only because the fault set says so."""

    answer: Answer
    changes: tuple[Change, ...] = ()
    struck: bool = False
    effect: Callable[[], None] | None = None
