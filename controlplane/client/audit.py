"""The log of decisions."""

from collections.abc import Iterator
from datetime import datetime

from lineside.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc

from controlplane.client.channel import Connection
from controlplane.client.pages import iterate


class Audit:
    """Calls of AuditService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = audit_service_pb2_grpc.AuditServiceStub(connection.api)

    def list(
        self,
        *,
        resource: str = "",
        actor: str = "",
        action: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        oldest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[audit_pb2.AuditEvent]:
        """Yield decisions, newest first unless asked otherwise.

        `resource` and `actor` are resource names ("rollouts/r1", "operators/anna", "rules/gate"); `action` is a
        whole one ("wave.admit") or, ending in ".", its beginning ("rollout."). Times are aware.
        """

        def fetch(size: int, token: str) -> tuple[list[audit_pb2.AuditEvent], str]:
            request = audit_service_pb2.ListAuditEventsRequest(
                page_size=size,
                page_token=token,
                resource=resource,
                actor=actor,
                action=action,
                oldest_first=oldest_first,
            )
            if start_time is not None:
                request.start_time.FromDatetime(start_time)
            if end_time is not None:
                request.end_time.FromDatetime(end_time)
            page = self._connection.call(self._stub.ListAuditEvents, request)
            return [*page.audit_events], page.next_page_token

        return iterate(fetch, limit=limit)
