"""Conditions of deployments: what the controller's rounds find, as Kubernetes writes conditions.

- Converged: every agent that the deployment holds serves what it should (Unknown while it holds none).
- Overlapping: another deployment of the model has the same priority and matches an agent that this one matches. Such
  are refused at creation, so labels or devices have changed since. Which of the two holds the agent is settled by age.
- VersionYanked: the version that the deployment stands at is forbidden to further agents.
- InputsDrifted: of agents that it holds, the inputs or answers are no longer what the version saw first. From the first
  drift on; a deployment that never saw one does not have it.

A transition time moves exactly when the state of its condition does.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain

from controlplane.domain.assignment import DesiredSlot, Standing, find_contenders, holders
from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.deployment import Deployment
from controlplane.domain.drift import INPUTS_DRIFTED
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import AgentRecord, SlotState

CONVERGED, OVERLAPPING, VERSION_YANKED = "Converged", "Overlapping", "VersionYanked"
NAMES_MAX = 5
"""Agents and deployments named in a message, so that it stays one line for any fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which agents a deployment has, each sorted."""

    held: tuple[AgentId, ...] = ()
    converged: tuple[AgentId, ...] = ()
    """Of `held`, those that serve exactly what they should."""
    without_version: tuple[AgentId, ...] = ()
    """Of `held`, those that should run nothing."""
    shared: tuple[AgentId, ...] = ()
    """Matched by another deployment of the model with equal priority, whichever of them holds it."""
    lost: tuple[AgentId, ...] = ()
    """Of `shared`, those that another deployment holds."""
    rivals: tuple[DeploymentId, ...] = ()
    """Which deployments these are."""


@dataclass(slots=True)
class _Gathered:
    """A Reach while the fleet is gone through."""

    held: list[AgentId]
    converged: list[AgentId]
    without_version: list[AgentId]
    shared: list[AgentId]
    lost: list[AgentId]
    rivals: set[DeploymentId]


def find_reach(standing: Standing, wanted: Mapping[AgentId, Sequence[DesiredSlot]]) -> Mapping[DeploymentId, Reach]:
    """Return how far each deployment reaches; `wanted` is what `assign` says of the same standing."""
    gathered = {one.id: _Gathered([], [], [], [], [], set()) for one in standing.deployments}
    records = {record.agent.id: record for record in standing.agents}
    for agent_id, contenders in find_contenders(standing.agents, standing.deployments).items():
        versions = {slot.slot: slot.version for slot in wanted[agent_id]}
        for model_id, deployment in holders(contenders).items():
            _hold(gathered[deployment.id], records[agent_id], model_id, versions.get(model_id))
        if len(contenders) > 1:
            _share(gathered, agent_id, contenders)
    return {
        deployment_id: Reach(
            held=tuple(found.held),
            converged=tuple(found.converged),
            without_version=tuple(found.without_version),
            shared=tuple(found.shared),
            lost=tuple(found.lost),
            rivals=tuple(sorted(found.rivals)),
        )
        for deployment_id, found in gathered.items()
    }


def join_reach(parts: Iterable[Reach]) -> Reach:
    """Return what a deployment reaches in all parts of a fleet that was gone through in the order of its agents."""
    parts = tuple(parts)
    return Reach(
        held=tuple(chain.from_iterable(part.held for part in parts)),
        converged=tuple(chain.from_iterable(part.converged for part in parts)),
        without_version=tuple(chain.from_iterable(part.without_version for part in parts)),
        shared=tuple(chain.from_iterable(part.shared for part in parts)),
        lost=tuple(chain.from_iterable(part.lost for part in parts)),
        rivals=tuple(sorted({rival for part in parts for rival in part.rivals})),
    )


def _hold(found: _Gathered, record: AgentRecord, model_id: ModelId, version: int | None) -> None:
    found.held.append(record.agent.id)
    if version is None:
        found.without_version.append(record.agent.id)
    if serves(record, model_id, version):
        found.converged.append(record.agent.id)


def _share(gathered: Mapping[DeploymentId, _Gathered], agent_id: AgentId, contenders: Sequence[Deployment]) -> None:
    """`contenders` in order of precedence, so that the first of a model holds the agent."""
    held_by = holders(contenders)
    for deployment in contenders:
        rivals = {
            other.id
            for other in contenders
            if (other.model_id, other.priority) == (deployment.model_id, deployment.priority)
            and other.id != deployment.id
        }
        if rivals:
            found = gathered[deployment.id]
            found.shared.append(agent_id)
            found.rivals |= rivals
            if held_by[deployment.model_id].id != deployment.id:
                found.lost.append(agent_id)


def serves(record: AgentRecord, model_id: ModelId, version: int | None) -> bool:
    """Whether the agent's slot serves the version, or, where that is None, whether it has none."""
    slot = record.observation.observed.slot(model_id) if record.observation is not None else None
    if version is None:
        return slot is None or slot.serving_version == 0
    return slot is not None and slot.state is SlotState.SERVING and slot.serving_version == version


def judge(
    deployment: Deployment,
    reach: Reach,
    *,
    version_yanked: bool,
    drifted: Collection[tuple[AgentId, ModelId]] = (),
    now: datetime,
) -> tuple[Condition, ...]:
    """Return the deployment's conditions, by type; those that say nothing new equal the ones that it has. `drifted` are
    the slots of the fleet that have drifted."""
    before = {condition.type: condition for condition in deployment.conditions}
    away = [agent for agent in reach.held if (agent, deployment.model_id) in drifted]
    found = [
        _converged(reach, now),
        _overlapping(deployment, reach, now),
        _version_yanked(deployment, reach, version_yanked=version_yanked, now=now),
    ]
    if away or INPUTS_DRIFTED in before:
        found.append(_inputs_drifted(reach, away, now))
    return tuple(_carry(before.get(condition.type), condition) for condition in found)


def _carry(before: Condition | None, found: Condition) -> Condition:
    unmoved = before is not None and before.state is found.state
    return replace(found, transition_time=before.transition_time) if before is not None and unmoved else found


def _converged(reach: Reach, now: datetime) -> Condition:
    held, converged = len(reach.held), len(reach.converged)
    if not held:
        return Condition(
            type=CONVERGED,
            state=ConditionState.UNKNOWN,
            reason="NoAgents",
            message="it holds no agent",
            transition_time=now,
        )
    lagging = sorted(set(reach.held) - set(reach.converged))
    message = f"{converged} of {held} agents serve what they should"
    return Condition(
        type=CONVERGED,
        state=ConditionState.FALSE if lagging else ConditionState.TRUE,
        reason="AgentsLagging" if lagging else "EveryAgentServes",
        message=f"{message}; not: {_names(lagging)}" if lagging else message,
        transition_time=now,
    )


def _overlapping(deployment: Deployment, reach: Reach, now: datetime) -> Condition:
    if not reach.shared:
        return Condition(
            type=OVERLAPPING,
            state=ConditionState.FALSE,
            reason="NoneShared",
            message="no other deployment of the model with its priority matches its agents",
            transition_time=now,
        )
    rivals = _names([f"deployments/{rival}" for rival in reach.rivals])
    kept = sorted(set(reach.shared) - set(reach.lost))
    says = [f"{rivals} of priority {deployment.priority} too"]
    if kept:
        says.append(f"it is the older and holds {_names(kept)}")
    if reach.lost:
        says.append(f"an older one holds {_names(reach.lost)}")
    return Condition(
        type=OVERLAPPING,
        state=ConditionState.TRUE,
        reason="AgentsLost" if reach.lost else "AgentsShared",
        message=f"{_count(len(reach.shared))} matched by {'; '.join(says)}",
        transition_time=now,
    )


def _version_yanked(deployment: Deployment, reach: Reach, *, version_yanked: bool, now: datetime) -> Condition:
    if not version_yanked:
        return Condition(
            type=VERSION_YANKED,
            state=ConditionState.FALSE,
            reason="NotYanked",
            message="its version may be given to further agents",
            transition_time=now,
        )
    message = (
        f"models/{deployment.model_id}/versions/{deployment.version} is yanked: agents that have it go on, no other is "
        "given it; roll out another version"
    )
    if reach.without_version:
        message += f"; without a version: {_names(reach.without_version)}"
    return Condition(
        type=VERSION_YANKED, state=ConditionState.TRUE, reason="Yanked", message=message, transition_time=now
    )


def _inputs_drifted(reach: Reach, away: Sequence[AgentId], now: datetime) -> Condition:
    named = f"; see `lineside drift list`: {_names(away)}" if away else ""
    return Condition(
        type=INPUTS_DRIFTED,
        state=ConditionState.TRUE if away else ConditionState.FALSE,
        reason="AgentsDrifted" if away else "NoneDrifted",
        message=f"{len(away)} of {len(reach.held)} agents see or answer something else than their version did at first"
        + named,
        transition_time=now,
    )


def _count(agents: int) -> str:
    return "1 agent is" if agents == 1 else f"{agents} agents are"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_MAX} more" if len(names) > NAMES_MAX else ""
    return ", ".join(names[:NAMES_MAX]) + more
