"""Statistics of inputs on the wire."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from lineside.v1 import evidence_pb2

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import Histogram


def input_statistics_from_proto(messages: Iterable[evidence_pb2.InputStatistic]) -> Mapping[str, Histogram]:
    """Return them by name, sorted. Raises FieldInvalidError where a name comes twice or a count is not that of the
    bins."""
    found: dict[str, Histogram] = {}
    for message in messages:
        if message.name in found or message.count != sum(message.bin_counts):
            raise FieldInvalidError(
                f"{message.name[:80]!r} comes twice or does not add up",
                field="windows.input_statistics",
                remedy="send each statistic once, its count the sum of its bins",
            )
        found[message.name] = Histogram(low=message.low, high=message.high, bin_counts=tuple(message.bin_counts))
    return MappingProxyType(dict(sorted(found.items())))


def input_statistics_to_proto(statistics: Mapping[str, Histogram]) -> list[evidence_pb2.InputStatistic]:
    return [
        evidence_pb2.InputStatistic(
            name=name, low=one.low, high=one.high, bin_counts=one.bin_counts, count=sum(one.bin_counts)
        )
        for name, one in sorted(statistics.items())
    ]
