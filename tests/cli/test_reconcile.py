"""The command marks, and a worker reads: the tests play the worker whenever the command pauses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from lumbung.cli import reconcile

from .conftest import Operator, cells
from .test_resync import deliver, states

READ = (
    "UPDATE listing_state SET state = 'idle', lane = 0, due_for = 'push', due_since = NULL, quantity_observed = {},"
    " observed_at = now(), last_outcome = 'Observed' WHERE listing_id = {} AND due_for IN ('reconcile', 'observe')"
)
CORRECT = (
    "UPDATE listing_state SET due_for = 'push', lane = 1, quantity_observed = {}, observed_at = now()"
    " WHERE listing_id = {} AND due_for = 'reconcile'"
)
UNREADABLE = (
    "UPDATE listing_state SET state = 'idle', lane = 0, due_for = 'push', last_outcome = 'Rejected',"
    " last_message = 'Unknown item' WHERE listing_id = {}"
)
A, B = 7, 8


class Worker:
    """Does one turn of statements at each pause of the command; then nothing any more."""

    def __init__(self, url: str):
        self.url = url
        self.turns: list[tuple[str, ...]] = []
        self.pauses = 0

    async def pause(self, seconds: float) -> None:
        self.pauses += 1
        for statement in self.turns.pop(0) if self.turns else ():
            if statement == "ctrl-C":
                raise asyncio.CancelledError
            connection = await asyncpg.connect(self.url)
            await connection.execute(statement)
            await connection.close()


RUNS = (
    "INSERT INTO worker (name, started_at, renewed_at, expires_at, lifetime_seconds)"
    " SELECT 'w', now(), now(), now() + interval '99 s', 99"
)
GONE = "DELETE FROM worker"
NO_WORKER = "No worker runs; start one with `lumbung serve` (waiting 60 s for it)\n"


@pytest.fixture
def worker(stocked: Operator, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker is registered, and both listings of the stocked shop are delivered."""
    deliver(stocked)
    stocked.execute(RUNS)
    played = Worker(stocked.url)
    monkeypatch.setattr(reconcile, "pause", played.pause)
    return played


def test_what_oversells_is_corrected_and_what_was_sold_is_reported(stocked: Operator, worker: Worker) -> None:
    worker.turns = [(CORRECT.format(A + 3, 1),), (READ.format(B - 1, 2),)]

    result = stocked("reconcile", "--store", "Main")

    assert (result.exit, result.err) == (0, "")
    assert cells(result.out)[1:] == [
        'above | Main | A | {"blibli_sku": "TOQ-1-1-1"} | 7 | 10 | It would oversell',
        'below | Main | B | {"blibli_sku": "TOQ-1-1-2"} | 8 | 7 | Units were probably sold since',
        "0 equal, 1 above (oversells, corrected), 1 below (probably sold), 0 unreadable, 0 skipped",
    ]
    assert worker.pauses == 2
    assert stocked.audit()[-1] == ("reconcile", "store:1", {"listings": 2, "due_for": "reconcile"})
    assert states(stocked)[1] == ("idle", 0, "push", False)


def test_what_is_as_it_should_be_is_only_counted(stocked: Operator, worker: Worker) -> None:
    worker.turns = [(READ.format(A, 1), READ.format(B, 2))]

    said = stocked.done("reconcile")

    assert said == "2 equal, 0 above (oversells, corrected), 0 below (probably sold), 0 unreadable, 0 skipped\n"


def test_a_dry_run_only_observes(stocked: Operator, worker: Worker) -> None:
    worker.turns = [(CORRECT.format(99, 1), READ.format(99, 1), UNREADABLE.format(2))]

    done = stocked("reconcile", "--dry-run", "--json")

    assert done.exit == 1
    assert done.err == (
        "1 listing would oversell, and this dry run has corrected nothing: run it without --dry-run\n"
        "1 listing could not be read: the column WHY has the marketplace's words\n"
    )
    result = json.loads(done.out)
    counts = {"equal": 0, "above": 1, "below": 0, "unreadable": 1, "skipped": 0, "unread": 0}
    assert result["counts"] == counts
    assert result["listings"] == [
        {
            "found": "above",
            "listing_id": 1,
            "store": "Main",
            "sku": "A",
            "remote_variant": '{"blibli_sku": "TOQ-1-1-1"}',
            "quantity_due": 7,
            "quantity_observed": 99,
            "why": "It would oversell",
        },
        {
            "found": "unreadable",
            "listing_id": 2,
            "store": "Main",
            "sku": "B",
            "remote_variant": '{"blibli_sku": "TOQ-1-1-2"}',
            "quantity_due": 8,
            "quantity_observed": None,
            "why": "Unknown item",
        },
    ]
    assert stocked.audit()[-1] == ("reconcile", "tenant:1", {"listings": 2, "due_for": "observe"})


def test_an_old_reading_is_not_taken_for_a_new_one(stocked: Operator, worker: Worker) -> None:
    stocked.execute("UPDATE listing_state SET quantity_observed = 1, observed_at = now() - interval '1 s'")
    worker.turns = [(UNREADABLE.format(1), READ.format(B, 2))]

    result = stocked("reconcile", "--json")
    assert (result.exit, json.loads(result.out)["counts"]["unreadable"]) == (1, 1)


def test_a_listing_that_gets_a_newer_update_meanwhile_is_skipped(stocked: Operator, worker: Worker) -> None:
    newer = "UPDATE listing_state SET version_due = version_due + 100, due_for = 'push', lane = 1 WHERE listing_id = 1"
    worker.turns = [(newer, READ.format(B, 2))]

    result = stocked("reconcile", "--json")
    [row, _] = json.loads(result.out)["listings"]
    assert (row["found"], row["why"]) == ("skipped", "A newer update came meanwhile")
    assert (result.exit, result.err) == (1, "1 listing got a newer update: reconcile again when it is delivered\n")


def test_what_is_not_at_rest_is_skipped(stocked: Operator, worker: Worker) -> None:
    stocked.execute("UPDATE listing_state SET state = 'parked', park_reason = 'why' WHERE listing_id = 1")
    worker.turns = [(READ.format(B, 2),)]

    result = stocked("reconcile")

    assert result.out == "1 equal, 0 above (oversells, corrected), 0 below (probably sold), 0 unreadable, 1 skipped\n"
    assert result.exit == 1
    assert result.err == (
        "Skipped: 0 due or waiting, 1 parked, 0 without a figure\n"
        "`lumbung failures list` shows why they are parked, `lumbung failures retry --all` tries them again\n"
    )


def test_what_is_still_to_be_told_something_is_skipped_and_not_taken_for_read(
    stocked: Operator, worker: Worker
) -> None:
    stocked.execute("UPDATE listing_state SET state = 'due', lane = 1 WHERE listing_id = 1")
    worker.turns = [(READ.format(B, 2),)]

    result = stocked("reconcile")

    assert result.exit == 1
    assert result.err == (
        "Skipped: 1 due or waiting, 0 parked, 0 without a figure\n"
        "What is due or waits is told its newest figure first: reconcile again when that is done\n"
    )


def test_a_listing_without_a_figure_has_nothing_to_compare_and_is_no_failure(stocked: Operator, worker: Worker) -> None:
    stocked.execute("UPDATE listing_state SET version_delivered = 0, version_settled = 0 WHERE listing_id = 1")
    worker.turns = [(READ.format(B, 2),)]

    result = stocked("reconcile")

    assert (result.exit, result.err) == (0, "Skipped: 0 due or waiting, 0 parked, 1 without a figure\n")


def test_what_shows_less_is_told_again_when_that_is_wanted(stocked: Operator, worker: Worker) -> None:
    worker.turns = [(READ.format(A, 1), READ.format(B - 1, 2))]

    said = stocked.done("reconcile", "--correct-down")

    assert cells(said)[-1] == (
        "1 equal, 0 above (oversells, corrected), 1 below (probably sold, 1 told again), 0 unreadable, 0 skipped"
    )
    assert states(stocked) == [("idle", 0, "push", False), ("due", 3, "push", True)]
    assert stocked.audit()[-1] == ("reconcile.correct_down", "tenant:1", {"listings": [2]})


def test_it_says_at_once_that_no_worker_runs_tells_how_far_it_is_and_fails_in_the_end(
    stocked: Operator, worker: Worker
) -> None:
    stocked.execute(GONE)
    worker.turns = [(READ.format(A, 1),)]

    result = stocked("reconcile")

    assert worker.pauses == 121
    assert result.exit == 1
    assert cells(result.out)[-1] == (
        "1 equal, 0 above (oversells, corrected), 0 below (probably sold), 0 unreadable, 0 skipped, 1 not read yet"
    )
    assert result.err == (
        NO_WORKER
        + "1 of 2 listings read so far\n" * 12
        + "1 listing not read yet: no worker runs; start one with `lumbung serve`\n"
    )


def test_a_dry_run_that_read_everything_and_found_oversells_succeeds_and_says_that_it_corrected_nothing(
    stocked: Operator, worker: Worker
) -> None:
    worker.turns = [(READ.format(A + 3, 1), READ.format(B, 2))]

    result = stocked("reconcile", "--dry-run")

    assert result.exit == 0
    assert result.err == "1 listing would oversell, and this dry run has corrected nothing: run it without --dry-run\n"
    assert states(stocked) == [("idle", 0, "push", False)] * 2


def test_the_help_tells_the_exit_statuses_and_that_a_worker_is_needed(operator: Operator) -> None:
    said = " ".join(operator.done("reconcile", "--help").split())
    assert "Exit status 0: everything was read" in said
    assert "1: something was not read" in said
    assert "It is a worker that reads (`lumbung serve`)" in said


LATER = ". They stay due: they are read when that is mended; reconcile again for the result"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("SELECT 1", "workers go on as fast as the marketplace allows; reconcile again for the result"),
        (
            "UPDATE store_lease SET trouble = 'Connection refused', trouble_since = now()",
            f"store 'Main': Connection refused{LATER}",
        ),
        (
            "UPDATE store SET mode = 'paused', mode_before_pause = 'live', pause_reason = 'Token dead'",
            f"Store 'Main' is paused (Token dead): `lumbung store resume 1`{LATER}",
        ),
    ],
)
def test_it_says_what_keeps_a_worker_that_runs(stocked: Operator, worker: Worker, change: str, why: str) -> None:
    worker.turns = [(change,), ("ctrl-C",)]

    result = stocked("reconcile")

    interrupted = "Interrupted: workers read the rest all the same\n"
    assert (result.exit, result.err) == (1, f"{interrupted}2 listings not read yet: {why}\n")


def test_it_need_not_be_waited_for_and_says_what_was_asked_not_what_was_done(stocked: Operator, worker: Worker) -> None:
    said = "Workers were asked to read 2 listings back; `lumbung failures list` shows trouble\n"
    assert stocked.done("reconcile", "--no-wait") == said
    assert worker.pauses == 0
    assert states(stocked) == [("due", 3, "reconcile", True)] * 2


def test_what_was_asked_without_waiting_is_json_too(stocked: Operator, worker: Worker) -> None:
    stocked.execute("UPDATE listing_state SET state = 'parked', park_reason = 'why' WHERE listing_id = 1")

    result = stocked("reconcile", "--no-wait", "--json")

    assert (result.exit, json.loads(result.out)) == (1, {"asked": 1, "skipped": 1})


def test_who_does_not_wait_is_told_too_that_no_worker_runs(stocked: Operator, worker: Worker) -> None:
    stocked.execute(GONE)

    result = stocked("reconcile", "--no-wait")

    assert (result.exit, result.err) == (0, "No worker runs; start one with `lumbung serve`\n")


def test_a_dry_run_whose_result_nobody_waits_for_is_refused(stocked: Operator, worker: Worker) -> None:
    expected = "lumbung: --dry-run does not go with --no-wait: nobody would be told what was read\n"
    assert stocked.refused("reconcile", "--dry-run", "--no-wait") == expected


LEFT = "UPDATE listing_state SET state = 'due', lane = 3, due_for = '{}', due_since = now() WHERE listing_id = 1"
WAITS = "UPDATE listing_state SET state = 'waiting', lane = 0, due_for = 'observe' WHERE listing_id = 1"


@pytest.mark.parametrize("words", [(), ("--no-wait",), ("--store", "Main")])
@pytest.mark.parametrize("left", [LEFT.format("observe"), WAITS])
def test_what_an_unfinished_look_has_left_is_corrected_too(
    stocked: Operator, worker: Worker, left: str, words: tuple[str, ...]
) -> None:
    stocked.execute(left)
    before = states(stocked)[0]
    worker.turns = [("ctrl-C",)]

    stocked("reconcile", *words)

    assert states(stocked) == [(*before[:2], "reconcile", True), ("due", 3, "reconcile", True)]


def test_what_is_to_be_corrected_is_not_merely_looked_at_because_of_a_later_dry_run(
    stocked: Operator, worker: Worker
) -> None:
    stocked.execute(LEFT.format("reconcile"))
    worker.turns = [(CORRECT.format(A + 1, 1), READ.format(B, 2))]

    assert stocked.json("reconcile", "--dry-run")["counts"]["above"] == 1
    assert states(stocked)[0] == ("due", 1, "push", True)


def test_what_is_due_to_be_read_already_is_waited_for_and_told(stocked: Operator, worker: Worker) -> None:
    for due_for in ("observe", "reconcile"):
        stocked.execute(LEFT.format(due_for))
        worker.turns = [(), (READ.format(A, 1), READ.format(B, 2))]
        assert stocked.json("reconcile")["counts"] == {**dict.fromkeys(reconcile.KINDS, 0), "equal": 2}


def test_a_store_that_cannot_be_read_back_is_named(stocked: Operator, worker: Worker) -> None:
    stocked.work(lambda world: world.store("Old", "elvn"))
    stocked.done("store", "pause", "Main", "--reason", "Token dead")

    old = "Store 'Old' is on Elevenia, which cannot be read back\n"
    result = stocked("reconcile")
    assert result.exit == 1
    paused = "Store 'Main' is paused (Token dead): `lumbung store resume 1`"
    assert result.err == f"Left out. {paused}\nLeft out. {old}"
    assert stocked.refused("reconcile", "--store", "Old") == f"lumbung: {old}"
    assert stocked.refused("reconcile", "--store", "Main") == f"lumbung: {paused}\n"


@pytest.mark.parametrize("other", ["--dry-run", "--no-wait"])
def test_correcting_down_needs_a_reading_that_may_correct(stocked: Operator, worker: Worker, other: str) -> None:
    expected = "lumbung: --correct-down goes neither with --dry-run nor with --no-wait\n"
    assert stocked.refused("reconcile", "--correct-down", other) == expected


def rows_of(result: dict[str, Any]) -> list[str]:
    return [row["found"] for row in result["listings"]]


def test_many_are_read_in_chunks(stocked: Operator, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_CHUNK_ROWS_MAX", "1")
    worker.turns = [(READ.format(A, 1),), (READ.format(B, 2),)]

    assert rows_of(stocked.json("reconcile")) == ["equal", "equal"]
    assert [action for action, _, _ in stocked.audit()].count("reconcile") == 2
