"""Makes regions of an image unreadable before anything is written or leaves the box.

What cannot be redacted is not kept: `Unredactable` says so, and the collector counts it. A site that must hide more
than rectangles installs a package with an entry point in the group `lineside.redactors`: a callable that takes the
slot's name and the image and returns the image to keep. It runs after ours, on the samples' own thread.
"""

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Protocol

import numpy as np

from agent.app.input_statistics import is_image
from agent.app.ports import Tensor
from agent.domain.slot import RedactedRegion

GROUP = "lineside.redactors"
_GREY = 128
_TILES = 3
"""Of a blurred region along each side: a colour and a light remain, no letter and no face."""


class Unredactable(Exception):  # noqa: N818 - a state of the input, not a fault
    """The input is no image, so that its regions mean nothing."""


class Redactor(Protocol):
    """Returns what may be kept of `image`; may change it in place, since it is our own copy."""

    def __call__(self, slot: str, image: Tensor, /) -> Tensor: ...


def installed_redactors() -> tuple[Redactor, ...]:
    """Those of packages beside the agent, by name. Raises what importing one raises: an agent that cannot redact as the
    site wants must not start."""
    found: list[tuple[str, Callable[[str, Tensor], Tensor]]] = [
        (point.name, point.load()) for point in metadata.entry_points(group=GROUP)
    ]
    return tuple(redactor for _, redactor in sorted(found, key=lambda each: each[0]))


def redact(image: Tensor, regions: Sequence[RedactedRegion]) -> Tensor:
    """`image` with its regions unreadable; changed in place. Raises Unredactable where it is no 8-bit image."""
    if not regions:
        return image
    if not is_image(image) or image.size == 0:
        raise Unredactable
    pixels = image if image.ndim == 4 else image[None]
    height, width = pixels.shape[1:3]
    for region in regions:
        rows, columns = _span(region.y, region.height, height), _span(region.x, region.width, width)
        part = pixels[:, rows, columns]
        if region.blur:
            _flatten(part)
        else:
            part[...] = _GREY
    return image


def _span(start: float, length: float, size: int) -> slice:
    """Every pixel that the span touches, at least one."""
    first = min(size - 1, int(start * size))
    return slice(first, max(first + 1, min(size, -int(-(start + length) * size // 1))))


def _flatten(part: Tensor) -> None:
    for rows in np.array_split(np.arange(part.shape[1]), _TILES):
        for columns in np.array_split(np.arange(part.shape[2]), _TILES):
            if rows.size and columns.size:
                tile = part[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                tile[...] = tile.mean(axis=(1, 2), keepdims=True).astype(part.dtype)
