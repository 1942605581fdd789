"""LineageService."""

from lineside.v1 import lineage_service_pb2, lineage_service_pb2_grpc

from controlplane.app.lineage import Lineages
from controlplane.app.ports import Clock
from controlplane.rpc.authentication import Context
from controlplane.rpc.convert.lineage import lineage_to_proto
from controlplane.rpc.convert.names import parse_version_name


class LineageServicer(lineage_service_pb2_grpc.LineageServiceServicer):
    """Where versions come from and where they went, for operators."""

    def __init__(self, lineages: Lineages, *, clock: Clock, silent_seconds_max: float) -> None:
        self._lineages = lineages
        self._clock = clock
        self._silent_seconds_max = silent_seconds_max

    async def GetLineage(
        self, request: lineage_service_pb2.GetLineageRequest, context: Context
    ) -> lineage_service_pb2.Lineage:
        model_id, number = parse_version_name(request.name, field="name")
        lineage = await self._lineages.get(model_id, number)
        return lineage_to_proto(lineage, now=self._clock.now(), silent_seconds_max=self._silent_seconds_max)
