"""The choice of a device: a total order with a fixed tie-break."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.device import (
    DeviceMeasurement,
    PerformanceHint,
    RuntimePolicy,
    choose,
    eligible_devices,
    missing_devices,
)
from agent.domain.errors import PrepareError, Reason

HINTS = st.sampled_from(PerformanceHint)
# A few values only, so that ties are common.
NUMBERS = st.sampled_from([0.5, 1.0, 2.0, 3.5])


@st.composite
def measurements(draw: st.DrawFn, *, ok: bool | None = None) -> list[DeviceMeasurement]:
    names = draw(st.lists(st.sampled_from(["CPU", "GPU.0", "GPU.1", "NPU", "SIMCPU"]), min_size=1, unique=True))
    return [
        DeviceMeasurement(
            device=name,
            ok=draw(st.booleans()) if ok is None else ok,
            latency_ms_p50=draw(NUMBERS),
            throughput_per_second=draw(NUMBERS),
        )
        for name in names
    ]


def measured(device: str, *, latency: float = 1.0, throughput: float = 1.0) -> DeviceMeasurement:
    return DeviceMeasurement(device=device, ok=True, latency_ms_p50=latency, throughput_per_second=throughput)


@given(found=measurements(ok=True), hint=HINTS, data=st.data())
def test_order_of_measuring_never_decides(
    found: list[DeviceMeasurement], hint: PerformanceHint, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(found))
    assert choose(shuffled, hint).device == choose(found, hint).device


@given(found=measurements(), hint=HINTS)
def test_the_chosen_device_was_ok_and_none_beats_it(found: list[DeviceMeasurement], hint: PerformanceHint) -> None:
    succeeded = [each for each in found if each.ok]
    if not succeeded:
        with pytest.raises(PrepareError):
            choose(found, hint)
        return
    choice = choose(found, hint)
    (best,) = [each for each in choice.measurements if each.chosen]
    assert best.device == choice.device
    assert best.ok
    if hint is PerformanceHint.LATENCY:
        assert best.latency_ms_p50 == min(each.latency_ms_p50 for each in succeeded)
    else:
        assert best.throughput_per_second == max(each.throughput_per_second for each in succeeded)
    assert [replace(each, chosen=False) for each in choice.measurements] == found


@given(found=measurements(ok=True), hint=HINTS)
def test_a_worse_device_changes_nothing(found: list[DeviceMeasurement], hint: PerformanceHint) -> None:
    worse = measured("AWFUL", latency=99.0, throughput=0.01)
    assert choose([worse, *found], hint).device == choose(found, hint).device


@pytest.mark.parametrize("hint", PerformanceHint)
def test_a_full_tie_goes_to_the_first_name(hint: PerformanceHint) -> None:
    assert choose([measured("NPU"), measured("CPU"), measured("GPU.0")], hint).device == "CPU"


def test_the_reason_says_the_numbers() -> None:
    found = [measured("CPU", throughput=412.34), measured("GPU.0", throughput=50.0)]
    failed = DeviceMeasurement(device="NPU", ok=False, error="driver too old", failure=Reason.COMPILE_FAILED)
    assert choose(found, PerformanceHint.THROUGHPUT).reason == (
        "CPU: 412.3 inferences/s, best of 2 measured for THROUGHPUT"
    )
    assert choose([found[0], failed], PerformanceHint.LATENCY).reason == (
        "CPU: 1.00 ms median latency, the one device measured for LATENCY; failed: NPU"
    )


@pytest.mark.parametrize(
    "reason", [Reason.COMPILE_FAILED, Reason.COMPILE_CRASHED, Reason.COMPILE_TIMED_OUT, Reason.DEVICE_NOT_FOUND]
)
def test_when_nothing_works_each_failure_is_named(reason: Reason) -> None:
    found = [
        DeviceMeasurement(device="GPU", ok=False, error="not on this box", failure=Reason.DEVICE_NOT_FOUND),
        DeviceMeasurement(device="CPU", ok=False, error="no such operation", failure=reason),
    ]
    with pytest.raises(PrepareError) as caught:
        choose(found, PerformanceHint.LATENCY)
    assert caught.value.reason is reason
    assert "GPU: not on this box; CPU: no such operation" in str(caught.value)
    assert caught.value.field == "runtime_policy.devices"
    assert caught.value.remedy


def test_a_box_without_devices_is_told_so() -> None:
    with pytest.raises(PrepareError) as caught:
        choose([], PerformanceHint.LATENCY)
    assert caught.value.reason is Reason.DEVICE_NOT_FOUND


def test_a_policy_names_devices_or_their_families() -> None:
    box = ("CPU", "GPU.0", "GPU.1", "SIMCPU")
    assert eligible_devices(box, RuntimePolicy()) == box
    assert eligible_devices(box, RuntimePolicy(devices=("GPU", "CPU"))) == ("CPU", "GPU.0", "GPU.1")
    assert eligible_devices(box, RuntimePolicy(devices=("GPU.1",))) == ("GPU.1",)
    assert missing_devices(box, RuntimePolicy(devices=("NPU", "CPU", "GPU.2"))) == ("NPU", "GPU.2")
