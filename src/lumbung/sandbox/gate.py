"""Holds calls after they were received and before they are judged, so that a test can act while they are in flight."""

from __future__ import annotations

import asyncio

from lumbung.sandbox.tally import Tally


class Gate:
    """Shut until `open()`; then it lets through whoever waits and whoever comes later.

    `let_later_pass()` keeps those that wait while later ones go ahead of them: a call that takes effect late.
    """

    def __init__(self) -> None:
        self._arrivals = Tally()
        self._opened = asyncio.Event()
        self._later_pass = False

    @property
    def arrivals(self) -> int:
        """Calls that have come to the gate, since it was set up."""
        return self._arrivals.count

    async def entered(self, n: int = 1) -> None:
        """Returns once n calls have come to the gate, since it was set up."""
        await self._arrivals.wait_for(n)

    def let_later_pass(self) -> None:
        """Whoever waits goes on waiting, until `open()`; whoever comes from now on does not wait."""
        self._later_pass = True

    def open(self) -> None:
        self._opened.set()

    async def hold(self) -> None:
        """Called with each call that was received; returns when the gate is open."""
        self._arrivals.bump()
        if not self._later_pass:
            await self._opened.wait()

    def give_up(self) -> None:
        """The sandbox stops: nobody is to wait at the gate, or for arrivals, any more."""
        self._arrivals.close()
        self.open()
