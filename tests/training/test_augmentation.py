"""How the full fine-tune varies what it is shown; without torch."""

import numpy as np
import pytest

from controlplane.trainers import finetune


def plan(**changes: float | bool) -> finetune._Plan:
    given: dict[str, float | bool] = {"flips": False, "contrast": 0.0}
    return finetune._Plan(epochs=1, step=1e-3, batch=4, seed=0, average=0.99, **(given | changes))  # type: ignore[arg-type]


def pictures(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(5).integers(60, 200, shape).astype(dtype)


@pytest.mark.parametrize(("shape", "axes"), [((40, 5, 6, 1), (0, 1)), ((40, 3, 5, 6), (1, 2))])
def test_each_picture_is_mirrored_by_itself(shape: tuple[int, ...], axes: tuple[int, int]) -> None:
    inputs = pictures(*shape)
    varied = finetune._augmented(inputs, np.random.default_rng(1), plan(flips=True))
    ways = [(), axes[:1], axes[1:], axes]
    found = [
        [way for way in ways if np.array_equal(np.flip(before, way), after)]
        for before, after in zip(inputs, varied, strict=True)
    ]
    assert all(len(each) == 1 for each in found)
    assert {each[0] for each in found} == set(ways)


def test_brightness_and_contrast_vary_within_their_share_and_the_type_stays() -> None:
    inputs = pictures(200, 8, 8, 1)
    varied = finetune._augmented(inputs, np.random.default_rng(1), plan(contrast=0.2))
    assert varied.dtype == np.dtype(np.uint8)
    assert varied.shape == inputs.shape
    brightness = varied.mean(axis=(1, 2, 3)) / inputs.mean(axis=(1, 2, 3))
    assert brightness.min() < 0.85
    assert brightness.max() > 1.15
    assert np.abs(brightness - 1).max() < 0.21
    spread = varied.std(axis=(1, 2, 3)) / inputs.std(axis=(1, 2, 3))
    assert spread.min() < 0.75
    assert spread.max() > 1.25
    assert np.abs(spread - 1).max() < 0.46


def test_bytes_are_bounded_and_do_not_wrap() -> None:
    inputs = np.full((50, 4, 4, 1), 250, np.uint8)
    varied = finetune._augmented(inputs, np.random.default_rng(1), plan(contrast=0.3))
    assert varied.min() >= 170
    assert varied.max() == 255


def test_floats_may_leave_the_range_of_bytes() -> None:
    inputs = pictures(50, 3, 4, 4, dtype=np.float32) - 128
    varied = finetune._augmented(inputs, np.random.default_rng(1), plan(contrast=0.3))
    assert varied.dtype == np.float32
    assert varied.min() < 0
    assert not np.array_equal(varied, inputs)


def test_what_is_no_picture_stays_as_it_is() -> None:
    rows = np.ones((4, 7), np.float32)
    assert finetune._augmented(rows, np.random.default_rng(1), plan(flips=True, contrast=0.3)) is rows
