"""Labels from outputs: what is a score of a class, and what is not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.interpretation import Reading, Scoring, interpret, reading_of

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def signature(*outputs: tuple[str, tuple[int, ...]], **rt_info: str) -> ModelSignature:
    return ModelSignature(
        entry_path="model.xml",
        inputs=(),
        outputs=tuple(
            TensorSpec(name=f"o{place}", datatype=datatype, shape=shape)
            for place, (datatype, shape) in enumerate(outputs)
        ),
        rt_info={f"model_info/{key}": value for key, value in rt_info.items()},
    )


def reading(scoring: Scoring = Scoring.EXCLUSIVE, labels: tuple[str, ...] = ()) -> Reading:
    return Reading(output="o0", scoring=scoring, labels=labels)


@pytest.mark.parametrize(
    ("shape", "scoring"),
    [
        ((-1, 10), Scoring.EXCLUSIVE),
        ((1, 2), Scoring.EXCLUSIVE),
        ((-1, 1000, 1, 1), Scoring.EXCLUSIVE),
        ((-1, -1), Scoring.EXCLUSIVE),
        ((-1, 1), Scoring.SINGLE),
        ((-1,), Scoring.SINGLE),
        ((1, 1, 1), Scoring.SINGLE),
    ],
)
def test_outputs_of_scores_are_read(shape: tuple[int, ...], scoring: Scoring) -> None:
    found = reading_of(signature(("FP32", shape), labels="ok defect"))
    assert found == Reading(output="o0", scoring=scoring, labels=("ok", "defect"))


@pytest.mark.parametrize(
    ("datatype", "shape"),
    [("FP32", (1, 1, 200, 7)), ("FP32", (-1, 100, 5)), ("INT64", (-1, 100)), ("FP32", ()), ("UINT8", (-1, 2))],
)
def test_other_outputs_say_nothing(datatype: str, shape: tuple[int, ...]) -> None:
    assert reading_of(signature((datatype, shape))) is None


def test_the_first_output_of_scores_is_read() -> None:
    found = reading_of(signature(("FP32", (-1, 100, 5)), ("INT64", (-1, 100)), ("FP16", (-1, 4))))
    assert found is not None
    assert found.output == "o2"


def test_rt_info_names_task_and_kind() -> None:
    assert reading_of(signature(("FP32", (-1, 4)), model_type="ssd")) is None
    several = reading_of(signature(("FP32", (-1, 4)), model_type="Classification", multilabel="True"))
    assert several is not None
    assert several.scoring is Scoring.MULTILABEL


def test_probabilities_stay_and_are_sorted() -> None:
    labels = interpret(reading(labels=("a", "b", "c")), [0.2, 0.7, 0.1])
    assert [(each.label, each.score) for each in labels] == [("b", 0.7), ("a", 0.2), ("c", 0.1)]


def test_logits_go_through_softmax() -> None:
    (best, _) = interpret(reading(labels=("ok", "defect")), [1.0, 3.0])
    assert best.label == "defect"
    assert best.score == pytest.approx(math.exp(3) / (math.exp(1) + math.exp(3)))


def test_a_single_probability_is_the_second_label() -> None:
    labels = interpret(reading(Scoring.SINGLE, ("ok", "defect")), [0.9])
    assert [each.label for each in labels] == ["defect", "ok"]
    assert labels[0].score == 0.9
    assert interpret(reading(Scoring.SINGLE), [0.25])[0].label == "0"


@pytest.mark.parametrize("row", [[], [math.nan, 0.5], [math.inf, 0.0]])
def test_rows_that_are_not_numbers_say_nothing(row: list[float]) -> None:
    assert interpret(reading(), row) == ()


def test_a_single_value_outside_a_probability_says_nothing() -> None:
    assert interpret(reading(Scoring.SINGLE), [3.5]) == ()


def test_labels_that_are_missing_are_numbers() -> None:
    assert {each.label for each in interpret(reading(labels=("ok",)), [0.5, 0.3, 0.2])} == {"ok", "1", "2"}


@given(row=st.lists(FINITE, min_size=2, max_size=40))
def test_scores_fall_stay_probabilities_and_are_few(row: list[float]) -> None:
    labels = interpret(reading(), row)
    scores = [each.score for each in labels]
    assert len(labels) == min(5, len(row))
    assert scores == sorted(scores, reverse=True)
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert labels[0].label == str(row.index(max(row))) or scores[0] == scores[1]


@given(row=st.lists(FINITE, min_size=2, max_size=10))
def test_each_class_of_a_multilabel_output_stands_alone(row: list[float]) -> None:
    scores = {each.label: each.score for each in interpret(reading(Scoring.MULTILABEL), row)}
    raw = not all(0.0 <= value <= 1.0 for value in row)
    for label, score in scores.items():
        value = row[int(label)]
        assert score == pytest.approx((1 + math.tanh(value / 2)) / 2 if raw else value)
