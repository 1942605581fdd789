"""Files of labels as other tools write them, read into entries of an import.

Every format says which sample an entry is of by a sample's id, a part's id or a digest; a picture's file name stands
for its name without folder and suffix, which is the sample's id where `lineside samples export` wrote it. What is
wrong is told whole, each with its place in the file, and then nothing is imported.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lineside.v1 import label_pb2, label_service_pb2

from controlplane.client import limits
from controlplane.client.errors import InvalidInputError

Entry = label_service_pb2.LabelEntry
Region = label_pb2.LabeledRegion


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong at one place of a file."""

    place: str
    """A line, or the path of a value."""
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


class LabelFileError(InvalidInputError):
    """A file of labels that was not imported, with everything that is wrong with it."""

    default_reason = "LABELS_REFUSED"

    def __init__(self, path: str, faults: Sequence[Fault]) -> None:
        shown = [str(fault) for fault in faults[: limits.FAULTS_SHOWN_MAX]]
        left = len(faults) - len(shown)
        lines = [*shown, *([f"and {left} more"] if left > 0 else [])]
        super().__init__("nothing was imported:\n  " + "\n  ".join(lines), field=path)
        self.faults = tuple(faults)


@dataclass(slots=True, kw_only=True)
class LabelFile:
    """A file as it is read: entries and faults, in order."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    places: dict[int, str] = field(default_factory=dict)
    """By an entry's `line`, where that is no line of the file."""

    def fault(self, place: str, message: str, remedy: str = "") -> None:
        self.faults.append(Fault(place=place, message=message, remedy=remedy))

    def place_of(self, line: int) -> str:
        return self.places.get(line, f"line {line}")

    def checked(self) -> "LabelFile":
        """Return it; raise LabelFileError where anything is wrong, or where there is nothing in it."""
        if not self.faults and not self.entries:
            self.fault("the file", "there is no label in it", "give a file with labels, or another --format")
        if self.faults:
            raise LabelFileError(str(self.path), self.faults)
        return self


ReadFile = Callable[[Path], LabelFile]


def read_text(path: Path) -> str:
    """Return the file's text. Raises InvalidInputError for what cannot be read, or is no UTF-8."""
    try:
        if path.stat().st_size > limits.LABEL_FILE_BYTES_MAX:
            raise InvalidInputError(
                f"{path} has more than {limits.LABEL_FILE_BYTES_MAX} bytes", field="file", remedy="split it"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", field="file", remedy="name a file") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise LabelFileError(
            str(path), [Fault(place=f"line {line}", message="it is no UTF-8", remedy="save the file as UTF-8")]
        ) from error


def target_of(file_name: str) -> str:
    """Return what names the sample of a picture's file: its name without folders and suffix."""
    return PurePosixPath(file_name.replace("\\", "/").split("?")[0]).stem


def largest_class(regions: Sequence[Region]) -> str:
    """Return the class of the largest region, which stands for the picture where only regions were drawn."""
    return max(regions, key=lambda region: region.width * region.height).label
