"""Opening a store: from the row of its lease to a sender with the store's own limits, credentials and tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lumbung.channels.base import Channel, Manifest, RotatesTokens
from lumbung.channels.http import HttpClient
from lumbung.clock import Clock
from lumbung.db.lease import ChannelTimes, LeaseRow
from lumbung.dispatch.engine import Engine, StoreLimits
from lumbung.dispatch.lease_clock import lifetime_seconds
from lumbung.dispatch.report import Lease
from lumbung.dispatch.sender import StoreSender
from lumbung.dispatch.tokens import TokenKeeper, unseal
from lumbung.keyring import Keyring
from lumbung.model import purpose_of_application, purpose_of_store
from lumbung.settings import Settings


class Opener:
    def __init__(self, channels: Mapping[str, Channel], http: HttpClient, keyring: Keyring, clock: Clock):
        self.channels = channels
        self._http = http
        self._keyring = keyring
        self._clock = clock

    def open(self, row: LeaseRow, lease: Lease, engine: Engine) -> StoreSender:
        """Raises ConfigurationError, naming the field, when the credentials or tokens cannot be right."""
        channel = self.channels[row.channel]
        credentials = opened(
            self._keyring, row.store_id, row.credentials, row.channel_app_id, row.application_credentials
        )
        session = channel.open(credentials, self._http, self._clock)
        limits = limits_of(channel.manifest, credentials, engine.settings)
        keeper = None
        if isinstance(session, RotatesTokens) and row.tokens is not None:
            tokens = unseal(self._keyring, row.store_id, row.tokens)
            keeper = TokenKeeper(
                session,
                tokens,
                lease,
                storage=engine.storage,
                keyring=self._keyring,
                clock=self._clock,
                settings=engine.settings,
                keep=engine.keep,
            )
        return StoreSender(lease, channel, session, limits, engine, keeper)


def opened(
    keyring: Keyring, store_id: int, own: bytes, application_id: int | None, of_application: bytes | None
) -> dict[str, str]:
    """A store's credentials and its application's in one mapping, decrypted. Raises ConfigurationError."""
    shared = application_values(keyring, application_id, of_application)
    values: dict[str, str] = json.loads(keyring.decrypt(own, purpose_of_store(store_id)))
    return shared | values


def application_values(keyring: Keyring, application_id: int | None, sealed: bytes | None) -> dict[str, str]:
    """An application's credentials, decrypted; none where a store has no application. Raises ConfigurationError."""
    if application_id is None or sealed is None:
        return {}
    values: dict[str, str] = json.loads(keyring.decrypt(sealed, purpose_of_application(application_id)))
    return values


def limits_of(manifest: Manifest, credentials: Mapping[str, str], settings: Settings) -> StoreLimits:
    """The channel's limits, or those that the store's own credentials file sets; calls as the client bounds them."""
    timeout_seconds = float(credentials.get("call_timeout_seconds") or manifest.call_timeout_seconds)
    rate = float(credentials.get("calls_per_second") or manifest.pacing.calls_per_second)
    return StoreLimits(
        calls_per_second=rate,
        burst=manifest.pacing.burst if "calls_per_second" not in credentials else burst_of(rate),
        call_timeout_seconds=min(timeout_seconds, settings.call_timeout_seconds_max),
        quiesce_seconds=float(credentials.get("quiesce_seconds") or manifest.quiesce_seconds),
    )


def burst_of(calls_per_second: float) -> int:
    """Half of what a marketplace that counts by the second lets through at once: what was sent over half a second and
    comes at the same moment, held up on its way, is then still within the limit."""
    return max(1, int(calls_per_second / 2))


def times_of(channels: Mapping[str, Channel], settings: Settings) -> dict[str, ChannelTimes]:
    """What leases need to know of each channel. No store's calls take longer than its channel's, as the client bounds
    them."""
    return {
        code: ChannelTimes(
            channel.manifest.quiesce_seconds,
            lifetime_seconds(
                settings.lease_seconds,
                min(channel.manifest.call_timeout_seconds, settings.call_timeout_seconds_max),
            ),
        )
        for code, channel in channels.items()
    }
