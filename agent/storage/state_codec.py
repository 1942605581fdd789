"""SavedState as JSON and back. The shape has a version; a shape that is not known is refused, never guessed at."""

import dataclasses
import json
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from agent.app.ports import FailureRecord, SavedState, ServingRecord, ShadowRecord, Trial
from agent.domain.artifact import Artifact, ArtifactFile, ModelSignature, TensorSpec
from agent.domain.device import DeviceChoice, DeviceMeasurement, Parity, PerformanceHint, RuntimePolicy
from agent.domain.errors import Reason
from agent.domain.result_policy import ResultKeep, ResultPolicy
from agent.domain.slot import (
    CandidateVersion,
    DesiredSlot,
    DesiredState,
    RedactedRegion,
    SamplePolicy,
    ShadowRun,
    ShadowState,
)

SCHEMA_VERSION = 1


def encode(state: SavedState) -> bytes:
    content = {"schema": SCHEMA_VERSION, **_plain_fields(state)}
    return json.dumps(content, indent=1, sort_keys=True).encode()


def decode(content: bytes) -> SavedState:
    """Raises ValueError, KeyError or TypeError when `content` is not what `encode` wrote."""
    value = json.loads(content)
    if value["schema"] != SCHEMA_VERSION:
        raise ValueError(f"schema {value['schema']!r} is not {SCHEMA_VERSION}")
    return SavedState(
        desired=_desired_state(value["desired"]),
        serving=tuple(_serving(item) for item in value["serving"]),
        failures=tuple(FailureRecord(**item) for item in value["failures"]),
        boot_count=int(value["boot_count"]),
        # Files of the first agents have none of these.
        trials=tuple(_trial(item) for item in value.get("trials", ())),
        prepared=tuple(_serving(item) for item in value.get("prepared", ())),
        shadows=tuple(_shadow_record(item) for item in value.get("shadows", ())),
    )


def _plain_fields(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _plain_fields(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return {str(key): _plain(item) for key, item in value.items()}


def _desired_state(value: Any) -> DesiredState:
    return DesiredState(
        generation=int(value["generation"]), slots=tuple(_desired_slot(item) for item in value["slots"])
    )


def _serving(value: Any) -> ServingRecord:
    return ServingRecord(desired=_desired_slot(value["desired"]), choice=_choice(value["choice"]))


def _trial(value: Any) -> Trial:
    before = value["before"]
    return Trial(
        desired=_desired_slot(value["desired"]),
        loads=int(value["loads"]),
        starts=int(value["starts"]),
        before=_serving(before) if before is not None else None,
    )


def _desired_slot(value: Any) -> DesiredSlot:
    policy = value["runtime_policy"]
    return DesiredSlot(
        slot=value["slot"],
        version=int(value["version"]),
        deployment=value["deployment"],
        artifact=_artifact(value["artifact"]),
        signature=_signature(value["signature"]),
        runtime_policy=RuntimePolicy(
            hint=PerformanceHint(policy["hint"]),
            inference_precision=policy["inference_precision"],
            devices=tuple(policy["devices"]),
            swap_wait_seconds=float(policy.get("swap_wait_seconds", 0.0)),
        ),
        sample_policy=_sample_policy(value["sample_policy"]),
        offer=int(value["offer"]),
        # Files of the first agents have none of these.
        prefetch=_candidate(value.get("prefetch")),
        shadow=_shadow(value.get("shadow")),
        fetch_bytes_per_second_max=int(value.get("fetch_bytes_per_second_max", 0)),
        result_policy=_result_policy(value.get("result_policy")),
    )


def _result_policy(value: Any) -> ResultPolicy:
    if value is None:
        return ResultPolicy()
    return ResultPolicy(
        keep=ResultKeep(value["keep"]),
        good_labels=tuple(value["good_labels"]),
        good_score_min=float(value["good_score_min"]),
        one_in=int(value["one_in"]),
    )


def _sample_policy(value: Any) -> SamplePolicy:
    # Files of the first agents have the first three alone.
    regions = tuple(RedactedRegion(**item) for item in value.get("redaction", ()))
    quotas = MappingProxyType({label: int(count) for label, count in value.get("class_quota_per_day", {}).items()})
    return SamplePolicy(**{**value, "redaction": regions, "class_quota_per_day": quotas})


def _candidate(value: Any) -> CandidateVersion | None:
    if value is None:
        return None
    return CandidateVersion(
        version=int(value["version"]), artifact=_artifact(value["artifact"]), signature=_signature(value["signature"])
    )


def _shadow(value: Any) -> ShadowRun | None:
    candidate = _candidate(value["candidate"]) if value is not None else None
    if candidate is None:
        return None
    return ShadowRun(
        candidate=candidate,
        comparisons_max=int(value["comparisons_max"]),
        serving_latency_ms_p99_max=float(value["serving_latency_ms_p99_max"]),
    )


def _shadow_record(value: Any) -> ShadowRecord:
    return ShadowRecord(
        candidate=_desired_slot(value["candidate"]),
        state=ShadowState(value["state"]),
        compared=int(value["compared"]),
        message=value["message"],
        loads=int(value["loads"]),
        starts=int(value["starts"]),
    )


def _artifact(value: Any) -> Artifact:
    return Artifact(digest=value["digest"], files=tuple(ArtifactFile(**item) for item in value["files"]))


def _signature(value: Any) -> ModelSignature:
    return ModelSignature(
        entry_path=value["entry_path"],
        inputs=tuple(_tensor(item) for item in value["inputs"]),
        outputs=tuple(_tensor(item) for item in value["outputs"]),
        format=value["format"],
        precision=value["precision"],
        rt_info=dict(value["rt_info"]),
    )


def _tensor(value: Any) -> TensorSpec:
    return TensorSpec(name=value["name"], datatype=value["datatype"], shape=tuple(value["shape"]))


def _choice(value: Any) -> DeviceChoice:
    return DeviceChoice(
        device=value["device"],
        reason=value["reason"],
        measurements=tuple(_measurement(item) for item in value["measurements"]),
        # Files of the first agents have none of these.
        streams=int(value.get("streams", 0)),
        precision=value.get("precision", ""),
        fingerprint=value.get("fingerprint", ""),
    )


def _measurement(value: Any) -> DeviceMeasurement:
    failure = value["failure"]
    parity = Parity(value.get("parity", Parity.NOT_CHECKED))
    return DeviceMeasurement(**{**value, "failure": Reason(failure) if failure else None, "parity": parity})
