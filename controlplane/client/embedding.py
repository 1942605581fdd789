"""Preprocessing and Model API's keys as parts of a network, with OpenVINO's PrePostProcessor, on the publisher's side.

What was embedded is also said in `model_info` (mean_values, scale_values, reverse_input_channels, resize_type,
orig_width, orig_height, embedded_processing), so that Model API does not do it a second time.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

from controlplane.client.errors import InvalidInputError
from controlplane.client.preprocessing import MODEL_INFO, InputPreprocessing, Preprocessing, Size, info_text

_CHANNELS = (1, 3, 4)


def embed(openvino: ModuleType, model: Any, wanted: Preprocessing) -> Any:
    """The model with the steps before it and the keys in its rt_info. Raises InvalidInputError naming the step."""
    said: dict[str, str] = {}
    _narrow(openvino, model, wanted)
    stepped = {name: steps for name, steps in wanted.inputs.items() if replace(steps, shape="") != InputPreprocessing()}
    if stepped:
        processing = _preprocess()
        processor = processing.PrePostProcessor(model)
        for name, steps in stepped.items():
            port = _port(model, name)
            _embed_input(openvino, processing, processor.input(port[0]), port[1], steps)
            said |= dict(_said(port[1], steps))
        try:
            model = processor.build()
        except RuntimeError as error:
            raise _refused(_cause(error), "", "compare layout, type and sizes with the network's inputs") from error
    for key, value in {**said, **wanted.model_info}.items():
        model.set_rt_info(value, [MODEL_INFO, key])
    return model


def _narrow(openvino: ModuleType, model: Any, wanted: Preprocessing) -> None:
    """Let the network take the shapes that are wanted and no others. Raises InvalidInputError."""
    shapes = {
        _port(model, name)[1]: openvino.PartialShape(f"[{steps.shape}]")
        for name, steps in wanted.inputs.items()
        if steps.shape
    }
    for port, shape in shapes.items():
        if not port.get_partial_shape().compatible(shape):
            raise _refused(f"{shape} is none of {port.get_partial_shape()}", "shape", "narrow what the network takes")
    if shapes:
        try:
            model.reshape(shapes)
        except RuntimeError as error:
            raise _refused(_cause(error), "shape", "choose sizes that the network can compute with") from error


def _preprocess() -> Any:
    # By name: the base of the client has no OpenVINO.
    return importlib.import_module("openvino.preprocess")


def _port(model: Any, name: str) -> tuple[int, Any]:
    """Place and port of an input. Raises InvalidInputError where it is not told or not there."""
    known = [port.get_any_name() if port.get_names() else port.get_node().get_friendly_name() for port in model.inputs]
    if not name:
        if len(known) == 1:
            return 0, model.inputs[0]
        raise _refused(f"the model has {len(known)} inputs: {', '.join(known)}", "inputs", "name one: [inputs.NAME]")
    for place, port in enumerate(model.inputs):
        if name == known[place] or name in port.get_names():
            return place, port
    raise _refused(f"the model has no input {name!r}", "inputs", f"use one of {', '.join(known)}")


def _embed_input(openvino: ModuleType, processing: Any, described: Any, port: Any, steps: InputPreprocessing) -> None:
    network = _network_layout(port, steps)
    target = _resize_target(port, network, steps)
    tensor, chain = described.tensor(), described.preprocess()
    if network:
        described.model().set_layout(openvino.Layout(network))
        tensor.set_layout(openvino.Layout(steps.layout or network))
    if steps.element_type:
        tensor.set_element_type(getattr(openvino.Type, steps.element_type))
    own_type = port.get_element_type()
    calculates = bool(steps.resize or steps.mean or steps.scale)
    if calculates and not own_type.is_real():
        raise _refused(
            f"the network takes {own_type.get_type_name()}", "type", "resize and normalise in the application"
        )
    if calculates or steps.element_type:
        chain.convert_element_type(own_type)
    if target is not None:
        _place_size(tensor, steps.size)
        chain.resize(getattr(processing.ResizeAlgorithm, f"RESIZE_{steps.resize.upper()}"), *target)
    if steps.reverse_channels:
        chain.reverse_channels()
    if steps.mean:
        chain.mean(_values(steps.mean))
    if steps.scale:
        chain.scale(_values(steps.scale))


def _place_size(tensor: Any, size: Size | None) -> None:
    if size is None:
        tensor.set_spatial_dynamic_shape()
    else:
        tensor.set_spatial_static_shape(*size)


def _values(numbers: tuple[float, ...]) -> float | list[float]:
    return numbers[0] if len(numbers) == 1 else list(numbers)


def _network_layout(port: Any, steps: InputPreprocessing) -> str:
    """The layout of the network's input, "" where no step needs one. Raises InvalidInputError."""
    shape = port.get_partial_shape()
    needed = bool(steps.layout or steps.resize or steps.reverse_channels or len(steps.mean) > 1 or len(steps.scale) > 1)
    network = steps.model_layout or _guessed(shape)
    if not network and needed:
        raise _refused(f"the layout of {shape} is not plain", "model_layout", "say it: NCHW, NHWC")
    for key, layout in (("layout", steps.layout), ("model_layout", network)):
        if layout and len(layout) != len(shape):
            raise _refused(f"{layout} has not the {len(shape)} dimensions of {shape}", key, "write a letter for each")
    if steps.layout and set(steps.layout) != set(network):
        raise _refused(f"{steps.layout} has other letters than {network}", "layout", "use those of the network")
    channels = dict(zip(network, shape, strict=True)).get("C") if network else None
    for key, numbers in (("mean", steps.mean), ("scale", steps.scale)):
        if len(numbers) > 1 and (channels is None or channels.is_dynamic or channels.get_length() != len(numbers)):
            raise _refused(f"{len(numbers)} numbers for {channels} channels", key, "write one, or one a channel")
    return network


def _guessed(shape: Any) -> str:
    """Images have few channels, at one end or the other."""
    sizes = [0 if dimension.is_dynamic else dimension.get_length() for dimension in shape]
    if len(sizes) != 4:
        return ""
    first, last = sizes[1] in _CHANNELS, sizes[3] in _CHANNELS
    return "" if first == last else "NCHW" if first else "NHWC"


def _resize_target(port: Any, network: str, steps: InputPreprocessing) -> Size | None:
    """Height and width that the network gets; None where nothing is resized. Raises InvalidInputError."""
    if not steps.resize:
        return None
    if steps.resize_to:
        return steps.resize_to
    spatial = dict(zip(network, port.get_partial_shape(), strict=True))
    if "H" not in spatial or "W" not in spatial:
        raise _refused(f"{network} has no height and width", "resize", "resize images only")
    if spatial["H"].is_dynamic or spatial["W"].is_dynamic:
        raise _refused(
            "the network takes any height and width", "resize", f"say which it is to get: {steps.resize}:224x224"
        )
    return spatial["H"].get_length(), spatial["W"].get_length()


def _said(port: Any, steps: InputPreprocessing) -> Iterator[tuple[str, str]]:
    """Model API's keys for what was embedded."""
    network = _network_layout(port, steps)
    spatial = dict(zip(network, port.get_partial_shape(), strict=True)) if network else {}
    target = _resize_target(port, network, steps)
    yield "embedded_processing", "True"
    if target is not None:
        yield "resize_type", "standard"
    elif "H" in spatial and "W" in spatial and spatial["H"].is_static and spatial["W"].is_static:
        target = spatial["H"].get_length(), spatial["W"].get_length()
    if target is not None:
        yield "orig_height", str(target[0])
        yield "orig_width", str(target[1])
    if steps.reverse_channels:
        yield "reverse_input_channels", "True"
    if steps.mean:
        yield "mean_values", info_text(steps.mean)
    if steps.scale:
        yield "scale_values", info_text(steps.scale)


def _cause(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("Exception from")), repr(error))[:500]


def _refused(message: str, key: str, remedy: str) -> InvalidInputError:
    return InvalidInputError(message, field=f"preprocess.{key}" if key else "preprocess", remedy=remedy)
