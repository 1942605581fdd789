"""Contact sheets drawn with Pillow."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from controlplane import limits

_SIDE: Final = 96
_GAP: Final = 4
_HEADING: Final = 18
_COLUMNS: Final = 12
_INK: Final = (32, 32, 32)
_PAPER: Final = (250, 250, 250)
_BROKEN: Final = (200, 60, 60)


class PillowSheets:
    """The SheetPainter."""

    def paint(self, rows: Sequence[tuple[str, Sequence[bytes]]], *, title: str) -> bytes:
        heights = [_HEADING + -(-len(contents) // _COLUMNS) * (_SIDE + _GAP) for _, contents in rows]
        size = (_GAP + _COLUMNS * (_SIDE + _GAP), _HEADING + sum(heights) + _GAP)
        sheet = Image.new("RGB", size, _PAPER)
        pen = ImageDraw.Draw(sheet)
        pen.text((_GAP, _GAP), _latin(title), fill=_INK)
        top = _HEADING
        for (name, contents), height in zip(rows, heights, strict=True):
            pen.text((_GAP, top + _GAP), _latin(name), fill=_INK)
            for index, content in enumerate(contents):
                row, column = divmod(index, _COLUMNS)
                place = (_GAP + column * (_SIDE + _GAP), top + _HEADING + row * (_SIDE + _GAP))
                sheet.paste(_thumbnail(content), place)
            top += height
        packed = io.BytesIO()
        sheet.save(packed, format="PNG", optimize=False)
        return packed.getvalue()


def _thumbnail(content: bytes) -> Image.Image:
    """The content in a square; a cross where it cannot be drawn."""
    square = Image.new("RGB", (_SIDE, _SIDE), (225, 225, 225))
    try:
        picture = _array(content) if content.startswith(b"\x93NUMPY") else Image.open(io.BytesIO(content))
        if picture.width * picture.height > limits.PICTURE_PIXELS_MAX:
            raise ValueError("too large")
        small = picture.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        pen = ImageDraw.Draw(square)
        pen.line((0, 0, _SIDE, _SIDE), fill=_BROKEN, width=3)
        pen.line((0, _SIDE, _SIDE, 0), fill=_BROKEN, width=3)
        return square
    square.paste(small, ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2))
    return square


def _array(content: bytes) -> Image.Image:
    """The first plane of an array, from its least to its largest value."""
    values = np.load(io.BytesIO(content), allow_pickle=False)
    while values.ndim > 2:
        values = values[0]
    if values.ndim != 2 or not values.size:
        raise ValueError("no plane to draw")
    plane = np.nan_to_num(values.astype(np.float64))
    low, high = plane.min(), plane.max()
    return Image.fromarray(((plane - low) / (high - low or 1.0) * 255).astype(np.uint8))


def _latin(text: str) -> str:
    """What Pillow's own font can draw."""
    return text.encode("latin-1", "replace").decode("latin-1")
