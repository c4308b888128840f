"""The channels that have a connector."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lumbung.channels.base import Channel
from lumbung.channels.blibli.channel import BlibliChannel
from lumbung.channels.bukalapak.channel import BukalapakChannel
from lumbung.channels.shopee.channel import ShopeeChannel

_ALL: tuple[Channel, ...] = (BlibliChannel(), BukalapakChannel(), ShopeeChannel())

CHANNELS: Mapping[str, Channel] = MappingProxyType({channel.manifest.code: channel for channel in _ALL})


def find(code: str) -> Channel | None:
    """The connector of a channel code; None for codes that only the catalogue knows."""
    return CHANNELS.get(code)
