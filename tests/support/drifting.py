"""A station whose cells look one way, then another: windows as an agent would send them."""

import random
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from controlplane.domain.evidence import CONFIDENCE_BINS, Histogram, MetricWindow
from tests.support.factories import after_seconds, make_window

BINS = 32
Draw = Callable[[random.Random], "Image"]
"""Makes the next image."""


class Image:
    """What one inference counts: its statistics as shares of their ranges, its score and its label."""

    __slots__ = ("label", "score", "statistics")

    def __init__(self, statistics: Mapping[str, float], *, label: str = "good", score: float = 0.9) -> None:
        self.label = label
        self.score = score
        self.statistics = dict(statistics)


def usual(rng: random.Random) -> Image:
    """One cell in eight is bad."""
    bad = rng.random() < 0.125
    return Image(
        {"mean": rng.gauss(0.6, 0.08), "sharpness": rng.gauss(0.4, 0.04)},
        label="bad" if bad else "good",
        score=min(0.999, max(0.5, rng.gauss(0.85, 0.08))),
    )


def shifted(by: float) -> Draw:
    """As `usual`, with a sharpness that lies `by` further."""

    def draw(rng: random.Random) -> Image:
        image = usual(rng)
        image.statistics["sharpness"] += by
        return image

    return draw


def of_values(values: Mapping[str, Sequence[float]]) -> Draw:
    """Draws rows of measured values, each as a share of its range."""
    count = len(next(iter(values.values())))

    def draw(rng: random.Random) -> Image:
        row = rng.randrange(count)
        return Image({name: column[row] for name, column in values.items()})

    return draw


def window_of(images: Sequence[Image], *, batch: int, **overrides: Any) -> MetricWindow:
    """The window of these images: two seconds of a line, one after another by `batch`."""
    names = sorted({name for image in images for name in image.statistics})
    counted = {name: [0] * BINS for name in names}
    confidence, labels = [0] * CONFIDENCE_BINS, dict[str, int]()
    for image in images:
        confidence[min(CONFIDENCE_BINS - 1, int(image.score * CONFIDENCE_BINS))] += 1
        labels[image.label] = labels.get(image.label, 0) + 1
        for name, value in image.statistics.items():
            counted[name][min(BINS - 1, max(0, int(value * BINS)))] += 1
    fields: dict[str, Any] = {
        "batch": batch,
        "start_time": after_seconds(2.0 * batch),
        "end_time": after_seconds(2.0 * batch + 1.9),
        "inference_count": len(images),
        "error_count": 0,
        "confidence_histogram": tuple(confidence),
        "label_counts": MappingProxyType(labels),
        "input_statistics": MappingProxyType(
            {name: Histogram(low=0.0, high=1.0, bin_counts=tuple(bins)) for name, bins in counted.items()}
        ),
    }
    return make_window(**(fields | overrides))


class Line:
    """One station's windows, each of `size` images."""

    def __init__(self, *, seed: int = 1, size: int = 50, **fields: Any) -> None:
        self.rng = random.Random(seed)
        self.size = size
        self.fields = fields
        self.batch = 0

    def window(self, draw: Draw = usual, **overrides: Any) -> MetricWindow:
        self.batch += 1
        images = [draw(self.rng) for _ in range(overrides.pop("size", self.size))]
        return window_of(images, batch=self.batch, **(self.fields | overrides))

    def windows(self, count: int, draw: Draw = usual, **overrides: Any) -> list[MetricWindow]:
        return [self.window(draw, **overrides) for _ in range(count)]


def fast_counts(weights: Sequence[float]) -> Callable[[random.Random, int], tuple[int, ...]]:
    """Draws histograms of many values at once, by their weights."""
    total, edges, seen = sum(weights), [], 0.0
    for weight in weights:
        seen += weight / total
        edges.append(seen)

    def draw(rng: random.Random, count: int) -> tuple[int, ...]:
        bins = [0] * len(edges)
        for _ in range(count):
            bins[min(len(edges) - 1, bisect(edges, rng.random()))] += 1
        return tuple(bins)

    return draw
