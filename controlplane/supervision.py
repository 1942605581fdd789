"""The bytes process, started and kept running by the control process (contract: `controlplane.config`)."""

import asyncio
import json
import os
import sys
from dataclasses import replace
from typing import Self

import structlog

from controlplane import limits, observability
from controlplane.config import SETTINGS_VARIABLE, Address, Settings

log = structlog.get_logger(__name__)


class ChildFailedError(RuntimeError):
    """The bytes process did not come up; its own log says why."""


class BytesProcess:
    """One child at a time. It dies with this process, since it holds the other end of its standard input."""

    def __init__(self, settings: Settings, process: asyncio.subprocess.Process) -> None:
        self._settings = settings
        self._process = process

    @classmethod
    async def start(cls, settings: Settings) -> Self:
        """Start the child and wait until both of its listeners accept. Raises ChildFailedError."""
        process = await _spawn(settings)
        try:
            bound = await _read_bound(process)
        except BaseException:
            await _end(process)
            raise
        moved = replace(settings, agent_bytes=bound["agent_bytes"], operator_bytes=bound["operator_bytes"])
        return cls(moved, process)

    @property
    def agent_bytes(self) -> Address:
        """Where agents' bytes are served, with the port that was bound; stays the same over restarts."""
        return self._settings.agent_bytes

    @property
    def operator_bytes(self) -> Address:
        """Where operators' bytes are served; as `agent_bytes`."""
        return self._settings.operator_bytes

    async def supervise(self) -> None:
        """Start the child anew whenever it ends, on the same ports, ever more slowly while it keeps failing."""
        delay_seconds = limits.RESTART_SECONDS_MIN
        while True:
            started = asyncio.get_running_loop().time()
            status = await self._process.wait()
            log.error(observability.BYTES_PROCESS_ENDED, status=status, restart_seconds=delay_seconds)
            if asyncio.get_running_loop().time() - started > limits.RESTART_SECONDS_MAX:
                delay_seconds = limits.RESTART_SECONDS_MIN
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, limits.RESTART_SECONDS_MAX)
            await self._restart()

    async def stop(self) -> None:
        """End the child gracefully, by force where it takes too long."""
        await _end(self._process)

    async def _restart(self) -> None:
        self._process = await _spawn(self._settings)
        try:
            await _read_bound(self._process)
        except ChildFailedError as error:
            log.error(observability.BYTES_PROCESS_FAILED, error=str(error))  # noqa: TRY400  # the child logs its own traceback
            await _end(self._process)
        else:
            log.info(observability.BYTES_PROCESS_RESTARTED, pid=self._process.pid)


async def _spawn(settings: Settings) -> asyncio.subprocess.Process:
    # In the environment, which only we can read: a database URL may have a password in it.
    environment = {**os.environ, SETTINGS_VARIABLE: settings.to_json()}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "controlplane.bytes_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        # A Ctrl-C at the terminal is for the parent, which then stops the child in order.
        start_new_session=True,
    )


async def _read_bound(process: asyncio.subprocess.Process) -> dict[str, Address]:
    assert process.stdout is not None, "we asked for a pipe"
    try:
        async with asyncio.timeout(limits.CHILD_START_SECONDS):
            line = await process.stdout.readline()
    except TimeoutError:
        raise ChildFailedError("the bytes process does not come up") from None
    if not line:
        raise ChildFailedError("the bytes process ended while it started")
    return {name: Address.parse(text, field=name) for name, text in json.loads(line).items()}


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(limits.SHUTDOWN_GRACE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
