"""Assignment: which version each agent should run for each deployment.

Rules:
- A revoked agent is assigned nothing and its desired state is left as it was: it can no longer hear.
- Where deployments of one model meet on an agent, the one of the highest priority holds it; of equal ones the oldest
  (by create time, then uid). An agent has at most one slot a model.
- A pinned slot runs its pin's version as long as some deployment of the model holds the agent. It prepares and shadows
  nothing, and its agent is no target of rollouts.
- Otherwise an agent that an active rollout released runs the rollout's version, every other what `version_of` says.
- A yanked version is never newly given: an agent has it only where its stored desired state names it, where it serves
  it as last heard, or where a rollback returns it there. Any other agent keeps the version that it was given before,
  and has no slot where it was given none.
- A deployment without a version and without an exposed rollout gives no slot.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from controlplane.domain.agent_memo import AgentMemo
from controlplane.domain.deployment import Deployment, RuntimePolicy, SamplePolicy
from controlplane.domain.ids import AgentId, DeploymentId, ModelId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.pin import Pin
from controlplane.domain.result_policy import ResultPolicy
from controlplane.domain.rollout import (
    ACTIVE_STATES,
    Rollout,
    RolloutState,
    ShadowPolicy,
    WaveState,
    exposed_agents,
    version_for,
)
from controlplane.domain.selector import facts, parse_selector

SHADOW_SLACK = 2
"""Times its share that an agent of a shadowing wave compares: half of the wave may stand still."""

SELECTIONS_MAX = 4
"""Sets of selectors for which it is remembered whom they match: of the deployments as they are, were a moment ago,
and as they would be."""

MOVING_STATES = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})
"""A rollout in these prepares and shadows; while it is paused what has begun goes on, and nothing more begins."""


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
    result_policy: ResultPolicy = field(default_factory=ResultPolicy)

    @property
    def versions(self) -> tuple[int, ...]:
        """Every version whose bytes the agent needs for this slot: to serve, to prepare, to compare."""
        candidate = self.shadow.candidate_version if self.shadow is not None else 0
        return tuple({number: None for number in (self.version, self.prefetch_version, candidate) if number})


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """Everything an agent should run; `generation` rises exactly when `slots` change."""

    agent_id: AgentId
    generation: int
    slots: tuple[DesiredSlot, ...]
    """Sorted by slot, each slot once."""

    def version_of(self, model_id: ModelId) -> int | None:
        """What it names for the model; None without a slot."""
        return next((slot.version for slot in self.slots if slot.slot == model_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything that decides who should run what, as of one moment."""

    agents: Sequence[AgentRecord]
    deployments: Sequence[Deployment]
    rollouts: Sequence[Rollout] = ()
    """Active ones count, others are passed over."""
    pins: Sequence[Pin] = ()
    yanked: frozenset[tuple[ModelId, int]] = frozenset()
    stored: Mapping[AgentId, DesiredState] = field(default_factory=lambda: MappingProxyType({}))
    """What each agent was last given."""


def find_contenders(
    agents: Iterable[AgentRecord], deployments: Iterable[Deployment]
) -> Mapping[AgentId, tuple[Deployment, ...]]:
    """Return the deployments that match each agent that is not revoked, in order of precedence: the first of each model
    holds it. Every such agent is a key, sorted."""
    ordered = sorted(deployments, key=_precedence)
    match = _matching(tuple(deployment.selector for deployment in ordered))
    alike: dict[tuple[int, ...], tuple[Deployment, ...]] = {}
    matching = {}
    for record in agents:
        if not record.agent.revoked:
            places = match(record)
            if places not in alike:
                alike[places] = tuple(ordered[place] for place in places)
            matching[record.agent.id] = alike[places]
    return {agent_id: matching[agent_id] for agent_id in sorted(matching)}


@lru_cache(maxsize=SELECTIONS_MAX)
def _matching(selectors: tuple[str, ...]) -> AgentMemo[tuple[int, ...]]:
    """What tells which of these selectors match an agent, by their places."""
    parsed = [parse_selector(selector, field="selector") for selector in selectors]

    def find(record: AgentRecord) -> tuple[int, ...]:
        labels = facts(record)
        return tuple(place for place, selector in enumerate(parsed) if selector.matches(labels))

    return AgentMemo(find)


def _precedence(deployment: Deployment) -> tuple[object, ...]:
    return (-deployment.priority, deployment.create_time, deployment.uid)


def holders(contenders: Iterable[Deployment]) -> Mapping[ModelId, Deployment]:
    """Return the deployment that holds an agent for each model, of those that match it in order of precedence."""
    first: dict[ModelId, Deployment] = {}
    for deployment in contenders:
        first.setdefault(deployment.model_id, deployment)
    return first


def select_holders(
    agents: Iterable[AgentRecord], deployments: Sequence[Deployment]
) -> Mapping[DeploymentId, tuple[AgentId, ...]]:
    """Return the agents that each deployment holds, pinned ones with them, sorted; every deployment is a key."""
    held: dict[DeploymentId, list[AgentId]] = {deployment.id: [] for deployment in deployments}
    crowds: dict[int, tuple[tuple[Deployment, ...], list[AgentId]]] = {}
    for agent_id, contenders in find_contenders(agents, deployments).items():
        # Agents that the same deployments match have the same tuple.
        crowd = crowds.get(id(contenders))
        if crowd is None:
            crowd = crowds[id(contenders)] = (contenders, [])
        crowd[1].append(agent_id)
    for contenders, crowd_ids in crowds.values():
        for deployment in holders(contenders).values():
            held[deployment.id] += crowd_ids
    if len(crowds) > 1:
        for ids in held.values():
            ids.sort()
    return {deployment_id: tuple(ids) for deployment_id, ids in held.items()}


def select_targets(
    agents: Iterable[AgentRecord], deployments: Sequence[Deployment], pins: Iterable[Pin]
) -> Mapping[DeploymentId, tuple[AgentId, ...]]:
    """Return the agents that a rollout of each deployment may move: those that it holds and no pin does, sorted."""
    pinned = {(pin.agent_id, pin.model_id) for pin in pins}
    models = {deployment.id: deployment.model_id for deployment in deployments}
    return {
        deployment_id: tuple(agent_id for agent_id in held if (agent_id, models[deployment_id]) not in pinned)
        for deployment_id, held in select_holders(agents, deployments).items()
    }


def assign(standing: Standing) -> Mapping[AgentId, tuple[DesiredSlot, ...]]:
    """Return what each agent that is not revoked should run, sorted by slot; every such agent is a key."""
    moves = find_moves(standing.rollouts)
    pins = {(pin.agent_id, pin.model_id): pin for pin in standing.pins}
    records = {record.agent.id: record for record in standing.agents}
    forbidden = {model_id for model_id, _ in standing.yanked}
    alike: dict[tuple[object, ...], DesiredSlot] = {}
    plain: dict[tuple[object, ...], DesiredSlot | None] = {}
    held: dict[int, Sequence[tuple[ModelId, Deployment]]] = {}
    wanted: dict[AgentId, tuple[DesiredSlot, ...]] = {}
    for agent_id, contenders in find_contenders(standing.agents, standing.deployments).items():
        if id(contenders) not in held:
            held[id(contenders)] = sorted(holders(contenders).items())
        slots = []
        for model_id, deployment in held[id(contenders)]:
            key: tuple[object, ...] | None = None
            if model_id not in forbidden and (agent_id, model_id) not in pins:
                # Nothing else about the agent decides: where no version is forbidden, it does not matter what it has.
                key = (deployment.id, *_lot(agent_id, deployment, moves.get(deployment.id)))
                if key in plain:
                    if (slot := plain[key]) is not None:
                        slots.append(slot)
                    continue
            place = Place(
                record=records[agent_id],
                deployment=deployment,
                move=moves.get(deployment.id),
                pin=pins.get((agent_id, model_id)),
                stored=standing.stored.get(agent_id),
                yanked=standing.yanked,
            )
            slot = place.slot(alike)
            if key is not None:
                plain[key] = slot
            if slot is not None:
                slots.append(slot)
        wanted[agent_id] = tuple(slots)
    return wanted


def _lot(agent_id: AgentId, deployment: Deployment, move: "Move | None") -> tuple[object, ...]:
    """All that tells an agent without a pin from the others of its deployment where no version is forbidden."""
    kept = deployment.version_of(agent_id)
    if move is None:
        return (kept,)
    return (kept, agent_id in move.exposed, agent_id in move.prefetching, move.shadowing.get(agent_id))


@dataclass(frozen=True, slots=True)
class Move:
    """An active rollout, with its agents looked up once."""

    rollout: Rollout
    exposed: frozenset[AgentId]
    """Released and not withdrawn."""
    prefetching: frozenset[AgentId]
    shadowing: Mapping[AgentId, ShadowRun]


def find_moves(rollouts: Iterable[Rollout]) -> Mapping[DeploymentId, Move]:
    """Return what moves each deployment; of several active rollouts the oldest counts."""
    moves: dict[DeploymentId, Move] = {}
    for rollout in sorted(rollouts, key=lambda one: (one.create_time, one.uid)):
        if rollout.state in ACTIVE_STATES and rollout.deployment_id not in moves:
            moving = rollout.state in MOVING_STATES
            moves[rollout.deployment_id] = Move(
                rollout=rollout,
                exposed=exposed_agents(rollout),
                prefetching=frozenset(told.agent_id for told in rollout.prefetches) if moving else frozenset(),
                shadowing=_shadow_runs(rollout) if moving else {},
            )
    return moves


def _shadow_runs(rollout: Rollout) -> Mapping[AgentId, ShadowRun]:
    policy = rollout.strategy.shadow
    if policy is None:
        return {}
    return {
        agent_id: _shadow_run(policy, rollout.target_version, len(wave.agents))
        for wave in rollout.waves
        if wave.state is WaveState.SHADOWING
        for agent_id in wave.agents
    }


def _shadow_run(policy: ShadowPolicy, candidate: int, agents: int) -> ShadowRun:
    share = -(-policy.min_comparisons // agents)
    return ShadowRun(
        candidate_version=candidate,
        comparisons_max=max(1, share * SHADOW_SLACK),
        serving_latency_ms_p99_max=policy.serving_latency_ms_p99_max,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One agent and the deployment that holds it for a model, with what decides its slot there."""

    record: AgentRecord
    deployment: Deployment
    move: Move | None
    pin: Pin | None
    stored: DesiredState | None
    yanked: frozenset[tuple[ModelId, int]]

    @property
    def agent_id(self) -> AgentId:
        return self.record.agent.id

    @property
    def model_id(self) -> ModelId:
        return self.deployment.model_id

    @property
    def is_exposed(self) -> bool:
        """Whether the active rollout released the agent. A pin keeps a rollout off."""
        return self.pin is None and self.move is not None and self.agent_id in self.move.exposed

    def is_yanked(self, version: int) -> bool:
        return (self.model_id, version) in self.yanked

    def intended_version(self) -> int | None:
        """What pin, rollout and deployment say, whether it is yanked or not."""
        if self.pin is not None:
            return self.pin.version
        rollout = self.move.rollout if self.move is not None else None
        return version_for(self.deployment.version_of(self.agent_id), rollout, exposed=self.is_exposed)

    def stored_version(self) -> int | None:
        """What the agent was last given for the model, by whichever deployment."""
        return self.stored.version_of(self.model_id) if self.stored is not None else None

    def version(self) -> int | None:
        """What the agent should run; None for no slot."""
        intended = self.intended_version()
        if intended is None or not self.is_yanked(intended) or self._has(intended):
            return intended
        return self.stored_version()

    def _has(self, version: int) -> bool:
        """Whether to run the version is nothing new to the agent."""
        observation = self.record.observation
        observed = observation.observed.slot(self.model_id) if observation is not None else None
        returns = self.is_exposed and self.move is not None and self.move.rollout.state is RolloutState.ROLLING_BACK
        serves = observed is not None and observed.serving_version == version
        return returns or serves or self.stored_version() == version

    def slot(self, alike: dict[tuple[object, ...], DesiredSlot]) -> DesiredSlot | None:
        """The slot as it should be; None for none. `alike` are those made of the same standing: most agents of a
        deployment should run the same, and to make that ten thousand times costs."""
        version = self.version()
        if version is None:
            return None
        prefetch_version, shadow = self._prefetch_version(version), self._shadow(version)
        fetches = bool(self.is_exposed or prefetch_version or shadow is not None)
        key = (self.deployment.id, version, prefetch_version, shadow, fetches)
        slot = alike.get(key)
        if slot is None:
            slot = alike[key] = DesiredSlot(
                slot=self.model_id,
                version=version,
                deployment_id=self.deployment.id,
                runtime_policy=self.deployment.runtime_policy,
                sample_policy=self.deployment.sample_policy,
                result_policy=self.deployment.result_policy,
                offer=self.deployment.offer,
                prefetch_version=prefetch_version,
                shadow=shadow,
                fetch_bytes_per_second_max=self._bytes_per_second() if fetches else 0,
            )
        return slot

    def _candidate(self, version: int) -> int:
        """The version of a rollout that the agent may prepare beside the one that it should run; 0 for none."""
        if self.pin is not None or self.move is None or self.is_exposed:
            return 0
        target = self.move.rollout.target_version
        return 0 if target == version or self.is_yanked(target) else target

    def _prefetch_version(self, version: int) -> int:
        return self._candidate(version) if self.move is not None and self.agent_id in self.move.prefetching else 0

    def _shadow(self, version: int) -> ShadowRun | None:
        return self.move.shadowing.get(self.agent_id) if self.move is not None and self._candidate(version) else None

    def _bytes_per_second(self) -> int:
        """Of the rollout while it hands out its version; bytes of a return, which are in the agent's cache as a rule,
        are not held up."""
        if self.move is None or self.move.rollout.state not in MOVING_STATES:
            return 0
        return self.move.rollout.strategy.bytes_per_second_per_site


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
