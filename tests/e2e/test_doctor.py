"""The doctor beside a real controller and a real agent."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.line import Line, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]


def examine(folder: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status, and what was found by check."""
    done = subprocess.run(
        [sys.executable, "-m", "agent.main", "doctor", "--dir", str(folder), "--output", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, {each["check"]: each for each in json.loads(done.stdout)["checks"]}


def test_a_sound_agent_is_well_and_each_fault_of_its_controller_is_named(line: Line) -> None:
    agent = line.start_agent("st-1")
    status, checks = examine(agent.folder)
    assert status == 0, checks
    for check in ("enrolment", "certificate", "controller api", "controller fleet", "controller bytes", "admission"):
        assert checks[check]["grade"] == "OK", checks[check]
    assert checks["clock"]["grade"] == "OK"
    assert "runs on the folder" in checks["lock"]["message"]
    assert agent.grpc_address in checks["port grpc"]["message"]
    assert line.lineside("agents", "revoke", "st-1").returncode == 0
    status, checks = examine(agent.folder)
    assert (status, checks["admission"]["grade"]) == (1, "FAIL")
    assert "revoked" in checks["admission"]["message"]
    assert "lineside tokens create" in checks["admission"]["remedy"]
    line.controller.kill()
    wait_until(lambda: examine(agent.folder)[1]["controller bytes"]["grade"] == "FAIL", what="the bytes process to end")
    status, checks = examine(agent.folder)
    assert status == 1
    assert "see that the controller runs" in checks["controller fleet"]["remedy"]
    assert "admission" not in checks
