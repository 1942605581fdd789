"""Explanations: why an agent runs what it runs, from what is stored now."""

from collections.abc import Mapping
from functools import partial

from controlplane import limits
from controlplane.app.convergence import read_standing
from controlplane.app.ports import Clock, Store, UnitOfWork
from controlplane.app.rollout_steps import RolloutSteps, Scene, artifact_bytes
from controlplane.domain.admission import Hold, admit_targets
from controlplane.domain.assignment import Standing, select_targets
from controlplane.domain.errors import ResourceNotFoundError
from controlplane.domain.explanation import Case, SlotExplanation
from controlplane.domain.ids import AgentId, ModelId, RolloutId
from controlplane.domain.slot_explanation import explain


class Explanations:
    """Explains. `silent_seconds_max` as everywhere: after so long without a word an agent is out of reach."""

    def __init__(
        self, *, store: Store, clock: Clock, silent_seconds_max: float = limits.AGENT_SILENT_SECONDS_MAX
    ) -> None:
        self._store = store
        self._clock = clock
        self._silent_seconds_max = silent_seconds_max
        # New ones for each question: they would remember every rollout for good.
        self._steps = partial(RolloutSteps, silent_seconds_max=silent_seconds_max, listening_since=clock.now())

    async def explain(self, agent_id: AgentId, model_id: ModelId | None = None) -> tuple[SlotExplanation, ...]:
        """Return why each slot of the agent runs what it runs, of one model or of all, by slot. Raises
        ResourceNotFoundError for an unknown agent or model, and nothing else: every agent can be explained."""
        async with self._store.read() as uow:
            record = await uow.agents.get(agent_id)
            if model_id is not None and await uow.models.find(model_id) is None:
                raise ResourceNotFoundError(
                    f"models/{model_id} does not exist", field="model", remedy="list the models and name one of them"
                )
            standing = await read_standing(uow)
            queued = await uow.rollouts.list_queued()
            holds = await self._find_holds(uow, standing, agent_id)
        case = Case(
            record=record,
            standing=standing,
            queued=queued,
            holds=holds,
            now=self._clock.now(),
            silent_seconds_max=self._silent_seconds_max,
            clock_skew_seconds_max=limits.CLOCK_SKEW_SECONDS_MAX,
        )
        return explain(case, model_id)

    async def _find_holds(self, uow: UnitOfWork, standing: Standing, agent_id: AgentId) -> Mapping[RolloutId, Hold]:
        """Why each rollout that has the agent in a wave does not release it now, as its next step will see it."""
        scene = Scene(
            records={record.agent.id: record for record in standing.agents},
            deployments={deployment.id: deployment for deployment in standing.deployments},
            targets=select_targets(standing.agents, standing.deployments, standing.pins),
            yanked=standing.yanked,
        )
        holds: dict[RolloutId, Hold] = {}
        steps = self._steps()
        for rollout in standing.rollouts:
            has_it = any(agent_id in wave.agents for wave in rollout.waves)
            if has_it and agent_id in scene.targets.get(rollout.deployment_id, ()):
                now = self._clock.now()
                views = steps.look(rollout, steps.sight(scene, rollout, now))
                admission = admit_targets(rollout, views, now, artifact_bytes=await artifact_bytes(uow, rollout))
                if agent_id in admission.holds:
                    holds[rollout.id] = admission.holds[agent_id]
        return holds
