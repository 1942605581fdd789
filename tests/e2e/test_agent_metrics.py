"""What a monitoring system sees of an agent agrees with what was done."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as oip
from tritonclient.utils import InferenceServerException

from agent.live import read_live_metrics, read_live_status
from agent.storage.folder import AgentFolder
from tests.support import models, scrape
from tests.support.agent_process import AgentProcess
from tests.support.line import Line, Load, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]


def watched_agent(line: Line) -> tuple[AgentProcess, str]:
    """An agent that serves metrics, and where."""
    agent = line.enroll("st-1")
    agent.start("--metrics", "127.0.0.1:0")
    status = read_live_status(AgentFolder(agent.folder))
    assert status is not None
    return agent, str(status["listening"]["metrics"])


def refuse(agent: AgentProcess) -> None:
    """One request for a slot that nobody has, and one with a wrong shape."""
    with oip.InferenceServerClient(agent.grpc_address) as client:
        tensor = oip.InferInput("image", [1, 7], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 7), np.float32))
        for model in ("made-up-by-a-caller", "m"):
            with pytest.raises(InferenceServerException):
                client.infer(model, [tensor])


def test_counts_agree_with_what_was_done_also_over_a_swap_and_back(line: Line) -> None:
    for number in (1, 2):
        line.publish("m", models.classifier_ir(line.folder / f"v{number}", bias=float(number)))
    agent, address = watched_agent(line)
    line.deploy("d", "m", 1, keep_samples=True)
    line.wait_serving("st-1", "m", 1)
    with Load(agent.grpc_address, "m", "watched", threads=2) as load:
        load.wait_answers(20)
        for version in (2, 1):
            with line.client() as client:
                client.rollouts.start("d", model="m", version=version, waves=["100%"])
            line.wait_serving("st-1", "m", version)
            load.wait_answers(20)
    assert not load.failures
    refuse(agent)
    found = scrape.scrape(address)
    by_version = {
        version: sum(1 for answered, _ in load.answered.values() if answered == version) for version in ("1", "2")
    }
    assert min(by_version.values()) > 0
    for ran, count in by_version.items():
        of: dict[str, str] = {"slot": "m", "version": ran, "device": "CPU"}
        assert found.value("lineside_agent_inferences_total", outcome="ok", **of) == count
        assert found.value("lineside_agent_request_seconds_count", **of) == count
        assert found.value("lineside_agent_request_seconds_bucket", le="+Inf", **of) == count
        assert found.value("lineside_agent_inference_seconds_sum", **of) > 0
        assert found.value("lineside_agent_inference_seconds_sum", **of) < found.value(
            "lineside_agent_request_seconds_sum", **of
        )
    assert found.value("lineside_agent_swaps_total", slot="m") == 2
    assert found.value("lineside_agent_refused_total", slot="", reason="model_not_found") == 1
    assert found.value("lineside_agent_refused_total", slot="m", reason="input_invalid") == 1
    assert found.value("lineside_agent_slot_version", slot="m", kind="serving") == 1
    assert found.value("lineside_agent_slot_state", slot="m", state="serving") == 1
    assert found.value("lineside_agent_downloads_total", outcome="complete") == 2
    assert found.total("lineside_agent_download_bytes_total") > 0
    kept_or_skipped = found.total("lineside_agent_samples_kept_total") + found.total(
        "lineside_agent_samples_skipped_total"
    )
    assert 0 < kept_or_skipped <= len(load.answered)
    assert found.value("process_resident_memory_bytes") > 50e6
    assert found.value("lineside_agent_disk_free_bytes") > 0
    assert found.types["lineside_agent_request_seconds"] == "histogram"


def test_a_controller_that_is_away_is_seen(line: Line) -> None:
    agent, address = watched_agent(line)
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    before = scrape.scrape(address)
    assert before.value("lineside_agent_controller_connected") == 1
    assert before.value("lineside_agent_sync_age_seconds") < 20
    assert abs(before.value("lineside_agent_clock_offset_seconds")) < 5
    line.controller.kill()
    with Load(agent.grpc_address, "m", "alone", threads=1) as load:
        load.wait_answers(20)
        wait_until(
            lambda: scrape.scrape(address).find("lineside_agent_spool_waiting", spool="results") > 0, what="spool"
        )
    away = scrape.scrape(address)
    assert away.value("lineside_agent_controller_connected") == 0
    assert away.value("lineside_agent_sync_failures_total") > before.value("lineside_agent_sync_failures_total")
    assert away.value("lineside_agent_spool_bytes", spool="results") > 0
    line.controller.start()
    wait_until(lambda: scrape.scrape(address).value("lineside_agent_controller_connected") == 1, what="it to be back")
    wait_until(lambda: scrape.scrape(address).value("lineside_agent_spool_waiting", spool="results") == 0, what="spool")


def test_status_shows_the_running_agent_and_only_while_it_runs(line: Line, tmp_path: Path) -> None:
    agent, _ = watched_agent(line)
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    with Load(agent.grpc_address, "m", "status", threads=1) as load:
        load.wait_answers(5)
    live = read_live_status(AgentFolder(agent.folder))
    assert live is not None
    (slot,) = live["slots"]
    assert (slot["slot"], slot["state"], slot["serving_version"], slot["device"]) == ("m", "SERVING", 1, "CPU")
    assert slot["requests"] == len(load.answered)
    assert live["listening"]["grpc"] == agent.grpc_address
    assert live["sync"]["connected"] is True
    assert [each["device"] for each in live["devices"]] == ["CPU"]
    assert "lineside_agent_inferences_total" in (read_live_metrics(AgentFolder(agent.folder)) or "")
    assert (agent.folder / "status.sock").stat().st_mode & 0o077 == 0
    text = status_text(agent.folder)
    assert "connected" in text
    assert agent.grpc_address in text
    agent.kill()
    assert read_live_status(AgentFolder(agent.folder)) is None
    assert "does not run" in status_text(agent.folder)
    agent.start()
    assert read_live_status(AgentFolder(agent.folder)) is not None


def test_metrics_stay_on_the_box_unless_allowed(line: Line) -> None:
    agent = line.enroll("st-1")
    done = subprocess.run(
        [sys.executable, "-m", "agent.main", "run", "--dir", str(agent.folder), "--metrics", "0.0.0.0:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "--allow-remote" in done.stderr


def status_text(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "agent.main", "status", "--dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
    )
    return done.stdout
