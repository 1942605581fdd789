"""The process in which plays run: `python -m controlplane.app.rehearsal_process`.

It reads one pickle of (Stage, Assumptions, plays, first seed) from its parent on stdin, and writes each Play as a line
of JSON when it is done. It ends when its parent does: a broken pipe stops it at the next play.
"""

import json
import os
import pickle
import sys
from dataclasses import asdict

from controlplane.app.windows import Windows
from controlplane.rehearsal.play import play
from controlplane.rehearsal.stage import Assumptions, Stage

NICENESS = 19


def main() -> int:
    """Play what stdin asks for."""
    os.nice(NICENESS)
    stage: Stage
    assumptions: Assumptions
    # What is read comes from the controller itself, over a pipe that nobody else has.
    stage, assumptions, plays, first_seed = pickle.load(sys.stdin.buffer)  # noqa: S301
    windows = Windows(stage.strategy.windows)
    for seed in range(first_seed, first_seed + plays):
        sys.stdout.write(json.dumps(asdict(play(stage, assumptions, windows, seed=seed))) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
