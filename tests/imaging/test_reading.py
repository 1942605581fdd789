"""What is seen in contents, whatever they are."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.split import HASH_BITS
from controlplane.imaging.reading import PillowReader, difference_hash
from controlplane.imaging.sheet import PillowSheets
from tests.support.dataset_factories import picture
from tests.support.factories import digest_of

READER = PillowReader()


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def distance(first: Image.Image, second: Image.Image) -> int:
    return (difference_hash(first) ^ difference_hash(second)).bit_count()


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes that says it has `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_the_same_picture_is_near_itself_and_far_from_others() -> None:
    first = opened(picture(1, size=(120, 120)))
    assert distance(first, opened(picture(1, size=(120, 120), format="JPEG", quality=85))) <= 10
    assert distance(first, first.resize((60, 60))) <= 10
    assert distance(first, ImageEnhance.Brightness(first).enhance(0.9)) <= 10
    assert distance(first, first.convert("RGB")) == 0
    assert min(distance(first, opened(picture(seed, size=(120, 120)))) for seed in range(2, 20)) > 60
    assert 0 <= difference_hash(first) < 1 << HASH_BITS


def test_a_png_that_is_8_bit_is_kept_as_it_is() -> None:
    for mode in ("L", "RGB"):
        content = picture(1, mode=mode)
        assert READER.to_png(content) is content
    assert opened(READER.to_png(picture(1, mode="RGBA"))).mode == "RGB"
    assert opened(READER.to_png(picture(1, mode="1"))).mode == "L"


@pytest.mark.parametrize("side", [9_000, 12_000, 30_000, 60_000])
def test_a_small_file_that_unpacks_to_a_huge_picture_is_not_unpacked(side: int) -> None:
    assert side * side > limits.PICTURE_PIXELS_MAX
    content = huge_png(side)
    with pytest.raises(FieldInvalidError) as refusal:
        READER.to_png(content)
    assert (refusal.value.field, bool(refusal.value.remedy)) == ("content", True)
    assert not READER.read(digest_of(content), content, content_type="image/png").readable


def test_arrays_are_readable_and_no_pictures() -> None:
    packed = io.BytesIO()
    np.save(packed, np.zeros((3, 4), np.float32))
    read = READER.read(digest_of("a"), packed.getvalue(), content_type="application/x-npy")
    assert (read.readable, read.difference_hash) == (True, None)
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for broken in (packed.getvalue()[:40], b"", pickled.getvalue()):
        assert not READER.read(digest_of("a"), broken, content_type="application/x-npy").readable


WHOLE = picture(1)


@given(st.integers(min_value=0, max_value=len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_whatever_a_file_holds_reading_it_never_fails(place: int, spoiled: bytes) -> None:
    content = WHOLE[:place] + spoiled + WHOLE[place + len(spoiled) :]
    read = READER.read(digest_of("a"), content, content_type="image/png")
    assert read.readable == (read.difference_hash is not None)
    assert isinstance(PillowSheets().paint([("row", [content])], title="t"), bytes)


def test_a_sheet_draws_what_can_be_drawn() -> None:
    packed = io.BytesIO()
    np.save(packed, np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 1, 6, 8))
    contents = [picture(1), packed.getvalue(), b"nothing", huge_png(60_000)]
    rows = [("train: good (4)", contents), ("train: crack, Ω (13)", [picture(seed) for seed in range(13)]), ("e", [])]
    sheet = opened(PillowSheets().paint(rows, title="datasets/solar-1"))
    assert sheet.mode == "RGB"
    assert sheet.height > 3 * 96
    colours = sheet.getcolors(1 << 20)
    assert colours is not None
    assert {(200, 60, 60)} <= {colour for _, colour in colours}
