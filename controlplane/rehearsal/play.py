"""A play: the real decisions of a rollout, over boxes that are drawn.

The functions are those of the real controller: `admit_targets` and `carry` decide, the gate is evaluated on evidence
pooled as ever. Time goes on in ticks, close together while something happens and further apart while nothing does.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from controlplane.domain.admission import view_target
from controlplane.domain.deployment import Deployment, RuntimePolicy, SamplePolicy
from controlplane.domain.evidence import InferenceCount, ShadowTally
from controlplane.domain.gate import GatePolicy, GateVerdict, evaluate
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.progress import Sight, observe, pool_evidence, pool_shadow, release_times
from controlplane.domain.rollout import (
    ENDED_STATES,
    Rollout,
    RolloutState,
    WaveState,
    WindowScope,
    coming_wave,
    due_for_approval,
    exposed_agents,
    failed_wave,
    open_wave,
)
from controlplane.domain.rollout_commands import approve, start
from controlplane.domain.rollout_step import StartWindow, carry
from controlplane.domain.shadow_gate import evaluate_shadow
from controlplane.rehearsal.box import Box
from controlplane.rehearsal.report import Play
from controlplane.rehearsal.stage import Assumptions, Stage

TICK_SECONDS_MIN = 2.0
TICK_SECONDS_MAX = 900.0
TICK_GROWTH = 1.15
"""While nothing changes each tick is that much longer: what happens is noticed a seventh of the wait late at most."""
STARTER, APPROVER = "operators/rehearsal", "operators/second"
_OVER = ENDED_STATES | {RolloutState.PAUSED}


class WindowCalendar(Protocol):
    """When windows are open."""

    def swap_open(self, labels: Mapping[str, str], now: datetime) -> bool: ...
    def start_open(self, labels: Mapping[str, str], now: datetime) -> bool: ...
    def next_open(self, scope: WindowScope, labels: Mapping[str, str], now: datetime) -> datetime | None: ...


def play(stage: Stage, assumptions: Assumptions, windows: WindowCalendar, *, seed: int) -> Play:
    """Play the rollout once, until it has ended, waits for an operator, or is cut off."""
    return _Performance(stage, assumptions, windows, seed).run()


class _Performance:
    def __init__(self, stage: Stage, assumptions: Assumptions, windows: WindowCalendar, seed: int) -> None:
        self._stage = stage
        self._windows = windows
        self._seed = seed
        self._gate = _without_comparisons(stage.strategy.gate)
        self._boxes = {
            spec.agent_id: Box(spec, assumptions, stage.target_version, start=stage.now, seed=f"{seed}/{spec.agent_id}")
            for spec in stage.boxes
        }
        self._seconds = 0.0
        self._counted: dict[int, Mapping[AgentId, tuple[int, int]]] = {}
        """What was counted when a wave was admitted, by its index."""
        self._exposed = 0
        self._bound = {scope: any(window.scope is scope for window in stage.strategy.windows) for scope in WindowScope}

    def run(self) -> Play:
        rollout = self._begin()
        step_seconds = TICK_SECONDS_MIN
        for _ in range(self._stage.ticks_max):
            after = self._tick(rollout)
            told = self._tell(after)
            moved = told or _essence(after) != _essence(rollout)
            rollout = after
            if rollout.state in _OVER or self._seconds >= self._stage.horizon_seconds:
                break
            step_seconds = TICK_SECONDS_MIN if moved else min(step_seconds * TICK_GROWTH, TICK_SECONDS_MAX)
            self._move_on(rollout, step_seconds)
        return self._end(rollout)

    def _begin(self) -> Rollout:
        stage = self._stage
        deployment = Deployment(
            id=stage.deployment_id,
            uid=stage.deployment_id,
            create_time=stage.now,
            update_time=stage.now,
            model_id=stage.model_id,
            version=stage.version,
            selector="agent",
            runtime_policy=RuntimePolicy(),
            sample_policy=SamplePolicy(),
        )
        decision = start(
            deployment,
            rollout_id=RolloutId("rehearsal"),
            uid="rehearsal",
            target_version=stage.target_version,
            strategy=replace(stage.strategy, gate=self._gate),
            waves=stage.waves,
            actor=STARTER,
            now=stage.now,
        )
        return decision.rollout

    @property
    def _now(self) -> datetime:
        return self._stage.now + timedelta(seconds=self._seconds)

    def _tick(self, rollout: Rollout) -> Rollout:
        """One round of the controller."""
        now, stage = self._now, self._stage
        if due_for_approval(rollout) is not None:
            rollout = approve(rollout, now, actor=APPROVER).rollout
        records = {agent_id: box.record(stage.model_id) for agent_id, box in self._boxes.items()}
        sight = self._sight(rollout, records)
        views = {
            agent_id: view_target(record, rollout, sight, swap_open=self._swap_open(agent_id))
            for agent_id, record in records.items()
        }
        after = carry(
            rollout,
            observe(rollout, sight),
            self._judge(rollout, sight),
            views,
            now,
            artifact_bytes=stage.artifact_bytes if stage.strategy.bytes_per_second_per_site else 0,
            start_window=self._start_window(rollout),
        ).rollout
        for old, new in zip(rollout.waves, after.waves, strict=True):
            if old.admit_time != new.admit_time and new.state is WaveState.ADMITTED:
                self._counted[new.index] = {a: (box.inferences, box.errors) for a, box in self._boxes.items()}
        self._exposed = max(self._exposed, len(exposed_agents(after)))
        return after

    def _sight(self, rollout: Rollout, records: Mapping[AgentId, AgentRecord]) -> Sight:
        return Sight(
            targets=records,
            offer=1,
            now=self._now,
            silent_seconds_max=self._stage.silent_seconds_max,
            listening_since=self._stage.now,
            released=release_times(rollout),
        )

    def _judge(self, rollout: Rollout, sight: Sight) -> GateVerdict | None:
        wave, strategy = open_wave(rollout), rollout.strategy
        if wave is None or rollout.state is RolloutState.ROLLING_BACK:
            return None
        if wave.state is WaveState.SHADOWING:
            assert strategy.shadow is not None, "a shadow run was asked for"
            evidence = pool_shadow(rollout, wave, sight, [self._shadow(box) for box in self._boxes.values()])
            return evaluate_shadow(strategy.shadow, evidence, gate=strategy.gate, now=sight.now)
        before = self._counted.get(wave.index, {})
        counts = [self._since(box.count(), before) for box in self._boxes.values()]
        evidence = pool_evidence(rollout, wave, sight, [count for count in counts if count.inferences])
        return evaluate(strategy.gate, evidence, bake_seconds=strategy.bake_seconds, now=sight.now)

    @staticmethod
    def _since(count: InferenceCount, before: Mapping[AgentId, tuple[int, int]]) -> InferenceCount:
        inferences, errors = before.get(count.agent_id, (0, 0))
        return replace(count, inferences=count.inferences - inferences, errors=count.errors - errors)

    def _shadow(self, box: Box) -> ShadowTally:
        """What it compared: the versions agree wherever the candidate answers at all."""
        heard = box.count().last_receive_time
        agreed = box.compared - box.compared_errors
        return ShadowTally(
            agent_id=box.agent_id,
            compared=box.compared,
            agreed=agreed,
            errors=box.compared_errors,
            last_receive_time=heard if box.compared else None,
        )

    def _swap_open(self, agent_id: AgentId) -> bool:
        if not self._bound[WindowScope.SWAP]:
            return True
        return self._windows.swap_open(self._boxes[agent_id].spec.facts, self._now)

    def _start_window(self, rollout: Rollout) -> StartWindow:
        wave = coming_wave(rollout)
        if wave is None or not self._bound[WindowScope.START]:
            return StartWindow()
        labels = [self._boxes[agent].spec.facts for agent in wave.agents]
        return StartWindow(is_open=all(self._windows.start_open(each, self._now) for each in labels))

    def _tell(self, rollout: Rollout) -> bool:
        """Let every box know what is wanted of it; return whether anything is new."""
        stage = self._stage
        moving = rollout.state is RolloutState.RUNNING
        given = rollout.state in {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SUCCEEDED}
        exposed = exposed_agents(rollout) if given else frozenset()
        prefetching = {told.agent_id for told in rollout.prefetches} if moving else set()
        shadowing = {a for w in rollout.waves if w.state is WaveState.SHADOWING for a in w.agents} if moving else set()
        shadow = stage.strategy.shadow
        share = 2 * -(-shadow.min_comparisons // max(1, len(shadowing))) if shadow is not None else 0
        told = [
            box.tell(
                version=stage.target_version if agent_id in exposed else box.spec.serving_version,
                prefetch=agent_id in prefetching,
                shadow_max=share if agent_id in shadowing else 0,
                fetch_bytes_per_second_max=stage.strategy.bytes_per_second_per_site,
            )
            for agent_id, box in self._boxes.items()
        ]
        return any(told)

    def _move_on(self, rollout: Rollout, step_seconds: float) -> None:
        """Go on by the step, or to what comes before its end."""
        if any(box.is_behind for box in self._boxes.values()):
            step_seconds = TICK_SECONDS_MIN
        change = min((box.next_change for box in self._boxes.values()), default=math.inf)
        until = min(self._seconds + step_seconds, max(change, self._seconds + TICK_SECONDS_MIN))
        if step_seconds > TICK_SECONDS_MIN and rollout.strategy.windows:
            until = min(until, self._next_opening())
        self._seconds = min(max(until, self._seconds + TICK_SECONDS_MIN), self._stage.horizon_seconds)
        for box in self._boxes.values():
            box.advance(self._seconds)

    def _next_opening(self) -> float:
        opens = [
            self._windows.next_open(scope, box.spec.facts, self._now)
            for scope, bound in self._bound.items()
            if bound
            for box in self._boxes.values()
        ]
        coming = [(time - self._stage.now).total_seconds() for time in opens if time is not None and time > self._now]
        return min(coming, default=math.inf)

    def _end(self, rollout: Rollout) -> Play:
        state = RolloutState.RUNNING if rollout.state is RolloutState.ROLLING_BACK else rollout.state
        turned = state in {RolloutState.ROLLED_BACK, RolloutState.PAUSED} or rollout.state is RolloutState.ROLLING_BACK
        stopped = failed_wave(rollout) or next((w for w in rollout.waves if w.state is not WaveState.PASSED), None)
        return Play(
            seed=self._seed,
            state=state,
            seconds=self._seconds,
            exposed_agents=self._exposed,
            failed_inferences=sum(box.failed_inferences for box in self._boxes.values()),
            fetch_bytes=sum(box.fetched_bytes for box in self._boxes.values()),
            stopped_in_wave=stopped.index if turned and stopped is not None else None,
        )


def _essence(rollout: Rollout) -> tuple[object, ...]:
    """What of a rollout is decided, and not measured."""
    return (rollout.state, tuple((wave.state, wave.releases) for wave in rollout.waves), rollout.prefetches)


def _without_comparisons(gate: GatePolicy) -> GatePolicy:
    """The gate without what compares with the version before: by assumption that is as it was."""
    return replace(
        gate,
        max_latency_ms_p95=0.0,
        max_latency_ms_p99=0.0,
        max_latency_p99_percent=0,
        min_throughput_percent=0,
        max_confidence_drift_per_mille=0,
        max_class_drift_per_mille=0,
    )
