"""PyTorch files become OpenVINO IR here, before publishing: agents and controller never need torch.

torch and openvino are not among the client's dependencies; they are asked for by name at the moment of need.
"""

import importlib
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from controlplane.client.errors import InvalidInputError

_FIELD = "path"
_REMEDY_INSTALL = "install torch and openvino beside lineside, or export the model to ONNX and publish that"
_REMEDY_EXPORT = "save it with torch.jit.save or torch.export.save, or export it to ONNX"


@contextmanager
def converted(path: Path) -> Iterator[Path]:
    """Give the path of an IR file, in full precision, that lasts as long as the context. Raises InvalidInputError.

    A .pt2 file is an exported program; .pt and .pth must be TorchScript, since a pickle of weights holds no model and a
    pickle of a module runs whatever it was made to run.
    """
    openvino, torch = _module("openvino", path), _module("torch", path)
    try:
        model = openvino.convert_model(_load(torch, path))
    except ImportError as error:
        # OpenVINO's converter imports packages that it does not declare.
        raise InvalidInputError(
            f"{path.name} cannot be converted: {error}",
            field=_FIELD,
            remedy="install the missing package and try again",
        ) from error
    except (RuntimeError, ValueError, TypeError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__).partition(". ")[0]
        raise InvalidInputError(
            f"{path.name} cannot be converted: {line}", field=_FIELD, remedy=_REMEDY_EXPORT
        ) from error
    _name_by_place(model, path.stem)
    with TemporaryDirectory(prefix="lineside-") as folder:
        target = Path(folder) / f"{path.stem}.xml"
        openvino.save_model(model, target, compress_to_fp16=False)
        yield target


def _module(name: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidInputError(
            f"{path.name} is a PyTorch file and {name} is not installed here", field=_FIELD, remedy=_REMEDY_INSTALL
        ) from error


def _name_by_place(model: Any, name: str) -> None:
    """Replace names that a counter of this process gave, so that the same file gives the same bytes again."""
    model.set_friendly_name(name)
    for place, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _load(torch: Any, path: Path) -> Any:
    if path.suffix == ".pt2":
        return torch.export.load(str(path))
    return torch.jit.load(str(path), map_location="cpu").eval()
