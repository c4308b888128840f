"""The marketplace's channels: sessions that can more or less, and the opener that tells them whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from lumbung.channels.base import (
    Accepted,
    Attempt,
    Channel,
    Manifest,
    Outcome,
    Pacing,
    Push,
    Reading,
    Refreshed,
    Session,
    Tokens,
)
from lumbung.channels.http import HttpClient
from lumbung.clock import Clock
from lumbung.db.lease import LeaseRow
from lumbung.dispatch.engine import Engine
from lumbung.dispatch.opening import Opener
from lumbung.dispatch.report import Lease
from lumbung.dispatch.sender import StoreSender
from lumbung.keyring import Keyring
from tests.simulation.loop import Process, VirtualClock
from tests.simulation.marketplace import Account, Marketplace

QUIESCE_SECONDS = 12.0
CALL_TIMEOUT_SECONDS = 2.0
MANIFEST = Manifest(
    code="plain",
    name="Plain",
    hosts=("plain.test",),
    batch_max=1,
    in_flight_max=1,
    pacing=Pacing(20.0, 5),
    credentials=(),
    call_timeout_seconds=CALL_TIMEOUT_SECONDS,
    quiesce_seconds=QUIESCE_SECONDS,
    read_max=3,
)


class PlainSession:
    def __init__(self, market: Marketplace, account: Account, lease: Lease, process: Process):
        self._market = market
        self._account = account
        self._lease = lease
        self._process = process
        self._pair = 0

    async def push(self, pushes: Sequence[Push]) -> Attempt:
        return await self._attempt("push", pushes)

    async def check(self) -> Outcome:
        return Accepted()

    async def _attempt(self, kind: str, pushes: Sequence[Push]) -> Attempt:
        given = await self._market.call(self._account, self._lease, self._process, kind, pushes, self._pair)
        assert isinstance(given, Attempt)
        return given


class ReadingSession(PlainSession):
    async def read(self, pushes: Sequence[Push]) -> Reading:
        given = await self._market.call(self._account, self._lease, self._process, "read", pushes, self._pair)
        assert isinstance(given, Reading)
        return given


class SubmittingSession(ReadingSession):
    async def ask(self, handle: str, pushes: Sequence[Push]) -> Attempt:
        return await self._attempt(f"ask {handle}", pushes)


class TokenSession(ReadingSession):
    def use(self, tokens: Tokens) -> None:
        self._pair = int(tokens.access.split("-")[1])

    async def refresh(self, tokens: Tokens) -> Refreshed:
        return await self._market.refresh(self._account, self._process, tokens)


class SimulatedChannel:
    def __init__(self, manifest: Manifest, session: type[PlainSession], market: Marketplace, process: Process):
        self.manifest = manifest
        self.opening: Lease | None = None
        self._session = session
        self._market = market
        self._process = process

    def open(self, credentials: Mapping[str, str], http: HttpClient, clock: Clock) -> Session:
        assert self.opening is not None
        return self._session(self._market, self._market.accounts[self.opening.store_id], self.opening, self._process)

    def account(self, credentials: Mapping[str, str]) -> str:
        return ""

    def remote_variant(self, text: str) -> str:
        return text

    def batch_key(self, remote_variant: str) -> str:
        return ""

    def read_key(self, remote_variant: str) -> str:
        return ""


def manifests(rate: float, burst: int) -> dict[str, tuple[Manifest, type[PlainSession]]]:
    """By code. Batches, calls at once, and what can be asked differ."""
    common = replace(MANIFEST, pacing=Pacing(rate, burst))
    return {
        "plain": (common, PlainSession),
        "batch": (replace(common, code="batch", batch_max=4, in_flight_max=2), ReadingSession),
        "feed": (replace(common, code="feed", batch_max=3, in_flight_max=2), SubmittingSession),
        "token": (replace(common, code="token", in_flight_max=3), TokenSession),
    }


class SimulatedOpener(Opener):
    """Tells the session under which lease it calls, so that the marketplace can be asked who did."""

    def __init__(
        self,
        kinds: Mapping[str, tuple[Manifest, type[PlainSession]]],
        market: Marketplace,
        process: Process,
        keyring: Keyring,
        clock: VirtualClock,
    ):
        made = {
            code: SimulatedChannel(manifest, session, market, process) for code, (manifest, session) in kinds.items()
        }
        super().__init__(cast(Mapping[str, Channel], made), cast(HttpClient, None), keyring, clock)
        self._made = made

    def open(self, row: LeaseRow, lease: Lease, engine: Engine) -> StoreSender:
        self._made[row.channel].opening = lease
        return super().open(row, lease, engine)
