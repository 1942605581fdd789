"""Labels as YOLO keeps them: a folder with `classes.txt` and a text file a picture.

A line is a class's number and a box by its centre, width and height in shares of the picture; a line with the number
alone labels the whole picture. Where there are only boxes, the largest one's class labels the picture.
"""

import math
from collections.abc import Iterable
from pathlib import Path

from controlplane.client.errors import InvalidInputError
from controlplane.client.label_files import Entry, LabelFile, Region, largest_class, read_text

CLASSES = "classes.txt"


def read_yolo(folder: Path, *, annotator: str = "", background: str = "") -> LabelFile:
    """Return a label a text file; an empty one is `background`, or left out. Raises LabelFileError with every line
    that is wrong."""
    file = LabelFile(path=folder)
    if not (folder / CLASSES).is_file():
        raise InvalidInputError(
            f"there is no {CLASSES} in {folder}", field="file", remedy="put the names of the classes there, one a line"
        )
    classes = [line.strip() for line in read_text(folder / CLASSES).splitlines() if line.strip()]
    texts = sorted(path for path in folder.rglob("*.txt") if path.name != CLASSES)
    for index, path in enumerate(texts, start=1):
        name = path.relative_to(folder).as_posix()
        file.places[index] = name
        whole, regions = _read(file, path, name, classes)
        label = whole or (largest_class(regions) if regions else background)
        if label:
            file.entries.append(Entry(target=path.stem, label=label, regions=regions, annotator=annotator, line=index))
    return file.checked()


def yolo_text(label: str, regions: Iterable[Region], classes: list[str]) -> str:
    """Return a picture's file; classes that are not known yet are appended to `classes`."""
    lines = [
        f"{_number(region.label, classes)} {region.x + region.width / 2:.6f} {region.y + region.height / 2:.6f}"
        f" {region.width:.6f} {region.height:.6f}"
        for region in regions
    ]
    return "".join(f"{line}\n" for line in lines or [str(_number(label, classes))])


def _number(label: str, classes: list[str]) -> int:
    if label not in classes:
        classes.append(label)
    return classes.index(label)


def _read(file: LabelFile, path: Path, name: str, classes: list[str]) -> tuple[str, list[Region]]:
    """The label of the whole picture, if it has one, and its regions."""
    whole, regions = "", []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words, place = line.split(), f"{name}, line {number}"
        if not words:
            continue
        if not (words[0].isascii() and words[0].isdecimal() and int(words[0]) < len(classes)):
            file.fault(place, f"{words[0][:40]!r} is no class", f"write 0 to {len(classes) - 1}, a line of {CLASSES}")
            continue
        label = classes[int(words[0])]
        if len(words) == 1:
            if whole and whole != label:
                file.fault(place, f"the picture is {whole} already", "keep one label of the whole picture")
            whole = label
            continue
        box = _box(words[1:])
        if box is None:
            file.fault(place, f"{line[:80]!r} is no box", "write a class, then centre x, centre y, width and height")
            continue
        x, y, width, height = box
        # Rounded to six digits, a box at the edge may begin a millionth outside.
        left, top = max(x - width / 2, 0.0), max(y - height / 2, 0.0)
        if x - width / 2 < -1e-5 or y - height / 2 < -1e-5 or x + width / 2 > 1 + 1e-5 or y + height / 2 > 1 + 1e-5:
            file.fault(place, "the box is not inside the picture", "write shares of width and height, 0 to 1")
            continue
        regions.append(Region(label=label, x=left, y=top, width=min(width, 1 - left), height=min(height, 1 - top)))
    return whole, regions


def _box(words: list[str]) -> tuple[float, float, float, float] | None:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return None
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]
