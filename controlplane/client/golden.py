"""Golden files: what a version must answer, so that an agent may see whether a device's arithmetic suffices.

They become `golden/inputs.npz`, `golden/outputs.npz` and `golden/tolerance.toml` of the artifact, under the names of
the model's tensors. Neither numpy nor openvino is among the client's dependencies; they are asked for by name here.
"""

import importlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from controlplane.client import limits
from controlplane.client.errors import InvalidInputError
from controlplane.client.files import READABLE, ModelFile

FOLDER = "golden"
_FIELD = "golden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """An output value may be off by `absolute` + `relative` times the largest golden magnitude of its output."""

    inputs: Path
    """An .npz with an array for each input, by name; k times the rows of a fixed batch are k inferences."""
    outputs: Path | None = None
    """The same for outputs, all or some; computed here in f32 where it is not given."""
    relative: float = 0.01
    absolute: float = 1e-6
    min_top1_agreement: float = 0.0
    """Least share of rows whose largest value is at the same place; 0 asks for none."""

    def __post_init__(self) -> None:
        for name in ("relative", "absolute"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise _refused(f"{getattr(self, name)} is no tolerance", "give a number from 0 up", field="tolerance")
        if not 0 <= self.min_top1_agreement <= 1:
            raise _refused(
                f"{self.min_top1_agreement} is no share", "give a number from 0 to 1", field="min_top1_agreement"
            )


@contextmanager
def golden_files(model: Path, files: Sequence[ModelFile], golden: Golden | None) -> Iterator[tuple[ModelFile, ...]]:
    """Give the files of the artifact with the golden ones among them, sorted by path, as long as the context lasts.
    Raises InvalidInputError naming what does not fit the model at `model`."""
    if golden is None:
        yield tuple(files)
        return
    if any(file.path.startswith(f"{FOLDER}/") for file in files):
        raise _refused(f"{model} has a folder {FOLDER!r} already", "leave out --golden, or take the folder away")
    numpy, openvino = _module("numpy"), _module("openvino")
    compiled = _compiled(openvino, model)
    inputs = _read(numpy, golden.inputs)
    _check(inputs, compiled.inputs, "input", whole=True)
    if golden.outputs is None:
        outputs = _computed(numpy, compiled, inputs)
    else:
        outputs = _read(numpy, golden.outputs)
        _check(outputs, compiled.outputs, "output", whole=False)
        _compare_shapes(outputs, _computed(numpy, compiled, inputs))
    with TemporaryDirectory(prefix="lineside-") as folder:
        numpy.savez(Path(folder) / "inputs.npz", **inputs)
        numpy.savez(Path(folder) / "outputs.npz", **outputs)
        numbers = {name: getattr(golden, name) for name in ("relative", "absolute", "min_top1_agreement")}
        tolerance = "".join(f"{name} = {float(number)!r}\n" for name, number in numbers.items())
        (Path(folder) / "tolerance.toml").write_text(tolerance)
        made = [
            ModelFile(source=path, path=f"{FOLDER}/{path.name}", size_bytes=path.stat().st_size)
            for path in Path(folder).iterdir()
        ]
        yield tuple(sorted((*files, *made), key=lambda file: file.path))


def _computed(numpy: ModuleType, compiled: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    request = compiled.create_infer_request()
    cases = min(_cases(port, inputs[_name(port)]) for port in compiled.inputs)
    parts: dict[str, list[Any]] = {_name(port): [] for port in compiled.outputs}
    for case in range(cases):
        fed = {index: _part(inputs[_name(port)], case, cases) for index, port in enumerate(compiled.inputs)}
        try:
            answers = request.infer(fed)
        except RuntimeError as error:
            raise _refused(
                f"the model does not take these inputs: {_last_line(error)}", "give inputs that it takes"
            ) from error
        for index, port in enumerate(compiled.outputs):
            parts[_name(port)].append(numpy.array(answers[index]))
    return {name: arrays[0] if len(arrays) == 1 else numpy.concatenate(arrays) for name, arrays in parts.items()}


def _check(arrays: Mapping[str, Any], ports: Sequence[Any], kind: str, *, whole: bool) -> None:
    known = {_name(port): port for port in ports}
    strange = sorted(arrays.keys() - known.keys())
    missing = sorted(known.keys() - arrays.keys()) if whole else []
    if strange or missing or not arrays:
        named = ", ".join(f"{name!r}" for name in strange or missing)
        what = f"the model has no {kind} {named}" if strange else f"there is no array for {kind} {named}"
        raise _refused(what, f"name the arrays as the model's {kind}s: {', '.join(known)}", field=f"golden.{kind}s")
    for name, array in arrays.items():
        field = f"golden.{kind}s[{name}]"
        element_type = known[name].get_element_type()
        if element_type.get_type_name() == "bf16":
            raise _refused("bf16 cannot be kept in an .npz", "publish the model with f32 ends", field=field)
        wanted = element_type.to_dtype()
        if array.dtype != wanted:
            raise _refused(f"the array is {array.dtype}, the model's {kind} {wanted}", "convert the array", field=field)
        if kind == "input" and not _fits(known[name].get_partial_shape(), array.shape):
            shape = known[name].get_partial_shape()
            raise _refused(f"shape {list(array.shape)} does not fit {shape}", "give arrays of that shape", field=field)


def _fits(shape: Any, found: tuple[int, ...]) -> bool:
    if shape.rank.is_dynamic:
        return True
    if len(shape) != len(found):
        return False
    rows = [place == 0 and size.is_static and size.get_length() for place, size in enumerate(shape)]
    return all(
        (row and got > 0 and got % row == 0) or size.compatible(type(size)(got))
        for size, got, row in zip(shape, found, rows, strict=True)
    )


def _compare_shapes(outputs: Mapping[str, Any], computed: Mapping[str, Any]) -> None:
    for name, array in outputs.items():
        if array.shape != computed[name].shape:
            raise _refused(
                f"shape {list(array.shape)} is not the model's for these inputs, {list(computed[name].shape)}",
                "give the outputs of exactly these inputs",
                field=f"golden.outputs[{name}]",
            )


def _cases(port: Any, array: Any) -> int:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic or not len(shape) or not shape[0].is_static:
        return 1
    rows = int(shape[0].get_length())
    cases: int = array.shape[0] // max(1, rows)
    return max(1, cases)


def _part(array: Any, case: int, cases: int) -> Any:
    rows = array.shape[0] // cases if cases > 1 else 0
    return array[case * rows : (case + 1) * rows] if cases > 1 else array


def _name(port: Any) -> str:
    """As the controller names it."""
    if port.get_names():
        return str(port.get_any_name())
    node = port.get_node()
    if node.get_type_name() != "Result":
        return str(node.get_friendly_name())
    source = node.input_value(0)
    several = source.get_node().get_output_size() > 1
    return str(source.get_node().get_friendly_name()) + (f":{source.get_index()}" if several else "")


def _read(numpy: ModuleType, path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            size_bytes = sum(member.file_size for member in archive.infolist())
        if size_bytes > limits.GOLDEN_BYTES_MAX:
            raise _refused(
                f"{path} holds {size_bytes} bytes", f"give fewer inputs: at most {limits.GOLDEN_BYTES_MAX} bytes"
            )
        with numpy.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise _refused(f"cannot read {path}: {error}", "give an .npz file as numpy.savez writes it") from error


def _compiled(openvino: ModuleType, path: Path) -> Any:
    """The model in full precision on this machine's processor."""
    try:
        model = openvino.Core().read_model(_entry(path))
        return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        raise _refused(
            f"OpenVINO does not run {path.name}: {_last_line(error)}", "publish it without --golden", field="path"
        ) from error


def _entry(path: Path) -> Path:
    if path.is_file() or (path / "saved_model.pb").is_file():
        return path
    found = [file for file in sorted(path.iterdir()) if file.suffix in READABLE]
    if len(found) != 1:
        raise _refused(
            f"{len(found)} files in {path} may be the model", "give the file of the model itself", field="path"
        )
    return found[0]


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:500] if lines else repr(error)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _refused(f"golden files need {name}, which is not installed here", f"install {name}") from error


def _refused(message: str, remedy: str, *, field: str = _FIELD) -> InvalidInputError:
    return InvalidInputError(message, field=field, remedy=remedy)
