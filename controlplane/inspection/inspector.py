"""The parent of the inspection child."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from controlplane import limits
from controlplane.domain.catalog import ModelSignature
from controlplane.inspection.entry import unreadable
from controlplane.inspection.report import REMEDY, parse_report

CHILD = (sys.executable, "-I", "-m", "controlplane.inspection.child")


class OpenVinoInspector:
    """Implements `app.ports.ModelInspector` with a child process a model, few at a time."""

    def __init__(
        self,
        *,
        command: Sequence[str] = CHILD,
        seconds_max: float = limits.INSPECTION_SECONDS_MAX,
        memory_bytes_max: int = limits.INSPECTION_MEMORY_BYTES_MAX,
    ) -> None:
        self._command = tuple(command)
        self._seconds_max = seconds_max
        self._memory_bytes_max = memory_bytes_max
        self._turns = asyncio.Semaphore(limits.INSPECTIONS_AT_ONCE_MAX)

    async def inspect(self, folder: Path) -> ModelSignature:
        folder, size_bytes = await asyncio.to_thread(measured, folder)
        memory_bytes = self._memory_bytes_max + limits.INSPECTION_MEMORY_PER_MODEL_BYTE * size_bytes
        async with self._turns:
            with tempfile.TemporaryDirectory(prefix="lineside-inspection-") as empty:
                return parse_report(await self._run(folder, memory_bytes, cwd=empty))

    async def _run(self, folder: Path, memory_bytes: int, *, cwd: str) -> bytes:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            str(folder),
            str(memory_bytes),
            str(limits.INSPECTION_CPU_SECONDS_MAX),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=cwd,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            async with asyncio.timeout(self._seconds_max):
                text = await _read_bounded(child.stdout)
                code = await child.wait()
        except TimeoutError as error:
            raise unreadable(f"reading it takes longer than {self._seconds_max:g} s", remedy=REMEDY) from error
        finally:
            # The whole group, whatever the child has started, also when the publisher has gone.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        if code != 0:
            raise unreadable(f"reading it {ended(code)}", remedy=REMEDY)
        return text


async def _read_bounded(stream: asyncio.StreamReader) -> bytes:
    text = b""
    while piece := await stream.read(1 << 16):
        text += piece
        if len(text) > limits.INSPECTION_OUTPUT_BYTES_MAX:
            raise unreadable("its description is too long", remedy="leave out rt_info that is no model information")
    return text


def ended(code: int) -> str:
    """What a child did that ended with this status, in words."""
    if code == -signal.SIGXCPU:
        return "takes too much processor time"
    if code < 0:
        return f"crashes the reader ({signal.Signals(-code).name})"
    return f"ends the reader with status {code}"


def measured(folder: Path) -> tuple[Path, int]:
    """Return the folder's absolute path and how much its files hold."""
    folder = folder.absolute()
    return folder, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
