"""Metrics: windows of any agents and times, merged into one row for each version, or agent, version and device.

Latencies merge by adding the bins of their sketches, so a quantile of the merged sketch has the relative
accuracy of each: that is what DDSketch promises. Windows of one accuracy merge; `evidence.check_batch` admits no other.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ddsketch.mapping import LogarithmicMapping

from controlplane import limits
from controlplane.app.ports import Store
from controlplane.domain.errors import FieldInvalidError, LimitExceededError
from controlplane.domain.evidence import CONFIDENCE_BINS, LatencySketch, MetricWindow
from controlplane.domain.ids import AgentId, ModelId

_NO_SKETCH = LatencySketch(relative_accuracy=limits.LATENCY_RELATIVE_ACCURACY)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """Merged windows. `agent_id` and `device` are None when merged over agents."""

    model_id: ModelId
    version: int
    agent_id: AgentId | None
    device: str | None
    start_time: datetime
    end_time: datetime
    inference_count: int
    error_count: int
    refused_count: int
    latency: LatencySketch
    confidence_histogram: tuple[int, ...]
    dropped_results: int = 0
    """Of all versions of the model: an agent that drops results no longer knows whose they were."""


class Metrics:
    """Answers questions about measurements."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def query(
        self,
        model_id: ModelId,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        by_agent: bool = False,
    ) -> Sequence[MetricSummary]:
        """By version, then agent, then device. Raises ResourceNotFoundError for an unknown model, and
        LimitExceededError when more windows would merge than one query may."""
        if start_time and end_time and end_time <= start_time:
            raise FieldInvalidError("the time ends before it starts", field="end_time", remedy="swap the two")
        async with self._store.read() as work:
            await work.models.get(model_id)
            windows = await work.evidence.list_windows(model_id, start_time=start_time, end_time=end_time)
            dropped = await work.evidence.count_dropped(model_id)
        if len(windows) > limits.METRIC_WINDOWS_MAX:
            raise LimitExceededError(
                f"{len(windows)} windows are more than {limits.METRIC_WINDOWS_MAX}",
                field="start_time",
                remedy="ask for a shorter time",
            )
        return summarize(windows, by_agent=by_agent, dropped_results=dropped)


def summarize(
    windows: Iterable[MetricWindow], *, by_agent: bool, dropped_results: int = 0
) -> tuple[MetricSummary, ...]:
    """Merge the windows of one model."""
    groups: dict[tuple[int, str, str], list[MetricWindow]] = {}
    for window in windows:
        agent, device = (window.agent_id, window.device) if by_agent else ("", "")
        groups.setdefault((window.version, agent, device), []).append(window)
    return tuple(_merge(groups[key], by_agent=by_agent, dropped_results=dropped_results) for key in sorted(groups))


def _merge(windows: Sequence[MetricWindow], *, by_agent: bool, dropped_results: int) -> MetricSummary:
    first = windows[0]
    histograms = [window.confidence_histogram or (0,) * CONFIDENCE_BINS for window in windows]
    return MetricSummary(
        model_id=first.slot,
        version=first.version,
        agent_id=first.agent_id if by_agent else None,
        device=first.device if by_agent else None,
        start_time=min(window.start_time for window in windows),
        end_time=max(window.end_time for window in windows),
        inference_count=sum(window.inference_count for window in windows),
        error_count=sum(window.error_count for window in windows),
        refused_count=sum(window.refused_count for window in windows),
        latency=merge_sketches(window.latency for window in windows),
        confidence_histogram=tuple(map(sum, zip(*histograms, strict=True))),
        dropped_results=dropped_results,
    )


def merge_sketches(sketches: Iterable[LatencySketch]) -> LatencySketch:
    """Return the sketch of all the values. A programmer's error for sketches of several accuracies."""
    full = [sketch for sketch in sketches if sketch.count]
    if not full:
        return _NO_SKETCH
    assert len({sketch.relative_accuracy for sketch in full}) == 1, "sketches of one accuracy merge"
    bins: Counter[int] = Counter()
    for sketch in full:
        for key, count in enumerate(sketch.bin_counts, sketch.first_bin_key):
            bins[key] += count
    first, last = min(bins, default=0), max(bins, default=-1)
    return LatencySketch(
        relative_accuracy=full[0].relative_accuracy,
        first_bin_key=first,
        bin_counts=tuple(bins[key] for key in range(first, last + 1)),
        zero_count=sum(sketch.zero_count for sketch in full),
        count=sum(sketch.count for sketch in full),
        sum_ms=sum(sketch.sum_ms for sketch in full),
        min_ms=min(sketch.min_ms for sketch in full),
        max_ms=max(sketch.max_ms for sketch in full),
    )


def quantile_ms(sketch: LatencySketch, quantile: float) -> float:
    """Return the value at a quantile from 0 to 1, within the sketch's relative accuracy; 0 for no values."""
    rank = quantile * (sketch.count - 1)
    if sketch.count == 0 or rank < sketch.zero_count:
        return 0.0
    seen = float(sketch.zero_count)
    key = sketch.first_bin_key
    for key, count in enumerate(sketch.bin_counts, sketch.first_bin_key):  # noqa: B007
        seen += count
        if seen > rank:
            break
    return float(LogarithmicMapping(sketch.relative_accuracy).value(key))
