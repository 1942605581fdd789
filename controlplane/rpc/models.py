"""ModelService."""

from lineside.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc

from controlplane.app.registry import Registry
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.artifacts import artifact_from_proto
from controlplane.rpc.convert.models import model_to_proto, version_to_proto
from controlplane.rpc.convert.names import parse_model_name, parse_version_name


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """The registry, for operators."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def CreateModel(self, request: model_service_pb2.CreateModelRequest, context: Context) -> model_pb2.Model:
        return model_to_proto(
            await self._registry.create(
                request.model_id,
                actor=current_actor(),
                description=request.model.description,
                request_id=request.request_id,
            )
        )

    async def GetModel(self, request: model_service_pb2.GetModelRequest, context: Context) -> model_pb2.Model:
        return model_to_proto(await self._registry.get(parse_model_name(request.name, field="name")))

    async def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: Context
    ) -> model_service_pb2.ListModelsResponse:
        page = await self._registry.list(page_size=request.page_size, page_token=request.page_token)
        return model_service_pb2.ListModelsResponse(
            models=map(model_to_proto, page.items), next_page_token=page.next_token
        )

    async def PublishModelVersion(
        self, request: model_service_pb2.PublishModelVersionRequest, context: Context
    ) -> model_pb2.ModelVersion:
        version = await self._registry.publish(
            parse_model_name(request.parent, field="parent"),
            artifact_from_proto(request.artifact),
            actor=current_actor(),
            notes=request.notes,
            request_id=request.request_id,
        )
        return version_to_proto(version)

    async def GetModelVersion(
        self, request: model_service_pb2.GetModelVersionRequest, context: Context
    ) -> model_pb2.ModelVersion:
        model_id, number = parse_version_name(request.name, field="name")
        return version_to_proto(await self._registry.get_version(model_id, number))

    async def ListModelVersions(
        self, request: model_service_pb2.ListModelVersionsRequest, context: Context
    ) -> model_service_pb2.ListModelVersionsResponse:
        page = await self._registry.list_versions(
            parse_model_name(request.parent, field="parent"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return model_service_pb2.ListModelVersionsResponse(
            model_versions=map(version_to_proto, page.items), next_page_token=page.next_token
        )

    async def YankModelVersion(
        self, request: model_service_pb2.YankModelVersionRequest, context: Context
    ) -> model_pb2.ModelVersion:
        model_id, number = parse_version_name(request.name, field="name")
        return version_to_proto(
            await self._registry.yank(model_id, number, reason=request.reason, actor=current_actor())
        )

    async def UnyankModelVersion(
        self, request: model_service_pb2.UnyankModelVersionRequest, context: Context
    ) -> model_pb2.ModelVersion:
        model_id, number = parse_version_name(request.name, field="name")
        return version_to_proto(await self._registry.unyank(model_id, number, actor=current_actor()))
