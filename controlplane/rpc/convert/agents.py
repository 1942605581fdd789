"""Agents, the boxes they run on and their devices, on the wire."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from types import MappingProxyType

from lineside.v1 import agent_pb2

from controlplane import limits
from controlplane.domain.agent_conditions import controller_conditions
from controlplane.domain.drift import Drift
from controlplane.domain.drift import condition as drift_condition
from controlplane.domain.drift_slot import is_current
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord, AgentState, Device, Host, Observation, SampleCounts
from controlplane.domain.pin import Pin
from controlplane.rpc.convert.conditions import condition_to_proto
from controlplane.rpc.convert.etags import etag_of
from controlplane.rpc.convert.names import version_name
from controlplane.rpc.convert.slots import observed_slot_to_proto, sample_counts_to_proto
from controlplane.rpc.convert.times import optional_time_to_proto, time_to_proto

_STATES = MappingProxyType(
    {
        AgentState.ENROLLED: agent_pb2.Agent.STATE_ENROLLED,
        AgentState.CONNECTED: agent_pb2.Agent.STATE_CONNECTED,
        AgentState.DISCONNECTED: agent_pb2.Agent.STATE_DISCONNECTED,
        AgentState.REVOKED: agent_pb2.Agent.STATE_REVOKED,
    }
)


def agent_to_proto(
    record: AgentRecord,
    *,
    now: datetime,
    silent_seconds_max: float,
    pins: Iterable[Pin] = (),
    drifts: Sequence[Drift] = (),
) -> agent_pb2.Agent:
    """Return the agent as it stands now, with its own pins and what has drifted there; it counts as disconnected after
    `silent_seconds_max` without a word."""
    agent = record.agent
    message = agent_pb2.Agent(
        name=f"agents/{agent.id}",
        uid=agent.uid,
        create_time=time_to_proto(agent.create_time),
        etag=etag_of(agent.revision),
        labels=dict(agent.labels),
        state=_STATES[record.state(now=now, silent_seconds_max=silent_seconds_max)],
        desired_generation=record.desired_generation,
        certificate_expire_time=optional_time_to_proto(record.certificate_expire_time),
        pins=map(_pin_to_proto, pins),
    )
    if record.observation is not None:
        _add_observation(message, record.observation)
        found = controller_conditions(record, clock_skew_seconds_max=limits.CLOCK_SKEW_SECONDS_MAX)
        message.conditions.extend(map(condition_to_proto, found))
    drifted = drift_condition([drift for drift in drifts if is_current(drift, record)])
    if drifted is not None:
        message.conditions.append(condition_to_proto(drifted))
    return message


def _pin_to_proto(pin: Pin) -> agent_pb2.Pin:
    return agent_pb2.Pin(
        model_version=version_name(pin.model_id, pin.version),
        reason=pin.reason,
        create_time=time_to_proto(pin.create_time),
        creator=pin.actor,
    )


def _add_observation(message: agent_pb2.Agent, observation: Observation) -> None:
    observed = observation.observed
    message.last_sync_time.CopyFrom(time_to_proto(observation.receive_time))
    message.observed_generation = observed.generation
    message.slots.extend(map(observed_slot_to_proto, observed.slots))
    message.conditions.extend(map(condition_to_proto, observed.conditions))
    if observed.sample_counts != SampleCounts():
        message.sample_counts.CopyFrom(sample_counts_to_proto(observed.sample_counts))
    if observation.host is not None:
        message.host.CopyFrom(host_to_proto(observation.host))
    message.devices.extend(device_to_proto(device, observation.agent_id) for device in observation.devices or ())


def host_to_proto(host: Host) -> agent_pb2.Host:
    """Return the box."""
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


def host_from_proto(message: agent_pb2.Host) -> Host:
    """Return the box."""
    return Host(
        hostname=message.hostname,
        os=message.os,
        os_release=message.os_release,
        architecture=message.architecture,
        cpu_model=message.cpu_model,
        cpu_count=message.cpu_count,
        memory_bytes=message.memory_bytes,
        disk_bytes=message.disk_bytes,
        disk_free_bytes=message.disk_free_bytes,
        agent_version=message.agent_version,
        openvino_version=message.openvino_version,
    )


def device_to_proto(device: Device, agent_id: AgentId) -> agent_pb2.Device:
    """Return the device under its agent's name."""
    return agent_pb2.Device(
        name=f"agents/{agent_id}/devices/{device.device.lower().replace('.', '-')}",
        device=device.device,
        full_name=device.full_name,
        device_type=device.device_type,
        capabilities=device.capabilities,
        memory_bytes=device.memory_bytes,
        driver_version=device.driver_version,
        auto_choice=device.auto_choice,
        properties=dict(device.properties),
    )


def device_from_proto(message: agent_pb2.Device) -> Device:
    """Return the device; whose it is, the certificate says."""
    return Device(
        device=message.device,
        full_name=message.full_name,
        device_type=message.device_type,
        capabilities=tuple(message.capabilities),
        memory_bytes=message.memory_bytes,
        driver_version=message.driver_version,
        auto_choice=message.auto_choice,
        properties=MappingProxyType(dict(message.properties)),
    )


def check_device_count(count: int) -> None:
    """Raise FieldInvalidError for more devices than a box can have."""
    if count > limits.DEVICES_MAX:
        raise FieldInvalidError(
            f"{count} devices are too many", field="devices", remedy=f"send at most {limits.DEVICES_MAX}"
        )
