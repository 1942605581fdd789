"""Progress: what the fleet's last words say about a rollout. The order in which they came does not matter.

- Installed: in reach, and the slot serves the target version. Silence is never success.
- Failed: the agent says that the target version failed under the deployment's present offer, or that it refuses its
  present desired state as a whole; in reach or not.
- Missing on its way back: silent for longer than it may be, and we have listened for as long. After a restart of the
  controller everybody is silent, and a rollback does not end on that.
- Back: in reach, has taken up its present desired state, and serves the version before (or nothing, where
  there was none).
- An agent that is not held by the deployment any more, or is revoked, counts for nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.evidence import InferenceCount
from controlplane.domain.gate import Evidence
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord, AgentState, ObservedSlot, SlotState
from controlplane.domain.rollout import Progress, Rollout, Wave, exposed_agents


class Install(StrEnum):
    INSTALLED = "INSTALLED"
    FAILED = "FAILED"
    WAITING = "WAITING"
    SILENT = "SILENT"


class Return(StrEnum):
    BACK = "BACK"
    STUCK = "STUCK"
    RETURNING = "RETURNING"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The agents that the deployment holds, and how to judge what they said."""

    targets: Mapping[AgentId, AgentRecord]
    offer: int
    """The deployment's."""
    now: datetime
    silent_seconds_max: float
    listening_since: datetime
    """When this controller began to listen; before that, silence says nothing of an agent."""
    kept_versions: Mapping[AgentId, int] = field(default_factory=lambda: MappingProxyType({}))
    """The deployment's: agents that a rollback returns to another version than the others."""


def _slot(record: AgentRecord, rollout: Rollout) -> ObservedSlot | None:
    return record.observation.observed.slot(rollout.model_id) if record.observation is not None else None


def _in_reach(record: AgentRecord, sight: Sight) -> bool:
    return record.state(now=sight.now, silent_seconds_max=sight.silent_seconds_max) is AgentState.CONNECTED


def _refuses(record: AgentRecord) -> bool:
    """Whether the agent cannot take up what it should run now."""
    if record.observation is None:
        return False
    observed = record.observation.observed
    return bool(observed.nack_message) and observed.nack_generation == record.desired_generation


def install_state(record: AgentRecord, rollout: Rollout, sight: Sight) -> Install:
    """Return how far an agent that was offered the target version has come."""
    slot = _slot(record, rollout)
    if _refuses(record):
        return Install.FAILED
    if (
        slot is not None
        and slot.state is SlotState.FAILED
        and slot.target_version == rollout.target_version
        and slot.offer == sight.offer
    ):
        return Install.FAILED
    if not _in_reach(record, sight):
        return Install.SILENT
    if slot is not None and slot.state is SlotState.SERVING and slot.serving_version == rollout.target_version:
        return Install.INSTALLED
    return Install.WAITING


def return_state(record: AgentRecord, rollout: Rollout, sight: Sight) -> Return:
    """Return how far an exposed agent is on its way back to the version before."""
    if not _in_reach(record, sight) or record.observation is None:
        listened_seconds = (sight.now - sight.listening_since).total_seconds()
        return Return.MISSING if listened_seconds > sight.silent_seconds_max else Return.RETURNING
    if _refuses(record):
        return Return.STUCK
    if record.observation.observed.generation < record.desired_generation:
        return Return.RETURNING
    slot = _slot(record, rollout)
    before = sight.kept_versions.get(record.agent.id, rollout.previous_version)
    if (slot.serving_version if slot is not None else 0) == (before or 0):
        return Return.BACK
    if slot is not None and slot.state is SlotState.FAILED and slot.target_version == before:
        return Return.STUCK
    return Return.RETURNING


def observe(rollout: Rollout, sight: Sight) -> Progress:
    """Return how far the rollout's targets have come."""
    exposed = [sight.targets[agent] for agent in sorted(exposed_agents(rollout) & sight.targets.keys())]
    installs = [(record.agent.id, install_state(record, rollout, sight)) for record in exposed]
    returns = [(record.agent.id, return_state(record, rollout, sight)) for record in exposed]
    return Progress(
        waiting=tuple(agent for agent, state in installs if state is Install.WAITING),
        silent=tuple(agent for agent, state in installs if state is Install.SILENT),
        returning=tuple(agent for agent, state in returns if state is Return.RETURNING),
        stuck=tuple(agent for agent, state in returns if state is Return.STUCK),
        missing=tuple(agent for agent, state in returns if state is Return.MISSING),
    )


def pool_evidence(rollout: Rollout, wave: Wave, sight: Sight, counts: Iterable[InferenceCount]) -> Evidence:
    """Return the evidence for the gate of `wave`, which is ADMITTED.

    `counts` are inferences by the target version received since the wave's admission, of any agents;
    those of agents that were not offered it through this rollout are left out.
    """
    assert wave.admit_time is not None, "an admitted wave knows since when"
    exposed = exposed_agents(rollout) & sight.targets.keys()
    states = {agent: install_state(sight.targets[agent], rollout, sight) for agent in sorted(exposed)}
    installs = list(states.values())
    failed = next((agent for agent, state in states.items() if state is Install.FAILED), None)
    counted = [count for count in counts if count.agent_id in exposed]
    own_agents = frozenset(wave.agents)
    own = [count for count in counted if count.agent_id in own_agents]
    return Evidence(
        targets=len(installs),
        installed=installs.count(Install.INSTALLED),
        failed=installs.count(Install.FAILED),
        inferences=sum(count.inferences for count in counted),
        errors=sum(count.errors for count in counted),
        wave_inferences=sum(count.inferences for count in own),
        wave_errors=sum(count.errors for count in own),
        wave_age_seconds=(sight.now - wave.admit_time).total_seconds(),
        first_failure=_failure(sight.targets[failed], rollout) if failed is not None else "",
    )


def _failure(record: AgentRecord, rollout: Rollout) -> str:
    """Why the agent's install failed, in its own words."""
    assert record.observation is not None, "an agent that was never heard has not failed"
    slot = _slot(record, rollout)
    said = record.observation.observed.nack_message if _refuses(record) else slot.failure_message if slot else ""
    return f"{record.agent.id}: {said}" if said else ""
