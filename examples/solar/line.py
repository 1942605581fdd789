"""The line of the demo: where its agents stand, what its cameras send, and what happens on it."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from examples.solar.data import Cells
from examples.solar.fleet import Agent, DemoError, Fleet

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".demo"
CACHE = ROOT / ".cache"
MODEL = "solar-defect"
DEPLOYMENT = "solar"
LINE = "3"
STATIONS = {"ls-1": "role=line-server", "st-1": "station=1", "st-2": "station=2"}
PROTOCOLS = {"ls-1": "grpc", "st-1": "grpc", "st-2": "http"}
RATE = 25.0
"""Images a second at each station: a busy line, which still leaves two cores room to compile beside it."""
POLL_SECONDS = 0.5

BEGIN = time.monotonic()
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def say(text: str) -> None:
    console.print(f"[dim]{time.monotonic() - BEGIN:6.1f} s[/dim]  {text}", soft_wrap=True)


def wait_for(what: str, holds: Callable[[], bool], fleet: Fleet, *, seconds: float) -> None:
    """Return when `holds()`. Raises DemoError when it does not in time, or when a process has ended meanwhile."""
    deadline = time.monotonic() + seconds
    while not holds():
        fleet.check_alive()
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)


class Cameras:
    """The applications of the stations: what they are shown, and what they say of it."""

    def __init__(self, fleet: Fleet, agents: Mapping[str, Agent]) -> None:
        self._fleet = fleet
        self._agents = agents
        self._shifts: list[str] = []

    def start(self, shift: str, cells: Mapping[str, Cells]) -> None:
        """Let each station's camera show its cells, over and over, until `stop`."""
        shift = f"{len(self._shifts) + 1}-{shift}"
        self._shifts.append(shift)
        for name, agent in self._agents.items():
            protocol = PROTOCOLS[name]
            endpoint = agent.grpc if protocol == "grpc" else agent.http
            file = FOLDER / "cells" / f"{name}-{shift}.npz"
            file.parent.mkdir(exist_ok=True)
            np.savez(file, images=cells[name].images, part_ids=np.array(cells[name].part_ids))
            options = ["--protocol", protocol, "--endpoint", endpoint, "--model", MODEL, "--rate", str(RATE)]
            files = ["--cells", str(file), "--report", str(_report_file(name, shift))]
            self._fleet.start_load(f"camera-{name}", [*options, *files])

    def stop(self) -> None:
        """End the shift; every image that was sent is answered first."""
        for name in self._agents:
            self._fleet.finish(f"camera-{name}")

    def judged(self, name: str, version: int) -> int:
        """Parts of this shift that a station had judged by the version."""
        return int(self._report(name, self._shifts[-1])["parts_by_version"].get(str(version), 0))

    def reports(self) -> dict[str, dict[str, Any]]:
        """What each station's camera saw over all shifts; the p95 is that of the slowest shift."""
        return {name: _together([self._report(name, shift) for shift in self._shifts]) for name in self._agents}

    def _report(self, name: str, shift: str) -> dict[str, Any]:
        path = _report_file(name, shift)
        nothing = {"sent": 0, "answered": 0, "errors": [], "seconds": 0.0, "p95_ms": None, "parts_by_version": {}}
        return dict(json.loads(path.read_text())) if path.exists() else nothing


def _report_file(name: str, shift: str) -> Path:
    return FOLDER / f"camera-{name}-{shift}.json"


def _together(reports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{key: sum(seen[key] for seen in reports) for key in ("sent", "answered", "seconds")},
        "errors": [error for seen in reports for error in seen["errors"]],
        "p95_ms": max((seen["p95_ms"] for seen in reports if seen["p95_ms"] is not None), default=None),
    }


def each_its_own(cells: Cells) -> dict[str, Cells]:
    """Share the cells out: each passes one station."""
    return {name: cells.take(range(place, len(cells), len(STATIONS))) for place, name in enumerate(STATIONS)}
