"""Training runs."""

from types import MappingProxyType
from typing import Any

from controlplane.domain.catalog import Artifact
from controlplane.domain.ids import DatasetId, Digest, ModelId, TrainingRunId
from controlplane.domain.training_run import Candidate, Progress, TrainingRun, TrainingState
from controlplane.store.mapping.catalog import file_from_json, file_to_json, signature_from_json, signature_to_json
from controlplane.store.mapping.values import Row


def training_run_to_row(run: TrainingRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "uid": run.uid,
        "create_time": run.create_time,
        "update_time": run.update_time,
        "model_id": run.model_id,
        "base_version": run.base_version,
        "dataset_id": run.dataset_id,
        "trainer": run.trainer,
        "creator": run.creator,
        "parameters": dict(run.parameters),
        "state": run.state.value,
        "reason": run.reason,
        "message": run.message,
        "attempt": run.attempt,
        "runner": run.runner,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "progress": _progress_to_json(run.progress),
        "warnings": list(run.warnings),
        "reported_metrics": dict(run.reported_metrics),
        "candidate": _candidate_to_json(run.candidate),
        "cancel_actor": run.cancel_actor,
        "log_digest": run.log_digest,
        "revision": run.revision,
    }


def training_run_from_row(row: Row) -> TrainingRun:
    return TrainingRun(
        id=TrainingRunId(row["id"]),
        uid=row["uid"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        model_id=ModelId(row["model_id"]),
        base_version=row["base_version"],
        dataset_id=DatasetId(row["dataset_id"]),
        trainer=row["trainer"],
        creator=row["creator"],
        parameters=MappingProxyType(dict(row["parameters"])),
        state=TrainingState(row["state"]),
        reason=row["reason"],
        message=row["message"],
        attempt=row["attempt"],
        runner=row["runner"],
        start_time=row["start_time"],
        end_time=row["end_time"],
        progress=_progress_from_json(row["progress"]),
        warnings=tuple(row["warnings"]),
        reported_metrics=MappingProxyType(dict(row["reported_metrics"])),
        candidate=_candidate_from_json(row["candidate"]),
        cancel_actor=row["cancel_actor"],
        log_digest=None if row["log_digest"] is None else Digest(row["log_digest"]),
        revision=row["revision"],
    )


def _progress_to_json(progress: Progress | None) -> dict[str, Any] | None:
    return None if progress is None else {"fraction": progress.fraction, "message": progress.message}


def _progress_from_json(value: Row | None) -> Progress | None:
    return None if value is None else Progress(fraction=value["fraction"], message=value["message"])


def _candidate_to_json(candidate: Candidate | None) -> dict[str, Any] | None:
    if candidate is None:
        return None
    return {
        "artifact": [file_to_json(file) for file in candidate.artifact.files],
        "signature": signature_to_json(candidate.signature),
    }


def _candidate_from_json(value: Row | None) -> Candidate | None:
    if value is None:
        return None
    return Candidate(
        artifact=Artifact(files=tuple(file_from_json(file) for file in value["artifact"])),
        signature=signature_from_json(value["signature"]),
    )
