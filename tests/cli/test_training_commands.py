"""Training runs: what is asked for and what is shown."""

import json

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import training_run_pb2

from controlplane.client import limits
from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController, Refusal

Run = training_run_pb2.TrainingRun
BROKEN = Refusal(code=grpc.StatusCode.UNAVAILABLE)


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRAINING_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(limits, "RETRY_FIRST_SECONDS", 0.001)


def test_a_run_is_asked_for_with_what_the_trainer_is_told(fake: FakeController, lineside: Lineside) -> None:
    words = ("training", "start", "solar:3", "--dataset", "solar-2", "--parameter", "newest_weight=4")
    outcome = lineside(*words, "--parameter", "since=2026-03-01", "--parameter", 'list=[1, "a"]', "--output", "json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["name"] == "trainingRuns/r1"
    assert document["parameters"] == {"newest_weight": 4.0, "since": "2026-03-01", "list": [1.0, "a"]}
    (request,) = fake.requests("CreateTrainingRun")
    assert request.training_run.base_version == "models/solar/versions/3"
    assert (request.training_run.dataset, request.training_run.trainer) == ("datasets/solar-2", "head")
    assert request.request_id
    lineside("training", "start", "solar", "--dataset", "solar-2")
    assert fake.requests("CreateTrainingRun")[1].training_run.base_version == "models/solar"


@pytest.mark.parametrize("parameter", ["weight", "=4"])
def test_a_parameter_without_a_name_or_a_value_is_refused(lineside: Lineside, parameter: str) -> None:
    outcome = lineside("training", "start", "solar", "--dataset", "d", "--parameter", parameter)
    assert outcome.status == 2
    assert "NAME=VALUE" in outcome.err


@pytest.mark.parametrize(
    ("state", "status"), [(Run.STATE_SUCCEEDED, 0), (Run.STATE_FAILED, 3), (Run.STATE_CANCELLED, 3)]
)
def test_waiting_ends_with_the_run(
    fake: FakeController, lineside: Lineside, state: Run.State.ValueType, status: int
) -> None:
    progress = training_run_pb2.TrainingProgress(fraction=0.4, message="epoch 4 of 10")
    fake.training_steps += [Run(), Run(state=Run.STATE_RUNNING, progress=progress), Run(state=state, message="why")]
    outcome = lineside("training", "start", "solar", "--dataset", "d", "--wait")
    assert outcome.status == status
    assert "40% epoch 4 of 10" in outcome.err
    assert "why" in outcome.err


def test_waiting_has_an_end(fake: FakeController, lineside: Lineside) -> None:
    outcome = lineside("training", "start", "solar", "--dataset", "d", "--wait", "--timeout", "0s")
    assert outcome.status == 3
    assert "--follow" in outcome.err


def test_a_run_is_shown_with_its_claims_and_warnings(fake: FakeController, lineside: Lineside) -> None:
    fake.training_runs["trainingRuns/r1"] = Run(
        name="trainingRuns/r1",
        model="models/solar",
        base_version="models/solar/versions/3",
        dataset="datasets/solar-2",
        trainer="head",
        state=Run.STATE_FAILED,
        reason="CRASHED",
        message="it exited with status 1",
        attempt=2,
        warnings=["no Landlock"],
        reported_metrics={"auc": 0.98765},
        create_time=Timestamp(seconds=1_800_000_000),
        cancelling=True,
    )
    shown = lineside("training", "show", "r1").out
    for words in ("FAILED, cancelling", "CRASHED: it exited with status 1", "no Landlock", "claims auc", "0.9877"):
        assert words in shown
    assert json.loads(lineside("training", "list", "--model", "solar", "--output", "json").out)[0]["attempt"] == 2
    assert "CRASHED" in lineside("training", "list").out
    assert lineside("training", "show", "r9").status == 1


def test_a_log_is_printed_as_it_is_over_breaks(fake: FakeController, lineside: Lineside) -> None:
    fake.training_runs["trainingRuns/r1"] = Run(name="trainingRuns/r1")
    fake.training_log += [b"one\n", b"two\n", BROKEN, b"three\n"]
    assert lineside("training", "log", "r1", "--follow").out == "one\ntwo\nthree\n"
    assert [request.offset_bytes for request in fake.requests("ReadTrainingLog")] == [0, 8]
    assert [json.loads(line) for line in lineside("training", "log", "r1", "--output", "json").out.splitlines()] == [
        {"text": "one\n"},
        {"text": "two\n"},
        {"text": "three\n"},
    ]


def test_a_run_is_cancelled_and_tried_again(fake: FakeController, lineside: Lineside) -> None:
    fake.training_runs["trainingRuns/r1"] = Run(name="trainingRuns/r1", state=Run.STATE_RUNNING, attempt=1)
    assert "cancelling" in lineside("training", "cancel", "r1").out
    assert json.loads(lineside("training", "retry", "r1", "--output", "json").out)["attempt"] == 2


def test_trainers_are_listed(fake: FakeController, lineside: Lineside) -> None:
    fake.trainers += [
        training_run_pb2.Trainer(
            id=name, description="refits", time_limit=Duration(seconds=14400), memory_bytes_max=8 << 30
        )
        for name in ("finetune", "head", "quantize")
    ]
    shown = lineside("training", "trainers").out
    assert "quantize" in shown
    assert "4h" in shown
    assert "8.6 GB" in shown
