"""Operators on the wire."""

from lineside.v1 import operator_pb2

from controlplane.domain.identity import OperatorToken
from controlplane.rpc.convert.times import time_to_proto


def operator_to_proto(operator: OperatorToken, *, text: str = "") -> operator_pb2.Operator:
    """Return the operator; `text`, the bearer token, only in the answer to its creation."""
    return operator_pb2.Operator(
        name=f"operators/{operator.id}",
        create_time=time_to_proto(operator.create_time),
        description=operator.description,
        revoked=operator.revoked,
        token=text,
    )
