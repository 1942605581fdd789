"""What no agent reads becomes OpenVINO IR here, before publishing: PyTorch, JAX, and whatever gets preprocessing.

Agents and controller never need torch or jax. Neither they nor openvino are among the client's dependencies; they are
asked for by name at the moment of need. Other formats without further wishes are published as they are.
"""

import importlib
import importlib.util
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from controlplane.client.embedding import embed
from controlplane.client.errors import InvalidInputError
from controlplane.client.files import READABLE, TORCH, collect
from controlplane.client.preprocessing import Preprocessing

_FIELD = "path"
_REMEDY_TORCH = "install torch and openvino beside lineside, or export the model to ONNX and publish that"
_REMEDY_OPENVINO = "install openvino beside lineside"
_REMEDY_EXPORT = "save it with torch.jit.save or torch.export.save, or export it to ONNX"
_REMEDY_SCRIPT = (
    "let the function return an openvino.Model, or what openvino.convert_model takes: a jax.make_jaxpr(..)(..)"
)
_CANNOT = (RuntimeError, ValueError, TypeError, OSError, pickle.UnpicklingError, zipfile.BadZipFile)


@contextmanager
def prepared(path: Path, preprocessing: Preprocessing | None = None) -> Iterator[Path]:
    """Give the path to publish for `path`, which lasts as long as the context. Raises InvalidInputError.

    A .pt2 file is an exported program; .pt and .pth must be TorchScript, since a pickle of weights holds no model and a
    pickle of a module runs whatever it was made to run. FILE.py:FUNCTION is the publisher's own code, and is run.
    What is written is IR in full precision, the same bytes for the same files and wishes.
    """
    load = _loader(path)
    if load is None and not preprocessing:
        yield path
        return
    openvino = _module("openvino", path, _REMEDY_TORCH if path.suffix in TORCH else _REMEDY_OPENVINO)
    stem = path.name.partition(".py:")[0] if _is_script(path) else path.stem
    model = load(openvino, path) if load else _read(openvino, path)
    if preprocessing:
        model = embed(openvino, model, preprocessing)
    _name_by_place(model, stem)
    with TemporaryDirectory(prefix="lineside-") as folder:
        target = Path(folder) / f"{stem}.xml"
        openvino.save_model(model, target, compress_to_fp16=False)
        yield target


def _loader(path: Path) -> Callable[[ModuleType, Path], Any] | None:
    """How the file becomes a model where OpenVINO does not read it by itself."""
    if _is_script(path):
        return _of_script
    return _of_torch if path.suffix in TORCH and path.is_file() else None


def _is_script(path: Path) -> bool:
    file, mark, _ = path.name.partition(".py:")
    return bool(file and mark)


def _of_torch(openvino: ModuleType, path: Path) -> Any:
    torch: Any = _module("torch", path, _REMEDY_TORCH)
    try:
        if path.suffix == ".pt2":
            loaded = torch.export.load(str(path))
        else:
            loaded = torch.jit.load(str(path), map_location="cpu").eval()
    except _CANNOT as error:
        raise _not_converted(path, error, _REMEDY_EXPORT) from error
    return _converted(openvino, loaded, path, _REMEDY_EXPORT)


def _of_script(openvino: ModuleType, path: Path) -> Any:
    name, _, function = path.name.partition(".py:")
    file = path.with_name(f"{name}.py")
    if not file.is_file():
        raise InvalidInputError(f"{file} is not there", field=_FIELD, remedy="give FILE.py:FUNCTION")
    try:
        made = _function(file, function)()
    except ImportError as error:
        raise InvalidInputError(
            f"{file.name} needs what is not installed here: {error}", field=_FIELD, remedy="install it and try again"
        ) from error
    except InvalidInputError:
        raise
    except Exception as error:  # somebody else's code raises what it likes
        raise _not_converted(path, error, f"run {function}() of {file.name} by itself") from error
    if isinstance(made, openvino.Model):
        return made
    if isinstance(made, tuple) and len(made) == 2:
        return _converted(openvino, made[0], path, _REMEDY_SCRIPT, example_input=made[1])
    return _converted(openvino, made, path, _REMEDY_SCRIPT)


def _function(file: Path, name: str) -> Callable[[], Any]:
    spec = importlib.util.spec_from_file_location(f"lineside_publish_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As if it were run from its own folder, so that it finds its neighbours.
    sys.path.insert(0, str(file.parent.absolute()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidInputError(
            f"{file.name} has no function {name!r}", field=_FIELD, remedy="name a function without parameters"
        )
    return function  # type: ignore[no-any-return]


def _converted(openvino: ModuleType, loaded: Any, path: Path, remedy: str, **further: Any) -> Any:
    try:
        return openvino.convert_model(loaded, **further)
    except ImportError as error:
        # OpenVINO's converter imports packages that it does not declare.
        raise InvalidInputError(
            f"{path.name} cannot be converted: {error}",
            field=_FIELD,
            remedy="install the missing package and try again",
        ) from error
    except Exception as error:  # the frontends raise whatever their parsers raise
        raise _not_converted(path, error, remedy) from error


def _read(openvino: ModuleType, path: Path) -> Any:
    """A model of a format that OpenVINO reads."""
    collect(path)
    try:
        return openvino.Core().read_model(_entry(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InvalidInputError(
            f"OpenVINO does not read {path.name}: {lines[-1] if lines else error!r}"[:500],
            field=_FIELD,
            remedy="export it again, or publish it without preprocessing and model info",
        ) from error


def _entry(path: Path) -> Path:
    if path.is_file() or (path / "saved_model.pb").is_file():
        return path
    found = [file for file in sorted(path.iterdir()) if file.suffix in READABLE]
    if len(found) != 1:
        raise InvalidInputError(
            f"{len(found)} files in {path} may be the model", field=_FIELD, remedy="give the file of the model itself"
        )
    return found[0]


def _not_converted(path: Path, error: Exception, remedy: str) -> InvalidInputError:
    line = next(iter(str(error).splitlines()), "").partition(". ")[0] or type(error).__name__
    return InvalidInputError(f"{path.name} cannot be converted: {line[:500]}", field=_FIELD, remedy=remedy)


def _module(name: str, path: Path, remedy: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        why = "is a PyTorch file" if path.suffix in TORCH else "is to be converted"
        raise InvalidInputError(
            f"{path.name} {why} and {name} is not installed here", field=_FIELD, remedy=remedy
        ) from error


def _name_by_place(model: Any, name: str) -> None:
    """Replace names that a counter of this process gave, so that the same file gives the same bytes again.

    Inputs and outputs keep theirs: what has no tensor name is addressed by it. An output that has the counter's name as
    that of its tensor is called by its place.
    """
    model.set_friendly_name(name)
    for place, result in enumerate(model.get_results()):
        tensor = result.output(0).get_tensor()
        if tensor.get_names() == {result.get_name()}:
            tensor.set_names({f"output_{place}"})
    kept = {node.get_name() for node in _ends(model)}
    for place, node in enumerate(model.get_ordered_ops()):
        if node.get_name() not in kept or node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _ends(model: Any) -> Iterator[Any]:
    """Nodes of inputs, and those that compute outputs."""
    yield from model.get_parameters()
    for result in model.get_results():
        yield result.input_value(0).get_node()
