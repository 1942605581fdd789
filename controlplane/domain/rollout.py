"""Rollouts: the move of a deployment to another version, in waves."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import assert_never

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

    def of(self, total: int) -> int:
        """Return the cumulative number of agents out of `total`; a percentage rounds up."""
        if self.percent is not None:
            return -(-total * self.percent // 100)
        return min(self.count or 0, total)


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


ACTIVE_STATES = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK})
"""A deployment has at most one rollout in these."""

EXPOSED_WAVES = frozenset({WaveState.ADMITTED, WaveState.PASSED, WaveState.FAILED})


def exposed_agents(rollout: Rollout) -> frozenset[AgentId]:
    """Return the agents to which the target version was offered, in whatever state the rollout is."""
    return frozenset(agent for wave in rollout.waves if wave.state in EXPOSED_WAVES for agent in wave.agents)


def version_for(version: int | None, rollout: Rollout | None, *, exposed: bool) -> int | None:
    """Return what an agent of a deployment at `version` should run while `rollout`, the deployment's active
    one, stands so; `exposed` says whether the agent is one of its `exposed_agents`."""
    if rollout is None:
        return version
    match rollout.state:
        case RolloutState.RUNNING | RolloutState.PAUSED:
            return rollout.target_version if exposed else version
        case RolloutState.ROLLING_BACK:
            return rollout.previous_version
        case RolloutState.SUCCEEDED | RolloutState.ROLLED_BACK | RolloutState.ABORTED:
            return version
        case _:
            assert_never(rollout.state)
