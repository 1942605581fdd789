"""Agents and what was last heard of them."""

import json
from types import MappingProxyType
from typing import Any

from controlplane import limits
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.inventory import (
    Agent,
    AgentRecord,
    Device,
    DeviceMeasurement,
    Host,
    Observation,
    ObservedShadow,
    ObservedSlot,
    ObservedState,
    Parity,
    SampleCounts,
    ShadowState,
    SlotState,
)
from controlplane.store.mapping.condition import condition_from_json, condition_to_json
from controlplane.store.mapping.values import (
    EncodedJson,
    Row,
    float_from_json,
    float_to_json,
    sparse,
    text_map,
    time_from_json,
    time_to_json,
)


def agent_to_row(agent: Agent) -> dict[str, Any]:
    return {
        "id": agent.id,
        "uid": agent.uid,
        "create_time": agent.create_time,
        "labels": dict(agent.labels),
        "revoked": agent.revoked,
        "revision": agent.revision,
    }


def agent_from_row(row: Row) -> Agent:
    return Agent(
        id=AgentId(row["id"]),
        uid=row["uid"],
        create_time=row["create_time"],
        labels=text_map(row["labels"]),
        revoked=row["revoked"],
        revision=row["revision"],
    )


def record_from_row(row: Row) -> AgentRecord:
    """Map a row of `agent` left-joined with `observation`, generation and certificate expiry."""
    return AgentRecord(
        agent=agent_from_row(row),
        observation=None if row["observed"] is None else observation_from_row({**row, "agent_id": row["id"]}),
        desired_generation=row["desired_generation"] or 0,
        certificate_expire_time=row["certificate_expire_time"],
    )


class SlotTexts:
    """The slots of agents as JSON text. An agent says the same of them again and again, each time as the same object,
    and to write them anew costs more than all the rest of a report."""

    def __init__(self) -> None:
        self._known: dict[AgentId, tuple[tuple[ObservedSlot, ...], str]] = {}

    def find(self, agent_id: AgentId, slots: tuple[ObservedSlot, ...]) -> str:
        """Return the text of the agent's slots."""
        known = self._known.get(agent_id)
        if known is not None and known[0] is slots:
            return known[1]
        if len(self._known) >= limits.SLOT_TEXTS_CACHED_MAX:
            self._known.clear()
        text = json.dumps([_slot_to_json(slot) for slot in slots])
        self._known[agent_id] = (slots, text)
        return text


def observation_to_row(observation: Observation, texts: SlotTexts) -> dict[str, Any]:
    """`host` and `devices` are None where the observation leaves them out."""
    return {
        "agent_id": observation.agent_id,
        "observed": _observed_to_json(observation, texts),
        "receive_time": observation.receive_time,
        "host": None if observation.host is None else _host_to_json(observation.host),
        "devices": None if observation.devices is None else [_device_to_json(d) for d in observation.devices],
    }


def observation_from_row(row: Row) -> Observation:
    host, devices = row["host"], row["devices"]
    return Observation(
        agent_id=AgentId(row["agent_id"]),
        observed=_observed_from_json(row["observed"]),
        receive_time=row["receive_time"],
        host=None if host is None else Host(**host),
        devices=None if devices is None else tuple(_device_from_json(value) for value in devices),
    )


def _host_to_json(host: Host) -> dict[str, Any]:
    return {
        "hostname": host.hostname,
        "os": host.os,
        "os_release": host.os_release,
        "architecture": host.architecture,
        "cpu_model": host.cpu_model,
        "cpu_count": host.cpu_count,
        "memory_bytes": host.memory_bytes,
        "disk_bytes": host.disk_bytes,
        "disk_free_bytes": host.disk_free_bytes,
        "agent_version": host.agent_version,
        "openvino_version": host.openvino_version,
    }


def _device_to_json(device: Device) -> dict[str, Any]:
    return {
        "device": device.device,
        "full_name": device.full_name,
        "device_type": device.device_type,
        "capabilities": list(device.capabilities),
        "memory_bytes": device.memory_bytes,
        "driver_version": device.driver_version,
        "auto_choice": device.auto_choice,
        "properties": dict(device.properties),
    }


def _device_from_json(value: Row) -> Device:
    return Device(
        device=value["device"],
        full_name=value["full_name"],
        device_type=value["device_type"],
        capabilities=tuple(value["capabilities"]),
        memory_bytes=value["memory_bytes"],
        driver_version=value["driver_version"],
        auto_choice=value["auto_choice"],
        properties=text_map(value["properties"]),
    )


def _observed_to_json(observation: Observation, texts: SlotTexts) -> EncodedJson:
    observed = observation.observed
    rest = sparse(
        {
            "generation": observed.generation,
            "conditions": [condition_to_json(condition) for condition in observed.conditions],
            "agent_time": time_to_json(observed.agent_time),
            "nack_message": observed.nack_message,
            "nack_generation": observed.nack_generation,
            "boot_count": observed.boot_count,
            "sample_counts": _sample_counts_to_json(observed.sample_counts),
        }
    )
    if not observed.slots:
        return EncodedJson(json.dumps(rest))
    slots = f'"slots": {texts.find(observation.agent_id, observed.slots)}'
    return EncodedJson(f"{json.dumps(rest)[:-1]}, {slots}}}" if rest else f"{{{slots}}}")


def _observed_from_json(value: Row) -> ObservedState:
    return ObservedState(
        generation=value.get("generation", 0),
        slots=tuple(_slot_from_json(slot) for slot in value.get("slots", ())),
        conditions=tuple(condition_from_json(condition) for condition in value.get("conditions", ())),
        agent_time=time_from_json(value.get("agent_time")),
        nack_message=value.get("nack_message", ""),
        nack_generation=value.get("nack_generation", 0),
        boot_count=value.get("boot_count", 0),
        # Rows of earlier controllers have none.
        sample_counts=_sample_counts_from_json(value.get("sample_counts", {})),
    )


def _sample_counts_to_json(counts: SampleCounts) -> dict[str, Any]:
    return sparse(
        {
            "kept": dict(counts.kept),
            "skipped": dict(counts.skipped),
            "waiting": counts.waiting,
            "waiting_bytes": counts.waiting_bytes,
        }
    )


def _sample_counts_from_json(value: Row) -> SampleCounts:
    return SampleCounts(
        kept=MappingProxyType(dict(value.get("kept", {}))),
        skipped=MappingProxyType(dict(value.get("skipped", {}))),
        waiting=value.get("waiting", 0),
        waiting_bytes=value.get("waiting_bytes", 0),
    )


def _slot_to_json(slot: ObservedSlot) -> dict[str, Any]:
    return sparse(
        {
            "slot": slot.slot,
            "serving_version": slot.serving_version,
            "target_version": slot.target_version,
            "state": slot.state.value,
            "device": slot.device,
            "device_reason": slot.device_reason,
            "measurements": [_measurement_to_json(measurement) for measurement in slot.measurements],
            "failure_reason": slot.failure_reason,
            "failure_message": slot.failure_message,
            "downloaded_bytes": slot.downloaded_bytes,
            "offer": slot.offer,
            "serving_time": time_to_json(slot.serving_time),
            "last_known_good": slot.last_known_good,
            "prefetched_version": slot.prefetched_version,
            "prefetch_failure": slot.prefetch_failure,
            "shadow": None if slot.shadow is None else _shadow_to_json(slot.shadow),
        }
    )


def _slot_from_json(value: Row) -> ObservedSlot:
    return ObservedSlot(
        slot=ModelId(value.get("slot", "")),
        serving_version=value.get("serving_version", 0),
        target_version=value.get("target_version", 0),
        state=SlotState(value["state"]),
        device=value.get("device", ""),
        device_reason=value.get("device_reason", ""),
        measurements=tuple(_measurement_from_json(measurement) for measurement in value.get("measurements", ())),
        failure_reason=value.get("failure_reason", ""),
        failure_message=value.get("failure_message", ""),
        downloaded_bytes=value.get("downloaded_bytes", 0),
        offer=value.get("offer", 0),
        serving_time=time_from_json(value.get("serving_time")),
        last_known_good=value.get("last_known_good", False),
        prefetched_version=value.get("prefetched_version", 0),
        prefetch_failure=value.get("prefetch_failure", ""),
        shadow=None if value.get("shadow") is None else _shadow_from_json(value["shadow"]),
    )


def _shadow_to_json(shadow: ObservedShadow) -> dict[str, Any]:
    return sparse(
        {
            "candidate_version": shadow.candidate_version,
            "state": shadow.state.value,
            "compared": shadow.compared,
            "message": shadow.message,
            "offer": shadow.offer,
        }
    )


def _shadow_from_json(value: Row) -> ObservedShadow:
    return ObservedShadow(
        candidate_version=value.get("candidate_version", 0),
        state=ShadowState(value["state"]),
        compared=value.get("compared", 0),
        message=value.get("message", ""),
        offer=value.get("offer", 0),
    )


def _measurement_to_json(measurement: DeviceMeasurement) -> dict[str, Any]:
    return sparse(
        {
            "device": measurement.device,
            "ok": measurement.ok,
            "latency_ms_p50": float_to_json(measurement.latency_ms_p50),
            "throughput_per_second": float_to_json(measurement.throughput_per_second),
            "compile_seconds": float_to_json(measurement.compile_seconds),
            "error": measurement.error,
            "chosen": measurement.chosen,
            "latency_ms_p99": float_to_json(measurement.latency_ms_p99),
            "streams": measurement.streams,
            "precision": measurement.precision,
            "memory_bytes": measurement.memory_bytes,
            "parity": measurement.parity.value,
            "difference": float_to_json(measurement.difference),
            "remark": measurement.remark,
        }
    )


def _measurement_from_json(value: Row) -> DeviceMeasurement:
    return DeviceMeasurement(
        device=value.get("device", ""),
        ok=value.get("ok", False),
        latency_ms_p50=float_from_json(value.get("latency_ms_p50", 0.0)),
        throughput_per_second=float_from_json(value.get("throughput_per_second", 0.0)),
        compile_seconds=float_from_json(value.get("compile_seconds", 0.0)),
        error=value.get("error", ""),
        chosen=value.get("chosen", False),
        latency_ms_p99=float_from_json(value.get("latency_ms_p99", 0.0)),
        streams=value.get("streams", 0),
        precision=value.get("precision", ""),
        memory_bytes=value.get("memory_bytes", 0),
        parity=Parity(value.get("parity", Parity.NOT_CHECKED)),
        difference=float_from_json(value.get("difference", 0.0)),
        remark=value.get("remark", ""),
    )
