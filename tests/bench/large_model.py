"""A valid model with many weights, to have something to transfer."""

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

SIDE = 4096
LAYER_BYTES = SIDE * SIDE * 4


def write_large_model(folder: Path, *, layers: int) -> int:
    """Write an IR model of `layers` dense layers of LAYER_BYTES each; return the bytes of its weights file."""
    draw = np.random.default_rng(0)
    image = ops.parameter([1, SIDE], np.float32, name="image")
    node = image
    for _ in range(layers):
        weights = draw.standard_normal((SIDE, SIDE), dtype=np.float32)
        node = ops.matmul(node, ops.constant(weights), False, False)
    folder.mkdir(parents=True)
    ov.save_model(ov.Model([ops.result(node)], [image], "large"), folder / "model.xml", compress_to_fp16=False)
    return (folder / "model.bin").stat().st_size
