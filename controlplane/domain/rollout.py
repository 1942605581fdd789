"""Rollouts: the move of a deployment to another version, in waves."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controlplane.domain.gate import GatePolicy, GateVerdict
from controlplane.domain.ids import AgentId, DeploymentId, ModelId, RolloutId


class RolloutState(StrEnum):
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    ROLLED_BACK = "ROLLED_BACK"
    ABORTED = "ABORTED"


class WaveState(StrEnum):
    PENDING = "PENDING"
    ADMITTED = "ADMITTED"
    PASSED = "PASSED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveSize:
    """Cumulative size of a rollout up to and with a wave: a count of agents or a percentage."""

    count: int | None = None
    percent: int | None = None

    def __str__(self) -> str:
        return f"{self.percent}%" if self.percent is not None else str(self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStrategy:
    """How a rollout moves."""

    waves: tuple[WaveSize, ...]
    bake_seconds: float = 0.0
    gate: GatePolicy = field(default_factory=GatePolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One wave and its own targets, sorted."""

    index: int
    size: WaveSize
    agents: tuple[AgentId, ...]
    state: WaveState = WaveState.PENDING
    admit_time: datetime | None = None
    complete_time: datetime | None = None
    verdict: GateVerdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Invariant: waves are PASSED up to the first that is not; at most one is ADMITTED or FAILED."""

    id: RolloutId
    uid: str
    create_time: datetime
    update_time: datetime
    deployment_id: DeploymentId
    model_id: ModelId
    target_version: int
    previous_version: int | None
    strategy: RolloutStrategy
    state: RolloutState
    reason: str
    message: str
    waves: tuple[Wave, ...]
    end_time: datetime | None = None
    revision: int = 0
