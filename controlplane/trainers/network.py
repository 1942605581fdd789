"""The base version as a network with a head: features, one linear layer, and what makes scores of it.

    inputs -> ... -> features [1, F] -> MatMul -> (Add) -> Sigmoid | Softmax | nothing -> output [1, C]

The head is the last MatMul with constant weights, or the one that reads the tensor which the model's own
`model_info/feature_output` names. Its constants are replaced in place, so that everything else of the model (inputs,
outputs, names, labels, preprocessing) stays as it is, byte for byte.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from controlplane.inspection.entry import find_entry
from controlplane.trainers.contract import Item, TrainerError
from controlplane.trainers.inputs import Array, read_input

Floats = npt.NDArray[np.float32]
_FEATURE_OUTPUT = ["model_info", "feature_output"]
_LABELS = ["model_info", "labels"]
_PASSED_OVER = frozenset({"Convert", "Reshape", "Squeeze", "Unsqueeze", "Result"})


class Activation(StrEnum):
    """What makes scores of the head's numbers."""

    SIGMOID = "Sigmoid"
    SOFTMAX = "Softmax"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A model that was read, and where its head is."""

    path: Path
    """Of the file that was read."""
    model: Any
    matmul: Any
    bias: Any | None
    """The Add behind it, where there is one with constants."""
    activation: Activation
    labels: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Numbers that the head gives."""
        return int(self.matmul.get_output_partial_shape(0)[-1].get_length())


def read_network(folder: Path) -> Network:
    """Read the one model below `folder`. Raises TrainerError where it has no such head."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    path = folder / find_entry(files).path
    model = ov.Core().read_model(path)
    if len(model.inputs) != 1:
        raise TrainerError(f"the base version has {len(model.inputs)} inputs; this trainer takes models with one")
    matmul = _find_head(model)
    follower = _only_reader(matmul)
    bias = follower if follower is not None and follower.get_type_name() == "Add" and _is_constant(follower) else None
    return Network(
        path=path,
        model=model,
        matmul=matmul,
        bias=bias,
        activation=_activation(bias if bias is not None else matmul),
        labels=_labels(model),
    )


def feature_model(network: Network) -> Any:
    """The part of the model up to the features; the model itself is left as it is."""
    clone = network.model.clone()
    name = network.matmul.get_friendly_name()
    head = next(node for node in clone.get_ordered_ops() if node.get_friendly_name() == name)
    return ov.Model([ops.result(head.input_value(0))], clone.get_parameters(), "features")


def extract_features(model: Any, items: Sequence[Item], tell: Callable[[int], None]) -> dict[int, Floats]:
    """Return the features of each item by its place, without those whose content the model does not take. In f32, so
    that they do not depend on the precision of the machine that trains."""
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request, port = compiled.create_infer_request(), compiled.inputs[0]
    shape = [-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    dtype = port.get_element_type().to_dtype()
    features: dict[int, Floats] = {}
    for place, item in enumerate(items):
        content = read_input(item.path, shape, dtype)
        if content is not None:
            features[place] = _features(request, content)
        tell(place + 1)
    return features


def replace_head(network: Network, weights: Floats, bias: Floats) -> None:
    """Give the model these weights [F, C] and this bias [C] in place of its own."""
    transposed = network.matmul.get_attributes()["transpose_b"]
    _replace(network.matmul, 1, weights.T.copy() if transposed else weights)
    if network.bias is not None:
        _replace(network.bias, _constant_input(network.bias), bias.reshape(1, -1))
        return
    readers = network.matmul.output(0).get_target_inputs()
    added = ops.add(network.matmul, ops.constant(bias.reshape(1, -1)))
    for reader in readers:
        reader.replace_source_output(added.output(0))


def _features(request: Any, content: Array) -> Floats:
    values: Floats = np.array(next(iter(request.infer([content]).values())), dtype=np.float32).reshape(-1)
    return values


def _find_head(model: Any) -> Any:
    nodes = model.get_ordered_ops()
    candidates = [node for node in nodes if node.get_type_name() == "MatMul" and _source_constant(node, 1) is not None]
    if model.has_rt_info(_FEATURE_OUTPUT):
        wanted = model.get_rt_info(_FEATURE_OUTPUT).astype(str)
        candidates = [node for node in candidates if wanted in _names(node.input_value(0))]
        if not candidates:
            raise TrainerError(
                f"no MatMul with constant weights reads {wanted!r}, which model_info/feature_output names"
            )
    if not candidates:
        raise TrainerError("the base version has no MatMul with constant weights; use another trainer")
    if candidates[-1].get_attributes()["transpose_a"]:
        raise TrainerError("the head of the base version takes its features transposed; use another trainer")
    return candidates[-1]


def _names(output: Any) -> set[str]:
    return {output.get_node().get_friendly_name(), *output.get_names()}


def _only_reader(node: Any) -> Any | None:
    readers = list(node.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 else None


def _activation(node: Any) -> Activation:
    """What stands between the head and the result. Raises TrainerError for anything that we cannot fit to."""
    while (reader := _only_reader(node)) is not None:
        kind = reader.get_type_name()
        if kind in {"Sigmoid", "Softmax", "SoftMax"}:
            return Activation.SIGMOID if kind == "Sigmoid" else Activation.SOFTMAX
        if kind == "Result":
            return Activation.NONE
        if kind not in _PASSED_OVER:
            raise TrainerError(f"behind the last linear layer stands {kind}; this trainer knows Sigmoid and Softmax")
        node = reader
    raise TrainerError("the last linear layer has several readers; this trainer takes models with one head")


def _labels(model: Any) -> tuple[str, ...]:
    if not model.has_rt_info(_LABELS):
        raise TrainerError("the base version names no labels; publish it with model_info/labels")
    return tuple(model.get_rt_info(_LABELS).astype(str).split())


def _is_constant(node: Any) -> bool:
    return any(_source_constant(node, place) is not None for place in range(2))


def _constant_input(node: Any) -> int:
    return next(place for place in range(2) if _source_constant(node, place) is not None)


def _source_constant(node: Any, place: int) -> Any | None:
    """The constant behind an input, also where it is kept at lower precision and converted."""
    source = node.input_value(place).get_node()
    while source.get_type_name() in {"Convert", "Reshape"}:
        source = source.input_value(0).get_node()
    return source if source.get_type_name() == "Constant" else None


def _replace(node: Any, place: int, values: Floats) -> None:
    before = _source_constant(node, place)
    assert before is not None
    constant = ops.constant(values.astype(np.float32))
    constant.set_friendly_name(before.get_friendly_name())
    node.input(place).replace_source_output(constant.output(0))
