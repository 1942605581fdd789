"""Result policies as JSON."""

from typing import Any

from controlplane.domain.result_policy import ResultKeep, ResultPolicy
from controlplane.store.mapping.values import Row


def result_policy_to_json(policy: ResultPolicy) -> dict[str, Any]:
    return {
        "keep": policy.keep.value,
        "good_labels": list(policy.good_labels),
        "good_score_min": policy.good_score_min,
        "one_in": policy.one_in,
    }


def result_policy_from_json(value: Row) -> ResultPolicy:
    """Rows of earlier controllers say nothing, and keep all."""
    return ResultPolicy(
        keep=ResultKeep(value.get("keep", ResultKeep.ALL)),
        good_labels=tuple(value.get("good_labels", ())),
        good_score_min=value.get("good_score_min", 0.0),
        one_in=value.get("one_in", 0),
    )
