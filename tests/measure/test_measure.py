"""The measurements run, in small: what they count is exact. What they time is theirs to print, and no test's."""

from __future__ import annotations

import re

import pytest

from tests.measure import fairness, snapshot, worker
from tests.measure.merchant import Merchant, Sent, remote_of
from tests.world import World


async def test_fairness_counts_each_update_once_for_each_store_of_its_merchant(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--listings", "300", "--rounds", "1", "--seconds", "1", "--updates-per-second", "20"]

    await fairness.measure(fairness.parser().parse_args(asked))

    printed = capsys.readouterr().out
    assert "300 listings are due in one store; 10 others" in printed
    [row] = [line for line in printed.splitlines() if line.startswith("│")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert [cells[0], cells[1], cells[4]] == ["1", "40", "40"]
    assert int(re.findall(r"(\d+) listings of the big store are still due", printed)[0]) < 300
