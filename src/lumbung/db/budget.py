"""Budgets: limits that the stores of one application share, whoever sends for them."""

from __future__ import annotations

from dataclasses import dataclass

from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class Grant:
    """`calls` that may be made now; when there are none, there may be some in `wait_seconds`. `limited`: whether the
    application has a budget at all."""

    calls: int
    wait_seconds: float
    limited: bool


async def reserve(connection: Connection, *, channel_app_id: int, calls: int, block_seconds_max: float) -> Grant:
    """Take up to `calls` calls out of every budget of an application."""
    row = await _queries["reserve"].one(
        connection, channel_app_id=channel_app_id, calls=calls, block_seconds_max=block_seconds_max
    )
    assert row is not None
    return Grant(row["calls"], row["wait_seconds"], row["budgets"] > 0)


async def block(connection: Connection, *, channel_app_id: int, seconds: float, block_seconds_max: float) -> None:
    """No call of the application for so long."""
    await _queries["block"].run(
        connection, channel_app_id=channel_app_id, seconds=seconds, block_seconds_max=block_seconds_max
    )


async def put_budget(
    connection: Connection, *, channel_app_id: int, name: str, calls_per_second: float, burst: int
) -> None:
    await _queries["put_budget"].run(
        connection, channel_app_id=channel_app_id, name=name, calls_per_second=calls_per_second, burst=burst
    )
