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

_READ_BYTES = 1 << 16
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
        async with asyncio.timeout(timeout_seconds):
            output, errors = await _talk(process, json.dumps(limited).encode())
    except TimeoutError as error:
        raise ChildError(Reason.COMPILE_TIMED_OUT, f"no answer within {timeout_seconds:g} s") from error
    finally:
        await _end(process)
    return _parsed(output, errors, process.returncode)


async def _talk(process: asyncio.subprocess.Process, request: bytes) -> tuple[bytes, bytes]:
    """Its answer and the end of its errors. Neither may fill this process's memory, whatever the child writes."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with suppress(ConnectionError):  # it died before it had read: its end tells more
        process.stdin.write(request)
        await process.stdin.drain()
    process.stdin.close()
    errors = asyncio.create_task(_tail(process.stderr, limits.CHILD_ERRORS_BYTES_MAX))
    try:
        output = await _head(process.stdout, limits.CHILD_OUTPUT_BYTES_MAX)
        ending = await errors
    finally:
        errors.cancel()
    await process.wait()
    return output, ending


async def _head(stream: asyncio.StreamReader, bytes_max: int) -> bytes:
    content = b""
    while chunk := await stream.read(_READ_BYTES):
        content += chunk
        if len(content) > bytes_max:
            raise ChildError(Reason.COMPILE_CRASHED, f"the child answered more than {bytes_max} bytes")
    return content


async def _tail(stream: asyncio.StreamReader, bytes_max: int) -> bytes:
    content = b""
    while chunk := await stream.read(_READ_BYTES):
        content = (content + chunk)[-bytes_max:]
    return content


async def _end(process: asyncio.subprocess.Process) -> None:
    """Of the whole group: what the child has started goes with it."""
    with suppress(ProcessLookupError):  # all of it ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _parsed(output: bytes, errors: bytes, returncode: int | None) -> Mapping[str, Any]:
    if returncode != 0:
        raise ChildError(Reason.COMPILE_CRASHED, _death(returncode, errors))
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise ChildError(Reason.COMPILE_CRASHED, "the child's answer was cut off") from error
    if not isinstance(answer, dict) or "ok" not in answer:
        raise ChildError(Reason.COMPILE_CRASHED, "the child's answer is none")
    if answer["ok"] is not True:
        raise ChildError(Reason.COMPILE_FAILED, str(answer.get("error", ""))[: limits.ERROR_CHARS_MAX] or "it failed")
    return answer


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
