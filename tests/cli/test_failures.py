from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from .conftest import Operator, cells

FIX = "When the cause is mended: `lumbung failures retry --all`\n"
PAUSED = "Store 'Main' is paused (Token dead): `lumbung store resume 1`"
RUNS = (
    "INSERT INTO worker (name, started_at, renewed_at, expires_at, lifetime_seconds)"
    " SELECT 'w', now(), now(), now() + interval '99 s', 99"
)
TRIED = "UPDATE listing_state SET attempts = 3, lane = 4 WHERE listing_id = 1"


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

    assert (result.exit, result.err) == (0, f"{PAUSED} when that is mended\n{FIX}")
    assert cells(result.out)[1:] == [
        "store paused | Main | - | - | Token dead | - | -",
        'parked | Main | B | {"blibli_sku": "TOQ-1-1-2"} | Unknown item | 2026-11-23 10:00:00Z | -',
        'keeps failing | Main | A | {"blibli_sku": "TOQ-1-1-1"} | Connection refused | 2026-11-23 11:00:00Z | 3',
    ]
    assert stocked.json("failures", "list")[1] == {
        "what": "parked",
        "listing_id": 2,
        "store": "Main",
        "sku": "B",
        "remote_variant": '{"blibli_sku": "TOQ-1-1-2"}',
        "state": "parked",
        "attempts": None,
        "why": "Unknown item",
        "since": "2026-11-23T10:00:00Z",
        "waits_for": None,
        "waits_until": None,
        "quantity_due": 8,
        "quantity_delivered": None,
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


@pytest.mark.parametrize("words", [(), ("--store", "Main"), ("--tenant", "Toko"), ("--store", "Main", "--tenant", "1")])
def test_the_commands_that_the_list_recommends_work_as_they_are_typed(
    stocked: Operator, words: tuple[str, ...]
) -> None:
    park(stocked, 1)
    stocked.done("store", "pause", "Main", "--reason", "Token dead")

    resume, again = re.findall(r"`lumbung (.*?)`", stocked("failures", "list", *words).err)

    assert stocked.done(*shlex.split(resume)) == "Store 'Main' is live again\n"
    assert stocked.done(*shlex.split(again)) == "Trying 1 listing again\n"


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


@pytest.mark.parametrize("reason", ["deferred", "floor"])
def test_a_listing_that_the_marketplace_has_locked_is_listed_and_can_be_tried_at_once(
    stocked: Operator, reason: str
) -> None:
    fail(stocked, 1, attempts=0, reason=reason)
    stocked.execute("UPDATE listing_state SET quantity_delivered = 25, failing_since = NULL WHERE listing_id = 1")

    [row] = stocked.json("failures", "list")

    assert row["what"].startswith("waits until 20")
    due = stocked.rows("SELECT quantity_due FROM listing_state WHERE listing_id = 1")[0]["quantity_due"]
    reserved = f"The marketplace has reserved more: shows 25, should show {due}"
    assert row["why"] == {"deferred": "Connection refused", "floor": reserved}[reason]
    assert stocked.done("failures", "retry", "--sku", "A") == "Trying 1 listing again\n"
    assert state(stocked, 1, "state", "lane", "due_for") == ("due", 6, "push")
    assert waits(stocked) == []


@pytest.mark.parametrize("reason", ["submitted", "confirmation"])
def test_a_listing_that_waits_for_something_else_keeps_waiting(stocked: Operator, reason: str) -> None:
    fail(stocked, 1, attempts=0, reason=reason)
    before = len(stocked.audit())

    said = stocked.done("failures", "retry", "--all")

    assert said == "Nothing to try again: no listing is parked or waits\n"
    assert waits(stocked) == [(1, reason)]
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

    assert (result.exit, result.out) == (1, "")
    assert result.err == f"1 listing of store 'Main' is due again, but nothing is sent\n{PAUSED}\n"
    assert state(stocked, 1, "state") == ("due",)


def test_a_paused_store_is_told_of_though_nothing_of_it_is_parked(stocked: Operator) -> None:
    stocked.execute(TRIED)
    stocked.done("store", "pause", "Main", "--reason", "Token dead")

    for words in (["--all"], ["--store", "Main"], ["--sku", "A"]):
        result = stocked("failures", "retry", *words)
        assert (result.exit, result.out, result.err) == (1, "", PAUSED + "\n")


def test_an_observed_store_is_told_of_only_when_something_of_it_is_meant(stocked: Operator) -> None:
    stocked.execute("UPDATE store SET mode = 'observe'")

    result = stocked("failures", "retry", "--sku", "A")

    observed = "Store 'Main' is observed, nothing is sent to it: `lumbung store live 1`\n"
    assert (result.exit, result.out, result.err) == (1, "", observed)
    stocked.execute("UPDATE listing_state SET state = 'idle', lane = 0")
    assert stocked.done("failures", "retry", "--all").startswith("Nothing to try again")


def test_a_listing_that_is_being_tried_now_needs_no_retry(stocked: Operator) -> None:
    stocked.execute(TRIED)
    stocked.execute(RUNS)

    result = stocked("failures", "retry", "--all")

    assert [row["what"] for row in stocked.json("failures", "list")] == ["keeps failing"]
    assert (result.exit, result.err) == (0, "")
    assert result.out == "Nothing to hurry: 1 listing that failed before is being tried now\n"


def test_a_listing_that_is_due_is_not_said_to_be_tried_when_no_worker_runs(stocked: Operator) -> None:
    stocked.execute(TRIED)

    result = stocked("failures", "retry", "--sku", "A")

    assert (result.exit, result.out) == (1, "")
    assert result.err == "1 listing is due, but no worker runs: start one with `lumbung serve`\n"


def test_a_removed_listing_is_not_tried_again(stocked: Operator) -> None:
    park(stocked, 1)
    stocked.done("listing", "remove", "--id", "1")

    assert stocked.done("failures", "retry", "--all").startswith("Nothing to try again")


def test_it_must_be_said_which(stocked: Operator) -> None:
    expected = "lumbung: Say which: --store, --sku (once or more), or --all\n"
    assert stocked.refused("failures", "retry") == expected


@pytest.mark.parametrize("words", [["--sku", "A"], ["--store", "Main"]])
def test_all_and_some_are_not_said_together(stocked: Operator, words: list[str]) -> None:
    expected = "lumbung: --all goes neither with --store nor with --sku: give only one of them\n"
    assert stocked.refused("failures", "retry", "--all", *words) == expected
