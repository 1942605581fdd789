"""A small real task: grey pictures of 24 x 24 pixels, some with a bright scratch, and a model that half knows them."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino.preprocess import PrePostProcessor
from PIL import Image

SIDE = 24
LABELS = ("ok", "defect")


Picture = npt.NDArray[np.float64]
Defect = Literal["scratch", "dim", "blurred"]


def write_pictures(folder: Path, count: int, *, seed: int, kind: Defect = "scratch") -> Path:
    """Write `count` pictures and labels.csv (file,label,part), every second with that defect; return the CSV. A model
    that was fitted on some kinds of defect knows nothing of the next."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["file,label,part"]
    for index in range(count):
        pixels = draw.normal(90, 25, (SIDE, SIDE))
        defect = index % 2 == 1
        if defect:
            pixels = _spoilt(pixels, draw, kind)
        name = f"{seed}-{index:04}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        rows.append(f"{name},{LABELS[defect]},part-{seed}-{index}")
    path = folder / "labels.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def _spoilt(pixels: Picture, draw: np.random.Generator, kind: Defect) -> Picture:
    match kind:
        case "scratch":
            row = draw.integers(2, SIDE - 2)
            pixels[row, 4:20] += draw.uniform(60, 120)
            return pixels
        case "dim":
            return pixels - draw.uniform(25, 45)
        case "blurred":
            return draw.normal(90, 8, (SIDE, SIDE))


def scratch_model(
    folder: Path, *, outputs: int = 1, activation: str = "sigmoid", labels: str = " ".join(LABELS)
) -> Path:
    """Write model.xml: features of fixed filters under a head of noise. Takes u8 [1, 24, 24, 1]; return the .xml."""
    draw = np.random.default_rng(7)
    image = ops.parameter([1, 1, SIDE, SIDE], np.float32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    filters = draw.normal(0, 0.1, (12, 1, 3, 9)).astype(np.float32)
    filters[0] = np.array([-1, 2, -1], dtype=np.float32).reshape(1, 3, 1) / 18
    scaled = ops.divide(image, ops.constant(np.float32(128)))
    maps = ops.relu(ops.convolution(scaled, ops.constant(filters), [1, 1], [0, 0], [0, 0], [1, 1]))
    axes = np.array([2, 3])
    features = ops.concat([ops.reduce_max(maps, axes, False), ops.reduce_mean(maps, axes, False)], 1)
    weights = draw.normal(0, 0.1, (24, outputs)).astype(np.float32)
    numbers = ops.add(
        ops.matmul(features, ops.constant(weights), False, False), ops.constant(np.zeros((1, outputs), np.float32))
    )
    activations = {"sigmoid": ops.sigmoid, "softmax": lambda node: ops.softmax(node, 1), "none": lambda node: node}
    scores = activations[activation](numbers)
    result = ops.result(scores)
    result.input_value(0).get_tensor().set_names({"score"})
    processor = PrePostProcessor(ov.Model([result], [image], "scratch"))
    taken = processor.input("image")
    taken.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    taken.model().set_layout(ov.Layout("NCHW"))
    model = processor.build()
    model.set_rt_info("Classification", ["model_info", "model_type"])
    model.set_rt_info(labels, ["model_info", "labels"])
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def answers(model: Path, pictures: Path) -> dict[str, np.ndarray]:
    """What the model says of each picture, by name."""
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    found = {}
    for path in sorted(pictures.glob("*.png")):
        pixels = np.asarray(Image.open(path))[None, :, :, None]
        found[path.name] = next(iter(request.infer([np.ascontiguousarray(pixels)]).values())).reshape(-1).copy()
    return found
