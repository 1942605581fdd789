"""Devices of the box, the configurations in which they may run a version, and what was measured of each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from agent.domain.errors import Reason


class PerformanceHint(StrEnum):
    LATENCY = "LATENCY"
    THROUGHPUT = "THROUGHPUT"
    CUMULATIVE_THROUGHPUT = "CUMULATIVE_THROUGHPUT"
    """As THROUGHPUT, and several devices may share the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePolicy:
    hint: PerformanceHint = PerformanceHint.LATENCY
    inference_precision: str = ""
    """"f32", "bf16" or "f16"; empty means f32, or less where the version's golden files show that it suffices."""
    devices: tuple[str, ...] = ()
    swap_wait_seconds: float = 0.0
    """How long a swap waits for applications to begin their next lot; 0 means not at all."""


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
class Configuration:
    """What a version is compiled for: one candidate of a choice."""

    device: str
    """As OpenVINO takes it: "CPU", "GPU.0", "AUTO:GPU.0,CPU" or "MULTI:GPU.0,CPU"."""
    streams: int = 0
    """Inferences that one device runs side by side; 0 leaves it to the device."""
    precision: str = ""
    """"f32", "bf16" or "f16"; empty leaves it to the device."""

    @property
    def members(self) -> tuple[str, ...]:
        """The devices of a list, or the one device."""
        return tuple(self.device.rpartition(":")[2].split(","))

    def uses(self, device: str) -> bool:
        """Whether losing `device`, which may be a list, loses this configuration."""
        return device == self.device or device in self.members

    def __str__(self) -> str:
        streams = f"{self.streams} stream{'s' if self.streams > 1 else ''}" if self.streams else ""
        return " ".join(part for part in (self.device, self.precision, streams) if part)


class Parity(StrEnum):
    """Whether the outputs are those of the version's golden files, within its tolerance."""

    NOT_CHECKED = "NOT_CHECKED"
    PASSED = "PASSED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMeasurement:
    """One short measurement of a version in one configuration."""

    device: str
    ok: bool
    """Compiled and inferred, with numbers that can be true and outputs that may be served."""
    streams: int = 0
    precision: str = ""
    latency_ms_p50: float = 0.0
    latency_ms_p99: float = 0.0
    throughput_per_second: float = 0.0
    compile_seconds: float = 0.0
    memory_bytes: int = 0
    """By which the child's resident memory had grown."""
    streams_used: int = 0
    """Those that the device took, where it says so."""
    parity: Parity = Parity.NOT_CHECKED
    difference: float = 0.0
    """Largest difference from a golden output, as a share of that output's largest value."""
    error: str = ""
    chosen: bool = False
    remark: str = ""
    """Why it was chosen, or why not."""
    failure: Reason | None = None
    """COMPILE_FAILED, COMPILE_CRASHED, COMPILE_TIMED_OUT, PROBE_IMPLAUSIBLE, PARITY_FAILED or DEVICE_NOT_FOUND where
    not ok; None also where it was not tried."""

    @property
    def configuration(self) -> Configuration:
        return Configuration(device=self.device, streams=self.streams, precision=self.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChoice:
    """The chosen configuration, why in one sentence with the numbers, and what was measured, one of it `chosen`."""

    device: str
    reason: str
    measurements: tuple[DeviceMeasurement, ...]
    streams: int = 0
    precision: str = ""
    fingerprint: str = ""
    """Of the devices, drivers and OpenVINO that it was made with; empty where that is unknown."""

    @property
    def configuration(self) -> Configuration:
        return Configuration(device=self.device, streams=self.streams, precision=self.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What to try, the likely best first, and what cannot be tried with the reason."""

    configurations: tuple[Configuration, ...]
    refused: tuple[DeviceMeasurement, ...] = ()


def eligible_devices(available: Sequence[str], policy: RuntimePolicy) -> tuple[str, ...]:
    """Devices of the box that the policy allows, in the box's order; "GPU" allows every "GPU.n"."""
    if not policy.devices:
        return tuple(available)
    return tuple(device for device in available if any(_names(wanted, device) for wanted in policy.devices))


def missing_devices(available: Sequence[str], policy: RuntimePolicy) -> tuple[str, ...]:
    """Devices that the policy names and the box does not have."""
    return tuple(wanted for wanted in policy.devices if not any(_names(wanted, device) for device in available))


def candidates(
    devices: Sequence[Device], policy: RuntimePolicy, *, has_golden: bool, cpu_count: int, configurations_max: int
) -> Candidates:
    """Every sensible configuration of the eligible devices, at most so many: every device before any device's second
    configuration. Lists hold only devices of the box: AUTO fails outright on a device that it cannot find."""
    allowed = eligible_devices([device.device for device in devices], policy)
    eligible = sorted((device for device in devices if device.device in allowed), key=_likelihood)
    precisions = {device.device: _precisions(device, policy, has_golden=has_golden) for device in eligible}
    usable = [device for device in eligible if precisions[device.device]]
    lists = _lists(usable, policy.hint, precisions)
    firsts = [Configuration(device=device.device, precision=precisions[device.device][0]) for device in usable]
    seconds = [
        Configuration(device=device.device, precision=each)
        for device in usable
        for each in precisions[device.device][1:]
    ]
    bases = (*firsts, *seconds)
    streamed = [
        replace(base, streams=streams)
        for base in bases
        for streams in _stream_counts(base.device, policy.hint, cpu_count)
    ]
    match policy.hint:
        case PerformanceHint.CUMULATIVE_THROUGHPUT:
            ordered = (*lists, *bases, *streamed)
        case PerformanceHint.LATENCY | PerformanceHint.THROUGHPUT:
            ordered = (*bases, *streamed, *lists)
    refused = [_no_full_precision(device) for device in eligible if not precisions[device.device]]
    names = [device.device for device in devices]
    refused += [_missing(device, names) for device in missing_devices(names, policy)]
    return Candidates(configurations=ordered[:configurations_max], refused=tuple(refused))


def worth_trying(configuration: Configuration, measured: Iterable[DeviceMeasurement]) -> bool:
    """False where the same with the device's own streams failed, or where those were as many."""
    if not configuration.streams:
        return True
    own = next((each for each in measured if each.configuration == replace(configuration, streams=0)), None)
    return own is None or (own.ok and own.streams_used != configuration.streams)


def implausible(measurement: DeviceMeasurement, *, elapsed_seconds: float, requests_max: int) -> str:
    """Why the numbers cannot be true, as a driver's or a probe's fault would make them; empty where they can."""
    numbers = {
        "latency_ms_p50": measurement.latency_ms_p50,
        "latency_ms_p99": measurement.latency_ms_p99,
        "throughput_per_second": measurement.throughput_per_second,
        "compile_seconds": measurement.compile_seconds,
        "memory_bytes": measurement.memory_bytes,
        "difference": measurement.difference,
    }
    for name, number in numbers.items():
        if not math.isfinite(number) or number < 0:
            return f"{name} of {number}"
    if not 0 < measurement.latency_ms_p50 <= measurement.latency_ms_p99:
        return f"a 99th percentile of {measurement.latency_ms_p99} ms over a median of {measurement.latency_ms_p50} ms"
    if measurement.compile_seconds > elapsed_seconds:
        return f"{measurement.compile_seconds:g} s to compile within {elapsed_seconds:g} s in all"
    # Little's law: so many requests at once, each no faster than alone; with room for a device that had to wake up.
    fastest = _REQUEST_SLACK * requests_max * 1e3 / measurement.latency_ms_p50
    if not 0 < measurement.throughput_per_second <= fastest:
        return f"{measurement.throughput_per_second:g} inferences/s of {measurement.latency_ms_p50:g} ms each"
    return ""


_REQUEST_SLACK = 4.0
_FULL = "f32"


def _names(wanted: str, device: str) -> bool:
    return device == wanted or device.startswith(wanted + ".")


def _likelihood(device: Device) -> int:
    """What is likely the best comes first; the box's order decides among equals."""
    if device.device.startswith("GPU"):
        return 0 if device.device_type.lower() == "discrete" else 1
    return 2 if device.device.startswith("NPU") else 3


def _precisions(device: Device, policy: RuntimePolicy, *, has_golden: bool) -> tuple[str, ...]:
    """Those to try, the fastest first; none where the device knows no f32 and nothing shows that less suffices."""
    if policy.inference_precision:
        return (policy.inference_precision,)
    full = (_FULL,) if "FP32" in device.capabilities else ()
    reduced = next((each for name, each in (("BF16", "bf16"), ("FP16", "f16")) if name in device.capabilities), "")
    if not reduced:
        return full or ("",)
    return (reduced, *full) if has_golden else full


def _lists(
    devices: Sequence[Device], hint: PerformanceHint, precisions: Mapping[str, tuple[str, ...]]
) -> tuple[Configuration, ...]:
    """AUTO and MULTI over all of them, in each precision that all of them may use."""
    if len(devices) < 2:
        return ()
    names = [device.device for device in devices]
    shared = [each for each in precisions[names[0]] if all(each in precisions[name] for name in names)]
    kinds = ("AUTO", "MULTI") if hint is PerformanceHint.CUMULATIVE_THROUGHPUT else ("AUTO",)
    return tuple(Configuration(device=f"{kind}:{','.join(names)}", precision=each) for each in shared for kind in kinds)


def _stream_counts(device: str, hint: PerformanceHint, cpu_count: int) -> tuple[int, ...]:
    """Worth a try beside the device's own choice."""
    if device.startswith("NPU"):
        return ()
    whole = hint is not PerformanceHint.LATENCY and "CPU" in device and cpu_count > 1
    return (1, cpu_count) if whole else (1,)


def _missing(device: str, names: Sequence[str]) -> DeviceMeasurement:
    return DeviceMeasurement(
        device=device,
        ok=False,
        error=f"not on this box, which has {', '.join(names)}",
        failure=Reason.DEVICE_NOT_FOUND,
    )


def _no_full_precision(device: Device) -> DeviceMeasurement:
    return DeviceMeasurement(
        device=device.device,
        ok=False,
        error="computes in less than f32, and the version has no golden files that could show whether that suffices: "
        "publish it with --golden, or deploy it with --precision",
        failure=Reason.PARITY_FAILED,
    )
