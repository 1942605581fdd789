"""Contents read with Pillow and NumPy, within bounds.

A picture comes from a box or a file that we do not know: it is decoded in the bytes process or a thread, never beyond
PICTURE_PIXELS_MAX, and whatever it does to the decoder is "not readable".
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from controlplane import limits
from controlplane.app.ports_datasets import Picture
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import Digest

_HASH_SIDE = 16
_FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_MODES: Final = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}
_MODES_KEPT: Final = frozenset({"L", "RGB"})
_BOMBS: Final = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_REMEDY: Final = "give a PNG, JPEG, BMP, TIFF or WebP file of 8 bits a channel that other programs open"


class PillowReader:
    """The PictureReader."""

    def read(self, digest: Digest, content: bytes, *, content_type: str) -> Picture:
        if content_type != "image/png":
            return Picture(digest=digest, readable=_is_array(content))
        try:
            with _decoded(content, formats=("PNG",)) as image:
                return Picture(
                    digest=digest,
                    readable=True,
                    width=image.width,
                    height=image.height,
                    difference_hash=difference_hash(image),
                )
        except FieldInvalidError:
            return Picture(digest=digest, readable=False)

    def to_png(self, content: bytes) -> bytes:
        with _decoded(content, formats=_FORMATS) as image:
            if image.format == "PNG" and image.mode in _MODES_KEPT and getattr(image, "n_frames", 1) == 1:
                return content
            if image.mode not in _MODES:
                raise FieldInvalidError(f"a picture of mode {image.mode}", field="content", remedy=_REMEDY)
            packed = io.BytesIO()
            image.convert(_MODES[image.mode]).save(packed, format="PNG")
        png = packed.getvalue()
        if len(png) > limits.SAMPLE_BYTES_MAX:
            raise FieldInvalidError(
                f"{len(png)} bytes as PNG are more than {limits.SAMPLE_BYTES_MAX}",
                field="content",
                remedy="bring smaller pictures",
            )
        return png


def difference_hash(image: Image.Image) -> int:
    """Return HASH_BITS bits: whether each of 16 x 16 coarse places is darker than the one to its right.

    Of the solar cells 97 to 100 % differ in at most 10 bits from themselves at half the size, 10 % brighter, with a
    little noise or as a good JPEG, and 3 % of the cells from another one. Rounded grey levels would be ties in flat
    places: with them it is 61 to 93 %.
    """
    coarse = np.asarray(image.convert("F").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.LANCZOS))
    return int.from_bytes(np.packbits(coarse[:, 1:] > coarse[:, :-1]).tobytes())


@contextmanager
def _decoded(content: bytes, *, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """The picture, wholly decoded. Raises FieldInvalidError for whatever is none."""
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            if image.width * image.height > limits.PICTURE_PIXELS_MAX:
                raise FieldInvalidError(
                    f"{image.width} x {image.height} pixels are more than {limits.PICTURE_PIXELS_MAX}",
                    field="content",
                    remedy="bring smaller pictures",
                )
            image.load()
            yield image
    except UnidentifiedImageError as error:
        raise FieldInvalidError("it is no picture", field="content", remedy=_REMEDY) from error
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, *_BOMBS) as error:
        raise FieldInvalidError(f"it cannot be decoded: {error}"[:300], field="content", remedy=_REMEDY) from error


def _is_array(content: bytes) -> bool:
    try:
        np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, MemoryError):
        return False
    return True
