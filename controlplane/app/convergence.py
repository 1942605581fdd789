"""Convergence: the desired state of every agent, materialised from deployments, pins and active rollouts.

Level-triggered: every run recomputes everything and writes only what differs, so a run too many changes
nothing and a run that was lost is made good by the next. So it is with the conditions of deployments.

What one agent should run depends on no other agent, so a fleet is gone through in parts, and the event loop has its
turn in between: ten thousand agents at once would hold up every stream for most of a second.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from controlplane import limits
from controlplane.app.drift_flags import find_flagged
from controlplane.app.ports import ChangeNotifier, Store, UnitOfWork
from controlplane.app.retries import retry_stale
from controlplane.domain.assignment import DesiredSlot, DesiredState, Standing, assign, revise
from controlplane.domain.condition import Condition
from controlplane.domain.deployment import Deployment
from controlplane.domain.deployment_conditions import Reach, find_reach, join_reach, judge
from controlplane.domain.ids import AgentId, DeploymentId, ModelId


async def read_standing(uow: UnitOfWork, agent_ids: Collection[AgentId] | None = None) -> Standing:
    """Read everything that decides who should run what, or what these agents should: what one agent should run depends
    on no other agent."""
    return Standing(
        agents=await (uow.agents.list_all() if agent_ids is None else uow.agents.list_of(agent_ids)),
        deployments=await uow.deployments.list_all(),
        rollouts=await uow.rollouts.list_active(),
        pins=await uow.pins.list_all(),
        yanked=await uow.models.list_yanked(),
        stored=await (uow.desired.list_all() if agent_ids is None else uow.desired.list(agent_ids)),
    )


async def converge(uow: UnitOfWork, agent_ids: Collection[AgentId] | None = None) -> tuple[AgentId, ...]:
    """Save the desired states that changed, within the caller's write transaction; return their agents. With
    `agent_ids` the change concerns these agents alone, and only they are looked at.

    The caller passes them to `ChangeNotifier.desired_changed` once the transaction has committed.
    """
    changed = await find_changes(uow, agent_ids)
    if changed:
        await uow.desired.save(changed)
    return tuple(state.agent_id for state in changed)


async def find_changes(uow: UnitOfWork, agent_ids: Collection[AgentId] | None = None) -> Sequence[DesiredState]:
    """Return the desired states that differ from the stored ones, each with its next generation."""
    standing = await read_standing(uow, agent_ids)
    return revise(await find_wanted(standing), standing.stored)


async def find_wanted(standing: Standing) -> Mapping[AgentId, tuple[DesiredSlot, ...]]:
    """As `assign`, part by part."""
    wanted: dict[AgentId, tuple[DesiredSlot, ...]] = {}
    async for part in _parts(standing):
        wanted |= assign(part)
    return wanted


async def find_conditions(
    standing: Standing,
    wanted: Mapping[AgentId, tuple[DesiredSlot, ...]],
    drifted: Collection[tuple[AgentId, ModelId]],
    now: datetime,
) -> Mapping[DeploymentId, tuple[Condition, ...]]:
    """Return the conditions of the deployments whose conditions are not those that are stored; `wanted` is what should
    run on this standing."""
    reaches: dict[DeploymentId, list[Reach]] = {deployment.id: [] for deployment in standing.deployments}
    async for part in _parts(standing):
        for deployment_id, reach in find_reach(part, wanted).items():
            reaches[deployment_id].append(reach)
    found = {
        deployment.id: judge(
            deployment,
            join_reach(reaches[deployment.id]),
            version_yanked=deployment.version is not None
            and (deployment.model_id, deployment.version) in standing.yanked,
            drifted=drifted,
            now=now,
        )
        for deployment in standing.deployments
    }
    return {one.id: found[one.id] for one in standing.deployments if found[one.id] != one.conditions}


async def _parts(standing: Standing) -> AsyncIterator[Standing]:
    """The standing of some agents after the others, in their order."""
    for first in range(0, len(standing.agents), limits.ASSIGNED_A_TURN):
        if first:
            await asyncio.sleep(0)
        yield replace(standing, agents=standing.agents[first : first + limits.ASSIGNED_A_TURN])


class Convergence:
    """Brings every agent's desired state up to date, and what deployments say of it."""

    def __init__(
        self, *, store: Store, notifier: ChangeNotifier, see: Callable[[Standing, datetime], None] = lambda *_: None
    ) -> None:
        """`see` is shown what each round has read."""
        self._store = store
        self._notifier = notifier
        self._see = see

    async def run(self, agent_ids: Collection[AgentId] | None = None) -> tuple[AgentId, ...]:
        """Recompute all desired states, or those of `agent_ids`; return the agents whose state changed, sorted.

        Reads first, and opens the one write transaction only when there is something to write.
        """
        async with self._store.read() as uow:
            if not await find_changes(uow, agent_ids):
                return ()
        changed = await retry_stale(lambda: self._write(agent_ids))
        self._notifier.desired_changed(changed)
        return changed

    async def round(self, now: datetime) -> None:
        """`run`, then refresh the conditions of deployments; of several controllers the leader's job."""
        standing, drifted = await self._look(now)
        wanted = await find_wanted(standing)
        if revise(wanted, standing.stored):
            self._notifier.desired_changed(await retry_stale(lambda: self._write(None)))
            standing, drifted = await self._look(now)
            wanted = await find_wanted(standing)
        found = await find_conditions(standing, wanted, drifted, now)
        if found:
            await retry_stale(lambda: self._write_conditions(standing.deployments, found))

    async def _look(self, now: datetime) -> tuple[Standing, Collection[tuple[AgentId, ModelId]]]:
        async with self._store.read() as uow:
            standing = await read_standing(uow)
            drifted = await _drifted(uow)
        self._see(standing, now)
        return standing, drifted

    async def _write_conditions(
        self, seen: Sequence[Deployment], found: Mapping[DeploymentId, tuple[Condition, ...]]
    ) -> None:
        """Of the deployments that still are as they were seen; the next round sees to the others."""
        async with self._store.write() as uow:
            stored = {deployment.id: deployment for deployment in await uow.deployments.list_all()}
            for deployment in seen:
                if deployment.id in found and stored.get(deployment.id) == deployment:
                    await uow.deployments.set_conditions(deployment.id, found[deployment.id])

    async def _write(self, agent_ids: Collection[AgentId] | None) -> tuple[AgentId, ...]:
        async with self._store.write() as uow:
            return await converge(uow, agent_ids)


async def _drifted(uow: UnitOfWork) -> Collection[tuple[AgentId, ModelId]]:
    return frozenset((drift.agent_id, drift.model_id) for drift in await find_flagged(uow))
