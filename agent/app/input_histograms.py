"""Counts of statistics of inputs, in bins that merge by adding."""

from collections.abc import Iterable

from lineside.v1 import evidence_pb2

from agent.domain.input_statistics import BINS, STATISTICS, InputStatistics, bin_of


class InputHistograms:
    """Counts by statistic and range. Not thread-safe."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, float, float], list[int]] = {}

    def add(self, statistics: InputStatistics) -> None:
        for name, value in zip(STATISTICS, statistics.values, strict=True):
            low, high = statistics.scale.range_of(name)
            self._bins(name, low, high)[bin_of(value, low, high)] += 1

    def add_messages(self, messages: Iterable[evidence_pb2.InputStatistic]) -> None:
        for message in messages:
            if len(message.bin_counts) == BINS:
                bins = self._bins(message.name, message.low, message.high)
                for index, count in enumerate(message.bin_counts):
                    bins[index] += count

    def messages(self) -> list[evidence_pb2.InputStatistic]:
        """By name; one of each, since a version's inputs are of one type."""
        one_each = {name: (name, low, high) for name, low, high in sorted(self._counts)}
        return [
            evidence_pb2.InputStatistic(
                name=name,
                low=low,
                high=high,
                bin_counts=self._counts[name, low, high],
                count=sum(self._counts[name, low, high]),
            )
            for name, low, high in one_each.values()
        ]

    def _bins(self, name: str, low: float, high: float) -> list[int]:
        return self._counts.setdefault((name, low, high), [0] * BINS)
