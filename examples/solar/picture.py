"""The loop as one picture: how well the line was judged, how far its inputs had drifted, and which version answered.

Everything in it comes from the controller: results of the lake, the history of drift, and times of its resources.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from examples.solar.data import Product
from examples.solar.summary import Judged

WINDOW_SECONDS = 15.0
"""Some 300 judged cells of three stations: an AUC within a few hundredths."""
CELLS_MIN = 60
"""Below it an AUC says nothing."""
WIDTH_INCHES, HEIGHT_INCHES = 11.0, 8.0
PIXELS_AN_INCH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far a station's inputs were from what its version had learned: the largest share that has moved."""

    time: datetime
    station: str
    distance: float


def draw(
    path: Path, *, judged: Sequence[Judged], distances: Sequence[Distance], events: Mapping[str, datetime]
) -> None:
    """Write the picture as PNG. Time runs in minutes since the first result."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    begin = min(each.time for each in judged)

    def minutes(time: datetime) -> float:
        return (time - begin).total_seconds() / 60

    figure, (quality, drift, versions) = plt.subplots(
        3, 1, figsize=(WIDTH_INCHES, HEIGHT_INCHES), sharex=True, height_ratios=(3, 2, 1.4), layout="constrained"
    )
    for product, colour in ((Product.MONO, "tab:blue"), (Product.POLY, "tab:orange")):
        points = auc_over_time([each for each in judged if each.product == product])
        times, values = [minutes(time) for time, _ in points], [auc for _, auc in points]
        quality.plot(times, values, "o-", color=colour, label=product.value)
    quality.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    quality.set(ylabel="AUC of held-out cells", ylim=(0.35, 1.0))
    quality.legend(title="cells", loc="lower left")
    for station in sorted({each.station for each in distances}):
        own = sorted((each for each in distances if each.station == station), key=lambda each: each.time)
        drift.plot([minutes(each.time) for each in own], [each.distance for each in own], label=station)
    drift.set(ylabel="share of the inputs\nthat has moved", ylim=(0, 1))
    drift.legend(loc="upper left", ncols=4, fontsize="small")
    _stack_versions(versions, judged, minutes)
    versions.set(ylabel="answers\nby version", ylim=(0, 1), xlabel="minutes since the first image")
    for name, time in events.items():
        for axes in (quality, drift, versions):
            axes.axvline(minutes(time), color="black", linewidth=0.7, alpha=0.5)
        place = {"xytext": (3, -4), "textcoords": "offset points", "rotation": 90, "va": "top", "fontsize": "small"}
        quality.annotate(name, (minutes(time), 1.0), **place)
    figure.suptitle("From a product that the model does not know to one that it does")
    figure.savefig(path, dpi=PIXELS_AN_INCH)
    plt.close(figure)


def auc_over_time(judged: Sequence[Judged]) -> list[tuple[datetime, float]]:
    """The AUC of each window that has cells enough of both kinds, at the window's middle; NaN between windows that do
    not follow each other, so that no line joins them."""
    from sklearn.metrics import roc_auc_score

    points: list[tuple[datetime, float]] = []
    for begin, own in windows_of(judged):
        truth = [each.defective for each in own]
        if len(own) >= CELLS_MIN and any(truth) and not all(truth):
            middle = begin + timedelta(seconds=WINDOW_SECONDS / 2)
            if points and middle - points[-1][0] > timedelta(seconds=1.5 * WINDOW_SECONDS):
                points.append((middle, float("nan")))
            points.append((middle, float(roc_auc_score(truth, [each.score for each in own]))))
    return points


def windows_of(judged: Sequence[Judged]) -> list[tuple[datetime, list[Judged]]]:
    """Consecutive windows from the first result, with what falls into each; empty ones are left out."""
    if not judged:
        return []
    first = min(each.time for each in judged)
    found: dict[int, list[Judged]] = {}
    for each in judged:
        found.setdefault(int((each.time - first).total_seconds() // WINDOW_SECONDS), []).append(each)
    return [(first + timedelta(seconds=place * WINDOW_SECONDS), own) for place, own in sorted(found.items())]


def _stack_versions(axes: Any, judged: Sequence[Judged], minutes: Callable[[datetime], float]) -> None:
    numbers = sorted({each.version for each in judged})
    windows = windows_of(judged)
    shares = [[sum(each.version == number for each in own) / len(own) for _, own in windows] for number in numbers]
    names = [f"version {number}" for number in numbers]
    times = [minutes(begin) for begin, _ in windows]
    # The last window reaches as far as the others.
    times, shares = [*times, times[-1] + WINDOW_SECONDS / 60], [[*share, share[-1]] for share in shares]
    axes.stackplot(times, shares, step="post", labels=names)
    axes.legend(loc="upper left", ncols=len(numbers), fontsize="small")
