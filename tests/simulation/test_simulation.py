"""The engine in a simulated world: seeds by the thousand, and whether the auditor notices when a protection is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from tests.simulation import protections
from tests.simulation.scenario import Scenario, scenario
from tests.simulation.simulation import Simulation
from tests.simulation.trace import Broken

SEEDS = 5_000 if os.environ.get("CI") == "true" else 2_000
CHUNKS = 40
SEEDS_UNTIL_NOTICED = 400


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_invariant_breaks_whatever_goes_wrong(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        try:
            Simulation(scenario(seed)).run()
        except Exception as error:
            error.add_note(f"replay it with: .venv/bin/python -m tests.simulation --seed {seed} --verbose")
            raise


def test_a_seed_always_gives_the_same_trace() -> None:
    traces = [_digest(seed) for seed in range(20)]
    assert [_digest(seed) for seed in range(20)] == traces
    program = "from tests.simulation.test_simulation import _digest; print(*(_digest(seed) for seed in range(20)))"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    again = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert again.stdout.split() == traces


def _digest(seed: int) -> str:
    simulation = Simulation(scenario(seed))
    simulation.run()
    return sha256("\n".join(simulation.trace.lines()).encode()).hexdigest()


@pytest.mark.parametrize(
    ("take_off", "invariants"),
    [
        (protections.without_the_epoch_check, {2, 3, 6}),
        (protections.without_confirmation_after_doubt, {3}),
        (protections.without_the_busy_set, {4}),
        (protections.without_doubt_at_takeover, {3}),
        (protections.without_writing_new_tokens, {6, 7}),
        (protections.without_the_retry_of_parked_ones, {6}),
    ],
)
def test_a_missing_protection_is_noticed(
    monkeypatch: pytest.MonkeyPatch, take_off: Callable[[pytest.MonkeyPatch], None], invariants: set[int]
) -> None:
    take_off(monkeypatch)
    broken = next(filter(None, (_broken(harsh(seed)) for seed in range(SEEDS_UNTIL_NOTICED))), None)
    assert broken is not None, f"{SEEDS_UNTIL_NOTICED} seeds did not notice it"
    assert broken.number in invariants, broken


def _broken(scenario: Scenario) -> Broken | None:
    try:
        Simulation(scenario).run()
    except Broken as broken:
        return broken
    return None


def harsh(seed: int) -> Scenario:
    """Much of what is hard to survive."""
    return replace(
        scenario(seed),
        fair=False,
        clear=False,
        call_faults={"late": 0.2, "lost": 0.1},
        deeds=("kill", "freeze", "revoke", "ban", "expire"),
        deeds_every_seconds=3.0,
    )
