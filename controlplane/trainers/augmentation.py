"""Pictures varied by chance: a short training sees each as it may look as well, and learns less of it by heart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controlplane.trainers.inputs import Array

_PICTURES = 4
"""The dimensions of a batch of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How far pictures may be from what they were."""

    flips: bool
    """Mirrored pictures count as the same."""
    contrast: float
    """The share by which brightness and contrast vary."""


def varied(inputs: Array, draw: np.random.Generator, variation: Variation) -> Array:
    """Each picture of the batch by itself, of the same shape and type; what is no picture stays as it is."""
    if inputs.ndim != _PICTURES:
        return inputs
    sides = (0, 1) if inputs.shape[-1] in {1, 3, 4} else (1, 2)
    return np.stack([_varied(each, sides, draw, variation) for each in inputs])


def mixed(inputs: Array, draw: np.random.Generator, alpha: float) -> tuple[Array, float, npt.NDArray[np.intp]]:
    """Each picture of the batch mixed with another (Zhang et al. 2018, arXiv:1710.09412), how much of the mixture is
    itself, and the rows of the others. What is no picture stays as it is, as all do where `alpha` is 0."""
    rows = np.arange(len(inputs))
    if not alpha or inputs.ndim != _PICTURES:
        return inputs, 1.0, rows
    share, others = draw.beta(alpha, alpha), draw.permutation(rows)
    return (share * inputs + (1 - share) * inputs[others]).astype(np.float32), share, others


def _varied(picture: Array, sides: Sequence[int], draw: np.random.Generator, variation: Variation) -> Array:
    if variation.flips:
        picture = np.flip(picture, tuple(side for side in sides if draw.random() < 0.5))
    return _lit(picture, draw, variation.contrast) if variation.contrast else picture


def _lit(picture: Array, draw: np.random.Generator, share: float) -> Array:
    """Brighter or darker, and of more or less contrast."""
    contrast, brightness = draw.uniform(1 - share, 1 + share, 2)
    mean = picture.mean(dtype=np.float64)
    lit: Array = ((picture - mean) * contrast + mean) * brightness
    if np.issubdtype(picture.dtype, np.integer):
        bounds = np.iinfo(picture.dtype)
        lit = np.clip(np.rint(lit), bounds.min, bounds.max)
    return lit.astype(picture.dtype)
