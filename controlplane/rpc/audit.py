"""AuditService."""

from lineside.v1 import audit_service_pb2, audit_service_pb2_grpc

from controlplane.app.audit import Audit
from controlplane.rpc.authentication import Context
from controlplane.rpc.convert.audit import event_to_proto, filter_from_proto


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """The log of decisions, for operators."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def ListAuditEvents(
        self, request: audit_service_pb2.ListAuditEventsRequest, context: Context
    ) -> audit_service_pb2.ListAuditEventsResponse:
        page = await self._audit.list(
            filter_from_proto(request),
            page_size=request.page_size,
            page_token=request.page_token,
            oldest_first=request.oldest_first,
        )
        return audit_service_pb2.ListAuditEventsResponse(
            audit_events=map(event_to_proto, page.items), next_page_token=page.next_token
        )
