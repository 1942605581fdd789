"""Inference requests and answers between the Open Inference Protocol's gRPC messages and the use case's values."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from agent import limits
from agent.app.ports import Tensor
from agent.app.serving import InferenceAnswer
from agent.app.tensors import NUMPY_TYPES, InputTensor
from agent.domain.errors import RequestError

PART_ID = "part_id"
"""Request parameter whose string goes into the result."""

_CONTENTS: Mapping[str, tuple[str, npt.DTypeLike]] = MappingProxyType(
    {
        "BOOL": ("bool_contents", np.bool_),
        "INT8": ("int_contents", np.int32),
        "INT16": ("int_contents", np.int32),
        "INT32": ("int_contents", np.int32),
        "INT64": ("int64_contents", np.int64),
        "UINT8": ("uint_contents", np.uint32),
        "UINT16": ("uint_contents", np.uint32),
        "UINT32": ("uint_contents", np.uint32),
        "UINT64": ("uint64_contents", np.uint64),
        "FP32": ("fp32_contents", np.float32),
        "FP64": ("fp64_contents", np.float64),
    }
)
"""Field of InferTensorContents by datatype, and what it holds; FP16 and BF16 have none and travel raw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferCall:
    """A request, parsed; whether it fits the model is the use case's to say."""

    slot: str
    version: int | None
    inputs: tuple[InputTensor, ...]
    part_id: str
    request_id: str
    requested_outputs: tuple[str, ...]


def call_from_message(request: service_pb2.ModelInferRequest) -> InferCall:
    """Raises RequestError (INPUT_INVALID)."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"{len(raw)} entries for {len(request.inputs)} inputs",
            field="raw_input_contents",
            remedy="send one entry for each input, in their order",
        )
    for tensor in (*request.inputs, *request.outputs):
        _check_parameters(tensor.name, tensor.parameters)
    return InferCall(
        slot=request.model_name,
        version=parse_version(request.model_version),
        inputs=tuple(_input(tensor, raw[place] if raw else None) for place, tensor in enumerate(request.inputs)),
        part_id=_part_id(request.parameters),
        request_id=request.id,
        requested_outputs=tuple(output.name for output in request.outputs),
    )


def answer_to_message(answer: InferenceAnswer) -> service_pb2.ModelInferResponse:
    """Outputs raw, whatever way the inputs came."""
    response = service_pb2.ModelInferResponse(
        model_name=answer.model.slot, model_version=str(answer.model.version), id=answer.request_id
    )
    datatypes = output_datatypes(answer)
    for name, array in answer.outputs.items():
        response.outputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return response


def output_datatypes(answer: InferenceAnswer) -> Mapping[str, str]:
    """Datatype by output name."""
    return {spec.name: spec.datatype for spec in answer.model.signature.outputs}


def parse_version(text: str) -> int | None:
    """None for an empty version, which asks for the one that serves. Raises RequestError."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise RequestError(
            f"{text[: limits.IDENTIFIER_CHARS_MAX]!r} is no version",
            field="model_version",
            remedy="leave it empty, or send the version's number",
        )
    return int(text)


def check_datatype(name: str, datatype: str) -> None:
    """Raises RequestError where arrays of the datatype cannot be served, BYTES among them."""
    if datatype not in NUMPY_TYPES:
        raise RequestError(
            f"{datatype[:32]!r} is not served",
            field=f"inputs[{name}].datatype",
            remedy=f"send one of {', '.join(NUMPY_TYPES)}",
        )


def numbers(name: str, datatype: str, values: Tensor) -> Tensor:
    """Numbers of any kind as the datatype's array, none rounded or cut. Raises RequestError."""
    wanted = np.dtype(NUMPY_TYPES[datatype])
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[wanted.kind]
    if values.size and values.dtype.kind not in kinds:
        raise _bad_data(name, f"values of {values.dtype}", f"send values that {datatype} holds")
    if values.size and wanted.kind in "iu":
        bounds = np.iinfo(wanted)
        if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
            raise _bad_data(name, f"a value is out of {datatype}'s range", f"send {bounds.min} to {bounds.max}")
    return values.astype(wanted, copy=False)


def _input(tensor: Any, raw: bytes | None) -> InputTensor:
    check_datatype(tensor.name, tensor.datatype)
    shape = tuple(tensor.shape)
    if raw is not None:
        if tensor.HasField("contents"):
            raise _bad_data(tensor.name, "given twice", "send raw_input_contents or contents, not both")
        return InputTensor(name=tensor.name, datatype=tensor.datatype, shape=shape, data=raw)
    if tensor.datatype not in _CONTENTS:
        raise _bad_data(tensor.name, f"{tensor.datatype} has no typed contents", "send it in raw_input_contents")
    field, held = _CONTENTS[tensor.datatype]
    values: Tensor = np.array(getattr(tensor.contents, field), dtype=held)
    data = numbers(tensor.name, tensor.datatype, values)
    return InputTensor(name=tensor.name, datatype=tensor.datatype, shape=shape, data=data)


def _part_id(parameters: Mapping[str, Any]) -> str:
    if PART_ID not in parameters:
        return ""
    if parameters[PART_ID].WhichOneof("parameter_choice") != "string_param":
        raise RequestError("not a string", field=f"parameters[{PART_ID}]", remedy="send it as string_param")
    part_id: str = parameters[PART_ID].string_param
    return part_id


def _check_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what would change the meaning of a tensor and is not served; other parameters do not matter here."""
    for parameter in ("shared_memory_region", "classification"):
        if parameter in parameters:
            raise RequestError(
                "not served here",
                field=f"{name}.parameters[{parameter}]",
                remedy="send and take tensors in the message",
            )


def _bad_data(name: str, message: str, remedy: str) -> RequestError:
    return RequestError(message, field=f"inputs[{name}].data", remedy=remedy)
