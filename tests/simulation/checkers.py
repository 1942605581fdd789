"""What must hold after each event, of the whole fleet. Each checker is a function of what is stored and what truly
happened.

They are written from the rules and not from the code they check: none calls a decision of the domain.
"""

from collections.abc import Mapping, Sequence

from controlplane.domain.audit import AuditEvent
from controlplane.domain.deployment import Deployment
from controlplane.domain.ids import AgentId, ModelId, RolloutId
from controlplane.domain.rollout import Rollout, RolloutState, WaveState
from tests.simulation.rollout_checkers import check_rollout
from tests.simulation.snapshot import ACTIVE, Snapshot, Truth, ViolationError

WAITS_FOR_OPERATOR = ("WAITS_FOR_APPROVAL", "HOLDING_", "PAUSED_BY_OPERATOR")
"""How the reason begins of a running rollout that may stand still for ever: a person, or a line that starts again."""


def check(before: Snapshot, after: Snapshot, truth: Truth) -> None:
    """Raise ViolationError if an event that led from one snapshot to the other broke a rule."""
    check_generations(before, after)
    check_versions(after)
    check_exposure(before, after)
    check_pins(after)
    check_yanks(before, after)
    check_one_active(after)
    check_audit(before, after)
    was = {rollout.id: rollout for rollout in before.rollouts}
    for rollout in after.rollouts:
        check_rollout(was.get(rollout.id), rollout, after, truth)


def check_generations(before: Snapshot, after: Snapshot) -> None:
    """A generation never falls, and rises when the slots change; no agent is ahead of it."""
    for agent_id, state in after.desired.items():
        old = before.desired.get(agent_id)
        if old is not state and old is not None:
            fell = state.generation < old.generation
            if fell or (state.slots != old.slots) != (state.generation > old.generation):
                raise ViolationError(f"generation: {agent_id} is at {state.generation}, and its slots moved otherwise")
        observation = after.agents[agent_id].observation
        if observation is not None and observation.observed.generation > state.generation:
            raise ViolationError(f"generation: {agent_id} is ahead of what it was told")


def check_versions(after: Snapshot) -> None:
    """A version that is desired exists."""
    for agent_id, state in after.desired.items():
        for slot in state.slots:
            for version in {slot.version, slot.prefetch_version or slot.version}:
                if (slot.slot, version) not in after.versions:
                    raise ViolationError(f"versions: {agent_id} is to have {version}, which does not exist")


def intended(after: Snapshot, agent_id: AgentId, deployment: Deployment) -> int | None:
    """What an agent should run by its deployment: the target of the rollout that released it, else its standing
    version."""
    rollout = after.active(deployment)
    if rollout is not None and rollout.state is not RolloutState.ROLLING_BACK and _is_released(rollout, agent_id):
        return rollout.target_version
    return deployment.kept_versions.get(agent_id, deployment.version)


def _is_released(rollout: Rollout, agent_id: AgentId) -> bool:
    return any(release.agent_id == agent_id for wave in rollout.waves for release in wave.releases)


def check_exposure(before: Snapshot, after: Snapshot) -> None:
    """An agent is told to run its deployment's version, or the target of a rollout whose admitted wave released it.
    Where that is forbidden it stays on what it had."""
    for agent_id, state in after.desired.items():
        if after.agents[agent_id].agent.revoked:
            continue
        for slot in state.slots:
            if (agent_id, slot.slot) in after.pins:
                continue
            deployment = after.holder(agent_id, slot.slot)
            if deployment is None:
                raise ViolationError(f"exposure: {agent_id} has a slot of {slot.slot} and no deployment")
            allowed = {intended(after, agent_id, deployment)}
            if any((slot.slot, version) in after.yanked for version in allowed if version is not None):
                old = before.desired.get(agent_id)
                allowed |= {old.version_of(slot.slot) if old is not None else None}
            if slot.version not in allowed:
                raise ViolationError(f"exposure: {agent_id} is to run {slot.version}, allowed is {allowed}")
    for rollout in after.rollouts:
        for wave in rollout.waves:
            closed = wave.state in {WaveState.PENDING, WaveState.SHADOWING}
            stray = [release.agent_id for release in wave.releases if release.agent_id not in wave.agents]
            if (closed and wave.releases) or stray:
                raise ViolationError(f"exposure: {rollout.id} released agents of wave {wave.index}, not admitted")


def check_pins(after: Snapshot) -> None:
    """A pinned slot stays on its version, whatever rollouts do."""
    for (agent_id, model_id), pin in after.pins.items():
        state = after.desired.get(agent_id)
        version = state.version_of(model_id) if state is not None else None
        if version not in {None, pin.version} and not after.agents[agent_id].agent.revoked:
            raise ViolationError(f"pins: {agent_id} is pinned to {pin.version} and is to run {version}")


def check_yanks(before: Snapshot, after: Snapshot) -> None:
    """Nobody is newly given a yanked version, but who is returned to it by the end of a rollout that took it away."""
    for agent_id, state in after.desired.items():
        old = before.desired.get(agent_id)
        if old is state:
            continue
        for slot in state.slots:
            key = (slot.slot, slot.version)
            had = old.version_of(slot.slot) if old is not None else None
            if key not in after.yanked or key not in before.yanked or had == slot.version:
                continue
            if not _returns(before, agent_id, slot.slot, had):
                raise ViolationError(f"yanks: {agent_id} is newly given {slot.slot}:{slot.version}, which is yanked")


def _returns(before: Snapshot, agent_id: AgentId, model_id: ModelId, had: int | None) -> bool:
    """Whether what the agent had came from a rollout."""
    return any(
        rollout.model_id == model_id and rollout.target_version == had and _is_released(rollout, agent_id)
        for rollout in before.rollouts
    )


def check_one_active(after: Snapshot) -> None:
    """A deployment has one active rollout at most, and one that waits."""
    for deployment in after.deployments:
        states = [rollout.state for rollout in after.rollouts if rollout.deployment_id == deployment.id]
        if sum(state in ACTIVE for state in states) > 1:
            raise ViolationError(f"one active: two rollouts move {deployment.id}")
        if states.count(RolloutState.QUEUED) > 1:
            raise ViolationError(f"one active: two rollouts wait for {deployment.id}")


def check_audit(before: Snapshot, after: Snapshot) -> None:
    """Each change of a rollout, of what is forbidden and of what is pinned is in the log."""
    was = {rollout.id: rollout for rollout in before.rollouts}
    told = {name for event in after.news for name in _names(event)}
    for rollout in after.rollouts:
        old = was.get(rollout.id)
        if (old is None or _essence(old) != _essence(rollout)) and f"rollouts/{rollout.id}" not in told:
            raise ViolationError(f"audit: {rollout.id} became {rollout.state} {rollout.reason}, and nobody says why")
    changed = {f"models/{model}/versions/{number}" for model, number in after.yanked ^ before.yanked}
    changed |= {f"agents/{agent_id}" for agent_id, _ in after.pins.keys() ^ before.pins.keys()}
    if changed - told:
        raise ViolationError(f"audit: nothing is said of {sorted(changed - told)}")


def _names(event: AuditEvent) -> tuple[str, ...]:
    return (event.happening.resource, *event.happening.related)


def _essence(rollout: Rollout) -> tuple[object, ...]:
    """What of a rollout is decided, and not measured."""
    waves = tuple((wave.state, wave.approver, wave.releases) for wave in rollout.waves)
    return rollout.state, rollout.reason, waves


def check_liveness(after: Snapshot, unsettled: Mapping[AgentId, str]) -> None:
    """After the faults every rollout has ended or waits for a person, nothing waits behind nothing, and every agent
    has come to rest."""
    restless = [
        f"{rollout.id} {rollout.state} {rollout.reason}: {rollout.message}"
        for rollout in after.rollouts
        if not _rests(rollout, after)
    ]
    if restless or unsettled:
        raise ViolationError(f"liveness: {restless} {dict(unsettled)}")


def _rests(rollout: Rollout, after: Snapshot) -> bool:
    match rollout.state:
        case RolloutState.RUNNING:
            return rollout.reason.startswith(WAITS_FOR_OPERATOR)
        case RolloutState.ROLLING_BACK:
            return False
        case RolloutState.QUEUED:
            return any(
                other.state in ACTIVE for other in after.rollouts if other.deployment_id == rollout.deployment_id
            )
        case _:
            return True


def check_last(after: Snapshot, started: Sequence[RolloutId]) -> None:
    """A rollout that asks for next to nothing, started when all was at rest, has begun whatever was stuck before, and
    ended; it holds only where nobody installed the version."""
    for rollout in after.rollouts:
        if rollout.id not in started:
            continue
        holds = rollout.state is RolloutState.RUNNING and rollout.reason.startswith("HOLDING_")
        if not rollout.waves or not (holds or rollout.state in {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK}):
            raise ViolationError(f"blocked: {rollout.id} is {rollout.state} {rollout.reason}: {rollout.message}")
