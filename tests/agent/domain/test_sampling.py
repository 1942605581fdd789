"""What is kept for training, why, and how useful it seems."""

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.result import LabelScore, SampleReason
from agent.domain.sampling import RANDOM_VALUE, entropy_of, margin_of, pick
from agent.domain.slot import SamplePolicy

NOTHING: dict[str, Any] = {"random_fraction": 0.0, "confidence_below": 0.0, "budget_bytes_per_day": 1}


def labels(*scores: float) -> tuple[LabelScore, ...]:
    return tuple(LabelScore(label=str(index), score=score) for index, score in enumerate(scores))


policies = st.builds(
    SamplePolicy,
    random_fraction=st.floats(0, 1),
    confidence_below=st.floats(0, 1),
    budget_bytes_per_day=st.just(1),
    margin_below=st.floats(0, 1),
    entropy_above=st.floats(0, 1),
    outlier_above=st.floats(0, 10),
)
scores = st.lists(st.floats(0, 1), max_size=5).map(lambda found: labels(*sorted(found, reverse=True)))
distances = st.none() | st.floats(0, 1e6)


@given(policies, scores, st.floats(0, 1, exclude_max=True), distances, st.booleans())
def test_a_value_is_a_share_and_chance_is_never_called_anything_else(
    policy: SamplePolicy, seen: tuple[LabelScore, ...], drawn: float, distance: float | None, quota: bool
) -> None:
    found = pick(policy, seen, drawn=drawn, distance=distance, quota_left=quota)
    if found is not None:
        assert 0.0 <= found.value <= 1.0
    if drawn < policy.random_fraction:
        assert found is not None
        assert found.reason is SampleReason.RANDOM
        assert found.value >= RANDOM_VALUE
    else:
        assert found is None or found.reason is not SampleReason.RANDOM


@pytest.mark.parametrize(
    ("asked", "seen", "distance", "reason"),
    [
        ({"confidence_below": 0.6}, labels(0.5, 0.1), None, SampleReason.LEAST_CONFIDENCE),
        ({"confidence_below": 0.6}, labels(0.6, 0.1), None, None),
        ({"margin_below": 0.2}, labels(0.5, 0.4), None, SampleReason.MARGIN),
        ({"margin_below": 0.25}, labels(0.625, 0.375), None, None),
        ({"margin_below": 0.2}, labels(0.5), None, None),
        ({"entropy_above": 0.9}, labels(0.5, 0.5), None, SampleReason.ENTROPY),
        ({"entropy_above": 0.9}, labels(0.9, 0.1), None, None),
        ({"outlier_above": 4.0}, (), 5.0, SampleReason.OUTLIER),
        ({"outlier_above": 4.0}, (), 4.0, None),
        ({"outlier_above": 0.0}, (), 1e9, None),
        ({"outlier_above": 4.0}, labels(0.9), None, None),
        ({"confidence_below": 1.0}, (), None, None),
    ],
)
def test_each_reason_has_its_bound(
    asked: dict[str, float], seen: tuple[LabelScore, ...], distance: float | None, reason: SampleReason | None
) -> None:
    found = pick(SamplePolicy(**(NOTHING | asked)), seen, drawn=0.5, distance=distance)
    assert (None if found is None else found.reason) is reason


def test_a_label_whose_quota_is_not_full_is_kept_for_that_alone() -> None:
    found = pick(SamplePolicy(**NOTHING), labels(0.9), drawn=0.5, quota_left=True)
    assert found is not None
    assert found.reason is SampleReason.CLASS_QUOTA


def test_what_says_the_most_is_the_reason() -> None:
    policy = SamplePolicy(**(NOTHING | {"margin_below": 0.2, "outlier_above": 4.0}))
    far = pick(policy, labels(0.55, 0.45), drawn=0.5, distance=40.0)
    near = pick(policy, labels(0.5, 0.5), drawn=0.5, distance=4.01)
    assert far is not None
    assert near is not None
    assert (far.reason, near.reason) == (SampleReason.OUTLIER, SampleReason.MARGIN)


@given(st.floats(0.0, 0.19), st.floats(0.0, 0.19))
def test_more_doubt_is_worth_more(one: float, other: float) -> None:
    policy = SamplePolicy(**(NOTHING | {"margin_below": 0.2}))
    found = [pick(policy, labels(0.5 + gap / 2, 0.5 - gap / 2), drawn=0.5) for gap in sorted((one, other))]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].value >= found[1].value - 1e-9


def test_the_fraction_is_kept_at_random() -> None:
    policy = SamplePolicy(**(NOTHING | {"random_fraction": 0.1}))
    rng = random.Random(3)
    assert 900 < sum(pick(policy, labels(0.9), drawn=rng.random()) is not None for _ in range(10_000)) < 1100


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_an_entropy_is_a_share(found: list[float]) -> None:
    entropy = entropy_of(labels(*sorted(found, reverse=True)))
    assert entropy is None or 0.0 <= entropy <= 1.0


def test_the_best_of_many_classes_leave_a_rest_that_counts() -> None:
    spread = entropy_of(labels(0.2, 0.2, 0.2, 0.2, 0.2))
    assert spread is not None
    assert math.isclose(spread, 1.0)
    first = entropy_of(labels(0.5, 0.1))
    assert first is not None
    assert first > 0.8


def test_scores_that_exclude_not_each_other_have_neither_margin_nor_entropy() -> None:
    assert margin_of(labels(0.9, 0.8)) is None
    assert entropy_of(labels(0.9, 0.8)) is None
