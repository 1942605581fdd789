"""Which file of an artifact OpenVINO is to read, from the names of its files alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from controlplane.domain.errors import FieldInvalidError, Reason

KNOWN_FORMATS = (
    "OpenVINO IR (.xml with .bin), ONNX (.onnx), PaddlePaddle (.pdmodel with .pdiparams), "
    "TensorFlow (saved_model.pb or a frozen .pb) or TFLite (.tflite)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What to read: `path` is "." where the artifact itself is the SavedModel folder."""

    format: str
    path: str


def find_entry(paths: Iterable[str]) -> Entry:
    """Return the one model among the files, the shallowest where folders nest. Raises FieldInvalidError
    (MODEL_UNREADABLE) when there is none or more than one."""
    files = {PurePosixPath(path) for path in paths}
    found = sorted(_entries(files), key=lambda entry: (_depth(entry), entry.path))
    if not found:
        raise unreadable("no file is a model", remedy=f"publish {KNOWN_FORMATS}")
    rivals = [entry.path for entry in found if _depth(entry) == _depth(found[0])]
    if len(rivals) > 1:
        raise unreadable(
            f"there are {len(rivals)} models: {', '.join(rivals[:5])}", remedy="publish each model as one of its own"
        )
    return found[0]


def unreadable(message: str, *, remedy: str) -> FieldInvalidError:
    return FieldInvalidError(message, field="artifact", remedy=remedy, reason=Reason.MODEL_UNREADABLE)


def _depth(entry: Entry) -> int:
    path = PurePosixPath(entry.path)
    return len(path.parts) if entry.format == "tf_saved_model" else len(path.parts) - 1


def _entries(files: set[PurePosixPath]) -> Iterator[Entry]:
    descriptions = [file for file in files if file.suffix == ".xml"]
    for file in files:
        match file.suffix:
            case ".xml" if file.with_suffix(".bin") in files or len(descriptions) == 1:
                yield Entry(format="ir", path=str(file))
            case ".onnx":
                yield Entry(format="onnx", path=str(file))
            case ".pdmodel":
                yield Entry(format="paddle", path=str(file))
            case ".json" if file.with_suffix(".pdiparams") in files and file.with_suffix(".pdmodel") not in files:
                yield Entry(format="paddle", path=str(file))
            case ".pb" if file.name == "saved_model.pb":
                yield Entry(format="tf_saved_model", path=str(file.parent))
            case ".pb":
                # SavedModel folders carry further .pb files: fingerprint.pb, keras_metadata.pb.
                if not any(beside.name == "saved_model.pb" for beside in files):
                    yield Entry(format="tf_frozen", path=str(file))
            case ".tflite":
                yield Entry(format="tflite", path=str(file))
            case _:
                continue
