"""ArtifactService."""

from collections.abc import AsyncIterator

from lineside.v1 import artifact_service_pb2, artifact_service_pb2_grpc

from controlplane.app.artifacts import Artifacts
from controlplane.rpc.authentication import Context, current_agent


class ArtifactServicer(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Model bytes, for the agent that they are assigned to."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    async def ReadBlob(
        self, request: artifact_service_pb2.ReadBlobRequest, context: Context
    ) -> AsyncIterator[artifact_service_pb2.ReadBlobResponse]:
        chunks = self._artifacts.read(current_agent(), request.digest, offset_bytes=request.offset_bytes)
        async for chunk in chunks:
            yield artifact_service_pb2.ReadBlobResponse(data=chunk)
