"""`python -m controlplane.inspection.evaluation_child FOLDER MEMORY_BYTES CPU_SECONDS`: ask the model in FOLDER about
inputs.

Reads inputs from standard input, each as a head (kind and length, `HEAD`) and its bytes. Prints a line of JSON for the
model, `{"labels": [...]}` or a refusal, and one for each input: its scores in the order of the labels, or null where
it cannot be put to the model or there are none. Ends with its input.
"""

import io
import json
import os
import struct
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np

from controlplane import limits
from controlplane.domain.class_scores import ClassOutput, class_scores, find_classes
from controlplane.domain.errors import FieldInvalidError
from controlplane.inspection.child import confine
from controlplane.inspection.entry import find_entry, unreadable
from controlplane.inspection.report import refusal_json
from controlplane.inspection.signature import read_signature

HEAD = struct.Struct(">BI")
PNG, NPY = 0, 1
REMEDY = "run it with OpenVINO on your side"
_PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False, "INFERENCE_NUM_THREADS": 1}
"""One thread and full precision: the same numbers wherever and however often it is asked."""
_NICENESS = 10
"""Judging waits for whatever the controller has to do."""


class Model:
    """A compiled model that says something of classes."""

    def __init__(self, folder: Path) -> None:
        """Raises FieldInvalidError (MODEL_UNREADABLE) where it cannot be asked about kept inputs."""
        import openvino

        paths = [str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if path.is_file()]
        entry = find_entry(paths)
        signature = read_signature(folder, entry)
        if len(signature.inputs) != 1:
            raise unreadable(
                f"the model has {len(signature.inputs)} inputs, and of a sample one is kept",
                remedy="train a model with one input",
            )
        classes = find_classes(signature)
        if classes is None:
            raise unreadable(
                "no output of the model holds classes", remedy="train a classifier, [N, classes] or [N, 1]"
            )
        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(folder / entry.path), "CPU", _PROPERTIES)
        except RuntimeError as error:
            raise unreadable(f"OpenVINO does not compile it: {str(error)[-300:].strip()}", remedy=REMEDY) from error
        self._classes: ClassOutput = classes
        self._request = compiled.create_infer_request()
        self._input = compiled.inputs[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its classes as far as it has names."""
        return self._classes.labels

    def scores(self, kind: int, content: bytes) -> list[float] | None:
        """Scores of all classes; None where the input cannot be put to the model, or it says nothing."""
        tensor = self._fitted(_decoded(kind, content))
        if tensor is None:
            return None
        try:
            self._request.infer([tensor], share_inputs=True)
        except RuntimeError:  # a size that its shape allows and its operations do not
            return None
        row = self._request.get_output_tensor(self._classes.index).data.astype(np.float64).reshape(-1)
        found = class_scores(self._classes, row.tolist())
        return None if found is None else list(found)

    def _fitted(self, tensor: Any) -> Any | None:
        """The input as an agent would have been sent it: the tensor itself, with the leading 1 of a batch of one."""
        if tensor is None or self._input.get_element_type().to_dtype() != tensor.dtype:
            return None
        wanted = self._input.get_partial_shape()
        without_batch = tensor[0] if tensor.ndim and tensor.shape[0] == 1 else None
        for shaped in (tensor, tensor[np.newaxis], without_batch):
            if shaped is not None and shaped.ndim == wanted.rank.get_length():
                coloured = _channels(shaped, wanted)
                if wanted.compatible(type(wanted)(list(coloured.shape))):
                    return np.ascontiguousarray(coloured)
        return None


def _channels(tensor: Any, wanted: Any) -> Any:
    """Grey as three equal channels, where the model takes colours: imported pictures need not have what a line's
    camera sends."""
    last = wanted[len(wanted) - 1]
    grey = tensor.dtype == np.uint8 and tensor.ndim >= 3 and tensor.shape[-1] == 1
    return np.repeat(tensor, 3, axis=-1) if grey and last.is_static and last.get_length() == 3 else tensor


def _decoded(kind: int, content: bytes) -> Any | None:
    """The tensor that was kept; None where the bytes are none."""
    try:
        if kind == NPY:
            return np.load(io.BytesIO(content), allow_pickle=False)
        return _pixels(content)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Warning):
        # What numpy and Pillow raise on bytes that are no array and no picture, or too large a one.
        return None


def _pixels(content: bytes) -> Any:
    """Height x width x channels, 8 bits."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        as_kept = image.mode in {"L", "RGB", "RGBA"}
        pixels = np.asarray(image if as_kept else image.convert("L" if image.mode == "1" else "RGB"))
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


def answer(folder: Path, inputs: BinaryIO, answers: TextIO) -> None:
    """Answer until the input ends."""
    try:
        model = Model(folder)
    except FieldInvalidError as refusal:
        print(refusal_json(refusal), file=answers, flush=True)
        return
    except MemoryError:
        print(refusal_json(unreadable("compiling it takes too much memory", remedy=REMEDY)), file=answers, flush=True)
        return
    print(json.dumps({"labels": model.labels}), file=answers, flush=True)
    while head := inputs.read(HEAD.size):
        kind, length = HEAD.unpack(head)
        print(json.dumps(model.scores(kind, inputs.read(length))), file=answers, flush=True)


def main() -> None:
    folder, memory_bytes, cpu_seconds = sys.argv[1:]
    # What the libraries print to standard output goes to standard error, so that the answers are alone.
    out = os.dup(1)
    os.dup2(2, 1)
    confine(memory_bytes=int(memory_bytes), cpu_seconds=int(cpu_seconds))
    os.nice(_NICENESS)
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = limits.EVALUATION_PIXELS_MAX
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    with os.fdopen(out, "w") as pipe:
        answer(Path(folder), sys.stdin.buffer, pipe)
    # Without the destructors of libraries that a hostile file may have upset.
    os._exit(0)


if __name__ == "__main__":
    main()
