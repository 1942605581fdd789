"""The choice between measured configurations: a pure rule, and what must hold of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.device import Configuration, DeviceMeasurement, Parity, PerformanceHint
from agent.domain.device_choice import NOISE, choose, fallback_choice, is_eligible, ranked
from agent.domain.errors import PrepareError, Reason

HINTS = st.sampled_from(PerformanceHint)
CONFIGURATIONS = st.builds(
    Configuration,
    device=st.sampled_from(["CPU", "GPU.0", "GPU.1", "NPU", "AUTO:GPU.0,CPU", "MULTI:GPU.0,GPU.1,CPU"]),
    streams=st.sampled_from([0, 1, 4]),
    precision=st.sampled_from(["", "f32", "bf16", "f16"]),
)
NUMBERS = st.floats(0.5, 20.0)


@st.composite
def a_measurement(
    draw: st.DrawFn, configuration: Configuration | None = None, *, eligible: bool = False
) -> DeviceMeasurement:
    where = configuration or draw(CONFIGURATIONS)
    ok = eligible or draw(st.booleans())
    parities = [Parity.PASSED, Parity.NOT_CHECKED] if eligible else list(Parity)
    return DeviceMeasurement(
        device=where.device,
        streams=where.streams,
        precision=where.precision,
        ok=ok,
        latency_ms_p50=draw(NUMBERS),
        throughput_per_second=draw(NUMBERS),
        parity=draw(st.sampled_from(parities)),
        failure=None if ok else Reason.COMPILE_FAILED,
    )


@st.composite
def measurements(draw: st.DrawFn) -> list[DeviceMeasurement]:
    """Of different configurations, of which at least one is eligible."""
    wheres = draw(st.lists(CONFIGURATIONS, min_size=1, max_size=8, unique=True))
    return [draw(a_measurement(where, eligible=place == 0)) for place, where in enumerate(wheres)]


def measured(
    device: str, *, latency: float = 1.0, throughput: float = 1.0, streams: int = 0, precision: str = "f32"
) -> DeviceMeasurement:
    return DeviceMeasurement(
        device=device,
        ok=True,
        streams=streams,
        precision=precision,
        latency_ms_p50=latency,
        throughput_per_second=throughput,
    )


def cost(measurement: DeviceMeasurement, hint: PerformanceHint) -> float:
    return measurement.latency_ms_p50 if hint is PerformanceHint.LATENCY else 1 / measurement.throughput_per_second


@given(found=measurements(), hint=HINTS, data=st.data())
def test_the_order_of_measuring_does_not_matter(
    found: list[DeviceMeasurement], hint: PerformanceHint, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(found))
    assert choose(shuffled, hint).configuration == choose(found, hint).configuration
    assert ranked(shuffled, hint) == ranked(found, hint)


@given(found=measurements(), hint=HINTS)
def test_what_is_chosen_is_eligible_and_as_good_as_the_best(
    found: list[DeviceMeasurement], hint: PerformanceHint
) -> None:
    choice = choose(found, hint)
    (chosen,) = [each for each in choice.measurements if each.chosen]
    assert chosen.configuration == choice.configuration
    assert is_eligible(chosen)
    assert all(cost(chosen, hint) <= cost(each, hint) * (1 + NOISE) for each in found if is_eligible(each))
    assert [replace(each, chosen=False, remark="") for each in choice.measurements] == found
    assert all(each.remark for each in choice.measurements)


@given(found=measurements(), hint=HINTS, worse=a_measurement())
def test_what_is_worse_and_no_simpler_changes_nothing(
    found: list[DeviceMeasurement], hint: PerformanceHint, worse: DeviceMeasurement
) -> None:
    before = choose(found, hint).configuration
    (chosen,) = [each for each in found if each.configuration == before]
    added = replace(
        worse,
        device=f"MULTI:{','.join(chosen.configuration.members)},LAST",
        latency_ms_p50=chosen.latency_ms_p50 + worse.latency_ms_p50,
        throughput_per_second=chosen.throughput_per_second / (1 + worse.throughput_per_second),
    )
    assert choose([added, *found], hint).configuration == before


@given(found=measurements(), hint=HINTS, other=a_measurement(eligible=True))
def test_what_fails_changes_nothing(
    found: list[DeviceMeasurement], hint: PerformanceHint, other: DeviceMeasurement
) -> None:
    wrong = replace(other, device="WRONG", latency_ms_p50=0.001, throughput_per_second=1e6)
    before = choose(found, hint).configuration
    assert choose([replace(wrong, ok=False), *found], hint).configuration == before
    assert choose([replace(wrong, parity=Parity.FAILED), *found], hint).configuration == before


@given(found=measurements(), hint=HINTS)
def test_the_ranking_holds_every_eligible_configuration_once(
    found: list[DeviceMeasurement], hint: PerformanceHint
) -> None:
    order = ranked(found, hint)
    assert order[0] == choose(found, hint).configuration
    assert sorted(map(str, order)) == sorted(str(each.configuration) for each in found if is_eligible(each))


@given(found=measurements(), hint=HINTS)
def test_a_fallback_says_what_answers_and_why(found: list[DeviceMeasurement], hint: PerformanceHint) -> None:
    choice = choose(found, hint)
    for configuration in ranked(found, hint)[1:]:
        fallen = fallback_choice(choice, hint, configuration, "the device is gone")
        assert fallen.configuration == configuration
        assert [each.configuration for each in fallen.measurements if each.chosen] == [configuration]
        assert f"{choice.configuration} was lost: the device is gone" in fallen.reason


@pytest.mark.parametrize(
    ("simple", "other"),
    [
        (measured("CPU"), measured("AUTO:CPU,GPU.0")),
        (measured("CPU"), measured("CPU", streams=1)),
        (measured("CPU"), measured("CPU", precision="bf16")),
        (measured("CPU", precision="f16"), measured("CPU", precision="bf16")),
        (measured("ZPU", streams=4, precision="bf16"), measured("AUTO:A,B")),
    ],
)
def test_within_the_noise_the_simpler_wins(simple: DeviceMeasurement, other: DeviceMeasurement) -> None:
    for gain, expected in ((0.5, simple), (1.5, other)):
        better = replace(
            other, latency_ms_p50=1 / (1 + gain * NOISE) / (1 + 1e-9), throughput_per_second=1 + gain * NOISE
        )
        for hint in PerformanceHint:
            assert choose([better, simple], hint).configuration == expected.configuration


def test_a_full_tie_goes_to_the_first_name() -> None:
    for hint in PerformanceHint:
        assert choose([measured("NPU"), measured("CPU"), measured("GPU.0")], hint).device == "CPU"


def test_the_reason_has_the_numbers() -> None:
    found = [measured("CPU", latency=6.4, throughput=412.3), measured("GPU.0", latency=9.5, throughput=398.0)]
    failed = DeviceMeasurement(device="NPU", ok=False, error="driver too old", failure=Reason.COMPILE_FAILED)
    assert choose(found, PerformanceHint.THROUGHPUT).reason == (
        "CPU f32: 412.3 inferences/s, best of 2 measured for THROUGHPUT, parity not checked"
    )
    assert choose([found[0], failed], PerformanceHint.LATENCY).reason == (
        "CPU f32: 6.40 ms median latency, the one measured for LATENCY, parity not checked; not eligible: NPU"
    )
    near = replace(found[1], device="AUTO:CPU,GPU.0", throughput_per_second=415.0)
    passed = replace(found[0], parity=Parity.PASSED, difference=0.0012)
    assert choose([passed, near], PerformanceHint.THROUGHPUT).reason == (
        "CPU f32: 412.3 inferences/s, the simplest within 3% of the best of 2 measured for THROUGHPUT, "
        "which is AUTO:CPU,GPU.0 f32 with 415.0 inferences/s, parity within 0.0012"
    )


def test_each_remark_says_why_not() -> None:
    found = [
        measured("CPU", latency=2.0),
        measured("CPU", latency=1.97, streams=1),
        measured("SLOW", latency=5.0),
        replace(measured("WRONG"), ok=False, parity=Parity.FAILED, failure=Reason.PARITY_FAILED),
        DeviceMeasurement(device="LATE", ok=False, error="not tried: the others took 600 s"),
    ]
    assert [each.remark for each in choose(found, PerformanceHint.LATENCY).measurements] == [
        "best of 3",
        "no more than 3% better, and less simple",
        "2.50 times the cost of the chosen one",
        "not eligible",
        "not tried",
    ]


@pytest.mark.parametrize("reason", [Reason.COMPILE_CRASHED, Reason.PARITY_FAILED, Reason.PROBE_IMPLAUSIBLE])
def test_when_nothing_works_every_failure_is_named(reason: Reason) -> None:
    found = [
        DeviceMeasurement(device="GPU", ok=False, error="not on this box", failure=Reason.DEVICE_NOT_FOUND),
        DeviceMeasurement(device="CPU", ok=False, error="no such operation", failure=reason),
    ]
    with pytest.raises(PrepareError) as caught:
        choose(found, PerformanceHint.LATENCY)
    assert caught.value.reason is reason
    assert "GPU: not on this box; CPU: no such operation" in str(caught.value)


def test_a_box_without_devices_is_told_so() -> None:
    with pytest.raises(PrepareError) as caught:
        choose([], PerformanceHint.LATENCY)
    assert caught.value.reason is Reason.DEVICE_NOT_FOUND
