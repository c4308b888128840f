"""Who is calling: partners and their secrets, and the check of a signed request.

Missing header, unknown partner and wrong signature all answer the same 401 after the same work. Secrets are decrypted
once and kept for `partner_cache_seconds`, so a rotation or a ban takes that long to reach every process.
"""

from __future__ import annotations

import base64
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field

import structlog

from lumbung.api import signature
from lumbung.clock import Clock
from lumbung.db import tenants as db
from lumbung.db.pool import Pool
from lumbung.errors import Forbidden, Unauthenticated
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_partner
from lumbung.settings import Settings

log = structlog.get_logger()

PARTNER_ID_CHARS_MAX = 255


@dataclass(frozen=True, slots=True)
class Partner:
    """A known partner with its one or two live secrets."""

    id: str
    tenant_id: int
    strict: bool
    disabled: bool
    traced: bool
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What the signature covers: the target as it stood on the wire, the body, and the three headers."""

    target: bytes
    body: bytes = field(repr=False)
    partner_id: str | None
    secret: str | None = field(repr=False)
    timestamp: str | None


class Partners:
    def __init__(self, pool: Pool, keyring: Keyring, settings: Settings, clock: Clock):
        self._pool = pool
        self._keyring = keyring
        self._settings = settings
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Partner | None]] = OrderedDict()
        self._nobody = Partner("", 0, False, False, False, (base64.b64encode(secrets.token_bytes(32)).decode(),))

    def are_sealed(self) -> bool:
        """Whether no partner can be authenticated, because there is no key to decrypt their secrets with."""
        return self._keyring.is_missing()

    async def authenticate(self, request: SignedRequest) -> Partner:
        """The partner that signed the request. Raises Unauthenticated, or Forbidden for one that is disabled."""
        partner = await self._find(request.partner_id or "")
        known = partner or self._nobody
        timestamp = (request.timestamp or "").encode("utf-8", "surrogateescape")
        right = signature.matches(request.secret or "", known.secrets, request.target, request.body, timestamp)
        if partner is None or not right:
            self._trace(partner, request)
            raise _unauthenticated()
        await self._check_timestamp(partner, request)
        if partner.disabled:
            raise Forbidden("This partner is disabled: ask the operator of this hub")
        return partner

    async def _check_timestamp(self, partner: Partner, request: SignedRequest) -> None:
        if request.timestamp is None:
            if partner.strict:
                raise _unauthenticated()
            return
        if not self._is_fresh(request.timestamp):
            raise _unauthenticated()
        async with self._pool.connection() as connection:
            fresh = await db.remember_signature(
                connection,
                tenant_id=partner.tenant_id,
                partner_id=partner.id,
                signature=(request.secret or "").encode(),
            )
        if not fresh:
            raise _unauthenticated()

    def _is_fresh(self, timestamp: str) -> bool:
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
            return False
        age = self._clock.now().timestamp() - int(timestamp) / 1000
        return abs(age) <= self._settings.timestamp_window_seconds

    async def _find(self, partner_id: str) -> Partner | None:
        if not partner_id or "\x00" in partner_id or len(partner_id) > PARTNER_ID_CHARS_MAX:
            return None  # not worth a place among the known
        now = self._clock.monotonic()
        kept = self._known.get(partner_id)
        if kept is not None and now - kept[0] < self._settings.partner_cache_seconds:
            return kept[1]
        partner = await self._read(partner_id)
        self._known[partner_id] = (now, partner)
        self._known.move_to_end(partner_id)
        while len(self._known) > self._settings.partner_cache_entries_max:
            self._known.popitem(last=False)
        return partner

    async def _read(self, partner_id: str) -> Partner | None:
        async with self._pool.connection() as connection:
            row = await db.find_partner(connection, partner_id)
        if row is None:
            return None
        live = [blob for blob in (row.secret, row.old_secret) if blob is not None]
        opened = tuple(self._keyring.decrypt(blob, purpose_of_partner(row.id)).decode() for blob in live)
        return Partner(row.id, row.tenant_id, row.strict, row.disabled, row.traced, opened)

    def _trace(self, partner: Partner | None, request: SignedRequest) -> None:
        if partner is not None and partner.traced:
            hashed = (request.timestamp or "").encode("utf-8", "surrogateescape") + request.target + request.body
            log.warning("signature does not match", partner=partner.id, hashed_bytes=repr(hashed), given=request.secret)


def _unauthenticated() -> Unauthenticated:
    return Unauthenticated("The partner-id and secret headers do not authenticate this request")
