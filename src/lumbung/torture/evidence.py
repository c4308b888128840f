"""What the marketplaces wrote down, read back. Times are unix seconds of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

UNCLEAR_FAULTS = frozenset({"timeout_rate", "drop_response_rate", "apply_then_5xx_rate", "garbage_rate", "down"})
"""Faults of the sandbox after which nobody can know from the answer what was applied."""


class Write(msgspec.Struct, frozen=True, gc=False):
    """A quantity that took effect; `call` is the `received` of the call that it came with."""

    n: int
    at: float
    channel: str
    store: str
    location: str
    sku: str
    quantity: int
    call: int


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call that ended, or whose client left, `duration_ms` after it was received. `caller`: a worker's address."""

    at: float
    channel: str
    store: str
    caller: str
    received: int
    remote_variants: tuple[str, ...]
    path: str
    status: int
    duration_ms: float
    fault: str

    @property
    def ended_at(self) -> float:
        return self.at + self.duration_ms / 1000


Line = TypeVar("Line", Write, Call)


def read(path: Path, kind: type[Line]) -> Iterator[Line]:
    """The whole lines of a log, in their order; a last one that is cut is left out."""
    decode = msgspec.json.Decoder(kind).decode
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decode(line)
