"""Labels as COCO writes them: images, annotations with boxes in pixels, categories.

An annotation without a box labels the whole picture; where there are only boxes, the largest one's class does.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.client.label_files import Entry, LabelFile, Region, largest_class, read_text, target_of


def read_coco(path: Path, *, annotator: str = "", background: str = "") -> LabelFile:
    """Return a label a picture that has annotations; with `background` that label for those without any. Raises
    LabelFileError with every annotation that is wrong."""
    file = LabelFile(path=path)
    document = parse_json(file)
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in _LISTS):
        if not file.faults:
            file.fault("the file", "it is no COCO file", f"it needs lists of {', '.join(_LISTS)}")
        return file.checked()
    images = _images(file, document["images"])
    categories = _categories(file, document["categories"])
    whole: dict[Any, set[str]] = defaultdict(set)
    drawn: dict[Any, list[Region]] = defaultdict(list)
    for index, annotation in enumerate(document["annotations"]):
        place = f"annotations[{index}]"
        _annotation(file, annotation, place, images=images, categories=categories, whole=whole, drawn=drawn)
    for index, (key, image) in enumerate(images.items(), start=1):
        place = f"image {image.name}"
        file.places[index] = place
        if len(whole[key]) > 1:
            file.fault(place, f"it has several labels: {', '.join(sorted(whole[key]))}", "keep one")
            continue
        label = next(iter(whole[key]), "") or (largest_class(drawn[key]) if drawn[key] else background)
        if label:
            target = target_of(image.name)
            file.entries.append(Entry(target=target, label=label, regions=drawn[key], annotator=annotator, line=index))
    return file.checked()


def write_coco(pictures: Iterable["CocoPicture"]) -> str:
    """Return a COCO file: every picture with an annotation of its label, and one for each region."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for picture in pictures:
        image_id = len(images) + 1
        facts = {"id": image_id, "file_name": picture.file_name, "width": picture.width, "height": picture.height}
        images.append({**facts, **picture.facts})
        wanted: list[tuple[str, list[float] | None]] = [(picture.label, None)] if picture.label else []
        wanted += [(region.label, _pixels(region, picture)) for region in picture.regions]
        for label, box in wanted:
            entry: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": categories.setdefault(label, len(categories) + 1),
            }
            if box is not None:
                entry |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append(entry)
    named = [{"id": number, "name": name} for name, number in categories.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": named}, indent=1, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoPicture:
    """A picture to write."""

    file_name: str
    width: int
    height: int
    label: str
    regions: tuple[Region, ...]
    facts: Mapping[str, Any]
    """Further keys of the image."""


@dataclass(frozen=True, slots=True)
class _Image:
    name: str
    width: float
    height: float


_LISTS = ("images", "annotations", "categories")


def parse_json(file: LabelFile) -> Any:
    """Return the document; a fault with its line where it is none."""
    try:
        return json.loads(read_text(file.path))
    except json.JSONDecodeError as error:
        file.fault(f"line {error.lineno}", f"it is no JSON: {error.msg} at column {error.colno}", "export it again")
    except RecursionError:
        file.fault("the file", "it is nested too deep", "export it again")
    return None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _images(file: LabelFile, listed: list[Any]) -> dict[Any, _Image]:
    images: dict[Any, _Image] = {}
    for index, image in enumerate(listed):
        place = f"images[{index}]"
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            file.fault(place, "it has no file_name", "export it again")
        elif not isinstance(image.get("id"), int | str):
            file.fault(place, "it has no id", "export it again")
        elif image["id"] in images:
            file.fault(place, f"the id {image['id']} is there twice", "give each image its own")
        else:
            width, height = (image.get(key) if is_number(image.get(key)) else 0 for key in ("width", "height"))
            images[image["id"]] = _Image(image["file_name"], float(width or 0), float(height or 0))
    return images


def _categories(file: LabelFile, listed: list[Any]) -> dict[Any, str]:
    categories: dict[Any, str] = {}
    for index, category in enumerate(listed):
        known = isinstance(category, dict) and isinstance(category.get("id"), int | str)
        if known and isinstance(category.get("name"), str):
            categories[category["id"]] = category["name"]
        else:
            file.fault(f"categories[{index}]", "it has no id or no name", "export it again")
    return categories


def _annotation(
    file: LabelFile,
    annotation: Any,
    place: str,
    *,
    images: Mapping[Any, _Image],
    categories: Mapping[Any, str],
    whole: dict[Any, set[str]],
    drawn: dict[Any, list[Region]],
) -> None:
    """Note one annotation under its image, or its fault."""
    facts = annotation if isinstance(annotation, dict) else {}
    key, category = facts.get("image_id"), facts.get("category_id")
    if not isinstance(key, int | str) or key not in images:
        file.fault(place, f"no image has the id {key!r}", "name an image of the file")
        return
    if not isinstance(category, int | str) or category not in categories:
        file.fault(place, f"no category has the id {category!r}", "name a category of the file")
        return
    box, image = facts.get("bbox"), images[key]
    if not box:
        whole[key].add(categories[category])
    elif not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        file.fault(place, f"bbox is {str(box)[:80]}", "write [left, top, width, height] in pixels")
    elif image.width <= 0 or image.height <= 0:
        file.fault(place, f"{image.name} has no width and height", "add them to its entry in images")
    else:
        x, y, width, height = (value / size for value, size in zip(box, (image.width, image.height) * 2, strict=True))
        drawn[key].append(Region(label=categories[category], x=x, y=y, width=width, height=height))


def _pixels(region: Region, picture: CocoPicture) -> list[float]:
    return [
        region.x * picture.width,
        region.y * picture.height,
        region.width * picture.width,
        region.height * picture.height,
    ]
