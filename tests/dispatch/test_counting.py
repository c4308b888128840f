"""How often what is due and waits is counted."""

from __future__ import annotations

import pytest

from lumbung.dispatch.gauges import until_next
from lumbung.settings import Settings


@pytest.mark.parametrize(("took", "seconds"), [(0.0, 15.0), (0.25, 15.0), (0.5, 25.0), (2.0, 100.0), (9.0, 300.0)])
def test_counting_takes_a_small_part_of_the_time_however_long_one_count_takes(took: float, seconds: float) -> None:
    assert until_next(Settings(metrics_interval_seconds=15.0, scan_rest=50.0), took) == seconds
