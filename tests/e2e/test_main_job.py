"""The main job as people do it: the commands of the README, an unmodified client, what came back."""

import json

import numpy as np
import pytest
import tritonclient.grpc as oip
import tritonclient.http as oip_http

from tests.support import models
from tests.support.line import Line, Load, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]


def test_a_model_goes_out_in_waves_and_results_come_back(line: Line) -> None:
    first = models.classifier_ir(line.folder / "v1", bias=1.0)
    second = models.classifier_ir(line.folder / "v2", bias=3.0)
    agents = [line.start_agent(name) for name in ("st-1", "st-2")]

    published = line.lineside("models", "publish", "solar", str(first), "--wait")
    assert published.stdout.strip() == "solar:1", published.stderr
    created = line.lineside(
        "deployments", "create", "solar-line3", "--model", "solar:1", "--selector", "line=3",
        "--hint", "THROUGHPUT", "--sample-random", "1.0",
    )  # fmt: skip
    assert created.returncode == 0, created.stderr
    for agent in agents:
        line.wait_serving(agent.name, "solar", 1)
    assert line.lineside("models", "publish", "solar", str(second)).stdout.strip() == "solar:2"
    assert line.lineside("models", "publish", "solar", str(second)).stdout.strip() == "solar:2", "the same bytes"

    with Load(agents[0].grpc_address, "solar", "a") as one, Load(agents[1].grpc_address, "solar", "b") as two:
        one.wait_answers(20)
        done = line.lineside(
            "rollouts", "start", "solar-line3", "--version", "2", "--waves", "1,100%", "--bake", "1s", "--wait"
        )
        assert done.returncode == 0, done.stderr
        two.wait_answers(20)
    assert not one.failures
    assert not two.failures

    answered = one.answered | two.answered
    results = wait_until(
        lambda: len(found := line.results("solar")) >= len(answered) and found, what="every result to come back"
    )
    assert len(results) == len(answered)
    assert {result.part_id: result.model_version.rpartition("/")[2] for result in results} == {
        part: version for part, (version, _) in answered.items()
    }
    (rollout,) = line.json("rollouts", "list")
    assert (rollout["state"], [wave["state"] for wave in rollout["waves"]]) == ("SUCCEEDED", ["PASSED", "PASSED"])
    shown = line.json("agents", "show", "st-1")
    assert shown["slots"][0]["device"] == "CPU"
    assert "measured for THROUGHPUT" in shown["slots"][0]["device_reason"]
    rows = {row["model_version"]: row for row in line.json("metrics", "show", "--model", "solar")}
    assert sum(row["inference_count"] for row in rows.values()) == len(answered)
    assert all(row["latency_ms_p95"] >= row["latency_ms_p50"] > 0 for row in rows.values())
    sample = line.json("samples", "list", "--model", "solar", "--limit", "1")[0]
    target = line.folder / "sample.npy"
    assert line.lineside("samples", "get", sample["name"], "--out", str(target)).returncode == 0
    assert np.load(target).shape[-3:] == models.IMAGE_SHAPE
    assert sample["result"]["part_id"] in answered


def test_an_agent_that_joins_later_converges_by_itself(line: Line) -> None:
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.deploy("d", "m", 1)
    line.start_agent("late")
    line.wait_serving("late", "m", 1)


def test_unmodified_clients_of_both_transports_get_the_same_answer(line: Line) -> None:
    line.publish("m", models.classifier_ir(line.folder / "v1", bias=2.0))
    line.deploy("d", "m", 1)
    agent = line.start_agent("st-1")
    line.wait_serving("st-1", "m", 1)
    image = np.random.default_rng(5).random((1, *models.IMAGE_SHAPE), dtype=np.float32)
    answers = []
    for library, address in ((oip, agent.grpc_address), (oip_http, agent.http_address)):
        client = library.InferenceServerClient(address)
        assert client.is_server_ready()
        assert client.is_model_ready("m")
        tensor = library.InferInput(models.INPUT_NAME, list(image.shape), "FP32")
        tensor.set_data_from_numpy(image)
        answers.append(client.infer("m", [tensor]).as_numpy(models.OUTPUT_NAME))
        client.close()
    np.testing.assert_array_equal(*answers)


def test_a_version_that_cannot_infer_rolls_back_by_itself(line: Line) -> None:
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.publish("m", models.failing_model_ir(line.folder / "v2"))
    line.deploy("d", "m", 1)
    agents = [line.start_agent(name) for name in ("st-1", "st-2")]
    for agent in agents:
        line.wait_serving(agent.name, "m", 1)
    with Load(agents[0].grpc_address, "m", "a") as one, Load(agents[1].grpc_address, "m", "b") as two:
        done = line.lineside("rollouts", "start", "d", "--version", "2", "--waves", "1,100%", "--wait")
    assert done.returncode == 3, done.stderr
    rollout = line.json("rollouts", "show", done.stdout.split()[0])
    assert rollout["state"] == "ROLLED_BACK"
    assert [wave["state"] for wave in rollout["waves"]] == ["FAILED", "PENDING"]
    assert not one.failures, "the version before answered all the while"
    assert not two.failures
    assert {version for version, _ in (one.answered | two.answered).values()} == {"1"}


def test_errors_are_objects_for_programs(line: Line) -> None:
    done = line.lineside("agents", "show", "nobody", "--output", "json")
    assert done.returncode == 1
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "RESOURCE_NOT_FOUND"
