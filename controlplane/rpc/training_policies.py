"""TrainingPolicyService."""

from lineside.v1 import training_policy_pb2, training_policy_service_pb2, training_policy_service_pb2_grpc

from controlplane.app.training_policies import TrainingPolicies
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.etags import parse_etag
from controlplane.rpc.convert.training_policies import (
    explanation_to_proto,
    parse_policy_name,
    policy_from_proto,
    policy_to_proto,
)


class TrainingPolicyServicer(training_policy_service_pb2_grpc.TrainingPolicyServiceServicer):
    """Training policies, for operators."""

    def __init__(self, policies: TrainingPolicies) -> None:
        self._policies = policies

    async def GetTrainingPolicy(
        self, request: training_policy_service_pb2.GetTrainingPolicyRequest, context: Context
    ) -> training_policy_pb2.TrainingPolicy:
        return policy_to_proto(await self._policies.get(parse_policy_name(request.name, field="name")))

    async def ListTrainingPolicies(
        self, request: training_policy_service_pb2.ListTrainingPoliciesRequest, context: Context
    ) -> training_policy_service_pb2.ListTrainingPoliciesResponse:
        page = await self._policies.list(page_size=request.page_size, page_token=request.page_token)
        return training_policy_service_pb2.ListTrainingPoliciesResponse(
            training_policies=map(policy_to_proto, page.items), next_page_token=page.next_token
        )

    async def UpdateTrainingPolicy(
        self, request: training_policy_service_pb2.UpdateTrainingPolicyRequest, context: Context
    ) -> training_policy_pb2.TrainingPolicy:
        wanted = policy_from_proto(request.training_policy, actor=current_actor())
        return policy_to_proto(await self._policies.put(wanted, revision=parse_etag(request.training_policy.etag)))

    async def ExplainTrainingPolicy(
        self, request: training_policy_service_pb2.ExplainTrainingPolicyRequest, context: Context
    ) -> training_policy_service_pb2.ExplainTrainingPolicyResponse:
        return explanation_to_proto(await self._policies.explain(parse_policy_name(request.name, field="name")))
