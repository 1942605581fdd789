"""What is counted of inputs, and in which bins.

A statistic is one number that says how an image looks: bright, flat, sharp, coarse. Differences are counted as octaves
(log2), since what is normal differs by orders of magnitude between products, and its spread hardly does. Values of
8-bit inputs are shares of 255; of any other type they are squashed by asinh first, whose scale is unknown to us.
"""

from dataclasses import dataclass

BINS = 32
"""As InputStatistic.bin_counts has it."""
STATISTICS = ("mean", "contrast", "sharpness", "band_1", "band_2", "band_3", "band_4")
"""Mean; standard deviation; mean difference of neighbours; the same of means of 2, 4, 8 and 16 neighbours."""
OCTAVE_MIN = -12.0
"""Less than that is flat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The ends of the bins, of `mean` and of the others."""

    mean_low: float
    mean_high: float
    octave_high: float

    def range_of(self, name: str) -> tuple[float, float]:
        return (self.mean_low, self.mean_high) if name == "mean" else (OCTAVE_MIN, self.octave_high)


EIGHT_BIT = Scale(mean_low=0.0, mean_high=1.0, octave_high=0.0)
SQUASHED = Scale(mean_low=-8.0, mean_high=8.0, octave_high=4.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputStatistics:
    """Of one input: a value for each of STATISTICS, all finite."""

    values: tuple[float, ...]
    scale: Scale

    def named(self) -> dict[str, float]:
        return dict(zip(STATISTICS, self.values, strict=True))


def bin_of(value: float, low: float, high: float) -> int:
    """Which of the BINS over [low, high]; values outside fall into the nearest."""
    return min(BINS - 1, max(0, int((value - low) * BINS / (high - low))))
