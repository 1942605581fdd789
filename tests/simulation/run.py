"""`python -m tests.simulation.run --seeds N --first 0`: run N seeds and print what broke.

Prints a line for each violation, which names the seed that repeats it, and last
`seeds=N violations=M events=E seconds=S`. Exit status 1 when something broke.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections import Counter

import structlog

from tests.simulation.checkers import ViolationError
from tests.simulation.world import simulate


def main() -> int:
    """Run the seeds that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    wanted = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    violations, events, states = 0, 0, Counter[str]()
    start = time.monotonic()
    for seed in range(wanted.first, wanted.first + wanted.seeds):
        try:
            outcome = asyncio.run(simulate(seed))
        except ViolationError as violation:
            violations += 1
            print(violation)
        else:
            events += outcome.events
            states.update(outcome.rollouts)
    print(" ".join(f"{state}={count}" for state, count in sorted(states.items())))
    elapsed = time.monotonic() - start
    print(f"seeds={wanted.seeds} violations={violations} events={events} seconds={elapsed:.1f}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
