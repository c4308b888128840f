"""What the database holds that only the key file opens: secrets of partners, credentials of stores and applications."""

from __future__ import annotations

from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)


async def exist(connection: Connection) -> bool:
    return bool(await _queries["exist"].value(connection))
