"""Intervals that hold at every look.

A gate is asked again every second until it has decided. An interval that misses the truth once in a hundred looks would
miss it sooner or later, so none of these is built for one look: with probability of at least 1 - `miss` the interval
holds the true value at all looks together, however many there are and whenever one stops ("confidence sequences"). A
gate that fails at the first look whose interval lies above its limit, and passes at the first whose interval lies
below, is therefore wrong with probability of at most `miss`, and need not know how often it was asked.

The price is small: to show at 99 % that less than 1 % of inferences fail takes 586 of them without an error, where
Wilson's interval, which is good for one look, takes 536.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import floor, inf, lgamma, log, log2, pi, sqrt

_STEPS = 40
"""Of a bisection: to a millionth of a millionth."""
SAMPLES_MAX = 1 << 50
"""More than are ever measured; ends the search for how many are needed."""


class Side(StrEnum):
    """Where an interval lies, seen from a limit."""

    BELOW = "BELOW"
    ABOVE = "ABOVE"
    OPEN = "OPEN"
    """It holds the limit: not decided yet."""


@dataclass(frozen=True, slots=True)
class Interval:
    """`low` <= the true value <= `high`."""

    low: float
    high: float

    def side(self, limit: float) -> Side:
        if self.low > limit:
            return Side.ABOVE
        return Side.BELOW if self.high <= limit else Side.OPEN


def share_side(count: int, total: int, *, limit: float, miss: float) -> Side:
    """Where the true share lies, of which `count` of `total` were seen. One more of them never turns ABOVE into
    anything else, nor OPEN into BELOW. A limit of 0 or of 1 is exact: one is too many, or everything is allowed."""
    if limit <= 0:
        return Side.ABOVE if count else Side.OPEN
    if limit >= 1:
        return Side.BELOW
    if total == 0 or _share_evidence(count, total, limit, prior_mean=limit) < -log(miss):
        return Side.OPEN
    return Side.ABOVE if count > limit * total else Side.BELOW


def share_interval(count: int, total: int, *, limit: float, miss: float) -> Interval:
    """The interval of the share behind `share_side`; it is narrowest for shares near `limit`."""
    if total == 0:
        return Interval(0.0, 1.0)
    threshold, seen = _fitted(count, total, min(max(limit, 0.001), 0.999)) + log(miss), count / total

    def excluded(share: float) -> bool:
        return threshold >= _log_likelihood(count, total, share)

    low = 0.0 if count == 0 else _edge(excluded, outside=0.0, inside=seen)
    high = 1.0 if count == total else _edge(excluded, outside=1.0, inside=seen)
    return Interval(low, high)


def more_needed(count: int, total: int, *, limit: float, miss: float) -> int:
    """How many more, none of them counted, until the share is shown to lie below `limit`; 0 when it is."""
    if limit <= 0:
        return 0

    def shown(more: int) -> bool:
        return share_side(count, total + more, limit=limit, miss=miss) is Side.BELOW

    if shown(0):
        return 0
    most = 1
    while not shown(most):
        most *= 2
        if most > SAMPLES_MAX:
            return SAMPLES_MAX
    least = most // 2
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if shown(middle) else (middle + 1, most)
    return least


def _share_evidence(count: int, total: int, share: float, *, prior_mean: float) -> float:
    """Logarithm of the evidence against `share` as the true one.

    The likelihood of what was seen, averaged over a Beta distribution of shares, by its likelihood under `share`. While
    `share` is true this is a martingale that starts at 1, so by Ville's inequality it ever reaches 1 / miss with
    probability of at most `miss`. Source: Robbins, "Statistical methods related to the law of the iterated logarithm",
    Annals of Mathematical Statistics 41 (1970); Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric,
    nonasymptotic confidence sequences", Annals of Statistics 49 (2021). The smaller parameter of the Beta is 1/2 and
    its mean is the limit that is asked about, where the interval ought to be narrow.
    """
    return _fitted(count, total, prior_mean) - _log_likelihood(count, total, share)


def _fitted(count: int, total: int, prior_mean: float) -> float:
    """Logarithm of the averaged likelihood."""
    a, b = _beta(prior_mean)
    return _log_beta(a + count, b + total - count) - _log_beta(a, b)


def _log_likelihood(count: int, total: int, share: float) -> float:
    if (count and share <= 0) or (count < total and share >= 1):
        return -inf
    others = total - count
    return (count * log(share) if count else 0.0) + (others * log(1 - share) if others else 0.0)


def _beta(mean: float) -> tuple[float, float]:
    return (0.5, 0.5 / mean - 0.5) if mean <= 0.5 else (0.5 * mean / (1 - mean), 0.5)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def rate_interval(count: int, seconds: float, *, guess: float, miss: float) -> Interval:
    """The interval of events a second, of which `count` came in `seconds`. Narrowest near `guess`, which must not rest
    on these events.

    For a Poisson process the likelihood averaged over a Gamma distribution of rates, by that under the true rate, is a
    martingale as in `_share_evidence` (Robbins 1970). A line's parts come more evenly than a Poisson process, so the
    interval is wider than it need be, not too narrow.
    """
    if seconds <= 0:
        return Interval(0.0, inf)
    shape, scale, threshold = 0.5, 0.5 / guess, -log(miss)
    fitted = shape * log(scale) - lgamma(shape) + lgamma(shape + count) - (shape + count) * log(scale + seconds)

    def excluded(rate: float) -> bool:
        if rate <= 0:
            return count > 0
        return fitted - (count * log(rate) if count else 0.0) + rate * seconds >= threshold

    seen = count / seconds
    most = max(seen, 1 / seconds)
    while not excluded(most):
        most *= 2
    return Interval(_edge(excluded, outside=0.0, inside=seen) if count else 0.0, _edge(excluded, most, seen))


def _edge(excluded: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where values begin to be excluded on the way from `inside` out, rounded outward."""
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if excluded(middle) else (outside, middle)
    return outside


def distribution_error(samples: int, *, miss: float) -> float:
    """Largest distance (Kolmogorov-Smirnov) of a distribution seen in `samples` from the true one.

    Its mean is at most sqrt(pi / 2n), from the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant
    (Annals of Probability 18, 1990); above the mean see `_deviation`.
    """
    return 1.0 if samples == 0 else min(1.0, sqrt(pi / (2 * _epoch(samples))) + _deviation(samples, miss))


def mix_error(samples: int, kinds: int, *, miss: float) -> float:
    """Largest distance (total variation) of a mix of `kinds` seen in `samples` from the true one.

    Its mean is at most sqrt((kinds - 1) / n) / 2, by the inequality of Cauchy and Schwarz (Canonne, "A short note on
    learning discrete distributions", 2020); above the mean see `_deviation`.
    """
    if samples == 0:
        return 1.0
    return min(1.0, sqrt(max(0, kinds - 1) / _epoch(samples)) / 2 + _deviation(samples, miss))


def _epoch(samples: int) -> int:
    return 1 << floor(log2(samples))


def _deviation(samples: int, miss: float) -> float:
    """How far such a distance may lie above its mean.

    Changing one sample changes the distance by at most 1/n: McDiarmid's inequality bounds it at one n. Distances to the
    truth are reverse submartingales, so the bound at n holds for all later n at once (Manole, Ramdas, "Martingale
    methods for sequential estimation of convex functionals and divergences", IEEE Transactions on Information Theory
    69, 2023). It is taken at each power of two, with miss / ((j + 1) (j + 2)) for the j-th: together at most `miss`.
    """
    epoch = _epoch(samples)
    place = floor(log2(epoch))
    return sqrt(log((place + 1) * (place + 2) / miss) / (2 * epoch))
