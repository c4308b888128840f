"""When a process looks for objects in cycles that nobody needs any more."""

from __future__ import annotations

import gc

# Objects made and not gone before the youngest are looked at (700 is usual), and how often of these the older ones are.
THRESHOLDS = (50_000, 10, 10)


def collect_seldom() -> None:
    """Of a process that makes many objects a second, few of which are in cycles: looking for those took a seventh of an
    API process's time. What is there at the start stays, and is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
