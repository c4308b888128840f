"""The applied writes as a file: one JSON object a line, as `GET /_control/writes` shows them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lumbung.sandbox.entries import Write
from lumbung.sandbox.errors import StartError


class WriteLog:
    """Appends, and never clears: n starting at 1 again marks a new start or a reset.

    Unbuffered, one system call a line: what was applied is in the file even when the process is killed right after.
    There is no fsync; a power cut may lose the last lines.
    """

    def __init__(self, path: Path):
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise StartError(f"cannot open the write log {path}: {error.strerror}; name a writable file") from error
        self._encoder = msgspec.json.Encoder()

    def append(self, write: Write) -> None:
        self._file.write(self._encoder.encode(write) + b"\n")

    def close(self) -> None:
        self._file.close()
