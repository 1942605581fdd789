"""Decisions."""

import math
from types import MappingProxyType
from typing import Any

from controlplane.domain.audit import AuditEvent, Happening, Json
from controlplane.store.mapping.values import Row


def event_to_row(event: AuditEvent) -> dict[str, Any]:
    happening = event.happening
    return {
        "id": event.id,
        "create_time": event.create_time,
        "actor": happening.actor,
        "action": happening.action,
        "resource": happening.resource,
        "reason": happening.reason,
        "message": happening.message,
        "evidence": {name: _finite(value) for name, value in happening.evidence.items()},
        "related": list(happening.related),
    }


def _finite(value: Json) -> Json:
    """The value with the names of numbers that are not finite: JSON has no word for those, and what was decided must
    not fail for that."""
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return [_finite(item) for item in value]
        case dict():
            return {name: _finite(item) for name, item in value.items()}
        case _:
            return value


def event_to_resource_rows(event: AuditEvent) -> list[dict[str, Any]]:
    """One row a distinct resource that the event touches."""
    touched = {event.happening.resource, *event.happening.related}
    return [{"resource": resource, "event_id": event.id} for resource in sorted(touched)]


def event_from_row(row: Row) -> AuditEvent:
    return AuditEvent(
        id=row["id"],
        create_time=row["create_time"],
        happening=Happening(
            actor=row["actor"],
            action=row["action"],
            resource=row["resource"],
            reason=row["reason"],
            message=row["message"],
            evidence=MappingProxyType(row["evidence"]),
            related=tuple(row["related"]),
        ),
    )
