"""Join tokens."""

import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta

from lineside.v1 import join_token_pb2, join_token_service_pb2, join_token_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.names import join_token_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Repeat


class Tokens:
    """Calls of JoinTokenService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = join_token_service_pb2_grpc.JoinTokenServiceStub(connection.api)

    def create(self, *, uses: int, ttl: timedelta, labels: Mapping[str, str] | None = None) -> join_token_pb2.JoinToken:
        """Create a join token. Its secret, in `token`, is in this answer and nowhere else, so it is never repeated."""
        token = join_token_pb2.JoinToken(uses=uses, labels=dict(labels or {}))
        token.ttl.FromTimedelta(ttl)
        request = join_token_service_pb2.CreateJoinTokenRequest(join_token=token, request_id=str(uuid.uuid4()))
        return self._connection.call(self._stub.CreateJoinToken, request, repeat=Repeat.NEVER)

    def list(self, *, limit: int | None = None) -> Iterator[join_token_pb2.JoinToken]:
        """Yield join tokens without their secrets, newest first."""

        def fetch(size: int, token: str) -> tuple[list[join_token_pb2.JoinToken], str]:
            request = join_token_service_pb2.ListJoinTokensRequest(page_size=size, page_token=token)
            page = self._connection.call(self._stub.ListJoinTokens, request)
            return [*page.join_tokens], page.next_page_token

        return iterate(fetch, limit=limit)

    def revoke(self, token: str) -> join_token_pb2.JoinToken:
        """End a join token before its time, by its id, not its text; agents that it enrolled stay."""
        request = join_token_service_pb2.RevokeJoinTokenRequest(name=join_token_name(token))
        return self._connection.call(self._stub.RevokeJoinToken, request)
