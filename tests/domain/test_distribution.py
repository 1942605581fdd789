"""Distributions add exactly, and quantiles say no more than their bins know."""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import ddsketch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.comparison import (
    CLASS_DRIFT,
    CONFIDENCE_DRIFT,
    LATENCY_RATIO,
    THROUGHPUT,
    class_drift,
    confidence_drift,
    latency_ratio,
    throughput,
)
from controlplane.domain.distribution import (
    add_histograms,
    add_sketches,
    add_tallies,
    histogram_distance,
    mix_distance,
    over,
    quantile_interval,
    quantile_ms,
    quantile_side,
)
from controlplane.domain.evidence import LatencySketch, Tally
from controlplane.domain.ids import AgentId
from controlplane.domain.interval import Side
from tests.support.factories import after_seconds

ACCURACY = 0.01
ST_1 = AgentId("st-1")


def make_sketch(values: Iterable[float]) -> LatencySketch:
    """What an agent reports of these latencies: the sketch of the library that agents use."""
    sketch = ddsketch.DDSketch(relative_accuracy=ACCURACY)
    kept = list(values)
    for value in kept:
        sketch.add(value)
    if not kept:
        return LatencySketch(relative_accuracy=ACCURACY)
    filled = [index for index, count in enumerate(sketch._store.bins) if count > 0]
    bins = sketch._store.bins[filled[0] : filled[-1] + 1] if filled else []
    return LatencySketch(
        relative_accuracy=ACCURACY,
        first_bin_key=sketch._store.offset + filled[0] if filled else 0,
        bin_counts=tuple(round(count) for count in bins),
        zero_count=round(sketch._zero_count),
        count=len(kept),
        sum_ms=sum(kept),
        min_ms=min(kept),
        max_ms=max(kept),
    )


latencies = st.lists(st.floats(0.01, 5_000.0) | st.just(0.0), max_size=30)


def counted(sketch: LatencySketch | None) -> Any:
    return sketch and (sketch.first_bin_key, sketch.bin_counts, sketch.zero_count, sketch.count, sketch.max_ms)


@given(st.lists(latencies, max_size=5), st.randoms(use_true_random=False))
def test_sketches_add_to_the_sketch_of_all_the_values(parts: list[list[float]], rng: random.Random) -> None:
    together = add_sketches(make_sketch(part) for part in parts)
    values = [value for part in parts for value in part]
    assert counted(together) == (counted(make_sketch(values)) if values else None)
    rng.shuffle(parts)
    assert add_sketches(make_sketch(part) for part in parts) == together


def test_sketches_of_several_accuracies_do_not_add() -> None:
    other = replace(make_sketch([1.0]), relative_accuracy=0.02)
    with pytest.raises(AssertionError, match="one accuracy"):
        add_sketches([make_sketch([1.0]), other])


@given(latencies.filter(bool), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_is_as_exact_as_the_sketch(values: list[float], quantile: float) -> None:
    exact = sorted(values)[int(quantile * (len(values) - 1))]
    assert quantile_ms(make_sketch(values), quantile) == pytest.approx(exact, rel=1.001 * ACCURACY)


@given(latencies, st.floats(0.01, 5_000.0))
def test_values_over_a_limit_are_counted_between_two_bounds(values: list[float], limit_ms: float) -> None:
    surely, possibly = over(make_sketch(values), limit_ms)
    assert surely <= sum(value > limit_ms * 1.0001 for value in values)
    assert sum(value > limit_ms * 0.9999 for value in values) <= possibly + sum(
        limit_ms * 0.9999 < value <= limit_ms * 1.0001 for value in values
    )


@pytest.mark.parametrize(
    ("latency_ms", "side"), [(8.0, Side.BELOW), (10.0, Side.OPEN), (10.05, Side.OPEN), (12.5, Side.ABOVE)]
)
def test_a_quantile_is_judged_where_its_bins_are_clear(latency_ms: float, side: Side) -> None:
    sketch = make_sketch([latency_ms] * 700)
    assert quantile_side(sketch, 0.99, limit_ms=10.02, miss=0.01) is side
    between = quantile_interval(sketch, 0.99, miss=0.01)
    assert between.low <= latency_ms <= between.high
    assert quantile_side(make_sketch([latency_ms] * 9), 0.99, limit_ms=9.0, miss=0.01) in {Side.OPEN, Side.ABOVE}
    assert quantile_side(None, 0.99, limit_ms=9.0, miss=0.01) is Side.OPEN


@given(latencies.filter(bool), st.floats(0.01, 5_000.0))
def test_the_interval_of_a_quantile_agrees_with_its_side(values: list[float], limit_ms: float) -> None:
    sketch = make_sketch(values * 40)
    between = quantile_interval(sketch, 0.95, miss=0.01)
    side = quantile_side(sketch, 0.95, limit_ms=limit_ms, miss=0.01)
    if side is Side.BELOW:
        assert between.high <= limit_ms
    if side is Side.ABOVE:
        assert between.low >= limit_ms
    assert between.low <= between.high


def test_histograms_and_mixes_lie_apart_by_their_shares() -> None:
    assert add_histograms([(1, 2), (3,), ()]) == (4, 2)
    assert histogram_distance((1, 0), (0, 7)) == 1.0
    assert histogram_distance((1, 1), (3, 1)) == pytest.approx(0.25)
    assert mix_distance({"good": 9, "bad": 1}, {"good": 8, "bad": 2}) == pytest.approx(0.1)
    assert mix_distance({"good": 1}, {"bad": 1}) == 1.0


def make_tally(**overrides: Any) -> Tally:
    fields: dict[str, Any] = {"agent_id": ST_1, "inferences": 10}
    return Tally(**(fields | overrides))


def test_tallies_add_up() -> None:
    added = add_tallies(
        [
            make_tally(errors=1, last_receive_time=after_seconds(3), label_counts={"a": 1}, active_seconds=1.5),
            make_tally(paced_inferences=9, last_receive_time=after_seconds(2), label_counts={"a": 1, "b": 2}),
        ],
        agent_id=ST_1,
    )
    assert added == make_tally(
        inferences=20,
        errors=1,
        label_counts={"a": 2, "b": 2},
        active_seconds=1.5,
        paced_inferences=9,
        last_receive_time=after_seconds(3),
    )


def test_a_version_is_compared_with_the_one_before() -> None:
    rng = random.Random(1)
    before = make_tally(
        latency=make_sketch(rng.uniform(5, 10) for _ in range(4_000)),
        active_seconds=4_000.0,
        paced_inferences=8_000,
        confidence_histogram=(0,) * 10 + (400,) * 10,
        label_counts={"good": 3_900, "bad": 100},
    )
    slower = replace(before, latency=make_sketch(rng.uniform(10, 20) for _ in range(4_000)), active_seconds=8_000.0)
    changed = replace(
        slower, confidence_histogram=(400,) * 10 + (0,) * 10, label_counts={"good": 100, "bad": 3_900, "odd": 4}
    )
    for compare, same, other in (
        (latency_ratio, 100, 200),
        (throughput, 100, 50),
        (confidence_drift, 0, 1000),
        (class_drift, 0, 950),
    ):
        alike, apart = compare(before, before, 0.01), compare(changed, before, 0.01)
        assert alike.observed == pytest.approx(same, abs=3)
        assert apart.observed == pytest.approx(other, rel=0.03)
        assert alike.between.low <= same <= alike.between.high
        assert apart.between.low <= other <= apart.between.high
        assert alike.between.high < apart.between.low or apart.between.high < alike.between.low


def test_too_little_of_the_version_before_decides_nothing() -> None:
    little, much = (
        make_tally(),
        make_tally(latency=make_sketch([5.0] * 900), label_counts={"a": 900}, paced_inferences=900, active_seconds=9.0),
    )
    for aspect, limit in ((LATENCY_RATIO, 150), (THROUGHPUT, 50), (CONFIDENCE_DRIFT, 200), (CLASS_DRIFT, 200)):
        assert not aspect.can_decide(aspect.compare(much, little, 0.01), limit)
