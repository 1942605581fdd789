"""Rows of a bench: each a measurement beside what it is measured against, in the same run."""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`ratio` is value / baseline; both are None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None


def compare(name: str, values: Sequence[float], unit: str, baselines: Sequence[float]) -> Row:
    """The medians of interleaved runs, and the median of the ratios of neighbours: the machine drifts between them."""
    ratios = [value / baseline for value, baseline in zip(values, baselines, strict=True)]
    return Row(
        name=name,
        value=_round(statistics.median(values)),
        unit=unit,
        baseline=_round(statistics.median(baselines)),
        ratio=_round(statistics.median(ratios)),
    )


def against(name: str, value: float, unit: str, baseline: float) -> Row:
    """One measurement beside one of its baseline."""
    return compare(name, [value], unit, [baseline])


def alone(name: str, value: float, unit: str) -> Row:
    """A row with nothing to compare it with."""
    return Row(name=name, value=_round(value), unit=unit)


def publish(bench: str, rows: Sequence[Row], *, baseline: str) -> None:
    """Print the table and write `.bench/{bench}.json`; `baseline` says in words what the baseline is."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{bench}.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    table = Table(title=f"{bench}: baseline is {baseline}", title_justify="left", box=None, pad_edge=False)
    for column in ("name", "value", "unit", "baseline", "ratio"):
        table.add_column(column, justify="left" if column in {"name", "unit"} else "right")
    for row in rows:
        table.add_row(row.name, _text(row.value), row.unit, _text(row.baseline), _text(row.ratio))
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print("", table)


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
