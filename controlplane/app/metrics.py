"""Metrics: windows of any agents and times, merged into one row for each version, or agent, version and device.

Latencies merge by adding the bins of their sketches, so a quantile of the merged sketch has the relative
accuracy of each: that is what DDSketch promises. Windows of one accuracy merge; `evidence.check_batch` admits no other.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane import limits
from controlplane.app.ports import Clock, Store, UnitOfWork, WindowPlace
from controlplane.domain.distribution import add_histograms, add_sketches
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
    omitted_count: int = 0
    """Of the inferences, those whose results are not kept, as the deployment's policy says."""
    dropped_results: int = 0
    """Of all versions of the model: an agent that drops results no longer knows whose they were."""


class Metrics:
    """Answers questions about measurements."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def query(
        self,
        model_id: ModelId,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        by_agent: bool = False,
    ) -> Sequence[MetricSummary]:
        """By version, then agent, then device. Without a start, METRIC_TIME_DEFAULT up to the end, or up to now.

        Windows are read and merged a few at a time, so that nobody else waits for a busy fleet's. Raises
        ResourceNotFoundError for an unknown model, and LimitExceededError when more windows would merge than one
        query may."""
        if start_time and end_time and end_time <= start_time:
            raise FieldInvalidError("the time ends before it starts", field="end_time", remedy="swap the two")
        start = start_time or (end_time or self._clock.now()) - limits.METRIC_TIME_DEFAULT
        merged = Merged(by_agent=by_agent)
        async with self._store.read() as work:
            await work.models.get(model_id)
            async for windows in _pages(work, model_id, start_time=start, end_time=end_time):
                merged.add(windows)
            dropped = await work.evidence.count_dropped(model_id)
        return merged.summaries(dropped_results=dropped)


async def _pages(
    work: UnitOfWork, model_id: ModelId, *, start_time: datetime, end_time: datetime | None
) -> AsyncIterator[Sequence[MetricWindow]]:
    size = limits.METRIC_WINDOWS_A_TURN
    after: WindowPlace | None = None
    count = 0
    while True:
        placed = await work.evidence.list_windows(
            model_id, start_time=start_time, end_time=end_time, after=after, limit=size
        )
        count += len(placed)
        if count > limits.METRIC_WINDOWS_MAX:
            raise LimitExceededError(
                f"more than {limits.METRIC_WINDOWS_MAX} windows would merge",
                field="start_time",
                remedy="ask for a shorter time",
            )
        yield [window for _, window in placed]
        if len(placed) < size:
            return
        after = placed[-1][0]


class Merged:
    """Windows of one model, merged as they come, in any order."""

    def __init__(self, *, by_agent: bool) -> None:
        self._by_agent = by_agent
        self._groups: dict[tuple[int, str, str], _Group] = {}

    def add(self, windows: Iterable[MetricWindow]) -> None:
        together: dict[tuple[int, str, str], list[MetricWindow]] = {}
        for window in windows:
            agent, device = (window.agent_id, window.device) if self._by_agent else ("", "")
            together.setdefault((window.version, agent, device), []).append(window)
        for key, own in together.items():
            first = own[0]
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(first=first, start_time=first.start_time, end_time=first.end_time)
            group.add(own)

    def summaries(self, *, dropped_results: int = 0) -> tuple[MetricSummary, ...]:
        """By version, then agent, then device."""
        return tuple(
            group.summary(by_agent=self._by_agent, dropped_results=dropped_results)
            for _, group in sorted(self._groups.items(), key=lambda item: item[0])
        )


@dataclass(slots=True, kw_only=True)
class _Group:
    """One row as it grows."""

    first: MetricWindow
    start_time: datetime
    end_time: datetime
    inference_count: int = 0
    error_count: int = 0
    refused_count: int = 0
    omitted_count: int = 0
    histogram: tuple[int, ...] = (0,) * CONFIDENCE_BINS
    latency: LatencySketch = _NO_SKETCH

    def add(self, windows: Sequence[MetricWindow]) -> None:
        """Of one version, and of one agent and device where the row is of one."""
        self.start_time = min(self.start_time, *(window.start_time for window in windows))
        self.end_time = max(self.end_time, *(window.end_time for window in windows))
        self.inference_count += sum(window.inference_count for window in windows)
        self.error_count += sum(window.error_count for window in windows)
        self.refused_count += sum(window.refused_count for window in windows)
        self.omitted_count += sum(window.omitted_count for window in windows)
        self.histogram = add_histograms([self.histogram, *(window.confidence_histogram for window in windows)])
        self.latency = add_sketches([self.latency, *(window.latency for window in windows)]) or _NO_SKETCH

    def summary(self, *, by_agent: bool, dropped_results: int) -> MetricSummary:
        return MetricSummary(
            model_id=self.first.slot,
            version=self.first.version,
            agent_id=self.first.agent_id if by_agent else None,
            device=self.first.device if by_agent else None,
            start_time=self.start_time,
            end_time=self.end_time,
            inference_count=self.inference_count,
            error_count=self.error_count,
            refused_count=self.refused_count,
            latency=self.latency,
            confidence_histogram=self.histogram,
            omitted_count=self.omitted_count,
            dropped_results=dropped_results,
        )
