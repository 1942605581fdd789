"""Inference requests and answers between REST bodies and the use case's values.

A body is JSON, or, in the binary tensor extension, JSON of Inference-Header-Content-Length bytes followed by the raw
tensors in the order in which the JSON names their sizes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from agent.app.ports import Tensor
from agent.app.serving import InferenceAnswer
from agent.app.tensors import InputTensor
from agent.domain.errors import RequestError
from agent.rpc.inference_convert import (
    InferCall,
    check_datatype,
    check_shared_outputs,
    classification_refused,
    numbers,
    output_datatypes,
    parse_version,
    shared_input,
    write_shared_output,
)
from agent.rpc.inference_parameters import check_parameters, part_id_of, told_by
from agent.rpc.shared_memory import Region, RegionRange, SharedMemory

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestCall:
    """A parsed call, and which outputs are to be raw: the named ones, or by default."""

    call: InferCall
    binary: Mapping[str, bool]
    binary_default: bool


def call_from_body(
    body: bytes, header_length: str | None, *, slot: str, version: str, shared: SharedMemory
) -> RestCall:
    """Raises RequestError (INPUT_INVALID, REGION_NOT_FOUND, SHARED_MEMORY_OFF)."""
    header, raw = _split(body, header_length)
    document = parse_object(header)
    parameters = _mapping(document.get("parameters", {}), "parameters")
    check_parameters(parameters)
    outputs = [_mapping(output, "outputs") for output in _list(document.get("outputs", []), "outputs")]
    named = {_name(output, "outputs"): _tensor_parameters(output) for output in outputs}
    ranges = {name: _range(name, each) for name, each in named.items()}
    shared_outputs = {name: wanted for name, wanted in ranges.items() if wanted is not None}
    check_shared_outputs(shared_outputs, shared)
    inputs, left = _inputs(document, raw, shared)
    if left:
        raise RequestError(
            f"{len(left)} bytes belong to no input", field="body", remedy="give each raw input its binary_data_size"
        )
    call = InferCall(
        slot=slot,
        version=parse_version(version),
        inputs=inputs,
        part_id=part_id_of(parameters),
        told=told_by(parameters),
        request_id=_string(document.get("id", ""), "id"),
        requested_outputs=tuple(named),
        shared_outputs=shared_outputs,
    )
    return RestCall(
        call=call,
        binary={name: bool(each["binary_data"]) for name, each in named.items() if "binary_data" in each},
        binary_default=bool(parameters.get("binary_data_output", False)),
    )


def answer_to_body(answer: InferenceAnswer, rest: RestCall, shared: SharedMemory) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where raw tensors follow. Raises RequestError where an output is not finite
    and JSON was asked for."""
    datatypes = output_datatypes(answer)
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, array in answer.outputs.items():
        output: dict[str, Any] = {"name": name, "datatype": datatypes[name], "shape": list(array.shape)}
        wanted = rest.call.shared_outputs.get(name)
        if wanted is not None:
            write_shared_output(name, array, wanted, shared)
        elif rest.binary.get(name, rest.binary_default) or datatypes[name] == "BF16":
            raw.append(array.tobytes())
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = array.reshape(-1).tolist()
        outputs.append(output)
    document: dict[str, Any] = {"model_name": answer.model.slot, "model_version": str(answer.model.version)}
    if answer.request_id:
        document["id"] = answer.request_id
    try:
        header = json.dumps({**document, "outputs": outputs}, allow_nan=False).encode()
    except ValueError as error:
        raise RequestError(
            "the answer has values that JSON cannot hold", field="outputs", remedy="ask for binary_data"
        ) from error
    return b"".join([header, *raw]), len(header) if raw else None


def region_from_body(body: bytes, *, name: str) -> Region:
    """What an application wants to register. Raises RequestError."""
    document = parse_object(body)
    offset, byte_size = document.get("offset", 0), document.get("byte_size")
    if not _is_count(offset) or not _is_count(byte_size):
        raise RequestError("no whole numbers from 0 on", field="byte_size", remedy="send offset and byte_size in bytes")
    return Region(name=name, key=_string(document.get("key"), "key"), offset=offset, byte_size=byte_size)


def index_of_ready(body: bytes) -> bool:
    """Whether an index of models is to have the ready ones alone. Raises RequestError."""
    ready = parse_object(body).get("ready", False) if body else False
    if not isinstance(ready, bool):
        raise RequestError("neither true nor false", field="ready", remedy="send true or false")
    return ready


def parse_object(text: bytes) -> dict[str, Any]:
    """Raises RequestError where it is no JSON object."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"not JSON: {error}", field="body", remedy="send a JSON object") from error
    return _mapping(document, "body")


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    if not (header_length.isascii() and header_length.isdigit()) or int(header_length[:12]) > len(body):
        raise RequestError(
            f"{header_length[:32]!r} with a body of {len(body)} bytes",
            field=HEADER_LENGTH,
            remedy="send the length in bytes of the JSON that the body begins with",
        )
    length = int(header_length[:12])
    return body[:length], memoryview(body)[length:]


def _inputs(
    document: dict[str, Any], raw: memoryview, shared: SharedMemory
) -> tuple[tuple[InputTensor, ...], memoryview]:
    """The inputs in order, and the raw bytes that none of them took."""
    inputs: list[InputTensor] = []
    for entry in _list(document.get("inputs", []), "inputs"):
        tensor = _mapping(entry, "inputs")
        name = _name(tensor, "inputs")
        datatype = _string(tensor.get("datatype", ""), f"inputs[{name}].datatype")
        check_datatype(name, datatype)
        parameters = _tensor_parameters(tensor)
        shape, size = _shape(name, tensor.get("shape")), parameters.get("binary_data_size")
        wanted = _range(name, parameters)
        if wanted is not None:
            inputs.append(shared_input(name, datatype, shape, wanted, shared))
            continue
        if size is None:
            data: memoryview | Tensor = _json_data(name, datatype, tensor.get("data"))
        elif not _is_count(size) or size > len(raw):
            raise RequestError(
                f"{size!r} with {len(raw)} bytes left",
                field=f"inputs[{name}].parameters[binary_data_size]",
                remedy="send as many bytes after the JSON as its inputs name",
            )
        else:
            data, raw = raw[:size], raw[size:]
        inputs.append(InputTensor(name=name, datatype=datatype, shape=shape, data=data))
    return tuple(inputs), raw


def _json_data(name: str, datatype: str, data: object) -> Tensor:
    where = f"inputs[{name}].data"
    if not isinstance(data, list):
        raise RequestError("not a list", field=where, remedy="send the values in a list, or raw after the JSON")
    if datatype == "BF16":
        raise RequestError("BF16 has no values in JSON", field=where, remedy="send it raw after the JSON")
    try:
        values = _regular(datatype, data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise RequestError(
            f"no regular list of {datatype}", field=where, remedy="send a flat list, or rows of one length"
        ) from error
    return numbers(name, datatype, values)


def _regular(datatype: str, data: list[Any]) -> Tensor:
    """Raises ValueError or OverflowError. Numpy takes whole numbers beyond int64 for floats, and would round them."""
    if datatype != "UINT64":
        return np.array(data)
    values: npt.NDArray[np.object_] = np.array(data, dtype=object).reshape(-1)
    if not all(_is_count(value) for value in values):
        raise ValueError(datatype)
    return values.astype(np.uint64)


def _tensor_parameters(tensor: dict[str, Any]) -> dict[str, Any]:
    parameters = _mapping(tensor.get("parameters", {}), "parameters")
    if parameters.get("classification"):
        raise classification_refused(_name(tensor, "outputs"))
    return parameters


def _range(name: str, parameters: dict[str, Any]) -> RegionRange | None:
    """The shared memory that a tensor's parameters name, or None."""
    if "shared_memory_region" not in parameters:
        return None
    where = f"{name}.parameters"
    size, offset = parameters.get("shared_memory_byte_size"), parameters.get("shared_memory_offset", 0)
    if not _is_count(size) or not _is_count(offset):
        raise RequestError(
            "no whole numbers from 0 on",
            field=f"{where}[shared_memory_byte_size]",
            remedy="send how many bytes of the region the tensor has, and from where",
        )
    region = _string(parameters["shared_memory_region"], f"{where}[shared_memory_region]")
    return RegionRange(region=region, offset=offset, byte_size=size)


def _shape(name: str, shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(_is_count(size) for size in shape):
        raise RequestError(
            f"{str(shape)[:64]} is no shape", field=f"inputs[{name}].shape", remedy="send a list of whole numbers"
        )
    return tuple(shape)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _name(tensor: dict[str, Any], where: str) -> str:
    return _string(tensor.get("name"), f"{where}.name")


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RequestError("not a string", field=where, remedy="send a string")
    return value


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError("not an object", field=where, remedy="send a JSON object")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError("not a list", field=where, remedy="send a list of objects")
    return value
