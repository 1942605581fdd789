"""DriftService."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from lineside.v1 import drift_pb2, drift_service_pb2, drift_service_pb2_grpc

from controlplane.app.drift import Drifts
from controlplane.domain.errors import FieldInvalidError
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.drift import (
    drift_to_proto,
    filter_from_proto,
    history_to_proto,
    news_to_proto,
    parse_drift_name,
)
from controlplane.rpc.convert.names import parse_model_name
from controlplane.rpc.convert.times import time_from_proto


class DriftServicer(drift_service_pb2_grpc.DriftServiceServicer):
    """Drift, for operators."""

    def __init__(self, drifts: Drifts) -> None:
        self._drifts = drifts

    async def ListDrifts(
        self, request: drift_service_pb2.ListDriftsRequest, context: Context
    ) -> drift_service_pb2.ListDriftsResponse:
        page = await self._drifts.list(
            filter_from_proto(request), page_size=request.page_size, page_token=request.page_token
        )
        return drift_service_pb2.ListDriftsResponse(
            drifts=(drift_to_proto(shown, self._drifts.policy) for shown in page.items),
            next_page_token=page.next_token,
        )

    async def GetDrift(self, request: drift_service_pb2.GetDriftRequest, context: Context) -> drift_pb2.Drift:
        shown = await self._drifts.get(*parse_drift_name(request.name, field="name"))
        return drift_to_proto(shown, self._drifts.policy, whole=True)

    async def QueryDriftHistory(
        self, request: drift_service_pb2.QueryDriftHistoryRequest, context: Context
    ) -> drift_service_pb2.QueryDriftHistoryResponse:
        agent_id, model_id, _ = parse_drift_name(request.name, field="name")
        if request.points < 0:
            raise FieldInvalidError(f"{request.points} points", field="points", remedy="leave it 0 for the default")
        has_start, has_end = request.HasField("start_time"), request.HasField("end_time")
        history = await self._drifts.history(
            agent_id,
            model_id,
            start_time=time_from_proto(request.start_time, field="start_time") if has_start else None,
            end_time=time_from_proto(request.end_time, field="end_time") if has_end else None,
            points=request.points,
        )
        return history_to_proto(history, model_id)

    async def WatchDrifts(
        self, request: drift_service_pb2.WatchDriftsRequest, context: Context
    ) -> AsyncIterator[drift_service_pb2.WatchDriftsResponse]:
        model_id = parse_model_name(request.model, field="model") if request.model else None
        async with aclosing(self._drifts.watch(model_id)) as changes:
            async for news in changes:
                yield news_to_proto(news, self._drifts.policy)

    async def RelearnDrift(self, request: drift_service_pb2.RelearnDriftRequest, context: Context) -> drift_pb2.Drift:
        agent_id, model_id, version = parse_drift_name(request.name, field="name")
        shown = await self._drifts.relearn(agent_id, model_id, version, reason=request.reason, actor=current_actor())
        return drift_to_proto(shown, self._drifts.policy, whole=True)
