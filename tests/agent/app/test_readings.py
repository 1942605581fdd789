"""Long rows, as numpy reads them, against the domain's rules in plain Python."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app.readings import interpret_long
from agent.domain.interpretation import Reading, Scoring, interpret

_LOGITS = st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=80)
_TIED = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, -3.0]), min_size=2, max_size=80)
_PROBABILITIES = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=80)
_SHARES = _PROBABILITIES.filter(any).map(lambda row: [value / sum(row) for value in row])
_BROKEN = st.lists(st.sampled_from([0.0, 1.0, float("nan"), float("inf"), float("-inf")]), min_size=2, max_size=40)


@given(
    row=_LOGITS | _TIED | _PROBABILITIES | _SHARES | _BROKEN,
    scoring=st.sampled_from(Scoring),
    labels_max=st.sampled_from([1, 5, 1000]),
    labels=st.sampled_from([(), ("ok", "defect", "scratch")]),
)
def test_long_rows_say_what_the_rules_say(
    row: list[float], scoring: Scoring, labels_max: int, labels: tuple[str, ...]
) -> None:
    reading = Reading(output="scores", scoring=scoring, labels=labels)
    told = interpret_long(reading, np.array(row), labels_max=labels_max)
    expected = interpret(reading, row, labels_max=labels_max)
    assert [each.score for each in told] == pytest.approx([each.score for each in expected], rel=1e-12, abs=1e-300)
    # Scores that differ by rounding alone may change places.
    distinct = len({round(each.score, 12) for each in expected}) == len(expected) == min(labels_max, len(row))
    if distinct and labels_max >= len(row):
        assert [each.label for each in told] == [each.label for each in expected]


@given(row=_LOGITS | _TIED | _BROKEN, scoring=st.sampled_from(Scoring))
def test_rows_are_read_alike_in_the_precision_that_models_have(row: list[float], scoring: Scoring) -> None:
    reading = Reading(output="scores", scoring=scoring, labels=())
    told = interpret_long(reading, np.array(row, np.float32), labels_max=5)
    expected = interpret(reading, row, labels_max=5)
    assert [each.score for each in told] == pytest.approx([each.score for each in expected], rel=1e-5, abs=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_equal_scores_the_first_come_first(dtype: npt.DTypeLike) -> None:
    row = np.zeros(100, dtype)
    row[[90, 7, 40]] = 3.0
    reading = Reading(output="scores", scoring=Scoring.EXCLUSIVE, labels=())
    assert [each.label for each in interpret_long(reading, row, labels_max=5)] == ["7", "40", "90", "0", "1"]
