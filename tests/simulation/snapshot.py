"""What is stored at one moment, and what truly happened at the stations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controlplane.app.ports import AuditFilter, Store
from controlplane.domain.assignment import DesiredState
from controlplane.domain.audit import AuditEvent
from controlplane.domain.deployment import Deployment
from controlplane.domain.ids import AgentId, DeploymentId, ModelId, RolloutId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.pin import Pin
from controlplane.domain.rollout import Rollout, RolloutState
from controlplane.domain.selector import facts, parse_selector

ACTIVE = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK})
EVERYTHING = 10_000


class ViolationError(AssertionError):
    """A rule was broken; the text names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is stored."""

    now: datetime
    agents: Mapping[AgentId, AgentRecord]
    desired: Mapping[AgentId, DesiredState]
    deployments: Sequence[Deployment]
    rollouts: Sequence[Rollout]
    """Oldest first."""
    versions: frozenset[tuple[ModelId, int]]
    pins: Mapping[tuple[AgentId, ModelId], Pin]
    yanked: frozenset[tuple[ModelId, int]]
    news: Sequence[AuditEvent]
    """Audit events since the snapshot before."""
    last_event: str | None

    def holder(self, agent_id: AgentId, model_id: ModelId) -> Deployment | None:
        """The deployment that holds the agent's slot: of the highest priority, then the oldest."""
        labels = facts(self.agents[agent_id])
        matching = [
            deployment
            for deployment in self.deployments
            if deployment.model_id == model_id and parse_selector(deployment.selector, field="selector").matches(labels)
        ]
        return min(matching, key=lambda one: (-one.priority, one.create_time, one.uid), default=None)

    def active(self, deployment: Deployment) -> Rollout | None:
        """The rollout that moves the deployment."""
        return next((one for one in self.rollouts if one.deployment_id == deployment.id and one.state in ACTIVE), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """An agent began to go to a version that an active rollout wants there."""

    time: datetime
    agent_id: AgentId
    model_id: ModelId
    version: int


@dataclass(slots=True)
class Truth:
    """What truly happened at the stations, whatever the controller heard of it."""

    installed: dict[tuple[ModelId, int], set[AgentId]] = field(default_factory=dict)
    """Agents on which a version served at some time."""
    inferences: dict[tuple[ModelId, int], int] = field(default_factory=dict)
    """By version, as many as ever reached the controller."""
    swaps: list[Swap] = field(default_factory=list)
    """Since the snapshot before."""
    released: dict[RolloutId, set[AgentId]] = field(default_factory=dict)
    """Whom a rollout ever gave its version, also those that left since."""
    restored: dict[AgentId, datetime] = field(default_factory=dict)
    """When an old disk image was last put back: the agent goes again to what it had been given."""
    retried: dict[DeploymentId, datetime] = field(default_factory=dict)
    """When its offer last rose: what failed is tried again, at once."""
    tick_time: datetime | None = None
    """When a controller last had its round: until the next, what is told may be out of date."""


async def take_snapshot(store: Store, now: datetime, last: Snapshot | None) -> Snapshot:
    """Read everything; `last` is the snapshot before, whose events are old news."""
    async with store.read() as work:
        news = await work.audit.list(
            AuditFilter(), after=last.last_event if last else None, limit=EVERYTHING, oldest_first=True
        )
        models = await work.models.list(after=None, limit=EVERYTHING)
        versions = [
            (version.model_id, version.number)
            for model in models
            for version in await work.models.list_versions(model.id, before=None, limit=EVERYTHING)
        ]
        return Snapshot(
            now=now,
            agents={record.agent.id: record for record in await work.agents.list_all()},
            desired=await work.desired.list_all(),
            deployments=await work.deployments.list_all(),
            rollouts=tuple(reversed(await work.rollouts.list(deployment_id=None, before=None, limit=EVERYTHING))),
            versions=frozenset(versions),
            pins={(pin.agent_id, pin.model_id): pin for pin in await work.pins.list_all()},
            yanked=await work.models.list_yanked(),
            news=news,
            last_event=news[-1].id if news else last.last_event if last else None,
        )
