"""The parent of the child that answers questions over results."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from controlplane import limits
from controlplane.app.ports_lake import Answer
from controlplane.domain.errors import FieldInvalidError, LimitExceededError, StorageError

CHILD = (sys.executable, "-I", "-m", "controlplane.lake.query_child")
_NARROWER = "ask for less: a shorter time, one model, fewer columns, or a sum in place of rows"


class DuckDbQuestions:
    """`app.ports_lake.QuestionEngine` with a child process a question, few at a time."""

    def __init__(
        self,
        *,
        command: Sequence[str] = CHILD,
        seconds_max: float = limits.LAKE_QUERY_SECONDS_MAX,
        memory_bytes: int = limits.LAKE_QUERY_MEMORY_BYTES,
    ) -> None:
        self._command = tuple(command)
        self._seconds_max = seconds_max
        self._memory_bytes = memory_bytes
        self._turns = asyncio.Semaphore(limits.LAKE_QUERIES_AT_ONCE_MAX)

    async def ask(
        self, sql: str, files: Sequence[Path], *, row_limit: int, parameters: Sequence[object] = ()
    ) -> Answer:
        question = json.dumps(
            {
                "files": [str(file.absolute()) for file in files],
                "sql": sql,
                "parameters": list(parameters),
                "row_limit": row_limit,
                "memory_bytes": self._memory_bytes,
                "output_bytes_max": limits.LAKE_ANSWER_BYTES_MAX,
            }
        )
        async with self._turns:
            with tempfile.TemporaryDirectory(prefix="lineside-question-") as empty:
                told = await self._run(question.encode(), cwd=empty)
        if "refused" not in told:
            rows = [list(row) for row in told["rows"]]
            return Answer(
                columns=[(name, kind) for name, kind in told["columns"]], rows=rows, truncated=told["truncated"]
            )
        if told["kind"] == "memory":
            raise LimitExceededError(told["refused"], field="sql", remedy=_NARROWER)
        raise FieldInvalidError(
            str(told["refused"])[: limits.LAKE_REFUSAL_CHARS_MAX],
            field="sql",
            remedy="write one SELECT over the table results; DESCRIBE results shows its columns",
        )

    async def _run(self, question: bytes, *, cwd: str) -> dict[str, Any]:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=cwd,
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._seconds_max):
                text, _ = await child.communicate(question)
        except TimeoutError as error:
            raise LimitExceededError(
                f"the question takes longer than {self._seconds_max:g} s", field="sql", remedy=_NARROWER
            ) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        if child.returncode != 0:
            raise StorageError(
                f"the child that answers questions ended with status {child.returncode}",
                remedy="ask for less; if it goes on, see that the machine has memory to spare",
            )
        return dict(json.loads(text))
