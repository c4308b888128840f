"""What a listing showed over time, as updates: of each warehouse, which one its number was from."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lumbung.torture.evidence import Write
from lumbung.torture.quantities import Shape, digits_of, is_ambiguous, latest_zero, n_of, quantity_of


@dataclass(frozen=True, slots=True)
class Step:
    """A write that took effect. `ns`: by warehouse, the update that is shown now; None for a number that nobody has
    sent by then. `backwards`: an older one than was shown before."""

    write: Write
    ns: dict[str, int] | None
    backwards: bool = False

    def __str__(self) -> str:
        write, at = self.write, f" at {self.write.location}" if self.write.location else ""
        updates = "nobody's" if self.ns is None else ", ".join(f"{name} #{n}" for name, n in self.ns.items())
        return f"{write.at:.4f} write {write.n} of call {write.call}: {write.quantity}{at} ({updates})"


@dataclass(frozen=True, slots=True)
class Healed:
    """An older number stood from `write` until `healed_at`."""

    write: Write
    healed_at: float


@dataclass(slots=True)
class Timeline:
    """`warehouses`: who serves the listing, each with its location or None, in the order of their places in a number;
    `sent_at`: of each, when its updates were sent, in order."""

    shape: Shape
    warehouses: Mapping[str, str | None]
    sent_at: Mapping[str, Sequence[float]]
    steps: list[Step] = field(default_factory=list)
    shown: dict[str, int] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    healed: list[Healed] = field(default_factory=list)
    _wrong_since: Write | None = None
    _reached: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def apply(self, write: Write) -> Step:
        found = self._read(write)
        if found is None:
            step = Step(write, None)
        else:
            ns = {warehouse: n for warehouse, (n, _, _) in found.items()}
            step = Step(write, ns, any(n < self.newest.get(warehouse, 0) for warehouse, n in ns.items()))
            self.shown |= ns
            self._reach({warehouse: latest for warehouse, (_, latest, _) in found.items()}, write.at)
            for warehouse, (n, _, certain) in found.items():
                if certain:
                    self.newest[warehouse] = max(n, self.newest.get(warehouse, 0))
            self._heal(write)
        self.steps.append(step)
        return step

    def shown_at(self, warehouse: str, n: int) -> float | None:
        """When this update, or a newer one, may have been shown first: a zero counts as the newest one there was."""
        reached = self._reached.get(warehouse, [])
        place = bisect_left(reached, n, key=lambda one: one[0])
        return reached[place][1] if place < len(reached) else None

    def wrong_at_the_end(self, accepted: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """By warehouse, the update that is shown and the one that was accepted last, where their numbers differ."""
        wrong = {}
        for warehouse in self.warehouses:
            shown, wanted = self.shown.get(warehouse, 0), accepted.get(warehouse, 0)
            if quantity_of(shown, self.shape, 0) != quantity_of(wanted, self.shape, 0):
                wrong[warehouse] = (shown, wanted)
        return wrong

    def _reach(self, ns: Mapping[str, int], at: float) -> None:
        for warehouse, n in ns.items():
            reached = self._reached.setdefault(warehouse, [])
            if not reached or reached[-1][0] < n:
                reached.append((n, at))

    def _heal(self, write: Write) -> None:
        behind = any(self.shown.get(warehouse, 0) < n for warehouse, n in self.newest.items())
        if behind and self._wrong_since is None:
            self._wrong_since = write
        elif not behind and self._wrong_since is not None:
            self.healed.append(Healed(self._wrong_since, write.at))
            self._wrong_since = None

    def _read(self, write: Write) -> dict[str, tuple[int, int, bool]] | None:
        """By warehouse shown at the place that was written: which update, the newest that it may be, and whether that
        is certain."""
        digits = digits_of(write.quantity, len(self.warehouses))
        if digits is None:
            return None
        found: dict[str, tuple[int, int, bool]] = {}
        for (warehouse, location), digit in zip(self.warehouses.items(), digits, strict=True):
            if (location or "") != write.location:
                if digit:
                    return None
                continue
            at_most = bisect_right(self.sent_at.get(warehouse, ()), write.at)
            n = n_of(digit, self.shape, newest=self.newest.get(warehouse, 0), at_most=at_most)
            if n is None:
                return None
            ambiguous = is_ambiguous(digit, self.shape)
            found[warehouse] = (n, latest_zero(at_most) if ambiguous else n, not ambiguous)
        return found or None
