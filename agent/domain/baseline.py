"""How far an input is from what a version saw first.

The distance is Mahalanobis': standard deviations, in directions in which the first inputs did not vary together. A line
on which brightness and sharpness always rise together finds a bright and blurred image odd, though each alone is not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SHRINKAGE = 0.05
"""Share of the covariances that is given up: some hundred inputs know them only so well."""
VARIANCE_MIN = 1e-4
"""Of any statistic: a camera that showed the same image at first must not find the next one infinitely far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The mean of the first inputs, and the lower triangle L of L L^T, their covariance, row by row."""

    means: tuple[float, ...]
    triangle: tuple[tuple[float, ...], ...]

    def distance(self, values: Sequence[float]) -> float:
        """0 at the mean; of inputs like the first ones hardly ever above 5."""
        solved: list[float] = []
        for value, mean, row in zip(values, self.means, self.triangle, strict=True):
            known = math.fsum(factor * each for factor, each in zip(row, solved, strict=False))
            solved.append((value - mean - known) / row[-1])
        return math.sqrt(math.fsum(each * each for each in solved))


def learn_baseline(rows: Sequence[Sequence[float]]) -> Baseline:
    """Of inputs that are normal by definition; at least two, alike in length."""
    assert len(rows) >= 2
    count, size = len(rows), len(rows[0])
    means = tuple(math.fsum(row[index] for row in rows) / count for index in range(size))
    centred = [[value - mean for value, mean in zip(row, means, strict=True)] for row in rows]
    covariance = [
        [math.fsum(row[i] * row[j] for row in centred) / (count - 1) * (1.0 if i == j else 1.0 - SHRINKAGE)]
        for i in range(size)
        for j in range(i + 1)
    ]
    return Baseline(means=means, triangle=_cholesky([value for (value,) in covariance], size))


def _cholesky(lower: Sequence[float], size: int) -> tuple[tuple[float, ...], ...]:
    """`lower` is the lower triangle, row by row. VARIANCE_MIN is added to the diagonal, which makes it definite."""
    rows: list[tuple[float, ...]] = []
    for i in range(size):
        row: list[float] = []
        for j in range(i + 1):
            value = lower[i * (i + 1) // 2 + j]
            rest = value - math.fsum(row[k] * rows[j][k] for k in range(j)) if j < i else value
            if j < i:
                row.append(rest / rows[j][j])
            else:
                row.append(math.sqrt(max(VARIANCE_MIN, value + VARIANCE_MIN - math.fsum(each * each for each in row))))
        rows.append(tuple(row))
    return tuple(rows)
