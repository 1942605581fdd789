"""Result policies: each word with what belongs to it."""

from typing import Any

import pytest

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.result_policy import ResultKeep, ResultPolicy
from controlplane.rpc.convert.result_policies import result_policy_from_proto, result_policy_to_proto
from controlplane.store.mapping.result_policy import result_policy_from_json, result_policy_to_json

POLICIES = (
    ResultPolicy(),
    ResultPolicy(keep=ResultKeep.DOUBTFUL, good_labels=("good", "ok"), good_score_min=0.9),
    ResultPolicy(keep=ResultKeep.DOUBTFUL, good_labels=("good",)),
    ResultPolicy(keep=ResultKeep.ONE_IN, one_in=2),
)


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_survive_the_wire_and_the_database(policy: ResultPolicy) -> None:
    assert result_policy_from_proto(result_policy_to_proto(policy)) == policy
    assert result_policy_from_json(result_policy_to_json(policy)) == policy


def test_a_row_of_an_earlier_controller_keeps_all() -> None:
    assert result_policy_from_json({}) == ResultPolicy()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"keep": ResultKeep.DOUBTFUL}, "good_labels"),
        ({"good_labels": ("good",)}, "good_labels"),
        ({"keep": ResultKeep.DOUBTFUL, "good_labels": ("good",), "good_score_min": 1.5}, "good_score_min"),
        ({"keep": ResultKeep.DOUBTFUL, "good_labels": ("good",), "good_score_min": float("nan")}, "good_score_min"),
        ({"good_score_min": 0.5}, "good_score_min"),
        ({"keep": ResultKeep.ONE_IN}, "one_in"),
        ({"keep": ResultKeep.ONE_IN, "one_in": 1}, "one_in"),
        ({"one_in": 5}, "one_in"),
        ({"keep": ResultKeep.ONE_IN, "one_in": -3}, "one_in"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        ResultPolicy(**fields)
    assert refusal.value.field == f"deployment.result_policy.{field}"
    assert refusal.value.remedy
