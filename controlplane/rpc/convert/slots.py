"""Desired and observed slots on the wire, and the policies that they are run by."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from lineside.v1 import slot_pb2

from controlplane import limits
from controlplane.app.desired import ResolvedState, VersionKey
from controlplane.domain.assignment import DesiredSlot, ShadowRun
from controlplane.domain.catalog import ModelVersion
from controlplane.domain.deployment import PerformanceHint, RuntimePolicy
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import ModelId, check_resource_id
from controlplane.domain.inventory import (
    DeviceMeasurement,
    ObservedShadow,
    ObservedSlot,
    ObservedState,
    Parity,
    SampleCounts,
    ShadowState,
    SlotState,
)
from controlplane.rpc.convert.artifacts import artifact_to_proto, signature_to_proto
from controlplane.rpc.convert.conditions import condition_from_proto
from controlplane.rpc.convert.names import parse_version_name, version_name
from controlplane.rpc.convert.result_policies import result_policy_to_proto
from controlplane.rpc.convert.sample_policies import sample_policy_to_proto
from controlplane.rpc.convert.times import (
    optional_time_to_proto,
    seconds_from_proto,
    seconds_to_proto,
    time_from_proto,
)

_HINTS = MappingProxyType(
    {
        PerformanceHint.LATENCY: slot_pb2.PERFORMANCE_HINT_LATENCY,
        PerformanceHint.THROUGHPUT: slot_pb2.PERFORMANCE_HINT_THROUGHPUT,
        PerformanceHint.CUMULATIVE_THROUGHPUT: slot_pb2.PERFORMANCE_HINT_CUMULATIVE_THROUGHPUT,
    }
)
_Wire = slot_pb2.ObservedSlot
_HINTS_FROM_WIRE = MappingProxyType({wire: hint for hint, wire in _HINTS.items()})
_PARITIES = MappingProxyType(
    {
        Parity.NOT_CHECKED: slot_pb2.DeviceMeasurement.PARITY_NOT_CHECKED,
        Parity.PASSED: slot_pb2.DeviceMeasurement.PARITY_PASSED,
        Parity.FAILED: slot_pb2.DeviceMeasurement.PARITY_FAILED,
    }
)
_PARITIES_FROM_WIRE = MappingProxyType({wire: parity for parity, wire in _PARITIES.items()})
_STATES = MappingProxyType(
    {
        SlotState.PENDING: _Wire.STATE_PENDING,
        SlotState.DOWNLOADING: _Wire.STATE_DOWNLOADING,
        SlotState.PREPARING: _Wire.STATE_PREPARING,
        SlotState.SERVING: _Wire.STATE_SERVING,
        SlotState.FAILED: _Wire.STATE_FAILED,
    }
)
_STATES_FROM_WIRE = MappingProxyType({wire: state for state, wire in _STATES.items()})
_SHADOW_STATES = MappingProxyType(
    {
        ShadowState.PREPARING: slot_pb2.ObservedShadow.STATE_PREPARING,
        ShadowState.RUNNING: slot_pb2.ObservedShadow.STATE_RUNNING,
        ShadowState.COMPLETE: slot_pb2.ObservedShadow.STATE_COMPLETE,
        ShadowState.STOPPED: slot_pb2.ObservedShadow.STATE_STOPPED,
        ShadowState.FAILED: slot_pb2.ObservedShadow.STATE_FAILED,
    }
)
_SHADOW_STATES_FROM_WIRE = MappingProxyType({wire: state for state, wire in _SHADOW_STATES.items()})


def runtime_policy_to_proto(policy: RuntimePolicy) -> slot_pb2.RuntimePolicy:
    """Return the policy."""
    return slot_pb2.RuntimePolicy(
        hint=_HINTS[policy.hint],
        inference_precision=policy.inference_precision,
        devices=policy.devices,
        swap_wait=seconds_to_proto(policy.swap_wait_seconds) if policy.swap_wait_seconds else None,
    )


def runtime_policy_from_proto(message: slot_pb2.RuntimePolicy) -> RuntimePolicy:
    """Return the policy; raises FieldInvalidError as its constructor does. A hint that is not known is LATENCY."""
    return RuntimePolicy(
        hint=_HINTS_FROM_WIRE.get(message.hint, PerformanceHint.LATENCY),
        inference_precision=message.inference_precision,
        devices=tuple(message.devices),
        swap_wait_seconds=_swap_wait_seconds(message),
    )


def _swap_wait_seconds(message: slot_pb2.RuntimePolicy) -> float:
    field = "deployment.runtime_policy.swap_wait"
    seconds = seconds_from_proto(message.swap_wait, field=field)
    if not 0.0 <= seconds <= limits.SWAP_WAIT_SECONDS_MAX:
        raise FieldInvalidError(
            f"{seconds:g} s is no wait",
            field=field,
            remedy=f"use 0 s (a swap waits for nobody) to {limits.SWAP_WAIT_SECONDS_MAX:g} s",
        )
    return seconds


def desired_state_to_proto(resolved: ResolvedState) -> slot_pb2.DesiredState:
    """Return the state with all that an agent needs to run it."""
    return DesiredStateWriter().write(resolved)


class DesiredStateWriter:
    """Writes desired states of many agents: a slot that is the same for all of them is built once."""

    def __init__(self) -> None:
        self._built: dict[tuple[object, ...], tuple[DesiredSlot, slot_pb2.DesiredSlot]] = {}

    def write(self, resolved: ResolvedState) -> slot_pb2.DesiredState:
        """Return the state with all that an agent needs to run it."""
        return slot_pb2.DesiredState(
            generation=resolved.desired.generation,
            slots=[self._slot(slot, resolved.versions) for slot in resolved.desired.slots],
        )

    def _slot(self, slot: DesiredSlot, versions: Mapping[VersionKey, ModelVersion]) -> slot_pb2.DesiredSlot:
        # The slot itself has no hash, so what tells most slots apart finds one, and it counts where it is equal.
        key = (slot.slot, slot.deployment_id, slot.version, slot.prefetch_version, slot.shadow is None)
        built = self._built.get(key)
        if built is not None and built[0] == slot:
            return built[1]
        if len(self._built) >= limits.SLOT_MESSAGES_CACHED_MAX:
            self._built.clear()
        message = _desired_slot_to_proto(slot, versions)
        self._built[key] = (slot, message)
        return message


def _desired_slot_to_proto(slot: DesiredSlot, versions: Mapping[VersionKey, ModelVersion]) -> slot_pb2.DesiredSlot:
    version = versions[slot.slot, slot.version]
    message = slot_pb2.DesiredSlot(
        slot=slot.slot,
        model_version=version.name,
        deployment=f"deployments/{slot.deployment_id}",
        artifact=artifact_to_proto(version.artifact),
        signature=signature_to_proto(version.signature),
        runtime_policy=runtime_policy_to_proto(slot.runtime_policy),
        sample_policy=sample_policy_to_proto(slot.sample_policy),
        result_policy=result_policy_to_proto(slot.result_policy),
        offer=slot.offer,
        fetch_bytes_per_second_max=slot.fetch_bytes_per_second_max,
    )
    if slot.prefetch_version:
        message.prefetch.CopyFrom(_candidate_to_proto(versions[slot.slot, slot.prefetch_version]))
    if slot.shadow is not None:
        candidate = versions[slot.slot, slot.shadow.candidate_version]
        message.shadow.CopyFrom(_shadow_run_to_proto(slot.shadow, candidate))
    return message


def _candidate_to_proto(version: ModelVersion) -> slot_pb2.CandidateVersion:
    return slot_pb2.CandidateVersion(
        model_version=version.name,
        artifact=artifact_to_proto(version.artifact),
        signature=signature_to_proto(version.signature),
    )


def _shadow_run_to_proto(run: ShadowRun, candidate: ModelVersion) -> slot_pb2.ShadowRun:
    return slot_pb2.ShadowRun(
        candidate=_candidate_to_proto(candidate),
        comparisons_max=run.comparisons_max,
        serving_latency_ms_p99_max=run.serving_latency_ms_p99_max,
    )


def observed_state_from_proto(message: slot_pb2.ObservedState) -> ObservedState:
    """As ObservedStateReader.read of a first message."""
    return ObservedStateReader().read(message)


class ObservedStateReader:
    """Reads what one agent says, message after message. It says the same again and again: slots that have not changed
    are the objects that they were."""

    def __init__(self) -> None:
        self._slots: tuple[ObservedSlot, ...] = ()
        self._encoded: list[bytes] = []
        """Of the slots."""

    def read(self, message: slot_pb2.ObservedState) -> ObservedState:
        """Return what the agent observes. Raises FieldInvalidError for names that are none, for a slot named twice and
        for more slots or conditions than a box can have."""
        field = "observed_state"
        if len(message.slots) > limits.OBSERVED_SLOTS_MAX or len(message.conditions) > limits.OBSERVED_CONDITIONS_MAX:
            raise FieldInvalidError(
                "too many slots or conditions",
                field=field,
                remedy=f"send at most {limits.OBSERVED_SLOTS_MAX} and {limits.OBSERVED_CONDITIONS_MAX}",
            )
        encoded = [slot.SerializeToString() for slot in message.slots]
        if encoded != self._encoded:
            known = dict(zip(self._encoded, self._slots, strict=True))
            self._slots = _observed_slots_from_proto(message, encoded, known, field=f"{field}.slots")
            self._encoded = encoded
        has_time = message.HasField("agent_time")
        return ObservedState(
            generation=message.generation,
            slots=self._slots,
            conditions=tuple(condition_from_proto(c, field=f"{field}.conditions") for c in message.conditions),
            agent_time=time_from_proto(message.agent_time, field=f"{field}.agent_time") if has_time else None,
            nack_message=message.nack_message[: limits.NACK_CHARS_MAX],
            nack_generation=message.nack_generation,
            boot_count=message.boot_count,
            sample_counts=_sample_counts_from_proto(message.sample_counts)
            if message.HasField("sample_counts")
            else SampleCounts(),
        )


def _observed_slots_from_proto(
    message: slot_pb2.ObservedState, encoded: Sequence[bytes], known: Mapping[bytes, ObservedSlot], *, field: str
) -> tuple[ObservedSlot, ...]:
    slots = tuple(
        known.get(key) or _observed_slot_from_proto(slot, field=field)
        for key, slot in zip(encoded, message.slots, strict=True)
    )
    if len({slot.slot for slot in slots}) != len(slots):
        raise FieldInvalidError("a slot is named twice", field=field, remedy="name each slot once")
    return slots


def _sample_counts_from_proto(message: slot_pb2.SampleCounts) -> SampleCounts:
    """Words of agents that are newer are kept as they come, within bounds."""
    return SampleCounts(
        kept=_counts(message.kept_counts),
        skipped=_counts(message.skipped_counts),
        waiting=max(0, message.waiting_count),
        waiting_bytes=max(0, message.waiting_bytes),
    )


def sample_counts_to_proto(counts: SampleCounts) -> slot_pb2.SampleCounts:
    return slot_pb2.SampleCounts(
        kept_counts=counts.kept,
        skipped_counts=counts.skipped,
        waiting_count=counts.waiting,
        waiting_bytes=counts.waiting_bytes,
    )


def _counts(counts: Mapping[str, int]) -> Mapping[str, int]:
    ordered = sorted(counts.items())[: limits.SAMPLE_COUNTS_MAX]
    return MappingProxyType({word[: limits.SAMPLE_COUNT_CHARS_MAX]: max(0, count) for word, count in ordered})


def _observed_slot_from_proto(message: slot_pb2.ObservedSlot, *, field: str) -> ObservedSlot:
    slot = ModelId(check_resource_id(message.slot, field=f"{field}.slot"))
    has_time = message.HasField("serving_time")
    return ObservedSlot(
        slot=slot,
        serving_version=_version(message.serving_version, slot, field=f"{field}.serving_version"),
        target_version=_version(message.target_version, slot, field=f"{field}.target_version"),
        state=_STATES_FROM_WIRE.get(message.state, SlotState.PENDING),
        device=message.device,
        device_reason=message.device_reason,
        measurements=tuple(
            _measurement_from_proto(each, field=f"{field}.measurements") for each in message.measurements
        ),
        failure_reason=message.failure_reason,
        failure_message=message.failure_message[: limits.NACK_CHARS_MAX],
        downloaded_bytes=message.downloaded_bytes,
        offer=message.offer,
        serving_time=time_from_proto(message.serving_time, field=f"{field}.serving_time") if has_time else None,
        last_known_good=message.last_known_good,
        prefetched_version=_version(message.prefetched_version, slot, field=f"{field}.prefetched_version"),
        prefetch_failure=message.prefetch_failure[: limits.NACK_CHARS_MAX],
        shadow=_shadow_from_proto(message.shadow, slot, field=f"{field}.shadow")
        if message.HasField("shadow")
        else None,
    )


def _shadow_from_proto(message: slot_pb2.ObservedShadow, slot: ModelId, *, field: str) -> ObservedShadow:
    return ObservedShadow(
        candidate_version=_version(message.candidate_version, slot, field=f"{field}.candidate_version"),
        state=_SHADOW_STATES_FROM_WIRE.get(message.state, ShadowState.PREPARING),
        compared=message.compared_count,
        message=message.message[: limits.NACK_CHARS_MAX],
        offer=message.offer,
    )


def _version(name: str, slot: ModelId, *, field: str) -> int:
    if not name:
        return 0
    model_id, number = parse_version_name(name, field=field)
    if model_id != slot:
        raise FieldInvalidError(
            f"{name} is no version of models/{slot}", field=field, remedy="name a version of the slot's model"
        )
    return number


def _measurement_from_proto(message: slot_pb2.DeviceMeasurement, *, field: str) -> DeviceMeasurement:
    return DeviceMeasurement(
        device=message.device,
        ok=message.ok,
        latency_ms_p50=message.latency_ms_p50,
        throughput_per_second=message.throughput_per_second,
        compile_seconds=seconds_from_proto(message.compile_duration, field=f"{field}.compile_duration"),
        error=message.error[: limits.NACK_CHARS_MAX],
        chosen=message.chosen,
        latency_ms_p99=message.latency_ms_p99,
        streams=message.streams,
        precision=message.inference_precision,
        memory_bytes=message.memory_bytes,
        parity=_PARITIES_FROM_WIRE.get(message.parity, Parity.NOT_CHECKED),
        difference=message.difference,
        remark=message.remark[: limits.NACK_CHARS_MAX],
    )


def observed_slot_to_proto(slot: ObservedSlot) -> slot_pb2.ObservedSlot:
    """Return the slot for operators."""
    return slot_pb2.ObservedSlot(
        slot=slot.slot,
        serving_version=version_name(slot.slot, slot.serving_version) if slot.serving_version else "",
        target_version=version_name(slot.slot, slot.target_version) if slot.target_version else "",
        state=_STATES[slot.state],
        device=slot.device,
        device_reason=slot.device_reason,
        measurements=[_measurement_to_proto(each) for each in slot.measurements],
        failure_reason=slot.failure_reason,
        failure_message=slot.failure_message,
        downloaded_bytes=slot.downloaded_bytes,
        offer=slot.offer,
        serving_time=optional_time_to_proto(slot.serving_time),
        last_known_good=slot.last_known_good,
        prefetched_version=version_name(slot.slot, slot.prefetched_version) if slot.prefetched_version else "",
        prefetch_failure=slot.prefetch_failure,
        shadow=_shadow_to_proto(slot.slot, slot.shadow) if slot.shadow is not None else None,
    )


def _shadow_to_proto(slot: ModelId, shadow: ObservedShadow) -> slot_pb2.ObservedShadow:
    number = shadow.candidate_version
    return slot_pb2.ObservedShadow(
        candidate_version=version_name(slot, number) if number else "",
        state=_SHADOW_STATES[shadow.state],
        compared_count=shadow.compared,
        message=shadow.message,
        offer=shadow.offer,
    )


def _measurement_to_proto(measurement: DeviceMeasurement) -> slot_pb2.DeviceMeasurement:
    return slot_pb2.DeviceMeasurement(
        device=measurement.device,
        ok=measurement.ok,
        latency_ms_p50=measurement.latency_ms_p50,
        throughput_per_second=measurement.throughput_per_second,
        compile_duration=seconds_to_proto(measurement.compile_seconds),
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
