"""Rehearsals: a planned rollout, played many times on a copy of the inventory under stated failures.

Plays run in a process of their own with the lowest priority, so that they hold up neither syncs nor rollouts; it is
ended when the caller leaves or time is up. They write nothing and ask the store nothing.
"""

import asyncio
import json
import math
import pickle
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from controlplane import limits
from controlplane.app.planning import Inventory, Planning
from controlplane.app.rollouts import RolloutRequest
from controlplane.domain.errors import FieldInvalidError, LimitExceededError
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Device
from controlplane.domain.rollout import RolloutState
from controlplane.rehearsal.report import Play, RehearsalReport, summarise
from controlplane.rehearsal.stage import Assumptions, BoxSpec, Stage

PROCESS = "controlplane.app.rehearsal_process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """How far a rehearsal is; the last one carries the report."""

    plays_done: int
    plays: int
    report: RehearsalReport | None = None


class Rehearsals:
    """Rehearses rollouts."""

    def __init__(self, *, planning: Planning, silent_seconds_max: float = limits.AGENT_SILENT_SECONDS_MAX) -> None:
        self._planning = planning
        self._silent_seconds_max = silent_seconds_max
        self._running = 0

    async def rehearse(
        self, request: RolloutRequest, assumptions: Assumptions, *, plays: int, first_seed: int
    ) -> AsyncGenerator[Rehearsed, None]:
        """Yield progress, and at last the report. `plays` of 0 means the default. The same seeds on the same inventory
        at the same time give the same report.

        Raises what `Rollouts.create` raises; FieldInvalidError for assumptions or a number of plays out of bounds;
        LimitExceededError for too large a fleet for so many plays, when too many rehearsals run, or when time is up.
        """
        check_assumptions(assumptions)
        plays = _check_plays(plays)
        inventory = await self._planning.read(request)
        _check_size(len(inventory.candidates), plays)
        stage = set_stage(inventory, silent_seconds_max=self._silent_seconds_max)
        done: list[Play] = []
        async with self._turn(), _started(stage, assumptions, plays, first_seed) as lines:
            try:
                async with asyncio.timeout(limits.REHEARSAL_SECONDS_MAX):
                    async for line in lines:
                        done.append(_play_of(line))
                        yield Rehearsed(plays_done=len(done), plays=plays)
            except TimeoutError as error:
                raise LimitExceededError(
                    f"{len(done)} of {plays} plays took {limits.REHEARSAL_SECONDS_MAX:.0f} s",
                    field="plays",
                    remedy=f"ask for at most {max(1, len(done))} plays",
                ) from error
        assert len(done) == plays, "the process ended early"
        yield Rehearsed(plays_done=plays, plays=plays, report=summarise(done, horizon_seconds=stage.horizon_seconds))

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None, None]:
        if self._running >= limits.REHEARSALS_AT_ONCE_MAX:
            raise LimitExceededError(
                f"{self._running} rehearsals are running", remedy="wait until one of them has ended, then ask again"
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


@asynccontextmanager
async def _started(
    stage: Stage, assumptions: Assumptions, plays: int, first_seed: int
) -> AsyncGenerator[asyncio.StreamReader, None]:
    """The lines that the process writes, one a play; it is gone when the block ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", PROCESS, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None, "it has pipes"
    assert process.stdout is not None, "it has pipes"
    try:
        process.stdin.write(pickle.dumps((stage, assumptions, plays, first_seed)))
        process.stdin.close()
        yield process.stdout
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _play_of(line: bytes) -> Play:
    fields: dict[str, Any] = json.loads(line)
    return Play(**{**fields, "state": RolloutState(fields["state"])})


def set_stage(inventory: Inventory, *, silent_seconds_max: float) -> Stage:
    """Return the copy of the inventory on which plays happen."""
    strategy, deployment = inventory.request.strategy, inventory.deployment
    deadline = strategy.deadline_seconds or limits.REHEARSAL_HORIZON_SECONDS
    return Stage(
        deployment_id=deployment.id,
        model_id=deployment.model_id,
        version=deployment.version,
        target_version=inventory.request.target_version,
        strategy=strategy,
        waves=inventory.waves,
        boxes=tuple(_box(inventory, agent) for agent in sorted(inventory.candidates)),
        artifact_bytes=inventory.target.artifact.size_bytes,
        now=inventory.now,
        silent_seconds_max=silent_seconds_max,
        ticks_max=limits.REHEARSAL_TICKS_MAX,
        # Past its deadline a rollout turns back, which takes a while.
        horizon_seconds=min(2 * deadline, limits.REHEARSAL_HORIZON_SECONDS),
    )


def _box(inventory: Inventory, agent_id: AgentId) -> BoxSpec:
    record, candidate = inventory.scene.records[agent_id], inventory.candidates[agent_id]
    observation = record.observation
    host = observation.host if observation is not None else None
    devices = (observation.devices or ()) if observation is not None else ()
    return BoxSpec(
        agent_id=agent_id,
        labels=dict(record.agent.labels),
        facts=dict(candidate.labels),
        architecture=host.architecture if host is not None else "",
        devices=tuple(Device(device=one.device, capabilities=one.capabilities, properties={}) for one in devices),
        device_class=candidate.device_class,
        fetch_bytes=candidate.fetch_bytes,
        serving_version=inventory.deployment.version_of(agent_id) or 0,
        connected=candidate.connected,
        inferences_per_second=candidate.inferences_per_second,
    )


def check_assumptions(assumptions: Assumptions) -> None:
    """Raise FieldInvalidError for the first assumption that is out of bounds."""
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("message_loss_per_mille", assumptions.message_loss_per_mille, 0, 1000),
        ("offline_per_mille", assumptions.offline_per_mille, 0, 1000),
        ("outage", assumptions.outage_seconds, 1, limits.REHEARSAL_OUTAGE_SECONDS_MAX),
        ("restarts_per_day", assumptions.restarts_per_day, 0, limits.REHEARSAL_RESTARTS_A_DAY_MAX),
        ("install_failures_per_mille", assumptions.install_failures_per_mille, 0, 1000),
        ("errors_per_mille", assumptions.errors_per_mille, 0, 1000),
        (
            "inferences_per_second",
            assumptions.inferences_per_second,
            0,
            limits.REHEARSAL_INFERENCES_PER_SECOND_MAX,
        ),
        (
            "fetch_bytes_per_second",
            assumptions.fetch_bytes_per_second,
            1,
            limits.REHEARSAL_FETCH_BYTES_PER_SECOND_MAX,
        ),
    )
    for name, number, least, most in bounds:
        if not (math.isfinite(number) and least <= number <= most):
            raise FieldInvalidError(
                f"{number:g} is out of bounds", field=f"assumptions.{name}", remedy=f"use {least:g} to {most:g}"
            )


def _check_plays(plays: int) -> int:
    if not 0 <= plays <= limits.REHEARSAL_PLAYS_MAX:
        raise FieldInvalidError(
            f"{plays} plays are out of bounds",
            field="plays",
            remedy=f"use 1 to {limits.REHEARSAL_PLAYS_MAX}, or 0 for {limits.REHEARSAL_PLAYS_DEFAULT}",
        )
    return plays or limits.REHEARSAL_PLAYS_DEFAULT


def _check_size(agents: int, plays: int) -> None:
    most = limits.REHEARSAL_BOXES_MAX // agents
    if plays > most:
        remedy = f"ask for at most {most} plays" if most else "rehearse it on a deployment of a part of the agents"
        raise LimitExceededError(f"{plays} plays of {agents} agents are too many", field="plays", remedy=remedy)
