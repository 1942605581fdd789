"""The part of the controller in memory that tells of drift."""

# ruff: noqa: N802 (methods of servicers are named as the contract names them)

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
from lineside.v1 import drift_pb2, drift_service_pb2, drift_service_pb2_grpc

from tests.client.fake_answers import find, page

if TYPE_CHECKING:
    from tests.client.fake_controller import FakeController


class Drifts(drift_service_pb2_grpc.DriftServiceServicer):
    """Answers from `drifts`, `drift_history` and `drift_news`."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        drift_service_pb2_grpc.add_DriftServiceServicer_to_server(self, server)

    def ListDrifts(self, request: Any, context: Any) -> drift_service_pb2.ListDriftsResponse:
        wanted = [drift for drift in self._fake.drifts.values() if request.state in (0, drift.state)]
        drifts, token = page(wanted, request)
        return drift_service_pb2.ListDriftsResponse(drifts=drifts, next_page_token=token)

    def GetDrift(self, request: Any, context: Any) -> drift_pb2.Drift:
        drift: drift_pb2.Drift = find(self._fake.drifts, request.name, context)
        return drift

    def QueryDriftHistory(self, request: Any, context: Any) -> drift_service_pb2.QueryDriftHistoryResponse:
        return self._fake.drift_history

    def WatchDrifts(self, request: Any, context: Any) -> Iterator[drift_service_pb2.WatchDriftsResponse]:
        yield from self._fake.drift_news
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "time is up")

    def RelearnDrift(self, request: Any, context: Any) -> drift_pb2.Drift:
        drift = self.GetDrift(request, context)
        drift.state, drift.message = drift_pb2.Drift.STATE_LEARNING, request.reason
        return drift
