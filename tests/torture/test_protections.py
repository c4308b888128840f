"""Each nemesis bites: with one protection taken off, the auditor complains; with all of them on, it does not.

Those that no test here takes a protection from, and why:

- kill-before-claim: such a worker holds nothing and has sent nothing; what hides its death, the end of its row in
  `worker`, only shares stores out unevenly for a while.
- pgbouncer: a way to the database, not something that goes wrong.

cut-database and expiring-tokens meet the moments that matter too rarely: scenes.py puts their steps in order.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lumbung.cli import torture_world
from lumbung.cli.torture import ENV, REST_SECONDS, Plan, Result, directory_for, run
from lumbung.torture import deeds_of_processes, fake_time, nemesis
from lumbung.torture.targets import Targets
from tests.torture import protections as off
from tests.torture import scenes

ROOT = Path(__file__).parents[2]
EVERYWHERE = 208  # a seed by which what marketplaces do is done by all of them, for long
STAGED = "staged"
TOKEN_SECONDS = 14
LATE, ERRING, HELD = 196, 129, 4
"""Seeds: all that is late is very late; all marketplaces err; a killed worker's request is held, not lost."""
HOLDING: dict[str, Any] = {"quiesce_seconds": 4, "updates_per_second": 12, "writers": 12}
"""Time for a successor to take over and send something newer, and few updates that would come after what was held."""
ALL_SECONDS = 20
RUNS_UNTIL_NOTICED = 5
SMALL = Plan(
    seconds=5,
    seed=EVERYWHERE,
    names=(),
    tenants=1,
    skus=6,
    apis=1,
    workers=2,
    updates_per_second=60,
    writers=4,
    rest_seconds=6,
    # What is parked is not tried again before the auditor comes.
    env={**ENV, "PYTHONPATH": str(ROOT), "LUMBUNG_PARK_RETRY_SECONDS": "60"},
)
ALL = tuple(name for name in nemesis.USUAL if name != "clock" or fake_time.library())


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="each worker calls from a loopback address of its own")


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
    scene(off.without_confirmation_after_doubt, "late", 3, seed=LATE, seconds=3),
    scene(off.without_telling_lost_from_unsent, "late", 3, seed=LATE, seconds=3),
    scene(off.without_doubt_at_takeover, "kill-before-send", 3, seed=HELD, seconds=3, **HOLDING),
    scene(off.without_taking_over, "kill", 6),
    scene(off.without_taking_over, "kill-after-claim kill-in-answer kill-before-record", 6),
    scene(off.without_pacing, "throttle", 5, calls_per_second=5, seconds=5),
    scene(
        off.without_the_limit_of_applications, "", 5, tenants=4, calls_per_second=10, updates_per_second=0, seconds=8
    ),
    scene(off.without_the_busy_set, "slow", 4),
    scene(off.without_durability, "stop-database", 1),
    scene(off.without_waiting_for_the_commit, "kill-api stop-database", 1),
    scene(off.without_looking_keys_up, "kill-api", 7),
    scene(off.without_pausing_what_cannot_be_opened, "poison", 9, seconds=5),
    scene(off.without_telling_once, "outage", 10),
    scene(off.without_pausing_dead_authorisations, "dead-token", 9),
    scene(off.with_unclear_answers_taken_for_success, "errors garbage", 3, seed=ERRING),
    scene(off.with_unclear_answers_taken_for_refusals, "errors-applied lost-answers", 6),
    scene(off.with_haste_taken_for_refusals, "throttle", 6),
    scene(off.with_silence_taken_for_refusals, "cut-marketplaces down", 6),
)


def test_with_every_protection_on_nothing_is_found() -> None:
    result = fought(replace(SMALL, names=ALL, seconds=ALL_SECONDS, rest_seconds=REST_SECONDS))
    assert not result.broken, told(result)
    assert result.judgement.exits_bad == 0, told(result)
    assert result.judgement.audit.looked_at.keys() >= {1, 2, 3, 4, 5, 6, 7, 9}


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_a_missing_protection_is_noticed(scene: Scene) -> None:
    plan = replace(SMALL, names=scene.names, **scene.sizes)
    noticed(lambda: fought(plan, scene.take_off), lambda result: bool(broken(result) & scene.invariants))


@pytest.mark.skipif(fake_time.library() is None, reason="libfaketime is not installed")
def test_a_wait_from_before_the_clock_went_back_is_noticed() -> None:
    plan = replace(SMALL, names=("clock", "errors"))
    noticed(lambda: fought(plan, off.without_distrust_of_the_clock), lambda result: 6 in broken(result))


def test_a_worker_that_goes_on_beside_its_successor_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(SMALL, calls_per_second=10, seconds=12)
    noticed(
        lambda: staged(monkeypatch, deeds_of_processes.freeze, plan, off.without_minding_lost_leases),
        lambda result: bool(broken(result) & {2, 4, 5}),
    )


def test_a_result_that_counts_under_a_lost_lease_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    deed = scenes.answers_come_and_cannot_be_written
    noticed(
        lambda: staged(monkeypatch, deed, replace(SMALL, seconds=3, **HOLDING), off.without_the_epoch_check),
        lambda result: 3 in broken(result),
    )


def test_a_worker_that_calls_after_the_end_of_its_leases_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {**SMALL.env, "LUMBUNG_WINDOW_FRESH_MS": "60000"}  # what was read is sent without being read again
    plan = replace(SMALL, workers=1, calls_per_second=0.5, rest_seconds=2, env=env)
    noticed(
        lambda: staged(monkeypatch, scenes.work_in_hand_and_no_database, plan, off.without_the_end_of_leases),
        lambda result: 4 in broken(result),
    )


def test_a_late_token_pair_that_replaces_a_newer_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torture_world, "TOKEN_SECONDS", TOKEN_SECONDS)
    plan = replace(SMALL, names=("expiring-tokens",))
    noticed(
        lambda: staged(
            monkeypatch, scenes.a_new_pair_cannot_be_written, plan, off.without_the_compare_and_set_of_tokens
        ),
        lambda result: 9 in broken(result),
    )


def test_a_worker_that_keeps_its_leases_is_noticed_when_it_is_told_to_stop() -> None:
    plan = replace(SMALL, names=("restart",))
    noticed(lambda: fought(plan, off.without_giving_leases_back), lambda result: result.judgement.exits_bad > 0)


def noticed(fight: Callable[[], Result], as_it_should_be: Callable[[Result], bool]) -> None:
    """A race is not met in every run."""
    tales = []
    for _ in range(RUNS_UNTIL_NOTICED):
        result = fight()
        if as_it_should_be(result):
            return
        tales.append(told(result))
    pytest.fail(f"{RUNS_UNTIL_NOTICED} runs did not notice it:\n" + "\n\n".join(tales))


def staged(
    monkeypatch: pytest.MonkeyPatch,
    deed: Callable[[Targets], Awaitable[None]],
    plan: Plan,
    take_off: Callable[[], None] | None,
) -> Result:
    """One deed, once, in place of the nemesis's own."""
    monkeypatch.setattr(nemesis, "TO_THE_HUB", {STAGED: once(deed)})
    return fought(replace(plan, names=(*plan.names, STAGED)), take_off)


def once(deed: Callable[[Targets], Awaitable[None]]) -> Callable[[Targets], Awaitable[None]]:
    done: list[str] = []

    async def act(targets: Targets) -> None:
        if not done:
            done.append(STAGED)
            await deed(targets)

    return act


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
