"""The CPU time that processes have used: it tells what work costs also while others use the machine."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def cpu_seconds(roots: Iterable[int]) -> float:
    """Of these processes and all that descend from them, those included that have ended and were waited for."""
    seconds = 0.0
    for root in map(psutil.Process, roots):
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has ended
                seconds += sum(process.cpu_times()[:4])
    return seconds
