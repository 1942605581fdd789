"""The log of decisions on the wire."""

import json
import re

from lineside.v1 import audit_pb2, audit_service_pb2

from controlplane.app.ports import AuditFilter
from controlplane.domain.audit import AuditEvent
from controlplane.domain.errors import FieldInvalidError
from controlplane.rpc.convert.times import time_from_proto, time_to_proto

_RESOURCE = re.compile(r"[A-Za-z]+/[\w.@-]+(/[A-Za-z]+/[\w.@-]+)*", re.ASCII)
_ACTOR = re.compile(r"(operators|agents|rules)/[\w.-]+", re.ASCII)
_ACTION = re.compile(r"[a-z_]+\.[a-z_]*")


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
        resource=_matched(message.resource, _RESOURCE, field="resource", remedy="write for example rollouts/r1"),
        actor=_matched(message.actor, _ACTOR, field="actor", remedy="write for example operators/anna or rules/gate"),
        action=_matched(
            message.action, _ACTION, field="action", remedy='write for example wave.admit, or "wave." for all of waves'
        ),
        start_time=time_from_proto(message.start_time, field="start_time") if has_start else None,
        end_time=time_from_proto(message.end_time, field="end_time") if has_end else None,
    )


def _matched(text: str, pattern: re.Pattern[str], *, field: str, remedy: str) -> str | None:
    """Return the text, None where it is empty. What could match nothing is told rather than answered with nothing."""
    if text and not pattern.fullmatch(text):
        raise FieldInvalidError(f"{text[:200]!r} names none", field=field, remedy=remedy)
    return text or None
