"""Training runs on the wire."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf.struct_pb2 import Struct
from lineside.v1 import training_run_pb2, training_service_pb2

from controlplane.app.training import TrainingRequest
from controlplane.domain.audit import Json
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import DatasetId
from controlplane.domain.trainer import Trainer
from controlplane.domain.training_run import Progress, TrainingRun, TrainingState
from controlplane.rpc.convert.artifacts import artifact_to_proto, signature_to_proto
from controlplane.rpc.convert.etags import etag_of
from controlplane.rpc.convert.names import parse_dataset_name, parse_model_name, parse_version_name, version_name
from controlplane.rpc.convert.times import optional_time_to_proto, seconds_to_proto, time_to_proto

_STATES: Mapping[TrainingState, training_run_pb2.TrainingRun.State.ValueType] = MappingProxyType(
    {
        TrainingState.QUEUED: training_run_pb2.TrainingRun.STATE_QUEUED,
        TrainingState.RUNNING: training_run_pb2.TrainingRun.STATE_RUNNING,
        TrainingState.JUDGING: training_run_pb2.TrainingRun.STATE_JUDGING,
        TrainingState.SUCCEEDED: training_run_pb2.TrainingRun.STATE_SUCCEEDED,
        TrainingState.FAILED: training_run_pb2.TrainingRun.STATE_FAILED,
        TrainingState.CANCELLED: training_run_pb2.TrainingRun.STATE_CANCELLED,
    }
)


def training_request_from_proto(
    request: training_service_pb2.CreateTrainingRunRequest, *, actor: str
) -> TrainingRequest:
    """Return what is asked for; `models/{model}` in place of a version means the newest. Raises FieldInvalidError."""
    run = request.training_run
    if "/versions/" in run.base_version:
        model_id, number = parse_version_name(run.base_version, field="training_run.base_version")
    else:
        model_id, number = parse_model_name(run.base_version, field="training_run.base_version"), 0
    return TrainingRequest(
        model_id=model_id,
        base_version=number,
        dataset_id=DatasetId(parse_dataset_name(run.dataset, field="training_run.dataset")),
        trainer=run.trainer,
        parameters=parameters_from_proto(run.parameters),
        actor=actor,
        request_id=request.request_id,
    )


def training_run_to_proto(run: TrainingRun) -> training_run_pb2.TrainingRun:
    candidate = run.candidate
    return training_run_pb2.TrainingRun(
        name=run.name,
        uid=run.uid,
        create_time=time_to_proto(run.create_time),
        update_time=time_to_proto(run.update_time),
        etag=etag_of(run.revision),
        model=f"models/{run.model_id}",
        base_version=version_name(run.model_id, run.base_version),
        dataset=f"datasets/{run.dataset_id}",
        trainer=run.trainer,
        parameters=parameters_to_proto(run.parameters),
        creator=run.creator,
        state=_STATES[run.state],
        reason=run.reason,
        message=run.message,
        attempt=run.attempt,
        start_time=optional_time_to_proto(run.start_time),
        end_time=optional_time_to_proto(run.end_time),
        progress=_progress_to_proto(run.progress),
        warnings=run.warnings,
        reported_metrics=run.reported_metrics,
        candidate=artifact_to_proto(candidate.artifact) if candidate is not None else None,
        candidate_signature=signature_to_proto(candidate.signature) if candidate is not None else None,
        cancelling=bool(run.cancel_actor),
    )


def trainer_to_proto(trainer: Trainer) -> training_run_pb2.Trainer:
    """Return the trainer without its environment, which may hold secrets."""
    return training_run_pb2.Trainer(
        id=trainer.id,
        description=trainer.description,
        command=trainer.command,
        time_limit=seconds_to_proto(trainer.time_limit_seconds),
        memory_bytes_max=trainer.memory_bytes_max,
        output_bytes_max=trainer.output_bytes_max,
    )


def parameters_from_proto(message: Struct) -> Mapping[str, Json]:
    """Return the values by name; whole numbers are integers again. Raises FieldInvalidError for no JSON."""
    return MappingProxyType({name: _json(value) for name, value in sorted(message.fields.items())})


def parameters_to_proto(parameters: Mapping[str, Json]) -> Struct:
    message = Struct()
    message.update(parameters)
    return message


def _json(value: Any) -> Json:
    match value.WhichOneof("kind"):
        case "bool_value":
            return bool(value.bool_value)
        case "number_value":
            return _number(value.number_value)
        case "string_value":
            return str(value.string_value)
        case "struct_value":
            return {name: _json(inner) for name, inner in sorted(value.struct_value.fields.items())}
        case "list_value":
            return [_json(inner) for inner in value.list_value.values]
        case _:
            return None


def _number(value: float) -> Json:
    if not math.isfinite(value):
        raise FieldInvalidError(
            f"{value} is no number of JSON", field="training_run.parameters", remedy="send finite numbers"
        )
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


def _progress_to_proto(progress: Progress | None) -> training_run_pb2.TrainingProgress | None:
    if progress is None:
        return None
    return training_run_pb2.TrainingProgress(fraction=progress.fraction, message=progress.message)
