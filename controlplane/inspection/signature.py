"""What a model takes and gives, as OpenVINO reads it. Runs in the child process.

Tensor names: OpenVINO's `get_any_name()` (the least of a tensor's names), and for a tensor without a name the
friendly name of its node: for an output that of the node that computes it, with ":{index}" where that node
has several outputs. A name that is taken already gets "#{position}". Agents address tensors by position
under these names, so they hold whatever OpenVINO calls the tensor elsewhere.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from controlplane import limits
from controlplane.domain.catalog import ModelSignature, TensorSpec
from controlplane.inspection.entry import Entry, unreadable
from controlplane.inspection.refusals import refusal_of, strings_refused

DATATYPES: Mapping[str, str] = MappingProxyType(
    {
        "boolean": "BOOL",
        "u8": "UINT8",
        "u16": "UINT16",
        "u32": "UINT32",
        "u64": "UINT64",
        "i8": "INT8",
        "i16": "INT16",
        "i32": "INT32",
        "i64": "INT64",
        "f16": "FP16",
        "bf16": "BF16",
        "f32": "FP32",
        "f64": "FP64",
    }
)
"""Open Inference Protocol datatype of each element type that it can carry and agents serve."""
_MODEL_INFO = "model_info"
_ONNX_MODEL_INFO = f"framework/{_MODEL_INFO} "
"""Model API writes its keys into an ONNX file's metadata as "model_info labels"; OpenVINO reads them as this."""


def read_signature(folder: Path, entry: Entry) -> ModelSignature:
    """Read, never compile. Raises FieldInvalidError (MODEL_UNREADABLE) when OpenVINO does not read the files or
    the Open Inference Protocol cannot carry the tensors."""
    import openvino

    try:
        model = openvino.Core().read_model(folder / entry.path)
    except Exception as error:  # the frontends raise whatever their parsers raise
        raise refusal_of(error, folder, entry) from error
    if not model.inputs or not model.outputs:
        raise unreadable("the model has no input or no output", remedy="export a model with inputs and outputs")
    if len(model.inputs) + len(model.outputs) > limits.TENSORS_MAX:
        raise unreadable(f"the model has more than {limits.TENSORS_MAX} tensors", remedy="export it with fewer outputs")
    return ModelSignature(
        format=entry.format,
        entry_path=entry.path,
        inputs=_tensors(model.inputs),
        outputs=_tensors(model.outputs),
        precision=_precision(model),
        rt_info=MappingProxyType(dict(_bounded(_in_one_place(_leaves(model.get_rt_info(), ""))))),
    )


def _tensors(ports: Any) -> tuple[TensorSpec, ...]:
    tensors: list[TensorSpec] = []
    for position, port in enumerate(ports):
        name = _name(port)
        if name in {tensor.name for tensor in tensors}:
            name = f"{name}#{position}"
        tensors.append(TensorSpec(name=name, datatype=_datatype(port, name), shape=_shape(port, name)))
    return tuple(tensors)


def _name(port: Any) -> str:
    if port.get_names():
        return str(port.get_any_name())
    node = port.get_node()
    if node.get_type_name() != "Result":
        return str(node.get_friendly_name())
    source = node.input_value(0)
    several = source.get_node().get_output_size() > 1
    return str(source.get_node().get_friendly_name()) + (f":{source.get_index()}" if several else "")


def _datatype(port: Any, name: str) -> str:
    element_type = port.get_element_type().get_type_name()
    if element_type == "string":
        raise strings_refused(name)
    if element_type not in DATATYPES:
        raise unreadable(
            f"tensor {name!r} has the element type {element_type}, which the Open Inference Protocol cannot carry",
            remedy=f"convert it within the model to one of {', '.join(DATATYPES)}",
        )
    return DATATYPES[element_type]


def _shape(port: Any, name: str) -> tuple[int, ...]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise unreadable(
            f"tensor {name!r} has no fixed rank", remedy="export it with a rank; dimensions may be dynamic"
        )
    return tuple(-1 if dimension.is_dynamic else dimension.get_length() for dimension in shape)


def _precision(model: Any) -> str:
    """Element type of most weights; of the first output where there are none."""
    weights: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            size = 1
            for dimension in node.get_output_shape(0):
                size *= dimension
            weights[node.get_element_type().get_type_name()] += size
    if not weights:
        return str(model.outputs[0].get_element_type().get_type_name())
    return max(sorted(weights), key=weights.__getitem__)


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for key in sorted(node.keys()):
        value = getattr(node[key], "value", node[key])
        if hasattr(value, "keys"):
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", str(value)


def _in_one_place(leaves: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Model API's keys under model_info whatever the format; IR's own words come last and win."""
    for key, value in leaves:
        inside = key.startswith(_ONNX_MODEL_INFO)
        yield f"{_MODEL_INFO}/{key.removeprefix(_ONNX_MODEL_INFO)}" if inside else key, value


def _bounded(leaves: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Leave out, never cut: half a list of labels would be a wrong list of labels."""
    room_bytes = limits.INSPECTION_OUTPUT_BYTES_MAX // 4
    for count, (key, value) in enumerate(leaves):
        size_bytes = len(key.encode()) + len(value.encode())
        if count < limits.RT_INFO_LEAVES_MAX and size_bytes <= min(limits.RT_INFO_VALUE_BYTES_MAX, room_bytes):
            room_bytes -= size_bytes
            yield key, value
