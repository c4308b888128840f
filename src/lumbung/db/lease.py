"""Worker rows and store leases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from lumbung.db.query import Connection, Queries
from lumbung.errors import LockBusy

_queries = Queries(__file__)

NO_DOUBTS: Mapping[int, float] = {}


@dataclass(frozen=True, slots=True)
class ChannelTimes:
    """What a lease needs to know of a channel, in seconds: how long lost calls may take effect, how long it lasts."""

    quiesce_seconds: float
    lifetime_seconds: float


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease just taken. `doubt_seconds`: calls of a lost holder may take effect for this long; `credentials`, those
    of its application and `tokens` are ciphertexts. `in_trouble`: the last holder could not reach it."""

    store_id: int
    tenant_id: int
    epoch: int
    channel: str
    store_name: str
    credentials: bytes = field(repr=False)
    doubt_seconds: float
    lifetime_seconds: float = 15.0
    channel_app_id: int | None = None
    tokens: bytes | None = field(default=None, repr=False)
    in_trouble: bool = False
    application_credentials: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """A store's token pair as it is kept. `digest`: SHA-256 of its refresh token."""

    tokens: bytes = field(repr=False)
    digest: bytes
    access_expires_at: datetime | None
    refresh_expires_at: datetime | None


async def register(connection: Connection, *, name: str, lifetime_seconds: float, channels: Iterable[str]) -> int:
    """A new process that can serve these channels; returns its id."""
    worker_id: int = await _queries["register_worker"].value(
        connection, name=name, lifetime_seconds=lifetime_seconds, channels=sorted(channels)
    )
    return worker_id


async def renew(connection: Connection, worker_id: int) -> int | None:
    """How many processes are live, this one among them; None when this one is not registered (any more)."""
    row = await _queries["renew_worker"].one(connection, id=worker_id)
    assert row is not None
    return int(row["live"]) if row["renewed"] else None


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
    channels: Mapping[str, ChannelTimes],
    limit: int,
) -> list[LeaseRow]:
    """Take up to `limit` of the stores that are free, of the channels that this process can serve. Raises LockBusy when
    the process was taken for long gone and is not registered any more."""
    try:
        rows = await _queries["claim"].all(
            connection,
            worker_id=worker_id,
            store_ids=list(store_ids),
            channels=list(channels),
            quiesce_seconds=[times.quiesce_seconds for times in channels.values()],
            lifetimes=[times.lifetime_seconds for times in channels.values()],
            limit=limit,
        )
    except asyncpg.ForeignKeyViolationError as error:
        raise LockBusy(
            "This process is not registered any more; its next renewal does it", retry_after_seconds=1
        ) from error
    return [
        LeaseRow(
            row["store_id"],
            row["tenant_id"],
            row["epoch"],
            row["channel"],
            row["name"],
            row["credentials"],
            row["doubt_seconds"],
            row["lifetime_seconds"],
            row["channel_app_id"],
            row["tokens"],
            row["in_trouble"],
            row["application_credentials"],
        )
        for row in rows
    ]


async def note_quiesce(connection: Connection, *, store_id: int, epoch: int, seconds: float) -> None:
    await _queries["note_quiesce"].run(connection, store_id=store_id, epoch=epoch, seconds=seconds)


async def note_trouble(connection: Connection, *, store_id: int, epoch: int, trouble: str | None) -> None:
    await _queries["note_trouble"].run(connection, store_id=store_id, epoch=epoch, trouble=trouble)


async def give_back(
    connection: Connection, *, worker_id: int, store_ids: Iterable[int], doubts: Mapping[int, float] = NO_DOUBTS
) -> None:
    """`doubts`: by store, for how many seconds calls of ours may still take effect that ended unclear."""
    stores = list(store_ids)
    seconds = [doubts.get(store_id, 0.0) for store_id in stores]
    await _queries["give_back"].run(connection, worker_id=worker_id, store_ids=stores, doubt_seconds=seconds)


async def forget_workers(connection: Connection) -> None:
    await _queries["forget_workers"].run(connection)


async def swap_tokens(
    connection: Connection, *, tenant_id: int, store_id: int, old_digest: bytes | None, new: StoredTokens
) -> bool:
    """False when the stored pair is not the one that was traded: somebody else has written a newer one."""
    swapped = await _queries["swap_tokens"].value(
        connection,
        tenant_id=tenant_id,
        store_id=store_id,
        old_digest=old_digest,
        tokens=new.tokens,
        digest=new.digest,
        access_expires_at=new.access_expires_at,
        refresh_expires_at=new.refresh_expires_at,
    )
    return bool(swapped)


async def read_tokens(connection: Connection, *, tenant_id: int, store_id: int) -> tuple[bytes, bytes] | None:
    """The ciphertext and the digest of a store's pair."""
    row = await _queries["read_tokens"].one(connection, tenant_id=tenant_id, store_id=store_id)
    return None if row is None or row["tokens"] is None else (row["tokens"], row["tokens_digest"])
