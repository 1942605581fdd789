"""Labels and datasets written to folders, in the shapes that other tools read."""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lineside.v1 import dataset_pb2, label_pb2, sample_pb2

from controlplane.client.errors import InvalidInputError
from controlplane.client.label_coco import CocoPicture, write_coco
from controlplane.client.label_csv import regions_text, write_csv
from controlplane.client.label_files import Region
from controlplane.client.label_studio import Task, write_label_studio
from controlplane.client.label_yolo import CLASSES, yolo_text
from controlplane.client.names import short

_PNG = b"\x89PNG\r\n\x1a\n"
_SPLITS = {
    dataset_pb2.DatasetItem.SPLIT_TRAIN: "train",
    dataset_pb2.DatasetItem.SPLIT_VALIDATION: "validation",
    dataset_pb2.DatasetItem.SPLIT_HOLDOUT: "holdout",
}
ReadContent = Callable[[sample_pb2.Sample], bytes]


class LabelFormat(StrEnum):
    CSV = "csv"
    COCO = "coco"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"


class DatasetFormat(StrEnum):
    FOLDERS = "folders"
    COCO = "coco"
    YOLO = "yolo"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSample:
    """A sample to write: what holds of it, and who said what."""

    sample: sample_pb2.Sample
    consensus: label_pb2.Consensus | None
    """None while nobody has labelled it."""


def export_labels(samples: Sequence[LabelledSample], out: Path, *, format: LabelFormat, content: ReadContent) -> int:
    """Write labels, and the pictures where the format names them; return how many samples were written.

    CSV and Label Studio hold every opinion and samples without any, to be filled in; COCO and YOLO hold what annotators
    agree on. CSV is a file, the others are folders that are new or empty. Raises ClientError.
    """
    if format is LabelFormat.CSV:
        _write(out, write_csv(row for one in samples for row in _csv_rows(one)).encode())
        return len(samples)
    images = _new_folder(out) / "images"
    if format is LabelFormat.LABEL_STUDIO:
        tasks = []
        for one in samples:
            name = _fetch(one.sample, images, content)[0]
            opinions = one.consensus.opinions if one.consensus is not None else ()
            hint = one.sample.label_hint
            tasks.append(Task(sample=short(one.sample.name), picture=f"images/{name}", hint=hint, opinions=opinions))
        _write(out / "tasks.json", write_label_studio(tasks).encode())
        return len(tasks)
    agreed = [(one.sample, one.consensus) for one in samples if one.consensus is not None and one.consensus.label]
    if format is LabelFormat.COCO:
        pictures = [_coco(*_fetch(sample, images, content), held.label, held.regions) for sample, held in agreed]
        _write(out / "labels.json", write_coco(pictures).encode())
        return len(pictures)
    classes: list[str] = []
    for sample, held in agreed:
        name = _fetch(sample, images, content)[0]
        text = yolo_text(held.label, held.regions, classes)
        _write(out / "labels" / f"{Path(name).stem}.txt", text.encode())
    _write(out / CLASSES, "".join(f"{name}\n" for name in classes).encode())
    return len(agreed)


def export_dataset(
    items: Sequence[dataset_pb2.DatasetItem], out: Path, *, format: DatasetFormat, content: ReadContent
) -> int:
    """Write a dataset into a folder that is new or empty; return how many items were written. Raises ClientError."""
    _new_folder(out)
    by_split: dict[str, list[dataset_pb2.DatasetItem]] = {}
    for item in items:
        by_split.setdefault(_SPLITS[item.split], []).append(item)
    match format:
        case DatasetFormat.FOLDERS:
            folders = folder_names({item.label for item in items})
            for split, some in by_split.items():
                for item in some:
                    _fetch(_sample(item), out / split / folders[item.label], content)
        case DatasetFormat.COCO:
            for split, some in by_split.items():
                pictures = [
                    _coco(*_fetch(_sample(item), out / split, content), item.label, item.regions) for item in some
                ]
                _write(out / f"{split}.json", write_coco(pictures).encode())
        case DatasetFormat.YOLO:
            classes: list[str] = []
            for split, some in by_split.items():
                for item in some:
                    name = _fetch(_sample(item), out / "images" / split, content)[0]
                    text = yolo_text(item.label, item.regions, classes)
                    _write(out / "labels" / split / f"{Path(name).stem}.txt", text.encode())
            _write(out / CLASSES, "".join(f"{name}\n" for name in classes).encode())
    _write(out / "items.csv", _items_csv(items).encode())
    return len(items)


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a folder's name for each class, told apart whatever characters the classes have."""
    names: dict[str, str] = {}
    for label in sorted(labels):
        plain = "".join(char if char.isalnum() or char in "-_ " else "_" for char in label).strip() or "_"
        name, number = plain, 2
        while name in names.values():
            name, number = f"{plain}-{number}", number + 1
        names[label] = name
    return names


def png_size(content: bytes) -> tuple[int, int]:
    """Return width and height of a PNG; (0, 0) of anything else."""
    if not content.startswith(_PNG) or len(content) < 24:
        return 0, 0
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)


def _csv_rows(one: LabelledSample) -> Iterable[dict[str, str]]:
    facts = {"sample": short(one.sample.name), "part": one.sample.result.part_id}
    if one.consensus is None:
        yield {**facts, "label": ""}
        return
    for opinion in one.consensus.opinions:
        yield {
            **facts,
            "label": opinion.label,
            "annotator": opinion.annotator,
            "adjudicates": "true" if opinion.adjudicates else "",
            "regions": regions_text(opinion.regions),
            "create_time": opinion.create_time.ToJsonString(),
            "source": opinion.source,
        }


def _items_csv(items: Sequence[dataset_pb2.DatasetItem]) -> str:
    """Every item with the sample and the labels that it came from."""
    rows = (
        {
            "sample": short(item.sample),
            "label": item.label,
            "annotator": " ".join(item.annotators),
            "regions": regions_text(item.regions),
            "part": item.part_id,
            "create_time": item.capture_time.ToJsonString(),
            "source": f"{_SPLITS[item.split]} weight={item.weight:g} labels={' '.join(item.label_ids)}",
        }
        for item in items
    )
    return write_csv(rows)


def _sample(item: dataset_pb2.DatasetItem) -> sample_pb2.Sample:
    return sample_pb2.Sample(name=item.sample, digest=item.digest, content_type=item.content_type)


def _fetch(sample: sample_pb2.Sample, folder: Path, content: ReadContent) -> tuple[str, tuple[int, int]]:
    """Write a sample's content; return the file's name and the picture's size."""
    suffix = ".png" if sample.content_type == "image/png" else ".npy"
    bytes_ = content(sample)
    name = short(sample.name) + suffix
    _write(folder / name, bytes_)
    return name, png_size(bytes_)


def _coco(name: str, size: tuple[int, int], label: str, regions: Iterable[Region]) -> CocoPicture:
    facts = {"sample": Path(name).stem}
    return CocoPicture(file_name=name, width=size[0], height=size[1], label=label, regions=tuple(regions), facts=facts)


def _new_folder(folder: Path) -> Path:
    """Return the folder, which is there and empty: old files would mix with the new."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        filled = any(folder.iterdir())
    except OSError as error:
        raise _unwritable(folder, error) from error
    if filled:
        raise InvalidInputError(f"{folder} is not empty", field="out", remedy="name a new folder")
    return folder


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(
        f"cannot write {path}: {error.strerror}", field="out", remedy="name a place that you may write"
    )
