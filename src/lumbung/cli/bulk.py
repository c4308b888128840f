"""Importing a file of any length: every row is checked before the first one is written.

    pass 1   read, check in chunks, remember which lines are wrong
    pass 2   read again, check again under the transaction that writes, a chunk a transaction

What is kept of the whole file is a digest and a line number for each row, to find rows that say the same thing twice.
A crash between two chunks leaves some of the rows imported; the same command run again imports the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from lumbung.cli import audit, output, rows, session
from lumbung.cli.rows import CsvFile, Row
from lumbung.db.query import Connection
from lumbung.errors import LumbungError, Problem, UsageError

if TYPE_CHECKING:
    from lumbung.cli.compose import Installation

T = TypeVar("T")

PROBLEMS_SHOWN_MAX = 50
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a row."""

    message: str


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What is imported. `check` answers for each row; `identity` is what no two rows may share, `twice` says it.

    `write` gets checked rows, no identity twice, in a transaction, and counts what became of them; `after` gets them
    when that is committed.
    """

    columns: tuple[str, ...]
    action: str
    tenant_id: int
    check: Callable[[Connection, list[tuple[str, ...]]], Awaitable[list[T | Wrong]]]
    identity: Callable[[T], str]
    twice: str
    write: Callable[[Connection, list[T]], Awaitable[Counter[str]]]
    after: Callable[[list[T]], Awaitable[None]]


@dataclass(slots=True)
class Found:
    """What pass 1 found out."""

    rows: int = 0
    wrong: set[int] = field(default_factory=set)
    shown: list[tuple[int, str]] = field(default_factory=list)

    def blame(self, line: int, message: str) -> None:
        """Once a line: the first thing that is wrong with it counts."""
        if line in self.wrong:
            return
        self.wrong.add(line)
        if len(self.shown) < PROBLEMS_SHOWN_MAX:
            self.shown.append((line, message))

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(f"line {line}", message) for line, message in sorted(self.shown))


@dataclass(frozen=True, slots=True)
class Report:
    """`counts` of what became of the rows that were imported."""

    found: Found
    counts: Counter[str]

    def refuse_skipped(self, path: Path) -> None:
        """Raises UsageError when rows were left out."""
        if self.found.wrong:
            skipped = f"{len(self.found.wrong)} of {self.found.rows} rows were skipped"
            raise UsageError(f"{path}: {skipped}{_not_shown(self.found)}", self.found.problems)


async def import_file(hub: Installation, kind: Kind[T], path: Path, *, good_rows: bool) -> Report:
    """Raises UsageError, nothing imported, when a row is wrong and not only the good ones are wanted."""
    with rows.opened(path, kind.columns) as file:
        found = await _check(hub, kind, file)
        if found.wrong and not good_rows:
            wrong = f"{len(found.wrong)} of {found.rows} rows are wrong, nothing was imported"
            raise UsageError(f"{path}: {wrong}{_not_shown(found)}", found.problems)
        return Report(found, await _write(hub, kind, file, found))


async def _check(hub: Installation, kind: Kind[T], file: CsvFile) -> Found:
    found, seen = Found(), dict[bytes, int]()
    with output.progress("Checking", None) as advance:
        for chunk in _chunks(file.rows(), hub.settings.chunk_rows_max):
            async with hub.pool.connection() as connection:
                checked = await _checked(connection, kind, chunk)
            for row, value in zip(chunk, checked, strict=True):
                _note(found, seen, kind, row.line, value)
            found.rows += len(chunk)
            advance(len(chunk))
    return found


def _note(found: Found, seen: dict[bytes, int], kind: Kind[T], line: int, value: T | Wrong) -> None:
    if isinstance(value, Wrong):
        found.blame(line, value.message)
        return
    digest = hashlib.blake2b(kind.identity(value).encode(), digest_size=DIGEST_BYTES).digest()
    first = seen.setdefault(digest, line)
    if first != line:
        found.blame(first, f"{kind.twice} as line {line}")  # nobody knows which of the two is meant
        found.blame(line, f"{kind.twice} as line {first}")


async def _write(hub: Installation, kind: Kind[T], file: CsvFile, found: Found) -> Counter[str]:
    counts: Counter[str] = Counter()
    good = (row for row in file.rows() if row.line not in found.wrong)
    with output.progress("Importing", found.rows - len(found.wrong)) as advance:
        for chunk in _chunks(good, hub.settings.chunk_rows_max):
            try:
                counts += await _write_chunk(hub, kind, file.path, chunk)
            except LumbungError:
                output.note(f"{counts.total()} rows, before line {chunk[0].line}, were imported")
                raise
            advance(len(chunk))
    return counts


async def _write_chunk(hub: Installation, kind: Kind[T], path: Path, chunk: list[Row]) -> Counter[str]:
    async def work() -> tuple[list[T], Counter[str]]:
        async with session.locking(hub.pool, hub.settings) as connection:
            checked = await _checked(connection, kind, chunk)
            values = [_still_right(row, value) for row, value in zip(chunk, checked, strict=True)]
            counts = await kind.write(connection, values)
            lines = {"first_line": chunk[0].line, "last_line": chunk[-1].line}
            await audit.write(connection, kind.tenant_id, kind.action, path.name, **lines, **counts)
        return values, counts

    values, counts = await session.retried(work)
    await kind.after(values)
    return counts


async def _checked(connection: Connection, kind: Kind[T], chunk: list[Row]) -> list[T | Wrong]:
    whole = [row.values for row in chunk if row.values is not None]
    answers = iter(await kind.check(connection, whole))
    return [Wrong(row.problem) if row.values is None else next(answers) for row in chunk]


def _still_right(row: Row, value: T | Wrong) -> T:
    if isinstance(value, Wrong):
        raise UsageError(f"line {row.line} was right when it was checked and is not any more: {value.message}")
    return value


def _chunks(every: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(islice(every, size)):
        yield chunk


def _not_shown(found: Found) -> str:
    more = len(found.wrong) - len(found.shown)
    return f" ({more} more problems are not shown)" if more else ""
