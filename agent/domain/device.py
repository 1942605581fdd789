"""Devices of the box and what was measured on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChoice:
    """The chosen device, why in one sentence with the numbers, and every measurement with `chosen` set on one."""

    device: str
    reason: str
    measurements: tuple[DeviceMeasurement, ...]
