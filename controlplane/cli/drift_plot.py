"""A picture of one slot's drift: its distances over time, and each statistic beside its reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import drift_pb2

from controlplane.cli.document import word
from controlplane.client import InvalidInputError
from controlplane.client.drift import History
from controlplane.client.names import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = ("png", "svg", "pdf")
_COLUMNS = 3
_REFERENCE, _RECENT = "0.6", "tab:red"


def draw(drift: drift_pb2.Drift, history: History, target: Path) -> None:
    """Write the picture to `target`, in the format that its ending names. Raises InvalidInputError where matplotlib is
    missing, the ending is none of the formats, or the file cannot be written."""
    format_ = target.suffix.removeprefix(".").lower()
    if format_ not in _FORMATS:
        raise InvalidInputError(
            f"{target} ends with none of {', '.join(_FORMATS)}", field="out", remedy="name for example drift.png"
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            "drawing needs matplotlib, which is not installed",
            field="plot",
            remedy="install it with `pip install 'lineside[plots]'`",
            reason="PLOTS_MISSING",
        ) from error
    rows = -(-len(drift.statistics) // _COLUMNS)
    figure = Figure(figsize=(12, 3.5 + 2.2 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, _COLUMNS, height_ratios=[1.6] + [1.0] * rows)
    _draw_history(figure.add_subplot(grid[0, :]), history)
    for place, one in enumerate(sorted(drift.statistics, key=lambda one: one.name)):
        _draw_statistic(figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS]), one)
    state = word(drift, "state")
    figure.suptitle(f"{short(drift.agent)} {short(drift.model_version)}: {state} (grey: reference, red: recent)")
    try:
        figure.savefig(target, format=format_, dpi=120)
    except OSError as error:
        raise InvalidInputError(
            f"cannot write {target}: {error.strerror}", field="out", remedy="name a file in a folder that you may write"
        ) from error


def _draw_history(axes: "Axes", history: History) -> None:
    """Distances by statistic, with a line where a version begins and a mark at each decision."""
    names = sorted({name for point in history.points for name in point.distances})
    for name in names:
        points = [point for point in history.points if name in point.distances]
        axes.plot(
            [_days(point.end_time) for point in points],
            [point.distances[name] for point in points],
            marker=".",
            linewidth=1,
            label=name,
        )
    version = ""
    for point in history.points:
        if point.model_version != version:
            version = point.model_version
            axes.axvline(_days(point.start_time), color="0.7", linewidth=1)
            axes.annotate(short(version), (_days(point.start_time), 1.0), fontsize=8, va="top")
    for event in history.events:
        color = "tab:red" if event.action == "drift.begin" else "tab:green"
        axes.axvline(_days(event.create_time), color=color, linestyle="--", label=event.action)
    axes.xaxis_date()
    axes.set_ylim(0, 1)
    axes.set_ylabel("distance from the reference")
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(list(unique.values()), list(unique), fontsize=7, loc="upper left", ncols=4)


def _draw_statistic(axes: "Axes", one: drift_pb2.DriftStatistic) -> None:
    """Shares of the bins, of the reference and of the recent past."""
    places = range(len(one.reference_bins))
    width = (one.range_high - one.range_low) / max(1, len(places))
    edges = [one.range_low + place * width for place in places]
    if one.labels:
        axes.bar([place - 0.2 for place in places], _shares(one.reference_bins), 0.4, color=_REFERENCE)
        axes.bar([place + 0.2 for place in places], _shares(one.recent_bins, len(places)), 0.4, color=_RECENT)
        axes.set_xticks(list(places), [label or "other" for label in one.labels], fontsize=7)
    else:
        axes.bar(edges, _shares(one.reference_bins), width, align="edge", color=_REFERENCE)
        axes.step(edges, _shares(one.recent_bins, len(places)), where="post", color=_RECENT)
    flagged = ", flagged" if one.drifted else ""
    axes.set_title(f"{one.name}: {one.distance:.2f} of {one.tolerated:.2f}{flagged}", fontsize=9)
    axes.tick_params(labelsize=7)


def _days(time: Timestamp) -> float:
    """Days since 1970, as matplotlib counts time."""
    return (time.seconds + time.nanos / 1e9) / 86400


def _shares(bins: Sequence[int], count: int = 0) -> list[float]:
    total = sum(bins)
    return [one / total for one in bins] if total else [0.0] * (len(bins) or count)
