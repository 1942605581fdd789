"""Conditions on the wire."""

from types import MappingProxyType

from lineside.v1 import condition_pb2

from controlplane.domain.condition import Condition, ConditionState
from controlplane.rpc.convert.times import time_from_proto, time_to_proto

_Wire = condition_pb2.Condition

_TO_WIRE = MappingProxyType(
    {
        ConditionState.TRUE: _Wire.STATE_TRUE,
        ConditionState.FALSE: _Wire.STATE_FALSE,
        ConditionState.UNKNOWN: _Wire.STATE_UNKNOWN,
    }
)
_FROM_WIRE = MappingProxyType({wire: state for state, wire in _TO_WIRE.items()})


def condition_to_proto(condition: Condition) -> condition_pb2.Condition:
    """Return the condition."""
    return condition_pb2.Condition(
        type=condition.type,
        state=_TO_WIRE[condition.state],
        reason=condition.reason,
        message=condition.message,
        transition_time=time_to_proto(condition.transition_time),
    )


def condition_from_proto(message: condition_pb2.Condition, *, field: str) -> Condition:
    """Return the condition; a state that is not stated, or that a newer agent invented, is UNKNOWN."""
    return Condition(
        type=message.type,
        state=_FROM_WIRE.get(message.state, ConditionState.UNKNOWN),
        reason=message.reason,
        message=message.message,
        transition_time=time_from_proto(message.transition_time, field=f"{field}.transition_time"),
    )
