"""Lineage: from a version back to its samples and base versions, and forward to its rollouts and stations."""

from collections.abc import Sequence

from controlplane import limits
from controlplane.app.datasets import Datasets
from controlplane.app.ports import Store, UnitOfWork
from controlplane.domain.ids import DeploymentId, ModelId
from controlplane.domain.lineage import AgentUse, Ancestor, Lineage, RolloutUse, Training, count_origins
from controlplane.domain.promotion import Promotion
from controlplane.domain.rollout import Rollout
from controlplane.domain.training_run import TrainingRun

_PLACES = ("site", "line", "station")


class Lineages:
    """Follows versions. It reads who labelled and where samples came from, held-out ones too, and tells counts."""

    def __init__(self, *, store: Store, datasets: Datasets) -> None:
        self._store = store
        self._datasets = datasets

    async def get(self, model_id: ModelId, version: int) -> Lineage:
        """Follow the version. Raises ResourceNotFoundError for an unknown one."""
        ancestors: list[Ancestor] = []
        number: int | None = version
        while number is not None and len(ancestors) < limits.LINEAGE_DEPTH_MAX:
            ancestor = await self._ancestor(model_id, number)
            ancestors.append(ancestor)
            number = _next(ancestor, ancestors)
        async with self._store.read() as uow:
            rollouts = await _rollouts(uow, model_id, version)
            agents = await _agents(uow, model_id, version)
        return Lineage(ancestors=tuple(ancestors), rollouts=rollouts, agents=agents, truncated=number is not None)

    async def _ancestor(self, model_id: ModelId, number: int) -> Ancestor:
        async with self._store.read() as uow:
            version = await uow.models.get_version(model_id, number)
            promotion = await uow.promotions.find_version(model_id, number)
            run = await uow.training_runs.get(promotion.run_id) if promotion is not None else None
        training = await self._training(promotion, run) if promotion is not None and run is not None else None
        return Ancestor(model_id=model_id, version=number, create_time=version.create_time, training=training)

    async def _training(self, promotion: Promotion, run: TrainingRun) -> Training:
        items = [*await self._datasets.items(run.dataset_id), *await self._datasets.holdout(run.dataset_id)]
        return Training(
            run_id=run.id,
            trainer=run.trainer,
            dataset_id=run.dataset_id,
            base_version=run.base_version,
            origins=count_origins(items),
            judgement="; ".join(promotion.judgement.reasons),
            decider=promotion.decider,
        )


def _next(ancestor: Ancestor, seen: Sequence[Ancestor]) -> int | None:
    """The base to go on with. A run whose candidate has the very bytes of an older version would lead round in a
    circle."""
    if ancestor.training is None:
        return None
    base = ancestor.training.base_version
    return None if base in {one.version for one in seen} else base


async def _rollouts(uow: UnitOfWork, model_id: ModelId, version: int) -> tuple[RolloutUse, ...]:
    """Newest first, of the deployments that there are."""
    found: list[Rollout] = []
    for deployment in await uow.deployments.list_all():
        if deployment.model_id == model_id:
            found += [one for one in await _recent(uow, deployment.id) if one.target_version == version]
    newest = sorted(found, key=lambda rollout: rollout.uid, reverse=True)
    return tuple(
        RolloutUse(
            rollout_id=rollout.id,
            deployment_id=rollout.deployment_id,
            state=rollout.state,
            create_time=rollout.create_time,
        )
        for rollout in newest[: limits.LINEAGE_ROLLOUTS_MAX]
    )


async def _recent(uow: UnitOfWork, deployment_id: DeploymentId) -> Sequence[Rollout]:
    return await uow.rollouts.list(deployment_id=deployment_id, before=None, limit=limits.PAGE_SIZE_MAX)


async def _agents(uow: UnitOfWork, model_id: ModelId, version: int) -> tuple[AgentUse, ...]:
    """By id."""
    serving: list[AgentUse] = []
    for record in await uow.agents.list_all():
        observation = record.observation
        slot = observation.observed.slot(model_id) if observation is not None else None
        if observation is not None and slot is not None and slot.serving_version == version:
            labels = record.agent.labels
            place = "/".join(labels[key] for key in _PLACES if labels.get(key))
            serving.append(AgentUse(agent_id=record.agent.id, place=place, receive_time=observation.receive_time))
    return tuple(serving)
