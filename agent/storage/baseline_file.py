"""Baselines of inputs over restarts.

baselines.json    [{"slot": ..., "version": n, "means": [...], "triangle": [[...], ...]}, ...], oldest first
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.app.input_watch import BaselineKey
from agent.domain.baseline import Baseline
from agent.domain.errors import Reason, StateError
from agent.domain.input_statistics import STATISTICS
from agent.storage import durable


class JsonBaselineFile:
    """`app.input_watch.BaselineFile`, one file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "baselines.json"

    def read(self) -> Mapping[BaselineKey, Baseline]:
        try:
            return dict(_parse(item) for item in json.loads(self._path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # learned anew

    def write(self, baselines: Mapping[BaselineKey, Baseline]) -> None:
        content = [
            {"slot": slot, "version": version, "means": each.means, "triangle": each.triangle}
            for (slot, version), each in baselines.items()
        ]
        try:
            durable.replace_file(self._path, json.dumps(content).encode())
        except OSError as error:
            raise StateError(
                f"cannot write {self._path}: {error.strerror}",
                field="spool",
                remedy="free some disk and make the agent's folder writable; baselines are learned anew meanwhile",
                reason=Reason.STATE_UNWRITABLE,
            ) from error


def _parse(item: Any) -> tuple[BaselineKey, Baseline]:
    """Raises ValueError, KeyError or TypeError where another agent's statistics or nonsense was written."""
    means = tuple(float(value) for value in item["means"])
    triangle = tuple(tuple(float(value) for value in row) for row in item["triangle"])
    sizes = [len(row) for row in triangle]
    if len(means) != len(STATISTICS) or sizes != list(range(1, len(STATISTICS) + 1)):
        raise ValueError("a baseline of other statistics")
    if any(row[-1] <= 0.0 for row in triangle):
        raise ValueError("no triangle of a covariance")
    return (str(item["slot"]), int(item["version"])), Baseline(means=means, triangle=triangle)
