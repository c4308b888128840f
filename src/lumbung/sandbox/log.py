"""A numbered, bounded list of entries: the newest are kept in memory, the numbers never have gaps."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, TypeVar

from lumbung.sandbox.tally import Tally

Entry = TypeVar("Entry")


class Log(Generic[Entry]):
    """Entry n is the nth that was appended since the start or the last `clear`; n starts at 1."""

    def __init__(self, kept_max: int):
        self._entries: deque[Entry] = deque(maxlen=kept_max)
        self._tally = Tally()

    @property
    def last(self) -> int:
        """The number of the newest entry; 0 when there is none."""
        return self._tally.count

    @property
    def oldest_kept(self) -> int:
        """The smallest n that can still be read; `last + 1` when there is none."""
        return self.last - len(self._entries) + 1

    def append(self, entry: Entry) -> None:
        """The caller numbers the entry itself: with `last + 1`."""
        self._entries.append(entry)
        self._tally.bump()

    def after(self, n: int, limit: int | None = None) -> list[Entry]:
        """The kept entries with a number above n, oldest first, at most `limit`."""
        start = max(0, n + 1 - self.oldest_kept)
        return list(islice(self._entries, start, None if limit is None else start + limit))

    async def wait_for(self, n: int) -> None:
        """Returns once entry n is there, or when the sandbox stops."""
        await self._tally.wait_for(n)

    def clear(self) -> None:
        self._entries.clear()
        self._tally.restart()

    def close(self) -> None:
        self._tally.close()
