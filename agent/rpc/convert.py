"""The agent's values on the wire. What comes from the controller is checked here, and nowhere further in."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from lineside.v1 import (
    agent_pb2,
    artifact_pb2,
    condition_pb2,
    evidence_pb2,
    evidence_service_pb2,
    fleet_service_pb2,
    model_pb2,
    sample_pb2,
    sample_upload_service_pb2,
    slot_pb2,
)

from agent import limits
from agent.app.conditions import FALSE, TRUE
from agent.app.evidence import result_message, timestamp, version_name
from agent.app.ports import EvidenceBatch, SpooledSample, SyncReply
from agent.domain.artifact import Artifact, ArtifactFile, ModelSignature, TensorSpec, check_path, manifest_digest
from agent.domain.device import Device, DeviceMeasurement, Host, Parity, PerformanceHint, RuntimePolicy
from agent.domain.errors import ArtifactError
from agent.domain.result_policy import ResultKeep, ResultPolicy
from agent.domain.slot import (
    AgentCondition,
    CandidateVersion,
    DesiredSlot,
    DesiredState,
    ObservedShadow,
    ObservedSlot,
    ObservedState,
    RedactedRegion,
    SamplePolicy,
    ShadowRun,
    ShadowState,
    SlotState,
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_WHOLE_ARTIFACT = "."
"""Entry path of a SavedModel, which is a folder."""

_HINTS = {
    slot_pb2.PERFORMANCE_HINT_LATENCY: PerformanceHint.LATENCY,
    slot_pb2.PERFORMANCE_HINT_THROUGHPUT: PerformanceHint.THROUGHPUT,
    slot_pb2.PERFORMANCE_HINT_CUMULATIVE_THROUGHPUT: PerformanceHint.CUMULATIVE_THROUGHPUT,
}
_PARITIES = {
    Parity.NOT_CHECKED: slot_pb2.DeviceMeasurement.PARITY_NOT_CHECKED,
    Parity.PASSED: slot_pb2.DeviceMeasurement.PARITY_PASSED,
    Parity.FAILED: slot_pb2.DeviceMeasurement.PARITY_FAILED,
}
_STATES: Mapping[SlotState, "slot_pb2.ObservedSlot.State.ValueType"] = {
    SlotState.PENDING: slot_pb2.ObservedSlot.STATE_PENDING,
    SlotState.DOWNLOADING: slot_pb2.ObservedSlot.STATE_DOWNLOADING,
    SlotState.PREPARING: slot_pb2.ObservedSlot.STATE_PREPARING,
    SlotState.SERVING: slot_pb2.ObservedSlot.STATE_SERVING,
    SlotState.FAILED: slot_pb2.ObservedSlot.STATE_FAILED,
}
_SHADOW_STATES: Mapping[ShadowState, "slot_pb2.ObservedShadow.State.ValueType"] = {
    ShadowState.PREPARING: slot_pb2.ObservedShadow.STATE_PREPARING,
    ShadowState.RUNNING: slot_pb2.ObservedShadow.STATE_RUNNING,
    ShadowState.COMPLETE: slot_pb2.ObservedShadow.STATE_COMPLETE,
    ShadowState.STOPPED: slot_pb2.ObservedShadow.STATE_STOPPED,
    ShadowState.FAILED: slot_pb2.ObservedShadow.STATE_FAILED,
}
_CONDITION_STATES: Mapping[str, "condition_pb2.Condition.State.ValueType"] = {
    TRUE: condition_pb2.Condition.STATE_TRUE,
    FALSE: condition_pb2.Condition.STATE_FALSE,
}


# --- from the controller ---


def sync_reply(message: fleet_service_pb2.SyncResponse) -> SyncReply:
    """A desired state that cannot be understood becomes a refusal: it is nacked whole, never taken up in part."""
    desired: DesiredState | None = None
    refusal = ""
    if message.HasField("desired_state"):
        try:
            desired = desired_state(message.desired_state)
        except (ValueError, ArtifactError) as error:
            refusal = str(error)
    return SyncReply(
        desired=desired,
        generation=message.generation,
        sync_interval_seconds=message.sync_interval.seconds + message.sync_interval.nanos / 1e9,
        refusal=refusal,
        controller_time=_controller_time(message),
        report_jitter_seconds=message.report_jitter.seconds + message.report_jitter.nanos / 1e9,
    )


def _controller_time(message: fleet_service_pb2.SyncResponse) -> datetime | None:
    if not message.HasField("controller_time"):
        return None
    return message.controller_time.ToDatetime(tzinfo=UTC)


def desired_state(message: slot_pb2.DesiredState) -> DesiredState:
    """Raises ValueError or ArtifactError saying what is wrong and where."""
    if len(message.slots) > limits.SLOTS_MAX:
        raise ValueError(f"desired_state.slots: {len(message.slots)} are more than {limits.SLOTS_MAX}")
    slots = tuple(desired_slot(slot) for slot in message.slots)
    if len({slot.slot for slot in slots}) != len(slots):
        raise ValueError("desired_state.slots: a slot is named twice")
    return DesiredState(generation=message.generation, slots=slots)


def desired_slot(message: slot_pb2.DesiredSlot) -> DesiredSlot:
    if not _ID.fullmatch(message.slot):
        raise ValueError(f"desired_state.slots.slot: {message.slot[:80]!r} is no id")
    if message.fetch_bytes_per_second_max < 0:
        raise ValueError(
            f"desired_state.slots.fetch_bytes_per_second_max: {message.fetch_bytes_per_second_max} is no bound"
        )
    return DesiredSlot(
        slot=message.slot,
        version=version_number(message.slot, message.model_version, "desired_state.slots.model_version"),
        deployment=message.deployment,
        artifact=artifact(message.artifact),
        signature=signature(message.signature),
        runtime_policy=runtime_policy(message.runtime_policy),
        sample_policy=sample_policy(message.sample_policy),
        offer=message.offer,
        prefetch=candidate(message.slot, message.prefetch) if message.HasField("prefetch") else None,
        shadow=shadow_run(message.slot, message.shadow) if message.HasField("shadow") else None,
        fetch_bytes_per_second_max=message.fetch_bytes_per_second_max,
        result_policy=result_policy(message.result_policy),
    )


def result_policy(message: slot_pb2.ResultPolicy) -> ResultPolicy:
    """What this agent does not know keeps all: too many results are a cost, missing ones are a loss."""
    return ResultPolicy(
        keep=_KEEPS.get(message.keep, ResultKeep.ALL),
        good_labels=tuple(message.good_labels),
        good_score_min=message.good_score_min,
        one_in=message.one_in,
    )


_KEEPS = MappingProxyType(
    {
        slot_pb2.ResultPolicy.KEEP_DOUBTFUL: ResultKeep.DOUBTFUL,
        slot_pb2.ResultPolicy.KEEP_ONE_IN: ResultKeep.ONE_IN,
    }
)


def sample_policy(message: slot_pb2.SamplePolicy) -> SamplePolicy:
    """An older controller says nothing of what it does not know, and asks for none of it."""
    distance = message.near_duplicate_distance if message.HasField("near_duplicate_distance") else -1
    return SamplePolicy(
        random_fraction=message.random_fraction,
        confidence_below=message.confidence_below,
        budget_bytes_per_day=message.budget_bytes_per_day,
        margin_below=message.margin_below,
        entropy_above=message.entropy_above if message.HasField("entropy_above") else 1.0,
        class_quota_per_day=MappingProxyType(dict(sorted(message.class_quota_per_day.items()))),
        outlier_above=message.outlier_above,
        shadow_disagreement=message.shadow_disagreement,
        near_duplicate_distance=distance if distance >= 0 else None,
        budget_images_per_day=message.budget_images_per_day,
        redaction=tuple(map(redacted_region, message.redaction)),
    )


def redacted_region(message: slot_pb2.RedactedRegion) -> RedactedRegion:
    """Raises ValueError where it is no part of an image: nothing of such a slot may be kept unredacted."""
    region = RedactedRegion(
        x=message.x,
        y=message.y,
        width=message.width,
        height=message.height,
        blur=message.method == slot_pb2.RedactedRegion.METHOD_BLUR,
    )
    for start, length in ((region.x, region.width), (region.y, region.height)):
        if not (start >= 0.0 and length > 0.0 and start + length <= 1.0 + 1e-6):
            raise ValueError(f"desired_state.slots.sample_policy.redaction: {start:g} + {length:g} is not in an image")
    return region


def version_number(slot: str, name: str, where: str) -> int:
    """Raises ValueError where `name` is no version of the slot's model."""
    prefix, _, number = name.rpartition("/")
    if prefix != f"models/{slot}/versions" or not _NUMBER.fullmatch(number):
        raise ValueError(f"{where}: {name[:160]!r} is no version of the slot")
    return int(number)


def candidate(slot: str, message: slot_pb2.CandidateVersion) -> CandidateVersion:
    return CandidateVersion(
        version=version_number(slot, message.model_version, "desired_state.slots.candidate.model_version"),
        artifact=artifact(message.artifact),
        signature=signature(message.signature),
    )


def shadow_run(slot: str, message: slot_pb2.ShadowRun) -> ShadowRun:
    if message.comparisons_max < 1:
        raise ValueError(f"desired_state.slots.shadow.comparisons_max: {message.comparisons_max} is not 1 or more")
    p99_max = message.serving_latency_ms_p99_max
    if not (math.isfinite(p99_max) and p99_max >= 0):
        raise ValueError(f"desired_state.slots.shadow.serving_latency_ms_p99_max: {p99_max} is no bound")
    return ShadowRun(
        candidate=candidate(slot, message.candidate),
        comparisons_max=message.comparisons_max,
        serving_latency_ms_p99_max=p99_max,
    )


def artifact(message: artifact_pb2.Artifact) -> Artifact:
    if not message.files or len(message.files) > limits.ARTIFACT_FILES_MAX:
        raise ValueError(f"artifact.files: {len(message.files)} is not 1 to {limits.ARTIFACT_FILES_MAX}")
    for file in message.files:
        check_path(file.path)
        if not _DIGEST.fullmatch(file.digest) or file.size_bytes < 0:
            raise ValueError(f"artifact.files.digest: {file.digest[:80]!r} with {file.size_bytes} bytes is no file")
    files = tuple(
        ArtifactFile(path=file.path, digest=file.digest, size_bytes=file.size_bytes) for file in message.files
    )
    if manifest_digest(files) != message.digest:
        raise ValueError(f"artifact.digest: {message.digest[:80]!r} is not the digest of these files")
    return Artifact(digest=message.digest, files=files)


def signature(message: model_pb2.ModelSignature) -> ModelSignature:
    if message.entry_path != _WHOLE_ARTIFACT:
        check_path(message.entry_path)
    return ModelSignature(
        entry_path=message.entry_path,
        inputs=tuple(_tensor(tensor) for tensor in message.inputs),
        outputs=tuple(_tensor(tensor) for tensor in message.outputs),
        format=message.format,
        precision=message.precision,
        rt_info=dict(message.rt_info),
    )


def _tensor(message: model_pb2.TensorSpec) -> TensorSpec:
    return TensorSpec(name=message.name, datatype=message.datatype, shape=tuple(message.shape))


def runtime_policy(message: slot_pb2.RuntimePolicy) -> RuntimePolicy:
    return RuntimePolicy(
        hint=_HINTS.get(message.hint, PerformanceHint.LATENCY),
        inference_precision=message.inference_precision,
        devices=tuple(message.devices),
        swap_wait_seconds=min(
            limits.SWAP_WAIT_SECONDS_MAX, max(0.0, message.swap_wait.seconds + message.swap_wait.nanos / 1e9)
        ),
    )


# --- to the controller ---


def sync_request(
    state: ObservedState, *, host: Host | None, devices: Sequence[Device] | None
) -> fleet_service_pb2.SyncRequest:
    return fleet_service_pb2.SyncRequest(
        observed_state=observed_state(state),
        host=host_message(host) if host is not None else None,
        devices=[device_message(device) for device in devices or ()],
    )


def observed_state(state: ObservedState) -> slot_pb2.ObservedState:
    return slot_pb2.ObservedState(
        generation=state.generation,
        slots=[observed_slot(slot) for slot in state.slots],
        conditions=[condition_message(condition) for condition in state.conditions],
        agent_time=timestamp(state.agent_time),
        nack_message=state.nack_message,
        nack_generation=state.nack_generation,
        boot_count=state.boot_count,
        sample_counts=slot_pb2.SampleCounts(
            kept_counts=_counted(state.sample_counts.kept),
            skipped_counts=_counted(state.sample_counts.skipped),
            waiting_count=state.sample_counts.waiting,
            waiting_bytes=state.sample_counts.waiting_bytes,
        ),
    )


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    """Those that are not 0: an agent that keeps nothing says nothing of it at every sync."""
    return {word: count for word, count in counts.items() if count}


def observed_slot(slot: ObservedSlot) -> slot_pb2.ObservedSlot:
    choice = slot.device_choice
    return slot_pb2.ObservedSlot(
        slot=slot.slot,
        serving_version=version_name(slot.slot, slot.serving_version),
        target_version=version_name(slot.slot, slot.target_version),
        state=_STATES[slot.state],
        device=choice.device if choice is not None else "",
        device_reason=choice.reason if choice is not None else "",
        measurements=[measurement_message(each) for each in choice.measurements] if choice is not None else [],
        failure_reason=slot.failure_reason,
        failure_message=slot.failure_message,
        downloaded_bytes=slot.downloaded_bytes,
        offer=slot.offer,
        serving_time=timestamp(slot.serving_time) if slot.serving_time is not None else None,
        last_known_good=slot.last_known_good,
        prefetched_version=version_name(slot.slot, slot.prefetched_version),
        prefetch_failure=slot.prefetch_failure,
        shadow=shadow_message(slot.slot, slot.shadow) if slot.shadow is not None else None,
    )


def shadow_message(slot: str, shadow: ObservedShadow) -> slot_pb2.ObservedShadow:
    return slot_pb2.ObservedShadow(
        candidate_version=version_name(slot, shadow.candidate_version),
        state=_SHADOW_STATES[shadow.state],
        compared_count=shadow.compared,
        message=shadow.message,
        offer=shadow.offer,
    )


def measurement_message(measurement: DeviceMeasurement) -> slot_pb2.DeviceMeasurement:
    return slot_pb2.DeviceMeasurement(
        device=measurement.device,
        ok=measurement.ok,
        latency_ms_p50=measurement.latency_ms_p50,
        throughput_per_second=measurement.throughput_per_second,
        compile_duration=_duration(measurement.compile_seconds),
        error=measurement.error,
        chosen=measurement.chosen,
        latency_ms_p99=measurement.latency_ms_p99,
        streams=measurement.streams,
        inference_precision=measurement.precision,
        memory_bytes=measurement.memory_bytes,
        parity=_PARITIES[measurement.parity],
        difference=measurement.difference,
        remark=measurement.remark,
    )


def _duration(seconds: float) -> Duration:
    whole, nanos = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)


def condition_message(condition: AgentCondition) -> condition_pb2.Condition:
    return condition_pb2.Condition(
        type=condition.type,
        state=_CONDITION_STATES.get(condition.state, condition_pb2.Condition.STATE_UNKNOWN),
        reason=condition.reason,
        message=condition.message,
        transition_time=timestamp(condition.transition_time),
    )


def host_message(host: Host) -> agent_pb2.Host:
    return agent_pb2.Host(
        hostname=host.hostname,
        os=host.os,
        os_release=host.os_release,
        architecture=host.architecture,
        cpu_model=host.cpu_model,
        cpu_count=host.cpu_count,
        memory_bytes=host.memory_bytes,
        disk_bytes=host.disk_bytes,
        disk_free_bytes=host.disk_free_bytes,
        agent_version=host.agent_version,
        openvino_version=host.openvino_version,
    )


def device_message(device: Device) -> agent_pb2.Device:
    return agent_pb2.Device(
        device=device.device,
        full_name=device.full_name,
        device_type=device.device_type,
        capabilities=device.capabilities,
        memory_bytes=device.memory_bytes,
        driver_version=device.driver_version,
        auto_choice=device.auto_choice,
        properties=dict(device.properties),
    )


def evidence_request(
    batch: EvidenceBatch, *, files: Sequence[evidence_service_pb2.ResultFile] = ()
) -> evidence_service_pb2.ReportEvidenceRequest:
    """The batch, with its results in columns where `files` are given."""
    return evidence_service_pb2.ReportEvidenceRequest(
        batch=batch.number,
        windows=[evidence_pb2.MetricWindow.FromString(window) for window in batch.windows],
        results=[] if files else [result_message(result) for result in batch.results],
        result_files=files,
        dropped_results=batch.dropped_results,
        omitted_results=batch.omitted_results,
        shadow_windows=[evidence_pb2.ShadowWindow.FromString(window) for window in batch.shadow_windows],
    )


def sample_request(sample: SpooledSample) -> sample_upload_service_pb2.UploadSampleRequest:
    return sample_upload_service_pb2.UploadSampleRequest(
        sample_id=sample.id, sample=sample_pb2.Sample.FromString(sample.sample), content=sample.content
    )
