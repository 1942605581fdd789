"""DeploymentService."""

from lineside.v1 import deployment_pb2, deployment_service_pb2, deployment_service_pb2_grpc

from controlplane.app.deployments import Deployments
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.deployments import deployment_request_from_proto, deployment_to_proto
from controlplane.rpc.convert.etags import parse_etag
from controlplane.rpc.convert.names import parse_deployment_name


class DeploymentServicer(deployment_service_pb2_grpc.DeploymentServiceServicer):
    """Deployments, for operators."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    async def CreateDeployment(
        self, request: deployment_service_pb2.CreateDeploymentRequest, context: Context
    ) -> deployment_pb2.Deployment:
        wanted = deployment_request_from_proto(request)
        return deployment_to_proto(await self._deployments.create(wanted, actor=current_actor()))

    async def GetDeployment(
        self, request: deployment_service_pb2.GetDeploymentRequest, context: Context
    ) -> deployment_pb2.Deployment:
        return deployment_to_proto(await self._deployments.get(parse_deployment_name(request.name, field="name")))

    async def ListDeployments(
        self, request: deployment_service_pb2.ListDeploymentsRequest, context: Context
    ) -> deployment_service_pb2.ListDeploymentsResponse:
        page = await self._deployments.list(page_size=request.page_size, page_token=request.page_token)
        return deployment_service_pb2.ListDeploymentsResponse(
            deployments=map(deployment_to_proto, page.items), next_page_token=page.next_token
        )

    async def DeleteDeployment(
        self, request: deployment_service_pb2.DeleteDeploymentRequest, context: Context
    ) -> deployment_pb2.Deployment:
        deployment_id = parse_deployment_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return deployment_to_proto(
            await self._deployments.delete(deployment_id, actor=current_actor(), revision=revision)
        )
