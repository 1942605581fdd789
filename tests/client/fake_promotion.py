"""The part of the controller in memory that judges, promotes and follows versions."""

# ruff: noqa: N802 (methods of servicers are named as the contract names them)

from typing import TYPE_CHECKING, Any

import grpc
from lineside.v1 import (
    lineage_service_pb2,
    lineage_service_pb2_grpc,
    promotion_pb2,
    promotion_service_pb2,
    promotion_service_pb2_grpc,
    training_policy_pb2,
    training_policy_service_pb2,
    training_policy_service_pb2_grpc,
)

from tests.client.fake_answers import find, page

if TYPE_CHECKING:
    from tests.client.fake_controller import FakeController

Policy = training_policy_pb2.TrainingPolicy


class Promotions(promotion_service_pb2_grpc.PromotionServiceServicer):
    """Answers from `promotions`."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        promotion_service_pb2_grpc.add_PromotionServiceServicer_to_server(self, server)

    def GetPromotion(self, request: Any, context: Any) -> promotion_pb2.Promotion:
        promotion: promotion_pb2.Promotion = find(self._fake.promotions, request.name, context)
        return promotion

    def ListPromotions(self, request: Any, context: Any) -> promotion_service_pb2.ListPromotionsResponse:
        wanted = [one for one in self._fake.promotions.values() if request.model in ("", one.model)]
        promotions, token = page(wanted, request)
        return promotion_service_pb2.ListPromotionsResponse(promotions=promotions, next_page_token=token)

    def ApprovePromotion(self, request: Any, context: Any) -> promotion_pb2.Promotion:
        return self._decide(request, context, promotion_pb2.Promotion.STATE_APPROVED)

    def RejectPromotion(self, request: Any, context: Any) -> promotion_pb2.Promotion:
        return self._decide(request, context, promotion_pb2.Promotion.STATE_DECLINED)

    def _decide(
        self, request: Any, context: Any, state: "promotion_pb2.Promotion.State.ValueType"
    ) -> promotion_pb2.Promotion:
        promotion = self.GetPromotion(request, context)
        promotion.state, promotion.message = state, request.reason
        return promotion


class TrainingPolicies(training_policy_service_pb2_grpc.TrainingPolicyServiceServicer):
    """Keeps policies as they are set, and explains as it was told."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        training_policy_service_pb2_grpc.add_TrainingPolicyServiceServicer_to_server(self, server)

    def GetTrainingPolicy(self, request: Any, context: Any) -> Policy:
        policy: Policy = find(self._fake.training_policies, request.name, context)
        return policy

    def ListTrainingPolicies(
        self, request: Any, context: Any
    ) -> training_policy_service_pb2.ListTrainingPoliciesResponse:
        policies, token = page(list(self._fake.training_policies.values()), request)
        return training_policy_service_pb2.ListTrainingPoliciesResponse(
            training_policies=policies, next_page_token=token
        )

    def UpdateTrainingPolicy(self, request: Any, context: Any) -> Policy:
        kept = Policy()
        kept.CopyFrom(request.training_policy)
        kept.etag = str(int(kept.etag or -1) + 1)
        self._fake.training_policies[kept.name] = kept
        return kept

    def ExplainTrainingPolicy(
        self, request: Any, context: Any
    ) -> training_policy_service_pb2.ExplainTrainingPolicyResponse:
        find(self._fake.training_policies, request.name, context)
        return training_policy_service_pb2.ExplainTrainingPolicyResponse(
            trigger="drift", message="inputs have drifted at agents/st-1, and 3 of 9 labelled samples are new"
        )


class Lineages(lineage_service_pb2_grpc.LineageServiceServicer):
    """Answers from `lineages`."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        lineage_service_pb2_grpc.add_LineageServiceServicer_to_server(self, server)

    def GetLineage(self, request: Any, context: Any) -> lineage_service_pb2.Lineage:
        lineage: lineage_service_pb2.Lineage = find(self._fake.lineages, request.name, context)
        return lineage
