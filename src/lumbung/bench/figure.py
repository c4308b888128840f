"""A measured figure: one value a round, what of them counts, and what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Target:
    """What the median must reach, to pass and as the aim; None: it is only told."""

    passed: float | None = None
    aim: float | None = None
    at_most: bool = False

    def reached(self, value: float, wanted: float) -> bool:
        return value <= wanted if self.at_most else value >= wanted


TOLD = Target()


@dataclass(frozen=True, slots=True)
class Figure:
    """`name` says what it is of, `unit` what a value counts ("": a ratio). `about`: how it was got, in a few words."""

    name: str
    unit: str
    values: tuple[float, ...]
    target: Target = TOLD
    about: str = ""

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def middle(self) -> float:
        return median(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    @property
    def verdict(self) -> str:
        """`aim`, `pass` or `FAIL`; "" where nothing was wanted."""
        target = self.target
        if target.passed is None:
            return ""
        if target.aim is not None and target.reached(self.middle, target.aim):
            return "aim"
        return "pass" if target.reached(self.middle, target.passed) else "FAIL"


def ratio(
    name: str,
    above: Figure,
    below: Figure | Callable[[int], float],
    target: Target = TOLD,
    about: str = "",
) -> Figure:
    """Round by round: the machine's pace changes between them. `below`: a figure, or its value of a round."""
    divisor = below if callable(below) else below.values.__getitem__
    values = tuple(value / divisor(n) for n, value in enumerate(above.values))
    return Figure(name, "", values, target, about)


def at_best(costs: Sequence[tuple[float, Figure]]) -> Callable[[int], float]:
    """What a machine could do a second if all that it needs cost as much as in the same round's baselines: the times of
    `count` units of each are added, because cores are shared."""
    return lambda n: 1 / sum(count / figure.values[n] for count, figure in costs)
