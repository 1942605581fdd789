"""The log of decisions on the wire."""

import json

from lineside.v1 import audit_pb2, audit_service_pb2

from controlplane.app.ports import AuditFilter
from controlplane.domain.audit import AuditEvent
from controlplane.rpc.convert.times import time_from_proto, time_to_proto


def event_to_proto(event: AuditEvent) -> audit_pb2.AuditEvent:
    """Return the event; its evidence as JSON with sorted keys, empty where there is none."""
    happening = event.happening
    evidence = dict(happening.evidence)
    return audit_pb2.AuditEvent(
        name=f"auditEvents/{event.id}",
        create_time=time_to_proto(event.create_time),
        actor=happening.actor,
        action=happening.action,
        resource=happening.resource,
        reason=happening.reason,
        message=happening.message,
        evidence_json=json.dumps(evidence, sort_keys=True, ensure_ascii=False) if evidence else "",
        related_resources=happening.related,
    )


def filter_from_proto(message: audit_service_pb2.ListAuditEventsRequest) -> AuditFilter:
    """Return which events are asked for; what is empty or absent asks for any. Raises FieldInvalidError."""
    has_start, has_end = message.HasField("start_time"), message.HasField("end_time")
    return AuditFilter(
        resource=message.resource or None,
        actor=message.actor or None,
        action=message.action or None,
        start_time=time_from_proto(message.start_time, field="start_time") if has_start else None,
        end_time=time_from_proto(message.end_time, field="end_time") if has_end else None,
    )
