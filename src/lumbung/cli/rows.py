"""Reading a CSV file row by row: UTF-8, a header with exactly the columns that are wanted (in any case), `,` `;` or tab
between.

Rows carry the line on which they begin, so that people find them in an editor. Nothing but the row in hand is kept.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lumbung.errors import UsageError

BOM = b"\xef\xbb\xbf"
OTHER_BOMS = (b"\xff\xfe", b"\xfe\xff")
DELIMITERS = (",", ";", "\t")
LINE_BYTES_MAX = 1_048_576


@dataclass(frozen=True, slots=True)
class Row:
    """`values` in the order of the wanted columns; None when the row has another number of cells: `problem` says so."""

    line: int
    values: tuple[str, ...] | None
    problem: str = ""


class CsvFile:
    """An open file that can be read several times. What was changed between two readings is refused."""

    def __init__(self, path: Path, file: BinaryIO, columns: tuple[str, ...]):
        self.path = path
        self._file = file
        self._columns = columns
        self._stamp = self._now()

    def rows(self) -> Iterator[Row]:
        """Every row that is not blank. Raises UsageError for a file that is not such a CSV."""
        if self._now() != self._stamp:
            raise UsageError(f"{self.path} was changed while it was read")
        self._file.seek(0)
        lines = _Lines(self.path, self._file)
        delimiter, order = self._header(lines)
        cells = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            line = lines.number + 1
            try:
                values = next(cells)
            except StopIteration:
                return
            except csv.Error as error:
                runs_on = lines.ended or lines.number > line
                fault = "a quote that begins here is not closed" if runs_on else f"not CSV ({error})"
                raise UsageError(f"{self.path}, line {line}: {fault}") from None
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(order):
                yield Row(line, None, f"expected {len(order)} values, found {len(values)}")
            else:
                yield Row(line, tuple(values[at] for at in order))

    def _header(self, lines: _Lines) -> tuple[str, list[int]]:
        """The delimiter, and where each wanted column stands."""
        text = next((line for line in lines if line.strip()), None)
        wanted = f"the first line must name the columns {','.join(self._columns)}"
        if text is None:
            raise UsageError(f"{self.path} is empty: {wanted}")
        delimiter = max(DELIMITERS, key=text.count)
        try:
            given = [name.strip() for name in next(csv.reader([text], delimiter=delimiter, strict=True))]
        except csv.Error:
            raise UsageError(f"{self.path}, line {lines.number}: {wanted}") from None
        names = [name.lower() for name in given]
        faults = [
            *(f"{name} is missing" for name in self._columns if name not in names),
            *(f"{name!r} is unknown" for name in given if name.lower() not in self._columns),
            *(f"{name} is there twice" for name in self._columns if names.count(name) > 1),
        ]
        if faults:
            raise UsageError(f"{self.path}, line {lines.number}: {wanted}; {', '.join(faults)}")
        return delimiter, [names.index(name) for name in self._columns]

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns


@contextmanager
def opened(path: Path, columns: tuple[str, ...]) -> Iterator[CsvFile]:
    """Raises UsageError for what is no file that can be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    with file:
        if not file.seekable():
            raise UsageError(f"{path} must be a file, not a pipe: it is read twice")
        yield CsvFile(path, file, columns)


class _Lines:
    """The lines as text; `number` is that of the last one given, `ended` that more were asked for in vain."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path = path
        self._file = file
        self.number = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(LINE_BYTES_MAX + 1)
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) > LINE_BYTES_MAX:
            raise UsageError(f"{self._path}, line {self.number}: longer than {LINE_BYTES_MAX} bytes")
        if self.number == 1:
            if line.startswith(OTHER_BOMS) or b"\0" in line:
                raise self._not_utf8()
            line = line.removeprefix(BOM)
        try:
            return line.decode()
        except UnicodeDecodeError:
            raise self._not_utf8() from None

    def _not_utf8(self) -> UsageError:
        return UsageError(
            f"{self._path}, line {self.number}: not UTF-8. Save the file as UTF-8: in Excel as "
            '"CSV UTF-8 (Comma delimited)", in LibreOffice with the character set "Unicode (UTF-8)"'
        )
