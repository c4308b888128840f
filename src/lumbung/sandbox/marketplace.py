"""What every fake marketplace offers. One file or folder a channel; nothing is shared between two of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web

from lumbung.sandbox.call import Answer, Call, Target, Verdict
from lumbung.sandbox.ledger import Ledger, Store

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Marketplace(Protocol):
    @property
    def channel(self) -> str:
        """The channel's code, which is also the first segment of its paths: `/{channel}/...`."""
        ...

    @property
    def headers_shown(self) -> tuple[str, ...]:
        """The headers without secrets that are worth keeping with a call, in lower case."""
        ...

    def routes(self, handler: Handler) -> list[web.RouteDef]:
        """Where `handler` is to be mounted: everything below the channel's prefix."""
        ...

    def store(self, name: str, settings: Mapping[str, object]) -> Store:
        """A store from the body of `PUT /_control/stores/{channel}/{store}`; raises RefusedError."""
        ...

    def target(self, call: Call) -> Target: ...

    def judge(self, call: Call, ledger: Ledger, rejected: frozenset[str]) -> Verdict:
        """What the marketplace answers, and what is to take effect. Reads the ledger, changes nothing, never waits.

        `rejected` are merchant SKUs and remote variants that are to be answered as unknown.
        """
        ...

    def refusal(self, call: Call, status: int) -> Answer:
        """The marketplace's own shape for a refusal without regard to content: 400, 404, 413, 429 and 5xx."""
        ...
