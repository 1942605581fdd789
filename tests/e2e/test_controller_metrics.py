"""What a monitoring system sees of the controller agrees with what was done."""

import re
import subprocess
import sys

import pytest

from tests.support import models, scrape
from tests.support.line import Line, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]


@pytest.fixture
def watched(line: Line) -> tuple[Line, str]:
    """A line whose controller serves metrics, and where."""
    line.controller.kill()
    line.controller.options = (*line.controller.options, "--metrics", "127.0.0.1:0")
    line.controller.start()
    found = re.findall(r'"listener": "metrics", "address": "([^"]+)"', line.controller.log())
    return line, found[-1]


def test_agents_rollouts_jobs_and_streams_are_seen(watched: tuple[Line, str]) -> None:
    line, address = watched

    def seen(name: str, **labels: str) -> float:
        return scrape.scrape(address).find(f"lineside_controller_{name}", **labels)

    wait_until(lambda: seen("leader") == 1, what="the controller to lead")
    agent = line.start_agent("st-1")
    for number in (1, 2):
        line.publish("m", models.classifier_ir(line.folder / f"v{number}", bias=float(number)))
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    wait_until(lambda: seen("agents", state="connected") == 1, what="the agent to be counted")
    assert seen("sync_streams") == 1
    before = seen("sync_messages_total")
    wait_until(lambda: seen("sync_messages_total") > before, what="another message")
    found = scrape.scrape(address)
    assert found.total("lineside_controller_job_seconds_count", job="rollouts", outcome="done") > 0
    assert found.total("lineside_controller_job_seconds_count", job="convergence", outcome="done") > 0
    assert found.value("lineside_controller_transaction_seconds_count", kind="write") > 0
    assert found.value("process_resident_memory_bytes") > 10e6
    assert found.value("lineside_controller_rollouts", state="running") == 0
    agent.kill()
    wait_until(lambda: seen("sync_streams") == 0, what="the stream to end")
    wait_until(lambda: seen("agents", state="disconnected") == 1, what="the agent to count as away")


def test_metrics_stay_on_the_machine_unless_allowed(line: Line) -> None:
    command = ["serve", "--dir", str(line.controller.folder), "--metrics", "0.0.0.0:0"]
    done = subprocess.run(
        [sys.executable, "-m", "controlplane.main", *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "--allow-remote" in done.stderr
