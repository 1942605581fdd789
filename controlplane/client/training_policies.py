"""Training policies: when a model is trained anew, what a candidate must show, how it goes out."""

from collections.abc import Iterator

from lineside.v1 import training_policy_pb2, training_policy_service_pb2, training_policy_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.errors import ApiError
from controlplane.client.names import model_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Repeat


class TrainingPolicies:
    """Calls of TrainingPolicyService. A policy is named by its model."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = training_policy_service_pb2_grpc.TrainingPolicyServiceStub(connection.api)

    def get(self, model: str) -> training_policy_pb2.TrainingPolicy:
        """Return the policy of a model."""
        request = training_policy_service_pb2.GetTrainingPolicyRequest(name=policy_name(model))
        return self._connection.call(self._stub.GetTrainingPolicy, request)

    def find(self, model: str) -> training_policy_pb2.TrainingPolicy | None:
        """Return the policy of a model, None where it has none."""
        try:
            return self.get(model)
        except ApiError as refusal:
            if refusal.code == "NOT_FOUND":
                return None
            raise

    def list(self, *, limit: int | None = None) -> Iterator[training_policy_pb2.TrainingPolicy]:
        """Yield policies by model."""

        def fetch(size: int, token: str) -> tuple[list[training_policy_pb2.TrainingPolicy], str]:
            request = training_policy_service_pb2.ListTrainingPoliciesRequest(page_size=size, page_token=token)
            page = self._connection.call(self._stub.ListTrainingPolicies, request)
            return [*page.training_policies], page.next_page_token

        return iterate(fetch, limit=limit)

    def set(self, policy: training_policy_pb2.TrainingPolicy) -> training_policy_pb2.TrainingPolicy:
        """Set the whole policy of the model that its name tells; with an etag, only over that state of it."""
        request = training_policy_service_pb2.UpdateTrainingPolicyRequest(training_policy=policy)
        repeat = Repeat.NEVER if policy.etag else Repeat.LOST_RACE
        return self._connection.call(self._stub.UpdateTrainingPolicy, request, repeat=repeat)

    def explain(self, model: str) -> training_policy_service_pb2.ExplainTrainingPolicyResponse:
        """Return which trigger would fire now, and why the others do not."""
        request = training_policy_service_pb2.ExplainTrainingPolicyRequest(name=policy_name(model))
        return self._connection.call(self._stub.ExplainTrainingPolicy, request)


def policy_name(model: str) -> str:
    """Return the name of a model's policy."""
    return f"{model_name(model)}/trainingPolicy"
