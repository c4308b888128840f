from __future__ import annotations

from typing import Any

import pytest

from .conftest import Operator, cells

FIX = "When the cause is mended: `lumbung failures retry`\n"


def park(operator: Operator, listing: int, reason: str = "Unknown item") -> None:
    operator.execute(
        "UPDATE listing_state SET state = 'parked', lane = 0, park_reason = $2, parked_at = '2026-11-23T10:00:00Z',"
        " park_retry_at = now() + interval '1 hour' WHERE listing_id = $1",
        listing,
        reason,
    )
    wait(operator, listing, "parked")


def wait(operator: Operator, listing: int, reason: str) -> None:
    operator.execute(
        "INSERT INTO listing_wait SELECT tenant_id, listing_id, store_id, $2, now() + interval '1 hour'"
        " FROM listing_state WHERE listing_id = $1",
        listing,
        reason,
    )


def fail(operator: Operator, listing: int, attempts: int = 3, reason: str = "backoff") -> None:
    operator.execute(
        "UPDATE listing_state SET state = 'waiting', lane = 0, attempts = $2, failing_since = '2026-11-23T11:00:00Z',"
        " last_outcome = 'Unavailable', last_message = 'Connection refused' WHERE listing_id = $1",
        listing,
        attempts,
    )
    wait(operator, listing, reason)


def state(operator: Operator, listing: int, *names: str) -> tuple[Any, ...]:
    [row] = operator.rows("SELECT * FROM listing_state WHERE listing_id = $1", listing)
    return tuple(row[name] for name in names)


def waits(operator: Operator) -> list[tuple[int, str]]:
    rows = operator.rows("SELECT listing_id, reason FROM listing_wait ORDER BY listing_id")
    return [(row["listing_id"], row["reason"]) for row in rows]


# --- list ---


def test_what_cannot_be_delivered_is_listed_in_plain_words(stocked: Operator) -> None:
    park(stocked, 2)
    fail(stocked, 1)
    stocked.done("store", "pause", "Main", "--reason", "Token dead")

    result = stocked("failures", "list")

    assert (result.exit, result.err) == (0, FIX)
    assert cells(result.out)[1:] == [
        "store paused | Main | - | - | Token dead | - | -",
        'parked | Main | B | {"blibli_sku": "TOQ-1-1-2"} | Unknown item | 2026-11-23 10:00:00Z | 0',
        'keeps failing | Main | A | {"blibli_sku": "TOQ-1-1-1"} | Connection refused | 2026-11-23 11:00:00Z | 3',
    ]
    assert stocked.json("failures", "list")[1] == {
        "what": "parked",
        "listing_id": 2,
        "store": "Main",
        "sku": "B",
        "remote_variant": '{"blibli_sku": "TOQ-1-1-2"}',
        "state": "parked",
        "attempts": 0,
        "why": "Unknown item",
        "since": "2026-11-23T10:00:00Z",
    }


def test_no_more_listings_are_shown_than_wanted(stocked: Operator) -> None:
    park(stocked, 1)
    park(stocked, 2)

    result = stocked("failures", "list", "--limit", "1", "--json")

    assert len(result.out.split('"listing_id"')) == 2
    assert result.err == "There are more than 1 listings; see more with --limit\n" + FIX


def test_a_listing_that_has_failed_once_or_twice_is_no_failure(stocked: Operator) -> None:
    fail(stocked, 1, attempts=2)

    result = stocked("failures", "list")

    assert (result.out, result.err) == ("", "None.\n")


def test_failures_of_other_stores_are_not_of_a_store(stocked: Operator) -> None:
    park(stocked, 1)
    stocked.work(lambda world: world.store("Other"))

    assert stocked.json("failures", "list", "--store", "Other") == []
    assert len(stocked.json("failures", "list", "--store", "Main")) == 1


# --- retry ---


def test_parked_listings_are_tried_again(stocked: Operator) -> None:
    park(stocked, 1)
    park(stocked, 2)
    stocked.execute("UPDATE listing_state SET due_for = 'confirm' WHERE listing_id = 1")

    result = stocked("failures", "retry", "--all")

    assert (result.exit, result.out, result.err) == (0, "Trying 2 listings again\n", "")
    names = ("state", "lane", "due_for", "park_reason", "park_retry_at")
    assert state(stocked, 1, *names) == ("due", 6, "push", None, None)
    assert state(stocked, 2, *names) == ("due", 6, "push", None, None)
    assert state(stocked, 1, "due_since") != (None,)
    assert waits(stocked) == []
    assert stocked.audit()[-1] == ("failures.retry", "tenant:1", {"listings": 2})


def test_a_listing_that_waits_after_a_failure_is_tried_at_once_and_its_attempts_stay(stocked: Operator) -> None:
    fail(stocked, 1, attempts=5)
    stocked.execute("UPDATE listing_state SET due_for = 'reconcile' WHERE listing_id = 1")

    assert stocked.done("failures", "retry", "--store", "Main") == "Trying 1 listing again\n"
    assert state(stocked, 1, "state", "lane", "attempts", "due_for") == ("due", 6, 5, "reconcile")
    assert waits(stocked) == []
    assert stocked.audit()[-1] == ("failures.retry", "store:1", {"listings": 1})


def test_a_listing_that_waits_for_something_else_keeps_waiting(stocked: Operator) -> None:
    fail(stocked, 1, reason="deferred")
    before = len(stocked.audit())

    said = stocked.done("failures", "retry", "--all")

    assert said == "Nothing to try again: no listing is parked or waits after a failure\n"
    assert waits(stocked) == [(1, "deferred")]
    assert len(stocked.audit()) == before


def test_only_the_named_skus_are_tried_again(stocked: Operator) -> None:
    park(stocked, 1)
    park(stocked, 2)

    assert stocked.done("failures", "retry", "--sku", "B") == "Trying 1 listing again\n"
    assert state(stocked, 1, "state") == ("parked",)
    assert stocked.audit()[-1] == ("failures.retry", "tenant:1", {"listings": 1, "skus": ["B"]})
    assert stocked.refused("failures", "retry", "--sku", "Z") == "lumbung: There is no SKU 'Z' in the catalogue\n"


def test_many_are_tried_again_in_chunks(stocked: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_CHUNK_ROWS_MAX", "1")
    park(stocked, 1)
    fail(stocked, 2)

    assert stocked.done("failures", "retry", "--all") == "Trying 2 listings again\n"
    assert [action for action, _, _ in stocked.audit()].count("failures.retry") == 2


def test_a_store_that_nothing_is_sent_to_is_named(stocked: Operator) -> None:
    park(stocked, 1)
    stocked.done("store", "pause", "Main", "--reason", "Token dead")

    result = stocked("failures", "retry", "--all")

    assert result.out == "Trying 1 listing again\n"
    assert result.err == "Store 'Main' is paused (Token dead): `lumbung store resume 1`\n"


def test_a_removed_listing_is_not_tried_again(stocked: Operator) -> None:
    park(stocked, 1)
    stocked.done("listing", "remove", "--id", "1")

    assert stocked.done("failures", "retry", "--all").startswith("Nothing to try again")


@pytest.mark.parametrize("words", [[], ["--all", "--sku", "A"]])
def test_it_must_be_said_which(stocked: Operator, words: list[str]) -> None:
    expected = "lumbung: Say which: --store, --sku (once or more), or --all\n"
    assert stocked.refused("failures", "retry", *words) == expected
