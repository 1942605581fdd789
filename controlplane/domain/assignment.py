"""Assignment: which version each agent should run for each deployment.

Rules:
- A revoked agent is assigned nothing and its desired state is left as it was: it can no longer hear.
- Where deployments of one model meet on an agent, the oldest holds it (by create time, then uid).
- A deployment without a version and without an exposed rollout gives no slot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.domain.deployment import Deployment, RuntimePolicy, SamplePolicy
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.rollout import Rollout, exposed_agents, version_for
from controlplane.domain.selector import facts, parse_selector


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRun:
    """A candidate to run beside the serving version; it never answers."""

    candidate_version: int
    comparisons_max: int
    serving_latency_ms_p99_max: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredSlot:
    """What one slot of an agent should run."""

    slot: ModelId
    version: int
    deployment_id: DeploymentId
    runtime_policy: RuntimePolicy
    sample_policy: SamplePolicy
    offer: int = 0
    prefetch_version: int = 0
    """To fetch and prepare, and not yet to serve; 0 for none."""
    shadow: ShadowRun | None = None
    fetch_bytes_per_second_max: int = 0
    """0 means no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything an agent should run; `generation` rises exactly when `slots` change."""

    agent_id: AgentId
    generation: int
    slots: tuple[DesiredSlot, ...]
    """Sorted by slot, each slot once."""


def select_targets(
    agents: Iterable[AgentRecord], deployments: Iterable[Deployment]
) -> Mapping[DeploymentId, tuple[AgentId, ...]]:
    """Return the agents that each deployment holds, sorted; every deployment is a key.

    An agent is held by at most one deployment of a model.
    """
    oldest_first = sorted(deployments, key=lambda deployment: (deployment.create_time, deployment.uid))
    selectors = [(deployment, parse_selector(deployment.selector, field="selector")) for deployment in oldest_first]
    held: dict[DeploymentId, list[AgentId]] = {deployment.id: [] for deployment in oldest_first}
    for record in agents:
        if record.agent.revoked:
            continue
        labels = facts(record)
        models: set[ModelId] = set()
        for deployment, selector in selectors:
            if deployment.model_id not in models and selector.matches(labels):
                models.add(deployment.model_id)
                held[deployment.id].append(record.agent.id)
    return {deployment_id: tuple(sorted(ids)) for deployment_id, ids in held.items()}


def assign(
    agents: Sequence[AgentRecord], deployments: Sequence[Deployment], rollouts: Iterable[Rollout]
) -> Mapping[AgentId, tuple[DesiredSlot, ...]]:
    """Return what each agent that is not revoked should run, sorted by slot; every such agent is a key."""
    active: dict[DeploymentId, Rollout] = {}
    for candidate in sorted(rollouts, key=lambda rollout: (rollout.create_time, rollout.uid)):
        active.setdefault(candidate.deployment_id, candidate)
    held = select_targets(agents, deployments)
    slots: dict[AgentId, list[DesiredSlot]] = {record.agent.id: [] for record in agents if not record.agent.revoked}
    for deployment in sorted(deployments, key=lambda deployment: deployment.model_id):
        rollout = active.get(deployment.id)
        exposed = exposed_agents(rollout) if rollout is not None else frozenset[AgentId]()
        for agent_id in held[deployment.id]:
            version = version_for(deployment.version, rollout, exposed=agent_id in exposed)
            if version is not None:
                slots[agent_id].append(_slot(deployment, version))
    return {agent_id: tuple(wanted) for agent_id, wanted in slots.items()}


def _slot(deployment: Deployment, version: int) -> DesiredSlot:
    return DesiredSlot(
        slot=deployment.model_id,
        version=version,
        deployment_id=deployment.id,
        runtime_policy=deployment.runtime_policy,
        sample_policy=deployment.sample_policy,
        offer=deployment.offer,
    )


def revise(
    wanted: Mapping[AgentId, tuple[DesiredSlot, ...]], stored: Mapping[AgentId, DesiredState]
) -> tuple[DesiredState, ...]:
    """Return the states whose slots differ from the stored ones, by agent, each one generation on.

    An agent that never had a slot and should have none is left out, so its generation stays 0.
    """
    changed = []
    for agent_id in sorted(wanted):
        before = stored.get(agent_id)
        slots, generation = (before.slots, before.generation) if before is not None else ((), 0)
        if slots != wanted[agent_id]:
            changed.append(DesiredState(agent_id=agent_id, generation=generation + 1, slots=wanted[agent_id]))
    return tuple(changed)
