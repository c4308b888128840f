"""What an inspector asks of a hub. Listings are named as marketplaces do: (channel, account of the store, SKU)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)
PATIENCE_SECONDS = 300.0  # whole tables are read

Place = tuple[str, str, str]
Account = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A listing that something is still to happen with. `waits_for`: why it waits, if it does."""

    place: Place
    state: str
    due_for: str
    waits_for: str | None
    last_outcome: str | None
    last_message: str | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Effect:
    """How often a SKU was updated in a warehouse: updates that are recorded, and that were newer than what stood."""

    recorded: int
    applied: int


async def unsettled(connection: Connection) -> list[Unsettled]:
    return [
        Unsettled(
            (row["channel"], row["account"], row["sku"]),
            row["state"],
            row["due_for"],
            row["waits_for"],
            row["last_outcome"],
            row["last_message"],
            row["attempts"],
        )
        for row in await _queries["unsettled"].within(PATIENCE_SECONDS).all(connection)
    ]


async def parked(connection: Connection) -> dict[Place, str]:
    """Listings that wait for a person, with the reason."""
    return {
        (row["channel"], row["account"], row["sku"]): row["park_reason"]
        for row in await _queries["parked"].within(PATIENCE_SECONDS).all(connection)
    }


async def paused(connection: Connection) -> dict[Account, str]:
    """Stores that wait for a person, with the reason."""
    return {(row["channel"], row["account"]): row["pause_reason"] for row in await _queries["paused"].all(connection)}


async def open_items(connection: Connection) -> int:
    return int(await _queries["open_items"].within(PATIENCE_SECONDS).value(connection))


async def miscounted(connection: Connection) -> int:
    return int(await _queries["miscounted"].within(PATIENCE_SECONDS).value(connection))


async def failed_items(connection: Connection, before: datetime) -> dict[Place, str]:
    """Listings with items that were made before and ended without success, with the message of one of those."""
    return {
        (row["channel"], row["account"], row["sku"]): row["message"]
        for row in await _queries["failed_items"].within(PATIENCE_SECONDS).all(connection, before=before)
    }


async def effects(connection: Connection) -> dict[tuple[str, str, str], Effect]:
    """By tenant's name, SKU and warehouse's name."""
    return {
        (row["tenant"], row["sku"], row["warehouse"]): Effect(row["recorded"], row["applied"])
        for row in await _queries["effects"].within(PATIENCE_SECONDS).all(connection)
    }


async def held_by(connection: Connection, name: str) -> set[Account]:
    """The stores that the process `host:pid` holds."""
    return {(row["channel"], row["account"]) for row in await _queries["held_by"].all(connection, name=name)}


async def registered(connection: Connection, name: str) -> bool:
    return bool(await _queries["registered"].value(connection, name=name))


async def left_in_order(connection: Connection, name: str) -> bool:
    return bool(await _queries["left_in_order"].value(connection, name=name))
