"""Faults of drivers, for an agent that runs as a process of its own: put this folder on its PYTHONPATH.

LINESIDE_TEST_FAULTS names a folder. Its file `probe` says how a child that measures ends; its file `dead` names the
device on which inferences fail in the agent. Limits are short, so that a hang and a flood end soon.
"""

import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("LINESIDE_TEST_FAULTS", "/nonexistent"))
LIE = {
    "ok": True,
    "latency_ms_p50": -3.0,
    "latency_ms_p99": float("nan"),
    "throughput_per_second": 1e12,
    "compile_seconds": 0.1,
    "memory_bytes": 1,
    "streams_used": 1,
    "parity": "NOT_CHECKED",
    "difference": 0.0,
}


def fault(name: str) -> str:
    path = FOLDER / name
    return path.read_text().strip() if path.is_file() else ""


def end_as_told(kind: str) -> None:
    match kind:
        case "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hangs":
            time.sleep(600)
        case "lies":
            print(json.dumps(LIE))
            sys.stdout.flush()
            os._exit(0)
        case "floods":
            while True:
                os.write(1, b"x" * 65536)
        case "eats":
            from agent.runtime import measure

            measure.measure = eat
        case _:
            raise ValueError(f"no fault is called {kind!r}")


def eat(core: Any, request: dict[str, Any]) -> dict[str, Any]:
    eaten = []
    while True:
        eaten.append(b"\xff" * (64 << 20))


def in_child() -> None:
    if kind := fault("probe"):
        text = sys.stdin.read()
        sys.stdin = io.StringIO(text)
        if json.loads(text)["command"] == "measure":
            end_as_told(kind)


def in_agent() -> None:
    from agent import limits

    limits.PREPARE_SECONDS_MAX = 10.0
    limits.CHILD_MEMORY_SHARE = 0.0
    limits.CHILD_MEMORY_BYTES_MIN = 1 << 30
    from agent.domain.errors import Reason, RequestError
    from agent.runtime.infer import OpenVinoModel

    infer = OpenVinoModel.infer

    def mortal(self: OpenVinoModel, *arguments: Any, **named: Any) -> Any:
        if self.device == fault("dead"):
            raise RequestError("the device was lost", reason=Reason.INFERENCE_FAILED)
        return infer(self, *arguments, **named)

    OpenVinoModel.infer = mortal  # type: ignore[method-assign]


if "agent.runtime.child" in sys.orig_argv:
    in_child()
elif "agent.main" in sys.orig_argv and "run" in sys.orig_argv:
    in_agent()
