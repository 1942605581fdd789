"""Who may use the operators' API."""

from collections.abc import Iterator

from lineside.v1 import operator_pb2, operator_service_pb2, operator_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.names import operator_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Repeat


class Operators:
    """Calls of OperatorService. Operators are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = operator_service_pb2_grpc.OperatorServiceStub(connection.api)

    def create(self, operator: str, *, description: str = "") -> operator_pb2.Operator:
        """Create an operator. Its bearer token, in `token`, is in this answer alone, so the call is never repeated."""
        request = operator_service_pb2.CreateOperatorRequest(
            operator_id=operator, operator=operator_pb2.Operator(description=description)
        )
        return self._connection.call(self._stub.CreateOperator, request, repeat=Repeat.NEVER)

    def list(self, *, limit: int | None = None) -> Iterator[operator_pb2.Operator]:
        """Yield operators without their tokens, by name."""

        def fetch(size: int, token: str) -> tuple[list[operator_pb2.Operator], str]:
            request = operator_service_pb2.ListOperatorsRequest(page_size=size, page_token=token)
            page = self._connection.call(self._stub.ListOperators, request)
            return [*page.operators], page.next_page_token

        return iterate(fetch, limit=limit)

    def revoke(self, operator: str) -> operator_pb2.Operator:
        """Refuse the operator's token for good. Refused for the last one that is not revoked."""
        request = operator_service_pb2.RevokeOperatorRequest(name=operator_name(operator))
        return self._connection.call(self._stub.RevokeOperator, request)

    def current(self) -> operator_pb2.Operator:
        """Return who calls."""
        return self._connection.call(self._stub.GetCurrentOperator, operator_service_pb2.GetCurrentOperatorRequest())
