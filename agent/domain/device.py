"""Devices of the box, what was measured on them, and the choice between them.

The choice is a total order over the measurements that succeeded: what the hint asks for, then the other number, then
the device's name. So it depends on neither the order of measuring nor chance, and a worse device never changes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import assert_never

from agent.domain.errors import PrepareError, Reason


class PerformanceHint(StrEnum):
    LATENCY = "LATENCY"
    THROUGHPUT = "THROUGHPUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePolicy:
    hint: PerformanceHint = PerformanceHint.LATENCY
    inference_precision: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """An accelerator; `device` as OpenVINO names it ("CPU", "GPU.0", "NPU")."""

    device: str
    full_name: str = ""
    device_type: str = ""
    capabilities: tuple[str, ...] = ()
    memory_bytes: int = 0
    driver_version: str = ""
    auto_choice: bool = False
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Facts of the box; field by field as `lineside.v1.Host`."""

    hostname: str
    os: str
    os_release: str
    architecture: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    agent_version: str
    openvino_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMeasurement:
    """One short measurement of a version on a device."""

    device: str
    ok: bool
    latency_ms_p50: float = 0.0
    throughput_per_second: float = 0.0
    compile_seconds: float = 0.0
    error: str = ""
    chosen: bool = False
    failure: Reason | None = None
    """COMPILE_FAILED, COMPILE_CRASHED, COMPILE_TIMED_OUT or DEVICE_NOT_FOUND where not ok."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChoice:
    """The chosen device, why in one sentence with the numbers, and every measurement with `chosen` set on one."""

    device: str
    reason: str
    measurements: tuple[DeviceMeasurement, ...]


def eligible_devices(available: Sequence[str], policy: RuntimePolicy) -> tuple[str, ...]:
    """Devices of the box that the policy allows, in the box's order; "GPU" allows every "GPU.n"."""
    if not policy.devices:
        return tuple(available)
    return tuple(device for device in available if any(_names(wanted, device) for wanted in policy.devices))


def missing_devices(available: Sequence[str], policy: RuntimePolicy) -> tuple[str, ...]:
    """Devices that the policy names and the box does not have."""
    return tuple(wanted for wanted in policy.devices if not any(_names(wanted, device) for device in available))


def choose(measurements: Sequence[DeviceMeasurement], hint: PerformanceHint) -> DeviceChoice:
    """The best device for the hint. Raises PrepareError, naming each device's failure, when none was ok."""
    succeeded = [measurement for measurement in measurements if measurement.ok]
    if not succeeded:
        raise _nothing_works(measurements)
    best = min(succeeded, key=lambda measurement: _rank(measurement, hint))
    return DeviceChoice(
        device=best.device,
        reason=_sentence(best, measurements, len(succeeded), hint),
        measurements=tuple(replace(each, chosen=each.device == best.device) for each in measurements),
    )


def _names(wanted: str, device: str) -> bool:
    return device == wanted or device.startswith(wanted + ".")


def _rank(measurement: DeviceMeasurement, hint: PerformanceHint) -> tuple[float, float, str]:
    match hint:
        case PerformanceHint.LATENCY:
            return (measurement.latency_ms_p50, -measurement.throughput_per_second, measurement.device)
        case PerformanceHint.THROUGHPUT:
            return (-measurement.throughput_per_second, measurement.latency_ms_p50, measurement.device)
    assert_never(hint)


def _sentence(
    best: DeviceMeasurement, measurements: Sequence[DeviceMeasurement], succeeded: int, hint: PerformanceHint
) -> str:
    match hint:
        case PerformanceHint.LATENCY:
            number = f"{best.latency_ms_p50:.2f} ms median latency"
        case PerformanceHint.THROUGHPUT:
            number = f"{best.throughput_per_second:.1f} inferences/s"
    among = f"best of {succeeded} measured for {hint}" if succeeded > 1 else f"the one device measured for {hint}"
    failed = ", ".join(each.device for each in measurements if not each.ok)
    return f"{best.device}: {number}, {among}" + (f"; failed: {failed}" if failed else "")


def _nothing_works(measurements: Sequence[DeviceMeasurement]) -> PrepareError:
    if not measurements:
        return PrepareError(
            "this box has no device",
            field="runtime_policy.devices",
            remedy="check the OpenVINO installation and its drivers",
            reason=Reason.DEVICE_NOT_FOUND,
        )
    # The first failure that is more than a missing device tells most about the model.
    reasons = [each.failure or Reason.COMPILE_FAILED for each in measurements]
    reason = next((each for each in reasons if each is not Reason.DEVICE_NOT_FOUND), Reason.DEVICE_NOT_FOUND)
    return PrepareError(
        "; ".join(f"{each.device}: {each.error or 'failed'}" for each in measurements),
        field="runtime_policy.devices",
        remedy="allow a device that this box has, or publish a version that it can compile",
        reason=reason,
    )
