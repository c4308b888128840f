"""What commands print: results on stdout (tables, or JSON), everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PIPE_COLUMNS = 100_000  # nothing is cut where no terminal limits the width


def say(text: str) -> None:
    print(printable(text))


def note(text: str) -> None:
    print(printable(text), file=sys.stderr)


def document(value: object) -> None:
    """JSON on stdout: dataclasses as objects, datetimes as ISO 8601 in UTC."""
    print(json.dumps(value, indent=2, default=_plain))


def listing(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool) -> None:
    """Rows as a table with `columns` (key of a row: heading), or all that the rows hold as JSON."""
    if as_json:
        document(rows)
    elif rows:
        table(list(columns.values()), [[row[key] for key in columns] for row in rows])
    else:
        note("None.")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        drawn.add_column(Text(heading), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    terminal = sys.stdout.isatty()
    Console(file=sys.stdout, width=None if terminal else PIPE_COLUMNS, highlight=False).print(drawn)


def cell(value: object) -> str:
    """A value as people read it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        case Mapping():
            return ", ".join(key if held is None else f"{key}={cell(held)}" for key, held in value.items()) or "-"
        case _:
            return printable(str(value))


def printable(text: str) -> str:
    """Without what would steer a terminal: names and messages come from other people's systems."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, when that is a terminal; call what it gives with how many more are done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")
