"""The child process: `python -m agent.runtime.child`, one JSON request on stdin, one JSON answer on stdout.

It may crash, hang or eat memory, and nothing but it is lost: it yields to the line's inferences, dies with its parent,
is the first that the kernel kills when memory runs out, and leaves no core file. What libraries print goes to stderr.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer one request and leave without tearing down: drivers have crashed there."""
    parent = os.getppid()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    _confine(parent, request)
    json.dump(_answer(request), answers)
    answers.flush()
    sys.stderr.flush()
    os._exit(0)


def _confine(parent: int, request: dict[str, Any]) -> None:
    os.nice(request["niceness"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Private data, not address space: drivers reserve far more addresses than they ever touch.
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    memory_bytes = request["memory_bytes"] if hard == resource.RLIM_INFINITY else min(request["memory_bytes"], hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with suppress(OSError):  # a hardened /proc is read-only; the limit above holds without it
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent was gone before the kernel knew whom to tell


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    # Only now: OpenVINO's libraries belong under the limits too.
    from agent.runtime.compile import one_line
    from agent.runtime.measure import measure
    from agent.runtime.plugins import open_core
    from agent.runtime.probe import auto_choice, devices

    commands = {"devices": devices, "auto": auto_choice, "measure": measure}
    try:
        return {"ok": True, **commands[request["command"]](open_core(request["plugins"]), request)}
    except MemoryError:
        return {"ok": False, "error": f"it needs more memory than the {request['memory_bytes']} bytes that it may have"}
    except (RuntimeError, ValueError, TypeError) as error:
        return {"ok": False, "error": one_line(error)}


if __name__ == "__main__":
    main()
