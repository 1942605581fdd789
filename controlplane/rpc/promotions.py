"""PromotionService."""

from lineside.v1 import promotion_pb2, promotion_service_pb2, promotion_service_pb2_grpc

from controlplane.app.promotions import Promotions
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.etags import parse_etag
from controlplane.rpc.convert.names import parse_model_name
from controlplane.rpc.convert.promotions import parse_promotion_name, promotion_to_proto


class PromotionServicer(promotion_service_pb2_grpc.PromotionServiceServicer):
    """Judgements of training runs and what follows from them, for operators."""

    def __init__(self, promotions: Promotions) -> None:
        self._promotions = promotions

    async def GetPromotion(
        self, request: promotion_service_pb2.GetPromotionRequest, context: Context
    ) -> promotion_pb2.Promotion:
        return promotion_to_proto(await self._promotions.get(parse_promotion_name(request.name, field="name")))

    async def ListPromotions(
        self, request: promotion_service_pb2.ListPromotionsRequest, context: Context
    ) -> promotion_service_pb2.ListPromotionsResponse:
        page = await self._promotions.list(
            model_id=parse_model_name(request.model, field="model") if request.model else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return promotion_service_pb2.ListPromotionsResponse(
            promotions=map(promotion_to_proto, page.items), next_page_token=page.next_token
        )

    async def ApprovePromotion(
        self, request: promotion_service_pb2.ApprovePromotionRequest, context: Context
    ) -> promotion_pb2.Promotion:
        approved = await self._promotions.approve(
            parse_promotion_name(request.name, field="name"),
            actor=current_actor(),
            reason=request.reason,
            revision=parse_etag(request.etag),
        )
        return promotion_to_proto(approved)

    async def RejectPromotion(
        self, request: promotion_service_pb2.RejectPromotionRequest, context: Context
    ) -> promotion_pb2.Promotion:
        declined = await self._promotions.decline(
            parse_promotion_name(request.name, field="name"),
            actor=current_actor(),
            reason=request.reason,
            revision=parse_etag(request.etag),
        )
        return promotion_to_proto(declined)
