"""Statistics, hashes and redaction of inputs of every kind."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.app.difference_hash import difference_hash
from agent.app.input_statistics import statistics_of
from agent.app.ports import Tensor
from agent.app.redaction import Unredactable, redact
from agent.domain.input_statistics import OCTAVE_MIN, STATISTICS
from agent.domain.slot import RedactedRegion

tensors = arrays.arrays(
    dtype=st.sampled_from([np.uint8, np.float32, np.float64, np.float16, np.int32, np.bool_, np.complex64]),
    shape=arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=12),
)


def image(seed: int, *, height: int = 64, width: int = 80, channels: int = 3, scale: float = 30.0) -> Tensor:
    draw = np.random.default_rng(seed).normal(120, scale, (1, height, width, channels))
    return draw.clip(0, 255).astype(np.uint8)


@given(tensors)
@example(np.array([np.inf, -np.inf] * 32, np.float32))
@example(np.full((16, 16), 2.0**127, np.float32))
def test_no_tensor_is_too_odd(tensor: Tensor) -> None:
    found = statistics_of(tensor)
    assert found is None or (len(found.values) == len(STATISTICS) and all(map(np.isfinite, found.values)))
    picture_hash = difference_hash(tensor)
    assert picture_hash is None or 0 <= picture_hash < 1 << 64


def test_light_contrast_and_sharpness_are_told_apart() -> None:
    flat = np.full((1, 64, 80, 1), 51, np.uint8)
    found = statistics_of(flat)
    assert found is not None
    assert found.values[0] == pytest.approx(0.2)
    assert found.values[1:] == (OCTAVE_MIN,) * 6
    fine, coarse = statistics_of(image(1)), statistics_of(np.repeat(image(1, width=20), 8, axis=2))
    assert fine is not None
    assert coarse is not None
    assert fine.named()["sharpness"] > coarse.named()["sharpness"] + 1.0
    assert fine.named()["band_4"] < coarse.named()["band_4"] - 0.5


@pytest.mark.parametrize(("height", "width"), [(64, 80), (300, 300), (1080, 1920), (33, 257)])
def test_a_sample_of_lines_stands_for_the_image(height: int, width: int) -> None:
    one, other = (statistics_of(image(seed, height=height, width=width)) for seed in (1, 2))
    assert one is not None
    assert other is not None
    assert np.allclose(one.values, other.values, atol=0.6)


def test_layouts_of_one_image_have_the_same_statistics_but_for_their_scale() -> None:
    pixels = image(3).astype(np.float32)
    last, first = statistics_of(pixels), statistics_of(np.moveaxis(pixels, -1, 1).copy())
    assert last is not None
    assert first is not None
    assert last.values == pytest.approx(first.values)


def test_near_images_have_near_hashes_and_others_have_not() -> None:
    one, hashes = image(1, scale=60.0), []
    brighter = np.clip(one.astype(np.int16) + 10, 0, 255).astype(np.uint8)
    for each in (one, brighter, image(2, scale=60.0)):
        found = difference_hash(each)
        assert found is not None
        hashes.append(found)
    assert (hashes[0] ^ hashes[1]).bit_count() <= 6
    assert (hashes[0] ^ hashes[2]).bit_count() > 12


regions = st.builds(
    RedactedRegion,
    x=st.floats(0, 0.9),
    y=st.floats(0, 0.9),
    width=st.floats(0.001, 0.1),
    height=st.floats(0.001, 0.1),
    blur=st.booleans(),
)


@given(regions, st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_what_is_redacted_tells_nothing_of_what_was_there(
    region: RedactedRegion, height: int, width: int, seed: int
) -> None:
    original = image(seed, height=height, width=width)
    found = redact(original.copy(), (region,))
    rows = slice(
        int(region.y * height), max(int(region.y * height) + 1, -int(-(region.y + region.height) * height // 1))
    )
    columns = slice(
        int(region.x * width), max(int(region.x * width) + 1, -int(-(region.x + region.width) * width // 1))
    )
    part = found[0, rows, columns]
    assert len(np.unique(part.reshape(-1, 3), axis=0)) <= (9 if region.blur else 1)
    outside = np.ones((height, width), bool)
    outside[rows, columns] = False
    assert np.array_equal(found[0][outside], original[0][outside])


def test_what_is_no_image_cannot_be_redacted() -> None:
    region = RedactedRegion(x=0, y=0, width=1, height=1)
    for tensor in (np.zeros((1, 3, 8, 8), np.float32), np.zeros((0, 4, 4, 3), np.uint8), np.zeros((7,), np.uint8)):
        with pytest.raises(Unredactable):
            redact(tensor, (region,))
    assert redact(np.zeros((7,), np.float32), ()).shape == (7,)
