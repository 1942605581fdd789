"""Training runs, and a runner that does what a test says."""

from typing import Any

from controlplane.domain.catalog import Artifact, ArtifactFile, ModelSignature, TensorSpec
from controlplane.domain.ids import DatasetId, ModelId, TrainingRunId
from controlplane.domain.training_run import Candidate, TrainingRun
from tests.support.factories import after_seconds, digest_of


def make_run(run_id: str = "r1", **changes: Any) -> TrainingRun:
    values: dict[str, Any] = {
        "id": TrainingRunId(run_id),
        "uid": f"uid-{run_id}",
        "create_time": after_seconds(0),
        "update_time": after_seconds(0),
        "model_id": ModelId("solar"),
        "base_version": 1,
        "dataset_id": DatasetId("d1"),
        "trainer": "head",
        "creator": "operators/anna",
    }
    return TrainingRun(**(values | changes))


def make_signature(**changes: Any) -> ModelSignature:
    values: dict[str, Any] = {
        "format": "ir",
        "entry_path": "model.xml",
        "inputs": (TensorSpec(name="image", datatype="UINT8", shape=(1, 4, 4, 1)),),
        "outputs": (TensorSpec(name="defect_probability", datatype="FP32", shape=(1, 1)),),
        "precision": "f32",
        "rt_info": {"model_info/labels": "ok defect"},
    }
    return ModelSignature(**(values | changes))


def make_candidate(content: bytes = b"candidate") -> Candidate:
    file = ArtifactFile(
        path="model.xml", digest=digest_of(content), size_bytes=len(content), chunk_digests=(bytes(32),)
    )
    return Candidate(artifact=Artifact(files=(file,)), signature=make_signature())
