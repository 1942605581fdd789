"""What a shadow run compares, and when it must stop."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.result import LabelScore
from agent.domain.shadow import compare, p99_exceeds, why_not_comparable
from tests.agent.storage.test_result_log import result
from tests.support.serving import SIGNATURE

scores = st.lists(
    st.builds(LabelScore, label=st.sampled_from("abcdef"), score=st.floats(0, 1)),
    max_size=6,
    unique_by=lambda s: s.label,
).map(tuple)


@given(scores, scores)
def test_agreement_is_of_top_labels_and_distance_of_the_serving_one(
    served: tuple[LabelScore, ...], given_labels: tuple[LabelScore, ...]
) -> None:
    found = compare(
        replace(result(), labels=served), candidate_version=2, device="CPU", labels=given_labels, latency_us=5
    )
    assert not found.failed
    assert found.agreed == ([s.label for s in served[:1]] == [s.label for s in given_labels[:1]])
    if not served:
        assert found.score_distance is None
        return
    assert found.score_distance is not None
    assert 0 <= found.score_distance <= 1
    known = {s.label: s.score for s in given_labels}
    assert found.score_distance == pytest.approx(abs(served[0].score - known.get(served[0].label, 0.0)))


@given(scores)
def test_a_failed_candidate_agrees_with_nothing(served: tuple[LabelScore, ...]) -> None:
    found = compare(replace(result(), labels=served), candidate_version=2, device="CPU", labels=None, latency_us=5)
    assert (found.failed, found.agreed, found.score_distance) == (True, False, None)


@given(st.lists(st.floats(0, 100), max_size=300))
def test_what_is_said_to_exceed_does_so_however_the_window_fills(latencies_ms: list[float]) -> None:
    exceeds = p99_exceeds(latencies_ms, 50.0, window=300)
    quickest = sorted([*latencies_ms, *[0.0] * (300 - len(latencies_ms))])
    assert exceeds == (quickest[296] > 50.0), "the 297th of 300: 1 % are above it"


def test_candidates_that_cannot_be_compared_say_why() -> None:
    assert why_not_comparable(SIGNATURE, SIGNATURE) == ""
    other = replace(SIGNATURE, inputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),))
    assert "'y'" in why_not_comparable(SIGNATURE, other)
    wider = replace(SIGNATURE, inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),))
    assert "[-1, 4]" in why_not_comparable(SIGNATURE, wider)
    boxes = ModelSignature(
        entry_path="m", inputs=SIGNATURE.inputs, outputs=(TensorSpec(name="b", datatype="FP32", shape=(1, 9, 4)),)
    )
    assert "no top label" in why_not_comparable(SIGNATURE, boxes)
