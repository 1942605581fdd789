"""Pins: a slot is held on a version, whatever deployments and rollouts say."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.ids import AgentId, ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Slot `model_id` of the agent stays at `version` as long as a deployment of the model holds the agent."""

    agent_id: AgentId
    model_id: ModelId
    version: int
    reason: str
    create_time: datetime
    actor: str
    """`operators/{operator}` who pinned it."""
