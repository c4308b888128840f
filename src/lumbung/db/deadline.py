"""Items that are out of time: which records to look at, which items of theirs are open and why, and ending them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lumbung.db.query import Connection, Queries
from lumbung.model import DueFor, ListingStatus, StoreMode, WaitReason

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class Turn:
    """A tenant's row is ours until the transaction ends. Records made from `since` to `before` are to be looked at;
    the watermark may move to `until` at most."""

    tenant_id: int
    deadline_seconds: int
    since: datetime
    before: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Records that are not finished, as (created_at, id); the next page begins after `last`, if there is `more`."""

    open: Sequence[tuple[datetime, int]]
    last: tuple[datetime, int] | None
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenItem:
    """An item that is open, with what is known of its listing (`state` None: nothing), store and tenant."""

    created_at: datetime
    update_id: int
    id: int
    retries: int = 0
    store_mode: StoreMode = StoreMode.LIVE
    pause_reason: str | None = None
    tenant_disabled: bool = False
    trouble: str | None = None
    trouble_since: datetime | None = None
    state: ListingStatus | None = ListingStatus.DUE
    due_for: DueFor = DueFor.PUSH
    park_reason: str | None = None
    failing_since: datetime | None = None
    last_outcome: str | None = None
    last_message: str | None = None
    wait_reason: WaitReason | None = None


async def sweep_seconds(connection: Connection, *, sweep_seconds: float) -> float:
    """How often to sweep, a tenant with a short deadline in mind."""
    return float(await _queries["sweep_seconds"].value(connection, sweep_seconds=sweep_seconds))


async def pass_over(connection: Connection, *, sweep_seconds: float, margin_seconds: float) -> None:
    """Sweep all tenants that have nothing to end."""
    await _queries["add_watermarks"].run(connection)
    await _queries["pass_over"].run(connection, sweep_seconds=sweep_seconds, margin_seconds=margin_seconds)


async def tenants_to_sweep(connection: Connection, *, sweep_seconds: float) -> list[int]:
    """The longest ago first."""
    rows = await _queries["tenants_to_sweep"].all(connection, sweep_seconds=sweep_seconds)
    return [row["tenant_id"] for row in rows]


async def take_turn(
    connection: Connection, *, tenant_id: int, sweep_seconds: float, margin_seconds: float
) -> Turn | None:
    """None: somebody else sweeps the tenant, or has just done so."""
    row = await _queries["take_turn"].one(
        connection, tenant_id=tenant_id, sweep_seconds=sweep_seconds, margin_seconds=margin_seconds
    )
    if row is None:
        return None
    return Turn(tenant_id, row["deadline_seconds"], row["since"], row["before"], row["until"])


async def open_records(
    connection: Connection, turn: Turn, after: tuple[datetime, int], *, records_max: int, items_max: int
) -> Page:
    """Reads up to `records_max` records; gives those of them that are not finished, of about `items_max` items."""
    rows = await _queries["open_records"].all(
        connection,
        tenant_id=turn.tenant_id,
        after_at=after[0],
        after_id=after[1],
        before=turn.before,
        records_max=records_max,
        items_max=items_max,
    )
    keys = [(row["created_at"], row["id"]) for row in rows if row["open"]]
    if not rows:
        return Page(keys, None, more=False)
    return Page(keys, (rows[-1]["created_at"], rows[-1]["id"]), more=rows[-1]["more"])


async def listings_of_open_items(
    connection: Connection, tenant_id: int, records: Sequence[tuple[datetime, int]]
) -> list[int]:
    rows = await _queries["listings_of_open_items"].all(connection, tenant_id=tenant_id, **_columns(records))
    return [row["listing_id"] for row in rows]


async def open_items(connection: Connection, tenant_id: int, records: Sequence[tuple[datetime, int]]) -> list[OpenItem]:
    rows = await _queries["read_open_items"].all(connection, tenant_id=tenant_id, **_columns(records))
    return [
        OpenItem(
            created_at=row["created_at"],
            update_id=row["update_id"],
            id=row["id"],
            retries=row["retries"],
            store_mode=StoreMode(row["store_mode"] or StoreMode.LIVE),
            pause_reason=row["pause_reason"],
            tenant_disabled=row["tenant_disabled"],
            trouble=row["trouble"],
            trouble_since=row["trouble_since"],
            state=row["state"] and ListingStatus(row["state"]),
            due_for=DueFor(row["due_for"] or DueFor.PUSH),
            park_reason=row["park_reason"],
            failing_since=row["failing_since"],
            last_outcome=row["last_outcome"],
            last_message=row["last_message"],
            wait_reason=row["wait_reason"] and WaitReason(row["wait_reason"]),
        )
        for row in rows
    ]


async def end_items(connection: Connection, tenant_id: int, ends: Sequence[tuple[OpenItem, str]]) -> int:
    """End items as failed, each with its message; returns how many had not ended by themselves."""
    items = [item for item, _ in ends]
    count = await _queries["end_late_items"].value(
        connection,
        tenant_id=tenant_id,
        created_ats=[item.created_at for item in items],
        update_ids=[item.update_id for item in items],
        ids=[item.id for item in items],
        messages=[message for _, message in ends],
        retries=[item.retries for item in items],
    )
    return int(count)


async def move_watermark(connection: Connection, *, tenant_id: int, ended_until: datetime, swept: bool) -> None:
    await _queries["move_watermark"].run(connection, tenant_id=tenant_id, ended_until=ended_until, swept=swept)


def _columns(records: Sequence[tuple[datetime, int]]) -> dict[str, list[datetime] | list[int]]:
    return {"created_ats": [at for at, _ in records], "update_ids": [id_ for _, id_ in records]}
