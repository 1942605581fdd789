"""Device choice on a real agent with two real devices: probes that misbehave, wrong outputs, a device that dies."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as oip
from tritonclient.utils import InferenceServerException

from tests.support import models
from tests.support.line import Line, Load, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]

FAULTS = Path(__file__).parents[1] / "support" / "faults"
PROBES = {
    "crashes": ("COMPILE_CRASHED", "SIGSEGV"),
    "hangs": ("COMPILE_TIMED_OUT", "no answer within"),
    "lies": ("PROBE_IMPLAUSIBLE", "impossible numbers"),
    "floods": ("COMPILE_CRASHED", "answered more than"),
    "eats": ("COMPILE_FAILED", "memory"),
}


@pytest.fixture
def faults(line: Line, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the agent looks for what is to go wrong."""
    monkeypatch.setenv("COLUMNS", "250")
    folder = line.folder / "faults"
    folder.mkdir()
    agent = line.enroll("st-1")
    agent.environment = {
        "PYTHONPATH": f"{FAULTS}:{Path(__file__).parents[2]}",
        "LINESIDE_TEST_FAULTS": str(folder),
        "LINESIDE_OPENVINO_PLUGINS": "SIMCPU=libopenvino_intel_cpu_plugin.so",
    }
    agent.start()
    return folder


def serve(line: Line, *options: str, first: Path | None = None) -> None:
    first = first or models.classifier_ir(line.folder / "v1", bias=1.0)
    assert line.lineside("models", "publish", "solar", str(first)).stdout.strip() == "solar:1"
    created = line.lineside("deployments", "create", "line3", "--model", "solar:1", "--selector", "line=3", *options)
    assert created.returncode == 0, created.stderr
    line.wait_serving("st-1", "solar", 1)


def roll_out(line: Line, version: int) -> str:
    """What `rollouts show` says at the end."""
    done = line.lineside(
        "rollouts", "start", "line3", "--version", str(version), "--waves", "100%", "--bake", "0s", "--wait"
    )
    assert done.returncode != 0, done.stdout
    (rollout,) = line.json("rollouts", "list")
    shown = line.lineside("rollouts", "show", rollout["name"].rpartition("/")[2]).stdout
    return " ".join(shown.split())


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_that_misbehaves_leaves_what_serves_and_the_rollout_says_so(
    line: Line, faults: Path, kind: str
) -> None:
    serve(line, "--device", "CPU")
    second = models.classifier_ir(line.folder / "v2", bias=3.0)
    assert line.lineside("models", "publish", "solar", str(second)).stdout.strip() == "solar:2"
    (faults / "probe").write_text(kind)
    reason, text = PROBES[kind]
    with Load(line.agents["st-1"].grpc_address, "solar", "a") as load:
        load.wait_answers(5)
        shown = roll_out(line, 2)
        load.wait_answers(5)
    assert not load.failures
    assert {version for version, _ in load.answered.values()} == {"1"}
    assert reason in shown, shown
    assert text in shown
    line.wait_serving("st-1", "solar", 1)


def test_a_version_that_differs_from_its_golden_outputs_is_never_served(line: Line, faults: Path) -> None:
    serve(line)
    inputs, outputs = line.folder / "in.npz", line.folder / "out.npz"
    np.savez(inputs, x=np.zeros((1, 3, 8, 8), np.float32))
    np.savez(outputs, scores=np.array([[0.9, 0.1]], np.float32))
    second = models.classifier_ir(line.folder / "v2", bias=3.0)
    published = line.lineside(
        "models", "publish", "solar", str(second), "--golden", str(inputs), "--golden-outputs", str(outputs)
    )
    assert published.stdout.strip() == "solar:2", published.stderr
    said = roll_out(line, 2)
    assert "PARITY_FAILED" in said
    assert "differs from the golden outputs" in said, said
    assert "scores[0, " in said, said
    line.wait_serving("st-1", "solar", 1)


def shown(line: Line) -> Any:
    (slot,) = line.json("agents", "show", "st-1", "--devices")["slots"]
    return slot


def test_a_device_that_dies_is_left_and_no_request_is_lost(line: Line, faults: Path) -> None:
    serve(line, "--hint", "CUMULATIVE_THROUGHPUT")
    slot = shown(line)
    tried = {measured["device"] for measured in slot["measurements"]}
    assert {"CPU", "SIMCPU", "AUTO:CPU,SIMCPU", "MULTI:CPU,SIMCPU"} <= tried
    (chosen,) = [each for each in slot["measurements"] if each.get("chosen")]
    assert chosen["latency_ms_p99"] >= chosen["latency_ms_p50"] > 0
    assert chosen["throughput_per_second"] > 0
    table = line.lineside("agents", "show", "st-1", "--devices").stdout
    assert "P99 MS" in table
    lost = slot["device"]
    with Load(line.agents["st-1"].grpc_address, "solar", "a") as load:
        load.wait_answers(20)
        (faults / "dead").write_text(lost)
        wait_until(lambda: shown(line)["device"] != lost, what="a fallback")
        after = shown(line)
        load.wait_answers(20)
    assert not load.failures
    assert "was lost" in after["device_reason"]
    agent = line.json("agents", "show", "st-1")
    (condition,) = [each for each in agent["conditions"] if each["type"] == "DevicesAnswer"]
    assert condition["state"] == "FALSE"
    assert lost in condition["message"]
    devices = {result.device for result in wait_until(lambda: line.results("solar"), what="results")}
    wait_until(
        lambda: {result.device for result in line.results("solar")} >= {lost, shown(line)["device"]},
        what=f"results of both devices, not only {devices}",
    )


@pytest.mark.nightly
def test_a_device_that_hangs_is_left_and_only_the_request_that_hangs_in_it_fails(line: Line, faults: Path) -> None:
    """A real inference that never ends, in a real device with one stream."""
    serve(line, "--device", "CPU", "--device", "SIMCPU", first=models.looping_model_ir(line.folder / "endless"))
    lost, agent = shown(line)["device"], line.agents["st-1"]
    image = np.full((1, *models.IMAGE_SHAPE), models.ENDLESS, np.float32)
    tensor = oip.InferInput(models.INPUT_NAME, list(image.shape), "FP32")
    tensor.set_data_from_numpy(image)
    with Load(agent.grpc_address, "solar", "a") as load, oip.InferenceServerClient(agent.grpc_address) as client:
        load.wait_answers(20)
        with pytest.raises(InferenceServerException, match=f"no answer from {re.escape(lost)} within"):
            client.infer("solar", [tensor], parameters={"part_id": "endless"})
        load.wait_answers(20)
    assert not load.failures
    after = wait_until(lambda: (slot := shown(line))["device"] != lost and slot, what="a fallback")
    assert "no answer from" in after["device_reason"]
    results = wait_until(
        lambda: [result for result in line.results("solar") if result.part_id == "endless"], what="its result"
    )
    assert [result.error.startswith("no answer") for result in results] == [True]
    assert agent.stop() == 0, "a stop does not wait for what hangs"
