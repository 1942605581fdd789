"""Labels as Label Studio exports and imports them: a JSON list of tasks, each with a picture and annotations.

Each annotation is one person's opinion: a choice for the whole picture, rectangles in percent, or both.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.v1 import label_pb2

from controlplane.client.label_coco import is_number, parse_json
from controlplane.client.label_files import Entry, LabelFile, Region, largest_class, target_of

_PICTURE_KEYS = ("image", "img", "picture", "url")


def read_label_studio(path: Path, *, annotator: str = "") -> LabelFile:
    """Return a label an annotation; cancelled and empty ones are left out. Raises LabelFileError with everything that
    is wrong."""
    file = LabelFile(path=path)
    tasks = parse_json(file)
    if not isinstance(tasks, list):
        if not file.faults:
            file.fault("the file", "it is no list of tasks", "export JSON, not JSON-MIN")
        return file.checked()
    for index, task in enumerate(tasks):
        place = f"task[{index}]"
        file.places[index + 1] = place
        target = _target(task)
        if not target:
            file.fault(place, "its data names no picture", "export tasks with data.image or data.sample")
            continue
        annotations = task.get("annotations", task.get("completions", []))
        for number, annotation in enumerate(annotations if isinstance(annotations, list) else [None]):
            where = f"{place}.annotations[{number}]"
            if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
                file.fault(where, "it has no result", "export it again")
            elif not annotation.get("was_cancelled"):
                entry = _entry(file, annotation, where)
                if entry is not None:
                    entry.target, entry.line = target, index + 1
                    entry.annotator = _annotator(annotation) or annotator
                    file.entries.append(entry)
    return file.checked()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A sample to write, with the opinions that there are."""

    sample: str
    picture: str
    hint: str
    opinions: Sequence[label_pb2.Label]


def write_label_studio(tasks: Iterable[Task]) -> str:
    """Return tasks to import, with opinions as annotations and hints as predictions."""
    return json.dumps([_task(task) for task in tasks], indent=1, ensure_ascii=False)


def _task(task: Task) -> dict[str, Any]:
    document: dict[str, Any] = {
        "data": {"image": task.picture, "sample": task.sample},
        "annotations": [
            {"completed_by": {"email": opinion.annotator}, "result": _result(opinion.label, opinion.regions)}
            for opinion in task.opinions
        ],
    }
    if task.hint:
        document["predictions"] = [{"result": _result(task.hint, ())}]
    return document


def _result(label: str, regions: Iterable[Region]) -> list[dict[str, Any]]:
    choice = {"type": "choices", "from_name": "label", "to_name": "image", "value": {"choices": [label]}}
    boxes = [
        {
            "type": "rectanglelabels",
            "from_name": "region",
            "to_name": "image",
            "value": {
                "x": region.x * 100,
                "y": region.y * 100,
                "width": region.width * 100,
                "height": region.height * 100,
                "rectanglelabels": [region.label],
            },
        }
        for region in regions
    ]
    return [choice, *boxes]


def _target(task: Any) -> str:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        return ""
    if isinstance(data.get("sample"), str):
        return str(data["sample"])
    return next((target_of(data[key]) for key in _PICTURE_KEYS if isinstance(data.get(key), str)), "")


def _annotator(annotation: dict[str, Any]) -> str:
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return f"label-studio-{who}" if isinstance(who, int) else str(who or "")


def _entry(file: LabelFile, annotation: dict[str, Any], where: str) -> Entry | None:
    """The opinion of one annotation; None where it says nothing, or is a fault."""
    choices: set[str] = set()
    regions: list[Region] = []
    for number, part in enumerate(annotation["result"]):
        value = part.get("value") if isinstance(part, dict) else None
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(value, dict):
            file.fault(f"{where}.result[{number}]", "it has no value", "export it again")
        elif kind == "choices":
            choices.update(map(str, value.get("choices", ())))
        elif kind == "rectanglelabels":
            region = _region(value)
            if region is None:
                file.fault(f"{where}.result[{number}]", "it is no rectangle", "export it again")
            else:
                regions.append(region)
    if len(choices) > 1:
        file.fault(where, f"it chooses several: {', '.join(sorted(choices))}", "let annotators choose one")
        return None
    label = next(iter(choices), "") or (largest_class(regions) if regions else "")
    return Entry(label=label, regions=regions) if label else None


def _region(value: dict[str, Any]) -> Region | None:
    labels, numbers = value.get("rectanglelabels"), [value.get(key) for key in ("x", "y", "width", "height")]
    if not isinstance(labels, list) or len(labels) != 1 or not all(map(is_number, numbers)):
        return None
    x, y, width, height = (float(number or 0) / 100 for number in numbers)
    return Region(label=str(labels[0]), x=x, y=y, width=width, height=height)
