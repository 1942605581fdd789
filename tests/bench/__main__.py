"""`make bench`, or `python -m tests.bench NAME...` for some. A bench that lacks a tool says what is missing."""

import argparse
import sys
from collections.abc import Callable

from tests.bench import artifacts, serving, sync
from tests.bench.missing import MissingToolError

BENCHES: dict[str, Callable[[], None]] = {"serving": serving.run, "artifacts": artifacts.run, "sync": sync.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)}; every one by default")
    names = parser.parse_args().names or list(BENCHES)
    if unknown := sorted(set(names) - set(BENCHES)):
        parser.error(f"no bench named {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    missing = False
    for name in names:
        try:
            BENCHES[name]()
        except MissingToolError as error:
            missing = True
            print(f"\n{name}: left out: {error}")
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
