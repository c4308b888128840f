"""What a sender and its lease are told of a store: its own limits, within the installation's."""

from __future__ import annotations

import pytest

from lumbung.channels.blibli.manifest import MANIFEST
from lumbung.channels.registry import CHANNELS
from lumbung.dispatch.opening import limits_of, times_of
from lumbung.settings import Settings


@pytest.mark.parametrize(
    ("own", "most", "seconds"),
    [
        ({}, 20.0, 20.0),
        ({}, 0.9, 0.9),
        ({"call_timeout_seconds": "3"}, 20.0, 3.0),
        ({"call_timeout_seconds": "3"}, 2, 2),
    ],
)
def test_a_stores_calls_take_no_longer_than_the_installation_allows(
    own: dict[str, str], most: float, seconds: float
) -> None:
    limits = limits_of(MANIFEST, own, Settings(call_timeout_seconds_max=most))
    assert limits.call_timeout_seconds == seconds
    assert limits.calls_per_second == MANIFEST.pacing.calls_per_second
    assert limits.quiesce_seconds == MANIFEST.quiesce_seconds


@pytest.mark.parametrize(
    ("lease_seconds", "most", "lifetime"), [(15.0, 20.0, 44.0), (2.0, 0.9, 2.0), (2.0, 1.0, 2.2), (60.0, 20.0, 60.0)]
)
def test_leases_of_every_channel_outlast_its_calls_as_the_installation_bounds_them(
    lease_seconds: float, most: float, lifetime: float
) -> None:
    times = times_of(CHANNELS, Settings(lease_seconds=lease_seconds, call_timeout_seconds_max=most))
    assert {code: one.lifetime_seconds for code, one in times.items()} == dict.fromkeys(CHANNELS, lifetime)
    assert {code: one.quiesce_seconds for code, one in times.items()} == {
        code: channel.manifest.quiesce_seconds for code, channel in CHANNELS.items()
    }
