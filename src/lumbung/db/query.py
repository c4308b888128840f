"""SQL is code: each `x.py` in this package has an `x.sql` beside it, with named and commented queries.

A query's `:parameters` are named; values are passed by name and sent by position. aiosql reads the files; the calls
go straight to asyncpg, because aiosql's own adapter looks the connection over on every call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import copy
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

    __slots__ = ("_as_text", "name", "parameters", "sql", "timeout_seconds")

    def __init__(self, name: str, sql: str, parameters: tuple[str, ...], timeout_seconds: float | None = None):
        self.name = name
        self.sql, self._as_text = _with_numbers_as_text(sql, len(parameters))
        self.parameters = parameters
        self.timeout_seconds = timeout_seconds

    def within(self, timeout_seconds: float) -> Query:
        """The same with another timeout, for what may take long."""
        other = copy(self)
        other.timeout_seconds = timeout_seconds
        return other

    async def all(self, connection: Connection, **values: Any) -> list[Record]:
        return await connection.fetch(self.sql, *self.positional(values), timeout=self.timeout_seconds)

    async def one(self, connection: Connection, **values: Any) -> Record | None:
        return await connection.fetchrow(self.sql, *self.positional(values), timeout=self.timeout_seconds)

    async def value(self, connection: Connection, **values: Any) -> Any:
        return await connection.fetchval(self.sql, *self.positional(values), timeout=self.timeout_seconds)

    async def run(self, connection: Connection, **values: Any) -> str:
        """Returns the command tag, such as `UPDATE 3`."""
        return await connection.execute(self.sql, *self.positional(values), timeout=self.timeout_seconds)

    def positional(self, values: Mapping[str, Any]) -> list[Any]:
        """The values as the statement takes them."""
        if len(values) != len(self.parameters):
            raise TypeError(f"{self.name} takes {self.parameters}, not {tuple(values)}")
        found = [values[name] for name in self.parameters]
        for place in self._as_text:
            found[place] = _array_text(found[place])
        return found


def _with_numbers_as_text(sql: str, count: int) -> tuple[str, tuple[int, ...]]:
    """Arrays of whole numbers, and of bool as 0 and 1, are sent as text that PostgreSQL reads: asyncpg asks of each
    number whether it is an array itself, which took a tenth of what accepting an update costs (decision 10). Returns
    the places of those parameters too."""
    places = []
    for number in range(1, count + 1):
        parameter = rf"\${number}(?!\d)"
        as_array = re.compile(rf"{parameter}::(bigint|int|smallint|bool)\[\]")
        in_filter = re.search(rf"\b(ANY|ALL)\s*\({parameter}", sql)  # it would be read again for each row
        if (found := len(as_array.findall(sql))) and found == len(re.findall(parameter, sql)) and not in_filter:
            sql = as_array.sub(rf"${number}::text::\1[]", sql)
            places.append(number - 1)
    return sql, tuple(places)


def _array_text(numbers: Iterable[int | None] | None) -> str | None:
    if numbers is None:
        return None
    return "{" + ",".join(["NULL" if number is None else int.__repr__(number) for number in numbers]) + "}"


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
