"""Real solar cells turn from mono- to poly-crystalline at a station: what an agent measures of them is flagged soon."""

import functools
from collections.abc import Mapping, Sequence

import pytest

from agent.app.input_statistics import statistics_of
from controlplane.app.drift import POLICY
from controlplane.domain.drift import Drift, DriftState, begin, moved, take
from controlplane.domain.evidence import MetricWindow
from examples.solar.data import Product, load_cells
from tests.support.drifting import Line, of_values
from tests.support.factories import NOW

IMAGES_MAX = 300
"""12 s of a line at 25 images a second, and so, with windows of 2 s, their way here and the tick, less than 30 s."""


@functools.cache
def measured(product: Product) -> Mapping[str, Sequence[float]]:
    """What an agent measures of every cell, by statistic, as shares of the ranges."""
    found: dict[str, list[float]] = {}
    for image in load_cells(product).images:
        statistics = statistics_of(image)
        assert statistics is not None
        for name, value in statistics.named().items():
            low, high = statistics.scale.range_of(name)
            found.setdefault(name, []).append((value - low) / (high - low))
    return found


def look(drift: Drift | None, window: MetricWindow) -> Drift:
    return take(drift or begin(window, now=NOW), [window], POLICY, now=NOW)


@pytest.mark.parametrize("seed", range(6))
def test_poly_cells_after_mono_cells_are_flagged_within_some_hundred_images(seed: int) -> None:
    mono, poly, line = of_values(measured(Product.MONO)), of_values(measured(Product.POLY)), Line(seed=seed)
    drift = look(None, line.window(mono))
    for _ in range(200):
        drift = look(drift, line.window(mono))
    assert (drift.state, drift.episode_count) == (DriftState.STEADY, 0), "10,000 mono cells are none"
    before = drift.inference_count
    while drift.state is DriftState.STEADY and drift.inference_count - before < IMAGES_MAX:
        drift = look(drift, line.window(poly))
    assert drift.state is DriftState.DRIFTED
    assert moved(drift, POLICY)[0].name in {"sharpness", "band_1", "band_2", "band_3"}
    for _ in range(8):
        drift = look(drift, line.window(mono))
    assert drift.state is DriftState.STEADY, "and it ends when the cells are mono again"
