"""The measurements run, in small: what they count is exact. What they time is theirs to print, and no test's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from lumbung.sandbox.entries import Write
from tests.measure import fairness, snapshot, worker
from tests.measure.cpu import cpu_seconds
from tests.measure.merchant import Merchant, Sent
from tests.world import World


async def test_fairness_counts_each_update_once_for_each_store_of_its_merchant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["--listings", "300", "--rounds", "2", "--seconds", "1", "--updates-per-second", "20"]

    await fairness.measure(fairness.parser().parse_args(asked))

    printed = capsys.readouterr().out
    assert "300 listings are due in one store; 10 others" in printed
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if line[:1] == "│"]
    assert [(row[0], row[1], row[4]) for row in rows] == [("1", "40", "40"), ("2", "40", "40")]
    [left] = re.findall(r"(\d+) listings of the big store are still due", printed)
    assert 0 < int(left) <= 300
    assert "median of 2 rounds" in printed


async def test_the_snapshot_is_held_while_the_load_goes_on_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--listings", "24", "--seconds", "2", "--before", "1", "--warm", "1", "--turn", "1"]

    await snapshot.measure(snapshot.parser().parse_args(asked))

    printed = capsys.readouterr().out
    assert "24 listings in 6 stores" in printed
    assert re.findall(r"^ *\d+  (\w+) ", printed, re.MULTILINE) == ["before", "before", "held", "held"]
    assert "0 updates were refused" in printed
    assert "throughput with a snapshot held open for" in printed


async def test_memory_is_measured_without_answers_and_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    await worker.measure(worker.parser().parse_args(["due", "--listings", "300", "--seconds", "1"]))

    printed = capsys.readouterr().out
    assert "300 due listings, 1 s without an answer" in printed
    assert len(re.findall(r"^  \d+ writes/s: \d+ MB$", printed, re.MULTILINE)) == 4
    assert "300 due listings, 1 s with answers" in printed
    assert "worker memory with 300 due listings" in printed


def test_an_update_has_arrived_with_the_first_write_of_it_or_a_newer_one() -> None:
    merchant = _merchant()
    updates = [Sent(merchant, "sku1", 1, at=100.0), Sent(merchant, "sku1", 2, at=100.25)]
    writes = [_write(1, at=100.5, quantity=2), _write(2, at=101.0, quantity=2)]

    assert fairness.latencies(updates, writes) == [500.0, 250.0]


def test_latencies_are_not_known_before_every_update_has_arrived() -> None:
    merchant = _merchant()
    updates = [Sent(merchant, "sku1", 1, at=100.0), Sent(merchant, "sku1", 2, at=100.25)]

    assert fairness.latencies(updates, [_write(1, at=100.5, quantity=1)]) == []


def test_each_half_of_a_round_comes_first_as_often_as_the_other() -> None:
    assert [fairness.order_of(number) for number in range(4)] == [
        (False, True),
        (True, False),
        (False, True),
        (True, False),
    ]


def test_the_worse_of_accepting_and_delivering_is_judged_over_the_end_of_the_time() -> None:
    before = [_pair(100, (10_000, 20_000), (10_000, 20_000))]
    held = [*before, *before, _pair(100, (9_000, 19_000), (10_000, 20_000)), _pair(20, (1_800, 2_700), (2_000, 4_000))]

    told = snapshot.verdict(before, held)

    assert "before: 100 accepted/s (1.00), 200 recorded/s (1.00), 5.0 ms of CPU time for each (1.00);" in told
    assert (
        "at the end: 90 accepted/s (0.90), 181 recorded/s (0.90), 5.5 ms of CPU time for each (1.11);"
        " the other hub, at rest, took 0 ms a second of it, and this one 0 of the other's; worst turn 0.68"
    ) in told
    assert "for 320 s of load: 0.90 of that of a hub without; passed (0.85), aim of 0.95 missed" in told


def test_what_the_other_hub_takes_while_it_rests_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "CORES", 2)
    turn = replace(_turn(100, 9_000, 18_000), resting=20.0)
    assert snapshot.Pace.of([turn]).accepted == 100.0


def _merchant() -> Merchant:
    return Merchant(World.__new__(World), "PARTNER1", "secret", ("TOP-1",), ("sku1",))


def _write(n: int, *, at: float, quantity: int) -> Write:
    return Write(
        n=n,
        at=at,
        channel="blib",
        store="TOP-1",
        remote_variant="TOP-1-sku1",
        location="",
        sku="TOP-1-sku1",
        quantity=quantity,
        call=n,
    )


def _pair(seconds: float, held: tuple[int, int], free: tuple[int, int]) -> snapshot.Pair:
    return snapshot.Pair(*(_turn(seconds, *done) for done in (held, free)))


def _turn(seconds: float, accepted: int, recorded: int) -> snapshot.Turn:
    nothing = snapshot.Reading(0.0, 0.0, 0, 0, {})
    return snapshot.Turn(nothing, snapshot.Reading(seconds, seconds, accepted, recorded, {}), 0.0)


def test_the_cpu_time_of_processes_counts_that_of_their_children() -> None:
    before = cpu_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", "while __import__('time').process_time() < 0.3: pass"], check=True)
    assert cpu_seconds([os.getpid()]) - before >= 0.25  # it is counted in hundredths
    assert cpu_seconds([]) == 0.0
