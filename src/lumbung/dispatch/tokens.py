"""A store's token pair: refreshed at half its life, or once when it is not accepted; never lost.

A refresh token may work only once (Shopee's). So whoever trades a pair writes the new one, whatever has become of its
lease meanwhile: by compare-and-set on the old refresh token, again and again until the database has it. Who finds that
somebody else has traded the pair takes the stored one.

    pair accepted --half of its life is over--> refresh --> new pair written --> used
         '------------not accepted------------> refresh --> not accepted again: the store pauses
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from lumbung.channels.base import CallRecord, RotatesTokens, Tokens, Unauthorized, Unavailable
from lumbung.clock import Clock
from lumbung.db.lease import StoredTokens
from lumbung.dispatch.report import Lease
from lumbung.dispatch.storage import Storage
from lumbung.errors import ConfigurationError, LumbungError
from lumbung.errors import Unavailable as DatabaseAway
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_tokens
from lumbung.settings import Settings

log = structlog.get_logger()

Refusal = Unauthorized | Unavailable
AGREE_AGAIN = " (the merchant must agree again: `lumbung store authorize`)"


class TokenKeeper:
    """The pair of one store, in the hands of its sender."""

    def __init__(
        self,
        session: RotatesTokens,
        tokens: Tokens,
        lease: Lease,
        *,
        storage: Storage,
        keyring: Keyring,
        clock: Clock,
        settings: Settings,
        keep: Callable[[Awaitable[None]], None],
    ):
        self._session = session
        self._lease = lease
        self._storage = storage
        self._keyring = keyring
        self._clock = clock
        self._settings = settings
        self._keep = keep
        self._trading: tuple[Tokens, asyncio.Future[Refusal | None]] | None = None
        self._tokens = tokens
        self._renewed_because_refused = False
        self._try_again_at = 0.0
        self._calls: list[CallRecord] = []
        session.use(tokens)

    @property
    def tokens(self) -> Tokens:
        """The pair in use: what a call was made with, to be named when it is refused."""
        return self._tokens

    @property
    def wants_refresh(self) -> bool:
        """Whether half the life of the pair is over, and it has expired or was not tried in vain just now."""
        if self._clock.now() >= self._tokens.access_expires_at:
            return True
        return self._clock.now() >= _half_life(self._tokens) and self._clock.monotonic() >= self._try_again_at

    @property
    def would_die(self) -> bool:
        """Whether the pair should be renewed though nobody needs it: its refresh token dies soon, and it was not tried
        in vain just now."""
        now, dies_at = self._clock.now(), self._tokens.refresh_expires_at
        if dies_at is None or now < self._tokens.access_expires_at or self._clock.monotonic() < self._try_again_at:
            return False
        return now >= dies_at - timedelta(seconds=self._settings.token_renew_ahead_seconds)

    @property
    def is_trading(self) -> bool:
        return self._trading is not None

    async def settled(self) -> None:
        """Returns once no trade is under way: what it gave is written, and a next holder will find it."""
        while self._trading is not None:
            await asyncio.wait([self._trading[1]])

    def take_calls(self) -> tuple[CallRecord, ...]:
        """The calls that refreshing has made since the last time."""
        calls, self._calls = tuple(self._calls), []
        return calls

    async def before_call(self) -> Refusal | None:
        """Refresh when half the life of the pair is over. What is returned answers the call in its stead: only when the
        pair has expired and no other can be had now."""
        if not self.wants_refresh:
            return None
        refusal = await self._renew(self._tokens)
        if refusal is None:
            return None
        self._try_again_at = self._clock.monotonic() + self._settings.token_refresh_seconds_min
        expired = self._clock.now() >= self._tokens.access_expires_at
        return refusal if expired or isinstance(refusal, Unauthorized) else None

    async def refused(self, used: Tokens) -> Refusal | None:
        """A call that was made with `used` was not authorised. None: there is another pair, try again."""
        if used is not self._tokens:
            return None
        if self._renewed_because_refused:
            return Unauthorized(f"The new access token is not accepted either{AGREE_AGAIN}", refreshable=False)
        refusal = await self._renew(used)
        self._renewed_because_refused = refusal is None
        return refusal

    def accepted(self) -> None:
        """A call was authorised: the next refusal is a new one."""
        self._renewed_because_refused = False

    async def _renew(self, used: Tokens) -> Refusal | None:
        """Trade the pair once, however many ask at the same time: they all get its answer. Once begun it ends, and what
        it gives is written, whatever becomes of those who have asked."""
        while self._tokens is used:
            if self._trading is None:
                self._trading = used, asyncio.ensure_future(self._trade(used))
                self._keep(_ended(self._trading[1]))
            traded, refusal = self._trading
            if traded is used:
                return await asyncio.shield(refusal)
            await asyncio.shield(refusal)
        return None

    async def _trade(self, used: Tokens) -> Refusal | None:
        try:
            try:
                if await self._take_stored(used):
                    return None
            except DatabaseAway:
                # What it trades could not be written, and might have been traded by somebody else already.
                return Unavailable("The access token is not refreshed while the database is away")
            refreshed = await self._session.refresh(used)
            self._calls.extend(refreshed.calls)
            match refreshed.result:
                case Tokens() as new:
                    self._take(new)
                    await self._write(used, new)
                    return None
                case Unauthorized(message=message):
                    return await self._refused_for_good(used, message)
                case other:
                    return Unavailable(f"The access token cannot be refreshed now: {other.message}")
        except Exception:
            # A bug in a connector: loud, and like a refresh that was not to be had.
            log.exception("the connector failed to refresh a token", store=self._lease.store_id)
            return Unavailable("The access token cannot be refreshed: see the log")
        finally:
            self._trading = None

    async def _refused_for_good(self, used: Tokens, message: str) -> Refusal | None:
        """Unless somebody else has traded it, which only the database can tell."""
        try:
            if await self._take_stored(used):
                return None
        except DatabaseAway:
            return Unavailable(f"Nobody can tell whether another process has refreshed the access token: {message}")
        return Unauthorized(f"{message}{AGREE_AGAIN}", refreshable=False)

    async def _take_stored(self, used: Tokens) -> bool:
        """Use the pair that somebody else has stored meanwhile, if there is one that can be opened. Raises
        DatabaseAway."""
        try:
            stored = await self._storage.read_tokens(self._lease)
            if stored is None or stored[1] == digest(used):
                return False
            self._take(unseal(self._keyring, self._lease.store_id, stored[0]))
        except (ConfigurationError, KeyError, TypeError, ValueError) as error:
            log.warning("a stored token pair cannot be taken", store=self._lease.store_id, error=str(error))
            return False
        return True

    def _take(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._session.use(tokens)

    async def _write(self, old: Tokens, new: Tokens) -> None:
        """Until the database has it: not even a lost lease ends this."""
        stored = StoredTokens(
            seal(self._keyring, self._lease.store_id, new),
            digest(new),
            new.access_expires_at,
            new.refresh_expires_at,
        )
        while True:
            try:
                if not await self._storage.swap_tokens(self._lease, digest(old), stored):
                    await self._told_late(new)
                return
            except LumbungError as error:
                log.warning("a new token cannot be written, trying again", store=self._lease.store_id, error=str(error))
            await asyncio.sleep(self._settings.poll_seconds)

    async def _told_late(self, new: Tokens) -> None:
        """The stored pair is another one: ours, when only the answer to the write was lost. One that cannot be opened
        is left to whoever has its key, and ours is used for as long as this process lives."""
        store_id = self._lease.store_id
        stored = await self._storage.read_tokens(self._lease)
        if stored is None or stored[1] == digest(new):
            return
        try:
            theirs = unseal(self._keyring, store_id, stored[0])
        except (ConfigurationError, KeyError, TypeError, ValueError) as error:
            log.error(
                "a new token pair cannot be written: another one is stored, and cannot be opened;"
                " give the store a new pair before this process ends",
                store=store_id,
                error=str(error),
            )
            return
        log.warning("another process has stored a token pair meanwhile: taking it", store=store_id)
        self._take(theirs)


async def _ended(work: asyncio.Future[Refusal | None]) -> None:
    await asyncio.wait([work])


def _half_life(tokens: Tokens) -> datetime:
    return tokens.issued_at + (tokens.access_expires_at - tokens.issued_at) / 2


def digest(tokens: Tokens) -> bytes:
    """What a pair is known by in the database: SHA-256 of its refresh token."""
    return hashlib.sha256(tokens.refresh.encode()).digest()


def seal(keyring: Keyring, store_id: int, tokens: Tokens) -> bytes:
    """A pair as it is stored: encrypted for this very store."""
    text = json.dumps(
        {
            "access": tokens.access,
            "refresh": tokens.refresh,
            "issued_at": tokens.issued_at.isoformat(),
            "access_expires_at": tokens.access_expires_at.isoformat(),
            "refresh_expires_at": tokens.refresh_expires_at.isoformat() if tokens.refresh_expires_at else None,
            "more": dict(tokens.more),
        }
    )
    return keyring.encrypt(text.encode(), purpose_of_tokens(store_id))


def unseal(keyring: Keyring, store_id: int, blob: bytes) -> Tokens:
    """The reverse. Raises ConfigurationError when it was encrypted with another key or for another store."""
    values = json.loads(keyring.decrypt(blob, purpose_of_tokens(store_id)))
    refresh_expires_at = values["refresh_expires_at"]
    return Tokens(
        values["access"],
        values["refresh"],
        datetime.fromisoformat(values["issued_at"]),
        datetime.fromisoformat(values["access_expires_at"]),
        datetime.fromisoformat(refresh_expires_at) if refresh_expires_at else None,
        values["more"],
    )
