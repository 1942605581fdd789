"""How far an input is from what a version saw first."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.baseline import learn_baseline
from agent.domain.input_statistics import BINS, bin_of

rows = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=30)


@given(rows, st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)))
def test_whatever_came_first_every_later_input_has_a_finite_distance(
    first: list[tuple[float, float, float]], later: tuple[float, float, float]
) -> None:
    baseline = learn_baseline(first)
    assert baseline.distance(baseline.means) == 0.0
    assert math.isfinite(baseline.distance(later))
    assert baseline.distance(later) >= 0.0


def test_what_varies_together_is_odd_when_it_does_not() -> None:
    rng = random.Random(5)
    first = [(value, value + rng.gauss(0, 0.1)) for value in (rng.gauss(0, 1) for _ in range(400))]
    baseline = learn_baseline(first)
    assert baseline.distance((1.5, 1.5)) < 3.0
    assert baseline.distance((1.5, -1.5)) > 8.0


def test_hardly_any_input_like_the_first_is_above_five() -> None:
    rng = random.Random(6)
    normal = [tuple(rng.gauss(3, 2) for _ in range(7)) for _ in range(2200)]
    baseline = learn_baseline(normal[:200])
    assert sum(baseline.distance(each) > 5.0 for each in normal[200:]) < 20


@given(st.floats(-1e9, 1e9))
def test_every_value_has_a_bin(value: float) -> None:
    assert 0 <= bin_of(value, -12.0, 4.0) < BINS


def test_bins_are_equal_and_in_order() -> None:
    assert [bin_of(index / 32 + 1 / 64, 0.0, 1.0) for index in range(32)] == list(range(32))
