"""libfaketime, where it is installed: the clock of one process is set by a file, while the machine's goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PLACES = ("/usr/lib", "/usr/local/lib", "/usr/lib64")
LIBRARY = "faketime/libfaketime.so.1"


def library() -> Path | None:
    """Where it is; None where it is not installed."""
    for place in PLACES:
        for pattern in (LIBRARY, f"*/{LIBRARY}"):
            if found := sorted(Path(place).glob(pattern)):
                return found[0]
    return None


def environment(preloaded: Path, clock_file: Path) -> Mapping[str, str]:
    """For a process whose clock the file is to set. It is looked at every second; waits go by the real clock."""
    return {
        "LD_PRELOAD": str(preloaded),
        "FAKETIME_TIMESTAMP_FILE": str(clock_file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }


def set_clock(clock_file: Path, ahead_seconds: int) -> None:
    """The whole file at once: a server that reads half of it would stop at a strange time."""
    new = clock_file.with_suffix(".new")
    new.write_text(f"{ahead_seconds:+d}\n")
    new.chmod(0o644)  # the server may be another user than we are
    new.replace(clock_file)
