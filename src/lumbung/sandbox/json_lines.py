"""A log as a file: one JSON object a line."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lumbung.sandbox.errors import StartError


class JsonLines:
    """Appends, and never clears: n starting at 1 again marks a new start or a reset.

    Unbuffered, one system call a line: what has happened is in the file even when the process is killed right after.
    There is no fsync; a power cut may lose the last lines. Raises StartError, calling the file `what`.
    """

    def __init__(self, path: Path, what: str):
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise StartError(f"cannot open the {what} {path}: {error.strerror}; name a writable file") from error
        self._encoder = msgspec.json.Encoder()

    def append(self, entry: msgspec.Struct) -> None:
        self._file.write(self._encoder.encode(entry) + b"\n")

    def close(self) -> None:
        self._file.close()
