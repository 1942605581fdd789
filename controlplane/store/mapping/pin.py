"""Pins."""

from typing import Any

from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.pin import Pin
from controlplane.store.mapping.values import Row


def pin_to_row(pin: Pin) -> dict[str, Any]:
    return {
        "agent_id": pin.agent_id,
        "model_id": pin.model_id,
        "version": pin.version,
        "reason": pin.reason,
        "create_time": pin.create_time,
        "actor": pin.actor,
    }


def pin_from_row(row: Row) -> Pin:
    return Pin(
        agent_id=AgentId(row["agent_id"]),
        model_id=ModelId(row["model_id"]),
        version=row["version"],
        reason=row["reason"],
        create_time=row["create_time"],
        actor=row["actor"],
    )
