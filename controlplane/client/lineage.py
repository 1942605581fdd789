"""Lineage: where versions come from and where they went."""

from lineside.v1 import lineage_service_pb2, lineage_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.names import version_name


class Lineages:
    """Calls of LineageService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = lineage_service_pb2_grpc.LineageServiceStub(connection.api)

    def get(self, model: str, version: int) -> lineage_service_pb2.Lineage:
        """Follow a version back to its samples and base versions, and forward to its stations."""
        request = lineage_service_pb2.GetLineageRequest(name=version_name(model, version))
        return self._connection.call(self._stub.GetLineage, request)
