"""What people read of an item that was not delivered in time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lumbung.db.deadline import OpenItem
from lumbung.dispatch.deadline import message, period, reason
from lumbung.model import DueFor, ListingStatus, StoreMode, WaitReason

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
ITEM = OpenItem(created_at=AT, update_id=1, id=1)
PARKED = replace(ITEM, state=ListingStatus.PARKED, park_reason="Unknown item")
WAITING = replace(ITEM, state=ListingStatus.WAITING)
TROUBLE = replace(ITEM, trouble="Connection refused", trouble_since=AT)
FAILING = replace(WAITING, wait_reason=WaitReason.BACKOFF, failing_since=AT, last_message="Timeout")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (ITEM, "Other listings were sent first"),
        (replace(ITEM, state=None), "Other listings were sent first"),
        (replace(ITEM, last_outcome="Accepted", last_message="Successfully Updated"), "Other listings were sent first"),
        (replace(ITEM, last_outcome="Observed", last_message="It shows 3"), "Other listings were sent first"),
        (replace(ITEM, last_outcome="Throttled", last_message="Too fast"), "Too fast"),
        (replace(PARKED, store_mode=StoreMode.PAUSED, pause_reason="Token dead"), "Store paused: Token dead"),
        (replace(TROUBLE, store_mode=StoreMode.OBSERVE), "The store is observed: nothing is sent to it"),
        (replace(TROUBLE, tenant_disabled=True), "The tenant is disabled"),
        (TROUBLE, "Marketplace unavailable since 2026-11-23T10:00:00Z: Connection refused"),
        (replace(FAILING, last_outcome="Unavailable"), "Marketplace unavailable since 2026-11-23T10:00:00Z: Timeout"),
        (replace(FAILING, last_outcome="InDoubt"), "Marketplace unavailable since 2026-11-23T10:00:00Z: Timeout"),
        (replace(FAILING, last_outcome="Conflict"), "Timeout"),
        (replace(PARKED, trouble="Connection refused", trouble_since=AT), "Parked: Unknown item"),
        (
            replace(WAITING, wait_reason=WaitReason.DEFERRED, last_outcome="Deferred", last_message="Campaign"),
            "Waiting (deferred): Campaign",
        ),
        (
            replace(WAITING, wait_reason=WaitReason.FLOOR, last_outcome="Floor", last_message="3 are reserved"),
            "Waiting (floor): 3 are reserved",
        ),
        (replace(WAITING, wait_reason=WaitReason.SUBMITTED), "Waiting (submitted)"),
        (
            replace(ITEM, due_for=DueFor.ASK, last_outcome="Submitted", last_message="Feed 7 taken"),
            "Waiting (submitted): Feed 7 taken",
        ),
        (replace(ITEM, wait_reason=WaitReason.CONFIRMATION), "Other listings were sent first"),
    ],
)
def test_the_reason_names_what_stands_in_the_way(item: OpenItem, expected: str) -> None:
    assert reason(item) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1, "1 s"),
        (60, "1 min"),
        (90, "90 s"),
        (900, "15 min"),
        (3599, "3599 s"),
        (3600, "1 h"),
        (3601, "1 h 1 s"),
        (9000, "2 h 30 min"),
        (86400, "24 h"),
    ],
)
def test_the_period_is_in_words(seconds: int, expected: str) -> None:
    assert period(seconds) == expected


def test_a_message_tells_the_period_and_the_reason() -> None:
    assert message(PARKED, 9000) == "Not delivered within 2 h 30 min: Parked: Unknown item"
