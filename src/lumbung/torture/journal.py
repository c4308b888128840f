"""What was done to the hub and asked of it, and when. Times are unix seconds of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

FOREVER = float("inf")

Key = tuple[str, str, str]
"""Tenant, SKU and warehouse: what one writer sends the updates of, one after the other."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An update that the hub has answered with a code. `again`: the code that a repetition with its key got."""

    key: Key
    n: int
    code: str
    sent_at: float
    acknowledged_at: float
    tries: int
    again: str | None = None


@dataclass(slots=True)
class Deed:
    """Something that was done. `workers`: whose calls it concerns, by source address; None: everybody's.

    `clear`: what became of calls is known all the same (a throttle, say), or their own lines tell. `hit`: whether the
    moment was met that it aimed at. `stores`: those (channel, code) that a killed worker held, or that it concerns.
    """

    name: str
    began_at: float
    ended_at: float = FOREVER
    workers: frozenset[str] | None = None
    clear: bool = False
    note: str = ""
    hit: bool = True
    stores: frozenset[tuple[str, str]] = frozenset()
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mended:
    """An operator has had a store (channel, code) authorised again that was paused for this reason, from `at` on."""

    account: tuple[str, str]
    at: float
    reason: str


@dataclass(slots=True)
class Journal:
    acknowledged: list[Acknowledged] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)
    mended: list[Mended] = field(default_factory=list)
    calm_until: float = 0.0
    fire_until: float = 0.0

    @contextmanager
    def deed(self, name: str, *, workers: frozenset[str] | None = None, clear: bool = False) -> Iterator[Deed]:
        deed = Deed(name, time.time(), workers=workers, clear=clear)
        self.deeds.append(deed)
        try:
            yield deed
        finally:
            deed.ended_at = time.time()

    def write(self, path: Path) -> None:
        """What was done, for people who look into a run."""
        path.write_text("".join(f"{deed}\n" for deed in [*self.deeds, *self.mended]))

    def newest(self) -> dict[Key, int]:
        """The number of the newest acknowledged update of each key."""
        newest: dict[Key, int] = {}
        for one in self.acknowledged:
            newest[one.key] = max(newest.get(one.key, 0), one.n)
        return newest
