"""The contract of trainers, seen from a trainer: what it is given, and how it says what it does.

    COMMAND --dataset DIR --base DIR --output DIR [--parameters FILE]

docs/training.md says it for people who write their own. What is raised here ends the trainer with the words as the last
line of its log, which is what the operator is shown.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TRAIN, VALIDATION = "TRAIN", "VALIDATION"


class TrainerError(Exception):
    """It cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One labelled input."""

    path: Path
    label: str
    split: str
    """TRAIN or VALIDATION."""
    weight: float
    agent: str
    """Which kept it; empty for what was imported."""
    line: str
    capture_time: str
    """RFC 3339 in UTC, so that texts compare as times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a trainer is asked to do."""

    base: Path
    output: Path
    items: Sequence[Item]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        """Return a parameter. Raises TrainerError where it is no number of that range."""
        value = self.parameters.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise TrainerError(f"parameter {name} is {value!r}; give a number from {least:g} to {most:g}")
        return float(value)

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter. Raises TrainerError where it is no text."""
        value = self.parameters.get(name, default)
        if not isinstance(value, str):
            raise TrainerError(f"parameter {name} is {value!r}; give a text")
        return value

    def check_parameters(self, known: frozenset[str]) -> None:
        """Raise TrainerError for a parameter that nobody reads: it was meant to do something."""
        if unknown := sorted(set(self.parameters) - known):
            raise TrainerError(f"parameter {unknown[0]!r} is not known; known are {', '.join(sorted(known))}")

    def of(self, split: str) -> list[Item]:
        return [item for item in self.items if item.split == split]

    def tell(self, fraction: float, message: str) -> None:
        """Say how far it is."""
        with (self.output / "progress.jsonl").open("a") as file:
            file.write(json.dumps({"fraction": round(min(max(fraction, 0.0), 1.0), 4), "message": message}) + "\n")
        print(message, flush=True)

    def deliver(self, metrics: Mapping[str, float]) -> None:
        """Write the metrics; the model lies in `model_folder` already."""
        (self.output / "metrics.json").write_text(json.dumps(dict(metrics), indent=1, sort_keys=True))

    def decline(self, message: str) -> None:
        """Say that there is nothing better to give."""
        (self.output / "declined.json").write_text(json.dumps({"message": message}))
        print(message, flush=True)

    def copy_companions(self, model: Path) -> None:
        """Copy what lies beside the base's model, such as labels or golden files, into `output`/model."""
        own = {model, model.with_suffix(".bin"), model.with_suffix(".pdiparams")}
        for path in sorted(self.base.rglob("*")):
            if path.is_file() and path not in own:
                target = self.output / "model" / path.relative_to(self.base)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def read_task(arguments: Sequence[str]) -> Task:
    """Return the task of a command line. Raises TrainerError."""
    parser = argparse.ArgumentParser()
    for name in ("--dataset", "--base", "--output"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--parameters", type=Path)
    given = parser.parse_args(arguments)
    parameters = json.loads(given.parameters.read_text()) if given.parameters else {}
    if not isinstance(parameters, dict):
        raise TrainerError("the parameters are no object; give names and values")
    return Task(base=given.base, output=given.output, items=read_items(given.dataset), parameters=parameters)


def read_items(folder: Path) -> list[Item]:
    """Return the items of `folder`/dataset.json, in its order."""
    document = json.loads((folder / "dataset.json").read_text())
    return [
        Item(
            path=folder / item["file"],
            label=item["label"],
            split=item["split"],
            weight=float(item.get("weight", 1.0)),
            agent=item.get("agent", ""),
            line=item.get("line", ""),
            capture_time=item.get("capture_time", ""),
        )
        for item in document["items"]
    ]


def run(train: Callable[[Task], None]) -> None:
    """Do it as a program: exit with 0, or with 1 after one line that says why."""
    try:
        train(read_task(sys.argv[1:]))
    except TrainerError as error:
        print(f"{error}", file=sys.stderr, flush=True)
        sys.exit(1)
