"""Labels as CSV: a header, then a label a line.

Columns: one of `sample`, `part`, `digest` or `file`, and `label`; if wanted `annotator`, `adjudicates` (true or false)
and `regions`, a JSON list of [class, left, top, width, height] in shares of the picture. Other columns are for people.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from controlplane.client.label_files import Entry, LabelFile, Region, read_text, target_of

TARGETS = ("sample", "part", "digest", "file")
COLUMNS = ("sample", "label", "annotator", "adjudicates", "regions", "part", "create_time", "source")
"""What is written; the last three are for people."""
_WORDS = {"": False, "false": False, "no": False, "0": False, "true": True, "yes": True, "1": True}


def read_csv(path: Path) -> LabelFile:
    """Return the labels of a file. Raises LabelFileError with every line that is wrong."""
    file = LabelFile(path=path)
    for line, row in rows_of(file):
        entry = entry_of(file, row, line)
        if entry is not None:
            file.entries.append(entry)
    return file.checked()


def rows_of(file: LabelFile) -> Iterable[tuple[int, Mapping[str, str]]]:
    """Yield each row with the line on which it ends, stripped; what is no row is a fault of the file."""
    text = read_text(file.path)
    if "\0" in text:
        file.fault(f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}", "it holds a NUL", "save it as text")
        return
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        header = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        if not _is_header(file, header):
            return
        for row in reader:
            line = reader.line_num
            if None in row:
                file.fault(f"line {line}", f"it has more than {len(header)} fields", "quote fields with commas")
            elif None in row.values():
                file.fault(f"line {line}", f"it has fewer than {len(header)} fields", "complete it")
            else:
                yield line, {key: value.strip() for key, value in row.items()}
    except csv.Error as error:
        file.fault(f"line {reader.reader.line_num}", str(error), "write it as RFC 4180 says")


def entry_of(file: LabelFile, row: Mapping[str, str], line: int) -> Entry | None:
    """Return a row's label; None where it is a fault."""
    column = next((name for name in TARGETS if row.get(name)), "")
    word = row.get("adjudicates", "").lower()
    if not column:
        file.fault(f"line {line}", "it names no sample", f"fill one of {', '.join(TARGETS)}")
    elif not row["label"]:
        file.fault(f"line {line}", "it has no label", "name the class, or leave the line out")
    elif word not in _WORDS:
        file.fault(f"line {line}", f"adjudicates: {word!r} is neither true nor false", "write true or false")
    else:
        regions = _regions(file, row.get("regions", ""), line)
        target = target_of(row[column]) if column == "file" else row[column]
        return Entry(
            target=target,
            label=row["label"],
            regions=regions,
            annotator=row.get("annotator", ""),
            adjudicates=_WORDS[word],
            line=line,
        )
    return None


def write_csv(rows: Iterable[Mapping[str, str]]) -> str:
    """Return rows under COLUMNS."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def regions_text(regions: Iterable[Region]) -> str:
    """Return regions as the column has them; empty without any."""
    listed = [[region.label, region.x, region.y, region.width, region.height] for region in regions]
    return json.dumps(listed, ensure_ascii=False) if listed else ""


def _is_header(file: LabelFile, header: list[str]) -> bool:
    if "label" not in header or not set(TARGETS) & set(header):
        file.fault(
            "line 1",
            f"the header is {', '.join(header)[:200] or 'empty'}",
            f"name the columns: one of {', '.join(TARGETS)}, and label",
        )
    elif len(set(header)) != len(header):
        file.fault("line 1", "a column is there twice", "name each column once")
    return not file.faults


def _regions(file: LabelFile, text: str, line: int) -> list[Region]:
    if not text:
        return []
    try:
        return [
            Region(label=label, x=x, y=y, width=width, height=height) for label, x, y, width, height in json.loads(text)
        ]
    except (ValueError, TypeError, RecursionError):
        remedy = "write a JSON list of [class, left, top, width, height]"
        file.fault(f"line {line}", f"regions: {text[:80]!r} are none", remedy)
        return []
