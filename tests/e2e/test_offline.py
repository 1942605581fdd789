"""The controller is away: the line goes on, and everything is delivered when it is back."""

import pytest

from tests.support import models
from tests.support.line import Line, Load, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]


def test_nothing_fails_and_everything_is_delivered_when_the_controller_is_back(line: Line) -> None:
    agent = line.start_agent("st-1")
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.deploy("d", "m", 1, keep_samples=True)
    line.wait_serving("st-1", "m", 1)
    line.controller.kill()
    with Load(agent.grpc_address, "m", "away") as load:
        load.wait_answers(600)
    assert not load.failures
    line.controller.start()
    wait_until(lambda: len(line.results("m")) >= len(load.answered), what="every result to come back")
    assert sorted(result.part_id for result in line.results("m")) == sorted(load.answered)
    (row,) = line.json("metrics", "show", "--model", "m")
    assert (row["inference_count"], row["error_count"], row["dropped_results"]) == (len(load.answered), 0, 0)
    with line.client() as client:
        wait_until(lambda: next(client.samples.list(model="m"), None), what="samples to come back")


def test_an_agent_restarted_without_a_controller_serves_the_last_known_good(line: Line) -> None:
    agent = line.start_agent("st-1")
    line.publish("m", models.classifier_ir(line.folder / "v1", bias=2.0))
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    line.controller.kill()
    agent.kill()
    agent.start()
    with Load(agent.grpc_address, "m", "alone", threads=1, tolerate_absence=True) as load:
        load.wait_answers(20)
    assert not load.failures
    versions_and_scores = set(load.answered.values())
    assert {version for version, _ in versions_and_scores} == {"1"}
    assert all(score == pytest.approx(models.positive_score(2.0), abs=0.01) for _, score in versions_and_scores)
    line.controller.start()
    wait_until(lambda: len(line.results("m")) >= len(load.answered), what="every result to come back")


def test_a_swap_under_load_fails_no_request_and_results_name_who_answered(line: Line) -> None:
    biases = {1: 0.5, 2: 2.5, 3: -1.5}
    for number, bias in biases.items():
        line.publish("m", models.classifier_ir(line.folder / f"v{number}", bias=bias))
    agent = line.start_agent("st-1")
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    with Load(agent.grpc_address, "m", "swap", threads=4) as load:
        for version in (2, 3, 1):
            with line.client() as client:
                client.rollouts.start("d", model="m", version=version, waves=["100%"])
            line.wait_serving("st-1", "m", version)
            load.wait_answers(20)
            wait_until(
                lambda: not line.json("deployments", "show", "d")["active_rollout"], what="the rollout to succeed"
            )
    assert not load.failures
    assert {version for version, _ in load.answered.values()} == {"1", "2", "3"}
    for answered_by, score in load.answered.values():
        assert score == pytest.approx(models.positive_score(biases[int(answered_by)]), abs=0.01), (
            "content and name agree"
        )
    wait_until(lambda: len(line.results("m")) >= len(load.answered), what="every result to come back")
    by_part = {result.part_id: result for result in line.results("m")}
    assert by_part.keys() == load.answered.keys()
    for part, (answered_by, score) in load.answered.items():
        assert by_part[part].model_version == f"models/m/versions/{answered_by}"
        scores = {label.label: label.score for label in by_part[part].labels}
        assert scores["defect"] == pytest.approx(score, abs=1e-3)
