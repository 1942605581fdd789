"""Files of labels: every fault with its place, and what is written reads back."""

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lineside.v1 import dataset_pb2, label_pb2, sample_pb2

from controlplane.client import InvalidInputError
from controlplane.client.exports import (
    DatasetFormat,
    LabelFormat,
    LabelledSample,
    export_dataset,
    export_labels,
    folder_names,
)
from controlplane.client.label_coco import read_coco
from controlplane.client.label_csv import read_csv
from controlplane.client.label_files import Entry, LabelFile, LabelFileError
from controlplane.client.label_studio import read_label_studio
from controlplane.client.label_yolo import read_yolo

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 200, 100) + bytes(20)


def faults(read: Callable[[], LabelFile]) -> list[str]:
    """Places of everything that is wrong."""
    with pytest.raises(LabelFileError) as refusal:
        read()
    assert all(fault.message for fault in refusal.value.faults)
    return [fault.place for fault in refusal.value.faults]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def said(file: LabelFile) -> list[tuple[str, str, str]]:
    return [(entry.target, entry.label, entry.annotator) for entry in file.entries]


# --- CSV ------------------------------------------------------------------------------------------


def test_csv_is_read_by_its_header_with_quotes_marks_and_blank_lines(tmp_path: Path) -> None:
    text = '\ufefffile, Label ,annotator,note\r\nimages/s-1.png,good,anna,"a, b"\r\n\r\n"s-2.png","crack",,\r\n'
    file = read_csv(write(tmp_path, "labels.csv", text))
    assert said(file) == [("s-1", "good", "anna"), ("s-2", "crack", "")]
    assert [entry.line for entry in file.entries] == [2, 4]


def test_csv_names_every_line_that_is_wrong(tmp_path: Path) -> None:
    lines = ["part,label,adjudicates,regions", "p-1,good,,", ",good,,", "p-2,,,", "p-3,good,perhaps,", "p-4,good,yes,x",
             "p-5,good", "p-6,good,,,more", 'p-7,good,,"[[""c"",0,0]]"']  # fmt: skip
    path = write(tmp_path, "labels.csv", "\n".join(lines))
    assert faults(lambda: read_csv(path)) == [f"line {number}" for number in (3, 4, 5, 6, 7, 8, 9)]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "line 1"),
        ("name,class\na,b\n", "line 1"),
        ("part,label,part\na,b,c\n", "line 1"),
        ("part,label\n", "the file"),
        (b"part,label\np-1,good\np-2,sch\xf6n\n", "line 3"),
        ("part,label\np-1,go\0od\n", "line 2"),
        ('part,label\np-1,"good\n', "line 2"),
        ('part,label\np-1,"go"od\n', "line 2"),
    ],
)
def test_csv_that_is_none_is_told_where(tmp_path: Path, content: str | bytes, place: str) -> None:
    path = write(tmp_path, "labels.csv", content)
    assert faults(lambda: read_csv(path)) == [place]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        read_csv(tmp_path / "no.csv")
    assert (refusal.value.field, bool(refusal.value.remedy)) == ("file", True)


def test_many_faults_are_all_there_and_a_few_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "labels.csv", "part,label\n" + "p,\n" * 500)
    with pytest.raises(LabelFileError) as refusal:
        read_csv(path)
    assert len(refusal.value.faults) == 500
    assert "and 480 more" in str(refusal.value)


@given(st.binary(max_size=200))
def test_no_bytes_break_a_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    path = write(folder, "classes.txt", content)
    write(folder, "a.txt", content)
    for read in (read_csv, read_coco, read_label_studio, lambda _: read_yolo(folder)):
        with suppress(InvalidInputError):
            assert read(path).entries


# --- COCO -----------------------------------------------------------------------------------------


def coco(**changes: Any) -> str:
    document = {
        "images": [{"id": 1, "file_name": "a/s-1.png", "width": 200, "height": 100}, {"id": 2, "file_name": "s-2.png"}],
        "categories": [{"id": 7, "name": "crack"}, {"id": 8, "name": "good"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [20, 10, 100, 50]},
            {"id": 2, "image_id": 1, "category_id": 8, "bbox": [0, 0, 2, 2]},
        ],
    }
    return json.dumps(document | changes)


def test_coco_boxes_become_shares_and_the_largest_names_the_picture(tmp_path: Path) -> None:
    file = read_coco(write(tmp_path, "c.json", coco()), annotator="bea")
    (entry,) = file.entries
    assert (entry.target, entry.label, entry.annotator) == ("s-1", "crack", "bea")
    region = entry.regions[0]
    assert (region.x, region.y, region.width, region.height) == (0.1, 0.1, 0.5, 0.5)
    both = read_coco(write(tmp_path, "c.json", coco()), background="good")
    assert said(both) == [("s-1", "crack", ""), ("s-2", "good", "")]


def test_coco_annotations_without_a_box_label_the_picture(tmp_path: Path) -> None:
    whole = [{"image_id": 2, "category_id": 8}, {"image_id": 1, "category_id": 7, "bbox": []}]
    assert said(read_coco(write(tmp_path, "c.json", coco(annotations=whole)))) == [
        ("s-1", "crack", ""),
        ("s-2", "good", ""),
    ]


def test_coco_names_every_value_that_is_wrong(tmp_path: Path) -> None:
    wrong = [
        {"image_id": 9, "category_id": 7}, {"image_id": 1, "category_id": 99}, "nothing",
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3]}, {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, "x"]},
        {"image_id": 2, "category_id": 7, "bbox": [1, 2, 3, 4]}, {"image_id": [1], "category_id": 7},
    ]  # fmt: skip
    path = write(tmp_path, "c.json", coco(annotations=wrong))
    assert faults(lambda: read_coco(path)) == [f"annotations[{number}]" for number in range(7)]
    two = [{"image_id": 1, "category_id": 7}, {"image_id": 1, "category_id": 8}]
    path = write(tmp_path, "c.json", coco(annotations=two))
    assert faults(lambda: read_coco(path)) == ["image a/s-1.png"]
    path = write(tmp_path, "c.json", coco(images=[{"id": 1}, {"file_name": "x"}, 3], categories=[{"id": 1}]))
    assert faults(lambda: read_coco(path))[:4] == ["images[0]", "images[1]", "images[2]", "categories[0]"]


@pytest.mark.parametrize(
    ("content", "place"), [('{"images": [\n1,\n}', "line 3"), ("[]", "the file"), ('{"images": 1}', "the file")]
)
def test_json_that_is_none_is_told_where(tmp_path: Path, content: str, place: str) -> None:
    path = write(tmp_path, "c.json", content)
    assert faults(lambda: read_coco(path)) == [place]


# --- YOLO -----------------------------------------------------------------------------------------


def test_yolo_boxes_are_by_their_centre(tmp_path: Path) -> None:
    write(tmp_path, "classes.txt", "good\ncrack\n")
    write(tmp_path, "labels/s-1.txt", "1 0.5 0.5 0.5 0.25\n0 0.05 0.05 0.1 0.1\n")
    write(tmp_path, "labels/s-2.txt", "0\n")
    write(tmp_path, "labels/s-3.txt", "\n")
    file = read_yolo(tmp_path, background="good")
    assert said(file) == [("s-1", "crack", ""), ("s-2", "good", ""), ("s-3", "good", "")]
    region = file.entries[0].regions[0]
    assert (region.x, region.y, region.width, region.height) == (0.25, 0.375, 0.5, 0.25)


def test_yolo_names_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, "classes.txt", "good\ncrack\n")
    lines = ["7 0.5 0.5 0.1 0.1", "x", "0 0.5 0.5 0.1", "0 0.5 nan 0.1 0.1", "0 0.9 0.5 0.5 0.1", "0", "1"]
    write(tmp_path, "labels/s-1.txt", "\n".join(lines))
    expected = [f"labels/s-1.txt, line {number}" for number in (1, 2, 3, 4, 5, 7)]
    assert faults(lambda: read_yolo(tmp_path)) == expected


def test_yolo_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        read_yolo(tmp_path)
    assert "classes.txt" in str(refusal.value)


# --- Label Studio ---------------------------------------------------------------------------------


def task(*annotations: Any, image: str = "/data/upload/1/s-1.png") -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": list(annotations)}


def chosen(label: str, by: Any = 3) -> dict[str, Any]:
    return {"completed_by": by, "result": [{"type": "choices", "value": {"choices": [label]}}]}


def test_label_studio_has_an_opinion_an_annotation(tmp_path: Path) -> None:
    drawn = {
        "completed_by": {"email": "bea@plant"},
        "result": [
            {
                "type": "rectanglelabels",
                "value": {"x": 10, "y": 20, "width": 50, "height": 40, "rectanglelabels": ["crack"]},
            }
        ],
    }
    cancelled = {**chosen("dust"), "was_cancelled": True}
    tasks = [task(chosen("good"), drawn, cancelled, {"completed_by": 1, "result": []}), task(image="s-2.png")]
    file = read_label_studio(write(tmp_path, "t.json", json.dumps(tasks)))
    assert said(file) == [("s-1", "good", "label-studio-3"), ("s-1", "crack", "bea@plant")]
    region = file.entries[1].regions[0]
    assert (region.x, region.y, region.width, region.height) == (0.1, 0.2, 0.5, 0.4)


def test_label_studio_names_every_task_that_is_wrong(tmp_path: Path) -> None:
    several = {"result": [{"type": "choices", "value": {"choices": ["a", "b"]}}]}
    bad_box = {"result": [{"type": "rectanglelabels", "value": {"x": "1", "rectanglelabels": ["a"]}}]}
    tasks = ["nothing", {"data": {}}, task("no annotation"), task({"result": ["x"]}), task(several), task(bad_box)]
    path = write(tmp_path, "t.json", json.dumps(tasks))
    assert faults(lambda: read_label_studio(path)) == [
        "task[0]", "task[1]", "task[2].annotations[0]", "task[3].annotations[0].result[0]", "task[4].annotations[0]",
        "task[5].annotations[0].result[0]",
    ]  # fmt: skip
    path = write(tmp_path, "t.json", "{}")
    assert faults(lambda: read_label_studio(path)) == ["the file"]


# --- there and back -------------------------------------------------------------------------------

REGION = label_pb2.LabeledRegion(label="crack", x=0.25, y=0.5, width=0.25, height=0.25)


def labelled(name: str, label: str, *regions: label_pb2.LabeledRegion) -> LabelledSample:
    opinion = label_pb2.Label(sample=f"samples/{name}", annotator="anna", label=label, regions=regions)
    consensus = label_pb2.Consensus(
        sample=f"samples/{name}",
        state=label_pb2.Consensus.STATE_AGREED,
        label=label,
        regions=regions,
        opinions=[opinion],
    )
    return LabelledSample(
        sample=sample_pb2.Sample(name=f"samples/{name}", content_type="image/png"), consensus=consensus
    )


READERS: dict[LabelFormat, Callable[[Path], LabelFile]] = {
    LabelFormat.CSV: read_csv,
    LabelFormat.COCO: lambda out: read_coco(out / "labels.json", annotator="anna"),
    LabelFormat.YOLO: lambda out: read_yolo(out, annotator="anna"),
    LabelFormat.LABEL_STUDIO: lambda out: read_label_studio(out / "tasks.json"),
}


@pytest.mark.parametrize("format", LabelFormat)
def test_what_is_exported_reads_back_as_it_was(tmp_path: Path, format: LabelFormat) -> None:
    samples = [labelled("s-1", "good"), labelled("s-2", "crack", REGION)]
    out = tmp_path / "out"
    assert export_labels(samples, out, format=format, content=lambda _: PNG) == 2
    entries = sorted(READERS[format](out).entries, key=lambda entry: entry.target)
    for entry in entries:
        entry.line = 0
    assert entries == [
        Entry(target="s-1", label="good", annotator="anna"),
        Entry(target="s-2", label="crack", annotator="anna", regions=[REGION]),
    ]
    if format is not LabelFormat.CSV:
        assert (out / "images" / "s-1.png").read_bytes() == PNG


def test_samples_without_a_label_are_exported_to_be_filled_in(tmp_path: Path) -> None:
    sample = sample_pb2.Sample(name="samples/s-1", content_type="image/png", label_hint="crack")
    waiting = [LabelledSample(sample=sample, consensus=None)]
    export_labels(waiting, tmp_path / "l.csv", format=LabelFormat.CSV, content=lambda _: PNG)
    assert (tmp_path / "l.csv").read_text().splitlines()[1].startswith("s-1,,")
    export_labels(waiting, tmp_path / "ls", format=LabelFormat.LABEL_STUDIO, content=lambda _: PNG)
    (written,) = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    assert written["data"] == {"image": "images/s-1.png", "sample": "s-1"}
    assert written["annotations"] == []
    assert written["predictions"][0]["result"][0]["value"]["choices"] == ["crack"]


def item(name: str, label: str, split: Any) -> dataset_pb2.DatasetItem:
    return dataset_pb2.DatasetItem(
        sample=f"samples/{name}", label=label, split=split, content_type="image/png", regions=[REGION], weight=1
    )


ITEMS = [
    item("s-1", "good", dataset_pb2.DatasetItem.SPLIT_TRAIN),
    item("s-2", "../../crack", dataset_pb2.DatasetItem.SPLIT_VALIDATION),
]


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (DatasetFormat.FOLDERS, {"train/good/s-1.png", "validation/______crack/s-2.png"}),
        (DatasetFormat.COCO, {"train/s-1.png", "validation/s-2.png", "train.json", "validation.json"}),
        (
            DatasetFormat.YOLO,
            {"images/train/s-1.png", "images/validation/s-2.png", "labels/train/s-1.txt", "labels/validation/s-2.txt"}
            | {"classes.txt"},
        ),
    ],
)
def test_a_dataset_is_written_within_its_folder(tmp_path: Path, format: DatasetFormat, expected: set[str]) -> None:
    out = tmp_path / "out"
    assert export_dataset(ITEMS, out, format=format, content=lambda _: PNG) == 2
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == expected | {"items.csv"}
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(InvalidInputError) as refusal:
        export_dataset(ITEMS, out, format=format, content=lambda _: PNG)
    assert refusal.value.field == "out"


def test_folders_of_classes_are_told_apart() -> None:
    names = folder_names({"a/b", "a_b", "..", "", "Ünï"})
    assert len(set(names.values())) == 5
    assert all("/" not in name and name.strip(".") for name in names.values())
