"""What every fake marketplace offers. One file or folder a channel; nothing is shared between two of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Protocol

from aiohttp import web

from lumbung.sandbox.call import Answer, Call, Target, Verdict
from lumbung.sandbox.faults import RowFaults
from lumbung.sandbox.ledger import Condition, Ledger, Listing, Store

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

    @property
    def mounts(self) -> Mapping[str, str]:
        """The paths that take the place of the marketplace's own addresses, by what credentials files call them."""
        ...

    def routes(self, handler: Handler) -> list[web.RouteDef]:
        """Where `handler` is to be mounted: everything below the channel's prefix."""
        ...

    def store(self, name: str, settings: Mapping[str, object]) -> Store:
        """A store from the body of `PUT /_control/stores/{channel}/{store}`; raises RefusedError.

        Listings whose names can be wrong need its `check`, tokens its `start_again`. Tokens are issued by the ledger's
        clock: a marketplace that has some is given the ledger when it is made.
        """
        ...

    def target(self, call: Call) -> Target: ...

    def judge(self, call: Call, ledger: Ledger, row_faults: RowFaults) -> Verdict:
        """What the marketplace answers, and what is to take effect. Reads the ledger, changes nothing, never waits.

        `row_faults`: what is the matter with single listings, by merchant SKU or remote variant; `condition_of` reads
        them. Raises ListingFailsError (`check_failing`) for the listings that the call names, once it is let in.
        """
        ...

    def refusal(self, call: Call, status: int) -> Answer:
        """The marketplace's own shape for a refusal without regard to content: 400, 404, 413, 429 and 5xx. Its status
        may be another: some marketplaces refuse under HTTP 200."""
        ...

    def quota_refusal(self, call: Call) -> Answer:
        """The marketplace's own shape for a daily quota that is used up."""
        ...

    def revoke(self, store: Store) -> None:
        """The seller withdraws the authorisation: every token of the store is dead. Raises RefusedError where the
        marketplace has no tokens."""
        ...


class ListingFailsError(Exception):
    """The marketplace breaks down over a listing: the whole call is answered 500 and nothing of it is applied.
    `struck`: only because the fault set says so."""

    def __init__(self, struck: bool):
        super().__init__("a listing that the call names is failing")
        self.struck = struck


def check_failing(listings: Iterable[Listing | None], row_faults: RowFaults) -> None:
    """Raises ListingFailsError when one of them is failing; None is a listing that is not there."""
    for listing in listings:
        condition, struck = condition_of(listing, row_faults)
        if condition == "failing":
            raise ListingFailsError(struck)


def condition_of(listing: Listing | None, row_faults: RowFaults) -> tuple[Condition, bool]:
    """What is the matter with a listing, and whether only the fault set says so. One that is failing is healthy to
    calls that do not name it."""
    if listing is None:
        return "unknown", False
    if listing.condition:
        return listing.condition, False
    struck = row_faults.get(listing.remote_variant) or row_faults.get(listing.sku) or ""
    return struck, bool(struck)
