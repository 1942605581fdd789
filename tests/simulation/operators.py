"""What operators ask for: drawn strategies and commands."""

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from controlplane.app.rollouts import RolloutRequest, WhenActive
from controlplane.domain.gate import FailureAction, GatePolicy
from controlplane.domain.ids import RolloutId
from controlplane.domain.rollout import (
    ApprovalScope,
    MaintenanceWindow,
    RolloutStrategy,
    ShadowPolicy,
    WindowScope,
)
from controlplane.domain.wave import parse_wave_sizes
from tests.simulation.controller import Replica
from tests.simulation.scenario import Scenario, Standing
from tests.simulation.snapshot import Snapshot

ALICE, BOB = "operators/alice", "operators/bob"
EASY = RolloutStrategy(
    waves=parse_wave_sizes("1,100%"),
    gate=GatePolicy(min_inferences=0, max_failed_installs=1000, max_silent_per_mille=1000),
    offline_wait_seconds=20.0,
    install_seconds_max=60.0,
)
UNKNOWN_VERSION = 99
"""Operators sometimes ask for what does not exist."""


class Operators:
    """People who start, steer, pin, yank and relabel, each time at one of the controllers."""

    def __init__(
        self,
        scenario: Scenario,
        replicas: Sequence[Replica],
        rng: random.Random,
        look: Callable[[], Awaitable[Snapshot]],
    ) -> None:
        self._scenario = scenario
        self._replicas = replicas
        self._rng = rng
        self._look = look

    async def start(self) -> None:
        """Start a rollout."""
        request = draw_request(self._scenario, self._rng)
        replica = self._rng.choice(self._replicas)
        await replica.act(lambda: replica.rollouts.create(request))

    async def command(self) -> None:
        """Steer one of the last rollouts, or start one."""
        rng, snapshot = self._rng, await self._look()
        if not snapshot.rollouts or rng.random() < 0.3:
            await self.start()
            return
        rollout_id, replica = rng.choice(snapshot.rollouts[-3:]).id, rng.choice(self._replicas)
        rollouts, actor, keep = replica.rollouts, rng.choice([ALICE, BOB]), rng.random() < 0.5
        commands: Sequence[Callable[[], Awaitable[Any]]] = [
            lambda: rollouts.pause(rollout_id, actor=actor),
            lambda: rollouts.resume(rollout_id, actor=actor),
            lambda: rollouts.abort(rollout_id, actor=actor, keep=keep),
            lambda: rollouts.rollback(rollout_id, actor=actor),
            lambda: rollouts.retry(rollout_id, actor=actor),
            lambda: rollouts.approve(rollout_id, actor=actor),
            lambda: rollouts.approve(rollout_id, actor=actor),
        ]
        await replica.act(rng.choice(commands))

    async def approve(self) -> None:
        """Approve whatever waits for it."""
        rng, snapshot = self._rng, await self._look()
        waiting = [rollout.id for rollout in snapshot.rollouts if rollout.reason == "WAITS_FOR_APPROVAL"]
        replica, actor = rng.choice(self._replicas), rng.choice([ALICE, BOB])
        for rollout_id in waiting:
            await replica.act(partial(replica.rollouts.approve, rollout_id, actor=actor))

    async def start_last(self) -> tuple[RolloutId, ...]:
        """Start a rollout of each deployment that asks for next to nothing; return those that were not refused."""
        started: list[RolloutId] = []
        for standing in self._scenario.standing:
            request = RolloutRequest(
                deployment_id=standing.deployment_id,
                model_id=standing.model_id,
                target_version=1,
                strategy=EASY,
                when_active=WhenActive.SUPERSEDE,
                actor=ALICE,
            )

            async def start(request: RolloutRequest = request) -> None:
                started.append((await self._replicas[0].rollouts.create(request)).id)

            await self._replicas[0].act(start)
        return tuple(started)

    async def pin(self) -> None:
        """Pin a slot, or let it go."""
        rng, snapshot = self._rng, await self._look()
        replica, actor = rng.choice(self._replicas), rng.choice([ALICE, BOB])
        agent_id, model_id = rng.choice(sorted(snapshot.agents)), rng.choice(sorted(self._scenario.versions))
        if (agent_id, model_id) in snapshot.pins:
            await replica.act(lambda: replica.pins.unpin(agent_id, model_id, actor=actor))
            return
        number = rng.choice(self._scenario.versions[model_id]).number
        await replica.act(lambda: replica.pins.pin(agent_id, model_id, number, reason="a test", actor=actor))

    async def yank(self) -> None:
        """Forbid a version, or allow it again."""
        rng, snapshot = self._rng, await self._look()
        replica, actor = rng.choice(self._replicas), rng.choice([ALICE, BOB])
        model_id = rng.choice(sorted(self._scenario.versions))
        number = rng.choice(self._scenario.versions[model_id]).number
        if (model_id, number) in snapshot.yanked:
            await replica.act(lambda: replica.registry.unyank(model_id, number, actor=actor))
        else:
            await replica.act(lambda: replica.registry.yank(model_id, number, reason="wrong", actor=actor))

    async def relabel(self) -> None:
        """Move a box to another line."""
        rng, snapshot = self._rng, await self._look()
        replica, actor = rng.choice(self._replicas), rng.choice([ALICE, BOB])
        agent_id, line = rng.choice(sorted(snapshot.agents)), rng.choice(["l1", "l2", "l3"])
        await replica.act(
            lambda: replica.people.update_labels(agent_id, set_labels={"line": line}, remove=(), actor=actor)
        )

    async def revoke(self) -> None:
        """Revoke a box."""
        rng, snapshot = self._rng, await self._look()
        agent_id, replica = rng.choice(sorted(snapshot.agents)), rng.choice(self._replicas)
        await replica.act(lambda: replica.people.revoke(agent_id, actor=ALICE))


def draw_request(scenario: Scenario, rng: random.Random) -> RolloutRequest:
    """Return what somebody asks for."""
    standing: Standing = rng.choice(scenario.standing)
    numbers = [version.number for version in scenario.versions[standing.model_id]]
    return RolloutRequest(
        deployment_id=standing.deployment_id,
        model_id=standing.model_id,
        target_version=UNKNOWN_VERSION if rng.random() < 0.05 else rng.choice(numbers),
        strategy=draw_strategy(rng),
        when_active=rng.choice([WhenActive.RULE, WhenActive.RULE, *WhenActive]),
        actor=rng.choice([ALICE, BOB]),
    )


def draw_strategy(rng: random.Random) -> RolloutStrategy:
    """Return a strategy that uses some of everything, with times short enough for a simulated night."""
    approval = rng.choice([ApprovalScope.NONE, ApprovalScope.NONE, ApprovalScope.NONE, *ApprovalScope])
    return RolloutStrategy(
        waves=parse_wave_sizes(rng.choice(["100%", "1,100%", "1,50%,100%", "1,2,3,100%", "10%,60%,100%"])),
        bake_seconds=rng.choice([0.0, 5.0, 20.0]),
        gate=draw_gate(rng),
        canary_per_device_class=rng.random() < 0.7,
        max_unavailable_per_line=rng.choice([0, 0, 1, 1, 2]),
        approval=approval,
        second_person=approval is not ApprovalScope.NONE and rng.random() < 0.5,
        windows=_draw_windows(rng),
        deadline_seconds=rng.choice([0.0, 0.0, 0.0, 150.0]),
        install_seconds_max=rng.choice([30.0, 60.0]),
        offline_wait_seconds=rng.choice([20.0, 45.0]),
        agents_per_minute=rng.choice([0, 0, 0, 6, 30]),
        bytes_per_second_per_site=rng.choice([0, 0, 0, 200_000]),
        prefetch=rng.random() < 0.2,
        shadow=ShadowPolicy(min_comparisons=20, min_agreement_per_mille=800) if rng.random() < 0.2 else None,
    )


def draw_gate(rng: random.Random) -> GatePolicy:
    """Return a gate; some ask for much, some for nothing."""
    return GatePolicy(
        min_inferences=rng.choice([0, 10, 40]),
        max_errors_per_mille=rng.choice([0, 50, 1000]),
        max_failed_installs=rng.choice([0, 0, 1]),
        on_failure=rng.choice(list(FailureAction)),
        max_latency_ms_p99=rng.choice([0.0, 0.0, 50.0, 16.0]),
        max_latency_p99_percent=rng.choice([0, 0, 150]),
        min_throughput_percent=rng.choice([0, 0, 0, 50]),
        max_silent_per_mille=rng.choice([0, 200, 1000]),
        confidence_per_mille=rng.choice([900, 990]),
        idle_seconds=rng.choice([20.0, 40.0]),
    )


def _draw_windows(rng: random.Random) -> tuple[MaintenanceWindow, ...]:
    if rng.random() < 0.7:
        return ()
    return tuple(
        MaintenanceWindow(
            selector=rng.choice(["", "site=s1", "line=l1"]),
            cron=f"*/{rng.choice([2, 3])} * * * *",
            duration_seconds=rng.choice([45.0, 90.0]),
            time_zone="UTC",
            scope=rng.choice(list(WindowScope)),
        )
        for _ in range(rng.randint(1, 2))
    )
