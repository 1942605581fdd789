"""OperatorService."""

from lineside.v1 import operator_pb2, operator_service_pb2, operator_service_pb2_grpc

from controlplane.app.operators import Operators
from controlplane.rpc.authentication import Context, current_actor, current_operator
from controlplane.rpc.convert.names import parse_operator_name
from controlplane.rpc.convert.operators import operator_to_proto


class OperatorServicer(operator_service_pb2_grpc.OperatorServiceServicer):
    """Who may use the operators' API."""

    def __init__(self, operators: Operators) -> None:
        self._operators = operators

    async def CreateOperator(
        self, request: operator_service_pb2.CreateOperatorRequest, context: Context
    ) -> operator_pb2.Operator:
        created = await self._operators.create(
            request.operator_id, description=request.operator.description, actor=current_actor()
        )
        return operator_to_proto(created.operator, text=created.text)

    async def ListOperators(
        self, request: operator_service_pb2.ListOperatorsRequest, context: Context
    ) -> operator_service_pb2.ListOperatorsResponse:
        page = await self._operators.list(page_size=request.page_size, page_token=request.page_token)
        return operator_service_pb2.ListOperatorsResponse(
            operators=map(operator_to_proto, page.items), next_page_token=page.next_token
        )

    async def RevokeOperator(
        self, request: operator_service_pb2.RevokeOperatorRequest, context: Context
    ) -> operator_pb2.Operator:
        operator_id = parse_operator_name(request.name, field="name")
        return operator_to_proto(await self._operators.revoke(operator_id, actor=current_actor()))

    async def GetCurrentOperator(
        self, request: operator_service_pb2.GetCurrentOperatorRequest, context: Context
    ) -> operator_pb2.Operator:
        return operator_to_proto(current_operator())
