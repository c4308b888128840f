"""What is due, waits and is parked, of the whole installation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class Gauges:
    """Listings due by lane, waiting by reason, parked; each count ends at the limit. `oldest_due_seconds`: the age of
    the oldest that was found among the first of each store."""

    due: Mapping[int, int]
    waiting: Mapping[str, int]
    parked: int
    oldest_due_seconds: float


async def read(connection: Connection, *, rows_max: int) -> Gauges:
    due = await _queries["count_due"].all(connection, rows_max=rows_max)
    waiting = await _queries["count_waiting"].all(connection, rows_max=rows_max)
    return Gauges(
        {row["lane"]: row["n"] for row in due},
        {row["reason"]: row["n"] for row in waiting},
        await _queries["count_parked"].value(connection, rows_max=rows_max),
        await _queries["oldest_due"].value(connection),
    )
