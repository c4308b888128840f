"""`lumbung bench` in small: all that it starts works together, and its figures are of what was asked for. What it times
is its own to print, and no test's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lumbung.bench import report
from lumbung.bench.accept import OF_ECHO
from lumbung.bench.figure import Figure
from lumbung.cli import bench
from lumbung.cli.bench import Plan, What

SMALL = Plan((), seconds=0.5, rounds=1, records=2000, quick=True)
NAMES = {
    What.ACCEPT: ["A/E", "A/A*", "accept at half that rate, p99", "memory of the API process under load"],
    What.PUSH: ["P/H", "P/P*", "push, 50 listings a call"],
    What.BOTH: ["accept alone", "push beside accept", "A'/A + P'/P"],
    What.LATENCY: ["idle hub, POST to the marketplace's receipt, p50"],
    What.HISTORY: ["history, 2,000 records over a year, slowest kind of page, p99"],
    What.SCALE: ["4 workers / 1", "import of 10,000 listings", "10,000 due: memory of a worker"],
}


@pytest.mark.parametrize("part", bench.PARTS)
def test_each_part_measures_what_it_says(part: What) -> None:
    about, found = bench.run(replace(SMALL, parts=(part,)))
    figures = {figure.name: figure for figure in found[part.value]}
    assert [name for name in NAMES[part] if name not in figures] == []
    assert all(value > 0 for figure in figures.values() for value in figure.values)
    assert {about.server[name] for name in ("fsync", "synchronous_commit", "full_page_writes")} == {"on"}


def test_every_part_can_be_asked_for() -> None:
    assert {*bench.PARTS, What.ALL} == set(What) == {*NAMES, What.ALL}


def test_figures_are_written_where_they_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = report.About("lumbung bench", "2 cores", "2026-12-01", "wrk", 10.0, 3, {"fsync": "on"})
    figure = Figure("A/E", "", (0.3, 0.4, 0.5), OF_ECHO)
    monkeypatch.setattr(bench, "run", lambda plan: (about, {"accept": [figure]}))

    bench.bench(What.ACCEPT, json_file=tmp_path / "found.json", plot_file=tmp_path / "found.svg")

    [row] = json.loads((tmp_path / "found.json").read_text())["figures"]
    assert (row["name"], row["min"], row["median"], row["max"]) == ("A/E", 0.3, 0.4, 0.5)
    assert (row["values"], row["pass"], row["aim"], row["verdict"]) == ([0.3, 0.4, 0.5], 0.30, 0.50, "pass")
    assert "A/E" in (tmp_path / "found.svg").read_text()
    assert "| A/E | 0.40 | 0.30 | 0.50 |  | 0.30 | 0.50 | pass |" in capsys.readouterr().out
