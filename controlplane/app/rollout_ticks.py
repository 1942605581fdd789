"""Ticks: every rollout is carried one step on, again and again. Of several controllers the leader's job.

What holds:
- A tick reads what is stored, takes each rollout one step on and stores the outcome; a tick that finds nothing new
  writes nothing. Whatever a crash cut short, the next tick does.
- A deployment's queued rollout starts at the first tick that finds no other one active.
- Notices go out after the commit. They only hurry: a lost one costs time.
"""

import asyncio
from datetime import datetime

import structlog

from controlplane import limits, observability
from controlplane.app.ports import ChangeNotifier, Clock, IdSource, Store, UnitOfWork
from controlplane.app.rollout_steps import RolloutChanges, RolloutSteps, Scene, plan_targets, read_scene, refresh_scene
from controlplane.domain.errors import LeaseLostError, Reason, StaleWriteError
from controlplane.domain.ids import DeploymentId, RolloutId
from controlplane.domain.rollout import Decision, Rollout, RolloutState
from controlplane.domain.rollout_commands import dequeue, give_up

log = structlog.get_logger(__name__)


class RolloutTicks:
    """Carries rollouts forward, through a store that refuses once another controller leads."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: IdSource,
        notices: ChangeNotifier,
        silent_seconds_max: float = limits.AGENT_SILENT_SECONDS_MAX,
    ) -> None:
        self._store = store
        self._steps = RolloutSteps(silent_seconds_max=silent_seconds_max, listening_since=clock.now())
        self._changes = RolloutChanges(clock=clock, ids=ids, notifier=notices)

    async def tick(self, now: datetime) -> None:
        """Carry every rollout that has not ended forward by one step.

        A rollout that fails to be carried does not hold up the others: what went wrong is raised at the end,
        together, as an ExceptionGroup. Raises LeaseLostError at once when another controller leads.
        """
        failures: list[Exception] = []
        moving, scene = await self._find_moving(now)
        for rollout_id in moving:
            try:
                await self._advance(rollout_id, scene, now)
            except LeaseLostError:
                # Another controller leads: it carries this rollout and the others.
                raise
            except StaleWriteError:
                log.info(observability.ROLLOUT_TICK_OVERTAKEN, rollout=rollout_id)
            except Exception as error:  # noqa: BLE001 - raised below, after the other rollouts had their turn
                failures.append(error)
        if failures:
            raise ExceptionGroup("rollouts could not be carried forward", failures)

    async def _find_moving(self, now: datetime) -> tuple[list[RolloutId], Scene | None]:
        """Rollouts whose next step changes something, active ones first, and the scene that they are part of."""
        async with self._store.read() as uow:
            rollouts = [*await uow.rollouts.list_active(), *await uow.rollouts.list_queued()]
            self._steps.forget_others(rollout.id for rollout in rollouts)
            if not rollouts:
                return [], None
            scene, moving = await read_scene(uow), []
            for rollout in rollouts:
                # The event loop has its turn: to look at a fleet of thousands takes long.
                await asyncio.sleep(0)
                if (await self._decide(uow, scene, rollout, now)).rollout != rollout:
                    moving.append(rollout.id)
            return moving, scene

    async def _advance(self, rollout_id: RolloutId, scene: Scene | None, now: datetime) -> None:
        async with self._store.write() as uow:
            rollout = await uow.rollouts.get(rollout_id)
            decision = await self._decide(uow, await refresh_scene(uow, scene), rollout, now)
            if decision.rollout == rollout:
                return
            stored = await self._changes.store(uow, rollout, decision, now)
        self._changes.announce(stored)

    async def _decide(self, uow: UnitOfWork, scene: Scene, rollout: Rollout, now: datetime) -> Decision:
        decision = await self._steps.decide(uow, scene, rollout, now)
        if decision.rollout.state is not RolloutState.QUEUED:
            return decision
        deployment = scene.deployments.get(rollout.deployment_id)
        if deployment is None:
            message = f"deployments/{rollout.deployment_id} was deleted before it began"
            return give_up(rollout, "DEPLOYMENT_DELETED", message, now)
        if await _is_moved(uow, deployment.id):
            return decision
        if not scene.targets[deployment.id]:
            message = f"deployments/{deployment.id} holds no agent that it could move"
            return give_up(rollout, Reason.SELECTION_EMPTY, message, now)
        waves = plan_targets(rollout.strategy, deployment, rollout.target_version, scene)
        return dequeue(rollout, deployment, waves, now)


async def _is_moved(uow: UnitOfWork, deployment_id: DeploymentId) -> bool:
    return any(active.deployment_id == deployment_id for active in await uow.rollouts.list_active())
