"""What a load of requests came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Load:
    """`answered`: with 200; `failed`: with anything else, or not at all. `latencies`: seconds, of those answered."""

    answered: int
    failed: int
    seconds: float
    latencies: Sequence[float] = field(default=(), repr=False)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    def percentile_ms(self, percent: float) -> float:
        return percentile(self.latencies, percent) * 1000


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that so many percent of them do not exceed."""
    ordered = sorted(values)
    place = -int(-len(ordered) * percent // 100) - 1
    return ordered[min(max(place, 0), len(ordered) - 1)]
