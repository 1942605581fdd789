"""`python -m tests.simulation.run --seeds N --first 0`: run N seeds on all processors and print what broke.

Prints a line for each violation, which names the seed that repeats it, appends such seeds to `seeds.txt` beside this
file (the tests replay them), and last `seeds=N violations=M events=E seconds=S`. Exit status 1 when something broke.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from tests.simulation.seeds import keep_seeds
from tests.simulation.snapshot import ViolationError
from tests.simulation.world import simulate

CHUNK = 5
"""Seeds that a process takes at a time."""


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


def run_all(seeds: range, processes: int) -> Iterator[Ran]:
    """Yield what came of each seed, in their order."""
    if processes <= 1:
        quiet()
        yield from map(run_seed, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(processes, initializer=quiet) as pool:
        yield from pool.imap(run_seed, seeds, chunksize=CHUNK)


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
    for ran in run_all(range(wanted.first, wanted.first + wanted.seeds), wanted.processes):
        events += ran.events
        states.update(ran.rollouts)
        if ran.violation:
            violations.append(ran.seed)
            print(ran.violation, flush=True)
    keep_seeds(violations)
    print(" ".join(f"{state}={count}" for state, count in sorted(states.items())))
    elapsed = time.monotonic() - start
    print(f"seeds={wanted.seeds} violations={len(violations)} events={events} seconds={elapsed:.1f}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
