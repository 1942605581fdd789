"""Explanations: why an agent runs what it runs, from what is stored now."""

from collections.abc import Mapping

from controlplane import limits
from controlplane.app.convergence import read_standing
from controlplane.app.ports import Clock, Store, UnitOfWork
from controlplane.app.windows import Windows
from controlplane.domain.admission import Hold, admit_targets, view_target
from controlplane.domain.assignment import Standing, select_targets
from controlplane.domain.explanation import Case, SlotExplanation
from controlplane.domain.ids import AgentId, ModelId, RolloutId
from controlplane.domain.progress import Sight
from controlplane.domain.rollout import Rollout
from controlplane.domain.selector import facts
from controlplane.domain.slot_explanation import explain


class Explanations:
    """Explains. `silent_seconds_max` as everywhere: after so long without a word an agent is out of reach."""

    def __init__(
        self, *, store: Store, clock: Clock, silent_seconds_max: float = limits.AGENT_SILENT_SECONDS_MAX
    ) -> None:
        self._store = store
        self._clock = clock
        self._silent_seconds_max = silent_seconds_max
        self._listening_since = clock.now()

    async def explain(self, agent_id: AgentId, model_id: ModelId | None = None) -> tuple[SlotExplanation, ...]:
        """Return why each slot of the agent runs what it runs, of one model or of all, by slot. Raises
        ResourceNotFoundError for an unknown agent, and nothing else: every agent can be explained."""
        async with self._store.read() as uow:
            record = await uow.agents.get(agent_id)
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
        """Why each rollout that has the agent in a wave does not release it now."""
        targets = select_targets(standing.agents, standing.deployments, standing.pins)
        holds: dict[RolloutId, Hold] = {}
        for rollout in standing.rollouts:
            held = targets.get(rollout.deployment_id, ())
            if agent_id in held and any(agent_id in wave.agents for wave in rollout.waves):
                hold = self._admit(standing, rollout, held, await _artifact_bytes(uow, rollout)).get(agent_id)
                if hold is not None:
                    holds[rollout.id] = hold
        return holds

    def _admit(
        self, standing: Standing, rollout: Rollout, held: tuple[AgentId, ...], artifact_bytes: int
    ) -> Mapping[AgentId, Hold]:
        now, windows = self._clock.now(), Windows(rollout.strategy.windows)
        records = {record.agent.id: record for record in standing.agents}
        sight = Sight(
            targets={agent_id: records[agent_id] for agent_id in held},
            offer=next(one.offer for one in standing.deployments if one.id == rollout.deployment_id),
            now=now,
            silent_seconds_max=self._silent_seconds_max,
            listening_since=self._listening_since,
        )
        views = {
            agent_id: view_target(record, rollout, sight, swap_open=windows.swap_open(facts(record), now))
            for agent_id, record in sight.targets.items()
        }
        return admit_targets(rollout, views, now, artifact_bytes=artifact_bytes).holds


async def _artifact_bytes(uow: UnitOfWork, rollout: Rollout) -> int:
    """As the tick reads it: the size of what is fetched, 0 where bytes are not paced."""
    if not rollout.strategy.bytes_per_second_per_site:
        return 0
    return (await uow.models.get_version(rollout.model_id, rollout.target_version)).artifact.size_bytes
