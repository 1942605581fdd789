"""How the full fine-tune varies what it is shown; without torch."""

import numpy as np
import pytest

from controlplane.trainers.augmentation import Variation, mixed, varied


def vary(inputs: np.ndarray, *, flips: bool = False, contrast: float = 0.0) -> np.ndarray:
    return varied(inputs, np.random.default_rng(1), Variation(flips=flips, contrast=contrast))


def pictures(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(5).integers(60, 200, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "axes"), [((40, 5, 6, 1), (0, 1)), ((40, 3, 5, 6), (1, 2))])
def test_each_picture_is_mirrored_by_itself(shape: tuple[int, ...], axes: tuple[int, int]) -> None:
    inputs = pictures(*shape)
    after_all = vary(inputs, flips=True)
    ways = [(), axes[:1], axes[1:], axes]
    found = [
        [way for way in ways if np.array_equal(np.flip(before, way), after)]
        for before, after in zip(inputs, after_all, strict=True)
    ]
    assert all(len(each) == 1 for each in found)
    assert {each[0] for each in found} == set(ways)


def test_brightness_and_contrast_vary_within_their_share_and_the_type_stays() -> None:
    inputs = pictures(200, 8, 8, 1)
    lit = vary(inputs, contrast=0.2)
    assert lit.dtype == np.dtype(np.uint8)
    assert lit.shape == inputs.shape
    brightness = lit.mean(axis=(1, 2, 3)) / inputs.mean(axis=(1, 2, 3))
    assert brightness.min() < 0.85
    assert brightness.max() > 1.15
    assert np.abs(brightness - 1).max() < 0.21
    spread = lit.std(axis=(1, 2, 3)) / inputs.std(axis=(1, 2, 3))
    assert spread.min() < 0.75
    assert spread.max() > 1.25
    assert np.abs(spread - 1).max() < 0.46


def test_bytes_are_bounded_and_do_not_wrap() -> None:
    inputs = np.full((50, 4, 4, 1), 250, np.uint8)
    lit = vary(inputs, contrast=0.3)
    assert lit.min() >= 170
    assert lit.max() == 255


def test_floats_may_leave_the_range_of_bytes() -> None:
    inputs = pictures(50, 3, 4, 4, dtype=np.float32) - 128
    lit = vary(inputs, contrast=0.3)
    assert lit.dtype == np.float32
    assert lit.min() < 0
    assert not np.array_equal(lit, inputs)


def test_what_is_no_picture_stays_as_it_is() -> None:
    rows = np.ones((4, 7), np.float32)
    assert vary(rows, flips=True, contrast=0.3) is rows


def test_a_mixture_has_its_share_of_either_picture() -> None:
    inputs = pictures(16, 4, 4, 1)
    shares = []
    for seed in range(300):
        mixture, share, others = mixed(inputs, np.random.default_rng(seed), 0.3)
        assert sorted(others) == list(range(16))
        np.testing.assert_allclose(mixture, share * inputs + (1 - share) * inputs[others], rtol=1e-5)
        assert mixture.dtype == np.float32
        shares.append(share)
    # Beta(0.3, 0.3): mostly the one or the other.
    assert 0.1 < np.mean([0.1 < share < 0.9 for share in shares]) < 0.5
    assert abs(np.mean(shares) - 0.5) < 0.1


@pytest.mark.parametrize(("shape", "alpha"), [((4, 8, 8, 1), 0.0), ((4, 7), 0.3)])
def test_nothing_is_mixed_that_is_no_picture_or_is_not_to_be(shape: tuple[int, ...], alpha: float) -> None:
    inputs = pictures(*shape)
    found, share, others = mixed(inputs, np.random.default_rng(1), alpha)
    assert found is inputs
    assert share == 1.0
    assert list(others) == [0, 1, 2, 3]
