"""The choice between measured configurations: a rule that an operator can follow by hand.

1. Out is what failed, what reported impossible numbers, and what differs too much from the version's golden outputs.
2. The hint names the number that counts: the median latency for LATENCY, inferences a second for the other two.
3. What is within NOISE of the best by that number counts as equally good. Among those the simplest wins: fewer devices,
   then the device's own number of streams, then the higher precision.
4. What is left is decided by the number itself, then by the other number, then by name.

So the choice depends neither on the order of measuring nor on chance; what is worse, and no simpler, never changes it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from agent.domain.device import Configuration, DeviceChoice, DeviceMeasurement, Parity, PerformanceHint
from agent.domain.errors import PrepareError, Reason

NOISE = 0.03
"""Two short measurements of the same thing on a quiet box differ by so much."""
_PRECISION_ORDER = ("f32", "", "f16", "bf16")


def choose(measurements: Sequence[DeviceMeasurement], hint: PerformanceHint) -> DeviceChoice:
    """The best configuration for the hint. Raises PrepareError, naming each one's failure, when none is eligible."""
    eligible = [each for each in measurements if is_eligible(each)]
    if not eligible:
        raise _nothing_works(measurements)
    chosen = _best(eligible, hint)
    remarks = [_remark(each, chosen, eligible, hint) for each in measurements]
    return DeviceChoice(
        device=chosen.device,
        streams=chosen.streams,
        precision=chosen.precision,
        reason=_sentence(chosen, measurements, eligible, hint),
        measurements=tuple(
            replace(each, chosen=each.configuration == chosen.configuration, remark=remark)
            for each, remark in zip(measurements, remarks, strict=True)
        ),
    )


def is_eligible(measurement: DeviceMeasurement) -> bool:
    return measurement.ok and measurement.parity is not Parity.FAILED


def ranked(measurements: Sequence[DeviceMeasurement], hint: PerformanceHint) -> tuple[Configuration, ...]:
    """The eligible configurations in the order in which they would be chosen, each without those before it."""
    left = [each for each in measurements if is_eligible(each)]
    order: list[Configuration] = []
    while left:
        best = _best(left, hint)
        order.append(best.configuration)
        left.remove(best)
    return tuple(order)


def fallback_choice(
    choice: DeviceChoice, hint: PerformanceHint, configuration: Configuration, why: str
) -> DeviceChoice:
    """The choice after what was chosen was lost: `configuration` answers now, and the reason says why."""
    (measured,) = [each for each in choice.measurements if each.configuration == configuration]
    lost = f"{choice.configuration} was lost: {why}"
    return replace(
        choice,
        device=configuration.device,
        streams=configuration.streams,
        precision=configuration.precision,
        reason=f"{configuration}: {_number(measured, hint)}, next best for {hint} since {lost}",
        measurements=tuple(
            replace(each, chosen=True, remark=f"next best since {choice.configuration} was lost")
            if each.configuration == configuration
            else replace(each, chosen=False, remark=f"lost: {why}" if each.chosen else each.remark)
            for each in choice.measurements
        ),
    )


def _best(eligible: Sequence[DeviceMeasurement], hint: PerformanceHint) -> DeviceMeasurement:
    best_cost = min(_cost(each, hint) for each in eligible)
    near = [each for each in eligible if _is_near(_cost(each, hint), best_cost)]
    return min(near, key=lambda each: (*_complexity(each), *_rank(each, hint)))


def _is_near(cost: float, best_cost: float) -> bool:
    return cost <= best_cost * (1 + NOISE)


def _cost(measurement: DeviceMeasurement, hint: PerformanceHint) -> float:
    """What counts for the hint; less is better."""
    match hint:
        case PerformanceHint.LATENCY:
            return measurement.latency_ms_p50
        case PerformanceHint.THROUGHPUT | PerformanceHint.CUMULATIVE_THROUGHPUT:
            return 1.0 / measurement.throughput_per_second if measurement.throughput_per_second else float("inf")
    assert_never(hint)


def _complexity(measurement: DeviceMeasurement) -> tuple[int, int, int]:
    known = measurement.precision in _PRECISION_ORDER
    precision = _PRECISION_ORDER.index(measurement.precision) if known else len(_PRECISION_ORDER)
    return (len(measurement.configuration.members), int(measurement.streams > 0), precision)


def _rank(measurement: DeviceMeasurement, hint: PerformanceHint) -> tuple[float, float, str, int]:
    match hint:
        case PerformanceHint.LATENCY:
            other = -measurement.throughput_per_second
        case PerformanceHint.THROUGHPUT | PerformanceHint.CUMULATIVE_THROUGHPUT:
            other = measurement.latency_ms_p50
    return (_cost(measurement, hint), other, str(measurement.configuration), measurement.streams)


# --- words ---


def _number(measurement: DeviceMeasurement, hint: PerformanceHint) -> str:
    match hint:
        case PerformanceHint.LATENCY:
            return f"{measurement.latency_ms_p50:.2f} ms median latency"
        case PerformanceHint.THROUGHPUT | PerformanceHint.CUMULATIVE_THROUGHPUT:
            return f"{measurement.throughput_per_second:.1f} inferences/s"
    assert_never(hint)


def _sentence(
    chosen: DeviceMeasurement,
    measurements: Sequence[DeviceMeasurement],
    eligible: Sequence[DeviceMeasurement],
    hint: PerformanceHint,
) -> str:
    count = len(eligible)
    parts = [f"{chosen.configuration}: {_number(chosen, hint)}"]
    fastest = min(eligible, key=lambda each: _rank(each, hint))
    if fastest is not chosen:
        parts.append(f"the simplest within {NOISE:.0%} of the best of {count} measured for {hint}")
        parts.append(f"which is {fastest.configuration} with {_number(fastest, hint)}")
    else:
        parts.append(f"best of {count} measured for {hint}" if count > 1 else f"the one measured for {hint}")
    parts.append(_parity(chosen))
    failed = ", ".join(str(each.configuration) for each in measurements if not is_eligible(each) and each.failure)
    return ", ".join(parts) + (f"; not eligible: {failed}" if failed else "")


def _parity(measurement: DeviceMeasurement) -> str:
    match measurement.parity:
        case Parity.NOT_CHECKED:
            return "parity not checked"
        case Parity.PASSED:
            return f"parity within {measurement.difference:.2g}"
        case Parity.FAILED:
            return f"parity off by {measurement.difference:.2g}"
    assert_never(measurement.parity)


def _remark(
    measurement: DeviceMeasurement,
    chosen: DeviceMeasurement,
    eligible: Sequence[DeviceMeasurement],
    hint: PerformanceHint,
) -> str:
    if not is_eligible(measurement):
        return "not eligible" if measurement.failure else "not tried"
    if measurement is chosen:
        return f"best of {len(eligible)}"
    cost, chosen_cost = _cost(measurement, hint), _cost(chosen, hint)
    if cost < chosen_cost:  # else it would have been chosen
        return f"no more than {NOISE:.0%} better, and less simple"
    return f"{cost / chosen_cost:.2f} times the cost of the chosen one" if chosen_cost else "worse"


def _nothing_works(measurements: Sequence[DeviceMeasurement]) -> PrepareError:
    if not measurements:
        return PrepareError(
            "this box has no device",
            field="runtime_policy.devices",
            remedy="check the OpenVINO installation and its drivers",
            reason=Reason.DEVICE_NOT_FOUND,
        )
    # The first failure that is more than a missing device tells most about the model.
    failures = [each.failure for each in measurements if each.failure is not None] or [Reason.COMPILE_FAILED]
    reason = next((each for each in failures if each is not Reason.DEVICE_NOT_FOUND), Reason.DEVICE_NOT_FOUND)
    return PrepareError(
        "; ".join(f"{each.configuration}: {each.error or 'failed'}" for each in measurements),
        field="runtime_policy.devices",
        remedy="allow a device that this box has, or publish a version that it can compile and that agrees with its "
        "golden outputs there",
        reason=reason,
    )
