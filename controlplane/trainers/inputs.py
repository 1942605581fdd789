"""Inputs as the model takes them: a picture's pixels, or a kept array, in the shape of the model's one input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]


def read_input(path: Path, shape: Sequence[int], dtype: npt.DTypeLike) -> Array | None:
    """Return the content of a file as the model's input; `shape` has -1 where any size will do. None where it has
    another shape or type: the model was never asked about such an input."""
    content = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _pixels(path)
    if content.dtype != np.dtype(dtype):
        return None
    without_batch = [content[0]] if content.ndim and content.shape[0] == 1 else []
    for shaped in (content, content[None], *without_batch):
        coloured = _colours(shaped, shape)
        if _fits(coloured, shape):
            return np.ascontiguousarray(coloured)
    return None


def _pixels(path: Path) -> Array:
    """Height x width x channels, 8 bits."""
    with Image.open(path) as image:
        as_kept = image.mode in {"L", "RGB", "RGBA"}
        pixels = np.asarray(image if as_kept else image.convert("L" if image.mode == "1" else "RGB"))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _colours(content: Array, shape: Sequence[int]) -> Array:
    """Grey as three equal channels, where the model takes colours."""
    grey = content.dtype == np.uint8 and content.ndim == 4 and content.shape[-1] == 1
    return np.repeat(content, 3, axis=-1) if grey and len(shape) == 4 and shape[-1] == 3 else content


def _fits(content: Array, shape: Sequence[int]) -> bool:
    return content.ndim == len(shape) and all(
        wanted in (-1, size) for size, wanted in zip(content.shape, shape, strict=True)
    )
