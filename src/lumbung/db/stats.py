"""Statistics a minute and store, gathered in memory and added in a writer's own transaction."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from lumbung.db.query import Connection, Queries
from lumbung.model import LATENCY_SECONDS

_queries = Queries(__file__)

Pair = tuple[int, int]


@dataclass(slots=True)
class Counts:
    """What one store did. `latency`: items delivered, by bucket of LATENCY_SECONDS and one more for the rest."""

    accepted: int = 0
    pushed: int = 0
    failed: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_SECONDS) + 1))

    def delivered_after(self, seconds: float) -> None:
        self.latency[bisect_left(LATENCY_SECONDS, seconds)] += 1


async def add(connection: Connection, counts: Mapping[Pair, Counts]) -> None:
    """Add counts by (tenant_id, store_id); the last thing that a transaction writes."""
    if not counts:
        return
    rows = sorted(counts.items())
    await _queries["add_stats"].run(
        connection,
        tenant_ids=[tenant_id for (tenant_id, _), _ in rows],
        store_ids=[store_id for (_, store_id), _ in rows],
        accepted=[held.accepted for _, held in rows],
        pushed=[held.pushed for _, held in rows],
        failed=[held.failed for _, held in rows],
        latencies=["{" + ",".join(map(str, held.latency)) + "}" for _, held in rows],
    )


async def forget(connection: Connection, *, days: float) -> None:
    await _queries["forget_stats"].run(connection, days=days)
