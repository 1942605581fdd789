"""Promotions: how the candidates of training runs were judged, and what became of them."""

from collections.abc import Iterator

from lineside.v1 import promotion_pb2, promotion_service_pb2, promotion_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.names import model_name, training_run_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Repeat


class Promotions:
    """Calls of PromotionService. A promotion is named by its training run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = promotion_service_pb2_grpc.PromotionServiceStub(connection.api)

    def get(self, run: str) -> promotion_pb2.Promotion:
        """Return how a run was judged."""
        request = promotion_service_pb2.GetPromotionRequest(name=_name(run))
        return self._connection.call(self._stub.GetPromotion, request)

    def list(self, *, model: str = "", limit: int | None = None) -> Iterator[promotion_pb2.Promotion]:
        """Yield promotions, newest first."""

        def fetch(size: int, token: str) -> tuple[list[promotion_pb2.Promotion], str]:
            request = promotion_service_pb2.ListPromotionsRequest(
                model=model_name(model) if model else "", page_size=size, page_token=token
            )
            page = self._connection.call(self._stub.ListPromotions, request)
            return [*page.promotions], page.next_page_token

        return iterate(fetch, limit=limit)

    def approve(self, run: str, *, reason: str = "") -> promotion_pb2.Promotion:
        """Let a proposed candidate be published and go out."""
        request = promotion_service_pb2.ApprovePromotionRequest(name=_name(run), reason=reason)
        return self._connection.call(self._stub.ApprovePromotion, request, repeat=Repeat.LOST_RACE)

    def reject(self, run: str, *, reason: str) -> promotion_pb2.Promotion:
        """Let it not go out, or no further."""
        request = promotion_service_pb2.RejectPromotionRequest(name=_name(run), reason=reason)
        return self._connection.call(self._stub.RejectPromotion, request, repeat=Repeat.LOST_RACE)


def _name(run: str) -> str:
    return f"{training_run_name(run)}/promotion"
