"""Inputs of a request, checked against a model's signature before anything touches the device.

OpenVINO casts a float image to a uint8 model without a word, so every datatype, shape and byte count is compared here.
Raw data is row-major and little-endian, as the Open Inference Protocol has it. BF16 travels as its bits in uint16:
numpy has no such type.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from agent import limits
from agent.app.ports import Tensor
from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.errors import RequestError

NUMPY_TYPES: Mapping[str, npt.DTypeLike] = MappingProxyType(
    {
        "BOOL": np.bool_,
        "UINT8": np.uint8,
        "UINT16": np.uint16,
        "UINT32": np.uint32,
        "UINT64": np.uint64,
        "INT8": np.int8,
        "INT16": np.int16,
        "INT32": np.int32,
        "INT64": np.int64,
        "FP16": np.float16,
        "BF16": np.uint16,
        "FP32": np.float32,
        "FP64": np.float64,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputTensor:
    """One input as an application sent it: raw bytes, or an array of the datatype's numpy type."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | Tensor


def check_inputs(signature: ModelSignature, inputs: Sequence[InputTensor]) -> Mapping[str, Tensor]:
    """The inputs as arrays by name, without copying raw data. Raises RequestError (INPUT_INVALID)."""
    specs = {spec.name: spec for spec in signature.inputs}
    arrays: dict[str, Tensor] = {}
    for tensor in inputs:
        spec = specs.get(tensor.name)
        if spec is None:
            raise RequestError(
                f"{tensor.name!r} is no input of this model", field="inputs", remedy=f"send {_names(specs)}"
            )
        if tensor.name in arrays:
            raise RequestError(f"{tensor.name!r} is given twice", field="inputs", remedy="send each input once")
        arrays[tensor.name] = _array(spec, tensor)
    missing = [name for name in specs if name not in arrays]
    if missing:
        raise RequestError(f"{_names(missing)} missing", field="inputs", remedy=f"send {_names(specs)}")
    return arrays


def check_outputs(signature: ModelSignature, requested: Sequence[str]) -> tuple[str, ...]:
    """Names of the outputs to answer with: all of them when none is requested. Raises RequestError."""
    known = [spec.name for spec in signature.outputs]
    for name in requested:
        if name not in known:
            raise RequestError(
                f"{name!r} is no output of this model", field="outputs", remedy=f"ask for {_names(known)}"
            )
    return tuple(dict.fromkeys(requested)) or tuple(known)


def batch_items(signature: ModelSignature, inputs: Mapping[str, Tensor], scores: Tensor | None = None) -> int:
    """Items that a request counts for: the first dimension where all inputs and an output share it, else 1."""
    batches = {spec.shape[:1] for spec in signature.inputs}
    if len(batches) != 1 or not any(spec.shape[:1] in batches for spec in signature.outputs):
        return 1
    sizes = {array.shape[:1] for array in inputs.values()}
    if scores is not None:
        sizes.add(scores.shape[:1])
    size = sizes.pop() if len(sizes) == 1 else ()
    return size[0] if size else 1


def floats(rows: Tensor, datatype: str) -> npt.NDArray[np.floating]:
    """A floating output in at least 32 bits, as it is where it has them; BF16 is read from its bits."""
    if datatype == "BF16":
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype({"FP64": np.float64}.get(datatype, np.float32), copy=False)


def _array(spec: TensorSpec, tensor: InputTensor) -> Tensor:
    where = f"inputs[{spec.name}]"
    if tensor.datatype != spec.datatype:
        raise RequestError(f"got {tensor.datatype}", field=f"{where}.datatype", remedy=f"send {spec.datatype}")
    _check_shape(spec, tensor.shape, where)
    numpy_type = NUMPY_TYPES.get(spec.datatype)
    if numpy_type is None:
        raise RequestError(
            f"{spec.datatype} cannot be served", field=f"{where}.datatype", remedy=f"use one of {_names(NUMPY_TYPES)}"
        )
    if isinstance(tensor.data, np.ndarray):
        return _shaped(tensor.data, np.dtype(numpy_type), tensor.shape, where)
    wanted = math.prod(tensor.shape) * np.dtype(numpy_type).itemsize
    got = len(tensor.data) if isinstance(tensor.data, bytes) else tensor.data.nbytes
    if got != wanted:
        raise RequestError(
            f"{got} bytes",
            field=f"{where}.data",
            remedy=f"send {wanted} bytes for {spec.datatype} {list(tensor.shape)}",
        )
    return np.frombuffer(tensor.data, dtype=numpy_type).reshape(tensor.shape)


def _shaped(data: Tensor, numpy_type: np.dtype[np.generic], shape: tuple[int, ...], where: str) -> Tensor:
    if data.dtype != numpy_type:
        raise RequestError(f"data of {data.dtype}", field=f"{where}.data", remedy=f"send {numpy_type}")
    if data.size != math.prod(shape):
        raise RequestError(
            f"{data.size} values", field=f"{where}.data", remedy=f"send {math.prod(shape)} for {list(shape)}"
        )
    return data.reshape(shape)


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], where: str) -> None:
    fits = len(shape) == len(spec.shape) and all(
        got >= 1 and wanted in {-1, got} for got, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        free = ", -1 being any size from 1" if -1 in spec.shape else ""
        raise RequestError(f"got {list(shape)}", field=f"{where}.shape", remedy=f"send {list(spec.shape)}{free}")
    if shape and spec.shape[0] == -1 and shape[0] > limits.BATCH_ITEMS_MAX:
        raise RequestError(
            f"{shape[0]} items", field=f"{where}.shape", remedy=f"send at most {limits.BATCH_ITEMS_MAX} in one request"
        )


def _names(names: Mapping[str, object] | Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
