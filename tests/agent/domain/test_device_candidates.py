"""Which configurations are tried, and which numbers are believed."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.device import (
    Configuration,
    Device,
    DeviceMeasurement,
    PerformanceHint,
    RuntimePolicy,
    candidates,
    eligible_devices,
    implausible,
    missing_devices,
    worth_trying,
)
from agent.domain.errors import Reason

CPU = Device(device="CPU", capabilities=("FP32", "BF16"))
GPU = Device(device="GPU.0", device_type="discrete", capabilities=("FP32", "FP16"))
NPU = Device(device="NPU", capabilities=("FP16", "INT8"))
BOX = (CPU, GPU, NPU)


def tried(
    *devices: Device,
    hint: PerformanceHint = PerformanceHint.LATENCY,
    has_golden: bool = False,
    most: int = 100,
    **policy: object,
) -> list[str]:
    found = candidates(
        devices,
        RuntimePolicy(hint=hint, **policy),  # type: ignore[arg-type]
        has_golden=has_golden,
        cpu_count=4,
        configurations_max=most,
    )
    return [str(each) for each in found.configurations]


def test_without_golden_files_only_full_precision_is_tried() -> None:
    assert tried(CPU) == ["CPU f32", "CPU f32 1 stream"]
    assert tried(CPU, hint=PerformanceHint.THROUGHPUT) == ["CPU f32", "CPU f32 1 stream", "CPU f32 4 streams"]
    found = candidates(BOX, RuntimePolicy(), has_golden=False, cpu_count=4, configurations_max=9)
    (refused,) = found.refused
    assert (refused.device, refused.failure) == ("NPU", Reason.PARITY_FAILED)
    assert "--golden" in refused.error


def test_golden_files_allow_what_the_device_has_and_the_policy_may_fix_it() -> None:
    assert tried(CPU, has_golden=True)[:2] == ["CPU bf16", "CPU f32"]
    assert tried(*BOX, has_golden=True)[:3] == ["GPU.0 f16", "NPU f16", "CPU bf16"]
    assert tried(CPU, inference_precision="bf16") == ["CPU bf16", "CPU bf16 1 stream"]


def test_lists_hold_only_what_the_box_has_and_the_policy_allows() -> None:
    assert not [each for each in tried(CPU) if ":" in each]
    assert "AUTO:GPU.0,CPU f32" in tried(CPU, GPU)
    assert not [each for each in tried(CPU, GPU, devices=("CPU",)) if ":" in each]
    assert tried(CPU, GPU, hint=PerformanceHint.CUMULATIVE_THROUGHPUT)[:2] == [
        "AUTO:GPU.0,CPU f32",
        "MULTI:GPU.0,CPU f32",
    ]
    assert not [each for each in tried(CPU, GPU, hint=PerformanceHint.THROUGHPUT) if "MULTI" in each]


@given(
    devices=st.lists(st.sampled_from(BOX), unique_by=lambda device: device.device),
    hint=st.sampled_from(PerformanceHint),
    has_golden=st.booleans(),
    most=st.integers(1, 12),
)
def test_candidates_are_bounded_distinct_and_of_this_box(
    devices: list[Device], hint: PerformanceHint, has_golden: bool, most: int
) -> None:
    found = candidates(
        devices, RuntimePolicy(hint=hint), has_golden=has_golden, cpu_count=4, configurations_max=most
    ).configurations
    assert len(found) <= most
    assert len(set(found)) == len(found)
    names = {device.device for device in devices}
    assert all(set(each.members) <= names for each in found)
    alone = [each for each in found if each.streams and len(each.members) == 1]
    assert all(replace(each, streams=0) in found[: found.index(each)] for each in alone)


def test_streams_are_tried_only_where_they_may_matter() -> None:
    own = DeviceMeasurement(device="CPU", ok=True, precision="f32", streams_used=4)
    one, four = (Configuration(device="CPU", precision="f32", streams=streams) for streams in (1, 4))
    assert worth_trying(one, [own])
    assert not worth_trying(four, [own])
    assert not worth_trying(one, [replace(own, ok=False)])
    assert worth_trying(own.configuration, [])
    assert worth_trying(one, [replace(own, precision="bf16", ok=False)])


def test_a_policy_names_devices_or_all_of_a_kind() -> None:
    available = ["CPU", "GPU.0", "GPU.1"]
    assert eligible_devices(available, RuntimePolicy()) == ("CPU", "GPU.0", "GPU.1")
    assert eligible_devices(available, RuntimePolicy(devices=("GPU",))) == ("GPU.0", "GPU.1")
    assert missing_devices(available, RuntimePolicy(devices=("NPU", "GPU.1"))) == ("NPU",)


def test_what_a_configuration_loses_with_a_device() -> None:
    both = Configuration(device="AUTO:GPU.0,CPU")
    assert both.members == ("GPU.0", "CPU")
    assert both.uses("CPU")
    assert both.uses("AUTO:GPU.0,CPU")
    assert not both.uses("GPU.1")
    assert Configuration(device="CPU").members == ("CPU",)


GOOD = DeviceMeasurement(
    device="CPU",
    ok=True,
    latency_ms_p50=2.0,
    latency_ms_p99=3.0,
    throughput_per_second=900.0,
    compile_seconds=0.4,
    memory_bytes=1,
)


def test_numbers_that_can_be_true_are_believed() -> None:
    assert implausible(GOOD, elapsed_seconds=2.0, requests_max=32) == ""


@pytest.mark.parametrize(
    "lie",
    [
        {"latency_ms_p50": math.nan},
        {"latency_ms_p50": -1.0},
        {"latency_ms_p50": 0.0},
        {"latency_ms_p99": 1.0},
        {"latency_ms_p99": math.inf},
        {"throughput_per_second": math.inf},
        {"throughput_per_second": 0.0},
        {"throughput_per_second": -5.0},
        {"throughput_per_second": 1e9},
        {"compile_seconds": -0.1},
        {"compile_seconds": 100.0},
        {"memory_bytes": -1},
        {"difference": math.nan},
    ],
)
def test_numbers_that_cannot_be_true_are_not(lie: dict[str, float]) -> None:
    assert implausible(replace(GOOD, **lie), elapsed_seconds=2.0, requests_max=32)  # type: ignore[arg-type]
