"""`python -m controlplane.inspection.child FOLDER MEMORY_BYTES CPU_SECONDS`: print what the model in FOLDER is.

Prints one JSON object on standard output (`report.py`) and exits with 0, whether the model is readable or not.
Whatever else happens to this process says that the files are hostile.
"""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from controlplane.domain.errors import FieldInvalidError
from controlplane.inspection.entry import find_entry, unreadable
from controlplane.inspection.report import REMEDY, refusal_json, signature_json
from controlplane.inspection.signature import read_signature

_PR_SET_PDEATHSIG = 1


def confine(*, memory_bytes: int, cpu_seconds: int) -> None:
    """Bound what this process can take, before it sees a byte that somebody else wrote."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    # It has nothing to write but its report, which goes into a pipe.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def report(folder: Path) -> str:
    """Return the JSON to print."""
    try:
        paths = [str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]
        return signature_json(read_signature(folder, find_entry(paths)))
    except FieldInvalidError as refusal:
        return refusal_json(refusal)
    except MemoryError:
        return refusal_json(unreadable("reading it takes too much memory", remedy=REMEDY))


def main() -> None:
    folder, memory_bytes, cpu_seconds = sys.argv[1:]
    # What the libraries print to standard output goes to standard error, so that the report is alone.
    answer = os.dup(1)
    os.dup2(2, 1)
    confine(memory_bytes=int(memory_bytes), cpu_seconds=int(cpu_seconds))
    with os.fdopen(answer, "w") as pipe:
        pipe.write(report(Path(folder)))
        pipe.flush()
    # Without the destructors of libraries that a hostile file may have upset.
    os._exit(0)


if __name__ == "__main__":
    main()
