"""Steps of rollouts: what is read for them, what `domain.rollout_step` makes of it, and how its decision is stored.

What holds:
- A decision is a function of what is stored and the time; nothing is remembered between two steps but when this
  controller began to listen, for how long it saw agents absent, and what equals that which one would find anew: sums of
  evidence, and what agents say as long as they say the same.
- A rollout, its deployment, the desired states and the log of decisions change in one transaction, or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

import structlog

from controlplane import limits, observability
from controlplane.app.audit import write_down
from controlplane.app.convergence import converge
from controlplane.app.measurement import Measurement
from controlplane.app.ports import ChangeNotifier, Clock, IdSource, UnitOfWork
from controlplane.app.windows import Windows
from controlplane.domain.admission import TargetView, Views
from controlplane.domain.assignment import select_targets
from controlplane.domain.deployment import Deployment
from controlplane.domain.device_class import UNKNOWN, device_class
from controlplane.domain.gate import GateVerdict, evaluate
from controlplane.domain.ids import AgentId, DeploymentId, ModelId, RolloutId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.pin import Pin
from controlplane.domain.progress import Hearing, Sight, observe, release_times
from controlplane.domain.rollout import (
    ACTIVE_STATES,
    Decision,
    MaintenanceWindow,
    Progress,
    Rollout,
    RolloutState,
    RolloutStrategy,
    Wave,
    WaveState,
    WindowScope,
    coming_wave,
    open_wave,
)
from controlplane.domain.rollout_step import ALWAYS, StartWindow, carry, enlist_late, step
from controlplane.domain.selector import facts
from controlplane.domain.shadow_gate import evaluate_shadow
from controlplane.domain.wave import plan_waves

log = structlog.get_logger(__name__)

_MOVING = frozenset({RolloutState.RUNNING, RolloutState.PAUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What every rollout is judged against, read once a transaction."""

    records: Mapping[AgentId, AgentRecord]
    deployments: Mapping[DeploymentId, Deployment]
    targets: Mapping[DeploymentId, Sequence[AgentId]]
    """Agents that a rollout of the deployment may move, by id: pinned ones are not among them."""
    yanked: frozenset[tuple[ModelId, int]]
    pins: Sequence[Pin] = ()

    def with_deployment(self, deployment: Deployment) -> "Scene":
        """The scene with the deployment as it is by now."""
        return replace(self, deployments={**self.deployments, deployment.id: deployment})

    def yanked_of(self, model_id: ModelId) -> frozenset[int]:
        """Forbidden versions of the model."""
        return frozenset(number for model, number in self.yanked if model == model_id)


async def read_scene(uow: UnitOfWork) -> Scene:
    """Read everything that rollouts are judged against but their evidence."""
    records, deployments, pins = (
        await uow.agents.list_all(),
        await uow.deployments.list_all(),
        await uow.pins.list_all(),
    )
    return Scene(
        records={record.agent.id: record for record in records},
        deployments={deployment.id: deployment for deployment in deployments},
        targets=select_targets(records, deployments, pins),
        yanked=await uow.models.list_yanked(),
        pins=pins,
    )


async def refresh_scene(uow: UnitOfWork, scene: Scene | None) -> Scene:
    """Return the scene with agents as they were seen a moment ago, where all that operators decide is as it was; else
    read it anew. What agents said meanwhile the next tick takes in."""
    if scene is None:
        return await read_scene(uow)
    deployments = {deployment.id: deployment for deployment in await uow.deployments.list_all()}
    unmoved = (
        deployments == scene.deployments
        and list(await uow.pins.list_all()) == list(scene.pins)
        and await uow.models.list_yanked() == scene.yanked
    )
    return scene if unmoved else await read_scene(uow)


def plan_targets(
    strategy: RolloutStrategy, deployment: Deployment, target_version: int, scene: Scene
) -> tuple[Wave, ...]:
    """Return the waves of a rollout that starts on this scene; empty without targets.

    Deployment and version alone draw the order, so that a plan shows the waves that the rollout will have.
    """
    targets, classes = scene.targets[deployment.id], None
    if strategy.canary_per_device_class:
        classes = {agent: device_class(scene.records[agent]) for agent in targets}
        classes = {agent: known for agent, known in classes.items() if known != UNKNOWN}
    return plan_waves(strategy.waves, targets, seed=f"{deployment.uid}/{target_version}", device_classes=classes)


@lru_cache(maxsize=limits.WINDOWS_CACHED_MAX)
def _windows(windows: tuple[MaintenanceWindow, ...]) -> Windows:
    """Read once: a strategy does not change, and to read it a hundred times a minute costs."""
    return Windows(windows)


class RolloutSteps:
    """Decides the next step of a rollout."""

    def __init__(self, *, silent_seconds_max: float, listening_since: datetime) -> None:
        self._silent_seconds_max = silent_seconds_max
        self._listening_since = listening_since
        self._measurement = Measurement()
        self._memories: dict[RolloutId, _Memory] = {}
        """Of rollouts that are decided about again and again."""

    async def decide(self, uow: UnitOfWork, scene: Scene, rollout: Rollout, now: datetime) -> Decision:
        """Return what the rollout's next step is, by everything that is stored. Not of an ended one."""
        yanked = scene.yanked_of(rollout.model_id)
        if rollout.state not in ACTIVE_STATES or rollout.deployment_id not in scene.deployments:
            return step(rollout, Progress(), None, now, yanked=yanked)
        joined = Decision(rollout=rollout)
        if rollout.state is RolloutState.RUNNING:
            joined = enlist_late(rollout, scene.targets[rollout.deployment_id], now)
        rollout = joined.rollout
        sight = self.sight(scene, rollout, now)
        views = self.look(rollout, sight) if rollout.state in _MOVING else {}
        taken = carry(
            rollout,
            observe(rollout, sight),
            await self._judge(uow, rollout, sight),
            views,
            now,
            artifact_bytes=await artifact_bytes(uow, rollout),
            start_window=_start_window(rollout, sight),
            yanked=yanked,
        )
        return joined.then(taken)

    async def _judge(self, uow: UnitOfWork, rollout: Rollout, sight: Sight) -> GateVerdict | None:
        """What the open wave's gate, or its shadow run, says; None without an open wave."""
        wave = open_wave(rollout)
        if wave is None or rollout.state not in _MOVING:
            return None
        evidence, strategy = await self._measurement.gather(uow, rollout, wave, sight), rollout.strategy
        if wave.state is WaveState.SHADOWING:
            assert strategy.shadow is not None, "only a strategy with a shadow run has a wave in it"
            return evaluate_shadow(strategy.shadow, evidence, gate=strategy.gate, now=sight.now)
        return evaluate(strategy.gate, evidence, bake_seconds=strategy.bake_seconds, now=sight.now)

    def forget_others(self, active: Iterable[RolloutId]) -> None:
        """Drop what is remembered of every other rollout, and remember these."""
        kept = frozenset(active)
        self._measurement.keep(kept)
        self._memories = {rollout_id: self._memories.get(rollout_id) or _Memory() for rollout_id in kept}

    def sight(self, scene: Scene, rollout: Rollout, now: datetime) -> Sight:
        """How the rollout sees its targets. Its deployment exists."""
        deployment = scene.deployments[rollout.deployment_id]
        sight = Sight(
            targets={agent_id: scene.records[agent_id] for agent_id in scene.targets[rollout.deployment_id]},
            offer=deployment.offer,
            now=now,
            silent_seconds_max=self._silent_seconds_max,
            listening_since=self._listening_since,
            kept_versions=deployment.kept_versions,
            released=release_times(rollout),
            hearing=self._memory(rollout).hearing,
        )
        return sight.with_absences(self._measurement.absent_seconds(rollout, sight))

    def look(self, rollout: Rollout, sight: Sight) -> Mapping[AgentId, TargetView]:
        """Return what admission looks at of each target, at the time of the sight."""
        views = self._memory(rollout).views
        if not _binds(rollout, WindowScope.SWAP):
            return views.look(rollout, sight, None)
        windows = _windows(rollout.strategy.windows)
        return views.look(rollout, sight, lambda record: windows.swap_open(facts(record), sight.now))

    def _memory(self, rollout: Rollout) -> "_Memory":
        return self._memories.get(rollout.id) or _Memory()


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    """What of a rollout's targets need not be found anew at each step."""

    hearing: Hearing = field(default_factory=Hearing)
    views: Views = field(default_factory=Views)


def _binds(rollout: Rollout, scope: WindowScope) -> bool:
    return any(window.scope is scope for window in rollout.strategy.windows)


def _start_window(rollout: Rollout, sight: Sight) -> StartWindow:
    """Whether the next wave may start: while the window of any of its agents is closed it waits."""
    wave = coming_wave(rollout)
    if wave is None or not _binds(rollout, WindowScope.START):
        return ALWAYS
    windows = _windows(rollout.strategy.windows)
    labels = [facts(sight.targets[agent]) for agent in wave.agents if agent in sight.targets]
    closed = [each for each in labels if not windows.start_open(each, sight.now)]
    if not closed:
        return ALWAYS
    opens = [windows.next_open(WindowScope.START, each, sight.now) for each in closed]
    known = [time for time in opens if time is not None]
    return StartWindow(is_open=False, opens=max(known) if len(known) == len(opens) else None)


async def artifact_bytes(uow: UnitOfWork, rollout: Rollout) -> int:
    """Size of the target version; 0 where bytes are not paced."""
    if rollout.state is not RolloutState.RUNNING or not rollout.strategy.bytes_per_second_per_site:
        return 0
    version = await uow.models.get_version(rollout.model_id, rollout.target_version)
    return version.artifact.size_bytes


class RolloutChanges:
    """Stores decisions, and tells of them once they are committed."""

    def __init__(self, *, clock: Clock, ids: IdSource, notifier: ChangeNotifier) -> None:
        self._clock = clock
        self._ids = ids
        self._notifier = notifier

    async def store(self, uow: UnitOfWork, before: Rollout | None, decision: Decision, now: datetime) -> "Stored":
        """Apply a decision on `before` (None for a new rollout) within the write transaction."""
        if before is None:
            await uow.rollouts.add(decision.rollout)
            stored = decision.rollout
        else:
            stored = before if decision.rollout == before else await uow.rollouts.save(decision.rollout)
        await _move_deployment(uow, decision, now)
        await write_down(uow, decision.happenings, clock=self._clock, ids=self._ids)
        moved = _moved_agents(before, decision)
        changed = await converge(uow, moved) if moved is None or moved else ()
        return Stored(rollout=stored, agents=changed)

    def announce(self, *stored: "Stored") -> None:
        """After the commit."""
        for one in stored:
            rollout = one.rollout
            log.info(
                observability.ROLLOUT_MOVED,
                rollout=rollout.id,
                deployment=rollout.deployment_id,
                state=rollout.state,
                reason=rollout.reason,
                message=rollout.message,
                revision=rollout.revision,
            )
            self._notifier.rollout_changed(rollout.id)
            if one.agents:
                log.info(observability.DESIRED_CHANGED, agents=len(one.agents))
                self._notifier.desired_changed(one.agents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A rollout as it was stored, and whose desired state changed with it."""

    rollout: Rollout
    agents: Sequence[AgentId] = ()


async def _move_deployment(uow: UnitOfWork, decision: Decision, now: datetime) -> None:
    moves = decision.set_version is not None or decision.raise_offer or decision.keep_versions or decision.clear_kept
    if not moves:
        return
    deployment = await uow.deployments.get(decision.rollout.deployment_id)
    version = decision.set_version.version if decision.set_version is not None else deployment.version
    kept = {} if decision.clear_kept else {**deployment.kept_versions, **decision.keep_versions}
    await uow.deployments.save(
        replace(
            deployment,
            version=version,
            offer=deployment.offer + decision.raise_offer,
            kept_versions={agent: number for agent, number in kept.items() if number != version},
            update_time=now,
        )
    )


def _moved_agents(before: Rollout | None, decision: Decision) -> frozenset[AgentId] | None:
    """The agents for which what they should run may have changed; None for all. Verdicts and messages move nobody."""
    deployment = decision.set_version or decision.raise_offer or decision.keep_versions or decision.clear_kept
    after = decision.rollout
    if deployment:
        return None
    if before is after:
        return frozenset()
    if before is None:
        # Whom a new rollout gives no order is as he was without it.
        return frozenset(agent_id for agent_id, _ in _orders(after))
    old, new = _orders(before), _orders(after)
    # An order holds for its agent alone; what kind of a rollout it is holds for all of them.
    return None if _kind(before) != _kind(after) else frozenset(agent_id for agent_id, _ in old ^ new)


def _kind(rollout: Rollout) -> str:
    return "moving" if rollout.state in _MOVING else rollout.state


def _orders(rollout: Rollout) -> frozenset[tuple[AgentId, object]]:
    """What of a rollout reaches its agents, each with the agent that it reaches."""
    released = ((told.agent_id, ("release", told.time)) for wave in rollout.waves for told in wave.releases)
    prefetching = ((told.agent_id, ("prefetch", told.time)) for told in rollout.prefetches)
    shadowing = [wave for wave in rollout.waves if wave.state is WaveState.SHADOWING]
    # How much each compares depends on how many share the wave.
    shadows = ((agent_id, ("shadow", len(wave.agents))) for wave in shadowing for agent_id in wave.agents)
    return frozenset((*released, *prefetching, *shadows))
