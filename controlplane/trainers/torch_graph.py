"""A model of OpenVINO operations as a function of torch: its constants become weights that can be trained, and go back
into the same model. So nothing is exported: inputs, outputs and names of the candidate are the base version's.

Batch normalisation keeps its mean and variance; constants before the first layer (preprocessing) stay as they are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from openvino import opset13 as ops

from controlplane.trainers.contract import TrainerError
from controlplane.trainers.network import Network

_LAYERS = frozenset({"Convolution", "GroupConvolution", "MatMul"})
_FIXED_INPUTS = {"BatchNormInference": frozenset({3, 4})}
"""Mean and variance."""
_INTEGERS = frozenset({"i32", "i64", "u8", "u64"})


class TorchGraph:
    """The part of a network up to the numbers of its head. `weights` are its trainable tensors by constant."""

    def __init__(self, network: Network, torch: Any) -> None:
        self._torch = torch
        self._last = network.bias if network.bias is not None else network.matmul
        needed = _ancestors(self._last)
        self._nodes = [node for node in network.model.get_ordered_ops() if node.get_friendly_name() in needed]
        self._operations = _operations(torch)
        unknown = {node.get_type_name() for node in self._nodes} - set(self._operations) - {"Constant", "Parameter"}
        if unknown:
            raise TrainerError(f"the base version uses {', '.join(sorted(unknown))}, which this trainer cannot train")
        self._constants: dict[str, Any] = {}
        self.weights: dict[str, Any] = {}
        trained = _trained(self._nodes)
        for node in self._nodes:
            if node.get_type_name() == "Constant":
                name, value = node.get_friendly_name(), torch.from_numpy(np.array(node.get_data()))
                if value.is_floating_point():
                    value = value.float()
                self._constants[name] = value
                if name in trained and value.is_floating_point() and value.dim() > 0:
                    self.weights[name] = value.requires_grad_()

    def __call__(self, inputs: Any) -> Any:
        """Numbers of the head, [items, outputs], for a batch of inputs as the model takes them."""
        values: dict[str, Any] = dict(self._constants)
        for node in self._nodes:
            name, kind = node.get_friendly_name(), node.get_type_name()
            if kind == "Parameter":
                values[name] = inputs
            elif kind != "Constant":
                read = [values[source.get_node().get_friendly_name()] for source in node.input_values()]
                values[name] = self._operations[kind](node, *read)
        return values[self._last.get_friendly_name()]

    def write_back(self) -> None:
        """Give the model the weights as they are now."""
        for node in self._nodes:
            weight = self.weights.get(node.get_friendly_name())
            if weight is None:
                continue
            constant = ops.constant(weight.detach().numpy().astype(np.float32))
            readers = node.output(0).get_target_inputs()
            for reader in readers:
                reader.replace_source_output(constant.output(0))
            constant.set_friendly_name(node.get_friendly_name())


def _ancestors(last: Any) -> set[str]:
    found, left = set(), [last]
    while left:
        node = left.pop()
        if node.get_friendly_name() not in found:
            found.add(node.get_friendly_name())
            left += [source.get_node() for source in node.input_values()]
    return found


def _trained(nodes: list[Any]) -> set[str]:
    """Constants that a layer reads, or what comes after the first one."""
    begun, names = False, set()
    for node in nodes:
        kind = node.get_type_name()
        begun = begun or kind in _LAYERS
        if not begun or kind == "Constant":
            continue
        for place, source in enumerate(node.input_values()):
            origin = source.get_node()
            while origin.get_type_name() == "Convert":
                origin = origin.input_value(0).get_node()
            if origin.get_type_name() == "Constant" and place not in _FIXED_INPUTS.get(kind, frozenset()):
                names.add(origin.get_friendly_name())
    return names


def _operations(torch: Any) -> Mapping[str, Callable[..., Any]]:
    functional = torch.nn.functional
    return {
        **_layers(torch),
        **_shapes(torch),
        "Add": lambda _, first, second: first + second,
        "Subtract": lambda _, first, second: first - second,
        "Multiply": lambda _, first, second: first * second,
        "Divide": lambda _, first, second: first / second,
        "Relu": lambda _, inputs: functional.relu(inputs),
        "Sigmoid": lambda _, inputs: torch.sigmoid(inputs),
        "HSwish": lambda _, inputs: functional.hardswish(inputs),
        "HSigmoid": lambda _, inputs: functional.hardsigmoid(inputs),
        "HardSigmoid": lambda _, inputs, alpha, beta: torch.clamp(alpha * inputs + beta, 0.0, 1.0),
        "Clamp": lambda node, inputs: torch.clamp(inputs, node.get_attributes()["min"], node.get_attributes()["max"]),
        "Identity": lambda _, inputs: inputs,
    }


def _layers(torch: Any) -> Mapping[str, Callable[..., Any]]:
    functional = torch.nn.functional

    def convolution(node: Any, inputs: Any, weights: Any) -> Any:
        given = node.get_attributes()
        if node.get_type_name() == "GroupConvolution":
            groups, weights = weights.shape[0], weights.flatten(0, 1)
        else:
            groups = 1
        (top, left), (bottom, right) = _pads(node, given, inputs, weights)
        padded = functional.pad(inputs, (left, right, top, bottom)) if top or left or bottom or right else inputs
        return functional.conv2d(padded, weights, stride=given["strides"], dilation=given["dilations"], groups=groups)

    def normalise(node: Any, *read: Any) -> Any:
        inputs, gamma, beta, mean, variance = read
        epsilon = node.get_attributes()["epsilon"]
        return functional.batch_norm(inputs, mean, variance, gamma, beta, training=False, eps=epsilon)

    def matmul(node: Any, first: Any, second: Any) -> Any:
        given = node.get_attributes()
        first = first.transpose(-1, -2) if given["transpose_a"] else first
        return first @ (second.transpose(-1, -2) if given["transpose_b"] else second)

    return {
        "Convolution": convolution,
        "GroupConvolution": convolution,
        "BatchNormInference": normalise,
        "MatMul": matmul,
    }


def _shapes(torch: Any) -> Mapping[str, Callable[..., Any]]:
    def reduce(apply: Callable[..., Any]) -> Callable[..., Any]:
        def reduced(node: Any, inputs: Any, axes: Any) -> Any:
            named = [int(axis) for axis in axes.reshape(-1)]
            return apply(inputs, dim=named, keepdim=node.get_attributes()["keep_dims"])

        return reduced

    def reshape(node: Any, inputs: Any, shape: Any) -> Any:
        wanted = [int(size) for size in shape]
        if node.get_attributes()["special_zero"]:
            wanted = [inputs.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
        # The model was made for one item; a batch takes its place.
        return inputs.reshape([inputs.shape[0], *wanted[1:]] if wanted[0] == 1 else wanted)

    def squeeze(_: Any, inputs: Any, *axes: Any) -> Any:
        if not axes:
            return inputs.squeeze()
        return inputs.squeeze(tuple(int(axis) for axis in axes[0].reshape(-1)))

    def convert(node: Any, inputs: Any) -> Any:
        return inputs.long() if node.get_attributes()["destination_type"] in _INTEGERS else inputs.float()

    return {
        "Convert": convert,
        "Transpose": lambda _, inputs, order: inputs.permute([int(axis) for axis in order]),
        "ReduceMean": reduce(torch.mean),
        "ReduceMax": reduce(torch.amax),
        "Concat": lambda node, *inputs: torch.cat(inputs, dim=node.get_attributes()["axis"]),
        "Reshape": reshape,
        "Squeeze": squeeze,
        "Unsqueeze": lambda _, inputs, axes: inputs.unsqueeze(int(axes.reshape(-1)[0])),
        "ShapeOf": lambda _, inputs: torch.tensor(inputs.shape),
        "Range": lambda _, start, stop, step: torch.arange(int(start), int(stop), int(step)),
    }


def _pads(node: Any, given: Mapping[str, Any], inputs: Any, weights: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """At the beginnings and at the ends, by axis; those that the model leaves to the size of its inputs are counted."""
    if given["auto_pad"] in {"explicit", "valid"}:
        first, last = given["pads_begin"], given["pads_end"]
        return (int(first[0]), int(first[1])), (int(last[0]), int(last[1]))
    if given["auto_pad"] not in {"same_upper", "same_lower"}:
        raise TrainerError(f"{node.get_friendly_name()} pads by {given['auto_pad']}, which this trainer cannot train")
    begins, ends = [], []
    for axis in range(2):
        stride, span = given["strides"][axis], (weights.shape[2 + axis] - 1) * given["dilations"][axis] + 1
        size = inputs.shape[2 + axis]
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        less, more = total // 2, total - total // 2
        begins.append(less if given["auto_pad"] == "same_upper" else more)
        ends.append(more if given["auto_pad"] == "same_upper" else less)
    return (begins[0], begins[1]), (ends[0], ends[1])
