"""What the auditor found, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field

INVARIANTS = {
    1: "every acknowledged update is in the history",
    2: "never an older number after a newer one, while outcomes are known",
    3: "at rest every listing shows its newest accepted number",
    4: "one call in flight a listing, by the holder of a valid lease",
    5: "no rate limit is exceeded, as the marketplace counts",
    6: "every item ends, and what is due has a next attempt",
    7: "one idempotency key, one code, one effect",
    8: "no listing waits longer than twice (due listings / rate)",
    9: "poisoned work is told of, and hurts nobody else",
    10: "everything goes on by itself after an outage, told once down and once up",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken invariant, with the shortest evidence."""

    invariant: int
    message: str
    evidence: tuple[str, ...] = ()


@dataclass(slots=True)
class Audit:
    """By invariant: `looked_at`, how many things were judged (one that judged nothing has shown nothing), and
    `excused`, how many of these were out of order because of what was done."""

    findings: list[Finding] = field(default_factory=list)
    looked_at: dict[int, int] = field(default_factory=dict)
    excused: dict[int, int] = field(default_factory=dict)

    def look(self, invariant: int, count: int = 1) -> None:
        self.looked_at[invariant] = self.looked_at.get(invariant, 0) + count

    def excuse(self, invariant: int) -> None:
        self.excused[invariant] = self.excused.get(invariant, 0) + 1

    def broken(self, invariant: int, message: str, *evidence: str) -> None:
        self.findings.append(Finding(invariant, message, evidence))
