"""Join tokens on the wire."""

from lineside.v1 import join_token_pb2, join_token_service_pb2

from controlplane.app.tokens import JoinTokenRequest
from controlplane.domain.identity import JoinToken
from controlplane.rpc.convert.times import duration_from_proto, duration_to_proto, time_to_proto


def join_token_to_proto(token: JoinToken, *, text: str = "") -> join_token_pb2.JoinToken:
    """Return the token; `text`, with the secret, only in the answer to its creation."""
    return join_token_pb2.JoinToken(
        name=f"joinTokens/{token.id}",
        uid=token.uid,
        create_time=time_to_proto(token.create_time),
        ttl=duration_to_proto(token.expire_time - token.create_time),
        expire_time=time_to_proto(token.expire_time),
        uses=token.uses,
        used=token.used,
        labels=dict(token.labels),
        token=text,
        revoked=token.revoked,
    )


def join_token_request_from_proto(message: join_token_service_pb2.CreateJoinTokenRequest) -> JoinTokenRequest:
    """Return what is asked for."""
    wanted = message.join_token
    return JoinTokenRequest(
        uses=wanted.uses,
        ttl=duration_from_proto(wanted.ttl, field="join_token.ttl"),
        labels=dict(wanted.labels),
        request_id=message.request_id,
    )
