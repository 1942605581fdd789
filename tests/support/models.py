"""Tiny real models as OpenVINO IR, written by the tests themselves.

`classifier_ir` answers softmax([0, bias, 0, ...]) for an all-zero input, so versions with different `bias` can be told
apart by their answers: see `positive_score`. Files appear as `NAME.xml` and `NAME.bin` in the folder.
"""

import hashlib
import math
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from agent.domain.artifact import Artifact, ArtifactFile, ModelSignature, TensorSpec

INPUT_NAME = "x"
OUTPUT_NAME = "scores"
IMAGE_SHAPE = (3, 8, 8)
_FEATURES = math.prod(IMAGE_SHAPE)
ENDLESS = 1e15
"""As a pixel of an image for `looping_model_ir`."""


def classifier_ir(
    folder: Path,
    *,
    bias: float = 1.0,
    classes: int = 2,
    head: Literal["softmax", "sigmoid", "logits"] = "softmax",
    batch: int = -1,
    labels: str = "ok defect",
    name: str = "model",
) -> Path:
    """A classifier of inputs `x`, FP32 [batch, 3, 8, 8]; `sigmoid` gives one score an item. Returns the .xml."""
    width = 1 if head == "sigmoid" else classes
    offsets = np.zeros((1, width), np.float32)
    offsets[0, 0 if width == 1 else 1] = bias
    weights = np.zeros((_FEATURES, width), np.float32)
    weights[:, 0 if width == 1 else 1] = 1.0 / _FEATURES
    image = _image(batch)
    flat = ops.reshape(image, np.array([-1, _FEATURES], np.int64), special_zero=False)
    logits = ops.add(ops.matmul(flat, ops.constant(weights), False, False), ops.constant(offsets))
    match head:
        case "softmax":
            scores = ops.softmax(logits, 1)
        case "sigmoid":
            scores = ops.sigmoid(logits)
        case "logits":
            scores = logits
    return _save(folder, name, image, scores, labels)


def positive_score(bias: float, *, mean: float = 0.0) -> float:
    """What a two-class (or sigmoid) `classifier_ir` answers for the second label, for an input of this mean."""
    return 1.0 / (1.0 + math.exp(-(bias + mean)))


def failing_model_ir(
    folder: Path, *, when: Literal["read", "first_inference", "batch_of_two"] = "first_inference", name: str = "model"
) -> Path:
    """A model that cannot be read, or compiles and then fails to infer: always, or only a batch of two or more."""
    image = _image(-1)
    rows, columns = (7, 11) if when == "first_inference" else (1, _FEATURES)
    flat = ops.reshape(image, np.array([rows, columns], np.int64), special_zero=False)
    path = _save(folder, name, image, ops.softmax(flat, 1), "ok defect")
    if when == "read":
        path.write_text(path.read_text().replace('type="SoftMax"', 'type="NoSuchOperation"'))
    return path


def looping_model_ir(folder: Path, *, name: str = "model") -> Path:
    """A classifier of [-1, 3, 8, 8] that goes round as often as the image's largest value says, some 2 us each time: an
    image of `ENDLESS` hangs in the device."""
    image = _image(-1)
    flat = ops.reshape(image, np.array([-1, _FEATURES], np.int64), special_zero=False)
    largest = ops.reduce_max(image, np.array([0, 1, 2, 3], np.int64), keep_dims=False)
    rounds = ops.convert(ops.add(largest, ops.constant(np.float32(1))), "i64")
    before = ops.parameter([1, 1], np.float32)
    after = ops.add(before, ops.constant(np.float32(1e-30)))
    loop = ops.loop(rounds, ops.constant(np.array(True)))
    loop.set_function(ov.Model([after, ops.constant(np.array([True]))], [before], "round"))
    loop.set_special_body_ports([-1, 1])
    loop.set_merged_input(before, ops.constant(np.zeros((1, 1), np.float32)).output(0), after.output(0))
    weights = np.zeros((_FEATURES, 2), np.float32)
    logits = ops.matmul(flat, ops.constant(weights), False, False)
    scores = ops.softmax(ops.add(logits, loop.get_iter_value(after.output(0), -1)), 1)
    return _save(folder, name, image, scores, "ok defect")


def small_convnet_ir(
    folder: Path, *, size: int = 64, width: int = 32, depth: int = 4, classes: int = 10, name: str = "model"
) -> Path:
    """A small convolutional classifier of [batch, 3, size, size] with seeded weights: work like a real model's."""
    rng = np.random.default_rng(7)
    image = _image(-1, (3, size, size))
    node: Any = image
    channels = 3
    for layer in range(depth):
        kernel = rng.normal(0, 1 / math.sqrt(channels * 9), (width, channels, 3, 3)).astype(np.float32)
        stride = [2, 2] if layer % 2 else [1, 1]
        node = ops.relu(ops.convolution(node, ops.constant(kernel), stride, [1, 1], [1, 1], [1, 1]))
        channels = width
    pooled = ops.reduce_mean(node, np.array([2, 3], np.int64), keep_dims=False)
    dense = rng.normal(0, 1 / math.sqrt(channels), (channels, classes)).astype(np.float32)
    scores = ops.softmax(ops.matmul(pooled, ops.constant(dense), False, False), 1)
    return _save(folder, name, image, scores, " ".join(f"class{index}" for index in range(classes)))


def signature_of(path: Path) -> ModelSignature:
    """The signature that the controller would have recorded for an FP32 model of this module."""
    model = ov.Core().read_model(path)
    return ModelSignature(
        entry_path=path.name,
        inputs=tuple(_spec(port) for port in model.inputs),
        outputs=tuple(_spec(port) for port in model.outputs),
        format="OPENVINO_IR",
        precision="FP32",
        rt_info=MappingProxyType({"model_info/labels": str(model.get_rt_info(["model_info", "labels"]).astype(str))}),
    )


def artifact_of(folder: Path) -> Artifact:
    """The artifact that the folder's files make."""
    files = tuple(
        ArtifactFile(
            path=str(path.relative_to(folder)),
            digest=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
            size_bytes=path.stat().st_size,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    listing = "\n".join(f"{file.path} {file.digest}" for file in files)
    return Artifact(digest=f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}", files=files)


def _image(batch: int, shape: tuple[int, ...] = IMAGE_SHAPE) -> Any:
    image = ops.parameter([batch, *shape], ov.Type.f32, name=INPUT_NAME)
    image.output(0).get_tensor().set_names({INPUT_NAME})
    return image


def _save(folder: Path, name: str, image: Any, scores: Any, labels: str) -> Path:
    scores.output(0).get_tensor().set_names({OUTPUT_NAME})
    model = ov.Model([scores], [image], name)
    model.set_rt_info(labels, ["model_info", "labels"])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    return path


def _spec(port: Any) -> TensorSpec:
    shape = tuple(-1 if dimension.is_dynamic else dimension.get_length() for dimension in port.partial_shape)
    return TensorSpec(name=port.any_name, datatype="FP32", shape=shape)
