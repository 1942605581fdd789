"""When a fine-tune is given up for the head alone: not by the luck of a few items."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from controlplane.trainers.metrics import Truth, is_clearly_worse, mean_auc

ONE_OUTPUT: Any = SimpleNamespace(outputs=1)


def judged(items: int, *, gap: float, seed: int) -> tuple[np.ndarray, np.ndarray, Truth]:
    """Numbers of a candidate that tells two classes `gap` less apart than the version before, these, and the truth."""
    draw = np.random.default_rng(seed)
    classes = draw.integers(0, 2, items)
    shared = draw.normal(size=items)
    before = (1.5 * classes + shared + 0.5 * draw.normal(size=items))[:, None]
    candidate = ((1.5 - gap) * classes + shared + 0.5 * draw.normal(size=items))[:, None]
    return candidate, before, Truth(classes=classes, weights=np.ones(items), lines=())


def given_up(items: int, *, gap: float) -> float:
    """The share of seeds."""
    draw = np.random.default_rng(0)
    found = []
    for seed in range(8):
        candidate, before, truth = judged(items, gap=gap, seed=seed)
        found.append(is_clearly_worse(ONE_OUTPUT, candidate, before, truth, draw))
    return float(np.mean(found))


def test_luck_on_eighty_items_gives_nothing_up() -> None:
    assert given_up(80, gap=0.0) <= 0.15
    assert given_up(80, gap=-0.5) == 0.0


def test_what_tells_the_classes_no_more_apart_is_given_up() -> None:
    assert given_up(80, gap=1.5) >= 0.9


def test_a_lower_number_alone_is_no_reason() -> None:
    candidate, before, truth = judged(80, gap=0.1, seed=4)
    assert mean_auc(ONE_OUTPUT, candidate, truth) < mean_auc(ONE_OUTPUT, before, truth)
    assert not is_clearly_worse(ONE_OUTPUT, candidate, before, truth, np.random.default_rng(0))


@pytest.mark.parametrize("items", [0, 1])
def test_without_items_to_compare_nothing_is_given_up(items: int) -> None:
    candidate, before, truth = judged(items, gap=1.5, seed=0)
    assert not is_clearly_worse(ONE_OUTPUT, candidate, before, truth, np.random.default_rng(0))
