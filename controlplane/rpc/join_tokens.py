"""JoinTokenService."""

from lineside.v1 import join_token_pb2, join_token_service_pb2, join_token_service_pb2_grpc

from controlplane.app.tokens import JoinTokens
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.names import parse_join_token_name
from controlplane.rpc.convert.tokens import join_token_request_from_proto, join_token_to_proto


class JoinTokenServicer(join_token_service_pb2_grpc.JoinTokenServiceServicer):
    """Join tokens, for operators."""

    def __init__(self, tokens: JoinTokens) -> None:
        self._tokens = tokens

    async def CreateJoinToken(
        self, request: join_token_service_pb2.CreateJoinTokenRequest, context: Context
    ) -> join_token_pb2.JoinToken:
        created = await self._tokens.create(join_token_request_from_proto(request), actor=current_actor())
        return join_token_to_proto(created.token, text=created.text)

    async def ListJoinTokens(
        self, request: join_token_service_pb2.ListJoinTokensRequest, context: Context
    ) -> join_token_service_pb2.ListJoinTokensResponse:
        page = await self._tokens.list(page_size=request.page_size, page_token=request.page_token)
        return join_token_service_pb2.ListJoinTokensResponse(
            join_tokens=map(join_token_to_proto, page.items), next_page_token=page.next_token
        )

    async def RevokeJoinToken(
        self, request: join_token_service_pb2.RevokeJoinTokenRequest, context: Context
    ) -> join_token_pb2.JoinToken:
        token_id = parse_join_token_name(request.name, field="name")
        return join_token_to_proto(await self._tokens.revoke(token_id, actor=current_actor()))
