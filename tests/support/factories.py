"""Entities with sensible values, each field open to an override: `make_agent(id="st-1", revoked=True)`."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.domain.assignment import DesiredSlot, DesiredState
from controlplane.domain.catalog import Artifact, ArtifactFile, Model, ModelSignature, ModelVersion, TensorSpec
from controlplane.domain.deployment import Deployment, RuntimePolicy, SamplePolicy
from controlplane.domain.evidence import (
    EvidenceBatch,
    LabelScore,
    LatencySketch,
    MetricWindow,
    Result,
    ResultOutcome,
    ShadowWindow,
)
from controlplane.domain.gate import Evidence, GateOutcome, GateVerdict
from controlplane.domain.identity import AgentCertificate, JoinToken, OperatorToken
from controlplane.domain.ids import AgentId, Digest, ModelId
from controlplane.domain.inventory import (
    Agent,
    Device,
    DeviceMeasurement,
    Host,
    Observation,
    ObservedSlot,
    ObservedState,
    SlotState,
)
from controlplane.domain.rollout import Rollout, RolloutState, RolloutStrategy, Wave, WaveSize, WaveState
from controlplane.domain.sample import Sample, SampleReason

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""When everything here happens, unless told otherwise."""

ST_1, ST_2 = AgentId("st-1"), AgentId("st-2")
SOLAR, WELD = ModelId("solar"), ModelId("weld")
"""Ids that the factories give, and a second one of each."""


def after_seconds(seconds: float) -> datetime:
    """`NOW` and so many seconds."""
    return NOW + timedelta(seconds=seconds)


def digest_of(content: str | bytes) -> Digest:
    """Digest of the content."""
    raw = content.encode() if isinstance(content, str) else content
    return Digest("sha256:" + hashlib.sha256(raw).hexdigest())


def make_model(**overrides: Any) -> Model:
    model_id = overrides.get("id", "solar")
    return Model(**{"id": model_id, "uid": f"uid-model-{model_id}", "create_time": NOW, **overrides})


def make_artifact(*contents: str) -> Artifact:
    """One file a content, `file-0` onwards."""
    return Artifact(
        files=tuple(
            ArtifactFile(
                path=f"file-{index}",
                digest=digest_of(content),
                size_bytes=len(content.encode()),
                chunk_digests=(hashlib.sha256(content.encode()).digest(),),
            )
            for index, content in enumerate(contents or ("weights",))
        )
    )


def make_signature(**overrides: Any) -> ModelSignature:
    fields: dict[str, Any] = {
        "format": "onnx",
        "entry_path": "file-0",
        "inputs": (TensorSpec(name="image", datatype="FP32", shape=(-1, 3, 224, 224)),),
        "outputs": (TensorSpec(name="probability", datatype="FP32", shape=(-1, 1)),),
        "precision": "f32",
        "rt_info": {"model_info.labels": "good defect"},
    }
    return ModelSignature(**(fields | overrides))


def make_version(**overrides: Any) -> ModelVersion:
    model_id, number = overrides.get("model_id", "solar"), overrides.get("number", 1)
    fields: dict[str, Any] = {
        "model_id": model_id,
        "number": number,
        "uid": f"uid-version-{model_id}-{number}",
        "create_time": NOW,
        "artifact": make_artifact(f"weights of {model_id}:{number}"),
        "signature": make_signature(),
    }
    return ModelVersion(**(fields | overrides))


def make_agent(**overrides: Any) -> Agent:
    agent_id = overrides.get("id", "st-1")
    fields: dict[str, Any] = {"id": agent_id, "uid": f"uid-agent-{agent_id}", "create_time": NOW, "labels": {}}
    return Agent(**(fields | overrides))


def make_host(**overrides: Any) -> Host:
    fields: dict[str, Any] = {"hostname": "box", "os": "Linux", "cpu_count": 8, "memory_bytes": 16 << 30}
    return Host(**(fields | overrides))


def make_device(**overrides: Any) -> Device:
    fields: dict[str, Any] = {
        "device": "CPU",
        "full_name": "A processor",
        "device_type": "INTEGRATED",
        "capabilities": ("FP32", "BF16"),
        "auto_choice": True,
        "properties": {"OPTIMAL_NUMBER_OF_INFER_REQUESTS": "4"},
    }
    return Device(**(fields | overrides))


def make_observed_slot(**overrides: Any) -> ObservedSlot:
    fields: dict[str, Any] = {
        "slot": "solar",
        "serving_version": 1,
        "target_version": 1,
        "state": SlotState.SERVING,
        "device": "CPU",
        "device_reason": "the only device",
        "measurements": (DeviceMeasurement(device="CPU", ok=True, latency_ms_p50=8.5, chosen=True),),
        "serving_time": NOW,
    }
    return ObservedSlot(**(fields | overrides))


def make_observation(**overrides: Any) -> Observation:
    fields: dict[str, Any] = {
        "agent_id": "st-1",
        "observed": ObservedState(generation=1, slots=(make_observed_slot(),), agent_time=NOW, boot_count=1),
        "receive_time": NOW,
        "host": make_host(),
        "devices": (make_device(),),
    }
    return Observation(**(fields | overrides))


def make_certificate(**overrides: Any) -> AgentCertificate:
    fields: dict[str, Any] = {
        "serial": "01",
        "agent_id": "st-1",
        "public_key_sha256": "ab" * 32,
        "not_before": NOW,
        "expire_time": NOW + timedelta(days=30),
    }
    return AgentCertificate(**(fields | overrides))


def make_join_token(**overrides: Any) -> JoinToken:
    token_id = overrides.get("id", "token-1")
    fields: dict[str, Any] = {
        "id": token_id,
        "uid": f"uid-join-{token_id}",
        "secret_sha256": hashlib.sha256(token_id.encode()).hexdigest(),
        "create_time": NOW,
        "expire_time": NOW + timedelta(hours=1),
        "uses": 3,
        "labels": {"line": "3"},
    }
    return JoinToken(**(fields | overrides))


def make_operator_token(**overrides: Any) -> OperatorToken:
    token_id = overrides.get("id", "operator-1")
    fields: dict[str, Any] = {
        "id": token_id,
        "secret_sha256": hashlib.sha256(token_id.encode()).hexdigest(),
        "create_time": NOW,
        "description": "first operator",
    }
    return OperatorToken(**(fields | overrides))


def make_deployment(**overrides: Any) -> Deployment:
    deployment_id = overrides.get("id", "solar-line-3")
    fields: dict[str, Any] = {
        "id": deployment_id,
        "uid": f"uid-deployment-{deployment_id}",
        "create_time": NOW,
        "update_time": NOW,
        "model_id": "solar",
        "version": 1,
        "selector": "line=3",
        "runtime_policy": RuntimePolicy(),
        "sample_policy": SamplePolicy(),
    }
    return Deployment(**(fields | overrides))


def make_desired_slot(**overrides: Any) -> DesiredSlot:
    fields: dict[str, Any] = {
        "slot": "solar",
        "version": 1,
        "deployment_id": "solar-line-3",
        "runtime_policy": RuntimePolicy(),
        "sample_policy": SamplePolicy(),
    }
    return DesiredSlot(**(fields | overrides))


def make_desired(**overrides: Any) -> DesiredState:
    fields: dict[str, Any] = {"agent_id": "st-1", "generation": 1, "slots": (make_desired_slot(),)}
    return DesiredState(**(fields | overrides))


def make_verdict(**overrides: Any) -> GateVerdict:
    fields: dict[str, Any] = {
        "outcome": GateOutcome.PASS,
        "reason": "EVIDENCE_SUFFICIENT",
        "message": "20 of 20 inferences without error",
        "evidence": Evidence(
            targets=1,
            installed=1,
            failed=0,
            inferences=20,
            errors=0,
            wave_inferences=20,
            wave_errors=0,
            wave_age_seconds=10.5,
        ),
        "evaluate_time": NOW,
    }
    return GateVerdict(**(fields | overrides))


def make_wave(**overrides: Any) -> Wave:
    fields: dict[str, Any] = {"index": 0, "size": WaveSize(count=1), "agents": ("st-1",), "state": WaveState.PENDING}
    return Wave(**(fields | overrides))


def make_rollout(**overrides: Any) -> Rollout:
    rollout_id = overrides.get("id", "rollout-1")
    fields: dict[str, Any] = {
        "id": rollout_id,
        "uid": f"uid-rollout-{rollout_id}",
        "create_time": NOW,
        "update_time": NOW,
        "deployment_id": "solar-line-3",
        "model_id": "solar",
        "target_version": 2,
        "previous_version": 1,
        "strategy": RolloutStrategy(waves=(WaveSize(count=1), WaveSize(percent=100)), bake_seconds=10.0),
        "state": RolloutState.RUNNING,
        "reason": "STARTED",
        "message": "",
        "waves": (make_wave(state=WaveState.ADMITTED, admit_time=NOW),),
    }
    return Rollout(**(fields | overrides))


def make_result(**overrides: Any) -> Result:
    fields: dict[str, Any] = {
        "agent_id": "st-1",
        "batch": 1,
        "index": 0,
        "slot": "solar",
        "version": 1,
        "device": "CPU",
        "infer_time": NOW,
        "part_id": "cell-7",
        "request_id": "r-1",
        "outcome": ResultOutcome.OK,
        "labels": (LabelScore(label="defect", score=0.75),),
        "latency_us": 8_500,
    }
    return Result(**(fields | overrides))


def make_window(**overrides: Any) -> MetricWindow:
    fields: dict[str, Any] = {
        "agent_id": "st-1",
        "batch": 1,
        "slot": "solar",
        "version": 1,
        "device": "CPU",
        "start_time": NOW,
        "end_time": after_seconds(60),
        "inference_count": 10,
        "error_count": 1,
        "refused_count": 0,
        "latency": LatencySketch(relative_accuracy=0.01, first_bin_key=100, bin_counts=(4, 6), count=10, sum_ms=85.0),
        "confidence_histogram": (0,) * 19 + (10,),
    }
    return MetricWindow(**(fields | overrides))


def make_shadow_window(**overrides: Any) -> ShadowWindow:
    """By default of candidate 2 beside version 1, alike on nine of ten inputs."""
    sketch = LatencySketch(relative_accuracy=0.01, first_bin_key=100, bin_counts=(4, 6), count=10, sum_ms=85.0)
    fields: dict[str, Any] = {
        "agent_id": "st-1",
        "batch": 1,
        "slot": "solar",
        "serving_version": 1,
        "candidate_version": 2,
        "device": "CPU",
        "start_time": NOW,
        "end_time": after_seconds(60),
        "compared": 10,
        "agreed": 9,
        "errors": 0,
        "skipped": 0,
        "candidate_latency": sketch,
        "serving_latency": sketch,
        "score_distance_histogram": (),
    }
    return ShadowWindow(**(fields | overrides))


def make_batch(**overrides: Any) -> EvidenceBatch:
    """By default one window and one result, of the batch's own agent and number."""
    agent_id, batch = overrides.get("agent_id", "st-1"), overrides.get("batch", 1)
    fields: dict[str, Any] = {
        "agent_id": agent_id,
        "batch": batch,
        "receive_time": NOW,
        "windows": (make_window(agent_id=agent_id, batch=batch),),
        "results": (make_result(agent_id=agent_id, batch=batch),),
    }
    return EvidenceBatch(**(fields | overrides))


def make_sample(**overrides: Any) -> Sample:
    sample_id = overrides.get("id", "sample-1")
    fields: dict[str, Any] = {
        "id": sample_id,
        "agent_id": "st-1",
        "model_id": "solar",
        "capture_time": NOW,
        "create_time": NOW,
        "reason": SampleReason.LEAST_CONFIDENCE,
        "result": make_result(batch=-1, index=-1),
        "content_type": "image/png",
        "digest": digest_of(sample_id),
        "size_bytes": 1_000,
        "input_name": "image",
    }
    return Sample(**(fields | overrides))
