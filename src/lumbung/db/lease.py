"""Worker rows and store leases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease just taken. `doubt_seconds`: calls of a lost holder may take effect for this long; `credentials` are
    a ciphertext."""

    store_id: int
    tenant_id: int
    epoch: int
    channel: str
    store_name: str
    credentials: bytes = field(repr=False)
    doubt_seconds: float


async def register(connection: Connection, *, name: str, lifetime_seconds: float) -> int:
    worker_id: int = await _queries["register_worker"].value(connection, name=name, lifetime_seconds=lifetime_seconds)
    return worker_id


async def renew(connection: Connection, worker_id: int) -> bool:
    """False when the worker has expired: it must stop sending and register anew."""
    return await _queries["renew_worker"].run(connection, id=worker_id) == "UPDATE 1"


async def stop(connection: Connection, worker_id: int) -> None:
    await _queries["stop_worker"].run(connection, id=worker_id)


async def held(connection: Connection, worker_id: int) -> dict[int, int]:
    """The stores that a worker holds, with their epochs."""
    return {row["store_id"]: row["epoch"] for row in await _queries["held"].all(connection, worker_id=worker_id)}


async def claim(
    connection: Connection,
    *,
    worker_id: int,
    store_ids: Iterable[int],
    quiesce_seconds: Mapping[str, float],
    limit: int,
) -> list[LeaseRow]:
    """Take up to `limit` of the stores that are free; `quiesce_seconds` by the channels that this process can serve."""
    rows = await _queries["claim"].all(
        connection,
        worker_id=worker_id,
        store_ids=list(store_ids),
        channels=list(quiesce_seconds),
        quiesce_seconds=list(quiesce_seconds.values()),
        limit=limit,
    )
    return [
        LeaseRow(
            row["store_id"],
            row["tenant_id"],
            row["epoch"],
            row["channel"],
            row["name"],
            row["credentials"],
            row["doubt_seconds"],
        )
        for row in rows
    ]


async def give_back(connection: Connection, *, worker_id: int, store_ids: Iterable[int]) -> None:
    await _queries["give_back"].run(connection, worker_id=worker_id, store_ids=list(store_ids))


async def forget_workers(connection: Connection) -> None:
    await _queries["forget_workers"].run(connection)
