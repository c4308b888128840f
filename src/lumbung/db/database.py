"""Making databases on a server."""

from __future__ import annotations

import asyncpg


async def recreate(server_url: str, name: str) -> None:
    """An empty database `name`, whatever was in it before. For the demonstration only."""
    connection = await asyncpg.connect(server_url, timeout=10)
    try:
        for template in ("DROP DATABASE IF EXISTS %I WITH (FORCE)", "CREATE DATABASE %I"):
            await connection.execute(await connection.fetchval("SELECT format($1::text, $2::text)", template, name))
    finally:
        await connection.close()
