"""How a channel misbehaves: one fault set a channel, replaced as a whole."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import accumulate, cycle
from typing import Annotated, Literal

import msgspec

from lumbung.sandbox.bucket import Bucket
from lumbung.sandbox.call import Answer
from lumbung.sandbox.errors import UnknownError
from lumbung.sandbox.shape import read_shape

HOUR_MS = 3_600_000
ROUNDING = 1e-9

Rate = Annotated[float, msgspec.Meta(ge=0, le=1)]
RowFault = Literal["unknown", "banned", "locked", "failing"]
RowFaults = Mapping[str, RowFault]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=HOUR_MS)]

# The order in which the rates are stacked: with a seed, the same draws give the same faults.
RATES = (
    "error_rate",
    "throttle_rate",
    "timeout_rate",
    "drop_response_rate",
    "apply_then_5xx_rate",
    "garbage_rate",
)


class FaultSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The faults of one channel. Every key may be left out. A limit that outlasts the set is a store's or an
    application's own (limits.py), which comes before all of this but `down`.

    A call meets, in this order: `down`; `rate_limit_per_s`, `application_rate_limit_per_s`, `quota_calls`; at most one
    of the rates (one draw a call: a rate is the share of calls from 0 to 1, and the rates together are at most 1);
    `reject_skus` and `row_faults`. `latency_ms` comes on top.

    - `latency_ms`: every call waits this long, in ms, after it was received and before it is judged. A client that
      leaves meanwhile does not undo its call.
    - `error_rate`: share of calls answered 500, 502, 503 in turn, with nothing applied.
    - `throttle_rate`: share answered 429 in the marketplace's shape, with nothing applied.
    - `timeout_rate`: share whose answer comes `timeout_ms` after receipt; the write is applied at once, or late.
    - `timeout_ms`: how late such an answer comes, in ms; 30,000 when left out.
    - `late_apply_ms`: the write of such a call is applied this long after receipt, in ms, over whatever newer write
      came in between; 0 applies it at once. Without `timeout_rate` it changes nothing.
    - `drop_response_rate`: share applied, and the connection reset without an answer.
    - `apply_then_5xx_rate`: share applied, and answered 500.
    - `garbage_rate`: share answered 200 with an HTML page, half of the JSON, and nothing, in turn; a coin decides
      whether it was applied.
    - `rate_limit_per_s`: calls a second that each store is allowed, one second's worth at once; more are throttled in
      the marketplace's own shape. 0 is no limit.
    - `application_rate_limit_per_s`: the same for all stores of an application (app key) together.
    - `quota_calls`: calls a day that each store is allowed, the days of the sandbox's clock in UTC+8; more are answered
      as the marketplace answers a used-up quota. 0 is no limit.
    - `retry_after_s`: the Retry-After header of every throttled call, in whole seconds; no header when left out.
    - `reject_skus`: merchant SKUs or remote variants that are answered as unknown.
    - `row_faults`: by merchant SKU or remote variant, what is the matter with it: unknown, banned, locked (by a
      promotion) or failing. The other rows of a call are healthy; but a call that names one that is failing, or reads
      the product that it belongs to, is answered 500 as a whole, with nothing applied. Pages of a shop's listings name
      none.
    - `path_contains`: the set concerns only calls whose path contains this; all of them when left out.
    - `down`: connections are reset at once, nothing is read or applied.
    - `seed`: makes the draws and coins repeatable.
    - `times`: the set disarms itself after this many calls that it changed.
    """

    latency_ms: Milliseconds = 0
    error_rate: Rate = 0
    throttle_rate: Rate = 0
    timeout_rate: Rate = 0
    timeout_ms: Milliseconds = 30_000
    late_apply_ms: Milliseconds = 0
    drop_response_rate: Rate = 0
    apply_then_5xx_rate: Rate = 0
    garbage_rate: Rate = 0
    rate_limit_per_s: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0
    application_rate_limit_per_s: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] = 0
    quota_calls: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] = 0
    retry_after_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] | None = None
    row_faults: Annotated[dict[str, RowFault], msgspec.Meta(max_length=100_000)] = {}
    path_contains: str = ""
    reject_skus: Annotated[frozenset[str], msgspec.Meta(max_length=100_000)] = frozenset()
    down: bool = False
    seed: int | None = None
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def __post_init__(self) -> None:
        total = sum(self.rates())
        if total > 1 + ROUNDING:
            raise ValueError(f"the rates add up to {total:g}; together they are at most 1")

    def rates(self) -> tuple[float, ...]:
        """In the order of RATES."""
        return tuple(getattr(self, name) for name in RATES)


class ArmedFaults:
    """A fault set at work: its dice, its buckets, and how often it may still strike."""

    def __init__(self, faults: FaultSet):
        self.faults = faults
        self._times_left = faults.times
        self._random = random.Random(faults.seed)  # noqa: S311 - dice, not secrets
        self._thresholds = tuple(zip(RATES, accumulate(faults.rates()), strict=True))
        self.row_faults: RowFaults = {**dict.fromkeys(faults.reject_skus, "unknown"), **faults.row_faults}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._day = 0
        self._calls_of_day: dict[str, int] = {}
        self._statuses = cycle((500, 502, 503))
        self._garbles = cycle((_html, _half, _nothing))

    @property
    def exhausted(self) -> bool:
        return self._times_left == 0

    def spend(self) -> None:
        """A call was changed by this set."""
        if self._times_left:
            self._times_left -= 1

    def concerns(self, path: str) -> bool:
        return self.faults.path_contains in path

    def draw(self, store: str, application: str, now: float, day: int) -> str:
        """The key of the fault that strikes this call, or "". `now` is monotonic seconds."""
        limits = (("rate_limit_per_s", store), ("application_rate_limit_per_s", application))
        for name, who in limits:
            if (rate := getattr(self.faults, name)) and not self._bucket(name, who, rate, now).take(now):
                return name
        if self.faults.quota_calls and self._call_of_day(store, day) > self.faults.quota_calls:
            return "quota_calls"
        roll = self._random.random()
        for name, threshold in self._thresholds:
            if roll < threshold:
                return name
        return ""

    def coin(self) -> bool:
        return self._random.random() < 0.5

    def error_status(self) -> int:
        return next(self._statuses)

    def garble(self, answer: Answer) -> Answer:
        return next(self._garbles)(answer)

    def _bucket(self, limit: str, who: str, rate_per_s: float, now: float) -> Bucket:
        bucket = self._buckets.get((limit, who))
        if bucket is None:
            bucket = self._buckets[limit, who] = Bucket(rate_per_s, now)
        return bucket

    def _call_of_day(self, store: str, day: int) -> int:
        """Counts this call; the first of a day is 1."""
        if day != self._day:
            self._day, self._calls_of_day = day, {}
        count = self._calls_of_day[store] = self._calls_of_day.get(store, 0) + 1
        return count


class Faults:
    """The fault sets that are armed, by channel."""

    def __init__(self, channels: tuple[str, ...]):
        self._channels = channels
        self._armed: dict[str, ArmedFaults] = {}

    def set(self, channel: str, /, **keys: object) -> FaultSet:
        """Replaces the whole fault set of the channel; raises UnknownError or RefusedError."""
        if channel not in self._channels:
            raise UnknownError(f"there is no channel {channel!r}; channels are {', '.join(self._channels)}")
        faults = read_shape(keys, FaultSet)
        self._armed[channel] = ArmedFaults(faults)
        return faults

    def clear(self) -> None:
        """Every channel behaves again."""
        self._armed.clear()

    def armed(self, channel: str) -> ArmedFaults | None:
        armed = self._armed.get(channel)
        return None if armed is None or armed.exhausted else armed

    def sets(self) -> dict[str, FaultSet]:
        """What is armed, by channel."""
        return {channel: armed.faults for channel, armed in self._armed.items() if not armed.exhausted}


def _html(answer: Answer) -> Answer:
    page = b"<!DOCTYPE html><html><head><title>Sorry</title></head><body>We will be right back.</body></html>"
    return Answer(200, page, "text/html; charset=utf-8")


def _half(answer: Answer) -> Answer:
    return Answer(200, answer.body[: len(answer.body) // 2], answer.content_type)


def _nothing(answer: Answer) -> Answer:
    return Answer(200, b"", answer.content_type)
