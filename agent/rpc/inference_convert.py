"""Inference requests and answers between the Open Inference Protocol's gRPC messages and the use case's values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from agent.rpc.inference_parameters import NOTHING_TOLD, Told, check_parameters, part_id_of, told_by, values_of_messages
from agent.rpc.shared_memory import RegionRange, SharedMemory

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
    shared_outputs: Mapping[str, RegionRange] = field(default_factory=lambda: MappingProxyType({}))
    """Where outputs go that are not to be in the answer, by name."""
    told: Told = NOTHING_TOLD


def call_from_message(request: service_pb2.ModelInferRequest, shared: SharedMemory) -> InferCall:
    """Raises RequestError (INPUT_INVALID, REGION_NOT_FOUND, SHARED_MEMORY_OFF)."""
    parameters = values_of_messages(request.parameters)
    check_parameters(parameters)
    ranges = [_range(tensor.name, tensor.parameters) for tensor in request.inputs]
    raw = iter(request.raw_input_contents)
    given = len(request.raw_input_contents)
    wanted = ranges.count(None)
    if given and given != wanted:
        raise RequestError(
            f"{given} entries for {wanted} inputs outside of shared memory",
            field="raw_input_contents",
            remedy="send one entry for each of these inputs, in their order",
        )
    outputs = {output.name: _range(output.name, output.parameters) for output in request.outputs}
    shared_outputs = {name: wanted for name, wanted in outputs.items() if wanted is not None}
    check_shared_outputs(shared_outputs, shared)
    return InferCall(
        slot=request.model_name,
        version=parse_version(request.model_version),
        inputs=tuple(
            _input(tensor, next(raw) if given else None)
            if wanted is None
            else shared_input(tensor.name, tensor.datatype, tuple(tensor.shape), wanted, shared)
            for tensor, wanted in zip(request.inputs, ranges, strict=True)
        ),
        part_id=part_id_of(parameters),
        request_id=request.id,
        requested_outputs=tuple(outputs),
        shared_outputs=shared_outputs,
        told=told_by(parameters),
    )


def shared_input(
    name: str, datatype: str, shape: tuple[int, ...], wanted: RegionRange, shared: SharedMemory
) -> InputTensor:
    """An input from shared memory, copied. Raises RequestError."""
    check_datatype(name, datatype)
    data = shared.read(wanted, field=f"inputs[{name}].parameters[shared_memory_region]")
    return InputTensor(name=name, datatype=datatype, shape=shape, data=data)


def check_shared_outputs(outputs: Mapping[str, RegionRange], shared: SharedMemory) -> None:
    """Raises RequestError where an output has no place to go, before anything is inferred."""
    for name, wanted in outputs.items():
        shared.check(wanted, field=_output_field(name))


def write_shared_output(name: str, array: Tensor, wanted: RegionRange, shared: SharedMemory) -> None:
    """Put an output where the application wants it. Raises RequestError where it does not fit."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    shared.write(wanted, content, field=_output_field(name))


def _output_field(name: str) -> str:
    return f"outputs[{name}].parameters[shared_memory_region]"


def answer_to_message(answer: InferenceAnswer, call: InferCall, shared: SharedMemory) -> service_pb2.ModelInferResponse:
    """Outputs raw, whatever way the inputs came, but for those that go into shared memory."""
    response = service_pb2.ModelInferResponse(
        model_name=answer.model.slot, model_version=str(answer.model.version), id=answer.request_id
    )
    datatypes = output_datatypes(answer)
    for name, array in answer.outputs.items():
        response.outputs.add(name=name, datatype=datatypes[name], shape=array.shape)
        wanted = call.shared_outputs.get(name)
        if wanted is None:
            response.raw_output_contents.append(array.tobytes())
            continue
        write_shared_output(name, array, wanted, shared)
        # Clients count entries, also of outputs that are not in the message.
        response.raw_output_contents.append(b"")
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


def _range(name: str, parameters: Mapping[str, Any]) -> RegionRange | None:
    """The shared memory that a tensor's parameters name, or None. Other parameters do not matter here."""
    if "classification" in parameters:
        raise classification_refused(name)
    if "shared_memory_region" not in parameters:
        return None
    region = parameters["shared_memory_region"]
    if region.WhichOneof("parameter_choice") != "string_param":
        raise _bad_parameter(name, "shared_memory_region", "send it as string_param")
    if "shared_memory_byte_size" not in parameters:
        raise _bad_parameter(name, "shared_memory_byte_size", "send how many bytes of the region the tensor has")
    return RegionRange(
        region=region.string_param,
        offset=_count(name, "shared_memory_offset", parameters) if "shared_memory_offset" in parameters else 0,
        byte_size=_count(name, "shared_memory_byte_size", parameters),
    )


def _count(name: str, parameter: str, parameters: Mapping[str, Any]) -> int:
    value = parameters[parameter]
    kind = value.WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param"}:
        raise _bad_parameter(name, parameter, "send it as int64_param")
    count: int = getattr(value, kind)
    return count


def classification_refused(name: str) -> RequestError:
    """The refusal of Triton's classification extension."""
    return _bad_parameter(name, "classification", "take the scores and sort them")


def _bad_parameter(name: str, parameter: str, remedy: str) -> RequestError:
    return RequestError("not served so", field=f"{name}.parameters[{parameter}]", remedy=remedy)


def _bad_data(name: str, message: str, remedy: str) -> RequestError:
    return RequestError(message, field=f"inputs[{name}].data", remedy=remedy)
