"""In the child: whether a compiled model agrees with the version's golden files.

`golden/inputs.npz` and `golden/outputs.npz` hold arrays by tensor name; `golden/tolerance.toml` says how far an output
may be off. An element passes when it differs by at most `absolute` + `relative` times the largest golden magnitude of
its output, so that what is next to nothing need not agree to the last digit. Arrays with k times the rows of a fixed
batch are k inferences in a row.
"""

import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent import limits

FOLDER = "golden"
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    relative: float
    absolute: float
    min_top1_agreement: float
    """Least share of rows whose largest value is at the same place; 0 asks for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    difference: float
    """The largest, as a share of the largest golden magnitude of its output."""
    failure: str = ""
    """What differs too much and where; empty where all is within tolerance."""


def read_golden(folder: Path) -> Golden:
    """Raises ValueError where the files are not what publishing writes."""
    try:
        tolerance = tomllib.loads((folder / "tolerance.toml").read_text())
        return Golden(
            inputs=_arrays(folder / "inputs.npz"),
            outputs=_arrays(folder / "outputs.npz"),
            relative=float(tolerance["relative"]),
            absolute=float(tolerance["absolute"]),
            min_top1_agreement=float(tolerance["min_top1_agreement"]),
        )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"the golden files cannot be read: {type(error).__name__}: {error}") from error


def check(compiled: Any, golden: Golden, *, inputs: Sequence[str], outputs: Sequence[str]) -> Agreement:
    """Infer the golden inputs and compare; `inputs` and `outputs` name the model's tensors in its order."""
    got = _infer(compiled, golden, inputs, outputs)
    worst = Agreement(difference=0.0)
    for name, wanted in golden.outputs.items():
        if name not in got:
            return Agreement(difference=0.0, failure=f"the model has no output {name!r} as the golden files have")
        found = compare(name, got[name], wanted, golden)
        if found.failure:
            return found
        worst = max(worst, found, key=lambda each: each.difference)
    return worst


def compare(name: str, got: Array, wanted: Array, golden: Golden) -> Agreement:
    """One output against its golden values."""
    if got.shape != wanted.shape:
        return Agreement(difference=0.0, failure=f"{name} has shape {list(got.shape)}, golden is {list(wanted.shape)}")
    if not wanted.size:
        return Agreement(difference=0.0)
    one, other = got.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    strange = np.where(finite, ~np.isfinite(one), ~((one == other) | (np.isnan(one) & np.isnan(other))))
    if strange.any():
        return Agreement(difference=0.0, failure=_at(name, strange.astype(np.float64), one, other))
    off = np.where(finite, np.abs(np.where(finite, one, 0) - np.where(finite, other, 0)), 0.0)
    scale = float(np.abs(other[finite]).max()) if finite.any() else 0.0
    largest = float(off.max())
    difference = largest / scale if scale else largest
    if largest > golden.absolute + golden.relative * scale:
        return Agreement(difference=difference, failure=_at(name, off, one, other))
    if golden.min_top1_agreement and wanted.ndim > 1 and wanted.shape[-1] > 1:
        agreed = float((one.argmax(axis=-1) == other.argmax(axis=-1)).mean())
        if agreed < golden.min_top1_agreement:
            asked = golden.min_top1_agreement
            return Agreement(
                difference=difference, failure=f"{name} agrees in {agreed:.1%} of its rows, not {asked:.1%}"
            )
    return Agreement(difference=difference)


def _at(name: str, off: Array, one: Array, other: Array) -> str:
    place = np.unravel_index(int(off.argmax()), off.shape)
    where = ", ".join(str(int(index)) for index in place)
    return f"{name}[{where}] is {one[place]:.6g}, golden is {other[place]:.6g}"


def _infer(compiled: Any, golden: Golden, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Array]:
    request = compiled.create_infer_request()
    unknown = golden.inputs.keys() ^ set(inputs)
    if unknown:
        raise ValueError(f"the golden files and the model do not have the same inputs: {', '.join(sorted(unknown))}")
    places = {name: _index(compiled.inputs, name, place) for place, name in enumerate(inputs)}
    cases = min(
        (_cases(compiled.inputs[index].partial_shape, golden.inputs[name]) for name, index in places.items()), default=1
    )
    collected: dict[str, list[Array]] = {name: [] for name in outputs}
    for case in range(cases):
        fed = {index: _part(golden.inputs[name], case, cases) for name, index in places.items()}
        answers = request.infer(fed)
        for place, name in enumerate(outputs):
            collected[name].append(np.array(answers[_index(compiled.outputs, name, place)]))
    return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in collected.items()}


def _index(ports: Sequence[Any], name: str, place: int) -> int:
    return next((index for index, port in enumerate(ports) if name in port.names), place)


def _cases(shape: Any, array: Array) -> int:
    if not array.ndim or not len(shape) or not shape[0].is_static:
        return 1
    rows = int(shape[0].get_length())
    cases: int = array.shape[0] // max(1, rows)
    return max(1, cases)


def _part(array: Array, case: int, cases: int) -> Array:
    if cases == 1:
        return np.ascontiguousarray(array)
    rows = array.shape[0] // cases
    return np.ascontiguousarray(array[case * rows : (case + 1) * rows])


def _arrays(path: Path) -> dict[str, Array]:
    with zipfile.ZipFile(path) as archive:
        size_bytes = sum(member.file_size for member in archive.infolist())
    if size_bytes > limits.GOLDEN_BYTES_MAX:
        raise ValueError(f"{path.name} holds {size_bytes} bytes, more than {limits.GOLDEN_BYTES_MAX}")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
