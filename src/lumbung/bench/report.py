"""What a run tells people: a table, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lumbung.bench.figure import Figure

HEADINGS = ("measured", "median", "min", "max", "unit", "pass", "aim", "")


@dataclass(frozen=True, slots=True)
class About:
    """`server`: the settings of PostgreSQL that speed depends on; `generator`: of load, wrk or ours."""

    command: str
    machine: str
    day: str
    generator: str
    seconds: float
    rounds: int
    server: Mapping[str, str]


def markdown(about: About, groups: Mapping[str, Sequence[Figure]]) -> str:
    return "\n".join(_lines(about, groups)) + "\n"


def document(about: About, groups: Mapping[str, Sequence[Figure]]) -> dict[str, object]:
    return {
        "command": about.command,
        "machine": about.machine,
        "day": about.day,
        "generator": about.generator,
        "seconds": about.seconds,
        "rounds": about.rounds,
        "server": dict(about.server),
        "figures": [
            {
                "group": group,
                "name": figure.name,
                "unit": figure.unit,
                "values": list(figure.values),
                "min": figure.low,
                "median": figure.middle,
                "max": figure.high,
                "pass": figure.target.passed,
                "aim": figure.target.aim,
                "at_most": figure.target.at_most,
                "verdict": figure.verdict,
                "about": figure.about,
            }
            for group, figures in groups.items()
            for figure in figures
        ],
    }


def _lines(about: About, groups: Mapping[str, Sequence[Figure]]) -> Iterator[str]:
    yield f"`{about.command}`, {about.day}, {about.machine}."
    rounds = "1 round" if about.rounds == 1 else f"{about.rounds} rounds"
    yield f"{rounds} of {about.seconds:g} s, load by {about.generator}; PostgreSQL " + ", ".join(
        f"{name} {value}" for name, value in about.server.items()
    ).replace("server_version ", "")
    for group, figures in groups.items():
        yield ""
        yield f"**{group}**"
        yield ""
        yield f"| {' | '.join(HEADINGS)} |"
        yield "|---|---:|---:|---:|---|---:|---:|---|"
        for figure in figures:
            yield f"| {' | '.join(_cells(figure))} |"


def _cells(figure: Figure) -> list[str]:
    target = figure.target
    name = f"{figure.name} ({figure.about})" if figure.about else figure.name
    numbers = [number(value) for value in (figure.middle, figure.low, figure.high)]
    wanted = ["" if value is None else number(value) for value in (target.passed, target.aim)]
    return [name, *numbers, figure.unit, *wanted, figure.verdict]


def number(value: float) -> str:
    """Three digits that tell something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
