"""What has happened: one line an event, kept cheaply and written out only when somebody wants to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Event = tuple[float, str, str, tuple[object, ...]]
"""Virtual time, whom it is about (`listing 3`, `store 1`, `worker w1`), what happened, with which values."""

LAST = 30


@dataclass(slots=True)
class Trace:
    time: Callable[[], float]
    events: list[Event] = field(default_factory=list)

    def add(self, about: str, what: str, *values: object) -> None:
        self.events.append((self.time(), about, what, values))

    def lines(self, *about: str) -> Iterator[str]:
        """All of them, or those about these."""
        for time, whom, what, values in self.events:
            if not about or whom in about:
                yield f"{time:10.4f}  {whom:<12} {what} {' '.join(map(str, values))}".rstrip()

    def last(self, *about: str) -> str:
        return "\n".join(list(self.lines(*about))[-LAST:])


class Broken(AssertionError):
    """An invariant of the engine does not hold. `number`: which one, as design and docs number them."""

    def __init__(self, number: int, message: str, evidence: str):
        super().__init__(f"invariant {number}: {message}\n{evidence}")
        self.number = number
