"""`python -m tests.simulation --seed 123 [--verbose]`, or `--seeds 0..2000`: run seeds, one after the other."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable

from tests.simulation.scenario import scenario
from tests.simulation.simulation import Simulation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed")
    parser.add_argument("--seeds", default="0..200", help="run these seeds, the last one not included")
    parser.add_argument("--verbose", action="store_true", help="print what happened")
    parser.add_argument("--all", action="store_true", help="go on after a failure")
    given = parser.parse_args()
    if given.seed is not None:
        return _one(given.seed, verbose=given.verbose)
    first, last = given.seeds.split("..")
    return _many(range(int(first), int(last)), go_on=given.all)


def _one(seed: int, *, verbose: bool) -> int:
    simulation = Simulation(scenario(seed))
    try:
        simulation.run()
    except Exception as error:  # noqa: BLE001
        return _tell(seed, error)
    finally:
        if verbose:
            print(simulation.scenario, *simulation.trace.lines(), sep="\n")  # noqa: T201
    print(f"seed {seed}: {simulation.loop.time():.1f} s of virtual time, {simulation.loop.steps} steps")  # noqa: T201
    return 0


def _many(seeds: Iterable[int], *, go_on: bool) -> int:
    began, ran, steps, failed = time.perf_counter(), 0, 0, 0
    for seed in seeds:
        simulation = Simulation(scenario(seed))
        try:
            simulation.run()
        except Exception as error:  # noqa: BLE001
            failed += _tell(seed, error)
            if not go_on:
                break
        ran, steps = ran + 1, steps + simulation.loop.steps
    took = time.perf_counter() - began
    print(f"{ran} seeds, {failed} failed, {ran / took:.1f} seeds/s, {steps / took:.0f} steps/s")  # noqa: T201
    return 1 if failed else 0


def _tell(seed: int, error: Exception) -> int:
    print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
