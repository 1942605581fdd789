"""A bench measures the slot's version, and leaves no trace in what the agent reports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.live import read_live_status
from agent.storage.folder import AgentFolder
from tests.support import models
from tests.support.line import Line

pytestmark = [pytest.mark.nightly, pytest.mark.e2e, pytest.mark.openvino]


def bench(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["bench", "--dir", str(folder), "--seconds", "0.5", "--in-flight", "2", "--output", "json", *options]
    return subprocess.run(
        [sys.executable, "-m", "agent.main", *command], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_bench_compares_three_paths_and_touches_no_result(line: Line) -> None:
    agent = line.start_agent("st-1")
    refused = bench(agent.folder, "--yes")
    assert refused.returncode == 1
    assert "deploy a model" in refused.stderr
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.deploy("d", "m", 1, keep_samples=True)
    line.wait_serving("st-1", "m", 1)
    refused = bench(agent.folder)
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    before = sorted(path.name for path in agent.folder.rglob("*"))
    done = bench(agent.folder, "--yes")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["slot"], found["version"], found["device"]) == ("m", 1, "CPU")
    rows = {row["path"]: row for row in found["paths"]}
    assert list(rows) == ["bare OpenVINO", "gRPC", "gRPC, shared memory"]
    assert rows["bare OpenVINO"]["ratio"] == 1
    assert all(row["per_second"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in rows.values())
    live = read_live_status(AgentFolder(agent.folder))
    assert live is not None
    assert [slot["requests"] for slot in live["slots"]] == [0]
    assert live["samples"]["kept"] == 0
    assert sorted(path.name for path in agent.folder.rglob("*")) == before
    assert not line.results("m")
    assert not list(Path("/dev/shm").glob("lineside_bench_*"))
    assert bench(agent.folder, "--yes", "--slot", "other").returncode == 1
