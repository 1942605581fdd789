"""Drift: whether what a slot sees is still what its version saw when it began to serve there."""

from collections.abc import Iterator
from datetime import datetime

import grpc
from lineside.v1 import drift_pb2, drift_service_pb2, drift_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import UnreachableError
from controlplane.client.names import agent_name, model_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Backoff

History = drift_service_pb2.QueryDriftHistoryResponse
News = drift_service_pb2.WatchDriftsResponse


class Drifts:
    """Calls of DriftService. A slot is an agent and a model; `version` 0 means the one that serves."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = drift_service_pb2_grpc.DriftServiceStub(connection.api)

    def list(
        self,
        *,
        model: str = "",
        agent: str = "",
        state: drift_pb2.Drift.State.ValueType = drift_pb2.Drift.STATE_UNSPECIFIED,
        all_versions: bool = False,
        limit: int | None = None,
    ) -> Iterator[drift_pb2.Drift]:
        """Yield drifts by agent, then model, then version, without their histograms."""

        def fetch(size: int, token: str) -> tuple[list[drift_pb2.Drift], str]:
            request = drift_service_pb2.ListDriftsRequest(
                model=model_name(model) if model else "",
                agent=agent_name(agent) if agent else "",
                state=state,
                all_versions=all_versions,
                page_size=size,
                page_token=token,
            )
            page = self._connection.call(self._stub.ListDrifts, request)
            return [*page.drifts], page.next_page_token

        return iterate(fetch, limit=limit)

    def get(self, agent: str, model: str, *, version: int = 0) -> drift_pb2.Drift:
        """Return a slot's drift with its histograms."""
        request = drift_service_pb2.GetDriftRequest(name=_name(agent, model, version))
        return self._connection.call(self._stub.GetDrift, request)

    def history(
        self,
        agent: str,
        model: str,
        *,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        points: int = 0,
    ) -> History:
        """Return how far a slot was from its references over a time, and what was decided; the last 24 hours without
        a start. Times are aware."""
        request = drift_service_pb2.QueryDriftHistoryRequest(name=_name(agent, model, 0), points=points)
        if start_time is not None:
            request.start_time.FromDatetime(start_time)
        if end_time is not None:
            request.end_time.FromDatetime(end_time)
        return self._connection.call(self._stub.QueryDriftHistory, request)

    def watch(self, *, model: str = "", timeout_seconds: float | None = None) -> Iterator[News]:
        """Yield the drifts that are flagged now, then each that begins or ends, until the time is up; open the stream
        again when it breaks, which begins with all of them anew. Raises UnreachableError when the controller stays away
        for longer than limits allow."""
        pacing = self._connection.pacing
        end = None if timeout_seconds is None else pacing.clock() + timeout_seconds
        backoff = Backoff(pacing, budget_seconds=limits.TRANSFER_RETRY_SECONDS)
        request = drift_service_pb2.WatchDriftsRequest(model=model_name(model) if model else "")
        while True:
            left = limits.WATCH_SECONDS if end is None else min(limits.WATCH_SECONDS, end - pacing.clock())
            if left <= 0:
                return
            try:
                for news in self._connection.receive(self._stub.WatchDrifts, request, deadline_seconds=left):
                    backoff.reset()
                    yield news
            except UnreachableError as error:
                if error.code != grpc.StatusCode.DEADLINE_EXCEEDED.name and not backoff.wait():
                    raise

    def relearn(self, agent: str, model: str, *, reason: str, version: int = 0) -> drift_pb2.Drift:
        """Take what the slot sees from now on as its reference, and end its drift."""
        request = drift_service_pb2.RelearnDriftRequest(name=_name(agent, model, version), reason=reason)
        return self._connection.call(self._stub.RelearnDrift, request)


def _name(agent: str, model: str, version: int) -> str:
    at = f"@{version}" if version else ""
    return f"{agent_name(agent)}/drifts/{model_name(model).removeprefix('models/')}{at}"
