"""Which schema this process knows, and which one a database has."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from lumbung.db.query import Connection, Queries

_queries = Queries(__file__)


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.sql.encode()).digest()


def migrations() -> list[Migration]:
    """Every migration of this version, in order."""
    files = resources.files("lumbung.db").joinpath("migrations").iterdir()
    found = [
        Migration(int(file.name[:4]), file.name[5:-4], file.read_text(encoding="utf-8"))
        for file in files
        if file.name.endswith(".sql")
    ]
    return sorted(found, key=lambda migration: migration.number)


async def schema_version(connection: Connection) -> int:
    """The newest migration that the database has; 0 for none."""
    if not await _queries["has_migration_table"].value(connection):
        return 0
    return int(await _queries["newest_migration"].value(connection))


@cache
def newest_version() -> int:
    """The newest migration that this process knows, also when its files are replaced while it runs."""
    return migrations()[-1].number
