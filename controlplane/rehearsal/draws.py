"""Numbers drawn from the distributions of everyday failures."""

import math
import random

_EXACT_MEAN_MAX = 50.0
"""Below it failures are drawn one by one, above it as a normal number: the error is then below its own spread."""


def draw_exponential(rng: random.Random, mean: float) -> float:
    """A waiting time with this mean; 0 for a mean of 0."""
    return rng.expovariate(1 / mean) if mean > 0 else 0.0


def draw_poisson(rng: random.Random, mean: float) -> int:
    """How often something happens that happens `mean` times on average."""
    if mean <= 0:
        return 0
    if mean > _EXACT_MEAN_MAX:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    count, left = 0, math.exp(-mean)
    product = rng.random()
    while product > left:
        count += 1
        product *= rng.random()
    return count


def draw_binomial(rng: random.Random, trials: int, share: float) -> int:
    """How many of so many trials come out so, each with this probability."""
    if trials <= 0 or share <= 0:
        return 0
    if share >= 1:
        return trials
    if trials * share > _EXACT_MEAN_MAX and trials * (1 - share) > _EXACT_MEAN_MAX:
        drawn = rng.gauss(trials * share, math.sqrt(trials * share * (1 - share)))
        return min(trials, max(0, round(drawn)))
    # From one success to the next: the gaps are geometric.
    count, place, scale = 0, 0, math.log1p(-share)
    while True:
        place += int(math.log(1.0 - rng.random()) / scale) + 1
        if place > trials:
            return count
        count += 1
