"""`python -m controlplane.training.launch FOLDER ERROR_DESCRIPTOR`: becomes the trainer of the job in FOLDER.

It confines itself first, so that not a line of the trainer runs outside. What hinders it goes to the descriptor, which
closes by itself when the trainer runs.
"""

import ctypes
import glob
import os
import resource
import signal
import sys
from pathlib import Path

from controlplane.training import landlock
from controlplane.training.job_folder import Spec

_PR_SET_PDEATHSIG = 1
_NICENESS = 10
"""Sync and commands go first."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/dri*", "/dev/accel*", "/dev/nvidia*")


def main() -> None:
    folder, errors = Path(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(errors, False)
    try:
        spec = Spec.read(folder)
        _limit(spec)
        os.chdir(folder / "output")
        if landlock.version() > 0:
            devices = [Path(path) for pattern in _DEVICES for path in glob.glob(pattern)]
            landlock.confine(
                read=[Path(path) for path in spec.read_paths],
                write=[*(Path(path) for path in spec.write_paths), *devices],
                network=spec.network,
            )
        os.execvpe(spec.command[0], spec.command, spec.environment)  # noqa: S606 - there is no shell in it
    except OSError as error:
        os.write(errors, f"{error.filename or Path(sys.argv[1]).name}: {error.strerror}".encode())
        os._exit(1)


def _limit(spec: Spec) -> None:
    # With its warden the trainer ends, so that no run ever goes on unseen.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICENESS)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, spec.output_bytes_max),
        # The warden measures; this holds what grows faster than it looks. Reserved memory counts here: there is room.
        (resource.RLIMIT_DATA, 2 * spec.memory_bytes_max),
    ):
        hard = resource.getrlimit(what)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))


if __name__ == "__main__":
    main()
