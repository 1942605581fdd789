"""What must hold after each event. Each checker is a function of what is stored and what truly happened.

They are written from the rules and not from the code they check: none calls a decision of the domain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.domain.assignment import DesiredState
from controlplane.domain.deployment import Deployment
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.rollout import Rollout, RolloutState, WaveState

ACTIVE = {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK}


class ViolationError(AssertionError):
    """A rule was broken; the text names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is stored."""

    agents: Mapping[AgentId, AgentRecord]
    desired: Mapping[AgentId, DesiredState]
    deployments: Sequence[Deployment]
    rollouts: Sequence[Rollout]
    versions: frozenset[int]


@dataclass(slots=True)
class Truth:
    """What truly happened at the stations, whatever the controller heard of it."""

    installed: dict[int, set[AgentId]] = field(default_factory=dict)
    """Agents on which a version served at some time."""
    inferences: dict[int, int] = field(default_factory=dict)
    """By version, as many as ever reached the controller."""


def check(before: Snapshot, after: Snapshot, truth: Truth) -> None:
    """Raise ViolationError if an event that led from one snapshot to the other broke a rule."""
    check_generations(before, after)
    check_versions(after)
    check_exposure(after)
    check_one_active(after)
    was = {rollout.id: rollout for rollout in before.rollouts}
    for rollout in after.rollouts:
        check_waves(rollout)
        if (old := was.get(rollout.id)) is not None:
            check_admission(old, rollout, truth)
            check_ended(old, rollout)


def check_generations(before: Snapshot, after: Snapshot) -> None:
    """A generation never falls, and rises when the slots change; no agent is ahead of it."""
    for agent_id, state in after.desired.items():
        old = before.desired.get(agent_id)
        fell = old is not None and state.generation < old.generation
        if fell or (old is not None and (state.slots != old.slots) != (state.generation > old.generation)):
            raise ViolationError(f"generation: {agent_id} is at {state.generation}, and its slots moved otherwise")
        observation = after.agents[agent_id].observation
        if observation is not None and observation.observed.generation > state.generation:
            raise ViolationError(f"generation: {agent_id} is ahead of what it was told")


def check_versions(after: Snapshot) -> None:
    """A version that is desired exists."""
    for agent_id, state in after.desired.items():
        for slot in state.slots:
            if slot.version not in after.versions:
                raise ViolationError(f"versions: {agent_id} is to run {slot.version}, which does not exist")


def check_exposure(after: Snapshot) -> None:
    """An agent is told to run the deployment's version, or the target of a rollout that admitted it; while targets
    are returned, the version before."""
    deployment = after.deployments[0]
    active = next((rollout for rollout in after.rollouts if rollout.state in ACTIVE), None)
    for agent_id, record in after.agents.items():
        if record.agent.revoked or agent_id not in after.desired:
            continue
        allowed = {deployment.version}
        if active is not None and active.state is RolloutState.ROLLING_BACK:
            allowed = {active.previous_version}
        elif active is not None and _is_admitted(active, agent_id):
            allowed = {active.target_version}
        for slot in after.desired[agent_id].slots:
            if slot.version not in allowed:
                raise ViolationError(f"exposure: {agent_id} is to run {slot.version}, allowed is {allowed}")


def _is_admitted(rollout: Rollout, agent_id: AgentId) -> bool:
    return any(agent_id in wave.agents and wave.state is not WaveState.PENDING for wave in rollout.waves)


def check_one_active(after: Snapshot) -> None:
    """A deployment has one active rollout at most."""
    if sum(rollout.state in ACTIVE for rollout in after.rollouts) > 1:
        raise ViolationError("one active: two rollouts move the deployment")


def check_waves(rollout: Rollout) -> None:
    """Behind the first wave that did not pass, none is admitted; each target is in one wave."""
    open_seen = False
    for wave in rollout.waves:
        if open_seen and wave.state is not WaveState.PENDING:
            raise ViolationError(f"waves: {rollout.id} admitted wave {wave.index} behind one that did not pass")
        open_seen = open_seen or wave.state is not WaveState.PASSED
    agents = [agent for wave in rollout.waves for agent in wave.agents]
    if len(agents) != len(set(agents)):
        raise ViolationError(f"waves: {rollout.id} has a target in two waves")


def check_admission(before: Rollout, after: Rollout, truth: Truth) -> None:
    """A wave is admitted one at a time, while running, and only after the version truly served and inferred."""
    admitted = [
        new.index
        for old, new in zip(before.waves, after.waves, strict=True)
        if old.state is WaveState.PENDING and new.state is not WaveState.PENDING
    ]
    if len(admitted) > 1 or (admitted and before.state is not RolloutState.RUNNING):
        raise ViolationError(f"admission: {after.id} went from {before.state} and admitted {admitted}")
    succeeded = after.state is RolloutState.SUCCEEDED and before.state is not RolloutState.SUCCEEDED
    if admitted or succeeded:
        version = after.target_version
        exposed = {agent for wave in before.waves if wave.state is not WaveState.PENDING for agent in wave.agents}
        if not exposed & truth.installed.get(version, set()):
            raise ViolationError(f"admission: {after.id} went on, and no target ever served version {version}")
        if truth.inferences.get(version, 0) < after.strategy.gate.min_inferences:
            raise ViolationError(f"admission: {after.id} went on with too few inferences by version {version}")


def check_ended(before: Rollout, after: Rollout) -> None:
    """What has ended stays as it is, but that a success may be rolled back by hand."""
    undone = before.state is RolloutState.SUCCEEDED and after.reason == "ROLLED_BACK_BY_OPERATOR"
    if before.state not in ACTIVE and before != after and not undone:
        raise ViolationError(f"ended: {after.id} was {before.state} and became {after.state}")


def check_liveness(after: Snapshot, unsettled: Mapping[AgentId, str]) -> None:
    """After the faults every rollout has ended or waits for an operator, and every agent has come to rest."""
    restless = [
        f"{rollout.id} {rollout.state}: {rollout.message}"
        for rollout in after.rollouts
        if rollout.state in ACTIVE and rollout.state is not RolloutState.PAUSED
    ]
    if restless or unsettled:
        raise ViolationError(f"liveness: {restless} {dict(unsettled)}")
