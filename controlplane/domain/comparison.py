"""Comparisons of a version with the one before, on the same agents; each says what was seen and the interval around it.

Both sides were sampled, so each gets half of `miss`. What was measured of the version before no longer grows: where it
alone is too little to decide, `Aspect.can_decide` says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from controlplane.domain.distribution import histogram_distance, mix_distance, quantile_interval, quantile_ms
from controlplane.domain.evidence import Tally
from controlplane.domain.interval import Interval, Side, distribution_error, mix_error, rate_interval

_EVERYTHING = Interval(0.0, inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Numbers are in the unit of the limit that they are held against."""

    observed: float = 0.0
    between: Interval = _EVERYTHING
    samples: int = 0
    """Of the newer version."""
    alike: Interval = _EVERYTHING
    """The interval of a version that does just as the one before did, measured without end."""


def latency_ratio(target: Tally, previous: Tally, miss: float) -> Comparison:
    """The 99th percentile of latency, in percent of the previous version's."""
    newer, older = target.latency, previous.latency
    if older is None or not older.count:
        return Comparison(samples=newer.count if newer is not None else 0)
    base = quantile_interval(older, 0.99, miss=miss / 2)
    seen = quantile_ms(older, 0.99)
    alike = Interval(100 * _ratio(seen, base.high), 100 * _ratio(seen, base.low))
    if newer is None or not newer.count:
        return Comparison(alike=alike)
    between = quantile_interval(newer, 0.99, miss=miss / 2)
    return Comparison(
        observed=100 * _ratio(quantile_ms(newer, 0.99), seen),
        between=Interval(100 * _ratio(between.low, base.high), 100 * _ratio(between.high, base.low)),
        samples=newer.count,
        alike=alike,
    )


def throughput(target: Tally, previous: Tally, miss: float) -> Comparison:
    """Inferences a second while the line runs, in percent of the previous version's.

    The pace within windows: what the line does between them is not the version's doing."""
    guess = _ratio(previous.paced_inferences, previous.active_seconds)
    if not 0 < guess < inf:
        return Comparison(samples=target.paced_inferences)
    base = rate_interval(previous.paced_inferences, previous.active_seconds, guess=1.0, miss=miss / 2)
    between = rate_interval(target.paced_inferences, target.active_seconds, guess=guess, miss=miss / 2)
    return Comparison(
        observed=100 * _ratio(_ratio(target.paced_inferences, target.active_seconds), guess),
        between=Interval(100 * _ratio(between.low, base.high), 100 * _ratio(between.high, base.low)),
        samples=target.paced_inferences,
        alike=Interval(100 * _ratio(guess, base.high), 100 * _ratio(guess, base.low)),
    )


def confidence_drift(target: Tally, previous: Tally, miss: float) -> Comparison:
    """Distance (Kolmogorov-Smirnov) of the confidences, per 1,000, over the bins in which agents count them."""
    newer, older = sum(target.confidence_histogram), sum(previous.confidence_histogram)
    error = distribution_error(older, miss=miss / 2)
    if not newer or not older:
        return Comparison(samples=newer, alike=Interval(0.0, 1000 * error))
    distance = histogram_distance(target.confidence_histogram, previous.confidence_histogram)
    return _drift(distance, distribution_error(newer, miss=miss / 2), error, newer)


def class_drift(target: Tally, previous: Tally, miss: float) -> Comparison:
    """Distance (total variation) of the mixes of top labels, per 1,000."""
    newer, older = _total(target.label_counts), _total(previous.label_counts)
    kinds = len(target.label_counts.keys() | previous.label_counts.keys())
    error = mix_error(older, kinds, miss=miss / 2)
    if not newer or not older:
        return Comparison(samples=newer, alike=Interval(0.0, 1000 * error))
    distance = mix_distance(target.label_counts, previous.label_counts)
    return _drift(distance, mix_error(newer, kinds, miss=miss / 2), error, newer)


def _drift(distance: float, error: float, base_error: float, samples: int) -> Comparison:
    low, high = max(0.0, distance - error - base_error), min(1.0, distance + error + base_error)
    return Comparison(
        observed=1000 * distance,
        between=Interval(1000 * low, 1000 * high),
        samples=samples,
        alike=Interval(0.0, 1000 * base_error),
    )


def _total(counts: Mapping[str, int]) -> int:
    return sum(counts.values())


def _ratio(one: float, other: float) -> float:
    """Of numbers that are not negative and not both infinite; beyond all bounds where the other is 0."""
    return one / other if other else inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspect:
    """What of two versions is compared, and in which words."""

    name: str
    words: str
    unit: str
    compare: Callable[[Tally, Tally, float], Comparison]
    at_least: bool = False
    """The limit is the least that is allowed, not the most."""

    def side(self, found: Comparison, limit: float) -> Side:
        """ABOVE where the limit is surely broken, BELOW where it is surely kept."""
        if not self.at_least:
            return found.between.side(limit)
        if found.between.high < limit:
            return Side.ABOVE
        return Side.BELOW if found.between.low >= limit else Side.OPEN

    def can_decide(self, found: Comparison, limit: float) -> bool:
        """Whether the version before was measured enough: for one that does as well to be shown to keep the limit, and
        (of a ratio) for what is observed now to be told from the limit, however long one measures."""
        as_well = found.alike.low >= limit if self.at_least else found.alike.high <= limit
        if self.unit != "%":
            return as_well
        # With endless inferences of the newer version what is left is the doubt about the older one.
        ratio = found.observed / 100
        return as_well and not ratio * found.alike.low < limit < ratio * found.alike.high

    def describe(self, found: Comparison, limit: float) -> str:
        bound = "at least" if self.at_least else "allowed"
        seen = f"{self.words} {found.observed:.0f} {self.unit} ({found.samples} inferences)"
        return f"{seen}, {bound} {limit:g} {self.unit}"


LATENCY_RATIO = Aspect(
    name="latency_p99_ratio", words="p99 of latency against the version before", unit="%", compare=latency_ratio
)
THROUGHPUT = Aspect(
    name="throughput",
    words="inferences a second against the version before",
    unit="%",
    compare=throughput,
    at_least=True,
)
CONFIDENCE_DRIFT = Aspect(
    name="confidence_drift",
    words="distance of the confidences from the version before",
    unit="per 1000",
    compare=confidence_drift,
)
CLASS_DRIFT = Aspect(
    name="class_drift",
    words="distance of the mix of labels from the version before",
    unit="per 1000",
    compare=class_drift,
)
