"""Deployments: standing intent."""

import uuid
from collections.abc import Iterator

from lineside.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc, slot_pb2

from controlplane.client.channel import Connection
from controlplane.client.names import deployment_name, model_name, version_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Repeat


class Deployments:
    """Calls of DeploymentService. Deployments are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = deployment_service_pb2_grpc.DeploymentServiceStub(connection.api)

    def create(
        self,
        deployment: str,
        *,
        model: str,
        selector: str,
        version: int | None = None,
        runtime_policy: slot_pb2.RuntimePolicy | None = None,
        sample_policy: slot_pb2.SamplePolicy | None = None,
        result_policy: slot_pb2.ResultPolicy | None = None,
        allow_empty: bool = False,
        priority: int = 0,
    ) -> deployment_pb2.Deployment:
        """Ask for `model` on every agent that matches `selector`, at `version`, or none until the first rollout.

        Without a sample policy the controller's default holds, without a result policy every result is kept. Where
        deployments of one model match one agent the higher priority holds it.
        """
        wanted = deployment_pb2.Deployment(
            model=model_name(model),
            model_version="" if version is None else version_name(model, version),
            selector=selector,
            runtime_policy=runtime_policy,
            sample_policy=sample_policy,
            result_policy=result_policy,
            priority=priority,
        )
        request = deployment_service_pb2.CreateDeploymentRequest(
            deployment_id=deployment, deployment=wanted, allow_empty=allow_empty, request_id=str(uuid.uuid4())
        )
        return self._connection.call(self._stub.CreateDeployment, request)

    def get(self, deployment: str) -> deployment_pb2.Deployment:
        """Return a deployment."""
        request = deployment_service_pb2.GetDeploymentRequest(name=deployment_name(deployment))
        return self._connection.call(self._stub.GetDeployment, request)

    def list(self, *, limit: int | None = None) -> Iterator[deployment_pb2.Deployment]:
        """Yield deployments by name."""

        def fetch(size: int, token: str) -> tuple[list[deployment_pb2.Deployment], str]:
            request = deployment_service_pb2.ListDeploymentsRequest(page_size=size, page_token=token)
            page = self._connection.call(self._stub.ListDeployments, request)
            return [*page.deployments], page.next_page_token

        return iterate(fetch, limit=limit)

    def delete(self, deployment: str, *, etag: str = "") -> deployment_pb2.Deployment:
        """End a deployment; its slots are unloaded. Returns it as it last stood."""
        request = deployment_service_pb2.DeleteDeploymentRequest(name=deployment_name(deployment), etag=etag)
        return self._connection.call(self._stub.DeleteDeployment, request, repeat=_repeat(etag))


def _repeat(etag: str) -> Repeat:
    """With an etag a lost race is the caller's to judge: what was seen is no longer so."""
    return Repeat.NEVER if etag else Repeat.LOST_RACE
