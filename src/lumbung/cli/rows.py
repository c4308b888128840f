"""Reading a CSV file row by row, as spreadsheets write it: a header with the columns that are wanted (in any case),
`,` `;` or tab between, any line ends, in UTF-8, or in UTF-16 (which cannot be taken for anything else).

Every other encoding is refused: in Windows-1252 and its neighbours any bytes are some text, so nobody knows which.
Rows carry the line on which they begin, so that people find them in an editor. Nothing but the row in hand is kept.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lumbung.errors import UsageError

DELIMITERS = (",", ";", "\t")
LINE_CHARS_MAX = 1_048_576
HINT = "sep="  # Excel's own first line, which names the delimiter: `sep=;`


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
        with _Lines(self.path, self._file) as lines:
            delimiter, order = self._header(lines)
            cells = csv.reader(lines, delimiter=delimiter, strict=True)
            while True:
                line = lines.number + 1
                try:
                    values = next(cells)
                except StopIteration:
                    return
                except csv.Error as error:
                    raise UsageError(f"{self.path}, line {line}: {_fault(error, lines, line)}") from None
                if any(value.strip() for value in values):
                    yield _row(line, values, order)

    def _header(self, lines: _Lines) -> tuple[str, list[int]]:
        """The delimiter, and where each wanted column stands."""
        filled = (line for line in lines if line.strip())
        text = next(filled, None)
        if text is not None and text.lower().startswith(HINT):
            text = next(filled, None)
        wanted = f"the first line must name the columns {','.join(self._columns)}"
        if text is None:
            raise UsageError(f"{self.path} is empty: {wanted}")
        delimiter = max(DELIMITERS, key=text.count)
        try:
            given = [name.strip() for name in next(csv.reader([text], delimiter=delimiter, strict=True))]
        except csv.Error:
            raise UsageError(f"{self.path}, line {lines.number}: {wanted}") from None
        names = _without_empty_end([name.lower() for name in given])
        faults = [
            *(f"{name} is missing" for name in self._columns if name not in names),
            *(f"{name!r} is unknown" for name in given[: len(names)] if name.lower() not in self._columns),
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
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # opening a pipe would wait for who writes
            raise UsageError(f"{path} must be a file, not a pipe or a device: it is read twice")
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    with file:
        yield CsvFile(path, file, columns)


def _row(line: int, values: list[str], order: list[int]) -> Row:
    """Spreadsheets write empty cells behind the last column."""
    if len(values) > len(order):
        values = [*values[: len(order)], *_without_empty_end(values[len(order) :])]
    if len(values) != len(order):
        return Row(line, None, f"expected {len(order)} values, found {len(values)}")
    return Row(line, tuple(values[at] for at in order))


def _without_empty_end(cells: list[str]) -> list[str]:
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _fault(error: csv.Error, lines: _Lines, line: int) -> str:
    runs_on = lines.ended or lines.number > line
    return "a quote that begins here is not closed" if runs_on else f"not CSV ({error})"


class _Lines:
    """The lines as text; `number` is that of the last one given, `ended` that more were asked for in vain."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path = path
        self._file = file
        with _anew(file) as beginning:
            self._encoding = _encoding(beginning.read(4))
        self._text = io.TextIOWrapper(_anew(file), encoding=self._encoding, newline="")  # a lone CR ends a line too
        self.number = 0
        self.ended = False

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_error: object) -> None:
        self._text.close()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(LINE_CHARS_MAX + 1)
        except UnicodeError:
            raise self._undecodable() from None
        if not line:
            self.ended = True
            raise StopIteration
        self.number += 1
        if len(line) > LINE_CHARS_MAX:
            raise UsageError(f"{self._path}, line {self.number}: longer than {LINE_CHARS_MAX} characters")
        return line

    def _undecodable(self) -> UsageError:
        if self._encoding != "utf-8-sig":
            where = f"{self._path}, after line {self.number}"
            return UsageError(f"{where}: cut off, or not the UTF-16 that it begins as: save it anew")
        return UsageError(
            f"{self._path}, line {self._first_not_utf8()}: not UTF-8. Save the file as UTF-8: in Excel as "
            '"CSV UTF-8 (Comma delimited)", in LibreOffice with the character set "Unicode (UTF-8)"'
        )

    def _first_not_utf8(self) -> int:
        """The text is decoded in large pieces: which line it was is looked for when it is wanted."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        number = 1
        with _anew(self._file) as file, suppress(UnicodeDecodeError):
            while piece := file.readline(LINE_CHARS_MAX):
                decoder.decode(piece)
                number += piece.endswith(b"\n")
        return number


def _anew(file: BinaryIO) -> BinaryIO:
    """The open file from its beginning, also when its name belongs to another one by now."""
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return os.fdopen(os.dup(file.fileno()), "rb")


def _encoding(head: bytes) -> str:
    """By a byte order mark, or by the zeros that every second byte of a header in UTF-16 is."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) == 4 and head[1] == head[3] == 0 and head[0] and head[2]:
        return "utf-16-le"
    if len(head) == 4 and head[0] == head[2] == 0 and head[1] and head[3]:
        return "utf-16-be"
    return "utf-8-sig"
