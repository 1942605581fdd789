"""What OpenVINO says when it does not read a model, told as what to do about it."""

import re
from pathlib import Path

from controlplane.domain.errors import FieldInvalidError
from controlplane.inspection.entry import Entry, unreadable
from controlplane.inspection.report import REMEDY

_CHARS_MAX = 500
_OPERATIONS = (
    re.compile(r"No conversion rule found for operations: (?P<names>[^\n]+)"),  # ONNX, TensorFlow, TFLite
    re.compile(r"No creator found for (?P<names>\S+) node"),  # PaddlePaddle
    re.compile(r"Opset \S+ doesn't contain the operation with type: (?P<names>\S+)"),  # IR
    re.compile(r"Cannot create (?P<names>\S+) layer"),  # IR, of an opset that is not known
)
_BESIDE = {"ir": (".bin", "bin file cannot be found"), "paddle": (".pdiparams", "weight file doesn't exist")}
"""Suffix of the weights by format, and what OpenVINO says without them."""
_EXTERNAL = re.compile(r"externally stored data in file \((?P<name>[^,\n]*), offset: (?P<offset>\d+), data_length: ")


def refusal_of(error: Exception, folder: Path, entry: Entry) -> FieldInvalidError:
    """The refusal of a model that `read_model` raised for."""
    # The folder is a passing one of the controller's; the publisher knows paths within the artifact.
    text = str(error).replace(f"{folder}/", "")
    refusal = _program(entry) or _operations(text, entry) or _weights(text, entry, folder) or _external(text, entry)
    if refusal is not None:
        return refusal
    lines = [line.strip() for line in text.splitlines()]
    # OpenVINO puts the places in its own sources first.
    said = next((line for line in reversed(lines) if line and not line.startswith("Exception from")), repr(error))
    return unreadable(f"OpenVINO does not read it: {said[:_CHARS_MAX]}", remedy=REMEDY)


def strings_refused(name: str) -> FieldInvalidError:
    """The refusal of a model that takes or gives text."""
    return unreadable(
        f"tensor {name!r} holds strings (BYTES), which agents do not serve",
        remedy="publish the part between the tokenizer and the text: token ids in, numbers out",
    )


def _program(entry: Entry) -> FieldInvalidError | None:
    if not entry.path.endswith(".json"):
        return None
    return unreadable(
        f"{entry.path} is a program of PaddlePaddle 3, which this OpenVINO does not read",
        remedy="save it as .pdmodel, with FLAGS_enable_pir_api=0, or as ONNX with paddle2onnx",
    )


def _operations(text: str, entry: Entry) -> FieldInvalidError | None:
    found = next((match for pattern in _OPERATIONS if (match := pattern.search(text))), None)
    if found is None:
        return None
    where = "the SavedModel" if entry.format == "tf_saved_model" else entry.path
    return unreadable(
        f"{where} uses operations that OpenVINO does not know: {found['names'].strip()[:_CHARS_MAX]}",
        remedy="export it without them, or with another opset, or cut them off and do them in the application",
    )


def _weights(text: str, entry: Entry, folder: Path) -> FieldInvalidError | None:
    """Weights that lie beside the description, as IR and PaddlePaddle have them."""
    suffix, said = _BESIDE.get(entry.format, ("", ""))
    weights = Path(entry.path).with_suffix(suffix)
    if not said or said not in text or (folder / weights).is_file():
        return None
    return unreadable(
        f"{weights} is missing beside {Path(entry.path).name}", remedy="publish the two files together, in one folder"
    )


def _external(text: str, entry: Entry) -> FieldInvalidError | None:
    found = _EXTERNAL.search(text)
    if found is None:
        return None
    name = found["name"].strip().strip('"')[:_CHARS_MAX]
    return unreadable(
        f"{entry.path} keeps weights in {name!r}, which is not there, too short, or outside of the artifact",
        remedy="publish the files together, or save the model with its weights inside",
    )
