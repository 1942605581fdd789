"""The parent of the evaluation child: candidate and champion are asked about the holdout, each in a process of its own.

The inputs go through a pipe, one after the other, and are never in a folder: no trainer that runs beside it finds them.
"""

import asyncio
import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from controlplane import limits
from controlplane.app.ports_judging import SampleContent
from controlplane.inspection.entry import unreadable
from controlplane.inspection.evaluation_child import HEAD, NPY, PNG, REMEDY
from controlplane.inspection.inspector import ended, measured

CHILD = (sys.executable, "-I", "-m", "controlplane.inspection.evaluation_child")
_KINDS = {"image/png": PNG, "application/x-npy": NPY}


class OpenVinoEvaluator:
    """Implements `app.ports_judging.Evaluator` with a child process a model, one at a time."""

    def __init__(
        self,
        *,
        command: Sequence[str] = CHILD,
        seconds_max: float = limits.EVALUATION_SECONDS_MAX,
        memory_bytes_max: int = limits.EVALUATION_MEMORY_BYTES_MAX,
    ) -> None:
        self._command = tuple(command)
        self._seconds_max = seconds_max
        self._memory_bytes_max = memory_bytes_max
        self._turn = asyncio.Lock()

    async def evaluate(
        self, folder: Path, contents: AsyncIterator[SampleContent], *, labels: Collection[str]
    ) -> Sequence[Mapping[str, float] | None]:
        folder, size_bytes = await asyncio.to_thread(measured, folder)
        memory_bytes = self._memory_bytes_max + limits.EVALUATION_MEMORY_PER_MODEL_BYTE * size_bytes
        async with self._turn:
            with tempfile.TemporaryDirectory(prefix="lineside-evaluation-") as empty:
                child = await self._start(folder, memory_bytes, cwd=empty)
                try:
                    async with asyncio.timeout(self._seconds_max):
                        return await _converse(child, contents, frozenset(labels))
                except TimeoutError as error:
                    raise unreadable(f"asking it takes longer than {self._seconds_max:g} s", remedy=REMEDY) from error
                finally:
                    # The whole group, whatever the child has started, also when nobody waits for it any more.
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
                    await _let_go(child)

    async def _start(self, folder: Path, memory_bytes: int, *, cwd: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            str(folder),
            str(memory_bytes),
            str(math.ceil(self._seconds_max)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=limits.EVALUATION_LINE_BYTES_MAX,
            cwd=cwd,
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


async def _converse(
    child: asyncio.subprocess.Process, contents: AsyncIterator[SampleContent], labels: frozenset[str]
) -> list[Mapping[str, float] | None]:
    """Put one input after the other; the next goes out when the last was answered."""
    assert child.stdin is not None
    head = await _answer(child)
    if not isinstance(head, dict) or "refusal" in head:
        refusal = head if isinstance(head, dict) else {}
        raise unreadable(
            str(refusal.get("refusal", "asking it gave no report"))[:2000],
            remedy=str(refusal.get("remedy", REMEDY))[:2000],
        )
    names = [str(name) for name in head.get("labels", ())]
    found: list[Mapping[str, float] | None] = []
    async for content in contents:
        kind = _KINDS.get(content.content_type)
        if kind is None:
            found.append(None)
            continue
        # A child that has died is noticed when its answer is missing.
        with suppress(ConnectionError):
            child.stdin.write(HEAD.pack(kind, len(content.content)) + content.content)
            await child.stdin.drain()
        found.append(_kept(await _answer(child), names, labels))
    return found


async def _let_go(child: asyncio.subprocess.Process) -> None:
    """Wait for the end of a child that was killed. What it left in its pipe is read away: only then is the pipe closed,
    unless something that has left the group holds it."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(limits.EVALUATION_LET_GO_SECONDS_MAX):
            while await child.stdout.read(1 << 16):
                pass
            await child.stdin.wait_closed()
    await child.wait()


async def _answer(child: asyncio.subprocess.Process) -> Any:
    assert child.stdout is not None
    try:
        line = await child.stdout.readline()
        if line.endswith(b"\n"):
            return json.loads(line)
    except ValueError as error:  # too long a line, or no JSON
        raise unreadable("asking it gave a broken report", remedy=REMEDY) from error
    raise unreadable(f"asking it {ended(await child.wait())}", remedy=REMEDY)


def _kept(answer: Any, names: Sequence[str], labels: frozenset[str]) -> Mapping[str, float] | None:
    """The scores that are asked for, and the best. The parent trusts nothing that the child says."""
    if answer is None:
        return None
    if not isinstance(answer, list) or not answer or not all(_is_score(score) for score in answer):
        raise unreadable("asking it gave a broken report", remedy=REMEDY)
    scores = {(names[place] if place < len(names) else str(place)): float(score) for place, score in enumerate(answer)}
    best = min(scores, key=lambda label: (-scores[label], label))
    return {label: score for label, score in scores.items() if label in labels or label == best}


def _is_score(score: Any) -> bool:
    return isinstance(score, int | float) and not isinstance(score, bool) and 0.0 <= score <= 1.0
