"""Whose outcome could be known: the rule that tells a broken promise from what no hub can prevent.

A call is **clear** when the marketplace answered it whole and in time, as it is documented to, and nothing was done to
the worker that made it from before it came until its result had had time to be recorded. What is promised without any
"unless" is promised of clear calls only: a lease cannot fence a marketplace.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lumbung.torture.evidence import UNCLEAR_FAULTS, Call
from lumbung.torture.journal import Deed

Span = tuple[float, float]

LOSING_LIFETIMES = 2.0


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker found at this time that its leases were gone; it may have gone on for a lifetime, starved of time."""

    source: str
    at: float


class Spans:
    """Stretches of time, merged."""

    def __init__(self, spans: Iterable[Span]):
        merged: list[Span] = []
        for begins, ends in sorted(spans):
            if merged and begins <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], ends))
            else:
                merged.append((begins, ends))
        self._ends = [ends for _, ends in merged]
        self._merged = merged

    def touches(self, begins: float, ends: float) -> bool:
        place = bisect_left(self._ends, begins)
        return place < len(self._merged) and self._merged[place][0] <= ends

    def longest_free(self, begins: float, ends: float) -> float:
        """The longest part of the time between that lies outside of all stretches, in one piece."""
        longest, since = 0.0, begins
        for span_begins, span_ends in self._merged[bisect_left(self._ends, begins) :]:
            if span_begins >= ends:
                break
            longest, since = max(longest, span_begins - since), span_ends
        return max(longest, ends - since)


class Clearness:
    """`lifetime`: of a lease; `timeout`: of a call; both in seconds."""

    def __init__(
        self, deeds: Sequence[Deed], lost: Sequence[Lost], sources: Sequence[str], *, lifetime: float, timeout: float
    ):
        self._timeout = timeout
        spans: dict[str, list[Span]] = {source: [] for source in sources}
        for deed in deeds:
            if deed.clear:
                continue
            for source in sources if deed.workers is None else deed.workers:
                spans[source].append((deed.began_at - lifetime, deed.ended_at + lifetime))
        self._done = {
            source: Spans(
                (deed.began_at, deed.ended_at)
                for deed in deeds
                if not deed.clear and (deed.workers is None or source in deed.workers)
            )
            for source in sources
        }
        for one in lost:
            spans[one.source].append((one.at - 2 * lifetime, one.at + lifetime))
        self._spans = {source: Spans(found) for source, found in spans.items()}
        self._nobody = Spans(())

    def explains(self, lost: Lost, lifetime: float) -> bool:
        """Whether something was done to a worker that lost its leases, shortly before it said so."""
        since = lost.at - LOSING_LIFETIMES * lifetime
        return self._done.get(lost.source, self._nobody).touches(since, lost.at)

    def disturbed(self, source: str, begins: float, ends: float) -> bool:
        return self._spans.get(source, self._nobody).touches(begins, ends)

    def anybody_disturbed(self, begins: float, ends: float) -> bool:
        return any(spans.touches(begins, ends) for spans in self._spans.values())

    def is_clear(self, call: Call) -> bool:
        return (
            call.status != 0
            and call.fault not in UNCLEAR_FAULTS
            and call.duration_ms < 800 * self._timeout
            and not self.disturbed(call.caller, call.at, call.ended_at)
        )
