"""Conditions, as JSON."""

from typing import Any

from controlplane.domain.condition import Condition, ConditionState
from controlplane.store.mapping.values import Row, time_from_json, time_to_json


def condition_to_json(condition: Condition) -> dict[str, Any]:
    return {
        "type": condition.type,
        "state": condition.state.value,
        "reason": condition.reason,
        "message": condition.message,
        "transition_time": time_to_json(condition.transition_time),
    }


def condition_from_json(value: Row) -> Condition:
    transition_time = time_from_json(value["transition_time"])
    assert transition_time is not None
    return Condition(
        type=value["type"],
        state=ConditionState(value["state"]),
        reason=value["reason"],
        message=value["message"],
        transition_time=transition_time,
    )
