"""How long scans rest, so that they take a small part of the time however much one of them costs. Pure.

Reading what is due from the lanes costs little, until somebody holds a snapshot open: then it costs ever more, in every
store. So all scans of a process rest together: each puts off the next one of its store by a multiple of what it took,
after all that others have put theirs off by.
"""

from __future__ import annotations


class Rest:
    """`times` what a scan took, at most `seconds_max`."""

    def __init__(self, times: float, seconds_max: float) -> None:
        self._times = times
        self._seconds_max = seconds_max
        self._until = 0.0

    def seconds(self, took: float) -> float:
        """After something that rests by itself."""
        return min(self._times * took, self._seconds_max)

    def until(self, now: float, took: float) -> float:
        """When a store whose scan has taken so long may be scanned again."""
        self._until = min(max(self._until, now) + self._times * took, now + self._seconds_max)
        return self._until
