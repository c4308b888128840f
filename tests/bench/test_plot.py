"""The picture of a run."""

from __future__ import annotations

from xml.etree import ElementTree

from lumbung.bench.figure import Figure, Target
from lumbung.bench.plot import BARS_WIDTH, TIMES_MAX, svg

ONE = BARS_WIDTH / TIMES_MAX


def _bars(text: str) -> list[tuple[float, str]]:
    """Widths and colours, without the background."""
    rects = ElementTree.fromstring(text).findall("{http://www.w3.org/2000/svg}rect")[1:]  # noqa: S314 (ours)
    return [(float(rect.attrib["width"]), rect.attrib["fill"]) for rect in rects]


def test_a_bar_is_as_long_as_its_figure_is_beyond_its_pass() -> None:
    figures = [
        Figure("A/E", "", (0.6,), Target(0.3, 0.5)),
        Figure("p99 & more", "ms", (160.0,), Target(80, 25, at_most=True)),
        Figure("far", "", (100.0,), Target(1, 2)),
        Figure("only told", "updates/s", (9.0,)),
    ]
    drawn = _bars(svg(figures))
    assert [width for width, _ in drawn] == [2 * ONE, 0.5 * ONE, BARS_WIDTH]
    assert len({colour for _, colour in drawn}) == 2
