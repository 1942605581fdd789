"""Plans: what a rollout would do on the inventory as it is."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.rollout import WaveSize


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTarget:
    """One agent that would be moved."""

    agent_id: AgentId
    wave: int
    device_class: str
    fetch_bytes: int
    disk_free_bytes: int | None
    """None where it was never heard."""
    connected: bool
    swap_time_earliest: datetime | None
    """None where its window never opens."""
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An agent that the deployment's selector matches and the rollout would not move."""

    agent_id: AgentId
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWave:
    """One wave. Estimates are None where none can be given: no traffic is known, or a window never opens."""

    index: int
    size: WaveSize
    agents: tuple[AgentId, ...]
    device_classes: tuple[str, ...]
    fetch_bytes: int
    admit_time_estimate: datetime | None
    pass_time_estimate: datetime | None
    needs_approval: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """The whole."""

    waves: tuple[PlannedWave, ...]
    targets: tuple[PlannedTarget, ...]
    """By wave, then agent."""
    left_out: tuple[LeftOut, ...]
    """By agent."""
    related_id: RolloutId | None
    warnings: tuple[str, ...]
