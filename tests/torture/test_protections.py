"""Each nemesis bites: with one protection taken off, the auditor complains; with all of them on, it does not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lumbung.cli.torture import ENV, Plan, Result, directory_for, run
from tests.torture import protections as off

ROOT = Path(__file__).parents[2]
SMALL = Plan(
    seconds=6,
    seed=1,
    names=(),
    tenants=1,
    skus=6,
    apis=1,
    workers=2,
    updates_per_second=60,
    writers=4,
    rest_seconds=6,
    env={**ENV, "PYTHONPATH": str(ROOT)},
)


@dataclass(frozen=True, slots=True)
class Scene:
    """`invariants`: any of these is then broken."""

    take_off: Callable[[], None]
    names: tuple[str, ...]
    invariants: frozenset[int]
    sizes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join((self.take_off.__name__, *self.names))


def scene(take_off: Callable[[], None], names: str, *invariants: int, **sizes: Any) -> Scene:
    return Scene(take_off, tuple(names.split()), frozenset(invariants), sizes)


SCENES = (
    scene(off.without_the_variant_lock, "", 2, 3, apis=2, skus=2, updates_per_second=0, seconds=5),
    scene(off.without_minding_lost_leases, "freeze", 2, 4, 5, calls_per_second=5, seconds=10),
    scene(off.without_confirmation_after_doubt, "late", 3),
    scene(off.without_telling_lost_from_unsent, "late", 3),
    scene(off.without_doubt_at_takeover, "kill-before-send", 3, quiesce_seconds=4, updates_per_second=24),
    scene(off.without_taking_over, "kill", 6),
    scene(off.without_taking_over, "kill-after-claim", 6),
    scene(off.without_taking_over, "kill-in-answer", 6),
    scene(off.without_taking_over, "kill-before-record", 6),
    scene(off.without_counting_out_the_dead, "kill-before-claim", 6, 8),
    scene(off.without_pacing, "throttle", 5, calls_per_second=5, seconds=5),
    scene(off.without_the_busy_set, "slow", 4),
    scene(off.without_durability, "stop-database", 1),
    scene(off.without_waiting_for_the_commit, "kill-api stop-database", 1),
    scene(off.without_looking_keys_up, "kill-api", 7),
    scene(off.without_distrust_of_the_clock, "clock errors", 6, rest_seconds=12),
    scene(off.without_pausing_what_cannot_be_opened, "poison", 9, seconds=5),
    scene(off.without_telling_once, "outage", 10),
    scene(off.without_pausing_dead_authorisations, "dead-token", 9),
    scene(off.with_unclear_answers_taken_for_success, "errors garbage", 3),
    scene(off.with_unclear_answers_taken_for_refusals, "errors-applied lost-answers", 6),
    scene(off.with_haste_taken_for_refusals, "throttle", 6),
    scene(off.with_silence_taken_for_refusals, "cut-marketplaces down", 6),
)


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_a_missing_protection_is_noticed(scene: Scene) -> None:
    result = fought(replace(SMALL, names=scene.names, **scene.sizes), scene.take_off)
    assert broken(result) & scene.invariants, told(result)


def test_a_worker_that_keeps_its_leases_is_noticed_when_it_is_told_to_stop() -> None:
    result = fought(replace(SMALL, names=("restart",)), off.without_giving_leases_back)
    assert result.judgement.exits_bad > 0, told(result)


def fought(plan: Plan, take_off: Callable[[], None] | None = None) -> Result:
    if take_off is not None:
        plan = replace(plan, program=(sys.executable, "-m", "tests.torture.unprotected", take_off.__name__))
    with directory_for(None) as directory:
        return run(plan, directory)


def broken(result: Result) -> set[int]:
    return {finding.invariant for finding in result.judgement.audit.findings}


def told(result: Result) -> str:
    """What a person wants to see of a run that went another way."""
    judgement = result.judgement
    lines = [str(deed) for deed in result.journal.deeds] + [str(finding) for finding in judgement.audit.findings]
    return "\n".join([*lines, f"{judgement.writes} writes, {judgement.calls} calls, restless: {result.restless}"])
