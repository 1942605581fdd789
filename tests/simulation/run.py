"""`python -m tests.simulation.run --seeds N --first 0`: run N seeds on all processors and print what broke.

Prints a line for each violation, which names the seed that repeats it, and appends such seeds to `seeds.txt` beside
this file, which the tests replay; then what came of the experiments of `exposure.py` on a share of so many seeds; and
last `seeds=N violations=M events=E seconds=S`. Exit status 1 when something broke.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import structlog

from tests.simulation.exposure import expose_bad, expose_good, is_stopped_in_canary, is_turned_back
from tests.simulation.seeds import keep_seeds
from tests.simulation.snapshot import ViolationError
from tests.simulation.world import simulate

CHUNK = 5
"""Seeds that a process takes at a time."""
BAD_MAX, GOOD_MAX = 100, 1000
"""Seeds of the experiments when all of 2,000 seeds are run; fewer else, in proportion."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of one seed."""

    seed: int
    violation: str = ""
    events: int = 0
    rollouts: tuple[str, ...] = ()


def run_seed(seed: int) -> Ran:
    """Run one seed's world."""
    try:
        outcome = asyncio.run(simulate(seed))
    except ViolationError as violation:
        return Ran(seed=seed, violation=str(violation))
    return Ran(seed=seed, events=outcome.events, rollouts=outcome.rollouts)


def quiet() -> None:
    """Log nothing below errors: a simulated night is full of warnings."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def run_all(run: Callable[[int], T], seeds: range, processes: int) -> Iterator[T]:
    """Yield what came of each seed, in their order."""
    if processes <= 1:
        quiet()
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=quiet) as pool:
        yield from pool.imap(run, seeds, chunksize=CHUNK)


def run_experiments(seeds: int, processes: int) -> int:
    """Run both experiments, on a share of so many seeds; print what came out, and return how many did not hold."""
    bad = range(min(BAD_MAX, -(-seeds // 20)))
    good = range(min(GOOD_MAX, -(-seeds // 2)))
    stopped = sum(map(is_stopped_in_canary, run_all(expose_bad, bad, processes)))
    print(f"exposure: a version that fails 2 % on one device class, {len(bad)} seeds: {stopped} stopped in the canary")
    turned = [exposed for exposed in run_all(expose_good, good, processes) if is_turned_back(exposed)]
    print(f"exposure: a good version, {len(good)} seeds: {len(turned)} turned back")
    for exposed in turned:
        print(exposed)
    return (stopped * 100 < 99 * len(bad)) + len(turned)


def main() -> int:
    """Run the seeds that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="how many at a time")
    wanted = parser.parse_args()
    violations: list[int] = []
    events, states = 0, Counter[str]()
    start = time.monotonic()
    for ran in run_all(run_seed, range(wanted.first, wanted.first + wanted.seeds), wanted.processes):
        events += ran.events
        states.update(ran.rollouts)
        if ran.violation:
            violations.append(ran.seed)
            print(ran.violation, flush=True)
    keep_seeds(violations)
    broken = run_experiments(wanted.seeds, wanted.processes)
    print(" ".join(f"{state}={count}" for state, count in sorted(states.items())))
    elapsed = time.monotonic() - start
    print(f"seeds={wanted.seeds} violations={len(violations) + broken} events={events} seconds={elapsed:.1f}")
    return 1 if violations or broken else 0


if __name__ == "__main__":
    sys.exit(main())
