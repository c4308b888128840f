from __future__ import annotations

from typing import Any

import pytest

from .conftest import Operator

WARNING = "Units that were sold since, and that the merchant has not reported yet, are put up again"
NOTHING = "Nothing to tell again: no listing of a live store was told a figure and is at rest\n"


def deliver(operator: Operator) -> None:
    operator.execute(
        "UPDATE listing_state SET state = 'idle', lane = 0, due_since = NULL, version_delivered = version_due,"
        " version_settled = version_due, quantity_delivered = quantity_due"
    )


def states(operator: Operator) -> list[tuple[Any, ...]]:
    rows = operator.rows("SELECT state, lane, due_for, due_since FROM listing_state ORDER BY listing_id")
    return [(row["state"], row["lane"], row["due_for"], row["due_since"] is not None) for row in rows]


AGAIN, IDLE = ("due", 3, "push", True), ("idle", 0, "push", False)


def test_what_was_told_last_is_told_again(stocked: Operator) -> None:
    deliver(stocked)

    result = stocked("resync", "--store", "Main", "--yes")

    assert (result.exit, result.out, result.err) == (0, "Telling 2 listings again\n", "")
    assert states(stocked) == [AGAIN, AGAIN]
    assert stocked.audit()[-1] == ("resync", "store:1", {"listings": 2, "due_for": "push"})


def test_the_number_is_told_beforehand(stocked: Operator) -> None:
    deliver(stocked)

    expected = f"lumbung: 2 listings would be told again: say --yes. {WARNING}\n"
    assert stocked.refused("resync", "--all") == expected


def test_the_help_warns(operator: Operator) -> None:
    assert "not reported yet, are put up again" in " ".join(operator.done("resync", "--help").split())


def test_only_the_named_skus_are_told(stocked: Operator) -> None:
    deliver(stocked)

    assert stocked.done("resync", "--sku", "B", "--yes") == "Telling 1 listing again\n"
    assert states(stocked) == [IDLE, AGAIN]
    assert stocked.audit()[-1] == ("resync", "tenant:1", {"listings": 1, "due_for": "push", "skus": ["B"]})


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE listing_state SET state = 'due', lane = 1",
        "UPDATE listing_state SET state = 'parked', park_reason = 'why'",
        "UPDATE listing_state SET state = 'waiting'",
        "UPDATE listing_state SET version_delivered = 0",  # cleared: nothing is to be shown
        "UPDATE listing SET retired_at = now()",
    ],
)
def test_what_is_not_at_rest_with_a_figure_is_left_alone(stocked: Operator, change: str) -> None:
    deliver(stocked)
    stocked.execute(change)
    before = stocked.contents()

    assert stocked.done("resync", "--all", "--yes") == NOTHING
    assert stocked.contents() == before


def test_stores_that_are_not_live_are_left_out(stocked: Operator) -> None:
    deliver(stocked)
    stocked.done("store", "observe", "Main")

    why = "Store 'Main' is observed, nothing is sent to it: `lumbung store live 1`\n"
    result = stocked("resync", "--all", "--yes")
    assert (result.out, result.err) == (NOTHING, f"Left out. {why}")
    assert stocked.refused("resync", "--store", "Main", "--yes") == f"lumbung: {why}"


def test_many_are_told_in_chunks(stocked: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_CHUNK_ROWS_MAX", "1")
    deliver(stocked)

    assert stocked.done("resync", "--all", "--yes") == "Telling 2 listings again\n"
    assert [action for action, _, _ in stocked.audit()].count("resync") == 2


def test_it_must_be_said_which(stocked: Operator) -> None:
    assert stocked.refused("resync") == "lumbung: Say which: --store, --sku (once or more), or --all\n"
