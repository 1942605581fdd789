"""Evidence that the shares of a stream have left the band around those of a reference.

What is tested: "given everything before, the share of the next inferences lies within the band". A band is what the
reference's true share may be (`interval.share_interval`, for all shares together), and the tolerance on either side. So
nothing is claimed of a stream that merely wobbles within the tolerance, nor of how inferences depend on each other.

How: a bet against the band, once at each side. If the share is `v` outside of the band and not `u`, its edge, then a
block with `k` of `n` multiplies the evidence by (v/u)^k ((1-v)/(1-u))^(n-k). While the share stays within the band
that product is a supermartingale, whatever the past. A change may begin at any block, so a bit of the evidence is
staked anew at each one, and the stakes of all blocks for ever add up to at most 1: the sum is a supermartingale too and
never starts above 1. By Ville's inequality it ever reaches 1 / miss with probability of at most `miss`, at all looks
together. Sources: Ville (1939); Robbins and Siegmund, "A class of stopping rules for testing parametric hypotheses",
Proc. Sixth Berkeley Symposium (1972); Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential
change detection", New England Journal of Statistics in Data Science 2 (2024).

The price of testing for ever is small: what has run for 10,000 blocks needs 15 nats more than what began now, some 50
images of a change that shows.

Inferences that come in clusters (a lot, a shift's light) count for less: their number is divided by how much more the
blocks of the reference varied than independent ones would (the design effect of survey statistics), in the band and in
the bets. A power below 1 of a supermartingale is one, so that is safe where they are independent after all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, floor, inf, log, log1p

from controlplane.domain.interval import share_interval

STEPS = (0.15, 0.5)
"""Alternatives: so far from the edge of the band towards 0 or 1, as a share of the way."""
_QUANTILES = (0.0, 0.05, 0.3, 0.7, 0.95, 1.0)
"""Edges of a histogram are tested where the reference has these shares below them. Those at 0 and 1 are for values that
the reference never had."""
_STAKES = 2.11
"""Sum of 1 / (j ln(j)^2) over all j from 2, rounded up: the stakes add up to no more than 1."""
LOG_SCALE = 1000
"""Logarithms are kept to a thousandth, rounded down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of one statistic: of labels, or of equal bins over [`low`, `high`] where there are no labels."""

    bins: tuple[int, ...]
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0

    @property
    def total(self) -> int:
        return sum(self.bins)

    @property
    def kind(self) -> tuple[object, ...]:
        """Counts of one kind add, bin by bin."""
        return self.labels, self.low, self.high, len(self.bins)

    def events(self) -> tuple[int, ...]:
        """What shares are taken of: how many have each label, or lie below each edge between two bins."""
        if self.labels:
            return self.bins
        below, events = 0, []
        for count in self.bins[:-1]:
            below += count
            events.append(below)
        return tuple(events)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One share and its band. `below` and `above` are logarithms of the evidence that the share lies outside of it, one
    an alternative; empty before the first block, and on a side where there is nothing to be outside of."""

    event: int
    share: float
    low: float
    high: float
    below: tuple[float, ...] = ()
    above: tuple[float, ...] = ()

    @property
    def bets(self) -> int:
        return len(STEPS) * ((self.low > 0) + (self.high < 1))

    def distance(self, counts: Counts) -> tuple[float, float]:
        """How far the share lies from the reference's, and how far on that side the band goes."""
        seen = counts.events()[self.event] / counts.total
        return (
            (seen - self.share, self.high - self.share)
            if seen >= self.share
            else (self.share - seen, self.share - self.low)
        )

    def holds(self, counts: Counts) -> bool:
        """Whether the share lies in the band."""
        return self.low <= counts.events()[self.event] / counts.total <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticTest:
    """One statistic's checks, and how much more its blocks vary than independent inferences would (at least 1)."""

    dispersion: float
    checks: tuple[Check, ...]

    @property
    def bets(self) -> int:
        return sum(check.bets for check in self.checks)

    def distance(self, counts: Counts) -> tuple[float, float]:
        """Of the check that is furthest from its reference, measured by what its band allows; see `Check.distance`."""
        found = (check.distance(counts) for check in self.checks)
        return max(found, key=lambda one: (one[0] / one[1] if one[1] else 0.0, one[0]), default=(0.0, 0.0))

    def log_evidence(self, bets: int) -> float:
        """Logarithm of this statistic's part of the evidence, of which each of `bets` has an equal part."""
        logs = [value for check in self.checks for value in (*check.below, *check.above)]
        return log_sum(logs) - log(bets) if logs else -inf

    def forget(self) -> "StatisticTest":
        """Without evidence."""
        return replace(self, checks=tuple(replace(check, below=(), above=()) for check in self.checks))


def start_tests(
    blocks: Sequence[Mapping[str, Counts]], *, tolerance: float, miss: float
) -> Mapping[str, StatisticTest]:
    """Return a test of each statistic that the blocks of the reference have. All bands together miss a true share of
    the reference with probability of at most `miss`."""
    sums = {name: add_counts([block[name] for block in blocks if name in block]) for name in names_of(blocks)}
    shares = sum(len(counts.events()) for counts in sums.values())
    return {
        name: _start_test(
            counts,
            dispersion(name, blocks),
            tolerance=tolerance,
            miss=miss / shares,
        )
        for name, counts in sums.items()
        if counts.total
    }


def names_of(blocks: Sequence[Mapping[str, Counts]]) -> Sequence[str]:
    """Statistics of any of the blocks, sorted."""
    return sorted({name for block in blocks for name in block})


def add_counts(counts: Sequence[Counts]) -> Counts:
    """Add counts; of those that are not of the kind of the first, nothing. There is at least one."""
    first = counts[0]
    alike = [one.bins for one in counts if one.kind == first.kind]
    return replace(first, bins=tuple(map(sum, zip(*alike, strict=True))))


def dispersion(name: str, blocks: Sequence[Mapping[str, Counts]]) -> float:
    """How much more the shares of the blocks vary than those of independent inferences would; 1 where they do not.

    Pearson's X^2 by its degrees of freedom, over the shares that are neither almost 0 nor almost 1, averaged.
    """
    given = [block[name] for block in blocks if name in block and block[name].total]
    if len(given) < 2:
        return 1.0
    whole = add_counts(given)
    ratios = []
    for event, count in enumerate(whole.events()):
        share = count / whole.total
        if 0.05 <= share <= 0.95:
            chi = sum((one.events()[event] - share * one.total) ** 2 / one.total for one in given)
            ratios.append(chi / (share * (1 - share)) / (len(given) - 1))
    return max(1.0, sum(ratios) / len(ratios)) if ratios else 1.0


def add_block(test: StatisticTest, counts: Counts, *, log_stake: float) -> StatisticTest:
    """Return the test with the evidence of one more block, in which a change may have begun."""
    events, total = counts.events(), counts.total

    def carry(logs: tuple[float, ...], hits: int, edge: float, bets: Sequence[float]) -> tuple[float, ...]:
        gains = [hits * log(bet / edge) + (total - hits) * (log1p(-bet) - log1p(-edge)) for bet in bets]
        staked = [_log_add(one, log_stake) for one in logs] or [log_stake] * len(bets)
        return tuple(_rounded(one + gain / test.dispersion) for one, gain in zip(staked, gains, strict=True))

    checks = []
    for check in test.checks:
        hits, below, above = events[check.event], check.below, check.above
        if check.low > 0:
            below = carry(below, hits, check.low, [check.low * (1 - step) for step in STEPS])
        if check.high < 1:
            above = carry(above, hits, check.high, [check.high + (1 - check.high) * step for step in STEPS])
        checks.append(
            Check(event=check.event, share=check.share, low=check.low, high=check.high, below=below, above=above)
        )
    return StatisticTest(dispersion=test.dispersion, checks=tuple(checks))


def log_stake(block: int) -> float:
    """Logarithm of what is staked anew at the block of this number, from 1."""
    place = block + 1
    return -log(_STAKES * place) - 2 * log(log(place))


def log_sum(logs: Sequence[float]) -> float:
    """Logarithm of the sum of what these are the logarithms of."""
    largest = max(logs, default=-inf)
    return largest if largest == -inf else largest + log(sum(exp(one - largest) for one in logs))


def _start_test(counts: Counts, spread: float, *, tolerance: float, miss: float) -> StatisticTest:
    events, total = counts.events(), counts.total
    independent = max(1, int(total / spread))
    checks = []
    for event in range(len(events)) if counts.labels else _edges(events, total):
        share = events[event] / total
        known = share_interval(round(share * independent), independent, limit=0.5, miss=miss)
        checks.append(
            Check(
                event=event,
                share=share,
                low=max(0.0, min(known.low, share) - tolerance),
                high=min(1.0, max(known.high, share) + tolerance),
            )
        )
    return StatisticTest(dispersion=spread, checks=tuple(checks))


def _edges(events: Sequence[int], total: int) -> Sequence[int]:
    """For each quantile the edge whose share below comes nearest: the last of those at 0, the first of those at 1."""
    found = set()
    for quantile in _QUANTILES:
        distances = [abs(count / total - quantile) for count in events]
        nearest = min(distances)
        alike = [event for event, distance in enumerate(distances) if distance == nearest]
        found.add(alike[-1] if quantile < 0.5 else alike[0])
    return sorted(found)


def _log_add(one: float, other: float) -> float:
    larger, smaller = (one, other) if one > other else (other, one)
    return larger + log1p(exp(smaller - larger))


def _rounded(value: float) -> float:
    """Down, so that nothing is gained by it."""
    return floor(value * LOG_SCALE) / LOG_SCALE
