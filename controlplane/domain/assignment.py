"""Assignment: which version each agent should run for each deployment."""

from dataclasses import dataclass

from controlplane.domain.deployment import RuntimePolicy, SamplePolicy
from controlplane.domain.ids import AgentId, DeploymentId, ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredSlot:
    """What one slot of an agent should run."""

    slot: ModelId
    version: int
    deployment_id: DeploymentId
    runtime_policy: RuntimePolicy
    sample_policy: SamplePolicy
    offer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything an agent should run; `generation` rises exactly when `slots` change."""

    agent_id: AgentId
    generation: int
    slots: tuple[DesiredSlot, ...]
    """Sorted by slot, each slot once."""
