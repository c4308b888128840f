"""A picture of a run, as SVG: how far each figure is beyond what it must reach, and where its aim is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from lumbung.bench.figure import Figure
from lumbung.bench.report import number

NAMES_WIDTH, BARS_WIDTH, NUMBERS_WIDTH = 420, 360, 130
ROW_HEIGHT, TOP = 24, 34
TIMES_MAX = 4.0  # what is further beyond its pass is cut off there
COLOURS = {"aim": "#2e7d4f", "pass": "#5b8db8", "FAIL": "#c0504d"}


def svg(figures: Sequence[Figure]) -> str:
    """A bar for each figure that must reach something: 1 is its pass, whether it must be above or below."""
    judged = [figure for figure in figures if figure.target.passed is not None]
    return "\n".join(_lines(judged)) + "\n"


def _lines(figures: Sequence[Figure]) -> Iterator[str]:
    width, height = NAMES_WIDTH + BARS_WIDTH + NUMBERS_WIDTH, TOP + ROW_HEIGHT * len(figures) + 10
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="12">'
    )
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    for row, figure in enumerate(figures):
        yield from _bar(figure, TOP + row * ROW_HEIGHT)
    at = NAMES_WIDTH + _length(1.0)
    yield _upright(at, TOP - 8, height - 8, 'stroke="#333333" stroke-dasharray="4 3"')
    yield f'<text x="{at:.1f}" y="{TOP - 14}" text-anchor="middle" fill="#333333">pass</text>'
    yield "</svg>"


def _bar(figure: Figure, top: int) -> Iterator[str]:
    colour, middle = COLOURS[figure.verdict], top + ROW_HEIGHT / 2
    yield f'<text x="{NAMES_WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(figure.name)}</text>'
    length = _length(times(figure, figure.middle))
    yield f'<rect x="{NAMES_WIDTH}" y="{top + 4}" width="{length:.1f}" height="{ROW_HEIGHT - 8}" fill="{colour}"/>'
    if figure.target.aim is not None:
        at = NAMES_WIDTH + _length(times(figure, figure.target.aim))
        yield _upright(at, top + 1, top + ROW_HEIGHT - 1, 'stroke="#d08a00" stroke-width="3"')
    told = f"{number(figure.middle)} {figure.unit}".strip()
    yield f'<text x="{NAMES_WIDTH + BARS_WIDTH + 8}" y="{middle + 4}" fill="#333333">{escape(told)}</text>'


def _upright(x: float, y1: float, y2: float, style: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y1}" x2="{x:.1f}" y2="{y2}" {style}/>'


def times(figure: Figure, value: float) -> float:
    """How many times as good as its pass a value is."""
    target = figure.target
    assert target.passed is not None
    return target.passed / value if target.at_most else value / target.passed


def _length(share: float) -> float:
    return BARS_WIDTH * min(share, TIMES_MAX) / TIMES_MAX
