"""Training runs over the API, and their conversion."""

from types import MappingProxyType
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from lineside.v1 import training_run_pb2, training_service_pb2, training_service_pb2_grpc

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.training_run import Progress, TrainingState
from controlplane.rpc.convert.training import (
    parameters_from_proto,
    parameters_to_proto,
    training_request_from_proto,
    training_run_to_proto,
)
from tests.support.factories import after_seconds
from tests.support.training import make_candidate, make_run
from tests.support.wire import bearer, refused

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, json_values, max_size=4))
def test_parameters_come_over_the_wire_as_they_were(parameters: dict[str, Any]) -> None:
    message = Struct.FromString(parameters_to_proto(parameters).SerializeToString())
    assert dict(parameters_from_proto(message)) == parameters


def test_whole_numbers_stay_whole() -> None:
    found = parameters_from_proto(parameters_to_proto({"epochs": 8, "step": 0.5}))
    assert [type(found[name]) for name in ("epochs", "step")] == [int, float]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    message = Struct()
    message.fields["x"].number_value = value
    with pytest.raises(FieldInvalidError, match="finite"):
        parameters_from_proto(message)


def test_a_whole_run_is_told() -> None:
    run = make_run(
        state=TrainingState.JUDGING,
        reason="R",
        message="m",
        attempt=2,
        start_time=after_seconds(1),
        end_time=after_seconds(2),
        progress=Progress(fraction=0.5, message="half"),
        warnings=("w",),
        parameters=MappingProxyType({"x": 4}),
        reported_metrics=MappingProxyType({"auc": 0.9}),
        candidate=make_candidate(),
        cancel_actor="operators/anna",
        revision=3,
    )
    message: Any = training_run_to_proto(run)
    unset = [
        field.name
        for field in message.DESCRIPTOR.fields
        if not (message.HasField(field.name) if field.has_presence else getattr(message, field.name))
    ]
    assert unset == []
    assert (message.name, message.base_version, message.etag) == ("trainingRuns/r1", "models/solar/versions/1", "3")
    assert message.candidate.digest == make_candidate().artifact.digest


@pytest.mark.parametrize("state", TrainingState)
def test_every_state_has_its_word(state: TrainingState) -> None:
    message = training_run_to_proto(make_run(state=state))
    assert training_run_pb2.TrainingRun.State.Name(message.state) == f"STATE_{state}"


@pytest.mark.parametrize(("base_version", "number"), [("models/solar", 0), ("models/solar/versions/3", 3)])
def test_a_request_names_a_version_or_means_the_newest(base_version: str, number: int) -> None:
    request = training_service_pb2.CreateTrainingRunRequest(
        training_run=training_run_pb2.TrainingRun(base_version=base_version, dataset="datasets/d1", trainer="head")
    )
    asked = training_request_from_proto(request, actor="operators/anna")
    assert (asked.model_id, asked.base_version, asked.dataset_id, asked.actor) == (
        "solar",
        number,
        "d1",
        "operators/anna",
    )


async def test_runs_are_served_to_operators(served: Any) -> None:
    metadata = bearer(served.operator_token)
    async with served.box("laptop").tls_channel(served.api) as channel:
        stub: Any = training_service_pb2_grpc.TrainingServiceStub(channel)
        trainers = await stub.ListTrainers(training_service_pb2.ListTrainersRequest(), metadata=metadata)
        assert [trainer.id for trainer in trainers.trainers] == ["finetune", "head", "quantize"]
        runs = await stub.ListTrainingRuns(training_service_pb2.ListTrainingRunsRequest(), metadata=metadata)
        assert list(runs.training_runs) == []
        wanted = training_run_pb2.TrainingRun(base_version="models/solar", dataset="datasets/d", trainer="nobody")
        create = training_service_pb2.CreateTrainingRunRequest(training_run=wanted)
        refusal = await refused(stub.CreateTrainingRun(create, metadata=metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        get = training_service_pb2.GetTrainingRunRequest(name="trainingRuns/r9")
        refusal = await refused(stub.GetTrainingRun(get, metadata=metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
        log = training_service_pb2.ReadTrainingLogRequest(name="trainingRuns/r9")
        refusal = await refused(anext(aiter(stub.ReadTrainingLog(log, metadata=metadata))))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
