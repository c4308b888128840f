"""How many stores a process takes and gives back: its share is stores with work / live workers, rounded up. Pure."""

from __future__ import annotations

import math


def share(*, with_work: int, live: int) -> int:
    """The stores with work that one of `live` processes aims at: 5 of 14 when there are three."""
    return math.ceil(with_work / max(1, live))


def room(*, held: int, with_work: int, active: int, live: int, held_max: int, orphans: int = 0, lost: int = 0) -> int:
    """How many more stores a process may take that holds `held`, `active` of them with work.

    Of `orphans`, stores whose holders were `lost`, it takes its part in any case: those holders may still be counted
    among the live, and their stores must not wait until they are not. What is too much is given back later.
    """
    fair = share(with_work=with_work, live=live) - active
    adopted = share(with_work=orphans, live=live - lost)
    return max(0, min(max(fair, adopted), held_max - held))


def excess(*, with_work: int, active: int, live: int, percent: float) -> int:
    """How many a process gives back at a renewal: what is above its share, at most so many percent of what it has, and
    at least one, so that it ends."""
    above = max(0, active - share(with_work=with_work, live=live))
    return min(above, max(1, math.floor(active * percent / 100)))
