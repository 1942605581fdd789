"""A 64-bit hash of how a picture's brightness goes: near pictures differ in few bits."""

import numpy as np

from agent.app.input_statistics import plane_of
from agent.app.ports import Tensor

_ROWS, _COLUMNS = 8, 9
_PIXELS_MAX = 32
"""Of a cell along each side that are looked at: enough for its mean."""


def difference_hash(tensor: Tensor) -> int | None:
    """A bit for each of 8 x 8 places, set where the next cell to the right is brighter; None of what has no such
    cells: too small, or no plane of numbers."""
    if tensor.dtype.kind not in "uif" or tensor.ndim < 2 or tensor.size == 0:
        return None
    plane = plane_of(tensor)
    height, width = plane.shape
    if height < _ROWS or width < _COLUMNS:
        return None
    plane = plane[:: max(1, height // (_ROWS * _PIXELS_MAX)), :: max(1, width // (_COLUMNS * _PIXELS_MAX))]
    height, width = plane.shape
    sizes = np.diff(np.append(np.arange(_COLUMNS) * width // _COLUMNS, width))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no brighter than what does
        rows = np.add.reduceat(plane.astype(np.float32), np.arange(_ROWS) * height // _ROWS, axis=0)
        cells = np.add.reduceat(rows, np.arange(_COLUMNS) * width // _COLUMNS, axis=1)
        cells /= sizes
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")
