"""Running the child under a time and memory limit, and telling an error from a crash and a hang."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psutil

from agent import limits
from agent.domain.errors import Reason

CHILD_COMMAND = (sys.executable, "-m", "agent.runtime.child")


class ChildError(Exception):
    """The child gave no good answer: COMPILE_FAILED (it said why), COMPILE_CRASHED or COMPILE_TIMED_OUT."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def run_child(
    request: Mapping[str, Any], *, timeout_seconds: float, command: Sequence[str] = CHILD_COMMAND
) -> Mapping[str, Any]:
    """The child's answer. Raises ChildError. No process is left, cancelled or not."""
    limited = {**request, "memory_bytes": _memory_bytes(), "niceness": limits.CHILD_NICENESS}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(json.dumps(limited).encode()), timeout_seconds)
    except TimeoutError as error:
        raise ChildError(Reason.COMPILE_TIMED_OUT, f"no answer within {timeout_seconds:g} s") from error
    finally:
        await _end(process)
    return _parsed(output, errors, process.returncode)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _parsed(output: bytes, errors: bytes, returncode: int | None) -> Mapping[str, Any]:
    if returncode != 0 or len(output) > limits.CHILD_OUTPUT_BYTES_MAX:
        raise ChildError(Reason.COMPILE_CRASHED, _death(returncode, errors))
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise ChildError(Reason.COMPILE_CRASHED, "the child's answer was cut off") from error
    if not answer["ok"]:
        raise ChildError(Reason.COMPILE_FAILED, answer["error"])
    result: Mapping[str, Any] = answer
    return result


def _death(returncode: int | None, errors: bytes) -> str:
    if returncode is not None and returncode < 0:
        how = f"the child died of {signal.Signals(-returncode).name}"
    else:
        how = f"the child ended with code {returncode}"
    last = errors.decode(errors="replace").strip().splitlines()[-1:]
    return ": ".join([how, *last])[: limits.ERROR_CHARS_MAX]


def _memory_bytes() -> int:
    share = int(psutil.virtual_memory().total * limits.CHILD_MEMORY_SHARE)
    return max(share, limits.CHILD_MEMORY_BYTES_MIN)
