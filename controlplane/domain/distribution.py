"""Distributions that agents measure: sums of them, and how far two of them lie apart.

Latencies come as DDSketches (Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", VLDB 2019): the bin with key k counts the values above gamma ** (k - 1) and up to
gamma ** k, where gamma is (1 + accuracy) / (1 - accuracy). Sketches of one accuracy add exactly: the sum is the sketch
of all the values. Bins of different accuracies lie across each other, so such sketches do not add: that is a
programmer's error here, since `app/evidence.check_batch` admits one accuracy alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from math import fsum, inf
from types import MappingProxyType

from controlplane.domain.evidence import TOGETHER, LatencySketch, ShadowTally, Tally
from controlplane.domain.ids import AgentId
from controlplane.domain.interval import Interval, Side, share_side


def add_sketches(sketches: Iterable[LatencySketch | None]) -> LatencySketch | None:
    """Return the sketch of all their values; None when there are none."""
    filled = [sketch for sketch in sketches if sketch is not None and sketch.count]
    if len(filled) <= 1:
        return filled[0] if filled else None
    accuracy = filled[0].relative_accuracy
    assert all(sketch.relative_accuracy == accuracy for sketch in filled), "sketches of one accuracy add"
    binned = [sketch for sketch in filled if sketch.bin_counts]
    first = min((sketch.first_bin_key for sketch in binned), default=0)
    last = max((sketch.first_bin_key + len(sketch.bin_counts) for sketch in binned), default=0)
    bins = [0] * (last - first)
    for sketch in binned:
        for place, count in enumerate(sketch.bin_counts, sketch.first_bin_key - first):
            bins[place] += count
    return LatencySketch(
        relative_accuracy=accuracy,
        first_bin_key=first,
        bin_counts=tuple(bins),
        zero_count=sum(sketch.zero_count for sketch in filled),
        count=sum(sketch.count for sketch in filled),
        sum_ms=fsum(sketch.sum_ms for sketch in filled),
        min_ms=min(sketch.min_ms for sketch in filled),
        max_ms=max(sketch.max_ms for sketch in filled),
    )


def add_histograms(histograms: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Bin by bin; a shorter one lacks its last bins."""
    return tuple(map(sum, zip_longest(*histograms, fillvalue=0)))


def add_counts(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Label by label, sorted."""
    added: Counter[str] = Counter()
    for count in counts:
        added.update(count)
    return MappingProxyType(dict(sorted(added.items())))


def add_tallies(tallies: Iterable[Tally], *, agent_id: AgentId = TOGETHER) -> Tally:
    """Return what they counted together; the order does not matter, but for the rounding of sums."""
    given = list(tallies)
    return Tally(
        agent_id=agent_id,
        inferences=sum(tally.inferences for tally in given),
        errors=sum(tally.errors for tally in given),
        latency=add_sketches(tally.latency for tally in given),
        confidence_histogram=add_histograms(tally.confidence_histogram for tally in given),
        label_counts=add_counts(tally.label_counts for tally in given),
        active_seconds=fsum(tally.active_seconds for tally in given),
        paced_inferences=sum(tally.paced_inferences for tally in given),
        last_receive_time=max((t.last_receive_time for t in given if t.last_receive_time is not None), default=None),
    )


def add_shadow_tallies(tallies: Iterable[ShadowTally], *, agent_id: AgentId = TOGETHER) -> ShadowTally:
    """Return what they compared together."""
    given = list(tallies)
    return ShadowTally(
        agent_id=agent_id,
        compared=sum(tally.compared for tally in given),
        agreed=sum(tally.agreed for tally in given),
        errors=sum(tally.errors for tally in given),
        skipped=sum(tally.skipped for tally in given),
        candidate_latency=add_sketches(tally.candidate_latency for tally in given),
        serving_latency=add_sketches(tally.serving_latency for tally in given),
        score_distance_histogram=add_histograms(tally.score_distance_histogram for tally in given),
        last_receive_time=max((t.last_receive_time for t in given if t.last_receive_time is not None), default=None),
    )


def quantile_ms(sketch: LatencySketch, quantile: float) -> float:
    """The value at a quantile from 0 to 1, within the sketch's relative accuracy; 0 for no values."""
    rank, seen, value = quantile * (sketch.count - 1), 0, 0.0
    for upper, count in _bins(sketch):
        seen, value = seen + count, upper * (1 - sketch.relative_accuracy)
        if seen > rank:
            break
    return value


def over(sketch: LatencySketch, limit_ms: float) -> tuple[int, int]:
    """At least and at most how many values lie over the limit: those in its own bin may lie on either side."""
    surely = possibly = 0
    for upper, count in _bins(sketch):
        if upper <= limit_ms:
            continue
        possibly += count
        if upper / _gamma(sketch) >= limit_ms:
            surely += count
    return surely, possibly


def quantile_side(sketch: LatencySketch | None, quantile: float, *, limit_ms: float, miss: float) -> Side:
    """Where the true quantile lies: ABOVE when more than a share of 1 - `quantile` of all values surely lies over the
    limit, BELOW when surely less does."""
    if sketch is None or not sketch.count:
        return Side.OPEN
    surely, possibly = over(sketch, limit_ms)
    share = 1 - quantile
    if share_side(surely, sketch.count, limit=share, miss=miss) is Side.ABOVE:
        return Side.ABOVE
    return Side.BELOW if share_side(possibly, sketch.count, limit=share, miss=miss) is Side.BELOW else Side.OPEN


def quantile_interval(sketch: LatencySketch | None, quantile: float, *, miss: float) -> Interval:
    """The values between which the true quantile lies, at edges of bins; `high` is infinite while there are too few."""
    if sketch is None or not sketch.count:
        return Interval(0.0, inf)
    share, over_count, low, high = 1 - quantile, sketch.count, 0.0, inf
    for upper, count in _bins(sketch):
        if share_side(over_count, sketch.count, limit=share, miss=miss) is Side.ABOVE:
            low = upper / _gamma(sketch) if upper else 0.0
        over_count -= count
        if share_side(over_count, sketch.count, limit=share, miss=miss) is Side.BELOW:
            high = upper
            break
    return Interval(low, high)


def histogram_distance(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Kolmogorov-Smirnov: the largest distance of the cumulative shares, 0 to 1. Neither is empty."""
    total, other_total = sum(one), sum(other)
    seen = other_seen = 0
    distance = 0.0
    for count, other_count in zip_longest(one, other, fillvalue=0):
        seen, other_seen = seen + count, other_seen + other_count
        distance = max(distance, abs(seen / total - other_seen / other_total))
    return distance


def mix_distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """Total variation: half the sum of the distances of the shares, 0 to 1. Neither is empty."""
    total, other_total = sum(one.values()), sum(other.values())
    kinds = sorted(one.keys() | other.keys())
    return sum(abs(one.get(kind, 0) / total - other.get(kind, 0) / other_total) for kind in kinds) / 2


def _gamma(sketch: LatencySketch) -> float:
    return (1 + sketch.relative_accuracy) / (1 - sketch.relative_accuracy)


def _bins(sketch: LatencySketch) -> Iterator[tuple[float, int]]:
    """Upper edge and count of each bin that holds a value, from the lowest; the zero bin's edge is 0."""
    if sketch.zero_count:
        yield 0.0, sketch.zero_count
    gamma = _gamma(sketch)
    for key, count in enumerate(sketch.bin_counts, sketch.first_bin_key):
        if count:
            yield gamma**key, count
