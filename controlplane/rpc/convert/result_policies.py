"""Result policies on the wire."""

from types import MappingProxyType

from lineside.v1 import slot_pb2

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.result_policy import ResultKeep, ResultPolicy

_KEEPS = MappingProxyType(
    {
        ResultKeep.ALL: slot_pb2.ResultPolicy.KEEP_ALL,
        ResultKeep.DOUBTFUL: slot_pb2.ResultPolicy.KEEP_DOUBTFUL,
        ResultKeep.ONE_IN: slot_pb2.ResultPolicy.KEEP_ONE_IN,
    }
)
_KEEPS_FROM_WIRE = MappingProxyType({wire: keep for keep, wire in _KEEPS.items()})


def result_policy_to_proto(policy: ResultPolicy) -> slot_pb2.ResultPolicy:
    return slot_pb2.ResultPolicy(
        keep=_KEEPS[policy.keep],
        good_labels=policy.good_labels,
        good_score_min=policy.good_score_min,
        one_in=policy.one_in,
    )


def result_policy_from_proto(message: slot_pb2.ResultPolicy) -> ResultPolicy:
    """Return the policy; what is not stated keeps all. Raises FieldInvalidError as its constructor does."""
    if len(message.good_labels) > limits.LABELS_GOOD_MAX:
        raise FieldInvalidError(
            f"{len(message.good_labels)} labels",
            field="deployment.result_policy.good_labels",
            remedy=f"name at most {limits.LABELS_GOOD_MAX}",
        )
    return ResultPolicy(
        keep=_KEEPS_FROM_WIRE.get(message.keep, ResultKeep.ALL),
        good_labels=tuple(message.good_labels),
        good_score_min=message.good_score_min,
        one_in=message.one_in,
    )
