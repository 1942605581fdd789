"""Merging windows: exact counts, and quantiles as ddsketch itself gives them."""

import math
from collections.abc import Iterable
from datetime import datetime

import pytest
from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import DenseStore
from hypothesis import given
from hypothesis import strategies as st

from controlplane import limits
from controlplane.app.metrics import Merged, Metrics, MetricSummary
from controlplane.domain.distribution import add_sketches, quantile_ms
from controlplane.domain.errors import FieldInvalidError, LimitExceededError, ResourceNotFoundError
from controlplane.domain.evidence import LatencySketch, MetricWindow
from controlplane.domain.ids import ModelId
from tests.support.factories import NOW, after_seconds, make_batch, make_model, make_window
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import VirtualClock

ACCURACY = limits.LATENCY_RELATIVE_ACCURACY
latencies_ms = st.lists(st.one_of(st.floats(0.001, 100_000.0), st.just(0.0)), max_size=60)


def library_sketch(values: list[float]) -> BaseDDSketch:
    sketch = BaseDDSketch(LogarithmicMapping(ACCURACY), DenseStore(), DenseStore(), 0)
    for value in values:
        sketch.add(value)
    return sketch


def merge_sketches(sketches: Iterable[LatencySketch]) -> LatencySketch:
    return add_sketches(sketches) or LatencySketch(relative_accuracy=ACCURACY)


def as_window_sketch(values: list[float]) -> LatencySketch:
    """As an agent sends it."""
    sketch = library_sketch(values)
    bins = sketch._store
    keys = range(bins.min_key, bins.max_key + 1) if bins.count else range(0)
    return LatencySketch(
        relative_accuracy=ACCURACY,
        first_bin_key=keys[0] if keys else 0,
        bin_counts=tuple(int(bins.bins[key - bins.offset]) for key in keys),
        zero_count=int(sketch._zero_count),
        count=int(sketch.count),
        sum_ms=sum(values),
        min_ms=min(values, default=0.0),
        max_ms=max(values, default=0.0),
    )


@given(st.lists(latencies_ms, max_size=6), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_quantiles_of_merged_windows_are_ddsketchs_own(windows: list[list[float]], quantile: float) -> None:
    merged = merge_sketches(as_window_sketch(values) for values in windows)
    together = library_sketch([value for values in windows for value in values])
    assert quantile_ms(merged, quantile) == pytest.approx(together.get_quantile_value(quantile) or 0.0)


@given(st.lists(latencies_ms, min_size=1, max_size=6), st.sampled_from([0.5, 0.95, 0.99]))
def test_quantiles_are_within_the_relative_accuracy(windows: list[list[float]], quantile: float) -> None:
    values = sorted(value for window in windows for value in window)
    merged = merge_sketches(as_window_sketch(window) for window in windows)
    if values:
        true = values[math.floor(quantile * (len(values) - 1))]
        assert quantile_ms(merged, quantile) == pytest.approx(true, rel=ACCURACY * 1.001)


@given(st.lists(latencies_ms, max_size=6), st.randoms())
def test_neither_order_nor_grouping_matters(windows: list[list[float]], rng: object) -> None:
    sketches = [as_window_sketch(values) for values in windows]
    half = len(sketches) // 2
    at_once = merge_sketches(sketches)
    in_steps = merge_sketches([merge_sketches(sketches[half:]), merge_sketches(sketches[:half])])
    assert in_steps.bin_counts == at_once.bin_counts
    assert (in_steps.first_bin_key, in_steps.zero_count, in_steps.count) == (
        at_once.first_bin_key,
        at_once.zero_count,
        at_once.count,
    )


def summarize(windows: list[MetricWindow], *, by_agent: bool) -> tuple[MetricSummary, ...]:
    merged = Merged(by_agent=by_agent)
    merged.add(windows)
    return merged.summaries()


def test_no_values_have_no_quantiles() -> None:
    assert quantile_ms(merge_sketches([]), 0.95) == 0.0


def test_one_row_a_version_or_a_version_agent_and_device() -> None:
    windows = [
        make_window(agent_id="st-2", device="CPU", start_time=after_seconds(60), end_time=after_seconds(120)),
        make_window(agent_id="st-1", device="GPU.0", omitted_count=4),
        make_window(agent_id="st-1", device="CPU", refused_count=3, omitted_count=2),
        make_window(version=2, confidence_histogram=()),
    ]
    by_version = summarize(windows, by_agent=False)
    assert [(row.version, row.agent_id, row.inference_count, row.refused_count) for row in by_version] == [
        (1, None, 30, 3),
        (2, None, 10, 0),
    ]
    assert (by_version[0].start_time, by_version[0].end_time) == (NOW, after_seconds(120))
    assert [row.omitted_count for row in by_version] == [6, 0]
    assert by_version[0].confidence_histogram[-1] == 30
    assert by_version[1].confidence_histogram == (0,) * 20
    by_agent = summarize(windows, by_agent=True)
    assert [(row.version, row.agent_id, row.device) for row in by_agent] == [
        (1, "st-1", "CPU"),
        (1, "st-1", "GPU.0"),
        (1, "st-2", "CPU"),
        (2, "st-1", "CPU"),
    ]
    assert [row.omitted_count for row in by_agent] == [2, 4, 0, 0]


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    async with store.write() as work:
        await work.models.add(make_model())
        await work.evidence.add(make_batch(dropped_results=5))
        await work.evidence.add(make_batch(agent_id="st-2"))
    return store


def metrics_of(store: MemoryStore) -> Metrics:
    return Metrics(store=store, clock=VirtualClock(after_seconds(60)))


async def test_answers_from_what_is_stored(store: MemoryStore) -> None:
    (row,) = await metrics_of(store).query(ModelId("solar"))
    assert (row.inference_count, row.error_count, row.dropped_results) == (20, 2, 5)
    assert quantile_ms(row.latency, 0.5) > 0


async def test_a_time_without_windows_has_no_rows(store: MemoryStore) -> None:
    assert await metrics_of(store).query(ModelId("solar"), start_time=after_seconds(1e6)) == ()


@pytest.mark.parametrize(("start", "end"), [(NOW, NOW), (after_seconds(1), NOW)])
async def test_a_time_that_ends_before_it_starts_is_refused(store: MemoryStore, start: datetime, end: datetime) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await metrics_of(store).query(ModelId("solar"), start_time=start, end_time=end)
    assert refusal.value.field == "end_time"


async def test_an_unknown_model_is_not_found(store: MemoryStore) -> None:
    with pytest.raises(ResourceNotFoundError):
        await metrics_of(store).query(ModelId("wind"))


async def test_a_query_is_bounded(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRIC_WINDOWS_MAX", 1)
    with pytest.raises(LimitExceededError) as refusal:
        await metrics_of(store).query(ModelId("solar"))
    assert refusal.value.remedy


async def test_the_last_day_is_asked_for_unless_another_start_is(store: MemoryStore) -> None:
    day = limits.METRIC_TIME_DEFAULT.total_seconds()
    tomorrow = Metrics(store=store, clock=VirtualClock(after_seconds(day + 60)))
    assert await tomorrow.query(ModelId("solar")) == ()
    assert len(await tomorrow.query(ModelId("solar"), start_time=NOW)) == 1
    assert len(await tomorrow.query(ModelId("solar"), end_time=after_seconds(60))) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_pages_of_any_size_merge_to_the_same(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    windows = tuple(make_window(batch=9, version=1 + index % 2, start_time=NOW) for index in range(5))
    async with store.write() as work:
        await work.evidence.add(make_batch(batch=9, windows=windows))
    metrics = metrics_of(store)
    whole = await metrics.query(ModelId("solar"), by_agent=True)
    monkeypatch.setattr(limits, "METRIC_WINDOWS_A_TURN", size)
    assert await metrics.query(ModelId("solar"), by_agent=True) == whole
