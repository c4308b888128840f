"""Shopee: one item a call, with all its variations; absolute quantities, answered at once for each variation."""

from __future__ import annotations

from collections.abc import Mapping

from lumbung.channels.base import Manifest, Session
from lumbung.channels.credentials import CredentialReader
from lumbung.channels.http import Transport
from lumbung.channels.shopee import wire
from lumbung.channels.shopee.manifest import BASE_URL, MANIFEST
from lumbung.channels.shopee.session import Credentials, ShopeeSession
from lumbung.clock import Clock
from lumbung.errors import BadRequest


class ShopeeChannel:
    manifest: Manifest = MANIFEST

    def open(self, credentials: Mapping[str, str], http: Transport, clock: Clock) -> Session:
        """Bind to a store. Raises ConfigurationError that names every field that cannot be right."""
        return ShopeeSession(read_credentials(credentials), http, clock)

    def account(self, credentials: Mapping[str, str]) -> str:
        return str(read_credentials(credentials).shop_id)

    def remote_variant(self, text: str) -> str:
        """`12346/55` or `{"item_id": 12346, "model_id": 55}` -> `{"item_id": 12346, "variation_id": 55}`. Raises
        BadRequest with what is expected."""
        return wire.remote_variant(text).text()

    def batch_key(self, remote_variant: str) -> str:
        """The item. What cannot be read goes alone."""
        try:
            return wire.remote_variant(remote_variant).batch_key
        except BadRequest:
            return remote_variant

    def read_key(self, remote_variant: str) -> str:
        """The same for all items without variations, else the item."""
        try:
            return wire.remote_variant(remote_variant).read_key
        except BadRequest:
            return remote_variant


def read_credentials(values: Mapping[str, str]) -> Credentials:
    """Raises ConfigurationError that names every field that cannot be right."""
    reader = CredentialReader(MANIFEST, values)
    # These two are the worker's to use; here they are only checked.
    reader.number("quiesce_seconds", MANIFEST.quiesce_seconds, above=0, at_most=3600)
    reader.number("calls_per_second", MANIFEST.pacing.calls_per_second, above=0, at_most=1000)
    credentials = Credentials(
        partner_id=reader.whole_number("partner_id", at_most=wire.ID_MAX),
        partner_key=reader.text("partner_key"),
        base_url=reader.base_url(BASE_URL),
        shop_id=reader.whole_number("shop_id", at_most=wire.ID_MAX),
        # Not above the manifest's: the worker's lease is measured by that.
        call_timeout_seconds=reader.number(
            "call_timeout_seconds", MANIFEST.call_timeout_seconds, above=0, at_most=MANIFEST.call_timeout_seconds
        ),
    )
    reader.finish()
    return credentials
