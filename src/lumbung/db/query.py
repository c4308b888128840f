"""SQL is code: each `x.py` in this package has an `x.sql` beside it, with named and commented queries.

A query's `:parameters` are named; values are passed by name and sent by position. aiosql reads the files; the calls
go straight to asyncpg, because aiosql's own adapter looks the connection over on every call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiosql
from aiosql.adapters.asyncpg import AsyncPGAdapter
from asyncpg import Connection as AsyncpgConnection
from asyncpg import Record
from asyncpg.pool import PoolConnectionProxy

Connection = AsyncpgConnection | PoolConnectionProxy


class Query:
    """One named statement. `parameters` are its names in the order in which they are sent.

    `timeout_seconds`: None for the pool's.
    """

    __slots__ = ("name", "parameters", "sql", "timeout_seconds")

    def __init__(self, name: str, sql: str, parameters: tuple[str, ...], timeout_seconds: float | None = None):
        self.name = name
        self.sql = sql
        self.parameters = parameters
        self.timeout_seconds = timeout_seconds

    def within(self, timeout_seconds: float) -> Query:
        """The same with another timeout, for what may take long."""
        return Query(self.name, self.sql, self.parameters, timeout_seconds)

    async def all(self, connection: Connection, **values: Any) -> list[Record]:
        return await connection.fetch(self.sql, *self._positional(values), timeout=self.timeout_seconds)

    async def one(self, connection: Connection, **values: Any) -> Record | None:
        return await connection.fetchrow(self.sql, *self._positional(values), timeout=self.timeout_seconds)

    async def value(self, connection: Connection, **values: Any) -> Any:
        return await connection.fetchval(self.sql, *self._positional(values), timeout=self.timeout_seconds)

    async def run(self, connection: Connection, **values: Any) -> str:
        """Returns the command tag, such as `UPDATE 3`."""
        return await connection.execute(self.sql, *self._positional(values), timeout=self.timeout_seconds)

    def _positional(self, values: dict[str, Any]) -> list[Any]:
        if len(values) != len(self.parameters):
            raise TypeError(f"{self.name} takes {self.parameters}, not {tuple(values)}")
        return [values[name] for name in self.parameters]


class Queries:
    """The queries of one `.sql` file, by name."""

    def __init__(self, module_file: str):
        path = Path(module_file).with_suffix(".sql")
        adapter = AsyncPGAdapter()  # type: ignore[no-untyped-call]
        loaded = aiosql.from_path(path, lambda: adapter, kwargs_only=False, mandatory_parameters=False)
        self._queries = {
            name: Query(name, loaded.__getattribute__(name).sql, tuple(adapter.var_sorted[name]))
            for name in loaded.available_queries
            if not name.endswith("_cursor")
        }

    def __getitem__(self, name: str) -> Query:
        return self._queries[name]

    def __iter__(self) -> Any:
        return iter(self._queries.values())
